#!/usr/bin/env python3
"""`brim bench residency` and `brim bench plan`: a whole site in less memory than its weights need.

residency: the site at floor + 50, 25 and 15 % of its packed weights, block residency and whole-model residency in turn (blocks, model, model,
blocks ...), so that what else the machine does meets both; one table. The floor (all that is not weights) is what a first run says.

plan: what `brim plan` predicts at several budgets beside what a running box measures: bytes beside weights, and for each query the median time of
its runs (the box's contains converting the picture and reading the heads, which the prediction does not).

Standard library only. usage: site.py residency|plan [options]          SPDX-License-Identifier: Apache-2.0"""
import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
BESIDE = ("arena", "scratch", "code", "frames", "decoders", "heads", "other")


class Site:
    def __init__(self, args):
        self.brim, self.seconds, self.path = args.brim, args.seconds, pathlib.Path(args.site).resolve()
        self.store = tempfile.mkdtemp(prefix="brim-site-")
        self.copies = []

    def close(self):
        shutil.rmtree(self.store, ignore_errors=True)
        for c in self.copies:
            c.unlink(missing_ok=True)

    def with_residency(self, kind):
        """A copy beside the site file, whose paths start there."""
        text = re.sub(r"(?m)^residency:.*\n", "", self.path.read_text())
        copy = self.path.with_name(f"brim-bench-{os.getpid()}-{kind}.yaml")
        try:
            copy.write_text(text.rstrip("\n") + f"\nresidency: {kind}\n")
        except OSError as e:
            sys.exit(f"brim bench: {copy}: {e.strerror}; copy the site into a folder that can be written to")
        self.copies.append(copy)
        return copy

    def start(self, path, seconds, budget):
        return subprocess.Popen([self.brim, "serve", str(path), "--store", self.store, "--seconds", str(seconds), "--no-http", "--json", "--budget", str(budget)],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def end(self, p):
        out, err = p.communicate()
        try:
            return json.loads(out)
        except ValueError:
            sys.exit(f"brim bench: brim serve ended with status {p.returncode}: {err.decode(errors='replace').strip()[-300:]}")

    def serve(self, path, seconds, budget):
        return self.end(self.start(path, seconds, budget))

    def floor(self):
        f = self.serve(self.path, 8, 1 << 40)["floor"]
        return sum(f[k] for k in BESIDE), f["all_models"]


def totals(r):
    q = r["queries"]
    dropped = lambda why: sum(x["dropped"].get(why, 0) for x in q)
    offered, run, late = (sum(x[k] for x in q) for k in ("offered", "run", "late"))
    return {"offered": offered, "run": run, "late": late, "in_time": run - late, "newer": dropped("a newer frame came"),
            "would_be_late": dropped("it would have been late"), "no_memory": dropped("its model did not fit into the budget"),
            "p50_ms": statistics.median(x["p50_ms"] for x in q) if q else 0, "p95_ms": max((x["p95_ms"] for x in q), default=0),
            "peak_bytes": r["memory"]["peak_bytes"]}


def residency(site, args):
    floor, weights = site.floor()
    kinds = {k: site.with_residency(k) for k in ("blocks", "model")}
    rows = []
    print(f"{site.path.name}: floor {floor / MIB:.1f} MiB, packed weights {weights / MIB:.1f} MiB; {args.seconds:g} s a run, {args.rounds} rounds in turn")
    print(f"{'weights':>7} {'budget':>10} {'residency':>9} {'round':>5} {'asked':>7} {'in time':>8} {'%':>6} {'late':>6} {'dropped':>8} {'newer':>7} {'no mem':>7} "
          f"{'p50 ms':>7} {'p95 ms':>7} {'peak':>10}")
    for percent in args.percents:
        budget = floor + weights * percent // 100
        for n in range(args.rounds):
            for kind, path in list(kinds.items())[::-1 if n % 2 else 1]:
                t = totals(site.serve(path, args.seconds, budget))
                rows.append({"percent": percent, "budget": budget, "residency": kind, "round": n, **t})
                print(f"{percent:6} % {budget / MIB:6.1f} MiB {kind:>9} {n:5} {t['offered']:7} {t['in_time']:8} {100 * t['in_time'] / max(t['offered'], 1):6.1f} "
                      f"{t['late']:6} {t['would_be_late']:8} {t['newer']:7} {t['no_memory']:7} {t['p50_ms']:7.1f} {t['p95_ms']:7.1f} {t['peak_bytes'] / MIB:6.1f} MiB", flush=True)
        share = {k: statistics.median(r["in_time"] / max(r["offered"], 1) for r in rows if r["percent"] == percent and r["residency"] == k) for k in kinds}
        print(f"{percent:6} % frames in time, median: blocks {100 * share['blocks']:.1f} %, model {100 * share['model']:.1f} %"
              + (f", ratio {share['blocks'] / share['model']:.2f}" if share["model"] else "") + "\n", flush=True)
    return {"floor_bytes": floor, "weight_bytes": weights, "rows": rows}


# ---- plan

def run_times(site, cameras):
    """Milliseconds of the last runs of each stream, by its name: QUERY@CAMERA, or QUERY@CAMERA>MODEL in a cascade."""
    times = {}
    for camera in cameras:
        out = subprocess.run([site.brim, "why", camera, "--store", site.store, "--json"], capture_output=True).stdout
        for d in json.loads(out)["decisions"] if out else []:
            if d["outcome"] == "ran":
                times.setdefault(d["query"], []).append(d["run_ms"])
    return times


def planned(site, budget):
    out = subprocess.run([site.brim, "plan", str(site.path), "--budget", str(budget), "--json"], capture_output=True)
    try:
        return json.loads(out.stdout)
    except ValueError:
        sys.exit(f"brim bench plan: {out.stderr.decode(errors='replace').strip()[-300:]}")


def one_budget(site, args, percent, budget):
    before = planned(site, budget)
    box = site.start(site.path, args.seconds, budget)
    times, cameras = {}, sorted({q["camera"] for q in before["queries"]})
    end = time.monotonic() + args.seconds - 1
    while time.monotonic() < end and box.poll() is None:
        time.sleep(min(2, max(0.1, end - time.monotonic())))
        if time.monotonic() > end - args.seconds / 2:  # the first half settles
            for name, ms in run_times(site, cameras).items():
                times[name] = ms if len(ms) >= len(times.get(name, [])) else times[name]
    r = site.end(box)
    beside = sum(r["floor"][k] for k in BESIDE)
    print(f"\nweights {percent} %: budget {budget / MIB:.1f} MiB; beside weights: predicted {before['beside_weights_bytes'] / MIB:.1f} MiB, measured {beside / MIB:.1f} MiB "
          f"({before['beside_weights_bytes'] / beside:.3f}); budget peak {r['memory']['peak_bytes'] / MIB:.1f} MiB")
    print(f"{'query':32} {'model':14} {'in memory':>9} {'predicted':>9} {'measured':>9} {'pred/meas':>9} {'runs':>5}")
    rows = []
    for q in before["queries"]:
        if not q["model"] or q["latency_ms"] is None:
            continue
        stream = f"{q['query']}@{q['camera']}"
        ms = times.get(f"{stream}>{q['model']}") or times.get(stream)
        row = {"stream": stream, "model": q["model"], "compute_ms": q["compute_ms"], "predicted_ms": q["latency_ms"],
               "measured_ms": statistics.median(ms) if ms else None, "runs": len(ms or [])}
        rows.append(row)
        print(f"{stream:32.32} {q['model']:14.14} {q['compute_ms']:9.1f} {q['latency_ms']:9.1f} "
              + (f"{row['measured_ms']:9.1f} {q['latency_ms'] / row['measured_ms']:9.3f} {len(ms):5}" if ms else "  did not run"), flush=True)
    return {"percent": percent, "budget": budget, "beside_predicted": before["beside_weights_bytes"], "beside_measured": beside,
            "least_bytes": before["least_bytes"], "rows": rows}


def plan(site, args):
    floor, weights = site.floor()
    print(f"{site.path.name}: measured floor {floor / MIB:.1f} MiB, packed weights {weights / MIB:.1f} MiB")
    all_rows = [one_budget(site, args, p, floor + weights * p // 100) for p in args.percents]
    ratios = [r["predicted_ms"] / r["measured_ms"] for b in all_rows for r in b["rows"] if r["measured_ms"]]
    if ratios:
        print(f"\npredicted over measured: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}; within 15 %: "
              f"{sum(0.85 <= x <= 1.15 for x in ratios)} of {len(ratios)}")
    return {"floor_bytes": floor, "weight_bytes": weights, "budgets": all_rows}


def main():
    p = argparse.ArgumentParser(prog="brim bench", description="a site in less memory than its weights need")
    p.add_argument("what", choices=["residency", "plan"])
    p.add_argument("--brim", default=os.environ.get("BRIM_SELF", "brim"), help="the program to measure")
    p.add_argument("--site", default="examples/real.yaml", help="site file (default examples/real.yaml, needs BRIM_DATA)")
    p.add_argument("--seconds", type=float, default=30, help="of each run (default 30)")
    p.add_argument("--rounds", type=int, default=2, help="residency: runs of each kind at each budget (default 2)")
    p.add_argument("--percents", type=lambda s: [int(x) for x in s.split(",")], help="of the packed weights (default 50,25,15; plan: 100,50,25)")
    p.add_argument("--json", help="also write the figures to this file")
    args = p.parse_args()
    args.percents = args.percents or ([50, 25, 15] if args.what == "residency" else [100, 50, 25])
    site = Site(args)
    try:
        r = {"residency": residency, "plan": plan}[args.what](site, args)
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps(r, indent=1) + "\n")
    finally:
        site.close()


if __name__ == "__main__":
    main()
