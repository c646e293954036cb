#!/usr/bin/env python3
"""Scores the demo.

    demo_score.py models SITE...      the three models of models/demo on rendered sites beside TEST.json (made by tools/train_demo.sh; run in its folder)
    demo_score.py run RESULTS.jsonl SITE CAMERA=camN...   what a running box said (outputs.jsonl) against the truth of the site it looked at

A truth box counts if it is at least 30 % visible and 10 pixels high; a detection of one that is less is neither right nor wrong. Only frames that were run count.
Python's own library only."""
import json
import os
import subprocess
import sys
import tempfile

HIGH, SEEN = 10, 0.3
CLASSES = ["person", "car", "truck", "bicycle"]
COLOURS = ["black", "blue", "brown", "dark green", "grey", "light blue", "red", "silver", "white", "yellow"]


def brim(*words):
    got = subprocess.run([os.environ.get("BRIM", "build/brim"), *words, "--json"], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(got.stdout.splitlines()[-1])


def models(sites):
    folder = os.environ.get("BRIM_DEMO_MODELS", "models/demo")
    feed = ["--mean", "127.5", "--std", "127.5"]
    colours = ",".join(f"{c}={i}" for i, c in enumerate(COLOURS))
    for site in sites:
        s = brim("eval", "classify", "--model", f"{folder}/colour.onnx", "--data", site, "--label", "colour", "--category", "2", "--seen", "0.6", "--data-every", "10",
                 "--classes", colours, *feed)
        print(f"{site}: colour of cars right {100 * s['top1']:.1f} % of {s['samples']}")
        s = brim("eval", "embed", "--model", f"{folder}/person.onnx", "--data", site, "--category", "1", "--seen", "0.4", "--data-every", "10", *feed)
        print(f"{site}: people again: rank-1 {s['rank1']:.3f}, mAP {s['map']:.3f}, {s['samples']} questions to other cameras")
    if os.path.exists(f"{folder}/detector.onnx") and os.path.exists("test.json"):
        s = brim("eval", "detect", "--model", f"{folder}/detector.onnx", "--data", "test.json")
        print(f"test.json: detector AP50 {s['ap50']:.3f}, AP {s['ap']:.3f}, {s['samples']} pictures")


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def read_truth(path):
    """frame -> [(id, class name, box, counts)]"""
    frames = {}
    with open(path) as f:
        for line in f:
            v = line.split(",")
            x, y, w, h, seen = (float(v[i]) for i in (2, 3, 4, 5, 8))
            frames.setdefault(int(v[0]), []).append((int(v[1]), CLASSES[int(v[7]) - 1], (x, y, x + w, y + h), seen >= SEEN and h >= HIGH))
    return frames


def average_precision(found, truths):
    """found: [(score, picture, box)], truths: picture -> [(box, counts)]. Greedy by score; 101 points of recall, as COCO has it."""
    total = sum(c for t in truths.values() for _, c in t)
    taken, hits = set(), []
    for score, picture, box in sorted(found, key=lambda d: -d[0]):
        best, at = 0.5, None
        for counts in (True, False):
            for i, (other, real) in enumerate(truths.get(picture, [])):
                if real == counts and (picture, i) not in taken and iou(box, other) >= best:
                    best, at = iou(box, other), (picture, i, real)
            if at:
                break
        if at:
            taken.add(at[:2])
        if not at or at[2]:
            hits.append(bool(at))
    if not total:
        return None
    right, curve = 0, []
    for n, hit in enumerate(hits, 1):
        right += hit
        curve.append((right / total, right / n))
    best, ap, k = 0.0, 0.0, len(curve) - 1
    for point in range(100, -1, -1):
        while k >= 0 and curve[k][0] >= point / 100:
            best = max(best, curve[k][1])
            k -= 1
        ap += best / 101
    return ap


def run(results, site, cameras):
    with open(f"{site}/scene.json") as f:
        fps = json.load(f)["fps"]
    with open(f"{site}/truth/objects.json") as f:
        colour = {o["id"]: o.get("colour") for o in json.load(f)["objects"]}
    truth = {c: read_truth(f"{site}/truth/{n}.txt") for c, n in cameras.items()}
    length = {c: max(t) for c, t in truth.items()}
    seen = {}  # (camera, frame) -> tracks, of the query that looks at everything; the first time round only
    with open(results) as f:
        for line in f:
            r = json.loads(line)
            if r.get("type") != "result" or r["query"] != "street" or r["camera"] not in truth:
                continue
            frame = round(r["pts"] * fps) + 1
            if frame <= length[r["camera"]]:
                seen.setdefault((r["camera"], frame), r["tracks"])
    if not seen:
        sys.exit(f"{results}: no results of the query 'street'")
    aps, errors = {}, {}
    for name in CLASSES:
        truths = {k: [(b, ok) for _, c, b, ok in truth[k[0]].get(k[1], []) if c == name] for k in seen}
        aps[name] = average_precision([(t["score"], k, t["box"]) for k, ts in seen.items() for t in ts if t["label"] == name], truths)
        errors[name] = sum(abs(sum(t["label"] == name for t in seen[k]) - sum(ok for _, ok in truths[k])) for k in seen) / len(seen)
    known = [a for a in aps.values() if a is not None]
    print(f"{len(seen)} frames; AP50 {sum(known) / len(known):.3f}: " + ", ".join(f"{n} {a:.3f}" for n, a in aps.items() if a is not None))
    print("counts are wrong by, on average: " + ", ".join(f"{n} {e:.2f}" for n, e in errors.items()))
    right = asked = 0
    for (camera, frame), tracks in seen.items():
        for t in tracks:
            said = [c for c in COLOURS if c in str(t.get("attributes", ""))]
            near = [(iou(t["box"], b), i) for i, c, b, ok in truth[camera].get(frame, []) if ok and c == "car"]
            if t["label"] == "car" and said and near and max(near)[0] >= 0.5:
                asked += 1
                right += colour[max(near)[1]] == max(said, key=len)
    if asked:
        print(f"colours of cars: {100 * right / asked:.1f} % of {asked}")
    for camera in truth:
        frames = sorted(f for c, f in seen if c == camera)
        if not frames:
            continue
        with tempfile.TemporaryDirectory() as d:
            with open(f"{d}/truth.txt", "w") as want, open(f"{d}/found.txt", "w") as got:
                for f in frames:
                    rows = truth[camera].get(f, [])
                    for i, _, b, ok in rows:
                        if ok:
                            want.write(f"{f},{i},{b[0]},{b[1]},{b[2] - b[0]},{b[3] - b[1]},1,1,1\n")
                    for t in seen[(camera, f)]:
                        b = t["box"]
                        if any(iou(b, o) >= 0.5 for _, _, o, ok in rows if ok) or not any(iou(b, o) >= 0.5 for _, _, o, ok in rows if not ok):
                            got.write(f"{f},{t['track']},{b[0]},{b[1]},{b[2] - b[0]},{b[3] - b[1]},{t['score']},1,1\n")
            if os.path.getsize(f"{d}/found.txt") == 0:
                print(f"{camera}: nothing was tracked")
                continue
            s = brim("eval", "tracks", "--truth", f"{d}/truth.txt", "--tracks", f"{d}/found.txt")
            print(f"{camera}: IDF1 {s['idf1']:.3f}, MOTA {s['mota']:.3f}, {s['id_switches']} identity switches, {len(frames)} frames")


if len(sys.argv) >= 3 and sys.argv[1] == "models":
    models(sys.argv[2:])
elif len(sys.argv) >= 5 and sys.argv[1] == "run" and all("=" in w for w in sys.argv[4:]):
    run(sys.argv[2], sys.argv[3], dict(w.split("=", 1) for w in sys.argv[4:]))
else:
    sys.exit(__doc__)
