"""Writes tests/data/cases/small_types: numbers of eight, four and two bits, as weights and between operators, with the results of ONNX's
reference. For developers only (onnx 1.20 or newer with ml_dtypes):

    python tests/tools/make_small_cases.py tests/data/cases
SPDX-License-Identifier: Apache-2.0"""
import os, sys
import numpy as np, onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh
from onnx.reference import ReferenceEvaluator

rng = np.random.default_rng(5)
x = rng.uniform(-600, 600, (3, 5)).astype(np.float32)
x[0] = [0.3, -0.017, 460, -70000, 1e-9]
nodes, outputs = [], []


def give(name, kind):
    outputs.append(h.make_tensor_value_info(name, kind, None))


for name, kind in (("e4m3fn", T.FLOAT8E4M3FN), ("e4m3fnuz", T.FLOAT8E4M3FNUZ), ("e5m2", T.FLOAT8E5M2), ("e5m2fnuz", T.FLOAT8E5M2FNUZ)):
    for saturate in (0, 1):
        nodes.append(h.make_node("Cast", ["x"], [f"{name}{saturate}"], to=kind, saturate=saturate))
        nodes.append(h.make_node("Cast", [f"{name}{saturate}"], [f"y_{name}{saturate}"], to=T.FLOAT))
        give(f"y_{name}{saturate}", T.FLOAT)
weights = [h.make_tensor("w4", T.INT4, [3, 3], [-8, -1, 0, 1, 7, 3, -5, 2, -2]), h.make_tensor("z4", T.INT4, [], [-3]),
           h.make_tensor("w2", T.INT2, [5], [-2, -1, 0, 1, 1]), h.make_tensor("u2", T.UINT2, [3], [3, 0, 2]),
           nh.from_array(np.float32(0.25), "s"), nh.from_array(np.float32(50), "wide")]
for name, ins, kind in (("d4", ["w4", "s", "z4"], T.FLOAT), ("d2", ["w2", "s"], T.FLOAT)):
    nodes.append(h.make_node("DequantizeLinear", ins, [name]))
    give(name, kind)
nodes.append(h.make_node("Cast", ["u2"], ["whole"], to=T.INT32))
give("whole", T.INT32)
nodes.append(h.make_node("QuantizeLinear", ["x", "wide", "z4"], ["q"]))
nodes.append(h.make_node("DequantizeLinear", ["q", "wide", "z4"], ["again"]))
give("again", T.FLOAT)
graph = h.make_graph(nodes, "small_types", [h.make_tensor_value_info("x", T.FLOAT, x.shape)], outputs, weights)
model = h.make_model(graph, opset_imports=[h.make_opsetid("", 25)], ir_version=11)
at = os.path.join(sys.argv[1], "small_types", "test_data_set_0")
os.makedirs(at, exist_ok=True)
open(os.path.join(sys.argv[1], "small_types", "model.onnx"), "wb").write(model.SerializeToString())
open(at + "/input_0.pb", "wb").write(nh.from_array(x, "x").SerializeToString())
for i, y in enumerate(ReferenceEvaluator(model).run(None, {"x": x})):
    open(f"{at}/output_{i}.pb", "wb").write(nh.from_array(np.asarray(y), outputs[i].name).SerializeToString())
