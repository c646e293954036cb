#!/usr/bin/env python3
"""`brim bench models`: brim's Python package against other engines' on the same files, threads and inputs.

Each engine lives in a process of its own, so that no library disturbs another. Latency: one long-lived worker per engine; in every round each
of them runs the model for a moment (one run to warm up, then timed runs), and the order rotates, so that whatever else the
machine does hits all of them alike. Start and memory: a fresh process each, measured from the moment when Python and NumPy are there and the
input is made, in resident bytes as the kernel counts them.

Outputs are compared with ONNX Runtime's (or the first engine's): max|a-b| / max|b| <= 1e-3 per output for the f32 engines, ||a-b|| / ||b|| <= 0.03 for those
that choose their own precision. An engine whose outputs differ, or that does not run a model, says so and is left out of the means.

SPDX-License-Identifier: Apache-2.0"""
import argparse
import importlib.metadata
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ENGINES = {  # name: (package on PyPI, own precision)
    "brim": ("brim", False), "brim-auto": ("brim", True), "onnxruntime": ("onnxruntime", False), "openvino": ("openvino", False),
    "openvino-auto": ("openvino", True), "ncnn": ("ncnn", False)}
CLOSE, NEAR = 1e-3, 0.03


# ---- engines: load(path, shapes, threads) -> (run(inputs) -> list of arrays)

def brim_package():
    try:
        import brim
    except ImportError:  # not installed: as built in the project's folder, beside its tests
        folder = os.environ.get("BRIM_BENCH_PACKAGE")
        if not folder:
            raise
        sys.path.insert(0, folder)
        import brim
    return brim


def load_brim(path, threads, precision="f32"):
    brim = brim_package()
    start = time.perf_counter()
    model = brim.Model(path, threads=threads, precision=precision, budget=brim.Budget(threads=threads))
    opened = time.perf_counter()
    shapes = [tuple(d if isinstance(d, int) else 1 for d in io.shape) for io in model.inputs]
    plan = model.plan(*shapes)
    split = {"read": opened - start, "plan": time.perf_counter() - opened}

    def explain():
        return dict(plan.memory, steps=plan.explain(as_dict=True)["steps"])

    return lambda inputs: model.run(*inputs), split, explain


def load_onnxruntime(path, threads):
    import onnxruntime as ort
    ort.set_default_logger_severity(3)
    o = ort.SessionOptions()
    o.intra_op_num_threads, o.inter_op_num_threads = threads, 1
    s = ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])
    names = [i.name for i in s.get_inputs()]
    return lambda inputs: s.run(None, dict(zip(names, inputs))), {}, None


def load_openvino(path, threads, hint="f32"):
    import openvino as ov
    core = ov.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    if hint:
        options["INFERENCE_PRECISION_HINT"] = hint
    model = core.read_model(path)
    fixed = {i: [d.get_length() if d.is_static else 1 for d in i.partial_shape] for i in model.inputs}
    if any(i.partial_shape.is_dynamic for i in model.inputs):
        model.reshape(fixed)
    request = core.compile_model(model, "CPU", options).create_infer_request()

    def run(inputs):
        result = request.infer(list(inputs), share_inputs=True)
        return [result[k] for k in range(len(model.outputs))]

    return run, {}, None


def load_ncnn(path, threads):
    import ncnn
    folder = os.environ["BRIM_BENCH_NCNN"]
    net = ncnn.Net()
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    net.opt.num_threads = threads
    stem = str(pathlib.Path(folder) / "model")
    if net.load_param(stem + ".ncnn.param") or net.load_model(stem + ".ncnn.bin"):
        strange = {line.split()[0] for line in pathlib.Path(stem + ".ncnn.param").read_text().splitlines()[2:] if "." in line.split()[0]}
        raise RuntimeError(f"ncnn does not load what pnnx made of it ({', '.join(sorted(strange)) or 'no reason given'})")
    number = lambda name: int("".join(c for c in name if c.isdigit()) or 0)  # in0, in1 ...: in the order of the ONNX file
    ins, outs = sorted(net.input_names(), key=number), sorted(net.output_names(), key=number)

    def run(inputs):
        import numpy as np
        with net.create_extractor() as ex:
            for name, x in zip(ins, inputs):
                ex.input(name, ncnn.Mat(x[0] if x.ndim > 1 and x.shape[0] == 1 else x))
            found = []
            for name in outs:
                code, mat = ex.extract(name)
                if code:
                    raise RuntimeError(f"ncnn: extract gave {code}")
                found.append(np.array(mat))
        return found

    return run, {}, None


def load(engine, path, threads):
    if engine == "brim":
        return load_brim(path, threads)
    if engine == "brim-auto":
        return load_brim(path, threads, "auto")
    if engine == "onnxruntime":
        return load_onnxruntime(path, threads)
    if engine == "openvino":
        return load_openvino(path, threads)
    if engine == "openvino-auto":
        return load_openvino(path, threads, None)
    return load_ncnn(path, threads)


# ---- workers

def rss():
    fields = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {key: int(fields[name].split()[0]) * 1024 for key, name in (("now", "VmRSS"), ("anon", "RssAnon"), ("peak", "VmHWM"))}


def make_inputs(ios):
    import numpy as np
    rng = np.random.default_rng(7)
    return [rng.random(shape, dtype=np.float32) if dtype == "float32" else rng.integers(0, 2, shape).astype(dtype) for dtype, shape in ios]


def cold(engine, path, threads, ios):
    """One fresh process: how long to the first output, and what it takes."""
    inputs = make_inputs(ios)
    host = rss()
    t = [time.perf_counter()]
    if engine.startswith("brim"):
        brim_package()
    else:
        __import__(ENGINES[engine][0])
    t.append(time.perf_counter())
    imported = rss()
    run, split, _ = load(engine, path, threads)
    t.append(time.perf_counter())
    run(inputs)
    t.append(time.perf_counter())
    for _ in range(5):
        run(inputs)
    after = rss()
    return {"import_ms": (t[1] - t[0]) * 1e3, "load_ms": (t[2] - t[1]) * 1e3, "first_run_ms": (t[3] - t[2]) * 1e3,
            "split_ms": {k: v * 1e3 for k, v in split.items()}, "host_bytes": host["now"], "grown_bytes": after["now"] - host["now"],
            "grown_anon_bytes": after["anon"] - host["anon"], "model_bytes": after["now"] - imported["now"],
            "total_bytes": after["now"], "peak_grown_bytes": after["peak"] - host["now"]}


def serve(engine, path, threads, ios, folder):
    """A worker: answers a line of JSON for each line."""
    import numpy as np
    inputs = make_inputs(ios)
    run, _, explain = load(engine, path, threads)
    outputs = [np.asarray(o) for o in run(inputs)]
    np.savez(pathlib.Path(folder) / f"{engine}.npz", *[o.astype(np.float32) if o.dtype.kind == "f" else o for o in outputs])
    say({"ready": True, "explain": explain() if explain else None})
    for line in sys.stdin:
        seconds = float(line)
        run(inputs)
        times, end = [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            begin = time.perf_counter()
            run(inputs)
            times.append((time.perf_counter() - begin) * 1e3)
        say({"times": times})


def say(x):
    os.write(say.to, (json.dumps(x) + "\n").encode())


def worker_main(argv):
    say.to = os.dup(1)
    os.dup2(2, 1)  # what libraries print goes to stderr
    kind, engine, path, threads, ios, folder = argv
    ios = [(d, tuple(s)) for d, s in json.loads(ios)]
    try:
        say(cold(engine, path, int(threads), ios)) if kind == "cold" else serve(engine, path, int(threads), ios, folder)
    except Exception as e:
        say({"error": f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}"[:200]})


class Worker:
    def __init__(self, kind, engine, path, threads, ios, folder, verdicts=True):
        """verdicts: brim-auto keeps what it measured for the next process, as it does for a user; the folder is this call's own."""
        env = dict(os.environ, OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS="1", BRIM_CACHE=str(pathlib.Path(folder) / "verdicts") if verdicts else "")
        self.p = subprocess.Popen([sys.executable, __file__, "--worker", kind, engine, str(path), str(threads), json.dumps(ios), str(folder)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True)
        self.said = self.hear()

    def hear(self):
        line = self.p.stdout.readline()
        return json.loads(line) if line else {"error": f"the process ended with {self.p.wait()}"}

    def ask(self, seconds):
        self.p.stdin.write(f"{seconds}\n")
        self.p.stdin.flush()
        return self.hear()

    def close(self):
        self.p.stdin.close()
        self.p.wait()
        self.p.stdout.close()


# ---- what is asked of each model

def describe(path):
    """Types and shapes of the inputs, symbols being 1: from brim, in a process of its own."""
    code = ("import sys, json; sys.path.insert(0, %r); import models; b = models.brim_package(); m = b.Model(sys.argv[1]); "
            "print(json.dumps([(i.dtype, [d if isinstance(d, int) else 1 for d in i.shape]) for i in m.inputs]))" % str(pathlib.Path(__file__).parent))
    r = subprocess.run([sys.executable, "-B", "-c", code, str(path)], capture_output=True, text=True)
    if r.returncode:
        raise SystemExit(f"brim bench models: {path}: {r.stderr.strip().splitlines()[-1]}")
    return json.loads(r.stdout)


def convert_for_ncnn(pnnx, path, ios, folder):
    if not pnnx:
        return "not run: pnnx, which converts ONNX for ncnn, is not there (--pnnx)"
    copy = pathlib.Path(folder) / "model.onnx"  # pnnx makes names of its own from others
    shutil.copy(path, copy)
    shape = ",".join(f"[{','.join(map(str, s))}]{'f32' if d == 'float32' else d}" for d, s in ios)
    r = subprocess.run([pnnx, copy.name, f"inputshape={shape}", "fp16=0"], cwd=folder, capture_output=True, text=True, timeout=300)
    copy.unlink()
    return None if copy.with_suffix(".ncnn.param").exists() else f"not run: pnnx does not convert it (status {r.returncode})"


def differs(folder, engine, reference):
    """None, or how far from the reference's outputs; batch dimensions of 1 and order of axes are the engine's own affair only for ncnn."""
    import numpy as np
    if engine == reference:
        return None, 0.0
    a, b = (np.load(pathlib.Path(folder) / f"{e}.npz") for e in (engine, reference))
    a, b = [a[k] for k in a.files], [b[k] for k in b.files]
    own, worst = ENGINES[engine][1], 0.0
    if len(a) != len(b):
        return f"{len(a)} outputs, not {len(b)}", math.inf
    for k, (x, y) in enumerate(zip(a, b)):
        if engine == "ncnn" and x.size == y.size:
            x = x.reshape(y.shape)
        if x.shape != y.shape:
            return f"output {k} is {list(x.shape)}, not {list(y.shape)}", math.inf
        x, y = x.astype(np.float64), y.astype(np.float64)
        far = float(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1e-30)) if own else float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-30))
        worst = max(worst, far if not math.isnan(far) else math.inf)
    return (f"differs by {worst:.2g}" if worst > (NEAR if own else CLOSE) else None), worst


def measure_latency(a, engines, path, ios, folder, result):
    workers = {}
    for e in engines:
        w = Worker("serve", e, path, a.threads, ios, folder)
        if "error" in w.said:
            result[e] = {"note": w.said["error"]}
            w.close()
        else:
            workers[e], result[e] = w, {"times": []}
            if w.said.get("explain"):
                result[e]["explain"] = w.said["explain"]
    reference = "onnxruntime" if "onnxruntime" in workers else next(iter(workers), None)
    for e in workers:
        result[e]["note"], result[e]["difference"] = differs(folder, e, reference)
    order, begin, rounds = list(workers), time.monotonic(), 0
    while order and (rounds < a.rounds and (rounds < 5 or time.monotonic() - begin < a.seconds)):
        for e in order[rounds % len(order):] + order[:rounds % len(order)]:
            if e in workers:
                said = workers[e].ask(0.05)
                if "error" in said:
                    result[e]["note"] = said["error"]
                    workers.pop(e).close()
                else:
                    result[e]["times"].append(said["times"])
        rounds += 1
    for w in workers.values():
        w.close()


def measure_cold(a, engines, path, ios, folder, result):
    for k in range(a.cold):
        for e in engines[k % len(engines):] + engines[:k % len(engines)]:
            if "times" not in result[e]:
                continue
            w = Worker("cold", e, path, a.threads, ios, folder)
            w.close()
            if "error" not in w.said:
                result[e].setdefault("cold", []).append(w.said)
    if "cold" in result.get("brim-auto", {}):  # the very first opening, which measures
        w = Worker("cold", "brim-auto", path, a.threads, ios, folder, verdicts=False)
        w.close()
        if "error" not in w.said:
            result["brim-auto"]["measured_first_output_ms"] = w.said["load_ms"] + w.said["first_run_ms"]


def summary(r):
    """Medians of one engine on one model."""
    out = {"note": r.get("note"), "difference": r.get("difference")}
    if r.get("times"):
        every = sorted(t for turn in r["times"] for t in turn)
        out.update(median_ms=statistics.median(every), min_ms=every[0], p95_ms=every[min(len(every) - 1, len(every) * 95 // 100)], runs=len(every),
                   turn_medians_ms=[round(statistics.median(t), 4) for t in r["times"]])
    if r.get("cold"):
        for key in r["cold"][0]:
            if key != "split_ms":
                out[key] = statistics.median(c[key] for c in r["cold"])
        out["first_output_ms"] = statistics.median(c["load_ms"] + c["first_run_ms"] for c in r["cold"])
        if "measured_first_output_ms" in r:
            out["measured_first_output_ms"] = r["measured_first_output_ms"]
        out["split_ms"] = {k: statistics.median(c["split_ms"][k] for c in r["cold"]) for k in r["cold"][0]["split_ms"]}
    return out


def roofline(explain, ms, rates):
    """The time that the measured rates allow, operator by operator: the slower of its arithmetic, and of its weights and output read or
    written once and its input (taken as large as its output) read once."""
    bound, flops = 0.0, explain["flops"]
    for s in explain["steps"]:
        moved = s["weight_bytes"] + 8.0 * math.prod(s["shape"])
        bound += max(s["flops"] / (rates["matmul_gflops"] * 1e9), moved / (rates["copy_gbytes"] * 1e9))
    return {"gflop": flops / 1e9, "gflops": flops / ms / 1e6, "of_matmul": flops / ms / 1e6 / rates["matmul_gflops"], "bound_ms": bound * 1e3,
            "of_bound": bound * 1e3 / ms}


def measure_rates(threads):
    """What this machine does at best: f32 matmul (NumPy's BLAS), and copying (bytes read plus bytes written), in a fresh process."""
    code = """
import numpy as np, time, threading, json, sys
n = int(sys.argv[1])
a, b = np.random.rand(1536, 1536).astype('f'), np.random.rand(1536, 1536).astype('f')
best, end = 1e9, time.perf_counter() + 1
while best == 1e9 or time.perf_counter() < end:
    t = time.perf_counter(); a @ b; best = min(best, time.perf_counter() - t)
x = [np.ones(4 << 20, 'f') for _ in range(n)]; y = [np.empty(4 << 20, 'f') for _ in range(n)]
def once():
    ts = [threading.Thread(target=lambda k=k: [np.copyto(y[k], x[k]) for _ in range(10)]) for k in range(n)]
    t = time.perf_counter(); [q.start() for q in ts]; [q.join() for q in ts]
    return time.perf_counter() - t
copy = min(once() for _ in range(8))
print(json.dumps({'matmul_gflops': 2 * 1536**3 / best / 1e9, 'copy_gbytes': n * 10 * 2 * (16 << 20) / copy / 1e9}))
"""
    r = subprocess.run([sys.executable, "-c", code, str(threads)], capture_output=True, text=True, check=True,
                       env=dict(os.environ, OPENBLAS_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads)))
    return json.loads(r.stdout)


# ---- the whole

def geomean(values):
    values = [v for v in values if v and v > 0 and math.isfinite(v)]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def fair(x, key):
    return x.get(key) if x and not x.get("note") else None


def means(models, engines):
    """Geometric means of other / brim (time: how many times faster brim is) and of brim / other for bytes."""
    table = {}
    for ours in ("brim", "brim-auto"):
        for other in engines:
            if other.startswith("brim") or ours not in engines:
                continue
            row = {}
            for key, up in (("median_ms", 1), ("min_ms", 1), ("first_output_ms", -1), ("grown_bytes", -1), ("model_bytes", -1), ("total_bytes", -1),
                            ("peak_grown_bytes", -1)):
                ratios = [(fair(m["engines"].get(other), key) / fair(m["engines"].get(ours), key)) ** up for m in models
                          if fair(m["engines"].get(other), key) and fair(m["engines"].get(ours), key)]
                row[key] = geomean(ratios)
                if key == "median_ms" and ratios:
                    row["models"], row["worst"], row["best"] = len(ratios), min(ratios), max(ratios)
                    heavy = [fair(m["engines"].get(other), key) / fair(m["engines"].get(ours), key) for m in models if m["gflop"] > 0.3
                             and fair(m["engines"].get(other), key) and fair(m["engines"].get(ours), key)]
                    row["median_ms_above_0.3_gflop"] = geomean(heavy)
            table[f"{ours} / {other}"] = row
    return table


def versions(engines):
    found = {}
    for e in engines:
        package = ENGINES[e][0]
        try:
            found[package] = brim_package().version() if package == "brim" else importlib.metadata.version(package)
        except (ImportError, importlib.metadata.PackageNotFoundError):
            found[package] = None
    return found


def number(x, digits=2):
    return "-" if x is None else f"{x:.{digits}f}"


def print_tables(report, to):
    engines, w = report["engines"], max([len(m["model"]) for m in report["models"]] + [5])
    p = lambda *x: print(*x, file=to)
    p(f"{report['threads']} thread(s); " + ", ".join(f"{k} {v}" for k, v in report["versions"].items()) +
      f"; {report['machine']}; f32 matmul {report['rates']['matmul_gflops']:.0f} GFLOP/s, copy {report['rates']['copy_gbytes']:.1f} GB/s; load average {report['load_average']}")
    for title, key, scale, digits in (("median ms", "median_ms", 1, 2), ("load to first output, ms", "first_output_ms", 1, 0),
                                      ("resident bytes over the idle host, MiB", "grown_bytes", 2**20, 1),
                                      ("the same over the host with the engine imported, MiB", "model_bytes", 2**20, 1),
                                      ("total resident, MiB", "total_bytes", 2**20, 1), ("peak over the idle host, MiB", "peak_grown_bytes", 2**20, 1)):
        p(f"\n== {title}\n{'model':{w}} " + " ".join(f"{e:>13}" for e in engines))
        for m in report["models"]:
            cells = [m["engines"].get(e) or {} for e in engines]
            p(f"{m['model']:{w}} " + " ".join(f"{(number(c[key] / scale, digits) if c.get(key) else '-') + ('*' if c.get('note') else ''):>13}" for c in cells))
    p(f"\n== brim on the roofline\n{'model':{w}}    GFLOP  GFLOP/s  of matmul  bound ms  of bound")
    for m in report["models"]:
        r = m.get("roofline")
        if r:
            p(f"{m['model']:{w}} {r['gflop']:8.3f} {r['gflops']:8.1f} {r['of_matmul'] * 100:8.0f} % {r['bound_ms']:9.2f} {r['of_bound'] * 100:7.0f} %")
    notes = [(m["model"], e, c["note"]) for m in report["models"] for e, c in m["engines"].items() if c.get("note")]
    if notes:
        p("\n== * left out of the means")
        for n in notes:
            p("  %s, %s: %s" % n)
    p("\n== geometric means: times faster than the other, by medians and by the fastest runs; the other columns are brim's share of the other's (below 1: less)")
    p(f"{'':24} {'models':>6} {'faster':>7} {'by min':>7} {'worst':>6} {'best':>6} {'>0.3 GFLOP':>10} {'first output':>12} {'grown':>6} {'model':>6} {'total':>6} {'peak':>6}")
    for name, r in report["means"].items():
        if r.get("models"):
            p(f"{name:24} {r['models']:6} {number(r['median_ms']):>7} {number(r['min_ms']):>7} {number(r['worst']):>6} {number(r['best']):>6} {number(r['median_ms_above_0.3_gflop']):>10} "
              f"{number(r['first_output_ms']):>12} {number(r['grown_bytes']):>6} {number(r['model_bytes']):>6} {number(r['total_bytes']):>6} {number(r['peak_grown_bytes']):>6}")


def machine():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    return f"{name}, {os.cpu_count()} processors"


def parse(argv):
    ap = argparse.ArgumentParser(prog="brim bench models", description="brim, ONNX Runtime, OpenVINO and ncnn on the same models, interleaved",
                                 epilog="brim adds --python FILE: the interpreter that has the peers (default: $BRIM_PEERS, else python3).")
    ap.add_argument("models", nargs="*", metavar="MODEL", help="ONNX files (default: all under $BRIM_DATA/models)")
    ap.add_argument("--threads", type=int, default=1, help="of every engine (default 1)")
    ap.add_argument("--peers", default=",".join(ENGINES), help="which engines, with commas (default: %(default)s)")
    ap.add_argument("--rounds", type=int, default=15, help="at most (default 15)")
    ap.add_argument("--seconds", type=float, default=6, help="for a model's rounds; 5 rounds are made anyway (default 6)")
    ap.add_argument("--cold", type=int, default=1, help="fresh processes per engine and model, for start and memory (default 1; 0: none)")
    ap.add_argument("--pnnx", default="pnnx", help="the program that converts ONNX for ncnn (the binary inside PyPI's pnnx package; default: from PATH)")
    ap.add_argument("--json", action="store_true", help="one JSON object on stdout; the tables go to stderr")
    a = ap.parse_args(argv)
    a.engines = [e for e in a.peers.split(",") if e]
    unknown = [e for e in a.engines if e not in ENGINES]
    if unknown or a.threads < 1 or a.rounds < 1 or a.cold < 0:
        ap.error(f"no engine {unknown[0]!r}; there are {', '.join(ENGINES)}" if unknown else "--threads, --rounds from 1, --cold from 0")
    data = os.environ.get("BRIM_DATA")
    a.models = [pathlib.Path(m) for m in a.models] or (sorted(pathlib.Path(data, "models").rglob("*.onnx")) if data else [])
    missing = [str(m) for m in a.models if not m.is_file()]
    if missing or not a.models:
        ap.error(f"{missing[0]}: no such file" if missing else "no models: name some, or set $BRIM_DATA")
    return a


def main(argv):
    a = parse(argv)
    report = {"threads": a.threads, "machine": machine(), "load_average": [round(x, 2) for x in os.getloadavg()], "versions": versions(a.engines),
              "engines": a.engines, "tolerance": {"f32": CLOSE, "own precision": NEAR}, "models": []}
    absent = [e for e in a.engines if not report["versions"][ENGINES[e][0]]]
    if "brim" in absent or "brim-auto" in absent:
        raise SystemExit("brim bench models: the interpreter has no package brim: `PYTHON -m pip install .`, or ./run build in the project's folder")
    report["rates"] = measure_rates(a.threads)
    pnnx = shutil.which(a.pnnx)
    for path in a.models:
        with tempfile.TemporaryDirectory(prefix="brim-bench-") as folder:
            result, ios = {e: {"note": "not run: not installed"} for e in absent}, describe(path)
            engines = [e for e in a.engines if e not in absent]
            os.environ["BRIM_BENCH_NCNN"] = folder
            if "ncnn" in engines and (note := convert_for_ncnn(pnnx, path, ios, folder)):
                engines.remove("ncnn")
                result["ncnn"] = {"note": note}
            measure_latency(a, engines, path, ios, folder, result)
            measure_cold(a, engines, path, ios, folder, result)
        m = {"model": path.name, "inputs": ios, "engines": {e: summary(result[e]) for e in a.engines if e in result}}
        explain = next((result[e]["explain"] for e in a.engines if result.get(e, {}).get("explain")), None)
        m["gflop"] = explain["flops"] / 1e9 if explain else 0
        ours = m["engines"].get("brim")
        if explain and ours and ours.get("median_ms"):
            m["roofline"] = roofline(explain, ours["median_ms"], report["rates"])
            m["memory"] = {k: v for k, v in explain.items() if k != "steps"}
        report["models"].append(m)
        if sys.stderr.isatty() or os.environ.get("BRIM_BENCH_PROGRESS"):
            print(f"{path.name}: " + ", ".join(f"{e} {number(c.get('median_ms'))}" for e, c in m["engines"].items()), file=sys.stderr, flush=True)
    report["means"] = means(report["models"], a.engines)
    report["load_average_end"] = [round(x, 2) for x in os.getloadavg()]
    print_tables(report, sys.stderr if a.json else sys.stdout)
    if a.json:
        json.dump(report, sys.stdout)
        print()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker_main(sys.argv[2:])
    else:
        main(sys.argv[1:])
