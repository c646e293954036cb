#!/usr/bin/env python3
"""Writes tests/data/train/losses.txt: losses of src/train/losses.c and their gradients, as PyTorch has them. Needs torch (1.13 was used).

Usage: make_loss_goldens.py OUT.txt. Inputs are drawn by the generator of losses_test.c.
SPDX-License-Identifier: Apache-2.0"""
import math
import sys

import torch
import torch.nn.functional as F


class Draw:
    def __init__(self, x):
        self.x = x

    def __call__(self, *shape):
        out = []
        for _ in range(math.prod(shape)):
            self.x = (self.x * 1664525 + 1013904223) & 0xFFFFFFFF
            out.append((self.x >> 8) / 16777216.0)
        return torch.tensor(out, dtype=torch.float32).reshape(shape)


def rows(draw, n, c):
    t = draw(n, c) + 0.1
    return t / t.sum(1, keepdim=True)


def ssim(x, y):
    line = torch.tensor([math.exp(-((i - 5) ** 2) / (2 * 1.5 ** 2)) for i in range(11)])
    line /= line.sum()
    c = x.shape[1]
    w = (line[:, None] * line[None, :]).expand(c, 1, 11, 11)
    blur = lambda v: F.conv2d(v, w, groups=c)
    mx, my = blur(x), blur(y)
    sx, sy, sxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = 0.01 ** 2, 0.03 ** 2
    return 1 - (((2 * mx * my + c1) * (2 * sxy + c2)) / ((mx * mx + my * my + c1) * (sx + sy + c2))).mean()


def triplet(x, same, margin=0.3):
    d = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    hp = (d - 1e6 * (1 - same)).max(1).values
    hn = (d + 1e6 * same).min(1).values
    return F.relu(hp - hn + margin).mean()


def one(name, shape, other, loss):
    draw = Draw(11)
    x = (draw(*shape) * 4 - 2) if name != "ssim" else draw(*shape)
    y = other(draw)
    x.requires_grad_(True)
    v = loss(x, y)
    v.backward()
    return f"{name} {v.item():.9g} " + " ".join("%.7g" % g for g in x.grad.flatten().tolist()[:40])


def main():
    identity = torch.tensor([[float(i // 2 == j // 2) for j in range(6)] for i in range(6)])
    lines = [f"# PyTorch {torch.__version__}; made by tests/tools/make_loss_goldens.py",
             one("bce", (4, 5), lambda d: d(4, 5), F.binary_cross_entropy_with_logits),
             one("cross", (4, 5), lambda d: rows(d, 4, 5), F.cross_entropy),
             one("focal", (4, 5), lambda d: rows(d, 4, 5),
                 lambda x, t: -(t * (1 - x.softmax(1)) ** 2 * x.log_softmax(1)).sum(1).mean()),
             one("distill", (4, 5), lambda d: rows(d, 4, 5), lambda x, t: 9 * F.cross_entropy(x / 3, t)),
             one("l1", (4, 5), lambda d: d(4, 5), F.l1_loss),
             one("mse", (4, 5), lambda d: d(4, 5), F.mse_loss),
             one("ssim", (2, 3, 14, 13), lambda d: d(2, 3, 14, 13), ssim),
             one("triplet", (6, 4), lambda d: identity, triplet)]
    with open(sys.argv[1], "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


main()
