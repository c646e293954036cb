#!/usr/bin/env python3
"""`brim bench models` with brim alone: its figures are there, and what is asked wrongly is refused. TAP.

Arguments: the program, a model, the interpreter, and why it cannot be tested ("" if it can). SPDX-License-Identifier: Apache-2.0"""
import json
import subprocess
import sys

brim, model, python, missing = sys.argv[1:5]
if missing:
    print(f"1..0 # SKIP {missing}")
    sys.exit(0)


def bench(*args):
    return subprocess.run([brim, "bench", "models", "--python", python, *args], capture_output=True, text=True, timeout=1200)


tests = []


def check(name, fine, said):
    tests.append(fine)
    print(f"{'ok' if fine else 'not ok'} {len(tests)} - {name}")
    if not fine:
        print("# " + str(said).replace("\n", "\n# "))


r = bench("--peers", "brim,brim-auto,ncnn", "--rounds", "2", "--seconds", "0.1", "--cold", "1", "--json", model)
found = json.loads(r.stdout) if r.returncode == 0 else {}
m = found.get("models", [{}])[0]
ours = m.get("engines", {}).get("brim", {})
check("one object on stdout", r.returncode == 0 and bool(m), r.stderr)
m.setdefault("engines", {}).setdefault("brim-auto", {})
check("times, start and memory", all(ours.get(k, 0) > 0 for k in ("median_ms", "first_output_ms", "grown_bytes", "total_bytes")), ours)
check("brim agrees with itself", ours.get("note") is None and m["engines"]["brim-auto"].get("note") is None, m)
check("what does not run says so", "ncnn" not in m.get("engines", {}) or bool(m["engines"]["ncnn"].get("note")), m)
check("the roofline", m.get("roofline", {}).get("gflops", 0) > 0 and found["rates"]["matmul_gflops"] > 0, m)
check("the tables are on stderr", "== median ms" in r.stderr, r.stderr)
for args, word in (((model, "--peers", "nobody"), "nobody"), (("/nonexistent.onnx",), "nonexistent"), (("--threads", "0", model), "--threads")):
    r = bench(*args)
    check(f"refused: {args[-1]}", r.returncode == 2 and word in r.stderr and not r.stdout, r)
r = subprocess.run([brim, "bench", "models", "--python", "/nonexistent/python", model], capture_output=True, text=True)
check("no interpreter", r.returncode == 2 and "BRIM_PEERS" in r.stderr, r)
print(f"1..{len(tests)}")
sys.exit(not all(tests))
