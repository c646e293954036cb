#!/usr/bin/env python3
"""Writes tests/data/train/yolox.txt: YOLOX's loss (SimOTA and all) of drawn outputs and its gradient, as PyTorch has them. Needs torch (1.13 was used).

Usage: make_yolox_golden.py OUT.txt. Written from the paper (Ge et al. 2021), not from src/train/yolox.c; outputs are drawn by the generator of yolox_test.c.
SPDX-License-Identifier: Apache-2.0"""
import sys

import torch
import torch.nn.functional as F

SIDE, CLASSES, CELLS = 64, 3, 84
BOXES = [[(4, 6, 40, 44, 1), (30, 28, 60, 62, 2), (50, 4, 62, 14, 0)], [(0, 0, 63, 60, 0), (8, 8, 20, 30, 2)]]


def drawn(n):
    x, out = 5, []
    for _ in range(n):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append((x >> 8) / 16777216.0)
    return torch.tensor(out)


def cells():
    at, strides = [], []
    for s in (8, 16, 32):
        for row in range(SIDE // s):
            for column in range(SIDE // s):
                at.append((column, row))
                strides.append(s)
    return torch.tensor(at, dtype=torch.float32), torch.tensor(strides, dtype=torch.float32)


def pairwise(a, b):  # corners [n, 4], [m, 4]
    inner = (torch.min(a[:, None, 2:], b[None, :, 2:]) - torch.max(a[:, None, :2], b[None, :, :2])).clamp(min=0).prod(2)
    area = lambda v: (v[:, 2:] - v[:, :2]).prod(1)
    return inner / (area(a)[:, None] + area(b)[None] - inner)


@torch.no_grad()
def simota(rows, corners, truth, classes, at, strides):
    centre = (at + 0.5) * strides[:, None]
    middle = (truth[:, :2] + truth[:, 2:]) / 2
    inside = ((centre[None] > truth[:, None, :2]) & (centre[None] < truth[:, None, 2:])).all(2)
    near = ((centre[None] - middle[:, None]).abs() < 2.5 * strides[None, :, None]).all(2)
    candidates = (inside | near).any(0)
    iou = pairwise(truth, corners[candidates])
    p = (rows[candidates, 4:5] * rows[candidates, 5:]).sqrt()[None].expand(len(truth), -1, -1)
    hot = F.one_hot(classes, CLASSES).float()[:, None].expand_as(p)
    cost = F.binary_cross_entropy(p, hot, reduction="none").sum(2) - 3 * torch.log(iou + 1e-8) + 1e5 * ~(inside & near)[:, candidates]
    match = torch.zeros_like(cost)
    for g in range(len(truth)):
        k = max(int(torch.topk(iou[g], min(10, iou.shape[1])).values.sum()), 1)
        match[g, torch.topk(cost[g], k, largest=False).indices] = 1
    for c in torch.nonzero(match.sum(0) > 1)[:, 0].tolist():
        match[:, c] = 0
        match[cost[:, c].argmin(), c] = 1
    taken = match.sum(0) > 0
    return torch.nonzero(candidates)[:, 0][taken], match[:, taken].argmax(0), (match * iou).sum(0)[taken]


def main():
    at, strides = cells()
    u = drawn(2 * CELLS * (5 + CLASSES)).reshape(2, CELLS, 5 + CLASSES)
    rows = torch.cat((u[..., :2] * 2 - 0.5, u[..., 2:4] * 2 - 0.5, u[..., 4:] * 0.9 + 0.05), 2).requires_grad_(True)
    middle, half = (rows[..., :2] + at) * strides[:, None], rows[..., 2:4].exp() * strides[:, None] / 2
    corners = torch.cat((middle - half, middle + half), 2)
    box = object_ = class_ = found = 0
    lines = []
    for n, boxes in enumerate(BOXES):
        truth, classes = torch.tensor([b[:4] for b in boxes], dtype=torch.float32), torch.tensor([b[4] for b in boxes])
        cell, which, overlap = simota(rows[n], corners[n], truth, classes, at, strides)
        lines += [f"assigned {n} {c} {w} {o:.7g}" for c, w, o in zip(cell.tolist(), which.tolist(), overlap.tolist())]
        iou = torch.stack([pairwise(corners[n, c:c + 1], truth[w:w + 1])[0, 0] for c, w in zip(cell, which)])
        box = box + (1 - iou ** 2).sum()
        to = torch.zeros(CELLS)
        to[cell] = 1
        object_ = object_ + F.binary_cross_entropy(rows[n, :, 4], to, reduction="sum")
        class_ = class_ + F.binary_cross_entropy(rows[n, cell, 5:], F.one_hot(classes[which], CLASSES) * overlap[:, None], reduction="sum")
        found += len(cell)
    loss = (5 * box + object_ + class_) / found
    loss.backward()
    lines.append(f"loss {loss.item():.9g}")
    lines += ["row " + " ".join("%.7g" % g for g in row) for row in rows.grad.flatten(0, 1).tolist()]
    open(sys.argv[1], "w").write("# made by tests/tools/make_yolox_golden.py with PyTorch " + torch.__version__ + "\n" + "\n".join(lines) + "\n")


main()
