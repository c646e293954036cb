#!/usr/bin/env bash
# Every header compiles alone: a program of nothing but that include. TAP; one test per header.
cd "$1/src" || exit 1
mapfile -t headers < <(find . -name '*.h' | sed 's|^\./||' | sort)
echo "1..${#headers[@]}"
n=0
for h in "${headers[@]}"; do
    n=$((n + 1))
    if echo "#include \"$h\"" | cc -std=gnu17 -D_GNU_SOURCE -fsyntax-only -Wall -Wextra -Werror -I. -x c - 2>/tmp/brim-header.$$; then
        echo "ok $n - $h"
    else
        echo "not ok $n - $h"; sed 's/^/# /' /tmp/brim-header.$$
    fi
done
rm -f /tmp/brim-header.$$
