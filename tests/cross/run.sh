#!/bin/sh
# Builds the kernels for ARM64 and runs their tests under qemu-user. usage: run.sh SOURCE FOLDER
command -v aarch64-linux-gnu-gcc >/dev/null || { echo "1..0 # SKIP no aarch64-linux-gnu-gcc"; exit 0; }
command -v qemu-aarch64 >/dev/null || { echo "1..0 # SKIP no qemu-aarch64"; exit 0; }
command -v meson >/dev/null || { echo "1..0 # SKIP no meson on PATH"; exit 0; }
[ -f "$2/build.ninja" ] || meson setup --cross-file "$1/cross/aarch64-linux-gnu.ini" "$2" "$1/tests/cross" >"$2.log" 2>&1 || { cat "$2.log" >&2; echo "not ok 1 - set up"; echo 1..1; exit 1; }
ninja -C "$2" -j2 >"$2.log" 2>&1 || { tail -30 "$2.log" >&2; echo "not ok 1 - build"; echo 1..1; exit 1; }
echo 1..3
n=0
for test in kernels compressed integer-drivers; do
  n=$((n + 1))
  qemu-aarch64 -L /usr/aarch64-linux-gnu "$2/test-$test" >&2 && echo "ok $n - $test" || echo "not ok $n - $test"
done
