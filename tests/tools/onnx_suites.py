"""Runs `brim verify` and ONNX Runtime on the suites of the onnx package and prints their figures side by side.

    python tests/tools/onnx_suites.py BRIM [SUITE...]      # node simple pytorch-operator pytorch-converted light

Needs onnx (the last release that carries backend/test/data; 1.17 when this was written), onnxruntime, numpy; no part of ./run test.
The tolerance is that of ONNX's own runner: 1e-7 + 1e-3 |expected| (2^-6 |expected| for bfloat16). For each suite it also prints the share of
cases that pass outside of the groups that brim leaves out on purpose (group() says how they are told: strings; sequences, optionals and maps;
training), and what is unsupported, by group and operator. With SUITES_JSON=FILE every case is written there, one JSON object a line. The light models come without inputs: theirs are drawn from a fixed seed, the
weights (fixed by the files) stay, and brim is compared with ONNX Runtime, relative to the largest output. SPDX-License-Identifier: Apache-2.0"""
import collections, glob, json, os, subprocess, sys, tempfile
import numpy as np, onnx, onnxruntime as ort
from onnx import numpy_helper as nh

DATA = os.environ.get("BRIM_ONNX_DATA") or os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data")


def tensor(path):
    t = onnx.TensorProto()
    t.ParseFromString(open(path, "rb").read())
    return nh.to_array(t)


def session(path):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def ort_case(case):
    try:
        s = session(case + "/model.onnx")
        for folder in sorted(glob.glob(case + "/test_data_set_*")):
            feed = {x.name: tensor(f"{folder}/input_{i}.pb") for i, x in enumerate(s.get_inputs())}
            for i, got in enumerate(s.run(None, feed)):
                want = tensor(f"{folder}/output_{i}.pb")
                if got.shape != want.shape or got.dtype != want.dtype:
                    return "failed"
                if got.dtype != object and not np.allclose(got.astype(np.float64), want.astype(np.float64), 1e-3, 1e-7, True):
                    return "failed"
        return "passed"
    except Exception:
        return "unsupported"


def brim_cases(brim, cases):
    run = subprocess.run([brim, "verify", "--json", *cases], capture_output=True, text=True)
    return {j["case"]: j for j in map(json.loads, run.stdout.splitlines())}


LISTS = {"SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength", "SequenceMap", "SplitToSequence",
         "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement"}


def group(model):
    """None, or the group that brim leaves out on purpose, to which a case belongs; and the operators of the case."""
    ops, found = [], set()

    def walk(graph):
        for v in [*graph.input, *graph.output, *graph.value_info]:
            kind = v.type.WhichOneof("value")
            if kind in ("sequence_type", "optional_type", "map_type"):
                found.add("sequences, optionals, maps")
            elif kind == "tensor_type" and v.type.tensor_type.elem_type == onnx.TensorProto.STRING:
                found.add("strings")
        for n in graph.node:
            ops.append((n.domain + "." if n.domain else "") + n.op_type)
            a = {x.name: x for x in n.attribute}
            if n.op_type in LISTS:
                found.add("sequences, optionals, maps")
            if n.domain == "ai.onnx.preview.training" or (n.op_type == "BatchNormalization" and "training_mode" in a and a["training_mode"].i):
                found.add("training")
            if n.op_type == "Dropout" and len(n.input) > 2 and n.input[2]:
                found.add("training")
            for x in n.attribute:
                if x.HasField("g"):
                    walk(x.g)

    walk(model.graph)
    for order in ("strings", "sequences, optionals, maps", "training"):
        if order in found:
            return order, ops
    return None, ops


def share(name, verdicts):
    """verdicts: case -> verdict. Prints the share outside of the groups, and what is unsupported."""
    total, passed, rest = collections.Counter(), collections.Counter(), collections.defaultdict(collections.Counter)
    for case, verdict in verdicts.items():
        where, ops = group(onnx.load(case + "/model.onnx", load_external_data=False))
        total[where] += 1
        passed[where] += verdict == "passed"
        if verdict != "passed":
            rest[where][ops[0] if len(set(ops)) == 1 else os.path.basename(case)] += 1
    print(f"{name}: outside of what is left out on purpose {passed[None]} of {total[None]} pass: {100 * passed[None] / max(total[None], 1):.1f} %")
    for where in sorted(total, key=str):
        if rest[where]:
            what = ", ".join(f"{op} {n}" for op, n in sorted(rest[where].items(), key=lambda x: -x[1]))
            print(f"  {where or 'other'}: {passed[where]} of {total[where]} pass; not: {what}")


def suite(brim, name):
    cases = sorted(glob.glob(f"{DATA}/{name}/test_*"))
    ours = brim_cases(brim, cases)
    count, theirs, runs = collections.Counter(), collections.Counter(), {}
    for c in cases:
        j = ours.get(c, {"verdict": "crashed", "why": ""})
        t = runs[c] = ort_case(c)
        count[j["verdict"]] += 1
        theirs[t] += 1
        if j["verdict"] in ("failed", "crashed"):
            print(f"  {os.path.basename(c)}: {j['verdict']}: {j['why']}  (ONNX Runtime: {t})")
    row = lambda c: f"{c['passed']} passed, {c['failed'] + c['crashed']} failed, {c['unsupported']} unsupported"
    if os.environ.get("SUITES_JSON"):
        with open(os.environ["SUITES_JSON"], "a") as f:
            for c in cases:
                f.write(json.dumps({"suite": name, "case": os.path.basename(c), "brim": ours.get(c, {"verdict": "crashed"})["verdict"], "onnxruntime": runs[c]}) + "\n")
    share(name, {c: ours.get(c, {"verdict": "crashed"})["verdict"] for c in cases})
    print(f"{name}: {len(cases)} cases: brim {row(count)}; ONNX Runtime {ort.__version__} {row(theirs)}", flush=True)


def light(brim):
    for path in sorted(glob.glob(f"{DATA}/light/*.onnx")):
        try:
            s = session(path)
            with tempfile.TemporaryDirectory() as d:
                args, feed = [], {}
                for i, x in enumerate(s.get_inputs()):
                    feed[x.name] = np.random.default_rng(i).random([n if isinstance(n, int) else 1 for n in x.shape], np.float32)
                    np.save(f"{d}/{i}.npy", feed[x.name])
                    args += ["--input", f"{x.name}={d}/{i}.npy"]
                want = s.run(None, feed)
                run = subprocess.run([brim, "run", path, *args, "--output", d + "/o", "--json"], capture_output=True, text=True)
                if run.returncode:
                    print(f"  {os.path.basename(path)}: failed: {run.stderr.strip()}")
                    continue
                worst = 0.0
                for o, w in zip(json.loads(run.stdout)["outputs"], want):
                    got = np.load(f"{d}/o/{o['name'].replace('/', '_')}.npy")
                    worst = max(worst, float(np.abs(got - w).max() / max(np.abs(w).max(), 1e-30)))
                print(f"  {os.path.basename(path)}: {'agrees' if worst < 1e-3 else 'DIFFERS'}: max |a - b| / max |b| = {worst:.2e}")
        except Exception as e:
            print(f"  {os.path.basename(path)}: ONNX Runtime: {str(e)[:120]}")


if __name__ == "__main__":
    for name in sys.argv[2:] or ["simple", "pytorch-operator", "pytorch-converted", "light", "node"]:
        light(sys.argv[1]) if name == "light" else suite(sys.argv[1], name)
