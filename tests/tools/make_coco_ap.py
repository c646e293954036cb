"""Average precision as pycocotools counts it, for task_ap_compute: tests/data/train/coco_ap.txt.

    pip install pycocotools; python3 tests/tools/make_coco_ap.py > tests/data/train/coco_ap.txt

Cases are drawn: detections near the truth, doubled ones, ones of another class or where nothing is, equal scores, pictures without truth or without detections,
more than 100 in a picture, a class that nobody has. Numbers have so few digits that a float holds them as they are written (multiples of 1/8). A line `t image class
x1 y1 x2 y2` is a true box, `d image class score x1 y1 x2 y2` a detection, `= AP AP50 AP50-of-each-class...` the answer (-1: no truth).
SPDX-License-Identifier: Apache-2.0"""
import contextlib
import io
import random

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def draw(rng, images, classes, truths, jitter, ties, extra):
    t, d = [], []
    eighth = lambda v: round(v * 8) / 8
    for image in range(images):
        for _ in range(rng.randint(0, truths)):
            c, w, h = rng.randrange(max(classes - 1, 1)), rng.uniform(8, 60), rng.uniform(8, 60)
            x, y = rng.uniform(0, 200), rng.uniform(0, 200)
            box = [eighth(v) for v in (x, y, x + w, y + h)]
            t.append((image, c, *box))
            for _ in range(rng.choice([0, 1, 1, 1, 2])):
                moved = [eighth(v + rng.gauss(0, jitter)) for v in box]
                if moved[2] > moved[0] and moved[3] > moved[1]:
                    d.append((image, c if rng.random() < 0.9 else rng.randrange(classes), rng.randint(1, ties) / 1024, *moved))
        for _ in range(rng.randint(0, extra)):
            x, y = eighth(rng.uniform(0, 200)), eighth(rng.uniform(0, 200))
            d.append((image, rng.randrange(classes), rng.randint(1, ties) / 1024, x, y, x + eighth(rng.uniform(4, 50)), y + eighth(rng.uniform(4, 50))))
    return t, d


def score(images, classes, t, d):
    coco = COCO()
    coco.dataset = {"images": [{"id": i + 1} for i in range(images)], "categories": [{"id": c + 1} for c in range(classes)],
                    "annotations": [{"id": k + 1, "image_id": a[0] + 1, "category_id": a[1] + 1, "bbox": [a[2], a[3], a[4] - a[2], a[5] - a[3]],
                                     "area": (a[4] - a[2]) * (a[5] - a[3]), "iscrowd": 0} for k, a in enumerate(t)]}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        found = coco.loadRes([{"image_id": a[0] + 1, "category_id": a[1] + 1, "score": a[2], "bbox": [a[3], a[4], a[5] - a[3], a[6] - a[4]]} for a in d])
        e = COCOeval(coco, found, "bbox")
        e.evaluate()
        e.accumulate()
    p = e.eval["precision"][:, :, :, 0, 2]  # [iou, recall, class], all areas, 100 detections
    mean = lambda v: float(np.mean(v[v > -1])) if (v > -1).any() else -1.0
    return [mean(p), mean(p[0])] + [mean(p[0, :, c]) for c in range(classes)]


print("# made by tests/tools/make_coco_ap.py with pycocotools 2.0")
rng = random.Random(5)
for k, (images, classes, truths, jitter, ties, extra) in enumerate([(1, 1, 3, 1, 1024, 0), (4, 2, 5, 2, 1024, 3), (6, 4, 8, 4, 1024, 6), (5, 3, 6, 3, 4, 5), (8, 3, 2, 8, 64, 10),
                                                                    (2, 2, 4, 2, 1024, 240), (3, 5, 10, 1.5, 16, 1)]):
    t, d = draw(rng, images, classes, truths, jitter, ties, extra)
    print("case", k, images, classes)
    for a in t:
        print("t", *("%g" % v for v in a))
    for a in d:
        print("d", *(repr(v) if isinstance(v, float) else v for v in a))
    print("=", *("%.12g" % v for v in score(images, classes, t, d)))
