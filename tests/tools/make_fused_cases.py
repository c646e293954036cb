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

TYPES = {np.dtype(np.float32): T.FLOAT, np.dtype(np.uint8): T.UINT8, np.dtype(np.int8): T.INT8, np.dtype(np.int64): T.INT64, np.dtype(np.int32): T.INT32}
rng = np.random.default_rng(7)


def f(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def case(name, op, inputs, outputs=1, constants=(), **attributes):
    """inputs: arrays or None (absent); constants: numbers of those that are initialisers."""
    names = [f"i{k}" if x is not None else "" for k, x in enumerate(inputs)]
    outs = [f"o{k}" for k in range(outputs)]
    node = h.make_node(op, names, outs, domain="com.microsoft", **attributes)
    given = [(n, x, k) for k, (n, x) in enumerate(zip(names, inputs)) if x is not None]
    values = [h.make_tensor_value_info(n, TYPES[x.dtype], x.shape) for n, x, k in given if k not in constants]
    probe = h.make_graph([node], "g", values, [h.make_empty_tensor_value_info(o) for o in outs], [nh.from_array(x, n) for n, x, k in given if k in constants])
    ids = [h.make_opsetid("", 17), h.make_opsetid("com.microsoft", 1)]
    feeds = {n: x for n, x, k in given if k not in constants}
    results = ort.InferenceSession(h.make_model(probe, opset_imports=ids, ir_version=8).SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
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
