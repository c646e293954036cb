"""Writes out the node cases of the installed onnx package (releases after 1.17 make them from code and ship no files).

    python tests/tools/write_node_suite.py FOLDER        # FOLDER/node/NAME/{model.onnx,test_data_set_0/...}
    BRIM_ONNX_DATA=FOLDER python tests/tools/onnx_suites.py BRIM node

Cases with sequences, optionals and maps are written without data: brim has no such types. Fourier transforms are taken in float64, as
NumPy 1 did and as the files of onnx up to 1.17 hold them: in float32 (NumPy 2) their rounding, 2e-7 where 0 is right, is beyond the
runner's own tolerance, and no other implementation has the same. SPDX-License-Identifier: Apache-2.0"""
import os, sys
import numpy as np, onnx
from onnx import numpy_helper as nh


def in_double(transform):
    return lambda x, *rest, **named: transform(np.asarray(x).astype(np.complex128 if np.iscomplexobj(x) else np.float64), *rest, **named)


for name in ("fft", "ifft", "irfft"):
    setattr(np.fft, name, in_double(getattr(np.fft, name)))
from onnx.backend.test.loader import load_node_model_tests  # noqa: E402: the cases are computed while it is loaded

def proto(value, info):
    if isinstance(value, onnx.TensorProto):
        return value
    return nh.from_array(np.asarray(value), info.name)


made = 0
for case in load_node_model_tests():
    if case.model is None:
        continue
    folder = os.path.join(sys.argv[1], "node", case.name)
    os.makedirs(folder, exist_ok=True)
    open(folder + "/model.onnx", "wb").write(case.model.SerializeToString())
    made += 1
    plain = all(v.type.HasField("tensor_type") for v in [*case.model.graph.input, *case.model.graph.output])
    for i, (inputs, outputs) in enumerate(case.data_sets if plain else []):
        at = f"{folder}/test_data_set_{i}"
        os.makedirs(at, exist_ok=True)
        for kind, values, infos in (("input", inputs, case.model.graph.input), ("output", outputs, case.model.graph.output)):
            for j, (value, info) in enumerate(zip(values, infos)):
                open(f"{at}/{kind}_{j}.pb", "wb").write(proto(value, info).SerializeToString())
print(f"onnx {onnx.__version__}: {made} cases")
