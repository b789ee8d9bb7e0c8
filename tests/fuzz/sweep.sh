#!/bin/sh
# usage: tests/fuzz/sweep.sh [SANITIZED [PLAIN [FILE…]]]
#
# Every file of ../shared/corpus, whatever its size, whole, cut at every 1/64 and with 2,000 bits turned one by one, through
# opening, listing, reading and verifying, all in one process a file. SANITIZED (default build-asan) is a build folder made with
#   meson setup build-asan -Db_sanitize=address,undefined
# and finds what crashes. PLAIN (default build) is one without sanitizers, in which the peak of resident memory is measured: at
# most 64 MB over all variants of a file, its own copies in the driver included. Nothing may take over 20 minutes.
# One line a file: seconds, peak memory, verdict. Exit code 1 when one failed.
set -eu
source=$(cd "$(dirname "$0")/../.." && pwd)
sanitized=${1:-$source/build-asan} plain=${2:-$source/build}
[ $# -lt 2 ] && shift $# || shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export REPLAY_FLIPS="${REPLAY_FLIPS:-2000}"
[ $# -gt 0 ] || set -- $(find "$source/../shared/corpus" -type f ! -name '*.md')
bad=0
for file; do
  rm -rf "$work/one" && mkdir "$work/one" && cp "$file" "$work/one/"
  python3 - "$plain/tests/fuzz/replay-container" "$sanitized/tests/fuzz/replay-container" "$work/one" "$file" 2> "$work/log" << 'P' || { bad=$((bad + 1)); tail -40 "$work/log"; }
import os, resource, subprocess, sys, time
start = time.monotonic()
codes = []
for i, program in enumerate(sys.argv[1:3]):
    try:
        codes.append(subprocess.run([program, sys.argv[3]], stdout=subprocess.DEVNULL, timeout=1200).returncode)
    except subprocess.TimeoutExpired:
        codes.append('hangs')
    if i == 0:
        kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
good = codes == [0, 0] and kb <= 64 << 10
print(f'{time.monotonic() - start:7.1f} s {kb / 1024:6.1f} MB  {"ok" if good else f"FAILED {codes}"}  {os.path.basename(os.path.dirname(sys.argv[4]))}/{os.path.basename(sys.argv[4])}', flush=True)
sys.exit(not good)
P
done
echo "$# files, $bad failed"
[ "$bad" -eq 0 ]
