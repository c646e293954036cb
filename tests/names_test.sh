#!/usr/bin/env bash
# No function of ours has the name of one in a library that we link: the linker would take ours for theirs without a word. TAP. Arguments: the
# program, the build folder. (Ours are read from the archives of the rooms: in the program they are local, like static ones, which do no harm.)
brim=$1 build=$2
work=$(mktemp -d /tmp/brim-names-XXXXXX)
trap 'rm -rf "$work"' EXIT
echo 1..1
nm --defined-only "$build"/src/libbrim-*.a 2>/dev/null | awk '$2 ~ /^[TDBR]$/ {print $3}' | sort -u >"$work/ours"
ldd "$brim" | awk '$3 ~ /^\// && $3 !~ /lib(asan|tsan|ubsan|c|m)\.so/ {print $3}' | while read -r library; do
    nm -D --defined-only "$library" | awk '$2 ~ /^[TDBRW]$/ {print $3}' | sed 's/@.*//'
done | sort -u | grep -v -e '^_' -e '^main$' >"$work/theirs"
[ -s "$work/theirs" ] && [ -s "$work/ours" ] || { echo "not ok 1 - names # nothing was read"; exit 0; }
if [ -z "$(comm -12 "$work/ours" "$work/theirs")" ]; then echo "ok 1 - no name is used twice"
else echo "not ok 1 - no name is used twice"; comm -12 "$work/ours" "$work/theirs" | sed 's/^/# /'; fi
