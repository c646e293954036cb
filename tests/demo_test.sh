#!/usr/bin/env bash
# ./run demo --headless with the brim of this build. TAP, one test.
BRIM="$(realpath "$1")" BRIM_DEMO="$(realpath "$2")"
export BRIM BRIM_DEMO BRIM_DEMO_ANY_SPEED=yes # no test depends on the machine's speed
export BRIM_DEMO_SECONDS=6                     # a sanitizer draws 6 pictures a second
cd "$(dirname "$0")/.." || exit 1
echo "1..1"
if tools/demo.sh --headless >"$BRIM_DEMO.log" 2>&1 </dev/null; then echo "ok 1 - demo"; else echo "not ok 1 - demo"; grep -h "NOT RIGHT" "$BRIM_DEMO.log" | sed 's/^/# /'; fi
sed 's/^/# /' "$BRIM_DEMO.log"
