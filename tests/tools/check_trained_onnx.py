#!/usr/bin/env python3
"""Does ONNX Runtime load what `brim train` wrote, and compute what brim computes? Needs onnx, onnxruntime, numpy; not part of the tests.

Usage: check_trained_onnx.py BRIM F.onnx...     exit 1 if any output differs by more than 1e-4 of its largest number.
SPDX-License-Identifier: Apache-2.0"""
import json
import os
import string
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime

KEPT = string.ascii_letters + string.digits + "._-"


def draw(seed, count):
    x = np.empty(count, dtype=np.float32)
    state = seed
    for i in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        x[i] = (state >> 8) / 16777216.0
    return x


def file_of(name):
    """Where `brim run --output` puts an output: as in src/cli/run.c, output_path."""
    return "".join(chr(b) if chr(b) in KEPT else "_" for b in name.encode()) + ".npy"


def check(brim, path):
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {}
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out")
        command = [brim, "run", path, "--output", out, "--json"]
        for k, i in enumerate(session.get_inputs()):
            dims = [d if isinstance(d, int) else 1 for d in i.shape]
            feed[i.name] = draw(1 + k, int(np.prod(dims))).reshape(dims)
            np.save(os.path.join(folder, f"in{k}.npy"), feed[i.name])
            command += ["--input", f"{i.name}={folder}/in{k}.npy"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        worst = 0.0
        outputs = session.get_outputs()
        assert sorted(file_of(o.name) for o in outputs) == sorted(os.listdir(out)), (path, [o.name for o in outputs], os.listdir(out))
        for o, theirs in zip(outputs, session.run(None, feed)):
            mine = np.load(os.path.join(out, file_of(o.name)))
            assert mine.shape == theirs.shape, (path, o.name, mine.shape, theirs.shape)
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
