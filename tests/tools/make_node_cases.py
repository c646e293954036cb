#!/usr/bin/env python3
"""Writes ONNX's own node tests into a folder, for `brim verify`: one folder a case with model.onnx and test_data_set_*/.

Needs the onnx package (a development tool; the tests of the project do not use it):
    python3 tests/tools/make_node_cases.py FOLDER [--max-opset 21] [--kind node]
    brim verify FOLDER/*
The numbers are those that the onnx package carries. Cases outside the opsets, from training or preview domains, or of another
domain are left out and counted.
SPDX-License-Identifier: Apache-2.0"""
import argparse
import collections
import pathlib
import shutil

import onnx
from onnx.backend.test import loader

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("--max-opset", type=int, default=21)
parser.add_argument("--min-opset", type=int, default=7)
parser.add_argument("--kind", default="node", choices=["node", "simple", "pytorch-converted", "pytorch-operator"])
args = parser.parse_args()


def why_not(model):
    for o in model.opset_import:
        if o.domain not in ("", "ai.onnx"):
            return "domain " + o.domain
        if not args.min_opset <= o.version <= args.max_opset:
            return "opset %d" % o.version
    return ""


written, left_out = collections.Counter(), collections.Counter()
for case in loader.load_model_tests(kind=args.kind):
    source = pathlib.Path(case.model_dir)
    model = onnx.load(str(source / "model.onnx"))
    why = why_not(model)
    if why:
        left_out[why] += 1
        continue
    target = args.folder / case.name
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    shutil.copyfile(source / "model.onnx", target / "model.onnx")
    for data in sorted(source.glob("test_data_set_*")):
        shutil.copytree(data, target / data.name)
    written.update({n.op_type for n in model.graph.node})

print(sum(1 for p in args.folder.iterdir() if p.is_dir()), "cases in", args.folder, "with", len(written), "operators")
for why, count in left_out.most_common():
    print(count, "left out:", why)
