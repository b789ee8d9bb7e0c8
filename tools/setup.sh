# Installs what the build and the tests need, once. Sourced by demo.sh and test.sh; offline when all is there.
# Arguments: names of Python packages for the virtual environment in .venv (none: no environment).

packages="gcc libc6-dev meson ninja-build pkg-config libarchive-dev libprotobuf-c-dev protobuf-c-compiler libfuse3-dev fuse3
 libjansson-dev libcmocka-dev libpng-dev libjpeg62-turbo-dev zlib1g-dev python3 python3-venv"

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
    echo "need root or sudo to install packages: $*" >&2
    exit 1
  fi
}

install_packages() {
  missing=
  for p in $packages; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
  done
  [ -z "$missing" ] && return
  echo "installing:$missing"
  as_root apt-get update -q >/dev/null
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >/dev/null
}

install_python() {
  [ $# = 0 ] && return
  for p in "$@"; do
    name=${p%%[<=>]*}
    .venv/bin/python -c "import $name" 2>/dev/null && continue
    .venv/bin/python -m pip --version >/dev/null 2>&1 || python3 -m venv --clear .venv || return # anew after one cut short
    .venv/bin/python -m pip install -q --disable-pip-version-check "$p" || return
  done
}

build() { # folder, then meson options
  folder=$1
  shift
  if [ -f "$folder/build.ninja" ]; then how=configure; else how=setup; fi
  [ "$how $#" = "configure 0" ] || meson "$how" "$folder" "$@" >"$folder.log" 2>&1 || { cat "$folder.log"; return 1; }
  ninja -C "$folder" >"$folder.log" 2>&1 || { tail -n 40 "$folder.log"; return 1; }
}
