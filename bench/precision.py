#!/usr/bin/env python3
"""What does a lower precision cost? Detectors in f32, bf16 and auto on the same pictures.

    python bench/precision.py --data DIR [--photos N] [--frames N] [--precision bf16,auto] [--json]

Three figures per model and precision:
  error   ||a - b|| / ||a|| of each raw output against f32, the mean over the pictures, and the worst picture
  car     AP50 of 'car' on labelled photos (boxes of other vehicles neither help nor harm), beside that of f32: it may fall by 0.01
  f32     AP50 over all classes on frames of videos, where what f32 finds above 0.3 is the truth: at least 0.97

AP is the area under precision, made monotone, over recall at 101 points, as COCO has it. Needs the brim package (or BRIM_BENCH_PACKAGE: the folder where it was
built), NumPy and OpenCV. SPDX-License-Identifier: Apache-2.0"""
import argparse
import json
import os
import pathlib
import sys

import cv2
import numpy as np

LEAST, TRUTH, IOU_NMS = 0.02, 0.3, 0.6
CAR_COCO, CAR_LABEL = 2, 0


# ---- detectors: picture (BGR) -> input, and outputs -> boxes (n, 4) x1 y1 x2 y2 in the input's pixels, scores (n, classes)

def letterbox(picture, width, height):
    scale = min(width / picture.shape[1], height / picture.shape[0])
    w, h = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    canvas = np.full((height, width, 3), 114, np.uint8)
    canvas[:h, :w] = cv2.resize(picture, (w, h), interpolation=cv2.INTER_LINEAR)
    return canvas.astype(np.float32), (scale, scale)


def stretch(picture, width, height):
    return cv2.resize(picture, (width, height)).astype(np.float32), (width / picture.shape[1], height / picture.shape[0])


def planes(x):
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None])


def points(size, strides):
    rows = []
    for s in strides:
        ys, xs = np.mgrid[0:size[0] // s, 0:size[1] // s]
        rows.append(np.stack([xs.ravel(), ys.ravel(), np.full(xs.size, s)], 1))
    return np.concatenate(rows).astype(np.float64)


def yolox(outputs, size):
    y, p = outputs[0][0].astype(np.float64), points(size, (8, 16, 32))
    centre, half = (y[:, :2] + p[:, :2]) * p[:, 2:], np.exp(np.minimum(y[:, 2:4], 10)) * p[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], 1), y[:, 4:5] * y[:, 5:]


def nanodet(outputs, size):
    maps = [o.reshape(-1, o.shape[-1]).astype(np.float64) for o in outputs]
    classes = np.concatenate(sorted((m for m in maps if m.shape[1] == 80), key=len, reverse=True))
    sides = np.concatenate(sorted((m for m in maps if m.shape[1] == 32), key=len, reverse=True))
    if classes.min() < 0:
        classes = 1 / (1 + np.exp(-classes))
    bins = np.exp(sides.reshape(-1, 4, 8) - sides.reshape(-1, 4, 8).max(2, keepdims=True))
    p = points(size, (8, 16, 32))
    distance = (bins / bins.sum(2, keepdims=True) @ np.arange(8)) * p[:, 2:]
    centre = (p[:, :2] + 0.5) * p[:, 2:]
    return np.concatenate([centre - distance[:, :2], centre + distance[:, 2:]], 1), classes


def fastestdet(outputs, size):
    y = outputs[0][0].astype(np.float64).reshape(85, -1).T
    p = points((22 * 16, 22 * 16), (16,))
    sigmoid = lambda v: 1 / (1 + np.exp(-v))
    centre = (np.tanh(y[:, 1:3]) + p[:, :2]) / 22 * size[0]
    half = sigmoid(y[:, 3:5]) * size[0] / 2
    return np.concatenate([centre - half, centre + half], 1), y[:, :1] ** 0.6 * y[:, 5:] ** 0.4


MODELS = {  # name: (file, how to fit, mean, scale, decoder)
    "yolox_nano": ("yolox/yolox_nano_416x416.onnx", letterbox, (0, 0, 0), (1, 1, 1), yolox),
    "nanodet_m": ("nanodet/nanodet_m_320.onnx", stretch, (103.53, 116.28, 123.675), (57.375, 57.12, 58.395), nanodet),
    "fastestdet": ("fastestdet/FastestDet.onnx", stretch, (0, 0, 0), (255, 255, 255), fastestdet),
}


def overlaps(a, b):
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), 2)
    area = lambda x: np.prod(np.clip(x[:, 2:] - x[:, :2], 0, None), 1)
    return common / np.maximum(area(a)[:, None] + area(b)[None] - common, 1e-9)


def suppress(boxes, scores):
    keep, order = [], np.argsort(-scores, kind="stable")
    iou = overlaps(boxes, boxes)
    gone = np.zeros(len(boxes), bool)
    for i in order:
        if not gone[i]:
            keep.append(i)
            gone |= iou[i] > IOU_NMS
    return keep


def detections(boxes, scores):
    """[(class, score, box)], best first."""
    found = []
    for c in np.flatnonzero((scores > LEAST).any(0)):
        at = np.flatnonzero(scores[:, c] > LEAST)
        at = at[np.argsort(-scores[at, c], kind="stable")[:300]]
        found += [(int(c), float(scores[at[k], c]), boxes[at[k]]) for k in suppress(boxes[at], scores[at, c])]
    return sorted(found, key=lambda d: -d[1])[:100]


# ---- average precision at IoU 0.5; pictures: [(found, truths, ignored)] of one class, found = [(score, box)]

def average_precision(pictures):
    rows, truths = [], 0
    for found, real, ignored in pictures:
        truths += len(real)
        taken = np.zeros(len(real), bool)
        for score, box in sorted(found, key=lambda d: -d[0]):
            iou = overlaps(box[None], np.array(real).reshape(-1, 4))[0] if len(real) else np.zeros(0)
            iou = np.where(taken, 0, iou)
            if len(iou) and iou.max() >= 0.5:
                taken[iou.argmax()] = True
                rows.append((score, 1))
            elif not len(ignored) or overlaps(box[None], np.array(ignored).reshape(-1, 4)).max() < 0.5:
                rows.append((score, 0))
    if not truths:
        return None
    rows.sort(key=lambda r: -r[0])
    hits = np.cumsum([r[1] for r in rows]) if rows else np.zeros(0)
    precision = hits / np.arange(1, len(rows) + 1)
    for i in range(len(rows) - 1, 0, -1):
        precision[i - 1] = max(precision[i - 1], precision[i])
    recall = hits / truths
    at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.mean([precision[i] if i < len(rows) else 0 for i in at]))


# ---- pictures

def labelled_photos(data, most):
    folder = data / "images" / "openimages_vehicles" / "a"
    for path in sorted((folder / "images").glob("*.jpg"))[:most]:
        picture, labels = cv2.imread(str(path)), folder / "labels" / (path.stem + ".txt")
        if picture is None or not labels.exists():
            continue
        size = np.array([picture.shape[1], picture.shape[0]] * 2)
        cars, others = [], []
        for line in labels.read_text().split("\n"):
            if not line.strip():
                continue
            c, x, y, w, h = map(float, line.split())
            (cars if c == CAR_LABEL else others).append(np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * size)
        yield picture, cars, others


def video_frames(data, most):
    paths = [p for p in sorted((data / "videos").rglob("*")) if p.suffix in (".mp4", ".avi")]
    for path in paths:
        video = cv2.VideoCapture(str(path))
        count = max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 1)
        every, n = max(count // most, 1), 0
        while n < count:
            good, picture = video.read()
            if not good:
                break
            if n % every == every // 2:
                yield picture
            n += 1


# ---- measuring

class Detector:
    def __init__(self, brim, data, name, precision, threads):
        file, self.fit, self.mean, self.scale, self.decode = MODELS[name]
        self.model = brim.Model(str(data / "models" / file), threads=threads, precision=precision)
        self.size = tuple(self.model.inputs[0].shape[2:])

    def raw(self, picture):
        x, factor = self.fit(picture, self.size[1], self.size[0])
        x = planes((x - np.float32(self.mean)) / np.float32(self.scale)).astype(np.float32)
        out = self.model.run(x)
        return [np.array(o) for o in (out if isinstance(out, (list, tuple)) else [out])], factor

    def find(self, raw, factor):
        boxes, scores = self.decode(raw, self.size)
        return [(c, s, b / np.array(factor * 2)) for c, s, b in detections(boxes, scores)]


def difference(a, b):
    return [float(np.linalg.norm(x.astype(np.float64) - y) / max(np.linalg.norm(x.astype(np.float64)), 1e-30)) for x, y in zip(a, b)]


def of_class(found, c):
    return [(s, b) for k, s, b in found if k == c]


def measure(args, brim, data, name):
    precisions = ["f32"] + args.precision.split(",")
    detectors = {p: Detector(brim, data, name, p, args.threads) for p in precisions}
    cars, same, errors = {p: [] for p in precisions}, {p: {} for p in precisions}, {p: [] for p in precisions}
    for picture, real, others in labelled_photos(data, args.photos):
        raws = {p: d.raw(picture) for p, d in detectors.items()}
        for p, d in detectors.items():
            cars[p].append((of_class(d.find(*raws[p]), CAR_COCO), real, others))
            errors[p].append(difference(raws["f32"][0], raws[p][0]))
    for picture in video_frames(data, args.frames):
        raws = {p: d.raw(picture) for p, d in detectors.items()}
        truth = [t for t in detectors["f32"].find(*raws["f32"]) if t[1] > TRUTH]
        for p, d in detectors.items():
            found = d.find(*raws[p])
            for c in {k for k, _, _ in truth} | {k for k, s, _ in found if s > TRUTH}:
                same[p].setdefault(c, []).append((of_class(found, c), [b for _, b in of_class(truth, c)], []))
            errors[p].append(difference(raws["f32"][0], raws[p][0]))
    rows = []
    for p in precisions:
        # classes weighted by their truths: a class that f32 saw twice says little
        parts = [(average_precision(v), sum(len(t) for _, t, _ in v)) for v in same[p].values()]
        weight = sum(n for a, n in parts if a is not None)
        e = np.array(errors[p])
        rows.append({"model": name, "precision": p, "error": float(e.mean(0).max()), "worst": float(e.max()), "car_ap50": average_precision(cars[p]),
                     "f32_ap50": sum(a * n for a, n in parts if a is not None) / weight if weight else None, "truths": weight,
                     "photos": len(cars[p]), "pictures": len(errors[p])})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default=os.environ.get("BRIM_DATA"), help="folder with models/, images/, videos/ (default: $BRIM_DATA)")
    parser.add_argument("--photos", type=int, default=240)
    parser.add_argument("--frames", type=int, default=20, help="per video, evenly spread")
    parser.add_argument("--precision", default="bf16,auto", help="compared with f32")
    parser.add_argument("--model", action="append", choices=sorted(MODELS), help="default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not args.data:
        sys.exit("precision: --data DIR (or BRIM_DATA) is needed")
    try:
        import brim
    except ImportError:
        sys.path.insert(0, os.environ.get("BRIM_BENCH_PACKAGE", "."))
        import brim
    rows = []
    for name in args.model or sorted(MODELS):
        rows += measure(args, brim, pathlib.Path(args.data), name)
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    text = lambda v, form: "-" if v is None else format(v, form)
    print(f"{'model':12} {'precision':9} {'error':>8} {'worst':>8} {'car AP50':>9} {'of f32':>7} {'truths':>7}")
    for r in rows:
        print(f"{r['model']:12} {r['precision']:9} {r['error']:8.4f} {r['worst']:8.4f} {text(r['car_ap50'], '9.4f'):>9} {text(r['f32_ap50'], '7.4f'):>7} {r['truths']:7}")


if __name__ == "__main__":
    main()
