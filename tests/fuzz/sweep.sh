#!/bin/sh
# usage: tests/fuzz/sweep.sh [BUILD [FILE…]]
#
# Every file of ../shared/corpus and of the small reference programs, whole, cut at every 1/64 and with 2,000 bits turned,
# through opening, listing, reading and verifying. BUILD should be a sanitizer build
# (meson setup build-asan -Db_sanitize=address,undefined); memory is measured in one without sanitizers, given as PLAIN.
set -eu
source=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$source/build-asan}
[ $# -gt 0 ] && shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export REPLAY_FLIPS="${REPLAY_FLIPS:-2000}"
if [ $# -eq 0 ]; then
  set -- $(find "$source/../shared/corpus" -type f ! -name '*.md' -size -4096k)
fi
bad=0
for file; do
  rm -rf "$work/one" && mkdir "$work/one" && cp "$file" "$work/one/"
  if [ -n "${PLAIN:-}" ]; then
    python3 - "$PLAIN/tests/fuzz/replay-container" "$work/one" "$file" <<'P' || bad=$((bad + 1))
import resource, subprocess, sys
r = subprocess.run(sys.argv[1:3], capture_output=True)
kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(f'{kb // 1024} MB  {sys.argv[3]}')
sys.exit(r.returncode != 0 or kb > 64 << 10)
P
  fi
  "$build/tests/fuzz/replay-container" "$work/one" > "$work/log" 2>&1 || { bad=$((bad + 1)); echo "FAILED $file"; tail -40 "$work/log"; }
done
echo "$# files, $bad failed"
[ "$bad" -eq 0 ]
