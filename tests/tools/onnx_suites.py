"""Runs `brim verify` and ONNX Runtime on the suites of the onnx package and prints their figures side by side.

    python tests/tools/onnx_suites.py BRIM [SUITE...]      # node simple pytorch-operator pytorch-converted light

Needs onnx (the last release that carries backend/test/data; 1.17 when this was written), onnxruntime, numpy; no part of ./run test.
The tolerance is that of ONNX's own runner: 1e-7 + 1e-3 |expected|. The light models come without inputs: theirs are drawn from a fixed seed, the
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


def suite(brim, name):
    cases = sorted(glob.glob(f"{DATA}/{name}/test_*"))
    ours = brim_cases(brim, cases)
    count, theirs = collections.Counter(), collections.Counter()
    for c in cases:
        j = ours.get(c, {"verdict": "crashed", "why": ""})
        t = ort_case(c)
        count[j["verdict"]] += 1
        theirs[t] += 1
        if j["verdict"] in ("failed", "crashed"):
            print(f"  {os.path.basename(c)}: {j['verdict']}: {j['why']}  (ONNX Runtime: {t})")
    row = lambda c: f"{c['passed']} passed, {c['failed'] + c['crashed']} failed, {c['unsupported']} unsupported"
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
