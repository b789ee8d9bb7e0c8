#!/bin/sh
# What a user of cmlpack flatten and unflatten meets: results, refusals, exit codes. usage: command_check.sh CMLPACK. Prints TAP.
cmlpack=$(realpath "$1") || exit 99
top=$(mktemp -d "${TMPDIR:-/tmp}/cml-command-XXXXXX") || exit 99
trap 'rm -rf "$top"' EXIT
cd "$top" || exit 99
number=0

# $1: words, $2: the exit code that must come, then the command; standard error goes to `err`.
expect() {
  words=$1 code=$2
  shift 2
  "$@" 2>new
  got=$?
  mv new err
  number=$((number + 1))
  if [ $got = "$code" ]; then echo "ok $number - $words"; else echo "not ok $number - $words (exit code $got: $(cat err))"; fi
}
says() { grep -q -e "$1" err; }
nothing_else() { [ -z "$(ls -A | grep -v -x -e dir -e a.bin -e b.bin -e c.bin -e out -e err -e new -e link -e odd -e text)" ]; }

mkdir -p dir/sub/empty odd
printf one >dir/1
: >dir/sub/none
ln -s /etc/passwd odd/link
echo text >text

expect "flatten" 0 "$cmlpack" flatten dir a.bin
expect "flatten to standard output" 0 sh -c "'$cmlpack' flatten dir/ - >b.bin"
expect "  gives the same bytes" 0 cmp a.bin b.bin
expect "flatten through a pipe" 0 sh -c "'$cmlpack' flatten ./dir - | cat >b.bin"
expect "  gives the same bytes" 0 cmp a.bin b.bin
expect "flatten from within" 0 sh -c "cd dir && '$cmlpack' flatten . ../b.bin"
expect "  gives the same bytes, and the old file is replaced" 0 cmp a.bin b.bin
expect "flatten with a name" 0 "$cmlpack" flatten dir c.bin --name lowered_module --align 0x40
expect "  is another blob" 1 cmp -s a.bin c.bin
expect "  that holds the name" 0 grep -q eludom_derewol c.bin
expect "flatten to a device" 0 "$cmlpack" flatten dir /dev/null
expect "unflatten" 0 "$cmlpack" unflatten c.bin out
expect "  gives the folder back" 0 diff -r dir out
expect "  an existing folder is not touched" 1 "$cmlpack" unflatten a.bin out
expect "  and that is said" 0 says "^cmlpack: out: already exists"
expect "a wrong alignment is a wrong call" 2 "$cmlpack" flatten dir d.bin --align 48
expect "so is none at all" 2 "$cmlpack" flatten dir d.bin --align 0
expect "a name with a slash is refused" 2 "$cmlpack" flatten dir d.bin --name a/b
expect "a missing folder is an error" 1 "$cmlpack" flatten none d.bin
expect "  that names it" 0 says "^cmlpack: none: no such folder"
expect "a file is no folder" 2 "$cmlpack" flatten text d.bin
expect "a symbolic link is refused" 1 "$cmlpack" flatten odd d.bin
expect "  by name" 0 says "link: is a symbolic link"
expect "a folder is not replaced by a file" 1 "$cmlpack" flatten dir out
expect "a place that is not there is an error" 1 "$cmlpack" flatten dir no/where.bin
expect "what is no blob is told so" 1 "$cmlpack" unflatten text out2
expect "  in words" 0 says "text: not a flat blob"
head -c 200 a.bin >b.bin
expect "a blob cut short is refused" 1 "$cmlpack" unflatten b.bin out2
expect "two arguments are needed" 2 "$cmlpack" flatten dir
expect "--help is no error" 0 sh -c "'$cmlpack' unflatten --help | grep -q 'unflatten IN.bin DIR'"
expect "a full device is an error" 1 "$cmlpack" flatten dir /dev/full
expect "nothing is left behind" 0 nothing_else
echo "1..$number"
