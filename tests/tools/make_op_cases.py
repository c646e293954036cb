#!/usr/bin/env python3
"""Records what ONNX Runtime (or, where that has no kernel, ONNX's reference implementation) computes for small cases of every
operator, into tests/data/op_cases.bin, which src/kernels/ref/conformance_test.c replays. For developers only:

    python3 tests/tools/make_op_cases.py          # needs numpy, onnx 1.17, onnxruntime

Format, little-endian: "BOPC", u32 version = 1, u32 cases; per case: text operator, text label, u8 opset, f32 tolerance relative to
max(1, |want|); u8 attributes: text name, u8 type (ONNX's), value; u8 inputs, u8 outputs: tensors. text: u8 length, bytes. list: u16
length. tensor: u8 dtype (0: absent), u8 rank, i32 sizes, bytes; or 255, u16: the tensor of that number, counted as they appear in full. SPDX-License-Identifier: Apache-2.0"""
import os
import struct
import sys
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

try:
    import onnxruntime as ort
    ort.set_default_logger_severity(4)
except ImportError:
    ort = None

warnings.simplefilter("ignore")
rng = np.random.default_rng(20)
F, D, H, I32, I64, U8, I8, B = np.float32, np.float64, np.float16, np.int32, np.int64, np.uint8, np.int8, np.bool_
DTYPES = {np.dtype(k): v for k, v in {F: 1, U8: 2, I8: 3, np.uint16: 4, np.int16: 5, I32: 6, I64: 7, B: 9, H: 10, D: 11,
                                      np.uint32: 12, np.uint64: 13}.items()}
cases, missing = [], []


def r(*shape, dtype=F, low=-2.0, high=2.0):
    if np.dtype(dtype).kind == "f":
        return rng.uniform(low, high, shape).astype(dtype)
    if dtype is B:
        return rng.integers(0, 2, shape).astype(B)
    low, high = max(int(low), np.iinfo(dtype).min), int(high)
    return rng.integers(low, high, shape).astype(dtype)


def i64(*v):
    return np.array(v, dtype=I64)


class Bf16:
    """Numbers of bfloat16, kept as float32 that bfloat16 can hold."""

    def __init__(self, a):
        u = a.astype(F).view(np.uint32)
        self.bits = ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)
        self.a = (self.bits.astype(np.uint32) << 16).view(F)


def compute(op, inputs, opset, n_out, attrs):
    if op == "Silu":
        x = inputs[0].astype(D)
        return [(x / (1 + np.exp(-x))).astype(inputs[0].dtype)]
    if op == "Copy":
        return [inputs[0]]
    names = [f"i{k}" if a is not None else "" for k, a in enumerate(inputs)]
    outs = [f"o{k}" for k in range(n_out)]
    node = helper.make_node(op, names, outs, **attrs)
    ins = [helper.make_tensor_value_info(n, DTYPES[a.dtype], a.shape) for n, a in zip(names, inputs) if n]
    graph = helper.make_graph([node], "g", ins, [onnx.ValueInfoProto(name=o) for o in outs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    feed = {n: a for n, a in zip(names, inputs) if n}
    if ort:
        try:
            o = ort.SessionOptions()
            o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            return ort.InferenceSession(model.SerializeToString(), o, providers=["CPUExecutionProvider"]).run(None, feed)
        except Exception as e:
            reason = e
    try:
        return [np.asarray(a) for a in ReferenceEvaluator(model).run(None, feed)]
    except Exception as e:
        missing.append(f"{op} {opset} {[None if a is None else a.dtype.name for a in inputs]}: {str(reason)[:90]} / {str(e)[:90]}")
        return None


def case(op, *inputs, opset=17, n_out=1, tol=2e-5, label="", want=None, **attrs):
    inputs = [a if a is None or isinstance(a, Bf16) else np.asarray(a) for a in inputs]
    plain = [a.a if isinstance(a, Bf16) else a for a in inputs]
    out = want if want is not None else compute(op, plain, opset, n_out, attrs)
    if out is None:
        return
    if any(isinstance(a, Bf16) for a in inputs):
        out = [Bf16(a) if a.dtype == F else a for a in out]
        tol = max(tol, 1e-2)
    if any(getattr(a, "dtype", None) == H for a in inputs):
        tol = max(tol, 3e-3)
    cases.append((op, label, opset, tol, attrs, inputs, out))


def text(s):
    s = s.encode() if isinstance(s, str) else s
    return struct.pack("<B", len(s)) + s


numbers = {}


def tensor(a):
    """The first time in full, then by number."""
    full = tensor_in_full(a)
    if full in numbers:
        return struct.pack("<BH", 255, numbers[full])
    numbers[full] = len(numbers)
    return full


def tensor_in_full(a):
    if a is None:
        return b"\0\0"
    if isinstance(a, Bf16):
        return struct.pack("<BB", 16, a.bits.ndim) + struct.pack(f"<{a.bits.ndim}i", *a.bits.shape) + a.bits.tobytes()
    return struct.pack("<BB", DTYPES[a.dtype], a.ndim) + struct.pack(f"<{a.ndim}i", *a.shape) + np.ascontiguousarray(a).tobytes()


def attribute(name, v):
    out = text(name)
    if isinstance(v, TensorProto):
        return out + b"\x04" + tensor(onnx.numpy_helper.to_array(v))
    if isinstance(v, float):
        return out + struct.pack("<Bf", 1, v)
    if isinstance(v, int):
        return out + struct.pack("<Bq", 2, v)
    if isinstance(v, str):
        return out + b"\x03" + text(v)
    if v and isinstance(v[0], float):
        return out + struct.pack("<BH", 6, len(v)) + struct.pack(f"<{len(v)}f", *v)
    return out + struct.pack("<BH", 7, len(v)) + struct.pack(f"<{len(v)}q", *v)


def write(path):
    out = [b"BOPC", struct.pack("<II", 1, len(cases))]
    for op, label, opset, tol, attrs, inputs, outs in cases:
        out.append(text(op) + text(label) + struct.pack("<Bf", opset, tol) + struct.pack("<B", len(attrs)))
        out += [attribute(k, v) for k, v in attrs.items()]
        out.append(struct.pack("<B", len(inputs)))
        out += [tensor(a) for a in inputs]
        out.append(struct.pack("<B", len(outs)))
        out += [tensor(a) for a in outs]
    data = b"".join(out)
    with open(path, "wb") as f:
        f.write(data)
    print(f"{path}: {len(cases)} cases, {len({c[0] for c in cases})} operators, {len(data)} bytes")


def elementwise():
    for op in "Abs Ceil Cos Elu Erf Exp Floor HardSigmoid LeakyRelu Neg Relu Round Selu Sigmoid Sign Sin Sinh Cosh Softplus Softsign Tan Tanh Atan Asinh Identity ThresholdedRelu HardSwish Celu".split():
        case(op, r(2, 3, 5, 3))
        if op != "Celu":
            case(op, r(7, low=-5, high=5, dtype=D))
        case(op, r(3, 5, dtype=H))
    case("Mish", r(2, 3, 5), opset=18)
    for a in ("none", "tanh"):
        case("Gelu", r(2, 3, 5), opset=20, approximate=a)
    case("Exp", np.array([-200, -100, -90, -87.5, 0, 1, 88.5, 88.8, 200, np.nan, np.inf, -np.inf], F))
    case("Tanh", np.array([-200, -10, -0.6, -1e-5, 0, 1e-20, 0.7, 9, 100, np.inf, -np.inf], F))
    case("Sigmoid", np.array([-200, -90, -10, 0, 10, 90, 200, np.inf, -np.inf], F))
    for op in "Sqrt Log Reciprocal Acosh".split():
        case(op, r(2, 3, 5, low=1.01, high=4))
        case(op, r(5, low=1.01, high=4, dtype=H))
    for op in "Asin Acos Atanh".split():
        case(op, r(2, 3, 5, low=-0.9, high=0.9))
    case("LeakyRelu", r(2, 5, 3), alpha=0.3)
    case("Elu", r(2, 5, 3), alpha=0.3)
    case("Celu", r(2, 5, 3), alpha=0.7)
    case("Selu", r(2, 5, 3), alpha=1.3, gamma=0.9)
    case("HardSigmoid", r(2, 5, 3), alpha=0.4, beta=0.3)
    case("ThresholdedRelu", r(2, 5, 3), alpha=0.4)
    case("Round", np.array([0.5, 1.5, 2.5, -0.5, -1.5, 2.4, 2.6], F))
    for t in (I8, np.int16, I32, I64):
        case("Abs", r(3, 5, dtype=t, low=-100, high=100))
        case("Neg", r(3, 5, dtype=t, low=-100, high=100))
        case("Sign", r(3, 5, dtype=t, low=-100, high=100))
    case("Relu", r(3, 5, dtype=I32, low=-9, high=9))
    case("Sign", r(3, 5, dtype=U8, low=0, high=9))
    case("Not", r(3, 5, dtype=B))
    special = np.array([0, np.nan, np.inf, -np.inf, 1], F)
    case("IsNaN", special)
    case("IsInf", special)
    case("IsInf", special, detect_negative=0)
    case("Silu", r(2, 3, 5, 2), opset=1)
    case("Copy", r(2, 3, 5, 2), opset=1)
    for op in ("Sigmoid", "Relu", "Tanh", "Exp"):
        case(op, Bf16(r(3, 5)))
    case("Clip", r(2, 5, 3), F(-0.5), F(1))
    case("Clip", r(2, 5, 3), None, F(1))
    case("Clip", r(2, 5, 3), F(0.5))
    case("Clip", r(2, 5, 3), F(1), F(-1))
    case("Clip", r(2, 5, 3), opset=6, min=0.0, max=1.0)
    case("Clip", r(9, dtype=I32, low=-9, high=9), I32(-3), I32(4), opset=13)
    case("Clip", r(9, dtype=U8, low=0, high=200), U8(30), U8(100), opset=13)


def binary():
    shapes = [((2, 3, 5, 3), (2, 3, 5, 3)), ((2, 3, 4, 5), (3, 1, 1)), ((2, 3, 4, 5), (5,)), ((3, 1, 5), (2, 3, 4, 1)), ((), (3, 2)), ((0, 3), (1, 3))]
    for op in "Add Sub Mul Div Max Min".split():
        for a, b in shapes:
            case(op, r(*a, low=0.5), r(*b, low=0.5))
        for t in (I32, I64, D):
            case(op, r(3, 5, dtype=t, low=-30, high=30), np.maximum(r(5, dtype=t, low=1, high=9), t(1)))
        case(op, r(3, 5, dtype=H), r(5, low=1, dtype=H))
        case(op, Bf16(r(3, 5)), Bf16(r(5, low=1)))
    case("Add", r(3, 5, dtype=U8, low=0, high=255), r(5, dtype=U8, low=0, high=255), opset=14)
    case("Max", np.array([1, np.nan, 3], F), np.array([np.nan, 2, 2], F))
    case("Min", np.array([1, np.nan, 3], F), np.array([np.nan, 2, 2], F))
    for op in "Sum Max Min Mean".split():
        case(op, r(2, 3, 5), r(3, 1), r(5), r(1))
        case(op, r(2, 3, 5))
    for op in "Equal Greater GreaterOrEqual Less LessOrEqual".split():
        case(op, r(2, 3, 5, dtype=I32, low=0, high=3), r(3, 1, dtype=I32, low=0, high=3))
        case(op, np.array([1, 2, np.nan, 4], F), np.array([1, 3, np.nan, 2], F))
        case(op, r(7, dtype=I64, low=0, high=3), r(7, dtype=I64, low=0, high=3))
    case("Equal", r(7, dtype=B), r(7, dtype=B))
    for op in "And Or Xor".split():
        case(op, r(2, 3, 5, dtype=B), r(3, 1, dtype=B))
    for d in ("LEFT", "RIGHT"):
        for t in (U8, np.uint32, np.uint64):
            case("BitShift", r(9, dtype=t, low=0, high=200), r(9, dtype=t, low=0, high=7), direction=d)
    for t in (I32, I64, I8, U8):
        case("Mod", r(9, dtype=t, low=-50, high=50), np.array([3, 4, 5, 7, 3, 2, 5, 6, 7], t))
    case("Mod", r(9, dtype=I32, low=-50, high=50), np.array([3, -4, 5, -7, 3, 2, -5, 6, 7], I32), fmod=1)
    case("Mod", r(9, dtype=I32, low=-50, high=50), np.array([3, -4, 5, -7, 3, 2, -5, 6, 7], I32))
    case("Mod", r(3, 5), r(5, low=0.3), fmod=1)
    case("Pow", r(3, 5, low=0.1), r(5))
    case("Pow", r(3, 5), F(2))
    case("Pow", r(3, 5, dtype=I32, low=-4, high=4), r(5, dtype=I32, low=0, high=4))
    case("Pow", r(3, 5, low=0.1), r(5, dtype=I64, low=-2, high=3))
    case("Pow", r(3, 5, dtype=I64, low=1, high=5), r(5, low=0))
    case("PRelu", r(2, 3, 4, 5), r(3, 1, 1))
    case("PRelu", r(2, 3), r(3), opset=7)
    case("Where", r(2, 1, 5, dtype=B), r(3, 1), r(2, 3, 5))
    case("Where", r(4, dtype=B), r(4, dtype=I64, low=0, high=9), r(1, dtype=I64, low=0, high=9))
    case("Where", r(4, dtype=B), r(4, dtype=U8, low=0, high=9), r(4, dtype=U8, low=0, high=9))


def cast():
    kinds = {F: 1, U8: 2, I8: 3, np.uint16: 4, np.int16: 5, I32: 6, I64: 7, B: 9, H: 10, D: 11, np.uint32: 12, np.uint64: 13}
    for a in kinds:
        for b, number in kinds.items():
            if a is not b:
                case("Cast", r(7, dtype=a, low=0, high=100), to=number, tol=1e-3)
    case("Cast", np.array([-3.7, -0.5, 0.5, 3.7, 100.9], F), to=6)
    case("Cast", np.array([-3.7, -0.5, 0.5, 3.7, 100.9], F), to=7)
    case("Cast", np.array([65519, 65520, 1e-8, 6e-8, 3e-5, -70000, 1 + 2**-11, 1 + 3 * 2**-11], F), to=10, tol=0)
    case("Cast", np.array([6e-8, 1e-7, 3e-5, 6.1e-5, 1.5, np.inf, np.nan], H), to=1, tol=0)
    x = Bf16(r(3, 5))
    cases.append(("Cast", "from bfloat16", 17, 0, {"to": 1}, (x,), [x.a]))
    y = r(3, 5)
    cases.append(("Cast", "to bfloat16", 17, 0, {"to": 16}, (y,), [Bf16(y)]))


def move():
    x = r(2, 3, 4, 5)
    for p in ([0, 2, 3, 1], [0, 3, 1, 2], [3, 2, 1, 0], [1, 0, 2, 3]):
        case("Transpose", x, perm=p)
    case("Transpose", r(2, 20, 37), perm=[0, 2, 1])
    case("Transpose", r(3, 5, dtype=U8, low=0, high=99))
    case("Transpose", r(3, 5, dtype=H), perm=[1, 0])
    case("Reshape", x, i64(2, -1, 5))
    case("Reshape", x, i64(0, 12, 5))
    case("Reshape", x, i64(4, 3, 10))
    case("Reshape", r(0, 3), i64(3, 0), allowzero=1, opset=14)
    for a in (0, 1, 2, -1):
        case("Flatten", x, axis=a)
    case("Squeeze", r(1, 3, 1, 5), i64(0, 2), opset=13)
    case("Squeeze", r(1, 3, 1, 5), opset=11, axes=[2])
    case("Squeeze", r(1, 3, 1, 5), opset=13)
    case("Unsqueeze", r(3, 5), i64(0, -1), opset=13)
    case("Unsqueeze", r(3, 5), opset=11, axes=[1, 2])
    for a in (0, 1, -1):
        s = [[2, 3, 4, 5], [2, 3, 4, 5]]
        s[1][a] = 2
        case("Concat", r(*s[0]), r(*s[1]), r(*s[0]), axis=a)
    case("Concat", r(3, dtype=I64, low=0, high=9), r(0, dtype=I64), r(2, dtype=I64, low=0, high=9), axis=0)
    case("Split", x, i64(1, 3), opset=13, n_out=2, axis=2)
    case("Split", r(6, 4), opset=11, n_out=3, axis=0)
    case("Split", r(6, 4), opset=11, n_out=2, axis=0, split=[2, 4])
    case("Split", r(7, 4), opset=18, n_out=3, axis=0, num_outputs=3)
    case("Slice", x, i64(1, 0), i64(3, 4), i64(2, 3), i64(1, 2))
    case("Slice", x, i64(-1, 10), i64(-1000, 0), i64(3, 2), i64(-1, -2))
    case("Slice", x, i64(0), i64(1000), i64(-1))
    case("Slice", x, i64(2), i64(1), i64(1))
    case("Slice", x, opset=9, starts=[1, 0], ends=[2, -1], axes=[0, 3])
    case("Slice", r(9, dtype=U8, low=0, high=99), np.array([7], I32), np.array([1], I32), np.array([0], I32), np.array([-3], I32))
    for mode in ("constant", "reflect", "edge"):
        case("Pad", x, i64(0, 0, 1, 2, 0, 0, 2, 1), opset=13, mode=mode)
        case("Pad", x, opset=10, mode=mode, pads=[1, 0, 1, 2, 0, 2, 2, 1])
    case("Pad", x, i64(0, -1, 1, -2, 0, 1, -2, 3), F(1.5), opset=13)
    case("Pad", x, opset=2, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=2.5)
    case("Pad", x, i64(1, 2, 0, 3), None, i64(2, -1), opset=19, mode="wrap")
    case("Pad", x, i64(1, 2, 0, 3), F(7), i64(2, 1), opset=18)
    case("Pad", r(2, 3, dtype=I32, low=0, high=9), i64(1, 1, 0, 0), I32(7), opset=13)
    case("Pad", r(1, 4, 4, 3), i64(0, 2, 2, 0, 0, 2, 2, 0), opset=13, mode="reflect")
    case("Expand", r(3, 1), i64(2, 1, 4))
    case("Expand", r(5), i64(1))
    case("Tile", r(2, 3), i64(2, 3))
    case("Tile", r(2, 3, 2, dtype=I32, low=0, high=9), i64(1, 2, 1))
    case("DepthToSpace", r(2, 8, 3, 2), blocksize=2)
    case("DepthToSpace", r(2, 8, 3, 2), blocksize=2, mode="CRD")
    case("SpaceToDepth", r(2, 3, 4, 6), blocksize=2)
    for k in (-1, 0, 2):
        for u in (0, 1):
            case("Trilu", r(2, 4, 5), I64(k), opset=14, upper=u)
    case("Dropout", r(3, 5), opset=13, n_out=2)


def gather():
    x = r(4, 5, 3)
    case("Gather", x, i64(0, -1, 2), axis=1)
    case("Gather", x, I64(-2), axis=0)
    case("Gather", x, np.array([[0, 1], [2, 0]], I32), axis=2)
    case("Gather", r(7, dtype=I64, low=0, high=99), i64(3), axis=0)
    case("GatherElements", x, rng.integers(-4, 4, (2, 5, 3)).astype(I64), axis=0)
    case("GatherElements", x, rng.integers(-3, 3, (4, 5, 6)).astype(I64), axis=-1)
    case("GatherND", x, np.array([[0, 1], [3, -1]], I64))
    case("GatherND", x, np.array([[[0], [1]], [[3], [2]]], I64))
    case("GatherND", x, rng.integers(0, 3, (4, 2, 1)).astype(I64), batch_dims=1)
    up = r(2, 5, 3)
    case("ScatterElements", x, np.stack([np.argsort(r(5, 3), 0)[:2] * 0 + k for k in range(5)], 1)[:, :, :][[0, 1]] % 4 * 0 + np.array([[[0]], [[2]]]), up, axis=0)
    for red in ("add", "mul", "max", "min"):
        case("ScatterElements", x, rng.integers(-4, 4, (2, 5, 3)).astype(I64), up, axis=0, reduction=red, opset=18)
        case("ScatterND", x, np.array([[0, 1], [3, 1], [0, 1]], I64), r(3, 3), reduction=red, opset=18)
    case("ScatterND", x, np.array([[1], [3]], I64), r(2, 5, 3), opset=16)
    case("ScatterND", r(8, dtype=I64, low=0, high=9), np.array([[1], [3]], I64), i64(50, 60), opset=13)
    case("OneHot", i64(0, 2, -1, 9), I64(4), np.array([0.5, 2], F))
    case("OneHot", np.array([[0, 2], [1, 3]], I64), I64(4), i64(0, 1), axis=1)


def make():
    t = onnx.numpy_helper.from_array(r(2, 3))
    case("Constant", value=t)
    case("Constant", value_ints=[1, 2, 3])
    case("Constant", value_float=2.5)
    case("ConstantOfShape", i64(2, 3), value=onnx.numpy_helper.from_array(np.array([7], I64)))
    case("ConstantOfShape", i64(2, 3))
    case("Shape", r(2, 3, 4))
    case("Shape", r(2, 3, 4), opset=15, start=-2)
    case("Size", r(2, 3, 4))
    case("Range", I64(3), I64(17), I64(4))
    case("Range", F(3), F(-2), F(-0.75))
    case("EyeLike", r(3, 5), k=1)
    case("EyeLike", r(4, 3), k=-1, dtype=7)


def reduce():
    x = r(2, 3, 4, 5)
    ops = "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare".split()
    for op in ops:
        v = np.abs(x) + F(0.1) if op == "ReduceLogSum" else x
        for axes, keep in (([1], 1), ([2, 3], 1), ([0, 2], 0), ([-1], 0)):
            case(op, v, opset=11, axes=axes, keepdims=keep)
        case(op, v, opset=11)
        case(op, v, i64(1, 3), opset=18, keepdims=0)
        case(op, v, opset=18, noop_with_empty_axes=1)
        if op not in ("ReduceLogSum", "ReduceLogSumExp", "ReduceL2"):
            case(op, r(3, 4, dtype=I32, low=-9, high=9), opset=11, axes=[1])
        case(op, np.abs(r(3, 4, dtype=D)), opset=11, axes=[1])
        case(op, np.abs(r(3, 4, dtype=H)), opset=11, axes=[0])
    case("ReduceSum", x, i64(1), opset=13)
    case("ReduceMax", r(3, 4, dtype=U8, low=0, high=200), opset=12, axes=[1])
    case("ReduceMean", r(1, 3, 17, 31), opset=11, axes=[2, 3])
    case("ReduceSum", r(0, 3), i64(0), opset=13)
    for op in ("ArgMax", "ArgMin"):
        for a in (0, 1, -1):
            case(op, x, axis=a)
        case(op, r(4, 6, dtype=I32, low=0, high=3), axis=1, keepdims=0)
        case(op, r(4, 6, dtype=I32, low=0, high=3), axis=1, select_last_index=1)
    for e in (0, 1):
        for v in (0, 1):
            case("CumSum", r(3, 5), I32(1), exclusive=e, reverse=v)
    case("CumSum", r(3, 5, dtype=I64, low=0, high=9), I64(-2))


def normal():
    x = r(2, 3, 4, 5)
    for op in ("Softmax", "LogSoftmax"):
        for a in (0, 1, -1):
            case(op, x, axis=a)
            case(op, x, axis=a, opset=11)
        case(op, r(3, 300, low=-50, high=50))
        case(op, r(3, 7, dtype=D))
        case(op, r(3, 7, dtype=H))
    case("Softmax", np.array([[1000, 1000, -1000]], F))
    for p in (1, 2):
        case("LpNormalization", x, axis=1, p=p)
    bn = (r(3), r(3), r(3), r(3, low=0.1))
    case("BatchNormalization", x, *bn, opset=9)
    case("BatchNormalization", x, *bn, opset=15, epsilon=1e-3)
    case("BatchNormalization", r(4, 3), *bn, opset=15)
    case("BatchNormalization", r(2, 3, 5, dtype=D), *[a.astype(D) for a in bn], opset=15)
    case("InstanceNormalization", x, r(3), r(3))
    case("InstanceNormalization", r(1, 3, 17, 19, low=100, high=101), r(3), r(3), epsilon=1e-3, tol=2e-4)
    case("LayerNormalization", x, r(5), r(5))
    case("LayerNormalization", x, r(4, 5), r(4, 5), axis=2, n_out=3)
    case("LayerNormalization", x, r(5))
    case("LRN", r(2, 7, 3, 3), size=3)
    v = r(2, 7, 3, 3)  # an even size: ONNX Runtime refuses it, the reference sums only some channels
    sums = np.stack([(v[:, max(0, c - 1):c + 3] ** 2).sum(1) for c in range(7)], 1)
    case("LRN", v, size=4, alpha=0.1, beta=0.5, bias=2.0, want=[v / (2 + F(0.1) / 4 * sums) ** F(0.5)])


def matrices():
    case("MatMul", r(7, 5), r(5, 33))
    case("MatMul", r(2, 3, 4, 5), r(3, 5, 6))
    case("MatMul", r(5), r(5))
    case("MatMul", r(5), r(2, 5, 3))
    case("MatMul", r(2, 4, 5), r(5))
    case("MatMul", r(3, 4, dtype=D), r(4, 5, dtype=D))
    case("MatMul", r(3, 4, dtype=I32, low=-9, high=9), r(4, 5, dtype=I32, low=-9, high=9))
    case("MatMul", r(3, 4, dtype=H), r(4, 5, dtype=H))
    for ta in (0, 1):
        for tb in (0, 1):
            a, b = r(*((5, 3), (3, 5))[not ta]), r(*((5, 18), (18, 5))[tb])
            case("Gemm", a, b, r(18), transA=ta, transB=tb, alpha=0.5, beta=2.0)
    case("Gemm", r(20, 30), r(40, 30), r(1), transB=1)
    case("Gemm", r(20, 30), r(30, 8), r(20, 1))
    case("Gemm", r(3, 5), r(5, 2), opset=13)
    case("Gemm", r(3, 5, dtype=D), r(5, 2, dtype=D), r(2, dtype=D))
    case("Einsum", r(3, 4), r(4, 5), equation="ij,jk->ik")
    case("Einsum", r(2, 3, 4), r(2, 4, 5), equation="bij,bjk")
    case("Einsum", r(2, 3, 4, 5), equation="...ij->...ji")
    case("Einsum", r(4, 4), equation="ii->i")
    case("Einsum", r(3), r(4), equation="i,j->ij")
    case("Einsum", r(2, 3, 4), r(2, 5, 4), equation="nhd, nwd -> nhw")


def spatial():
    x = r(2, 4, 7, 6)
    case("Conv", x, r(5, 4, 3, 3), r(5), pads=[1, 1, 1, 1])
    case("Conv", x, r(5, 4, 3, 2), strides=[2, 1], pads=[0, 1, 2, 0])
    case("Conv", x, r(20, 4, 1, 1), r(20))
    case("Conv", x, r(4, 1, 3, 3), r(4), group=4, pads=[1, 1, 1, 1])
    case("Conv", x, r(8, 1, 3, 3), group=4)
    case("Conv", x, r(6, 2, 3, 3), r(6), group=2, dilations=[2, 1], auto_pad="SAME_UPPER")
    case("Conv", x, r(3, 4, 2, 2), auto_pad="SAME_LOWER", strides=[2, 2])
    case("Conv", x, r(3, 4, 3, 3), auto_pad="VALID")
    case("Conv", r(2, 3, 9), r(4, 3, 3), r(4), pads=[1, 1])
    case("Conv", r(1, 2, 4, 5, 6), r(3, 2, 2, 3, 3), r(3), pads=[0, 1, 1, 1, 1, 1])
    case("Conv", r(1, 3, 5, 5, dtype=D), r(4, 3, 3, 3, dtype=D), r(4, dtype=D))
    case("Conv", r(1, 24, 5, 5), r(18, 24, 3, 3), r(18), tol=1e-4)
    for kw in (dict(), dict(strides=[2, 2]), dict(strides=[2, 3], pads=[1, 0, 0, 2], output_padding=[1, 1]),
               dict(strides=[2, 2], auto_pad="SAME_UPPER"), dict(strides=[2, 2], output_shape=[14, 13]), dict(dilations=[2, 2])):
        case("ConvTranspose", x, r(4, 3, 3, 3), r(3), **kw)
    case("ConvTranspose", x, r(4, 2, 2, 2), group=2, strides=[2, 2])
    case("ConvTranspose", x, r(4, 1, 4, 4), group=4, strides=[2, 2], pads=[1, 1, 1, 1])
    case("ConvTranspose", r(1, 3, 5), r(3, 20, 3), strides=[2])
    for kw in (dict(), dict(strides=[2, 2]), dict(strides=[2, 2], pads=[1, 1, 1, 1]), dict(strides=[2, 2], ceil_mode=1),
               dict(strides=[3, 2], auto_pad="SAME_UPPER"), dict(strides=[2, 2], pads=[1, 0, 1, 1], ceil_mode=1)):
        case("MaxPool", x, kernel_shape=[3, 2], **kw)
        case("AveragePool", x, kernel_shape=[3, 2], **kw)
        if "auto_pad" not in kw:
            case("AveragePool", x, kernel_shape=[3, 2], count_include_pad=1, opset=19, **kw)
    case("MaxPool", x, kernel_shape=[2, 2], dilations=[2, 2], strides=[1, 1])
    case("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], n_out=2)
    case("MaxPool", x, kernel_shape=[2, 3], strides=[2, 2], n_out=2, storage_order=1)
    case("MaxPool", r(1, 3, 5, 5, dtype=U8, low=0, high=255), kernel_shape=[2, 2], opset=12)
    case("MaxPool", r(1, 3, 9), kernel_shape=[3], strides=[2])
    case("AveragePool", x, kernel_shape=[2, 2], dilations=[2, 2], opset=19)
    case("AveragePool", r(1, 2, 4, 5, 6), kernel_shape=[2, 2, 3], strides=[2, 1, 2])
    case("GlobalAveragePool", x)
    case("GlobalMaxPool", x)
    case("GlobalAveragePool", r(2, 3, 5, dtype=H))


def resize():
    x = r(1, 3, 4, 5)
    up, down = np.array([1, 1, 2.5, 2], F), np.array([1, 1, 0.6, 0.8], F)
    for s in (up, down):
        for c in "half_pixel pytorch_half_pixel align_corners asymmetric tf_half_pixel_for_nn half_pixel_symmetric".split():
            o = 19 if c == "half_pixel_symmetric" else 13
            for n in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
                if (c != "tf_half_pixel_for_nn" or n == "floor") and (s is down or n in ("floor", "round_prefer_floor")):
                    case("Resize", x, None, s, opset=o, mode="nearest", coordinate_transformation_mode=c, nearest_mode=n)
            if c != "tf_half_pixel_for_nn":
                case("Resize", x, None, s, opset=o, mode="linear", coordinate_transformation_mode=c, tol=1e-4)
                case("Resize", x, None, s, opset=o, mode="cubic", coordinate_transformation_mode=c, tol=1e-4)
        case("Resize", x, None, s, opset=13, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5, tol=1e-4)
    for m in ("linear", "cubic"):
        case("Resize", x, None, down, opset=18, mode=m, antialias=1, tol=1e-4)
        case("Resize", r(1, 1, 9, 11), None, None, i64(1, 1, 4, 3), opset=18, mode=m, antialias=1, tol=1e-4)
    case("Resize", x, None, None, i64(1, 3, 7, 3), opset=13, mode="linear", tol=1e-4)
    case("Resize", x, None, None, i64(1, 3, 8, 10), opset=11, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    roi = np.array([0, 0, 0.2, -0.2, 1, 1, 0.9, 1.1], F)
    for m in ("linear", "nearest"):
        case("Resize", x, roi, None, i64(1, 3, 5, 6), opset=13, mode=m, coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=9.0, tol=1e-4)
    case("Resize", x, None, None, i64(6, 7), opset=18, axes=[2, 3], mode="linear", keep_aspect_ratio_policy="not_larger", tol=1e-4)
    case("Resize", x, None, None, i64(6, 7), opset=18, axes=[2, 3], mode="linear", keep_aspect_ratio_policy="not_smaller", tol=1e-4)
    case("Resize", r(1, 4, 5, 3), None, np.array([1, 2, 2, 1], F), opset=13, mode="linear", tol=1e-4)
    case("Resize", r(1, 2, 4, 4, dtype=U8, low=0, high=255), None, np.array([1, 1, 2, 2], F), opset=13, mode="nearest")
    case("Resize", r(2, 3, 5), None, np.array([1, 1, 1.7], F), opset=13, mode="linear", tol=1e-4)
    case("Resize", x, np.array([1, 1, 2, 2], F), opset=10, mode="nearest")
    case("Resize", x, np.array([1, 1, 2, 3], F), opset=10, mode="linear", tol=1e-4)
    case("Upsample", x, np.array([1, 1, 2, 3], F), opset=9, mode="nearest")
    case("Upsample", x, np.array([1, 1, 2, 3], F), opset=9, mode="linear", tol=1e-4)
    case("Upsample", x, opset=7, mode="nearest", scales=[1.0, 1.0, 2.0, 2.0])
    img, grid = r(2, 3, 4, 5), r(2, 3, 6, 2, low=-1.3, high=1.3)
    for m in ("bilinear", "nearest", "bicubic"):
        for p in ("zeros", "border", "reflection"):
            for a in (0, 1):
                case("GridSample", img, grid, opset=16, mode=m, padding_mode=p, align_corners=a, tol=1e-4)
    case("GridSample", r(1, 2, 3, 4, 5), r(1, 2, 3, 2, 3, low=-1.2, high=1.2), opset=20, mode="linear", tol=1e-4)


def select():
    x = r(3, 4, 6)
    for a in (0, 1, -1):
        case("TopK", x, i64(2), n_out=2, axis=a)
    case("TopK", x, i64(3), n_out=2, largest=0)
    case("TopK", r(3, 9, dtype=I64, low=0, high=4), i64(5), n_out=2)
    case("NonZero", r(3, 5, dtype=I32, low=0, high=2))
    case("NonZero", r(2, 3, 4, dtype=B))
    case("NonZero", np.array([0, np.nan, 1.5, 0], F))
    boxes = np.sort(rng.uniform(0, 1, (2, 12, 2, 2)).astype(F), 2).reshape(2, 12, 4)
    scores = r(2, 3, 12, low=0, high=1)
    case("NonMaxSuppression", boxes, scores, i64(3), np.array([0.4], F), np.array([0.2], F))
    case("NonMaxSuppression", boxes, scores, i64(20), np.array([0.1], F))
    case("NonMaxSuppression", boxes, scores, i64(20), np.array([0.5], F), np.array([0.99999], F))
    cb = np.concatenate([r(2, 12, 2, low=0, high=1), r(2, 12, 2, low=0.1, high=0.6)], 2)
    case("NonMaxSuppression", cb, scores, i64(5), np.array([0.3], F), np.array([0.1], F), center_point_box=1)
    case("NonMaxSuppression", boxes[..., [2, 1, 0, 3]], scores, i64(5), np.array([0.3], F), np.array([0.1], F))


def quantize():
    x = r(2, 3, 4, 5, low=-9, high=9)
    for t in (U8, I8):
        case("QuantizeLinear", x, F(0.05), t(3), opset=13)
        case("QuantizeLinear", x, np.array([0.05, 0.1, 0.2], F), np.array([3, 4, 5], t), opset=13, axis=1)
        case("DequantizeLinear", r(2, 3, 4, dtype=t, low=-90, high=90), F(0.05), t(3), opset=13)
        case("DequantizeLinear", r(2, 3, 4, dtype=t, low=-90, high=90), np.array([0.05, 0.1, 0.2], F), np.array([3, 4, 5], t), opset=13, axis=1)
    case("QuantizeLinear", x, F(0.5), opset=13)
    case("DequantizeLinear", r(4, dtype=I32, low=-900, high=900), F(0.05), opset=13)
    case("QuantizeLinear", x, F(0.0005), np.int16(3), opset=21)
    case("DequantizeLinear", r(2, 6, dtype=I8, low=-90, high=90), r(2, 3, low=0.1), r(2, 3, dtype=I8, low=-5, high=5), opset=21, axis=1, block_size=2)
    case("QuantizeLinear", r(2, 5), r(2, 3, low=0.1), r(2, 3, dtype=I8, low=-5, high=5), opset=21, axis=1, block_size=2)


def regions():
    x, boxes = r(2, 3, 6, 7), np.array([[0, 0, 5, 4], [1.5, 0.5, 6.5, 5.2], [3, 2, 3.2, 2.1], [-2, -1, 9, 8], [4, 4, 2, 1]], F)
    which = i64(0, 1, 1, 0, 1)
    for mode in ("avg", "max"):
        for how in ("half_pixel", "output_half_pixel"):
            for ratio in (0, 2):
                case("RoiAlign", x, boxes, which, opset=16, mode=mode, coordinate_transformation_mode=how, sampling_ratio=ratio,
                     output_height=3, output_width=2, spatial_scale=0.8)
    case("RoiAlign", x, boxes, which, opset=10, output_height=2, output_width=2)
    case("RoiAlign", x.astype(D), boxes.astype(D), which, opset=16, output_height=2, output_width=2)
    numbered = np.concatenate([which[:, None].astype(F), boxes], 1)
    case("MaxRoiPool", x, numbered, pooled_shape=[2, 3], spatial_scale=0.7)
    case("MaxRoiPool", x, numbered, pooled_shape=[1, 1])
    y, w = r(1, 4, 5, 6), r(6, 2, 3, 2)
    case("DeformConv", y, w, r(1, 24, 3, 5), r(6), opset=19, group=2, offset_group=2)
    case("DeformConv", y, w, r(1, 12, 4, 3), r(6), r(1, 6, 4, 3), opset=19, group=2, strides=[2, 2], pads=[2, 0, 2, 0])
    case("DeformConv", y, w, r(1, 12, 3, 4), opset=19, group=2, dilations=[2, 2], pads=[1, 0, 1, 0])
    case("Col2Im", r(2, 12, 12), i64(4, 5), i64(2, 2), opset=18)
    case("Col2Im", r(1, 12, 4), i64(5, 5), i64(2, 3), opset=18, strides=[2, 2], pads=[1, 0, 0, 1], dilations=[2, 1])
    case("Col2Im", r(1, 8, 12), i64(2, 3, 4), i64(1, 2, 2), opset=18, strides=[1, 1, 1])
    pooled, places = compute("MaxPool", [r(2, 2, 6, 8)], 17, 2, dict(kernel_shape=[2, 2], strides=[2, 2]))
    case("MaxUnpool", pooled, places, opset=11, kernel_shape=[2, 2], strides=[2, 2])
    for a in (0, 1):
        case("AffineGrid", r(2, 2, 3), i64(2, 3, 4, 5), opset=20, align_corners=a)
        case("AffineGrid", r(1, 3, 4), i64(1, 2, 3, 2, 4), opset=20, align_corners=a)


def other():
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        case(op, r(3, 4, dtype=I32, low=-99, high=99), r(4, dtype=I32, low=-99, high=99), opset=18)
        case(op, r(2, 1, dtype=U8, low=0, high=255), r(3, dtype=U8, low=0, high=255), opset=18)
    x = r(3, 4, 2)
    case("BitCast", x, opset=26, want=[x.view(I32)], to=6)
    for axis in (0, 1, -1):
        case("CumProd", x, i64(axis), opset=26, want=[np.cumprod(x, axis, F)])
    whole = r(5, dtype=I32, low=-9, high=9)
    case("CumProd", whole, np.int32(0), opset=26, want=[np.cumprod(whole[::-1], dtype=I32)[::-1]], reverse=1)
    case("CumProd", whole, np.int32(0), opset=26, want=[np.r_[1, np.cumprod(whole[:-1])].astype(I32)], exclusive=1)
    case("Det", r(4, 4))
    case("Det", r(2, 3, 3, 3))
    case("Det", np.zeros((2, 2), F))
    many = r(4, 5, dtype=I64, low=0, high=3)
    for t in (I64, F, I8):
        case("Unique", many.astype(t), n_out=4)
        case("Unique", many.astype(t), n_out=4, sorted=0)
        case("Unique", many.astype(t) // t(2), n_out=4, axis=1)
        case("Unique", many.astype(t) // t(2), n_out=4, axis=0, sorted=0)
    case("Unique", np.array([1.5, -0.5, 1.5, 3, -0.5], F))
    cache, rows = r(3, 2, 5, 2), r(3, 2, 2, 2)
    for mode, at in (("linear", (0, 3, 1)), ("circular", (4, 0, 7))):
        want = cache.copy()
        for b in range(3):
            for k in range(2):
                want[b, :, (at[b] + k) % 5] = rows[b, :, k]
        case("TensorScatter", cache, rows, i64(*at), opset=24, want=[want], mode=mode)
    for n in (8, 10, 7, 12, 30):
        case("DFT", r(2, n, 3, 1), opset=17, axis=1, tol=1e-4)
        case("DFT", r(2, n, 2), opset=17, axis=1, inverse=1, tol=1e-4)
    case("DFT", r(2, 9, 1), opset=17, axis=1, onesided=1, tol=1e-4)
    case("DFT", r(2, 9, 1), i64(12).reshape(()), opset=17, axis=1, onesided=1, tol=1e-4)
    case("DFT", r(2, 6, 2, 1, dtype=D), None, i64(-3).reshape(()), opset=20)
    case("STFT", r(2, 40, 1), i64(5).reshape(()), r(12), opset=17, tol=1e-4)
    case("STFT", r(1, 40, 1), i64(8).reshape(()), None, i64(16).reshape(()), opset=17, onesided=0, tol=1e-4)
    for mels, length, rate, low, high in ((8, 16, 8192, 0, 4096), (5, 40, 16000, 20, 8000)):
        case("MelWeightMatrix", i64(mels).reshape(()), i64(length).reshape(()), i64(rate).reshape(()), F(low), F(high), opset=17)


def recurrent():
    for t in (F, D):
        x = r(4, 2, 3, dtype=t)
        for op, g in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
            w, u, b = r(1, g * 5, 3, dtype=t), r(1, g * 5, 5, dtype=t), r(1, 2 * g * 5, dtype=t)
            case(op, x, w, u, opset=14, n_out=2, hidden_size=5)
            case(op, x, w, u, b, opset=14, n_out=2, hidden_size=5)
        case("LSTM", x, w, u, b, None, r(1, 2, 5, dtype=t), r(1, 2, 5, dtype=t), r(1, 15, dtype=t), opset=14, n_out=2, hidden_size=5)
        case("GRU", x, r(1, 15, 3, dtype=t), r(1, 15, 5, dtype=t), r(1, 30, dtype=t), opset=14, n_out=2, hidden_size=5, linear_before_reset=1)


for part in (elementwise, binary, cast, move, gather, make, reduce, normal, matrices, spatial, resize, select, quantize, regions, other, recurrent):
    part()
write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "op_cases.bin"))
for m in missing:
    print("not recorded:", m, file=sys.stderr)
