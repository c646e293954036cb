#!/usr/bin/env python3
"""Writes tests/data/train/dropout.txt: what DropoutBy keeps, as NumPy has it. Needs numpy.

Usage: make_dropout_golden.py OUT.txt. Written from the paper (Salmon et al. 2011, section 3.3: Philox4x32 with 10 rounds) and the words of src/kernels/dropout.h, not from its code.
A line: seed, update, run, node, ratio, channels_last, sizes, and a bit for each element in the order of the axes, 1 where it is kept. SPDX-License-Identifier: Apache-2.0"""
import sys

import numpy as np

U = np.uint64
LOW = U(0xFFFFFFFF)


def philox(counter, key):
    """counter: [n, 4], key: two numbers; gives [n, 4]."""
    c = [counter[:, i].astype(U) for i in range(4)]
    k = [U(key[0]), U(key[1])]
    for _ in range(10):
        a, b = U(0xD2511F53) * c[0], U(0xCD9E8D57) * c[2]
        c = [(b >> U(32)) ^ c[1] ^ k[0], b & LOW, (a >> U(32)) ^ c[3] ^ k[1], a & LOW]
        k = [(k[0] + U(0x9E3779B9)) & LOW, (k[1] + U(0xBB67AE85)) & LOW]
    return np.stack(c, 1)


def kept(seed, update, run, node, ratio, last, dims):
    n = int(np.prod(dims))
    i = np.arange(n)
    counter = np.stack([i // 64 * 16 + i % 16, np.full(n, update & 0xFFFFFFFF), np.full(n, node), np.full(n, run)], 1)
    words = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))[i, i // 16 % 4]
    keep = words >= U(int(float(np.float32(ratio)) * 2 ** 32)) if ratio < 1 else np.zeros(n, bool)
    if last and len(dims) >= 3:
        order = [0, *range(2, len(dims)), 1]
        keep = keep.reshape([dims[k] for k in order]).transpose(np.argsort(order))
    return keep.reshape(-1)


def main():
    assert [int(x) for x in philox(np.zeros((1, 4), int), (0, 0))[0]] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]  # kat_vectors of its authors
    with open(sys.argv[1], "w") as f:
        for case in ((0, 0, 0, 0, 0.5, 0, (200,)), (7, 3, 1, 2, 0.2, 0, (3, 70)), (2 ** 40 + 9, 1 << 20, 0, 5, 0.1, 1, (2, 5, 3, 4)), (2 ** 63 + 1, 2 ** 32 + 6, 3, 1, 0.9, 1, (2, 3, 33)),
                     (11, 5, 2, 0, 0.5, 0, (2, 2, 3, 11)), (1, 1, 1, 1, 1.0, 0, (9,)), (1, 1, 1, 1, 0.0, 0, (9,))):
            *numbers, dims = case
            f.write(" ".join(map(str, numbers)) + " " + "x".join(map(str, dims)) + " " + "".join(str(int(b)) for b in kept(*case)) + "\n")


main()
