#!/usr/bin/env python3
"""Writes tests/data/train/optimisers.txt: what PyTorch's optimisers and schedules make of a few numbers. Needs torch (1.13 was used).

Usage: make_train_goldens.py OUT.txt. LAMB is not in PyTorch: it is written here from the paper (You et al. 2020, algorithm 2).
SPDX-License-Identifier: Apache-2.0"""
import math
import sys

import torch

A, B, STEPS = 12, 5, 7


class Draw:
    def __init__(self):
        self.x = 7

    def __call__(self, n):
        out = []
        for _ in range(n):
            self.x = (self.x * 1664525 + 1013904223) & 0xFFFFFFFF
            out.append((self.x >> 8) / 16777216.0 * 2 - 1)
        return torch.tensor(out, dtype=torch.float32)


def lamb_step(params, state, lr, decays, t, b1=0.9, b2=0.999, eps=1e-6):
    for p, decay, s in zip(params, decays, state):
        s[0] = b1 * s[0] + (1 - b1) * p.grad
        s[1] = b2 * s[1] + (1 - b2) * p.grad * p.grad
        r = (s[0] / (1 - b1 ** t)) / ((s[1] / (1 - b2 ** t)).sqrt() + eps) + decay * p.data
        trust = float(p.data.norm()) / float(r.norm())
        p.data -= lr * trust * r


def optimiser(name, rule, lr, momentum=0.0, nesterov=False, decay=0.0, clip=0.0):
    draw = Draw()
    a, b = torch.nn.Parameter(draw(A)), torch.nn.Parameter(draw(B))
    groups = [{"params": [a], "weight_decay": decay}, {"params": [b], "weight_decay": 0.0}]
    opt = {1: lambda: torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov), 2: lambda: torch.optim.AdamW(groups, lr=lr),
           3: lambda: None}[rule]()
    state = [[torch.zeros(A), torch.zeros(A)], [torch.zeros(B), torch.zeros(B)]]
    for t in range(STEPS):
        a.grad, b.grad = draw(A), draw(B)
        if clip:
            torch.nn.utils.clip_grad_norm_([a, b], clip)
        if opt:
            opt.step()
        else:
            lamb_step([a, b], state, lr, [decay, 0.0], t + 1)
    numbers = " ".join("%.9g" % v for v in a.tolist() + b.tolist())
    return f"opt {name} {rule} {lr} {momentum} {int(nesterov)} {decay} {clip} {numbers}"


def schedule(kind, lr, warmup, total, every=0, gamma=0.0, last=0.0):
    p = torch.nn.Parameter(torch.zeros(1))
    opt = torch.optim.SGD([p], lr=lr)
    if kind == 1:
        s = torch.optim.lr_scheduler.ConstantLR(opt, factor=1.0)
    elif kind == 2:
        s = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=total - warmup, eta_min=lr * last)
    else:
        s = torch.optim.lr_scheduler.StepLR(opt, step_size=every, gamma=gamma)
    rates = [lr * (i + 1) / warmup for i in range(warmup)]
    for _ in range(total - warmup):
        rates.append(opt.param_groups[0]["lr"])
        opt.step()
        s.step()
    return f"lr {kind} {lr} {warmup} {total} {every} {gamma} {last} " + " ".join("%.12g" % r for r in rates)


def main():
    lines = [f"# PyTorch {torch.__version__}; made by tests/tools/make_train_goldens.py"]
    lines += [optimiser("sgd", 1, 0.1), optimiser("sgd-decay", 1, 0.1, decay=0.05), optimiser("momentum", 1, 0.05, 0.9, decay=5e-4),
              optimiser("nesterov", 1, 0.05, 0.9, True, 5e-4), optimiser("nesterov-clip", 1, 0.05, 0.9, True, 5e-4, 0.7),
              optimiser("adamw", 2, 0.01), optimiser("adamw-decay", 2, 0.01, decay=0.1), optimiser("adamw-clip", 2, 0.01, decay=0.1, clip=0.5),
              optimiser("lamb", 3, 0.01), optimiser("lamb-decay", 3, 0.02, decay=0.01)]
    lines += [schedule(1, 0.1, 0, 5), schedule(2, 0.1, 0, 20), schedule(2, 0.2, 5, 20, last=0.05), schedule(3, 0.1, 0, 12, 4, 0.1)]
    assert math.isfinite(sum(map(float, lines[1].split()[8:])))
    with open(sys.argv[1], "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


main()
