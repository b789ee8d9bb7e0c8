#!/bin/sh
# Installs what is missing, builds, and runs all tests: once as shipped, once with AddressSanitizer and UBSan.
# The closing line counts single tests.
set -eu
cd "$(dirname "$0")/.."
. tools/setup.sh
install_packages
install_python 'numpy<2.4' || echo "no numpy: tests that need it will be skipped"
[ -x .venv/bin/python ] && export CML_PYTHON="$PWD/.venv/bin/python"

build build -Dtests=true
build build-asan -Db_sanitize=address,undefined -Dbuildtype=debugoptimized -Db_lundef=false
code=0
for folder in build build-asan; do
  echo "testing $folder"
  meson test -C "$folder" --no-rebuild -q --print-errorlogs -t 4 || code=1 # four times the time: machines are slow or busy
done
python3 tools/count_tests.py build/meson-logs/testlog.json build-asan/meson-logs/testlog.json || code=1
exit $code
