"""Writes tests/data/fused: one small model per fused operator of com.microsoft that exporters emit, in the layout of ONNX's backend tests.

Outputs are those of ONNX Runtime (1.31 when they were recorded); needs onnx, onnxruntime, numpy. `brim verify` reads the folders.

    python tests/tools/make_fused_cases.py tests/data/fused
SPDX-License-Identifier: Apache-2.0"""
import os
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T, helper as h, numpy_helper as nh

TYPES = {np.dtype(np.float32): T.FLOAT, np.dtype(np.uint8): T.UINT8, np.dtype(np.int8): T.INT8, np.dtype(np.int64): T.INT64, np.dtype(np.int32): T.INT32,
         np.dtype(np.uint16): T.UINT16, np.dtype(bool): T.BOOL}
rng = np.random.default_rng(7)


def f(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def case(name, op, inputs, outputs=1, constants=(), results=None, **attributes):
    """inputs: arrays or None (absent); constants: numbers of those that are initialisers; results: what to expect, where ONNX Runtime has not got it."""
    names = [f"i{k}" if x is not None else "" for k, x in enumerate(inputs)]
    outs = [f"o{k}" for k in range(outputs)]
    node = h.make_node(op, names, outs, domain="com.microsoft", **attributes)
    given = [(n, x, k) for k, (n, x) in enumerate(zip(names, inputs)) if x is not None]
    values = [h.make_tensor_value_info(n, TYPES[x.dtype], x.shape) for n, x, k in given if k not in constants]
    probe = h.make_graph([node], "g", values, [h.make_empty_tensor_value_info(o) for o in outs], [nh.from_array(x, n) for n, x, k in given if k in constants])
    ids = [h.make_opsetid("", 17), h.make_opsetid("com.microsoft", 1)]
    feeds = {n: x for n, x, k in given if k not in constants}
    results = results or ort.InferenceSession(h.make_model(probe, opset_imports=ids, ir_version=8).SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    graph = h.make_graph([node], "g", values, [h.make_tensor_value_info(o, TYPES[r.dtype], r.shape) for o, r in zip(outs, results)],
                         [nh.from_array(x, n) for n, x, k in given if k in constants])
    folder = f"{sys.argv[1]}/{name}"
    os.makedirs(folder + "/test_data_set_0", exist_ok=True)
    onnx.save(h.make_model(graph, opset_imports=ids, ir_version=8), folder + "/model.onnx")
    for i, v in enumerate(values):
        open(f"{folder}/test_data_set_0/input_{i}.pb", "wb").write(nh.from_array(feeds[v.name], v.name).SerializeToString())
    for i, (o, r) in enumerate(zip(outs, results)):
        open(f"{folder}/test_data_set_0/output_{i}.pb", "wb").write(nh.from_array(r, o).SerializeToString())


x = f(2, 5, 16)
case("gelu", "Gelu", [x * 3])
case("bias_gelu", "BiasGelu", [x * 3, f(16)], constants=[1])
case("fast_gelu", "FastGelu", [x * 3])
case("fast_gelu_bias", "FastGelu", [x * 3, f(16)], constants=[1])
case("quick_gelu", "QuickGelu", [x * 3], alpha=1.702)
case("quick_gelu_1", "QuickGelu", [x * 3], alpha=1.0)
case("skip_layer_norm", "SkipLayerNormalization", [x, f(2, 5, 16), f(16), f(16), f(16)], constants=[2, 3, 4], epsilon=1e-5)
case("skip_layer_norm_plain", "SkipLayerNormalization", [x, f(2, 5, 16), f(16)], constants=[2], epsilon=1e-3)
case("skip_layer_norm_sum", "SkipLayerNormalization", [x, f(2, 5, 16), f(16), f(16)], outputs=1, constants=[2, 3], epsilon=1e-5)
case("skip_rms_norm", "SkipSimplifiedLayerNormalization", [x, f(2, 5, 16), f(16)], constants=[2], epsilon=1e-5)
case("fused_matmul", "FusedMatMul", [f(2, 3, 4), f(2, 4, 5)], alpha=0.5)
case("fused_matmul_ab", "FusedMatMul", [f(2, 4, 3), f(2, 5, 4)], transA=1, transB=1)
u = lambda *s: rng.integers(0, 256, s, dtype=np.uint8)
s, z = lambda v: np.array(v, np.float32), lambda v: np.array(v, np.uint8)
case("qlinear_add", "QLinearAdd", [u(2, 3, 4), s(0.0217), z(120), u(2, 3, 4), s(0.0331), z(7), s(0.0419), z(100)], constants=[1, 2, 4, 5, 6, 7])
case("qlinear_mul", "QLinearMul", [u(2, 3, 4), s(0.02), z(120), u(1, 3, 1), s(0.03), z(7), s(0.05), z(100)], constants=[1, 2, 4, 5, 6, 7])
case("qlinear_sigmoid", "QLinearSigmoid", [u(2, 3, 4), s(0.05), z(128), s(1 / 256), z(0)], constants=[1, 2, 3, 4])
case("qlinear_leaky", "QLinearLeakyRelu", [u(2, 3, 4), s(0.05), z(128), s(0.04), z(90)], constants=[1, 2, 3, 4], alpha=0.1)

# ---- fused convolution and product
img, w3 = f(1, 3, 6, 7), f(4, 3, 3, 3)
case("fused_conv_relu", "FusedConv", [img, w3, f(4)], constants=[1, 2], activation="Relu", pads=[1, 1, 1, 1], strides=[2, 1])
case("fused_conv_sum", "FusedConv", [img, w3, f(4), f(1, 4, 4, 5)], constants=[1, 2], activation="Relu")
case("fused_conv_leaky", "FusedConv", [img, w3], constants=[1], activation="LeakyRelu", activation_params=[0.2])
case("fused_conv_clip", "FusedConv", [img, w3, f(4)], constants=[1, 2], activation="Clip", activation_params=[-0.5, 2.0])
case("fused_conv_hard", "FusedConv", [img, w3, f(4)], constants=[1, 2], activation="HardSigmoid", activation_params=[0.2, 0.4])
case("fused_gemm_relu", "FusedGemm", [f(3, 5), f(5, 4), f(4)], constants=[1, 2], activation="Relu", alpha=0.5, beta=2.0)
case("fused_gemm_leaky", "FusedGemm", [f(5, 3), f(4, 5)], constants=[1], activation="LeakyRelu", activation_alpha=0.3, transA=1, transB=1)
case("fused_matmul_batch_a", "FusedMatMul", [f(3, 2, 4), f(2, 4, 5)], transBatchA=1)
case("fused_matmul_batch_ab", "FusedMatMul", [f(4, 2, 3), f(2, 4, 5)], transBatchA=1, transA=1)
case("expand_dims", "ExpandDims", [f(2, 3), np.array(-1, np.int32)], constants=[1])
case("cdist", "CDist", [f(5, 3), f(4, 3)], metric="euclidean")
case("trilu", "Trilu", [f(2, 4, 4), np.array(1, np.int64)], constants=[1], upper=0)

# ---- normalisation of embeddings
ids, seg = np.array([[1, 4, 2, 0], [3, 3, 5, 6]], np.int32), np.array([[0, 0, 1, 1], [0, 1, 1, 1]], np.int32)
tables = [f(7, 8), f(9, 8), f(2, 8), f(8), f(8)]
case("embed_layer_norm", "EmbedLayerNormalization", [ids, seg, *tables], outputs=2, constants=[2, 3, 4, 5, 6], epsilon=1e-5)
case("embed_layer_norm_mask", "EmbedLayerNormalization", [ids, None, tables[0], tables[1], None, *tables[3:], np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)], outputs=3, constants=[2, 3, 5, 6])
case("embed_layer_norm_places", "EmbedLayerNormalization", [ids, seg, *tables, None, np.array([[2, 3, 4, 5], [0, 1, 1, 8]], np.int32)], outputs=2, constants=[2, 3, 4, 5, 6])

# ---- attention
i32 = lambda v: np.array(v, np.int32)
n, seq, heads, size = 2, 4, 2, 8
past = f(2, n, heads, 3, size)
qkv = [f(n, seq, 12), f(12, 3 * heads * size), f(3 * heads * size)]
case("attention", "Attention", qkv, constants=[1, 2], num_heads=heads)
case("attention_lengths", "Attention", qkv + [i32([3, 2])], constants=[1, 2], num_heads=heads)
case("attention_mask", "Attention", qkv + [i32([[1, 1, 0, 1], [0, 1, 1, 0]])], constants=[1, 2], num_heads=heads)
case("attention_mask_square", "Attention", qkv + [i32(rng.integers(0, 2, (n, seq, seq)))], constants=[1, 2], num_heads=heads, scale=0.4)
case("attention_causal", "Attention", qkv, constants=[1, 2], outputs=2, num_heads=heads, unidirectional=1)
case("attention_past", "Attention", qkv + [None, past], constants=[1, 2], outputs=2, num_heads=heads, unidirectional=1)
case("attention_past_mask", "Attention", qkv + [i32([[1] * 7, [0, 0, 1, 1, 1, 1, 1]]), past], constants=[1, 2], outputs=2, num_heads=heads, unidirectional=1)
case("attention_bias", "Attention", qkv + [None, None, f(1, heads, seq, seq)], constants=[1, 2], num_heads=heads)
case("attention_sizes", "Attention", [f(n, seq, 12), f(12, 40), f(40)], constants=[1, 2], num_heads=heads, qkv_hidden_sizes=[16, 16, 8])
q, k, v = f(n, seq, 16), f(n, 5, 16), f(n, 5, 24)
case("multi_head", "MultiHeadAttention", [q, k, v], num_heads=heads)
case("multi_head_bias", "MultiHeadAttention", [q, k, v, f(56)], constants=[3], num_heads=heads, scale=0.3)
case("multi_head_lengths", "MultiHeadAttention", [q, k, v, None, i32([5, 2])], num_heads=heads)
case("multi_head_mask", "MultiHeadAttention", [q, k, v, None, i32([[1, 1, 0, 1, 1], [0, 1, 1, 0, 1]])], num_heads=heads, mask_filter_value=-50.0)
case("multi_head_square", "MultiHeadAttention", [q, k, v, None, i32(rng.integers(0, 2, (n, seq, 5)))], num_heads=heads)
case("multi_head_sum", "MultiHeadAttention", [q, k, v, None, None, f(1, heads, seq, 5)], num_heads=heads)
def as_multi_head(*inputs):  # for packed inputs, which ONNX Runtime takes on other devices only
    node = h.make_node("MultiHeadAttention", ["q", "k", "v", "b"][: len(inputs)], ["y"], domain="com.microsoft", num_heads=heads)
    ids = [h.make_opsetid("", 17), h.make_opsetid("com.microsoft", 1)]
    g = h.make_graph([node], "g", [h.make_tensor_value_info(a, T.FLOAT, x.shape) for a, x in zip("qkvb", inputs)], [h.make_empty_tensor_value_info("y")])
    return ort.InferenceSession(h.make_model(g, opset_imports=ids, ir_version=8).SerializeToString(), providers=["CPUExecutionProvider"]).run(None, dict(zip("qkvb", inputs)))


packed, b3 = f(n, seq, heads, 3, size), f(48)
flat = lambda a: np.ascontiguousarray(a).reshape(*a.shape[:2], 16)
case("multi_head_packed", "MultiHeadAttention", [packed, None, None, b3], constants=[3], num_heads=heads, results=as_multi_head(*(flat(packed[:, :, :, i]) for i in range(3)), b3))
packed_kv = f(n, 5, heads, 2, size)
case("multi_head_packed_kv", "MultiHeadAttention", [q, packed_kv], num_heads=heads, results=as_multi_head(q, flat(packed_kv[:, :, :, 0]), flat(packed_kv[:, :, :, 1])))
case("multi_head_cross", "MultiHeadAttention", [q, f(n, heads, 5, size), f(n, heads, 5, size)], num_heads=heads)
case("multi_head_past", "MultiHeadAttention", [q, f(n, seq, 16), f(n, seq, 16), None, None, None, f(n, heads, 3, size), f(n, heads, 3, size)], outputs=3, num_heads=heads, unidirectional=1)
cosine, sine = np.cos(np.outer(np.arange(20), [1, 0.3, 0.1, 0.02])).astype(np.float32), np.sin(np.outer(np.arange(20), [1, 0.3, 0.1, 0.02])).astype(np.float32)
i64 = lambda v: np.array(v, np.int64)
case("rotary", "RotaryEmbedding", [f(n, seq, 16), i64([3]), cosine, sine], constants=[2, 3])
case("rotary_places", "RotaryEmbedding", [f(n, seq, 16), i64([[0, 1, 2, 3], [5, 6, 9, 12]]), cosine, sine], constants=[2, 3], interleaved=1)
case("rotary_heads", "RotaryEmbedding", [f(n, heads, seq, size), i64([0]), cosine, sine], constants=[2, 3])
case("rotary_part", "RotaryEmbedding", [f(n, seq, 16), i64([[0, 1, 2, 3], [5, 6, 9, 12]]), cosine[:, :2], sine[:, :2]], constants=[2, 3], num_heads=2, rotary_embedding_dim=4)
wide = np.outer(np.arange(20), 0.5 ** np.arange(8))
cos8, sin8 = np.cos(wide).astype(np.float32), np.sin(wide).astype(np.float32)
q4, k2, v2 = f(n, seq, 64), f(n, seq, 32), f(n, seq, 32)
gqa = dict(num_heads=4, kv_num_heads=2)
new, past3 = [q4, k2, v2, None, None, i32([3, 3]), i32(4)], [f(n, 1, 64), f(n, 1, 32), f(n, 1, 32), f(n, 2, 6, 16), f(n, 2, 6, 16)]
case("grouped_prompt", "GroupQueryAttention", new, outputs=3, constants=[6], **gqa)
case("grouped_prompt_rotary", "GroupQueryAttention", new + [cos8, sin8], outputs=3, constants=[6, 7, 8], do_rotary=1, **gqa)
case("grouped_packed", "GroupQueryAttention", [f(n, seq, 128), None, None, None, None, i32([3, 3]), i32(4), cos8, sin8], outputs=3, constants=[6, 7, 8], do_rotary=1, rotary_interleaved=1, **gqa)
case("grouped_part", "GroupQueryAttention", [f(n, 1, 128), f(n, 1, 64), f(n, 1, 64), f(n, 2, 6, 32), f(n, 2, 6, 32)] + [i32([6, 6]), i32(7), cos8, sin8], outputs=3, constants=[6, 7, 8], do_rotary=1, **gqa)
case("grouped_next", "GroupQueryAttention", past3 + [i32([6, 6]), i32(7), cos8, sin8], outputs=3, constants=[6, 7, 8], do_rotary=1, **gqa)
case("grouped_next_total", "GroupQueryAttention", past3 + [i32([6, 6]), i32(7), cos8, sin8], outputs=3, constants=[7, 8], do_rotary=1, **gqa)
case("grouped_room", "GroupQueryAttention", past3 + [i32([3, 5]), i32(6), cos8, sin8], outputs=3, constants=[6, 7, 8], do_rotary=1, local_window_size=3, **gqa)
case("grouped_softcap", "GroupQueryAttention", new, outputs=1, constants=[6], softcap=2.0, scale=0.5, **gqa)
case("grouped_smooth", "GroupQueryAttention", new, outputs=1, constants=[6], smooth_softmax=1, **gqa)
case("grouped_sink", "GroupQueryAttention", new + [None, None, None, None, f(4)], outputs=1, constants=[6, 11], **gqa)
case("grouped_places", "GroupQueryAttention", past3 + [i32([6, 6]), i32(7), cos8, sin8, i64([[4], [9]])], outputs=3, constants=[6, 7, 8], do_rotary=1, **gqa)
case("grouped_bias", "GroupQueryAttention", new + [None, None, None, f(1, 4, seq, seq)], outputs=1, constants=[6], **gqa)

# ---- weights of few bits
def bits(name, bits, k, columns, block, zeros, rows=3, **kw):
    blocks = -(-k // block)
    inputs = [f(rows, k), rng.integers(0, 256, (columns, blocks, block * bits // 8), dtype=np.uint8), np.abs(f(columns * blocks)) * 0.1]
    if zeros == "packed":
        inputs.append(rng.integers(0, 256, columns * -(-blocks * bits // 8), dtype=np.uint8))
    elif zeros == "real":
        inputs.append(rng.integers(0, 16, columns * blocks).astype(np.float32))
    elif kw.get("bias"):
        inputs.append(None)
    if kw.get("bias"):
        inputs += [None, f(columns)]
    case(name, "MatMulNBits", inputs, constants=range(1, len(inputs)), K=k, N=columns, bits=bits, block_size=block)
bits("bits4", 4, 32, 5, 16, "")
bits("bits4_zeros", 4, 48, 5, 16, "packed")
bits("bits4_cut", 4, 40, 4, 16, "packed", bias=True)
bits("bits4_real_zeros", 4, 32, 5, 16, "real")
bits("bits8", 8, 32, 5, 16, "packed")
bits("bits2", 2, 32, 5, 16, "")

# ---- quantised
i8 = lambda *s: rng.integers(-128, 128, s).astype(np.int8)
zi = lambda v: np.array(v, np.int8)
case("qgemm", "QGemm", [u(3, 6), s(0.02), z(120), i8(6, 4), s(0.03), zi(3), i32(rng.integers(-900, 900, 4)), s(0.11), z(100)], constants=range(1, 9))
case("qgemm_columns", "QGemm", [u(6, 3), s(0.02), z(120), i8(4, 6), np.abs(f(4)) * 0.03, i8(4) // 16, None, s(0.11), z(100)], constants=[1, 2, 3, 4, 5, 7, 8], transA=1, transB=1, alpha=0.5)
case("qgemm_real", "QGemm", [u(3, 6), s(0.02), z(120), i8(6, 4), s(0.03), zi(3)], constants=range(1, 6))
case("dynamic_quantize_matmul", "DynamicQuantizeMatMul", [f(3, 6), i8(6, 4), s(0.03), zi(3), f(4)], constants=range(1, 5))
case("dynamic_quantize_matmul_columns", "DynamicQuantizeMatMul", [f(3, 6), i8(6, 4), np.abs(f(4)) * 0.03, i8(4) // 16], constants=range(1, 4))
case("matmul_integer_to_float", "MatMulIntegerToFloat", [u(3, 6), i8(6, 4), s(0.02), np.abs(f(4)) * 0.03, z(120), None, f(4)], constants=[1, 2, 3, 4, 6])
case("qlinear_concat", "QLinearConcat", [s(0.05), z(100), u(2, 3), s(0.05), z(100), u(2, 2), s(0.02), z(7)], constants=[0, 1, 3, 4, 6, 7], axis=1)
case("qlinear_global_pool", "QLinearGlobalAveragePool", [u(1, 3, 4, 5), s(0.02), z(120), s(0.013), z(99)], constants=range(1, 5))
case("qlinear_global_pool_last", "QLinearGlobalAveragePool", [u(1, 4, 5, 3), s(0.02), z(120), s(0.013), z(99)], constants=range(1, 5), channels_last=1)
case("qlinear_pool", "QLinearAveragePool", [u(1, 3, 5, 5), s(0.02), z(120), s(0.017), z(99)], constants=range(1, 5), kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
case("qlinear_pool_last", "QLinearAveragePool", [u(1, 5, 5, 3), s(0.02), z(120), s(0.017), z(99)], constants=range(1, 5), kernel_shape=[2, 2], channels_last=1)
case("qlinear_softmax", "QLinearSoftmax", [u(2, 5), s(0.05), z(120), s(1 / 256), z(0)], constants=range(1, 5), opset=13)
case("qlinear_where", "QLinearWhere", [rng.random((2, 3)) < 0.5, u(2, 3), s(0.02), z(10), u(2, 3), s(0.03), z(20), s(0.04), z(5)], constants=[2, 3, 5, 6, 7, 8])
case("qlinear_conv_last", "QLinearConv", [u(1, 5, 5, 3), s(0.02), z(120), i8(4, 3, 3, 3), s(0.03), zi(0), s(0.3), z(99), i32(rng.integers(-900, 900, 4))], constants=range(1, 9), channels_last=1)
case("nhwc_max_pool", "NhwcMaxPool", [u(1, 5, 5, 3)], kernel_shape=[2, 2], strides=[2, 2])
case("dequantize_16", "DequantizeLinear", [rng.integers(0, 65536, (2, 3)).astype(np.uint16), s(0.02), np.array(30000, np.uint16)], constants=[1, 2])
case("quantize_16", "QuantizeLinear", [f(2, 3), s(1e-4), np.array(30000, np.uint16)], constants=[1, 2])
case("qattention", "QAttention", [u(n, seq, 12), i8(12, 48), f(48), s(0.02), s(0.01), i32([4, 2]), z(128), zi(0)], constants=[1, 2, 3, 4, 6, 7], num_heads=heads)
case("qembed_layer_norm", "QEmbedLayerNormalization", [ids, seg, u(7, 8), u(9, 8), u(2, 8), u(8), u(8), None, s(0.02), s(0.01), s(0.03), s(0.011), s(0.02), z(120), z(128), z(100), z(3), z(130)],
     outputs=2, constants=[2, 3, 4, 5, 6, *range(8, 18)])
