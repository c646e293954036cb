#!/usr/bin/env python3
"""Writes tests/data/train/centernet.txt: CenterNet's loss of drawn outputs and its gradient, as PyTorch has them, and what it aims at. Needs torch (1.13 was used).

Usage: make_centernet_golden.py OUT.txt. Written from the papers (Zhou et al. 2019; Law and Deng 2018 for the bells), not from src/train/centernet.c: how far corners
may move is found by bisection of the IoU itself. Outputs are drawn by the generator of centernet_test.c. SPDX-License-Identifier: Apache-2.0"""
import math
import sys

import torch

WIDTH, HEIGHT, STRIDE, CLASSES, OVERLAP = 64, 48, 4, 2, 0.3
ROWS, COLUMNS = HEIGHT // STRIDE, WIDTH // STRIDE
BOXES = [[(3, 2, 39, 47, 1), (30, 8, 54, 20, 0), (41, 9, 45, 13, 0), (60, 40, 64, 48, 1)],
         [(0, 0, 64, 48, 0), (17, 20, 31, 29, 1), (25, 20, 39, 29, 1), (18, 20, 31, 28.5, 1)]]


def iou(a, b):
    inner = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    area = lambda v: (v[2] - v[0]) * (v[3] - v[1])
    return inner / (area(a) + area(b) - inner)


def radius(w, h):
    least = math.inf
    for first, second in ((1, 1), (1, -1), (-1, 1)):  # corners moved alike, both inwards, both outwards
        low, high = 0.0, 100.0 * (w + h)
        if second < 0:
            high = min(w, h) / 2
        for _ in range(200):
            r = (low + high) / 2
            moved = (first * r, first * r, w + second * r, h + second * r)
            low, high = (r, high) if iou((0, 0, w, h), moved) >= OVERLAP else (low, r)
        least = min(least, low)
    return least


def aim(boxes):
    heat, size, offset = torch.zeros(CLASSES, ROWS, COLUMNS), torch.zeros(2, ROWS, COLUMNS), torch.zeros(2, ROWS, COLUMNS)
    for x1, y1, x2, y2, k in boxes:
        w, h, x, y = (x2 - x1) / STRIDE, (y2 - y1) / STRIDE, (x1 + x2) / 2 / STRIDE, (y1 + y2) / 2 / STRIDE
        column, row, r = int(x), int(y), int(radius(w, h))
        for i in range(ROWS):
            for j in range(COLUMNS):
                if abs(i - row) <= r and abs(j - column) <= r:
                    v = math.exp(-((i - row) ** 2 + (j - column) ** 2) / (2 * ((2 * r + 1) / 6) ** 2))
                    heat[k, i, j] = max(heat[k, i, j].item(), v)
        size[:, row, column] = torch.tensor([w, h])
        offset[:, row, column] = torch.tensor([x - column, y - row])
    return heat, size, offset


def drawn():
    x = 5
    while True:
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        yield (x >> 8) / 16777216.0


def main():
    u, plane = drawn(), 2 * ROWS * COLUMNS
    outputs = [torch.tensor([f(next(u)) for _ in range(plane)]).reshape(2, ROWS, COLUMNS) for _ in BOXES for f in (lambda v: 6 * v - 4, lambda v: 12 * v, lambda v: v)]
    logit, size, offset = (torch.stack(outputs[k::3]).requires_grad_(True) for k in range(3))
    heats, sizes, offsets = (torch.stack(t) for t in zip(*(aim(b) for b in BOXES)))
    p, at = torch.sigmoid(logit.double()), heats == 1
    focal = torch.where(at, (1 - p) ** 2 * torch.log(p), (1 - heats) ** 4 * p ** 2 * torch.log(1 - p)).sum()
    cells = at.any(1, keepdim=True)
    loss = (-focal + 0.1 * ((size - sizes).abs() * cells).sum() + ((offset - offsets).abs() * cells).sum()) / at.sum()
    loss.backward()
    lines = [f"radius {w} {h} {radius(w, h):.9g}" for w, h in ((1, 1), (1, 2), (3.5, 2), (10, 10), (9, 11.25), (2, 40), (16, 12), (100, 50), (640, 360))]
    lines.append(f"loss {loss.item():.9g}")
    for name, t in (("heat", heats), ("size", sizes), ("offset", offsets), ("by_logit", logit.grad), ("by_size", size.grad), ("by_offset", offset.grad)):
        lines += [name + " " + " ".join("%.7g" % v for v in picture.flatten().tolist()) for picture in t]
    open(sys.argv[1], "w").write("# made by tests/tools/make_centernet_golden.py with PyTorch " + torch.__version__ + "\n" + "\n".join(lines) + "\n")


main()
