#!/bin/sh
# usage: tests/fuzz/campaign.sh SECONDS [TARGET…]
#
# Builds the fuzz targets with clang, libFuzzer, ASan and UBSan in build-fuzz, seeds each from its regression data and from the
# shared files of its kind where they are present, and runs it for that long (all targets when none is named; FUZZ_JOBS of them
# at once, default 1). Corpora stay in build-fuzz/corpus; what is found lies in build-fuzz/found. The last lines say for each
# target how many inputs ran and whether something was found; exit code 1 when something was.
set -eu
only=${1:-}
[ "$only" != run ] || shift
source=$(cd "$(dirname "$0")/../.." && pwd)
build=$source/build-fuzz
seconds=${1:?usage: campaign.sh SECONDS [TARGET…]}
shift
# Shared files of a target's kind, small ones; found by name, because that is how they are stored.
shared_seeds() {
  from="$source/../shared/reference $source/../shared/corpus $source/tests/data"
  case $1 in
    pte|vm) find $from -name '*.pte' -size -200k ;;
    bpte) find $from -name '*.bpte' -size -200k ;;
    ptd) find $from -name '*.ptd' -size -200k ;;
    model) find $from -name 'model.mlmodel' -size -64k ;;
    mil_text) find $from -name 'model.mil' -size -200k ;;
    weights|blob) find $from -name 'weight.bin' -size -64k ;;
    manifest) find $from -name Manifest.json ;;
    coremldata) find $from -name coremldata.bin ;;
    npz) find $from -name '*.npz' -size -64k ;;
    container|views) find $from \( -name '*.pte' -o -name '*.mlmodel' \) -size -64k ;;
  esac 2> /dev/null || true
}

run() {
  corpus=$build/corpus/$1 found=$build/found/$1
  mkdir -p "$corpus" "$found"
  shared_seeds "$1" | while read -r f; do
    to=$corpus/$(sha1sum "$f" | cut -c1-16)
    if [ "$1" = vm ]; then { printf '\001'; cat "$f"; } > "$to"; else cp "$f" "$to"; fi # its inputs have a byte of their own in front
  done
  dict=$source/tests/fuzz/$1.dict
  [ -f "$dict" ] && dict=-dict=$dict || dict=
  timeout $((seconds + 300)) "$build/tests/fuzz/fuzz-$1" $dict -max_total_time="$seconds" -timeout=200 -rss_limit_mb=2048 -max_len=262144 \
    -artifact_prefix="$found/" -print_final_stats=1 "$corpus" "$source/tests/data/fuzz/$1" > "$build/$1.log" 2>&1 || echo "exit code $?" >> "$build/$1.log"
}

[ "$only" != run ] || { run "$1"; exit 0; }

[ -d "$build" ] || CC=clang meson setup "$build" "$source" -Dfuzzers=true -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false > /dev/null
names=${*:-$(sed -n "s/^fuzz_targets += \[\(.*\)\]/\1/p" "$source/tests/fuzz/meson.build" | tr -d "',")}
ninja -C "$build" $(for n in $names; do echo "tests/fuzz/fuzz-$n"; done) > "$build/build.log" || { tail -30 "$build/build.log"; exit 1; }

printf '%s\n' $names | xargs -P "${FUZZ_JOBS:-1}" -I NAME "$0" run "$seconds" NAME
bad=0
for n in $names; do
  count=$(find "$build/found/$n" -type f ! -name 'slow-unit*' | wc -l)
  inputs=$(sed -n 's/stat::number_of_executed_units: //p' "$build/$n.log" | tail -1)
  coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$build/$n.log" | tail -1)
  if [ "$count" -gt 0 ] || [ -z "$inputs" ] || grep -q '^exit code' "$build/$n.log"; then bad=1; verdict="FOUND $count, see $build/$n.log"; else verdict=clean; fi
  printf '%-12s %5s s %10s inputs  coverage %6s  %s\n' "$n" "$seconds" "${inputs:-?}" "${coverage:-?}" "$verdict"
done
exit $bad
