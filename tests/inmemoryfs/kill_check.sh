#!/bin/sh
# flatten, unflatten and extract killed at any moment leave the whole result under its name, or none; stopped by SIGINT, nothing at all.
# usage: kill_check.sh CMLPACK. Prints TAP.
cmlpack=$(realpath "$1") || exit 99
top=$(mktemp -d "${TMPDIR:-/tmp}/cml-kill-XXXXXX") || exit 99
trap 'rm -rf "$top"' EXIT
cd "$top" || exit 99
mkdir -p tree/a/b
i=0
while [ $i -lt 300 ]; do # several folders: they are written by several threads
  mkdir -p "tree/a/$((i % 7))"
  echo "$i" >"tree/a/$((i % 7))/$i"
  i=$((i + 1))
done
head -c 30000000 /dev/urandom >tree/a/b/large
"$cmlpack" flatten tree blob && "$cmlpack" extract blob whole || exit 99

# The result when it is there must be whole. $1: signal, $2: seconds until it comes, then the command; gives "bad" or "left".
strike() {
  signal=$1 delay=$2
  shift 2
  "$@" 2>/dev/null &
  pid=$!
  sleep "$delay"
  kill "-$signal" $pid 2>/dev/null
  wait $pid 2>/dev/null
}

killed=0 wrong=0
for delay in 0 0.001 0.002 0.004 0.006 0.008 0.01 0.012 0.014 0.016 0.02 0.03 0.05 0.08 0.12 0.2; do
  strike KILL $delay "$cmlpack" flatten tree out.bin
  if [ -e out.bin ]; then cmp -s blob out.bin || wrong=$((wrong + 1)); else killed=$((killed + 1)); fi
  rm -f out.bin
  strike KILL $delay "$cmlpack" unflatten blob out
  if [ -e out ]; then diff -r tree out >/dev/null || wrong=$((wrong + 1)); else killed=$((killed + 1)); fi
  rm -rf out .cml-tmp-*
  strike KILL $delay "$cmlpack" extract blob out
  if [ -e out ]; then diff -r whole out >/dev/null || wrong=$((wrong + 1)); else killed=$((killed + 1)); fi
  rm -rf out .cml-tmp-*
done
if [ $wrong = 0 ] && [ $killed -gt 0 ]; then echo "ok 1 - SIGKILL leaves all or nothing ($killed of 48 struck in time)"
else echo "not ok 1 - SIGKILL: $wrong results are half done, $killed struck in time"; fi

left=0
for delay in 0.001 0.003 0.005 0.008 0.01 0.015; do
  # a shell's background jobs ignore SIGINT, so SIGTERM stands for it: both take the same way
  strike TERM $delay "$cmlpack" flatten tree out.bin
  strike TERM $delay "$cmlpack" unflatten blob out
  [ -z "$(ls -A | grep -v -x -e tree -e blob -e whole -e out -e out.bin)" ] || left=$((left + 1))
  [ ! -e out ] || diff -r tree out >/dev/null || left=$((left + 1))
  rm -rf out out.bin
done
if [ $left = 0 ]; then echo "ok 2 - a stopped command cleans up behind itself"
else echo "not ok 2 - $left times something was left behind"; fi
echo 1..2
