#!/usr/bin/env python3
"""Makes tests/data/op_shapes.txt: random valid nodes of every operator with the shapes that ONNX Runtime really gives.

Needs numpy, onnx and onnxruntime; run by hand when a rule or an operator is added, never by the tests:
    python3 tests/tools/make_op_shapes.py > tests/data/op_shapes.txt
    python3 tests/tools/make_op_shapes.py --seed 11 --cases FOLDER; brim verify --atol 1e-5 FOLDER/*
The second form writes the same kinds of nodes with random numbers and ONNX Runtime's results, which tries the kernels.
Nodes that ONNX Runtime has no kernel for are computed by onnx.reference. Nodes that both refuse are dropped and counted on
stderr. One node a line, as src/op/infer_test.c reads it:
    Name opset|attribute=VALUE ...|input ...|output ...
A value is i5, f0.5, I1,2, F1.5,2, sTEXT or tTENSOR; a tensor f32[2,3], with its numbers where they decide the shape:
i64[2]{4,-1}; '-' is an absent one. '<' before a size: the true size depends on data, and this is what it was.
SPDX-License-Identifier: Apache-2.0"""
import argparse
import pathlib
import random
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=7)
parser.add_argument("--cases", type=pathlib.Path)
args = parser.parse_args()
R = random.Random(args.seed)
NUMBERS = np.random.default_rng(args.seed)
ort.set_default_logger_severity(4)
SHORT = {"float32": "f32", "float64": "f64", "float16": "f16", "int8": "i8", "uint8": "u8", "int16": "i16", "uint16": "u16",
         "int32": "i32", "uint32": "u32", "int64": "i64", "uint64": "u64", "bool": "bool"}
counts = {}


class Const:
    """An input whose numbers decide the shape."""

    def __init__(self, values, dtype=np.int64):
        self.a = np.array(values, dtype=dtype)


def x(*dims, dtype=np.float32):
    if dtype is bool:
        return np.asarray(NUMBERS.random(dims) > 0.5)
    if np.issubdtype(dtype, np.integer):
        return np.asarray(NUMBERS.integers(1, 5, dims), dtype)
    return np.asarray(NUMBERS.uniform(0.1, 0.9, dims), dtype)


def dims(rank, low=1, high=5):
    return [R.randint(low, high) for _ in range(rank)]


def rank(low=1, high=5):
    return R.randint(low, high)


def number(v):
    return repr(float(np.float32(v))) if isinstance(v, (float, np.floating)) else str(int(v))


def tensor_text(a, values=False):
    s = SHORT[str(a.dtype)] + "[" + ",".join(map(str, a.shape)) + "]"
    return s + "{" + ",".join(number(v) for v in a.ravel().tolist()) + "}" if values else s


def attr_text(k, v):
    if isinstance(v, onnx.TensorProto):
        return k + "=t" + tensor_text(numpy_helper.to_array(v), True)
    if isinstance(v, str):
        return k + "=s" + v
    if isinstance(v, float):
        return k + "=f" + number(v)
    if isinstance(v, (list, tuple)):
        return k + ("=F" if v and isinstance(v[0], float) else "=I") + ",".join(number(i) for i in v)
    return k + "=i" + str(v)


def run_node(node, opset, names, arrays, outs):
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                                            for n, a in zip(names, arrays)],
                              [helper.make_empty_tensor_value_info(o) for o in outs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    feed = dict(zip(names, arrays))
    try:
        return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed), ""
    except Exception as e:
        why = str(e).replace("\n", " ")
        if "NOT_IMPLEMENTED" not in why and "NotImplemented" not in type(e).__name__ and "not a registered" not in why:
            return None, why
    try:
        with np.errstate(all="ignore"):
            return [np.asarray(r) for r in ReferenceEvaluator(model).run(None, feed)], ""
    except Exception as e:
        return None, "reference: " + str(e)


def save_case(node, opset, inputs, result):
    """A folder as ONNX's own node tests have it; Const inputs become initialisers."""
    folder = args.cases / f"{node.op_type}_{sum(c[0] for c in counts.values()):04d}"
    data = folder / "test_data_set_0"
    data.mkdir(parents=True, exist_ok=True)
    named = [(f"x{i}", v) for i, v in enumerate(inputs) if v is not None]
    fed = [(n, v) for n, v in named if not isinstance(v, Const)]
    info = lambda n, a, dims: helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), dims)
    graph = helper.make_graph([node], "g", [info(n, a, a.shape) for n, a in fed],
                              [info(n, a, [None] * a.ndim) for n, a in zip(node.output, result)],
                              [numpy_helper.from_array(v.a, n) for n, v in named if isinstance(v, Const)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), str(folder / "model.onnx"))
    for kind, arrays in (("input", [a for _, a in fed]), ("output", result)):
        for i, a in enumerate(arrays):
            onnx.save_tensor(numpy_helper.from_array(a, f"{kind}_{i}"), str(data / f"{kind}_{i}.pb"))


def case(op, opset, inputs, outputs=1, bounded=(), **attrs):
    """Computes one node and prints its line. bounded: axes of all outputs whose sizes depend on data."""
    attrs = {k: v for k, v in attrs.items() if v is not None}
    while inputs and inputs[-1] is None:
        inputs = inputs[:-1]
    inputs = [np.asarray(v) if isinstance(v, np.generic) else v for v in inputs]
    ins, names, arrays = [], [], []
    for i, v in enumerate(inputs):
        ins.append("" if v is None else f"x{i}")
        if v is not None:
            names.append(f"x{i}")
            arrays.append(v.a if isinstance(v, Const) else v)
    outs = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, ins, outs, **attrs)
    result, why = run_node(node, opset, names, arrays, outs)
    c = counts.setdefault(op, [0, 0, ""])
    if result is None:
        c[1] += 1
        c[2] = why
        return
    c[0] += 1
    if args.cases:
        save_case(node, opset, inputs, result)
        return
    it = " ".join("-" if v is None else tensor_text(v.a, True) if isinstance(v, Const) else tensor_text(v) for v in inputs)
    ot = " ".join(SHORT[str(r.dtype)] + "[" + ",".join(("<" if i in bounded else "") + str(d) for i, d in enumerate(r.shape)) + "]"
                  for r in result)
    print(f"{op} {opset}|" + " ".join(attr_text(k, v) for k, v in attrs.items()) + f"|{it}|{ot}", flush=True)


def maybe(v, p=0.5):
    return v if R.random() < p else None


def broadcastable(full):
    """A shape that broadcasts to `full`."""
    s = [d if R.random() < 0.7 else 1 for d in full]
    return s[R.randint(0, len(s)):] if R.random() < 0.4 else s


def signed(axis, r):
    return axis - r if R.random() < 0.4 else axis


# ---- families

def elementwise():
    for op in """Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Elu Erf Exp Floor HardSigmoid Identity LeakyRelu Log Neg
                 Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Tan Tanh ThresholdedRelu""".split():
        case(op, R.choice([11, 13, 16]), [x(*dims(rank(0, 4)))])
    for op, since in (("Celu", 12), ("HardSwish", 14), ("Mish", 18), ("Gelu", 20)):
        case(op, R.randint(since, 21), [x(*dims(rank(0, 4)))])
    for op in ("IsInf", "IsNaN"):
        case(op, 13, [x(*dims(rank(0, 4)))])
    for op in "Add Sub Mul Div Pow PRelu".split():
        for opset in (7, 9, 13, 14, 15):
            full = dims(rank(0, 5), 1, 4)
            a = full if op == "PRelu" else broadcastable(full)
            case(op, opset, [x(*a), x(*broadcastable(full))])
    case("Pow", 13, [x(2, 3), x(3, dtype=np.int64)])
    case("Pow", 15, [x(2, 3, dtype=np.int32), x(1, dtype=np.float32)])
    for op in "Max Min Mean Sum".split():
        for n in (1, 2, 3, 5):
            full = dims(rank(1, 4), 0, 4)
            case(op, R.choice([8, 13]), [x(*broadcastable(full)) for _ in range(n)])
    for op, since in (("Equal", 11), ("Greater", 9), ("Less", 9), ("GreaterOrEqual", 12), ("LessOrEqual", 12)):
        for dtype in (np.float32, np.int64):
            full = dims(rank(1, 4))
            case(op, R.choice([since, 13, 16]) if since < 13 else since, [x(*broadcastable(full), dtype=dtype), x(*full, dtype=dtype)])
    for op in "And Or Xor".split():
        full = dims(rank(1, 4))
        case(op, 7, [x(*full, dtype=bool), x(*broadcastable(full), dtype=bool)])
    case("Not", 7, [x(2, 3, dtype=bool)])
    case("BitShift", 11, [x(2, 3, dtype=np.uint8), x(3, dtype=np.uint8)], direction="LEFT")
    case("BitShift", 11, [x(2, 3, dtype=np.uint32), x(1, dtype=np.uint32)], direction="RIGHT")
    case("Mod", 13, [x(2, 3, dtype=np.int64), x(3, dtype=np.int64)])
    case("Mod", 13, [x(2, 3), x(3)], fmod=1)
    for _ in range(6):
        full = dims(rank(1, 4))
        case("Where", R.choice([9, 16]), [x(*broadcastable(full), dtype=bool), x(*broadcastable(full)), x(*full)])
    case("Clip", 7, [x(2, 3)], min=0.0, max=6.0)
    case("Clip", 11, [x(2, 3), np.array(0, np.float32)])
    case("Clip", 13, [x(2, 3), None, np.array(6, np.float32)])
    for to in (1, 2, 3, 6, 7, 9, 10, 11):
        case("Cast", R.choice([9, 13, 19]), [x(*dims(2))], to=to)
    case("Dropout", 7, [x(2, 3)], ratio=0.3)
    case("Dropout", 10, [x(2, 3)], outputs=2)
    case("Dropout", 12, [x(2, 3), np.array(0.5, np.float32)], outputs=2)
    case("Dropout", 13, [x(2, 3), np.array(0.5, np.float32), Const(False, bool)], outputs=2)


def quantize():
    s, z8, zi8 = np.array(0.5, np.float32), np.array(3, np.uint8), np.array(3, np.int8)
    case("QuantizeLinear", 10, [x(2, 3), s])
    case("QuantizeLinear", 13, [x(2, 3), s, z8])
    case("QuantizeLinear", 13, [x(2, 3, 4), x(3), x(3, dtype=np.int8)], axis=1)
    case("QuantizeLinear", 21, [x(2, 3), s], output_dtype=3)
    case("QuantizeLinear", 21, [x(2, 8), x(2, 2), x(2, 2, dtype=np.uint8)], axis=1, block_size=4)
    case("DequantizeLinear", 10, [x(2, 3, dtype=np.uint8), s, z8])
    case("DequantizeLinear", 13, [x(2, 3, dtype=np.int8), x(3), x(3, dtype=np.int8)], axis=-1)
    case("DequantizeLinear", 13, [x(2, 3, dtype=np.int32), s])
    case("DequantizeLinear", 21, [x(7, 3, dtype=np.int8), x(4, 3)], axis=0, block_size=2)


def window_attrs(n, extra_pads=True):
    k = [R.randint(1, 4) for _ in range(n)]
    d = maybe([R.randint(1, 2) for _ in range(n)], 0.3)
    cover = [(a - 1) * (d[i] if d else 1) + 1 for i, a in enumerate(k)]
    mode = R.choice(["NOTSET", "NOTSET", None, None, "SAME_UPPER", "SAME_LOWER", "VALID"])
    pads = None
    if mode in (None, "NOTSET") and extra_pads and R.random() < 0.7:
        pads = [R.randint(0, k[i % n] - 1) for i in range(2 * n)]
    size = [max(cover[i] - (pads[i] + pads[n + i] if pads else 0), 1) + R.randint(0, 8) for i in range(n)]
    return k, d, mode, pads, size, maybe([R.randint(1, 3) for _ in range(n)], 0.7)


def windows():
    for _ in range(120):
        n = R.choice([1, 2, 2, 2, 3])
        k, d, mode, pads, size, s = window_attrs(n)
        g = R.choice([1, 1, 2, 3])
        cin, m = g * R.randint(1, 2), g * R.randint(1, 2)
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            d = None
        case("Conv", R.choice([7, 11]), [x(R.randint(1, 2), cin, *size), x(m, cin // g, *k), maybe(x(m))], auto_pad=mode, pads=pads,
             dilations=d, strides=s, group=maybe(g) if g == 1 else g, kernel_shape=maybe(k))
    for op in ("MaxPool", "AveragePool"):
        for _ in range(140):
            n = R.choice([1, 2, 2, 2, 3])
            k, d, mode, pads, size, s = window_attrs(n)
            opset = R.choice([7, 10, 11, 12, 19, 21])
            if opset < (10 if op == "MaxPool" else 19) or mode in ("SAME_UPPER", "SAME_LOWER"):
                d = None
            ceil = maybe(1, 0.6) if opset >= 10 and mode not in ("SAME_UPPER", "SAME_LOWER", "VALID") else None
            case(op, opset, [x(R.randint(1, 2), 2, *size)], kernel_shape=k, dilations=d, auto_pad=mode, pads=pads, strides=s,
                 ceil_mode=ceil, outputs=2 if op == "MaxPool" and R.random() < 0.2 and opset >= 8 else 1)
    for _ in range(120):
        n = R.choice([1, 2, 2, 2, 3])
        k, d, mode, pads, size, s = window_attrs(n)
        if pads:
            size = [v + 3 for v in size]
        g = R.choice([1, 1, 2])
        cin, m = g * R.randint(1, 2), R.randint(1, 2)
        op_ = os_ = None
        if s and R.random() < 0.4:
            op_ = [R.randint(0, v - 1) for v in s]
        if pads is None and mode in (None, "NOTSET") and R.random() < 0.4:
            os_ = [(s[i] if s else 1) * (size[i] - 1) + k[i] - R.randint(0, k[i] - 1) for i in range(n)]
            d = op_ = None
        case("ConvTranspose", R.choice([7, 11]), [x(R.randint(1, 2), cin, *size), x(cin, m, *k), maybe(x(m * g))], auto_pad=mode, pads=pads,
             dilations=d, strides=s, group=maybe(g) if g == 1 else g, kernel_shape=maybe(k), output_padding=op_, output_shape=os_)
    for op in ("GlobalAveragePool", "GlobalMaxPool"):
        for n in (1, 2, 3):
            case(op, 7, [x(2, 3, *dims(n))])


def reductions():
    ops = "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare".split()
    for op in ops:
        for _ in range(14):
            r = rank(1, 5)
            axes = R.sample(range(r), R.randint(1, r))
            axes = [signed(a, r) for a in axes]
            opset = R.choice([11, 13, 18, 20])
            keep = R.choice([None, 0, 1])
            attr = opset < (13 if op == "ReduceSum" else 18)
            if R.random() < 0.15:
                axes = None
            noop = None if attr else maybe(1, 0.3)
            ins = [x(*dims(r))]
            if axes is not None and not attr:
                ins.append(Const(axes))
            elif not attr and R.random() < 0.5:
                ins.append(Const([]))
            case(op, opset, ins, axes=axes if attr else None, keepdims=keep, noop_with_empty_axes=noop)
    for op in ("ArgMax", "ArgMin"):
        for _ in range(8):
            r = rank(1, 5)
            case(op, R.choice([11, 12, 13]), [x(*dims(r))], axis=maybe(signed(R.randrange(r), r), 0.8), keepdims=R.choice([None, 0, 1]))
    for op in ("Softmax", "LogSoftmax", "LpNormalization"):
        for opset in (7, 11, 13):
            r = rank(2, 4)
            case(op, opset, [x(*dims(r))], axis=maybe(R.randrange(r)))
    case("CumSum", 14, [x(2, 3), Const(-1)], exclusive=1)


def products():
    for _ in range(40):
        m, k, n = dims(3)
        batch = dims(R.randint(0, 3), 1, 3)
        a, b = broadcastable(batch) + [m, k], broadcastable(batch) + [k, n]
        if R.random() < 0.15:
            a = [k]
        if R.random() < 0.15:
            b = [k]
        case("MatMul", R.choice([7, 9, 13]), [x(*a), x(*b)])
    for _ in range(30):
        m, k, n = dims(3)
        ta, tb = R.choice([None, 0, 1]), R.choice([None, 0, 1])
        c = x(*broadcastable([m, n]))
        opset = R.choice([7, 9, 11, 13])
        case("Gemm", opset, [x(*([k, m] if ta else [m, k])), x(*([n, k] if tb else [k, n]))] + ([c] if opset < 11 or R.random() < 0.7 else []),
             transA=ta, transB=tb, alpha=maybe(0.5))
    for eq, shapes in (("ij,jk->ik", [(2, 3), (3, 4)]), ("ij->ji", [(2, 3)]), ("ij,jk", [(2, 3), (3, 4)]), ("ii->i", [(3, 3)]), ("ii", [(3, 3)]),
                       ("i,i", [(3,), (3,)]), ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]), ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 6)]),
                       ("...ii->...i", [(2, 3, 3)]), ("bhwc,hkc->bhwk", [(2, 3, 4, 5), (3, 6, 5)]), ("ij->", [(2, 3)]),
                       ("a...->...a", [(2, 3, 4)]), ("bac->acb", [(2, 3, 4)]), ("zB,Ba->aBz", [(2, 3), (3, 4)]), ("cb,ba", [(2, 3), (3, 4)]),
                       ("...,...", [(2, 3), (3,)]), ("i,j,k->kij", [(2,), (3,), (4,)])):
        case("Einsum", 12, [x(*s) for s in shapes], equation=eq)


def norms():
    for _ in range(5):
        s = dims(rank(2, 5))
        case("BatchNormalization", R.choice([7, 9, 14, 15]), [x(*s)] + [x(s[1]) for _ in range(4)])
    dims(4)  # one draw that had a case; what follows stays as recorded
    for r in (3, 4, 5):
        s = dims(r)
        case("InstanceNormalization", 7, [x(*s), x(s[1]), x(s[1])])
    for _ in range(8):
        r = rank(2, 4)
        s, axis = dims(r), R.randrange(r)
        case("LayerNormalization", 17, [x(*s), x(*s[axis:]), maybe(x(*s[axis:]))], axis=signed(axis, r), outputs=R.choice([1, 1, 2, 3]))
    case("LRN", 7, [x(1, 4, 3, 3)], size=3)


def reshapes():
    for _ in range(80):
        s = dims(rank(1, 5), 1, 6)
        want = []
        rest = int(np.prod(s))
        while rest > 1 and len(want) < 5:
            d = R.choice([v for v in range(1, rest + 1) if rest % v == 0])
            want.append(d)
            rest //= d
        want.append(rest)
        for i, d in enumerate(want):
            if i < len(s) and s[i] == d and R.random() < 0.7:
                want[i] = 0
        if R.random() < 0.6:
            want[R.randrange(len(want))] = -1
        case("Reshape", R.choice([7, 13, 14, 19]), [x(*s), Const(want)])
    case("Reshape", 14, [x(0, 3), Const([3, 0])], allowzero=1)
    case("Reshape", 14, [x(0, 3), Const([0, 3])])
    case("Reshape", 14, [x(0, 3), Const([-1, 3])])
    case("Reshape", 7, [x(1), Const([])])
    case("Reshape", 7, [x(), Const([1, 1])])
    for _ in range(16):
        r = rank(1, 5)
        case("Flatten", R.choice([11, 13]), [x(*dims(r, 0, 4))], axis=maybe(R.randint(-r, r), 0.8))
    case("Flatten", 9, [x(2, 3, 4)], axis=0)
    for _ in range(20):
        r = rank(1, 6)
        axes = R.sample(range(r), R.randint(1, r))
        s = [1 if i in axes else R.randint(1, 4) for i in range(r)]
        opset = R.choice([9, 11, 13])
        axes = [signed(a, r) if opset > 9 else a for a in axes]
        if R.random() < 0.2:
            axes = None
        ins = [x(*s)] + ([Const(axes)] if axes is not None and opset >= 13 else [])
        case("Squeeze", opset, ins, axes=axes if opset < 13 else None)
        r = rank(0, 4)
        n = R.randint(1, 3)
        opset = R.choice([9, 11, 13])
        axes = [signed(a, r + n) if opset > 9 else a for a in R.sample(range(r + n), n)]
        case("Unsqueeze", opset, [x(*dims(r))] + ([Const(axes)] if opset >= 13 else []), axes=axes if opset < 13 else None)
    for _ in range(16):
        full = dims(rank(1, 5))
        a, b = broadcastable(full), broadcastable(full)
        case("Expand", R.choice([8, 13]), [x(*a), Const(b)])
        s = dims(rank(1, 4))
        case("Tile", R.choice([7, 13]), [x(*s), Const([R.randint(0, 3) for _ in s])])


def moves():
    for _ in range(16):
        r = rank(1, 6)
        case("Transpose", R.choice([7, 13]), [x(*dims(r))], perm=maybe(R.sample(range(r), r), 0.8))
    for _ in range(20):
        r = rank(1, 5)
        s, axis, n = dims(r), R.randrange(r), R.randint(1, 4)
        opset = R.choice([7, 11, 13])
        case("Concat", opset, [x(*(s[:axis] + [R.randint(0, 4)] + s[axis + 1:])) for _ in range(n)], axis=signed(axis, r) if opset > 7 else axis)
    for _ in range(30):
        r = rank(1, 4)
        s, axis, n = dims(r), R.randrange(r), R.randint(1, 4)
        opset = R.choice([7, 11, 13, 18])
        split = [R.randint(0, 3) for _ in range(n)]
        kind = R.choice(["given", "even", "uneven"])
        a = axis if opset < 11 else signed(axis, r)
        if kind == "given":
            s[axis] = sum(split)
            case("Split", opset, [x(*s)] + ([Const(split)] if opset >= 13 else []), outputs=n, axis=a, split=split if opset < 13 else None)
        elif opset == 18:
            s[axis] = R.randint(n, 9)
            case("Split", 18, [x(*s)], outputs=n, axis=a, num_outputs=n)
        else:
            s[axis] = n * R.randint(1, 3)
            case("Split", opset, [x(*s)], outputs=n, axis=a)
    for _ in range(120):
        r = rank(1, 4)
        s = dims(r, 0 if R.random() < 0.1 else 1, 8)
        axes = R.sample(range(r), R.randint(1, r))
        far = [-(2 ** 63), -(2 ** 31), 2 ** 31 - 1, 2 ** 63 - 1]
        starts = [R.randint(-10, 10) if R.random() < 0.8 else R.choice(far) for _ in axes]
        steps = [R.choice([-3, -2, -1, 1, 1, 2, 3]) for _ in axes]
        # an end of INT_MAX going backwards is empty by the text, but 'to the end' in ONNX Runtime
        ends = [R.randint(-10, 10) if R.random() < 0.7 else R.choice(far[:2] if t < 0 else far) for t in steps]
        opset = R.choice([7, 10, 11, 13])
        if R.random() < 0.2:
            axes = list(range(len(axes)))
            given = None
        else:
            given = [signed(a, r) if opset >= 10 else a for a in axes]
        if opset < 10:
            case("Slice", opset, [x(*s)], starts=starts, ends=ends, axes=given)
        else:
            t = R.choice([np.int64, np.int64, np.int32])
            if t == np.int32:
                starts, ends = [np.clip(v, -2 ** 31, 2 ** 31 - 1) for v in starts], [np.clip(v, -2 ** 31, 2 ** 31 - 1) for v in ends]
            ins = [x(*s), Const(starts, t), Const(ends, t)]
            if given or R.random() < 0.5:
                ins.append(Const(given, t) if given else None)
                if R.random() < 0.6 or ins[-1] is None:
                    ins.append(Const(steps, t))
            case("Slice", opset, ins)
    for _ in range(40):
        r = rank(1, 4)
        s = dims(r, 3, 6)
        opset = R.choice([7, 11, 13, 18, 19])
        mode = R.choice([None, "constant", "reflect", "edge"] + (["wrap"] if opset == 19 else []))
        low = -1 if mode in (None, "constant") else 0
        axes = R.sample(range(r), R.randint(1, r)) if opset >= 18 and R.random() < 0.6 else None
        n = len(axes) if axes else r
        pads = [R.randint(low, 2) for _ in range(2 * n)]
        if opset < 11:
            case("Pad", opset, [x(*s)], pads=pads, mode=mode)
        else:
            ins = [x(*s), Const(pads)]
            if axes:
                ins += [maybe(np.array(0, np.float32)), Const([signed(a, r) for a in axes], R.choice([np.int64, np.int32]))]
            case("Pad", opset, ins, mode=mode)
    case("DepthToSpace", 7, [x(1, 8, 2, 3)], blocksize=2)
    case("DepthToSpace", 11, [x(2, 18, 2, 3)], blocksize=3, mode="CRD")
    case("SpaceToDepth", 7, [x(1, 3, 4, 6)], blocksize=2)
    case("Trilu", 14, [x(2, 3, 4)], upper=0)
    case("Trilu", 14, [x(3, 4), np.array(1, np.int64)])


def zeros(*d):
    return np.zeros(d, np.int64)


def gathers():
    for _ in range(20):
        r = rank(1, 4)
        axis = R.randrange(r)
        opset = R.choice([7, 11, 13])
        case("Gather", opset, [x(*dims(r)), np.zeros(dims(R.randint(0, 3), 0, 3), R.choice([np.int64, np.int32]))],
             axis=maybe(axis if opset < 11 else signed(axis, r), 0.8))
    for _ in range(8):
        r = rank(1, 4)
        s, axis = dims(r), R.randrange(r)
        at = [R.randint(1, d) for d in s]
        case("GatherElements", R.choice([11, 13]), [x(*s), zeros(*at)], axis=signed(axis, r))
        case("ScatterElements", R.choice([11, 13, 18]), [x(*s), zeros(*at), x(*at)], axis=signed(axis, r), reduction=None)
    for _ in range(16):
        r = rank(1, 5)
        s = dims(r)
        k = R.randint(1, r)
        b = R.randint(0, r - 1)
        at = dims(R.randint(0, 2), 1, 3) + [k]
        case("ScatterND", R.choice([11, 13, 16, 18]), [x(*s), zeros(*at), x(*(at[:-1] + s[k:]))])
        case("GatherND", 11, [x(*s), zeros(*at)])
        at = s[:b] + dims(R.randint(0, 1), 1, 3) + [R.randint(1, r - b)]
        case("GatherND", R.choice([12, 13]), [x(*s), zeros(*at)], batch_dims=b)
    for _ in range(8):
        r = rank(0, 3)
        t = R.choice([np.int64, np.float32, np.int32])
        case("OneHot", R.choice([9, 11]), [zeros(*dims(r)), Const(R.choice([5, [4]]), t), x(2)], axis=maybe(signed(R.randint(0, r), r + 1)))


def resizes():
    modes = ["nearest", "linear"]
    scale = lambda: R.choice([0.3, 0.5, 0.6, 1.0, 1.5, 2.0, 2.6, 1 / 3, 3.0])
    for _ in range(8):
        s = [1, 1] + dims(2, 3, 9)
        sc = [1.0, 1.0, R.choice([1.0, 1.5, 2.0, 3.0]), R.choice([1.0, 2.0, 2.6])]
        case("Upsample", 7, [x(*s)], scales=sc, mode="nearest")
        case("Upsample", 9, [x(*s), Const(sc, np.float32)], mode=R.choice(modes))
        sc = [1.0, 1.0, scale(), scale()]
        case("Resize", 10, [x(*s), Const(sc, np.float32)], mode=R.choice(modes))
        case("Resize", 11, [x(*s), x(0), Const(sc, np.float32)], mode=R.choice(modes))
        case("Resize", R.choice([13, 18, 19]), [x(*s), None, Const(sc, np.float32)], mode=R.choice(modes))
        sizes = [1, 1] + dims(2, 1, 12)
        case("Resize", 11, [x(*s), x(0), Const([], np.float32), Const(sizes)], mode=R.choice(modes))
        case("Resize", R.choice([13, 18, 19]), [x(*s), None, None, Const(sizes)], mode=R.choice(modes + ["cubic"]))
        policy = R.choice(["not_larger", "not_smaller", "stretch"])
        case("Resize", R.choice([18, 19]), [x(*s), None, None, Const(sizes[2:])], axes=[2, 3], mode="linear", keep_aspect_ratio_policy=policy)
        case("Resize", R.choice([18, 19]), [x(*s), None, None, Const(sizes[2:])], axes=[-1, -2], mode="nearest")
        case("Resize", R.choice([18, 19]), [x(*s), None, Const([scale(), scale()], np.float32)], axes=[3, 2], mode="nearest")
    roi = np.array([0, 0, 0.2, 0.3, 1, 1, 0.7, 0.8], np.float32)
    case("Resize", 13, [x(1, 1, 8, 9), roi, Const([1, 1, 2, 2.5], np.float32)], mode="linear", coordinate_transformation_mode="tf_crop_and_resize")
    case("Resize", 13, [x(1, 1, 8, 9), roi, None, Const([1, 1, 5, 6])], mode="linear", coordinate_transformation_mode="tf_crop_and_resize")
    case("GridSample", 16, [x(2, 3, 4, 5), x(2, 6, 7, 2)])
    case("GridSample", 20, [x(2, 3, 4, 5, 6), x(2, 6, 7, 8, 3)], mode="linear")


def makers():
    t = lambda a: numpy_helper.from_array(np.array(a))
    case("Constant", 11, [], value=t(np.arange(6, dtype=np.float32).reshape(2, 3)))
    case("Constant", 11, [], value=t(np.int64(4)))
    case("Constant", 13, [], value_int=3)
    case("Constant", 13, [], value_ints=[3, 4, 5])
    case("Constant", 13, [], value_float=0.5)
    case("Constant", 13, [], value_floats=[0.5, 1.5])
    for _ in range(5):
        case("ConstantOfShape", R.choice([9, 20]), [Const(dims(rank(0, 4), 0, 4))], value=R.choice([None, t(np.array([1], np.int64)), t(np.array([0], np.bool_))]))
    case("EyeLike", 9, [x(3, 4)])
    case("EyeLike", 9, [x(3, 4, dtype=np.int32)], dtype=1, k=1)
    for _ in range(24):
        dt = R.choice([np.int64, np.int32, np.float32, np.float64])
        a, b, d = R.randint(-9, 9), R.randint(-9, 9), R.choice([-3, -2, -1, 1, 2, 5])
        if dt in (np.float32, np.float64):
            a, b, d = a / 10, b / 3, d * R.choice([0.1, 0.3, 1.0])
        case("Range", 11, [Const(a, dt), Const(b, dt), Const(d, dt)])
    for _ in range(30):  # where the limit is a whole number of steps away, the last bit decides
        d = np.float32(R.choice([0.1, 0.2, 0.3, 0.7]))
        a = np.float32(R.randint(-30, 30) * 0.1)
        case("Range", 11, [Const(a, np.float32), Const(a + np.float32(R.randint(0, 40)) * d, np.float32), Const(d, np.float32)])
    for _ in range(16):
        case("Shape", 15, [x(*dims(rank(0, 5)))], start=maybe(R.randint(-6, 6)), end=maybe(R.randint(-6, 6)))
    case("Shape", 7, [x(2, 3)])
    case("Size", 7, [x(2, 3)])


def depending():
    for s in ((3,), (2, 3), (2, 3, 4), (), (0, 2)):
        a = (np.arange(int(np.prod(s))) % 2).reshape(s).astype(np.float32)
        case("NonZero", R.choice([9, 13]), [a], bounded=(1,))
    for _ in range(10):
        b, n, c = R.randint(1, 2), R.randint(1, 6), R.randint(1, 3)
        boxes = np.random.default_rng(R.randint(0, 99)).random((b, n, 4), np.float32)
        scores = np.random.default_rng(R.randint(0, 99)).random((b, c, n), np.float32)
        case("NonMaxSuppression", R.choice([10, 11]), [boxes, scores, R.choice([np.array([3]), Const([2]), Const(9)]), np.array([0.5], np.float32)], bounded=(0,))
    case("NonMaxSuppression", 11, [x(1, 5, 4), x(1, 1, 5)], bounded=(0,))
    for _ in range(16):
        r = rank(1, 4)
        s, axis = dims(r), R.randrange(r)
        k = R.randint(1, s[axis])
        opset = R.choice([7, 10, 11])
        a = axis if opset < 11 else signed(axis, r)
        bounded = ()
        ins = [x(*s)]
        if opset >= 10:
            ins.append(R.choice([Const([k]), Const([k]), np.array([k])]))
            bounded = () if isinstance(ins[1], Const) else (axis,)
        case("TopK", opset, ins, outputs=2, bounded=bounded, axis=a, k=k if opset < 10 else None)


def recurrent():
    for op, gates, most in (("RNN", 1, 2), ("GRU", 3, 2), ("LSTM", 4, 3)):
        for _ in range(12):
            steps, batch, size, h = R.randint(1, 5), R.randint(1, 3), R.randint(1, 5), R.randint(1, 6)
            way = R.choice(["forward", "reverse", "bidirectional"])
            d = 2 if way == "bidirectional" else 1
            ins = [x(steps, batch, size), x(d, gates * h, size) - np.float32(0.5), x(d, gates * h, h) - np.float32(0.5),
                   maybe(x(d, 2 * gates * h)), maybe(np.array([R.randint(1, steps) for _ in range(batch)], np.int32)),
                   maybe(x(d, batch, h))]
            more = {"linear_before_reset": R.choice([0, 1])} if op == "GRU" else {}
            if op == "LSTM":
                ins += [maybe(x(d, batch, h)), maybe(x(d, 3 * h))]
                more = {"input_forget": R.choice([None, None, 1])}
            case(op, R.choice([7, 14]), ins, outputs=R.randint(1, most), hidden_size=h, direction=way,
                 clip=maybe(0.5), **more)


def integers():
    byte = (np.uint8, np.int8)
    for _ in range(24):
        t = np.uint8 if R.random() < 0.7 else np.int8
        k, g, r = R.randint(1, 3), R.choice([1, 1, 2]), R.randint(1, 2)
        c, f = g * R.randint(1, 3), g * R.randint(1, 3)
        data, w = x(2, c, *dims(r, 4, 8), dtype=t), x(f, c // g, *([k] * r), dtype=R.choice(byte) if t is np.uint8 else np.int8)
        attrs = dict(group=g, strides=[R.randint(1, 2)] * r, pads=[R.randint(0, k - 1) for _ in range(2 * r)])
        zero = np.zeros(f, w.dtype)
        case("QLinearConv", 10, [data, np.float32(0.1), t(2), w, x(f), zero, np.float32(0.3), t(5),
                                 maybe(x(f, dtype=np.int32))], **attrs)
        if t is np.uint8:
            case("ConvInteger", 10, [data, w, maybe(t(3))], **attrs)
        a, b = x(2, 3, 4, dtype=t), x(4, 5, dtype=R.choice(byte) if t is np.uint8 else np.int8)
        case("QLinearMatMul", 10, [a, np.float32(0.1), t(2), b, x(5) if R.random() < 0.5 else np.float32(0.2),
                                   b.dtype.type(1), np.float32(0.3), t(5)])
        case("MatMulInteger", 10, [a, b, maybe(t(3)), maybe(b.dtype.type(2))])
    for _ in range(8):
        case("DynamicQuantizeLinear", 11, [x(*dims(rank())) - np.float32(R.choice([0, 0.5, 1]))], outputs=3)


def regions():
    for _ in range(8):
        c, n, h, w = R.randint(1, 4), R.randint(1, 5), R.randint(1, 4), R.randint(1, 4)
        image = x(2, c, R.randint(3, 8), R.randint(3, 8))
        case("RoiAlign", R.choice([10, 16]), [image, x(n, 4), x(n, dtype=np.int64) % 2], output_height=maybe(h), output_width=maybe(w))
        rois = x(n, 5)
        rois[:, 0] = R.randint(0, 1)
        case("MaxRoiPool", 7, [image, rois], pooled_shape=[h, w])
        k, s, p, g = R.randint(1, 3), R.randint(1, 2), R.randint(0, 1), R.choice([1, 2])
        o = [(d + 2 * p - k) // s + 1 for d in image.shape[2:]]
        case("DeformConv", 19, [x(2, 2 * c, *image.shape[2:]), x(2 * g, 2 * c // g, k, k), x(2, g * k * k * 2, *o), maybe(x(2 * g)),
                                maybe(x(2, g * k * k, *o))], group=g, offset_group=g, strides=[s, s], pads=[p] * 4)
        size, block = dims(2, 4, 7), dims(2, 1, 3)
        steps = int(np.prod([(a + 2 * p - b) // s + 1 for a, b in zip(size, block)]))
        case("Col2Im", 18, [x(2, c * int(np.prod(block)), steps), Const(size), Const(block)], strides=[s, s], pads=[p] * 4)
        case("AffineGrid", 20, [x(2, 2, 3), Const([2, c, h, w])], align_corners=maybe(1))
        case("AffineGrid", 20, [x(1, 3, 4), Const([1, c, h, w, n])])
        case("MaxUnpool", R.choice([9, 11]), [x(1, c, h, w), x(1, c, h, w, dtype=np.int64)], kernel_shape=[2, 2], strides=[2, 2])
        s = dims(2)
        for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
            case(op, 18, [x(*s, dtype=np.int32), x(s[1], dtype=np.int32)])
        case("Det", 11, [x(*dims(R.randint(0, 2)), h, h)])
        axis = R.choice([None, 0, 1])
        case("Unique", 11, [x(*s, dtype=np.int64)], bounded=(axis or 0,), axis=axis, sorted=maybe(0))
        onesided = maybe(1)
        case("DFT", 17, [x(2, n + 1, c, 1), maybe(Const(h + 1))], axis=R.choice([1, 2]), onesided=onesided)
        case("DFT", 20, [x(2, n + 1, 2), None, Const(-2)], inverse=1)
        case("STFT", 17, [x(1, 20 + n, 1), Const(h), None, Const(4 + w)], onesided=maybe(0))
        case("MelWeightMatrix", 17, [Const(c), Const(16 + h), Const(8000), Const(0, np.float32), Const(4000, np.float32)])


def newer():
    """Operators that are younger than this onnx; their shapes follow from one sentence each."""
    for _ in range(6):
        s = dims(rank(2, 4), 2)
        t = tensor_text(x(*s))
        print(f"BitCast 26|to=i6|{t}|{t.replace('f32', 'i32')}")
        print(f"CumProd 26||{t} {tensor_text(np.array(R.randrange(len(s))), True)}|{t}")
        fewer = s[:-2] + [R.randint(1, s[-2])] + s[-1:] if len(s) > 2 else None
        if fewer:
            print(f"TensorScatter 24||{t} {tensor_text(x(*fewer))} i64[{s[0]}]|{t}")


for family in (elementwise, quantize, windows, reductions, products, norms, reshapes, moves, gathers, resizes, makers, depending,
               recurrent, integers, regions):
    family()
if not args.cases:
    newer()
for op, (good, dropped, why) in counts.items():
    if dropped:
        print(f"{op}: {good} kept, {dropped} dropped: {why[:300]}", file=sys.stderr)
print(sum(c[0] for c in counts.values()), "nodes of", len(counts), "operators", file=sys.stderr)
