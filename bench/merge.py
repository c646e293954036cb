#!/usr/bin/env python3
"""`brim bench merge`: what brim merge saves, on published architectures and on real models with real data.

pairs    the upper bound of pairs of published architectures (two classes, as in GEMEL's table), beside the numbers computed without brim
family   four ResNet-20 for CIFAR-10, each trained here on five classes of its own with a seed of its own, merged with two policies in equal minutes
cifar    the shared ResNet-20 and ResNet-44, on all ten classes
faces    face-detection-retail-0004 and -0044, without labels, on frames of the four cameras
detect   YOLOX-nano for COCO, people and hand signs, without labels, at their own 416 pixels
sisters  two UltraFace networks, without labels
demo     the demo's own three networks, on rendered sites: cars and people cut out for the two that a cascade uses
mixed    all of the above that ran, as one box

What merging is worth when models do not all fit is another bench: brim bench serving.

A target is 95 % of a model's own score. Saved: bytes of weights that were not equal before. Standard library only; $BRIM_DATA has the real files.
usage: merge.py [--only NAME,...] [--minutes N] [--epochs N] [--json F]          SPDX-License-Identifier: Apache-2.0"""
import argparse
import concurrent.futures
import json
import lzma
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
DATA = pathlib.Path(os.environ.get("BRIM_DATA", "../shared/data"))
PAIRS = [("vgg16", "vgg19", 49.0), ("resnet101", "resnet152", 42.2), ("resnet50", "resnet101", 35.6), ("resnet18", "resnet34", 34.4),
         ("resnet50", "resnet152", 28.8), ("resnet18", "resnet50", 20.7), ("alexnet", "vgg16", 9.1), ("vgg16", "resnet50", 0.0)]
SUBSETS = {"a": [0, 1, 2, 3, 4], "b": [5, 6, 7, 8, 9], "c": [0, 2, 4, 6, 8], "d": [1, 3, 5, 7, 9]}
CIFAR_CARD = "card: 1\nhead: classify\ninput: {{size: [32, 32], mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375]}}\nlabels: [{}]\n"


class Bench:
    def __init__(self, args):
        self.args, self.brim = args, args.brim
        self.dir = pathlib.Path(args.keep or tempfile.mkdtemp(prefix="brim-merge-"))
        self.dir.mkdir(exist_ok=True)
        self.result = {f"{f.parent.name.removesuffix('-grow')}/grow": json.loads(f.read_text()) for f in self.dir.glob("*-grow/merge.json")}  # of earlier runs with the same --keep

    def run(self, *argv, ok=(0,)):
        p = subprocess.run([self.brim, *map(str, argv)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if p.returncode not in ok:
            sys.exit(f"brim bench: brim {' '.join(map(str, argv[:3]))} ended with status {p.returncode}: {p.stderr.strip()[-300:]}")
        return p

    def merge(self, name, models, *options, minutes=None, policy="grow"):
        """Runs a merge; its merge.json, and what it printed on the way."""
        out = self.dir / f"{name}-{policy}"
        shutil.rmtree(out, ignore_errors=True)
        begin = time.time()
        self.run("merge", *models, "--out", out, "--minutes", minutes or self.args.minutes, "--policy", policy, "--threads", self.args.threads, "--json",
                 *options)
        report = json.loads((out / "merge.json").read_text())
        report["wall_seconds"] = time.time() - begin
        self.result[f"{name}/{policy}"] = report
        return report


def share(part, whole):
    return f"{100 * part / whole:.1f} %" if whole else "-"


def show(title, reports):
    print(f"\n{title}\n\n| policy | saved | of all | at most | equal before | minutes | trials | scores before -> after +- standard error (target; pictures measured) |\n|---|---|---|---|---|---|---|---|")
    for r in reports:
        scores = ", ".join(f"{m['name']} {100 * m['before']:.1f} -> {100 * m['after']:.1f} +- {'?' if m['after_error'] is None else format(100 * m['after_error'], '.1f')} ({100 * m['target']:.1f}; {m['pictures_measured']})" for m in r["members"])
        print(f"| {r['policy']} | {r['saved_bytes'] / MIB:.2f} MiB | {share(r['saved_bytes'], r['bytes'])} | {share(r['most_bytes'], r['bytes'])} | "
              f"{share(r['equal_bytes_before'], r['bytes'])} | {r['seconds'] / 60:.1f} | {r['trials']} | {scores} |")


def curve(r, minutes, steps=8):
    """Bytes saved after each eighth of the time."""
    ends = [minutes * 60 * (i + 1) / steps for i in range(steps)]
    return [max([p["saved_bytes"] for p in r["points"] if p["seconds"] <= t + 1e-6], default=0) for t in ends]


def served(b, name, models, card_of, video, policy="grow"):
    """Packed bytes of weights that brim serve holds for the originals and for what was merged: the saving as it runs."""
    out, bytes_of = b.dir / f"{name}-{policy}", {}
    for kind in ("originals", "merged"):
        store, site = b.dir / f"store-{name}-{kind}", b.dir / f"{name}-{kind}.yaml"
        shutil.rmtree(store, ignore_errors=True)
        b.run("models", "import", *[m if kind == "originals" else out / m.name for m in models], "--shared", "--store", store)
        stored = [m.stem for m in models]
        site.write_text("version: 1\nbudget: 2G\ncameras:\n  camera: {url: " + str(video) + ", loop: true}\nmodels:\n" +
                        "".join(f"  m{i}: {{onnx: {n}, card: {card_of(m)}, precision: f32}}\n" for i, (n, m) in enumerate(zip(stored, models))) + "queries:\n" +
                        "".join(f"  q{i}: {{cameras: all, model: m{i}, fps: 1}}\n" for i in range(len(models))))
        r = json.loads(b.run("serve", site, "--store", store, "--seconds", 6, "--no-http", "--json").stdout)
        bytes_of[kind] = r["floor"]["all_models"]
    before, after = bytes_of["originals"], bytes_of["merged"]
    b.result[f"{name}/served"] = bytes_of
    print(f"\nPacked weights in `brim serve`: {before / MIB:.2f} MiB for the originals, {after / MIB:.2f} MiB merged: {share(before - after, before)} less")


def pairs(b):
    print("\nPairs of published architectures, two classes each: bytes that could be shared\n\n| pair | brim | computed without brim |\n|---|---|---|")
    made, off = {}, 0
    for x, y, want in PAIRS:
        for n in (x, y):
            if n not in made:
                made[n] = b.dir / f"{n}.onnx"
                b.run("new", n, "--classes", 2, "-o", made[n])
        got = 100 * json.loads(b.run("merge", "--estimate", made[x], made[y], "--json").stdout)["saved_share"]
        off = max(off, abs(got - want))
        b.result[f"pairs/{x}+{y}"] = got
        print(f"| {x} + {y} | {got:.1f} % | {want:.1f} % |")
    for f in made.values():
        f.unlink()
    print(f"\nlargest difference {off:.2f} points")


def cifar_sets(b):
    images = DATA / "images" / "cifar10"
    names = (images / "batches.meta.txt").read_text().split()
    sets = {**SUBSETS, "all": list(range(10))}
    for part, file in (("train", "train_a_10000.bin.xz"), ("test", "test_a_2000.bin.xz")):
        raw = lzma.open(images / file).read()
        for key, classes in sets.items():
            folder = b.dir / f"{key}-{part}"
            folder.mkdir(exist_ok=True)
            rows = (raw[i:i + 3073] for i in range(0, len(raw), 3073))
            (folder / "data_batch_1.bin").write_bytes(b"".join(bytes([classes.index(r[0])]) + r[1:] for r in rows if r[0] in classes))
            (folder / "batches.meta.txt").write_text("".join(names[c] + "\n" for c in classes))
    return names


def family(b):
    names = cifar_sets(b)
    for seed, (key, classes) in enumerate(SUBSETS.items(), 1):
        (b.dir / f"{key}.yaml").write_text(CIFAR_CARD.format(", ".join(names[c] for c in classes)))
        if (b.dir / f"{key}.onnx").exists():  # of an earlier run with the same --keep
            continue
        b.run("new", "cifar-resnet20", "--classes", 5, "--seed", seed, "-o", b.dir / f"new-{key}.onnx")
        out = b.dir / f"train-{key}"
        shutil.rmtree(out, ignore_errors=True)
        b.run("train", "--model", b.dir / f"new-{key}.onnx", "--data", b.dir / f"{key}-train", "--val", b.dir / f"{key}-test", "--out", out, "--epochs", b.args.epochs,
              "--batch", 64, "--lr", 0.1, "--augment", "flip=0.5,shift=4", "--seed", seed, "--threads", b.args.threads, "--priority", "normal", "--json")
        shutil.copy(out / "best.onnx", b.dir / f"{key}.onnx")
    models = [b.dir / f"{k}.onnx" for k in SUBSETS]
    options = [o for k in SUBSETS for o in ("--data", f"{k}={b.dir / (k + '-train')}", "--val", f"{k}={b.dir / (k + '-test')}")]
    with concurrent.futures.ThreadPoolExecutor(2 if b.args.threads == 1 else 1) as pool:  # of one thread each: side by side, so that both have the same minutes
        reports = list(pool.map(lambda p: b.merge("family", models, *options, policy=p), ("grow", "groups")))
    show(f"Four ResNet-20, five classes each of CIFAR-10, other seeds ({b.args.epochs} epochs of 5,000 pictures each before merging)", reports)
    served(b, "family", models, lambda m: b.dir / (m.stem + ".yaml"), DATA / "videos" / "intel" / "car-detection.mp4")
    print("\nBytes saved after each eighth of the time:")
    for r in reports:
        print(f"  {r['policy']:7s}", " ".join(share(s, r["bytes"]) for s in curve(r, b.args.minutes)))


def cifar(b):
    names = cifar_sets(b)
    (b.dir / "cifar.yaml").write_text(CIFAR_CARD.format(", ".join(names)))
    models = [DATA / "models" / "resnet_cifar" / f"resnet{n}_cifar10.onnx" for n in (20, 44)]
    show("The shared ResNet-20 and ResNet-44, ten classes", [b.merge("cifar", models, "--card", b.dir / "cifar.yaml", "--data", b.dir / "all-train", "--val", b.dir / "all-test")])


def cards(b):
    return pathlib.Path(__file__).resolve().parent.parent / "models" / "cards"


def faces(b):
    models = [DATA / "models" / "openvino" / f"face-detection-retail-{n}.onnx" for n in ("0004", "0044")]
    options = [o for m in models for o in ("--card", f"{m.stem}={cards(b) / (m.stem + '.yaml')}")]
    video = DATA / "videos" / "intel" / "one-by-one-person-detection.mp4"
    show("Two face detectors, without labels: AP50 against the originals' detections", [b.merge("faces", models, *options, "--data", video, "--batch", 8)])
    served(b, "faces", models, lambda m: cards(b) / (m.stem + ".yaml"), video)


def detect(b):
    """Three YOLOX-nano. Nobody shows his hands in the shared videos, so the third one is compared by its raw outputs."""
    d = DATA / "models"
    models = [d / "yolox" / "yolox_nano_416x416.onnx", d / "light_person_detector" / "light_person_detector.onnx", d / "yolox_handsign" / "yolox_nano_handsign_v1.onnx"]
    raw = b.dir / "hand.yaml"
    raw.write_text("\n".join("head: embedding" if line.startswith("head:") else line for line in (cards(b) / (models[2].stem + ".yaml")).read_text().splitlines()
                             if line.split(":")[0] not in ("strides", "classes", "score", "nms")))
    options = [o for m in models for o in ("--card", f"{m.stem}={raw if m is models[2] else cards(b) / (m.stem + '.yaml')}")]
    video = DATA / "videos" / "multicam" / "four_cam"
    options += [o for i, m in enumerate(models) for o in ("--data", f"{m.stem}={video / f'cam{i}.mp4'}")]
    show("YOLOX-nano for COCO, people and hand signs, a camera each, without labels: AP50 against the originals' detections; hand signs: likeness of outputs",
         [b.merge("detect", models, *options, "--batch", 8)])


def sisters(b):
    models = [DATA / "models" / "ultraface" / f"version-{n}.onnx" for n in ("RFB-320", "slim-320")]
    options = [o for m in models for o in ("--card", f"{m.stem}={cards(b) / (m.stem + '.yaml')}")]
    video = DATA / "videos" / "intel" / "one-by-one-person-detection.mp4"
    show("Two UltraFace networks, without labels", [b.merge("sisters", models, *options, "--data", video, "--batch", 8)])


def demo(b):
    """Trained with other seeds than those of the pictures they are measured with, as they were trained before."""
    models = [pathlib.Path(__file__).resolve().parent.parent / "models" / "demo" / f"{n}.onnx" for n in ("colour", "person", "detector")]
    sites = (("learnt", 41, "day", 8, 60), ("learnt", 42, "dusk", 8, 60), ("asked", 43, "day", 4, 30), ("asked", 44, "dusk", 4, 30))
    for folder, seed, light, cameras, seconds in sites:
        (b.dir / folder).mkdir(exist_ok=True)
        if not (b.dir / folder / str(seed) / "scene.json").exists():
            b.run("scene", "-o", b.dir / folder / str(seed), "--cameras", cameras, "--seconds", seconds, "--fps", 2, "--size", "640x360", "--seed", seed, "--light", light, "--coco", 1)
    for folder in ("learnt", "asked"):
        subprocess.run([sys.executable, pathlib.Path(__file__).resolve().parent.parent / "tools" / "demo_labels.py", "labels.json",
                        *(str(seed) for f, seed, *_ in sites if f == folder)], cwd=b.dir / folder, check=True, stdout=subprocess.DEVNULL)
    options = ["--crops", "colour=2:colour", "--crops", "person=1", "--data", f"detector={b.dir / 'learnt' / 'labels.json'}", "--val", f"detector={b.dir / 'asked' / 'labels.json'}"]
    options += [o for m in ("colour", "person") for o in ("--data", f"{m}={b.dir / 'learnt'}", "--val", f"{m}={b.dir / 'asked'}")]
    show("The demo's own networks: top-1 of colours and AP50 against the truth, people by likeness to the original", [b.merge("demo", models, *options, "--measure", 500)])


def mixed(b):
    """Models of different families on one box: what the merges above keep, together (they have nothing in common between families)."""
    parts = [r for k, r in b.result.items() if k.split("/")[0] in ("faces", "cifar", "detect", "sisters", "demo") and isinstance(r, dict) and "saved_bytes" in r]
    parts += [r for k, r in b.result.items() if k == "family/grow"]
    if len(parts) < 3:
        print("\nmixed: needs some of faces, family, cifar, detect, sisters, demo in the same run")
        return
    total = {k: sum(r[k] for r in parts) for k in ("bytes", "saved_bytes", "most_bytes", "equal_bytes_before")}
    b.result["mixed"] = total
    print(f"\nAll of them on one box: {sum(len(r['members']) for r in parts)} models, {total['bytes'] / MIB:.2f} MiB; saved {total['saved_bytes'] / MIB:.2f} MiB = "
          f"{share(total['saved_bytes'], total['bytes'])}, of it equal before {share(total['equal_bytes_before'], total['bytes'])}; at most {share(total['most_bytes'], total['bytes'])}")


ALL = {"pairs": pairs, "faces": faces, "family": family, "cifar": cifar, "detect": detect, "sisters": sisters, "demo": demo, "mixed": mixed}


def main():
    p = argparse.ArgumentParser(prog="brim bench merge", description=__doc__.split("\n")[0])
    p.add_argument("--brim", default=os.environ.get("BRIM_SELF", "brim"))
    p.add_argument("--only", default=",".join(ALL), help="of " + ", ".join(ALL))
    p.add_argument("--minutes", type=float, default=8, help="of each merge (8)")
    p.add_argument("--epochs", type=int, default=20, help="of training before the family is merged (20)")
    p.add_argument("--threads", type=int, default=2, help="of trainings and merges (2)")
    p.add_argument("--keep", help="a folder for everything, which stays")
    p.add_argument("--json", help="all reports into this file")
    args = p.parse_args()
    wanted = args.only.split(",")
    for w in wanted:
        if w not in ALL:
            sys.exit(f"brim bench merge: --only: '{w}' is none of {', '.join(ALL)}")
    if not DATA.is_dir() and set(wanted) - {"pairs"}:
        sys.exit(f"brim bench merge: no real data at {DATA} ($BRIM_DATA); --only pairs needs none")
    b = Bench(args)
    begin = time.time()
    try:
        for w in wanted:
            ALL[w](b)
            sys.stdout.flush()
    finally:
        if not args.keep:
            shutil.rmtree(b.dir, ignore_errors=True)
    print(f"\n{(time.time() - begin) / 60:.1f} minutes in all")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(b.result, indent=1))


if __name__ == "__main__":
    main()
