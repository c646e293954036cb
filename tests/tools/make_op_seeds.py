#!/usr/bin/env python3
"""Makes the seeds of op_fuzz from tests/data/op_shapes.txt, in the byte form that the fuzzer reads: for each shape rule one node
of one of its operators (what is committed in tests/fuzz/corpus/op), or with a number that many of each operator.

    python3 tests/tools/make_op_seeds.py FOLDER [nodes per operator]
SPDX-License-Identifier: Apache-2.0"""
import collections
import pathlib
import re
import struct
import sys

root = pathlib.Path(__file__).resolve().parents[2]
source = (root / "tests/fuzz/op_fuzz.c").read_text()
kinds = ["none"] + re.findall(r'X\(\w+, "(\w+)"', (root / "src/op/op.h").read_text())
names = re.findall(r'"(\w+)"', source.split("NAMES[] = {")[1].split("};")[0])
types = {"f32": 0, "i64": 1, "i32": 2, "bool": 3, "f64": 4}


def number(v):
    return bytes([v + 4]) if -4 <= v <= 15 else b"\xff" + struct.pack(">q", v)


def real(f):
    return bytes([max(0, min(127, round(f * 16)))])


def shape(text, small):
    dims = [int(d.strip("<")) for d in text.split(",") if d]
    return bytes([len(dims)]) + b"".join(bytes([d % 10]) if small else number(d) for d in dims) + b"\xff"


def attribute(text):
    name, value = text.split("=", 1)
    kind, value = value[0], value[1:]
    t = {"f": 1, "i": 2, "s": 3, "t": 4, "F": 6, "I": 7}[kind]
    items = value.split(",") if kind in "FI" and value else []
    n = len(value) if kind == "s" else len(items)
    if name not in names or n >= 20:
        return None
    out = bytes([names.index(name), t]) + number(int(value) if kind == "i" else 0) + real(float(value) if kind == "f" else 0) + bytes([n])
    out += b"".join(number(int(v)) if kind == "I" else real(float(v)) for v in items)
    out += b"\xff" + value.encode() if kind == "s" else b"\xff" + b"a" * n
    out += b"\x01"
    return out + shape(value.split("[")[1].split("]")[0], True) if kind == "t" else out


def tensor(text):
    if text == "-":
        return b"\xdd\x00\x00\xff"
    t, rest = text.split("[", 1)
    dims, rest = rest.split("]", 1)
    k = types.get(t, 0)
    while rest and k < 110:
        k += 6
    out = bytes([k]) + shape(dims, k & 1)
    for v in rest.strip("{}").split(",") if len(rest) > 2 else []:
        out += number(0 if t[0] == "f" else int(v)) + real(float(v))
    return out


folder, most = pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
first = {}
for kind, rule in re.findall(r"\[OP_(\w+)\] = \{(op_rule_\w+)", (root / "src/op/infer.c").read_text()):
    first.setdefault(rule, dict(re.findall(r'X\((\w+), "(\w+)"', (root / "src/op/op.h").read_text()))[kind])
folder.mkdir(parents=True, exist_ok=True)
seen = collections.Counter()
for line in (root / "tests/data/op_shapes.txt").read_text().splitlines():
    head, attrs, ins, outs = line.split("|")
    name, opset = head.split()
    attrs, ins, outs = [attribute(a) for a in attrs.split()], ins.split(), outs.split()
    if len(sys.argv) <= 2 and name not in first.values():
        continue
    if seen[name] >= most or None in attrs or len(attrs) > 6 or len(ins) > 6 or len(outs) > 3:
        continue
    data = bytes([kinds.index(name), int(opset), len(ins), len(outs) - 1, len(attrs)])
    data += b"".join(attrs) + b"".join(tensor(t) for t in ins)
    (folder / f"{name}{seen[name] or ''}").write_bytes(data)
    seen[name] += 1
