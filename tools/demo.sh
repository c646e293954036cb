#!/usr/bin/env bash
# ./run demo: draws a site (once), serves it in the smallest budget that `brim plan` is sure of, and shows the page. --headless: serves it for a while, checks what
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

if [ $headless = yes ]; then
    store=$(mktemp -d) page=0
    trap 'rm -rf "$store"' EXIT
    export BRIM_DEMO_RESULTS="$store/results.jsonl"
else
    store=$BRIM_DEMO/store page=2097152
fi

# The least that is sure to do, as `brim plan` measures it on this machine (weights beyond it are read from the disk before use), and some of the room that the pictures of the page take: weights give way to them, too.
plan=$(BRIM_STORE="$store" "$brim" plan examples/demo.yaml --json) || [ -n "$plan" ] # its status says whether the site file's own budget will do
budget=$(printf %s "$plan" | python3 -c '
import json, sys
print(json.load(sys.stdin)["least_bytes"] + int(sys.argv[1]))' $page)

if [ $headless = yes ]; then
    "$brim" serve examples/demo.yaml --budget "$budget" --store "$store" --seconds 12 --json >"$store/summary.json"
    BRIM="$brim" python3 tools/demo_score.py run "$BRIM_DEMO_RESULTS" "$BRIM_DEMO" crossing=cam1 square=cam2 parking=cam3 side=cam4
    python3 tools/demo_check.py "$store/summary.json"
    exit
fi
echo "budget: the least that \`brim plan\` is sure of, and the page: weights are read from the disk while others are used; \`build/brim mem --store build/demo/store\` shows who has it" >&2
echo "open http://127.0.0.1:$BRIM_DEMO_PORT/ in a browser; Ctrl-C ends it" >&2
exec "$brim" serve examples/demo.yaml --budget "$budget" --store "$store"
