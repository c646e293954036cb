#!/usr/bin/env python3
"""Does ONNX Runtime load what `brim train` wrote, and compute what brim computes? Needs onnx, onnxruntime, numpy; not part of the tests.

Usage: check_trained_onnx.py BRIM F.onnx...     exit 1 if any output differs by more than 1e-4 of its largest number.
SPDX-License-Identifier: Apache-2.0"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime


def draw(seed, count):
    x = np.empty(count, dtype=np.float32)
    state = seed
    for i in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        x[i] = (state >> 8) / 16777216.0
    return x


def check(brim, path):
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {}
    with tempfile.TemporaryDirectory() as folder:
        command = [brim, "run", path, "--output", folder, "--json"]
        for k, i in enumerate(session.get_inputs()):
            dims = [d if isinstance(d, int) else 1 for d in i.shape]
            feed[i.name] = draw(1 + k, int(np.prod(dims))).reshape(dims)
            np.save(os.path.join(folder, f"in{k}.npy"), feed[i.name])
            command += ["--input", f"{i.name}={folder}/in{k}.npy"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        worst = 0.0
        ours = sorted(f for f in os.listdir(folder) if not f.startswith("in"))
        for o, theirs, name in zip(session.get_outputs(), session.run(None, feed), ours):
            mine = np.load(os.path.join(folder, name))
            worst = max(worst, float(np.abs(mine - theirs).max() / max(np.abs(theirs).max(), 1e-12)))
    return worst


def main():
    failed = False
    for path in sys.argv[2:]:
        worst = check(sys.argv[1], path)
        failed |= not worst < 1e-4
        print(json.dumps({"file": os.path.basename(path), "onnxruntime": onnxruntime.__version__, "largest_difference": worst}))
    sys.exit(failed)


main()
