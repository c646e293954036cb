#!/usr/bin/env bash
# ./run demo: draws a site (once), serves it in a budget that holds half of its models' weights, and shows the page. --headless: serves it for a while, checks what
# came out, and scores it against the truth.
set -eu
cd "$(dirname "$0")/.."
brim="${BRIM:-$PWD/build/brim}" # the test runs another build of it
export BRIM_DEMO="${BRIM_DEMO:-$PWD/build/demo}" BRIM_DEMO_PORT="${BRIM_DEMO_PORT:-8090}" BRIM_DEMO_RESULTS=off
seconds="${BRIM_DEMO_SECONDS:-20}" # of video; the test draws less
headless=no
case "${1:-}" in --headless) headless=yes; BRIM_DEMO_PORT=0 ;; "") ;; *) echo "usage: ./run demo [--headless]" >&2; exit 2 ;; esac

if [ ! -f "$BRIM_DEMO/scene.json" ]; then
    echo "drawing a site with four cameras ($seconds s of video; once)" >&2
    rm -rf "$BRIM_DEMO.new"
    "$brim" scene -o "$BRIM_DEMO.new" --cameras 4 --seconds "$seconds" --fps 10 --size 640x360 --seed 7 >&2
    rm -rf "$BRIM_DEMO"; mkdir -p "$(dirname "$BRIM_DEMO")"; mv "$BRIM_DEMO.new" "$BRIM_DEMO"
fi

# All but weights as `brim plan` measures it on this machine, half of the weights (or the least that will do; the others are read from the disk before use), and
# room for the pictures of the page. It begins with more: queues of events and results, which a plan does not know yet, find room before the cameras take theirs.
plan=$("$brim" plan examples/demo.yaml --json) || [ -n "$plan" ] # its status says whether the site file's own budget will do
page=7340032
[ $headless = yes ] && page=0
budget=$(printf %s "$plan" | python3 -c '
import json, sys
p = json.load(sys.stdin)
print(max(p["least_bytes"], p["beside_weights_bytes"] + p["weights_bytes"] // 2) + int(sys.argv[1]))' $page)

begin=$((budget + 8388608))
take_back() { # once it runs
    sleep 2
    "$brim" budget "$budget" --store "$1" >/dev/null || echo "demo: it keeps the $begin bytes that it began with" >&2
}

if [ $headless = yes ]; then
    store=$(mktemp -d)
    trap 'rm -rf "$store"' EXIT
    export BRIM_DEMO_RESULTS="$store/results.jsonl"
    take_back "$store" &
    "$brim" serve examples/demo.yaml --budget "$begin" --store "$store" --seconds 12 --json >"$store/summary.json"
    wait
    BRIM="$brim" python3 tools/demo_score.py run "$BRIM_DEMO_RESULTS" "$BRIM_DEMO" crossing=cam1 square=cam2 parking=cam3 side=cam4
    python3 tools/demo_check.py "$store/summary.json"
    exit
fi
echo "budget: room for half of the models' weights, beside the cameras and the page; \`build/brim mem --store build/demo/store\` shows who has it" >&2
echo "open http://127.0.0.1:$BRIM_DEMO_PORT/ in a browser; Ctrl-C ends it" >&2
take_back "$BRIM_DEMO/store" &
exec "$brim" serve examples/demo.yaml --budget "$begin" --store "$BRIM_DEMO/store"
