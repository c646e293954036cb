"""Writes tests/data/bad: models that must be refused, NAME.onnx beside NAME.txt (a word of the sentence that refuses it). Needs onnx.

    python tests/tools/make_bad_models.py tests/data/bad
SPDX-License-Identifier: Apache-2.0"""
import sys, os
import numpy as np
from onnx import helper as h, TensorProto as T, numpy_helper as nh

V = h.make_tensor_value_info
out = sys.argv[1]


def model(nodes, ins, outs, init=(), functions=(), opset=17):
    return h.make_model(h.make_graph(nodes, "g", ins, outs, init), functions=list(functions),
                        opset_imports=[h.make_opsetid("", opset), h.make_opsetid("my", 1)], ir_version=9)


def bad(name, words, m):
    open(f"{out}/{name}.onnx", "wb").write(m.SerializeToString())
    open(f"{out}/{name}.txt", "w").write(words + "\n")


x, y = V("x", T.FLOAT, [2, 3]), V("y", T.FLOAT, None)
i64 = lambda n, *v: nh.from_array(np.array(v, np.int64), n)
bad("shape_overflow", "2^47", model([h.make_node("ConstantOfShape", ["s"], ["y"])], [x], [y], [i64("s", 2**40, 2**40, 2**40)]))
bad("tensor_2_40", "budget", model([h.make_node("Expand", ["x", "s"], ["e"]), h.make_node("ReduceSum", ["e"], ["y"], keepdims=0)], [x], [y], [i64("s", 2**40 // 6, 2, 3)]))
bad("input_2_60", "2^47", model([h.make_node("Relu", ["x"], ["y"])], [V("x", T.FLOAT, [2**30, 2**30])], [y]))
bad("reshape_overflow", "", model([h.make_node("Reshape", ["x", "s"], ["y"])], [x], [y], [i64("s", 2**62, 2**62)]))
bad("tile_overflow", "", model([h.make_node("Tile", ["x", "s"], ["y"])], [x], [y], [i64("s", 2**62, 2**62)]))
bad("pad_overflow", "", model([h.make_node("Pad", ["x", "s"], ["y"])], [x], [y], [i64("s", 2**62, 2**62, 2**62, 2**62)]))
bad("range_loop_huge", "", model([h.make_node("ReduceSum", ["x"], ["r"], keepdims=0), h.make_node("Cast", ["r"], ["c"], to=7), h.make_node("Add", ["c", "n"], ["m"]), h.make_node("Range", ["zero", "m", "one"], ["y"])],
                                 [x], [V("y", T.INT64, None)], [nh.from_array(np.array(2**45), "n"), nh.from_array(np.array(0), "zero"), nh.from_array(np.array(1), "one")]))
bad("attr_wrong_type", "", model([h.make_node("Concat", ["x", "x"], ["y"], axis="one")], [x], [y]))
bad("attr_wrong_type_ints", "", model([h.make_node("Transpose", ["x"], ["y"], perm=[7, 8])], [x], [y]))
bad("missing_input", "", model([h.make_node("Add", ["x"], ["y"])], [x], [y]))
bad("absent_input", "", model([h.make_node("Conv", ["x", ""], ["y"])], [x], [y]))
bad("nobody_makes", "nothing makes", model([h.make_node("Add", ["x", "q"], ["y"])], [x], [y]))
bad("cycle", "cycle", model([h.make_node("Add", ["x", "b"], ["a"]), h.make_node("Relu", ["a"], ["b"]), h.make_node("Relu", ["b"], ["y"])], [x], [y]))
bad("made_twice", "made twice", model([h.make_node("Relu", ["x"], ["y"]), h.make_node("Abs", ["x"], ["y"])], [x], [y]))
bad("two_inputs", "two inputs", model([h.make_node("Add", ["x", "x"], ["y"])], [x, x], [y]))
t = h.make_tensor("w", T.FLOAT, [2, 3], [0.0] * 6)
for name, location in (("external_up", "../../etc/passwd"), ("external_absolute", "/etc/passwd")):
    w = T()
    w.CopyFrom(t)
    w.ClearField("float_data")
    w.data_location = T.EXTERNAL
    e = w.external_data.add()
    e.key, e.value = "location", location
    bad(name, "outside the model's folder", model([h.make_node("Add", ["x", "w"], ["y"])], [x], [y], [w]))
call = lambda to: [h.make_node(to, ["x"], ["y"], domain="my")]
ops = [h.make_opsetid("", 17), h.make_opsetid("my", 1)]
fn = lambda name, to: h.make_function("my", name, ["x"], ["y"], call(to), ops)
bad("function_recursion", "calls itself", model(call("F"), [x], [y], functions=[fn("F", "F")]))
bad("function_mutual", "calls itself", model(call("F"), [x], [y], functions=[fn("F", "G"), fn("G", "F")]))
bad("function_deep", "deep", model(call("F0"), [x], [y], functions=[fn(f"F{i}", f"F{i+1}") for i in range(30)] + [h.make_function("my", "F30", ["x"], ["y"], [h.make_node("Relu", ["x"], ["y"])], ops)]))
double = lambda i: h.make_function("my", f"D{i}", ["x"], ["y"], [h.make_node(f"D{i+1}", ["x"], ["a"], domain="my"), h.make_node(f"D{i+1}", ["a"], ["y"], domain="my")], ops)
wide = lambda i: h.make_function("my", f"D{i}", ["x"], ["v15"], [h.make_node(f"D{i+1}", [f"v{k-1}" if k else "x"], [f"v{k}"], domain="my") for k in range(16)], ops)
bad("function_bomb", "more than", model(call("D0"), [x], [y], functions=[wide(i) for i in range(8)] + [h.make_function("my", "D8", ["x"], ["y"], [h.make_node("Relu", ["x"], ["y"])], ops)]))
bad("function_extra_input", "more inputs", model([h.make_node("F", ["x", "x"], ["y"], domain="my")], [x], [y], functions=[h.make_function("my", "F", ["x"], ["y"], [h.make_node("Relu", ["x"], ["y"])], ops)]))
g = h.make_graph([h.make_node("Relu", ["x"], ["o"])], "s", [], [V("o", T.FLOAT, None)])
for _ in range(12):
    g = h.make_graph([h.make_node("If", ["c"], ["o"], then_branch=g, else_branch=h.make_graph([h.make_node("Abs", ["x"], ["o"])], "e", [], [V("o", T.FLOAT, None)]))], "s", [], [V("o", T.FLOAT, None)])
bad("subgraph_deep", "deep", model([h.make_node("If", ["c"], ["y"], then_branch=g, else_branch=g)], [x, V("c", T.BOOL, [])], [y]))
body = h.make_graph([h.make_node("Concat", ["a", "a"], ["b"], axis=0), h.make_node("Identity", ["c"], ["d"])], "b", [V("i", T.INT64, []), V("c", T.BOOL, []), V("a", T.FLOAT, None)], [V("d", T.BOOL, []), V("b", T.FLOAT, None)])
bad("loop_grows", "budget", model([h.make_node("Loop", ["n", "", "x"], ["y"], body=body)], [x], [y], [nh.from_array(np.array(100), "n")]))
few = h.make_graph([h.make_node("Identity", ["c"], ["d"])], "b", [V("i", T.INT64, []), V("c", T.BOOL, [])], [V("d", T.BOOL, [])])
bad("loop_body_misfit", "body", model([h.make_node("Loop", ["n", "", "x"], ["y"], body=few)], [x], [y], [nh.from_array(np.array(3), "n")]))
bad("loop_no_body", "body", model([h.make_node("Loop", ["n", "", "x"], ["y"])], [x], [y], [nh.from_array(np.array(3), "n")]))
bad("scan_body_misfit", "body", model([h.make_node("Scan", ["x"], ["y"], body=few, num_scan_inputs=5)], [x], [y]))
