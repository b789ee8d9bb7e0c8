#!/bin/sh
# A session on the shipped model: installs and builds what is missing, mounts a .pte, looks inside, and runs it.
set -eu
cd "$(dirname "$0")/.."
. tools/setup.sh
install_packages
if [ -f build/build.ninja ]; then build build; else build build -Dtests=false; fi # test.sh builds the tests too, in the same folder
PATH=$PWD/build/tools:$PATH
data=tests/data/digits
place=$(mktemp -d)/digits
trap 'cmlfs umount "$place" 2>/dev/null || :; rmdir "$(dirname "$place")" 2>/dev/null || :' EXIT

say() { printf '\n$ %s\n' "$*"; "$@"; }

echo "digits.pte is an ExecuTorch program: a small network that reads handwritten digits, in one Core ML delegate."
say cmlpack info $data/digits.pte
say cmlpack verify $data/digits.pte
if [ -e /dev/fuse ] && say cmlfs mount $data/digits.pte "$place"; then
  say ls -R "$place"
  say cat "$place/forward/method.txt"
  say cmlfs umount "$place"
else
  echo "no FUSE here: listing instead"
  say cmlpack ls -R $data/digits.pte
fi
say cmlrun describe $data/digits.pte
say cmlrun predict $data/digits.pte --input $data/inputs.npz
right=0 all=0
for image in $data/images/*.pgm; do
  label=${image##*/digit}
  label=${label%%_*}
  all=$((all + 1))
  guess=$(cmlrun predict $data/digits-classifier.mlpackage --input image="$image" | sed -n 's/^classLabel: *//p')
  [ "$guess" = "$label" ] && right=$((right + 1))
  printf '%s is a %s, cml says %s\n' "${image##*/}" "$label" "$guess"
done
echo "$right of $all images right"
