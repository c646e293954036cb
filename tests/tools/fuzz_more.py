"""More nodes for fuzz_graphs.py: recurrent, quantised and sampled operators, those that brim expands into others, and those of com.microsoft.
Each function adds one node to the graph, or nothing where the shapes at hand do not allow it. SPDX-License-Identifier: Apache-2.0"""
import numpy as np

MS = "com.microsoft"
UNARY = ["Gelu:20", "Mish:18", "Swish:24", "Shrink:9", "HardSwish:14", "Tan:7", "Acos:7", "Asin:7", "Atanh:9", "Acosh:9", "IsNaN:13", "IsInf:10"]


def f32(g, shape, scale=1.0):
    return g.leaf(g.draw(shape) * np.float32(scale))


def floats(g, rank=None):
    return g.pick(lambda a: a.dtype == np.float32 and (rank is None or a.ndim in rank))


def ints(g, low, high, shape, dtype=np.int64):
    return np.random.default_rng(g.r.getrandbits(32)).integers(low, high, shape).astype(dtype)


def unary(g):
    op, since = g.r.choice(UNARY).split(":")
    x = floats(g)
    return x and g.opset >= int(since) and g.add(op, [x], keeps=False)


def simple_ms(g):
    x = floats(g)
    if not x:
        return
    n = g.values[x].shape[-1] if g.values[x].ndim else 1
    op = g.r.choice(["Gelu", "FastGelu", "QuickGelu", "BiasGelu", "FastGeluBias"])
    ins = [x, f32(g, [n])] if "Bias" in op else [x]
    kw = {"alpha": g.r.choice([1.0, 1.702])} if op == "QuickGelu" else {}
    return g.add(op.replace("GeluBias", "Gelu"), ins, keeps=False, domain=MS, **kw)


def norms(g):
    x = floats(g, (2, 3, 4))
    if not x:
        return
    a, op = g.values[x], g.r.choice(["GroupNormalization", "RMSNormalization", "MeanVarianceNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization"])
    eps = dict(epsilon=0.01)
    if op == "GroupNormalization":
        if a.ndim < 3:
            return
        groups = g.r.choice([d for d in range(1, a.shape[1] + 1) if a.shape[1] % d == 0])
        n = a.shape[1] if g.opset >= 21 else groups
        return g.add(op, [x, f32(g, [n]), f32(g, [n])], keeps=False, num_groups=groups, **eps)
    if op == "RMSNormalization":
        axis = g.r.randint(-a.ndim, -1)
        return g.add(op, [x, f32(g, a.shape[axis:])], keeps=False, axis=axis, **eps)
    if op == "MeanVarianceNormalization":
        return a.ndim == 4 and min(a.shape[2:]) > 2 and g.exact[x] and a.std() > 0.5 and g.add(op, [x], keeps=False)
    scale = f32(g, [a.shape[-1]])
    if op == "SimplifiedLayerNormalization":
        return g.add(op, [x, scale], keeps=False, **eps)
    more = [f32(g, [a.shape[-1]])] if g.r.random() < 0.5 else []
    return a.ndim == 3 and g.add(op, [x, f32(g, a.shape), scale] + more, keeps=False, domain=MS, **eps)


def moves(g):
    op = g.r.choice(["Hardmax", "Compress", "ReverseSequence", "CenterCropPad", "BitwiseNot", "Trilu", "EyeLike", "GridSample", "Mod", "PRelu", "BitShift", "ConstantOfShape", "Range", "ExpandDims"])
    x = g.pick(lambda a: a.ndim > 0, True)
    if not x:
        return
    a = g.values[x]
    axis = g.r.randint(-a.ndim, a.ndim - 1)
    if op == "Hardmax":
        return a.dtype == np.float32 and g.add(op, [x], axis=axis)
    if op == "Compress":
        if g.r.random() < 0.3:
            return g.add(op, [x, g.leaf(g.draw([g.r.randint(1, a.size)], "bool"))])
        return g.add(op, [x, g.leaf(g.draw([g.r.randint(1, a.shape[axis])], "bool"))], axis=axis)
    if op == "ReverseSequence":
        time = g.r.randint(0, 1)
        return a.ndim >= 2 and g.add(op, [x, g.leaf(ints(g, 1, a.shape[time] + 1, [a.shape[1 - time]]))], time_axis=time, batch_axis=1 - time)
    if op == "CenterCropPad":
        axes = sorted(g.r.sample(range(a.ndim), g.r.randint(1, a.ndim)))
        return g.opset >= 18 and g.add(op, [x, g.const(ints(g, 1, 9, [len(axes)]))], axes=axes)
    if op == "BitwiseNot":
        return g.opset >= 18 and a.dtype.kind == "i" and g.add(op, [x])
    if op == "Trilu":
        return a.ndim >= 2 and g.add(op, [x, g.const(np.array(g.r.randint(-2, 2)))], domain=g.r.choice(["", MS]), upper=g.r.randint(0, 1))
    if op == "EyeLike":
        return a.ndim == 2 and g.add(op, [x], k=g.r.randint(-2, 2))
    if op == "GridSample":
        if a.ndim != 4 or a.dtype != np.float32:
            return
        grid = f32(g, [a.shape[0], g.r.randint(1, 5), g.r.randint(1, 5), 2], 0.55)
        return g.add(op, [x, grid], keeps=False, mode=g.r.choice(["bilinear", "bicubic"] if g.opset < 20 else ["linear", "cubic"]),
                     padding_mode=g.r.choice(["zeros", "border", "reflection"]), align_corners=g.r.randint(0, 1))
    if op == "Mod":
        y = g.leaf(np.where(g.draw(a.shape, str(a.dtype)) == 0, 3, 2).astype(a.dtype))
        return a.dtype != bool and g.add(op, [x, y], fmod=1 if a.dtype.kind == "f" else g.r.randint(0, 1))
    if op == "PRelu":
        return a.dtype == np.float32 and g.add(op, [x, f32(g, [g.r.choice([1, d]) for d in a.shape])])
    if op == "BitShift":
        v = g.leaf(ints(g, 0, 99, a.shape, np.uint8), False)
        return g.add(op, [v, g.leaf(ints(g, 0, 7, a.shape, np.uint8))], direction=g.r.choice(["LEFT", "RIGHT"]))
    if op == "ConstantOfShape":
        return g.add(op, [g.const(ints(g, 1, 5, [g.r.randint(1, 3)]))])
    if op == "Range":
        return g.add(op, [g.const(np.array(v, np.float32)) for v in (g.r.randint(-3, 3), g.r.randint(4, 9), g.r.choice([1, 2, 0.5]))])
    return a.ndim < 5 and g.add(op, [x, g.const(np.array(axis, np.int32))], domain=MS)


def pools(g):
    op = g.r.choice(["LpPool", "GlobalLpPool", "HannWindow", "HammingWindow", "BlackmanWindow", "AveragePool", "MaxPool"])
    if op.endswith("Window"):
        return at_the_end(g, g.add(op, [g.const(np.array(g.r.randint(2, 12)))], keeps=False, periodic=g.r.randint(0, 1)))  # its ends are 0 but for rounding
    x = floats(g, (3, 4))
    if not x:
        return
    a = g.values[x]
    if op == "GlobalLpPool":
        return g.add(op, [x], keeps=False, p=g.r.randint(1, 3))
    kk = [g.r.randint(1, min(3, d)) for d in a.shape[2:]]
    kw = dict(kernel_shape=kk, strides=[g.r.randint(1, 2) for _ in kk])
    if g.r.random() < 0.5:
        kw["auto_pad"] = g.r.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    else:
        kw["pads"] = [g.r.randint(0, k - 1) for k in kk * 2]
    if op == "LpPool":
        kw["p"] = g.r.randint(1, 3)
    if op == "MaxPool" and "pads" in kw and min(a.shape[2:]) > 4 and g.r.random() < 0.5:  # with SAME, ONNX Runtime forgets the dilation
        kw["dilations"] = [g.r.randint(1, 2) for _ in kk]
    return g.add(op, [x], keeps=op == "MaxPool", **kw)


def recurrent(g):
    op = g.r.choice(["LSTM", "GRU", "RNN"])
    gates, length, batch, size, hidden = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], g.r.randint(1, 5), g.r.randint(1, 3), g.r.randint(1, 6), g.r.randint(1, 5)
    way = g.r.choice(["forward", "reverse", "bidirectional"])
    d = 2 if way == "bidirectional" else 1
    x = g.leaf(g.draw([length, batch, size]), False)
    ins = [x, f32(g, [d, gates * hidden, size], 0.3), f32(g, [d, gates * hidden, hidden], 0.3)]
    ins.append(f32(g, [d, 2 * gates * hidden]) if g.r.random() < 0.7 else "")
    ins.append(g.leaf(ints(g, 1, length + 1, [batch], np.int32)) if g.r.random() < 0.3 else "")
    ins.append(f32(g, [d, batch, hidden]) if g.r.random() < 0.5 else "")
    kw = dict(hidden_size=hidden, direction=way)
    if op == "GRU":
        kw["linear_before_reset"] = g.r.randint(0, 1)
    if op == "LSTM" and g.r.random() < 0.3:
        ins += [f32(g, [d, batch, hidden]), f32(g, [d, 3 * hidden])]
    if op != "LSTM" or g.r.random() < 0.8:
        while not ins[-1]:
            ins.pop()
    return g.add(op, ins, 2 if op != "LSTM" else 3, keeps=False, **kw)


def small(g, low, high):
    return g.const(np.array(g.r.uniform(low, high), np.float32))


def at_the_end(g, added):
    """What has just been added is read by nobody: ONNX Runtime and brim differ there in what they say about it, or in the sign of nothing."""
    if added:
        g.last.update(g.nodes[-1].output)
    return added


def byte(g, shape, signed=False, const=None):
    return g.leaf(ints(g, -128 if signed else 0, 128 if signed else 256, shape, np.int8 if signed else np.uint8), const)


def zero(g, signed=False):
    return g.const(np.array(g.r.randint(-9, 9) if signed else g.r.randint(100, 150), np.int8 if signed else np.uint8))


def integers(g):
    """Whole numbers in, whole numbers out: exact."""
    op, m, k, n, s = g.r.choice(["MatMulInteger", "ConvInteger"]), g.r.randint(1, 6), g.r.randint(1, 9), g.r.randint(1, 6), g.r.random() < 0.5
    if op == "MatMulInteger":
        lead = g.r.choice([[], [2]])
        return g.add(op, [byte(g, lead + [m, k], const=False), byte(g, [k, n], s), zero(g), zero(g, s)], keeps=False)
    return g.add(op, [byte(g, [1, m, 6, 5], const=False), byte(g, [n, m, 3, 2], s), zero(g)], keeps=False, pads=[1, 0, 1, 1], strides=[1, 2])


def products_ms(g):
    op, m, k, n, s = g.r.choice(["DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm", "FusedGemm", "FusedMatMul", "FusedConv", "MatMulNBits", "CDist"]), g.r.randint(1, 6), g.r.randint(1, 9), g.r.randint(1, 6), g.r.random() < 0.5
    if op == "DynamicQuantizeMatMul":
        x = g.leaf(g.draw([m, k]), False)
        ins = [x, byte(g, [k, n], s, True), small(g, 0.01, 0.05), zero(g, s)] + ([f32(g, [n])] if g.r.random() < 0.5 else [])
        return g.add(op, ins, keeps=False, domain=MS)
    if op == "MatMulIntegerToFloat":
        return g.add(op, [byte(g, [m, k], const=False), byte(g, [k, n], s, True), small(g, 0.01, 0.05), small(g, 0.01, 0.05), zero(g), zero(g, s)], keeps=False, domain=MS)
    if op == "QGemm":
        ta, tb = g.r.randint(0, 1), g.r.randint(0, 1)
        ins = [byte(g, [k, m] if ta else [m, k], const=False), small(g, 0.01, 0.02), zero(g), byte(g, [n, k] if tb else [k, n], s, True), small(g, 0.01, 0.02), zero(g, s)]
        if g.r.random() < 0.6:
            ins.append(g.const(ints(g, -500, 500, [n], np.int32)))
        return g.add(op, ins, keeps=False, domain=MS, transA=ta, transB=tb)
    if op == "FusedGemm":
        ta, tb = g.r.randint(0, 1), g.r.randint(0, 1)
        x = g.leaf(g.draw([k, m] if ta else [m, k]), False)
        ins = [x, f32(g, [n, k] if tb else [k, n])] + ([f32(g, [n])] if g.r.random() < 0.6 else [])
        act = g.r.choice(["Relu", "Tanh", "Sigmoid", "LeakyRelu"])
        return g.add(op, ins, keeps=False, domain=MS, transA=ta, transB=tb, alpha=0.5, activation=act, **({"activation_alpha": 0.2} if act == "LeakyRelu" else {}))
    if op == "FusedMatMul":
        ta, tb, lead = g.r.randint(0, 1), g.r.randint(0, 1), g.r.choice([[], [2], [2, 3]])
        x = g.leaf(g.draw(lead + ([k, m] if ta else [m, k])), False)
        return g.add(op, [x, f32(g, lead + ([n, k] if tb else [k, n]))], keeps=False, domain=MS, transA=ta, transB=tb, alpha=g.r.choice([1.0, 0.3]))
    if op == "FusedConv":
        group = g.r.choice([1, 2])
        x = g.leaf(g.draw([g.r.randint(1, 2), 4, g.r.randint(3, 8), g.r.randint(3, 8)]), False)
        act, params = g.r.choice([("Relu", []), ("Tanh", []), ("Sigmoid", []), ("LeakyRelu", [0.1]), ("Clip", [-1.0, 1.5]), ("HardSigmoid", [0.2, 0.5])])
        ins = [x, f32(g, [2 * n, 4 // group, 3, 3])] + ([f32(g, [2 * n])] if g.r.random() < 0.6 else [])
        return g.add(op, ins, keeps=False, domain=MS, group=group, pads=[1, 1, 1, 1], activation=act, activation_params=params)
    if op == "CDist":
        return g.add(op, [g.leaf(g.draw([m, k]), False), f32(g, [n, k])], keeps=False, domain=MS, metric="sqeuclidean")
    bits, block = g.r.choice([4, 4, 8]), g.r.choice([16, 32])
    k = g.r.randint(1, 70)
    blocks = -(-k // block)
    x = g.leaf(g.draw([m, k]), False)
    ins = [x, byte(g, [n, blocks, block * bits // 8], const=True), g.const(np.abs(g.draw([n * blocks])) * np.float32(0.05))]
    if g.r.random() < 0.5:
        ins.append(byte(g, [n * (-(-blocks * bits // 8))], const=True))
    return g.add("MatMulNBits", ins, keeps=False, domain=MS, K=k, N=n, bits=bits, block_size=block)


def quantised_ms(g):
    op = g.r.choice(["QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearConcat", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearWhere", "QLinearSoftmax", "NhwcMaxPool"])
    shape = [g.r.randint(1, 3), g.r.randint(1, 4), g.r.randint(2, 6), g.r.randint(2, 6)]
    x, scale = byte(g, shape, const=False), lambda: small(g, 0.01, 0.05)
    if op == "NhwcMaxPool":
        return g.add(op, [x], domain=MS, kernel_shape=[g.r.randint(1, 2), g.r.randint(1, 2)])
    if op in ("QLinearAdd", "QLinearMul"):
        y = byte(g, [g.r.choice([1, d]) for d in shape])
        return g.add(op, [x, scale(), zero(g), y, scale(), zero(g), scale(), zero(g)], keeps=False, domain=MS)
    if op == "QLinearConcat":
        return g.add(op, [scale(), zero(g), x, scale(), zero(g), byte(g, shape), scale(), zero(g)], keeps=False, domain=MS, axis=g.r.randint(0, 3))
    if op == "QLinearWhere":
        return g.add(op, [g.leaf(g.draw(shape, "bool")), x, scale(), zero(g), byte(g, shape), scale(), zero(g), scale(), zero(g)], keeps=False, domain=MS)
    kw = {"alpha": 0.1} if op == "QLinearLeakyRelu" else {"opset": 13, "axis": -1} if op == "QLinearSoftmax" else {"channels_last": g.r.randint(0, 1)} if "Pool" in op else {}
    if op == "QLinearSoftmax":  # ONNX Runtime rounds 1 / scale down to a whole number
        return g.add(op, [x, scale(), zero(g), g.const(np.array(1 / 256, np.float32)), g.const(np.array(0, np.uint8))], keeps=False, domain=MS, **kw)
    if op == "QLinearAveragePool":
        kw["kernel_shape"] = [g.r.randint(1, 2), g.r.randint(1, 2)]
    return g.add(op, [x, scale(), zero(g), scale(), zero(g)], keeps=False, domain=MS, **kw)


def attention(g):
    op = g.r.choice(["Attention", "MultiHeadAttention", "GroupQueryAttention", "RotaryEmbedding", "EmbedLayerNormalization", "onnx", "onnx-rotary"])
    n, s, heads, size = g.r.randint(1, 2), g.r.randint(1, 5), g.r.choice([1, 2, 4]), g.r.choice([8, 16])
    wide, past, t = heads * size, g.r.randint(1, 4), g.r.randint(1, 5)
    if op == "Attention":
        ins = [g.leaf(g.draw([n, s, 6]), False), f32(g, [6, 3 * wide], 0.4), f32(g, [3 * wide])]
        kind, one = g.r.choice(["", "lengths", "mask", "square"]), g.r.random() < 0.4
        total = s + (past if one else 0)
        mask = {"": None, "lengths": ints(g, 1, total + 1, [n], np.int32), "mask": ints(g, 0, 2, [n, total], np.int32), "square": ints(g, 0, 2, [n, s, total], np.int32)}[kind]
        if mask is not None or one:
            ins.append("" if mask is None else g.leaf(mask, False))
        if one:
            ins.append(f32(g, [2, n, heads, past, size]))
        return g.add(op, ins, 2 if one else 1, keeps=False, domain=MS, num_heads=heads, unidirectional=g.r.randint(0, 1) if kind == "" else 0)
    if op == "MultiHeadAttention":
        ins = [g.leaf(g.draw([n, s, wide]), False), f32(g, [n, t, wide]), f32(g, [n, t, wide])]
        ins.append(f32(g, [3 * wide]) if g.r.random() < 0.5 else "")
        ins.append(g.leaf(ints(g, 0, 2, [n, t], np.int32), False) if g.r.random() < 0.5 else "")
        if g.r.random() < 0.5:
            ins.append(f32(g, [g.r.choice([1, n]), g.r.choice([1, heads]), s, t]))
        while not ins[-1]:
            ins.pop()
        return g.add(op, ins, keeps=False, domain=MS, num_heads=heads)
    if op == "GroupQueryAttention":
        share = g.r.choice([1, 2])
        kw = dict(num_heads=heads * share, kv_num_heads=heads)
        if g.r.random() < 0.3:
            kw["softcap"] = 3.0
        if g.r.random() < 0.5:
            x = g.leaf(g.draw([n, s, wide * share]), False)
            return g.add(op, [x, f32(g, [n, s, wide]), f32(g, [n, s, wide]), "", "", g.const(np.full(n, s - 1, np.int32)), g.const(np.array(s, np.int32))], 3, keeps=False, domain=MS, **kw)
        x = g.leaf(g.draw([n, 1, wide * share]), False)
        ins = [x, f32(g, [n, 1, wide]), f32(g, [n, 1, wide]), f32(g, [n, heads, past, size]), f32(g, [n, heads, past, size]), g.leaf(np.full(n, past, np.int32)), g.const(np.array(past + 1, np.int32))]
        if size == 16 and g.r.random() < 0.6:
            ins += [f32(g, [9, 8]), f32(g, [9, 8])]
            kw["do_rotary"], kw["rotary_interleaved"] = 1, g.r.randint(0, 1)
        return g.add(op, ins, 3, keeps=False, domain=MS, **kw)
    if op == "RotaryEmbedding":
        at = g.leaf(ints(g, 0, 4, [1]) if g.r.random() < 0.5 else ints(g, 0, 9, [n, s]))
        x = g.leaf(g.draw(g.r.choice([[n, s, wide], [n, heads, s, size]])), False)
        return g.add(op, [x, at, f32(g, [9, size // 2]), f32(g, [9, size // 2])], keeps=False, domain=MS, interleaved=g.r.randint(0, 1))
    if op == "EmbedLayerNormalization":
        ids = g.leaf(ints(g, 0, 7, [n, s], np.int32), False)
        seg = g.leaf(ints(g, 0, 2, [n, s], np.int32), False) if g.r.random() < 0.5 else ""
        ins = [ids, seg, f32(g, [7, size]), f32(g, [9, size]), f32(g, [2, size]) if seg else "", f32(g, [size]), f32(g, [size])]
        if g.r.random() < 0.5:
            ins.append(g.leaf(ints(g, 0, 2, [n, s], np.int32), False))
        return g.add(op, ins, 2, keeps=False, domain=MS, epsilon=0.01)
    if g.opset < 23:
        return
    if op == "onnx-rotary":
        x = g.leaf(g.draw([n, heads, s, size]), False)
        return g.add("RotaryEmbedding", [x, f32(g, [n, s, size // 2]), f32(g, [n, s, size // 2])], keeps=False, interleaved=g.r.randint(0, 1))
    three = g.r.random() < 0.5
    q = g.leaf(g.draw([n, s, wide] if three else [n, heads, s, size]), False)
    kv = [f32(g, [n, t, wide] if three else [n, heads, t, size]) for _ in range(2)]
    kw = dict(q_num_heads=heads, kv_num_heads=heads) if three else {}
    mask = [f32(g, [s, t])] if g.r.random() < 0.5 else []
    # ONNX Runtime infers a width of 0 for three axes, and Shape then says so
    return at_the_end(g, g.add("Attention", [q] + kv + mask, keeps=False, is_causal=g.r.randint(0, 1) if s <= t else 0, softcap=g.r.choice([0.0, 2.0]), **kw))


ALL = [unary, simple_ms, norms, moves, moves, pools, recurrent, integers, products_ms, products_ms, quantised_ms, attention, attention]


def grow(g):
    return g.r.choice(ALL)(g)
