#!/usr/bin/env bash
# ./run train-demo [DIR]: remakes the demo's own models, from nothing but brim: sites are drawn, three networks trained on them, scored on sites that no training saw,
# and written to models/demo. A run that was stopped goes on where it was. DIR (default build/train-demo) takes 2 GB. BRIM_DEMO_EPOCHS=N shortens every training.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
brim="${BRIM:-$root/build/brim}" work="${1:-build/train-demo}" labels="$root/tools/demo_labels.py" out="$(realpath -m "${BRIM_DEMO_MODELS:-models/demo}")"
# Seeds; docs/results.md says the same.
train_seeds="101 102 103 111 112 113 114 115 116 117 118" crop_seeds="101 102 103 104 105 106 107" test_seeds="201 202"
mkdir -p "$work" "$out"
cd "$work"

light() { case "$1" in 102|105|106|112|117|202) echo dusk ;; 103|113|116) echo day-to-dusk ;; *) echo day ;; esac; }
drawn() { # SEED options...: once
    local seed=$1; shift
    [ -f "s$seed/done" ] && return 0
    rm -rf "s$seed"
    "$brim" scene -o "s$seed" --size 640x360 --seed "$seed" --light "$(light "$seed")" "$@"
    touch "s$seed/done"
}
trained() { # NAME brim-train-options...: goes on if it was stopped
    local name=$1; shift
    if [ -f "$name/done" ]; then return 0
    elif [ -f "$name/last.brim" ]; then "$brim" train --resume --out "$name"
    else rm -rf "$name"; "$brim" train "$@" ${BRIM_DEMO_EPOCHS:+--epochs "$BRIM_DEMO_EPOCHS"} --out "$name" --priority normal --seed "${seed:-1}"
    fi
    touch "$name/done"
}

drawn 101 --cameras 8 --seconds 60 --fps 1 --coco 1
for s in 102 103; do drawn "$s" --cameras 8 --seconds 50 --fps 1 --coco 1; done
eight="--cameras 8 --seconds 60 --fps 1 --coco 1"
# shellcheck disable=SC2086 # a list of words
{
    drawn 111 $eight --people 26 --vehicles 20
    drawn 112 $eight --people 22 --vehicles 24
    drawn 113 $eight --people 20 --vehicles 24
    drawn 114 $eight --people 30 --vehicles 16
    drawn 115 $eight --people 26 --vehicles 14
    drawn 116 $eight --people 26 --vehicles 18
    drawn 117 $eight --people 26 --vehicles 14
    drawn 118 $eight --people 24 --vehicles 24
}
for s in 104 105; do drawn "$s" --cameras 8 --seconds 60 --fps 0.5 --people 4 --vehicles 50; done # many cars, for their colours
for s in 106 107; do drawn "$s" --cameras 8 --seconds 80 --fps 0.5 --people 4 --vehicles 60; done
for s in $test_seeds; do drawn "$s" --cameras 4 --seconds 20 --fps 10 --coco 10; done
mkdir -p crops
for s in $crop_seeds; do ln -sfn "../s$s" "crops/s$s"; done
crop="--size 64 --mean 127.5 --std 127.5 --batch 32 --optimizer adamw --weight-decay 0.01 --warmup 0.2 --data-every 1 --epochs 8"
# shellcheck disable=SC2086 # a list of words
trained colour classify --model brimcrop --data crops --label colour --category 2 --seen 0.6 --held-out 0 --lr 0.003 --threads 2 --augment flip=0.5,shift=4,brightness=0.15 $crop
mkdir -p cars
for s in $train_seeds $crop_seeds; do ln -sfn "../s$s" "cars/s$s"; done # the detector's sites, too
# shellcheck disable=SC2086
seed=2 trained colour-more classify --model colour/last.onnx --data cars --label colour --category 2 --seen 0.6 --held-out 0 --threads 1 --augment flip=0.5,shift=4,brightness=0.15 \
    $crop --lr 0.001 --epochs 3
# shellcheck disable=SC2086
seed=3 trained colour-last classify --model colour-more/last.onnx --data cars --label colour --category 2 --seen 0.6 --held-out 0 --threads 1 --augment flip=0.5,shift=4,brightness=0.25 \
    $crop --lr 0.001 --epochs 6 --ema 0.999
cp colour-last/last.onnx "$out/colour.onnx"
# shellcheck disable=SC2086
trained person embed --model brimcrop --width 64 --data crops --category 1 --seen 0.4 --held-out 0.05 --per-identity 4 --lr 0.002 --threads 1 \
    --augment flip=0.5,shift=4,brightness=0.1 $crop
cp person/best.onnx "$out/person.onnx"

# shellcheck disable=SC2046,SC2086
python3 "$labels" train.json $(printf 's%s ' $train_seeds)
# shellcheck disable=SC2046,SC2086
python3 "$labels" test.json $(printf 's%s ' $test_seeds)
"$brim" new brimdet --classes 4 --size 512x288 --seed 1 -o start.onnx
trained detector detect --model start.onnx --data train.json --held-out 0.03 --epochs 16 --batch 8 --optimizer adamw --rate plain --lr 0.002 --warmup 1 --clip 10 --ema 0.999 --threads 1 \
    --augment flip=0.5
seed=2 trained detector-more detect --model detector/best.onnx --data train.json --held-out 0.03 --epochs 6 --batch 8 --optimizer adamw --rate plain --lr 0.0008 --warmup 0.2 --clip 10 --ema 0.9995 --threads 1 \
    --augment flip=0.5
cp detector-more/best.onnx "$out/detector.onnx"
# shellcheck disable=SC2046,SC2086
BRIM="$brim" BRIM_DEMO_MODELS="$out" python3 "$root/tools/demo_score.py" models $(printf 's%s ' $test_seeds)
