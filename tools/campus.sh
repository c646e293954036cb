#!/usr/bin/env bash
# MOTA and IDF1 of the tracker on the CAMPUS boxes ($BRIM_DATA/tracks/campus_split/dev), degraded by stated miss, jitter and false-positive rates, and
# with every N-th frame only. The table of docs/results.md.
set -eu
cd "$(dirname "$0")/.."
brim="${BRIM:-build/brim}"
data="${BRIM_DATA:-../shared/data}/tracks/campus_split/dev"
echo "| view | every | no faults | miss .1, jitter .05, fp .1 | miss .3, jitter .1, fp .3 |"
echo "|---|---|---|---|---|"
for f in "$data"/*.txt; do
    for n in 1 3 6; do
        row="| $(basename "$f" .txt) | $n |"
        for d in miss=0,jitter=0,fp=0 miss=0.1,jitter=0.05,fp=0.1 miss=0.3,jitter=0.1,fp=0.3; do
            row="$row $("$brim" eval tracks --truth "$f" --degrade $d --fps 29.97 --every $n --seed 1 --json |
                python3 -c 'import json, sys; j = json.load(sys.stdin); print("%.3f / %.3f" % (j["mota"], j["idf1"]))') |"
        done
        echo "$row"
    done
done
