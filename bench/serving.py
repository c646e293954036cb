#!/usr/bin/env python3
"""`brim bench serving`: frames in time when models do not all fit, with and without merging (GEMEL, NSDI 2023, section 6.3).

Fifteen workloads of three to eight queries, in three classes by what sharing every common layer would save (low: under 30 % of the bytes, middle: 30 to 60, high:
over 60). Models are networks of `brim new`, each with classes and a seed of its own, so nothing is equal by accident; merged ones have equal weights in all common
layers, as a merge leaves them that kept everything (what they answer does not matter to a schedule). Each query is one model and one camera; frames come at
equal rates, so often that all models together would take --load of the one processor core that runs them.

Memory, as in the paper: min is the largest model's weights, then 50 and 75 % of the way to all originals; arena, scratch and code are beside it, frames cost nothing.
Systems: time sharing (whole originals come and go), merged (the same with merged models), blind (merged, by a scheduler that does not know what models share), blocks (merged, and
what is not kept streams), and no limit. Weights are on a disk of --pace bytes a second (brim's reader plays it). A frame is in time if its result is there within --deadline.

Each row is run live (scheduler, kernels and reader for real) and rehearsed (sched/rehearse.h: the same scheduler in a time of its own, with run times that were measured
before). Where there is too much work, a few seconds are a matter of luck: rows are rehearsed six times with other frame times (mean, and the spread of one), and runs
are longer where that spread is large. `off` is the difference in points. Standard library only. SPDX-License-Identifier: Apache-2.0"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

# name: (networks of brim new and their sides in pixels). A number before a name: so many of them.
WORKLOADS = {
    "low-1": "resnet50@96 mobilenetv2@96 densenet121@96",
    "low-2": "resnet18@96 googlenet@96 squeezenet@96 yolov3-tiny@128",
    "low-3": "resnet34@96 inceptionv3@128 mobilenetv3-large@96 shufflenetv2@96 ssdlite-mobilenetv3@320",
    "low-4": "resnet50@96 yolox-s@128 densenet121@96 googlenet@96",
    "low-5": "resnet101@96 yolov3-tiny@128 mobilenetv2@96 squeezenet@96 resnet18@96",
    "middle-1": "resnet18@96 resnet34@96 resnet50@96 mobilenetv2@96",
    "middle-2": "2 resnet50@96 densenet121@96",
    "middle-3": "2 resnet18@96 2 yolov3-tiny@128 googlenet@96",
    "middle-4": "resnet18@96 resnet50@96 resnet101@96",
    "middle-5": "2 resnet34@96 2 mobilenetv2@96 inceptionv3@128",
    "high-1": "4 resnet50@96",
    "high-2": "6 resnet18@96",
    "high-3": "4 densenet121@96 2 mobilenetv2@96",
    "high-4": "3 resnet50@96 2 resnet101@96",
    "high-5": "3 yolov3-tiny@128 3 resnet18@96 2 mobilenetv2@96",
}
QUICK = ["low-2", "middle-1", "high-1"]
CLASSES = {"low": (0, 0.3), "middle": (0.3, 0.6), "high": (0.6, 1)}
SETTINGS = {"min": 0.0, "50 %": 0.5, "75 %": 0.75}
SYSTEMS = {"time sharing": {"merged": False}, "merged": {"merged": True}, "blind": {"merged": True, "blind": True}, "blocks": {"merged": True, "blocks": True}}


def queries(text):
    """[{name, arch, size, classes, rate}]"""
    words, result, times = text.split(), [], 1
    for word in words:
        if word.isdigit():
            times = int(word)
            continue
        arch, size = word.split("@")
        for _ in range(times):
            result.append({"name": f"q{len(result)}-{arch}", "arch": arch, "size": int(size), "classes": 2 + len(result), "rate": 1.0})
        times = 1
    return result


def runs():
    """The no-limit run first, then each system at each setting."""
    rows = [("no limit", "-", {"merged": False, "setting": -1.0})]
    rows += [(system, setting, {**how, "setting": share}) for setting, share in SETTINGS.items() for system, how in SYSTEMS.items()]
    return [(system, setting, {"blind": False, "blocks": False, **how}) for system, setting, how in rows]


def shares(counts):
    """(least, mean) over streams, in percent; of several rehearsals: each stream's mean."""
    several = counts if isinstance(counts, list) else [counts]
    per = [statistics.mean(100 * s["in_time"] / max(s["offered"], 1) for s in streams) for streams in zip(*(c["streams"] for c in several))]
    return min(per), statistics.mean(per)


def spread(rehearsed):
    """Of one rehearsal's mean, in points."""
    return statistics.pstdev(shares(c)[1] for c in rehearsed)


def rate(counts, key="read_bytes"):
    """Per second."""
    several = counts if isinstance(counts, list) else [counts]
    return statistics.mean(c[key] / c["seconds"] for c in several)


class Bench:
    def __init__(self, args):
        self.args = args
        self.rows, self.workloads = [], {}

    def workload(self, name):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="brim-serving-", dir=self.args.folder))
        a, todo = self.args, [run for run in runs() if run[0] in ("no limit", *self.args.systems.split(","))]
        spec = {"folder": str(folder), "pace": a.pace, "threads": a.threads, "load": a.load, "deadline_ms": a.deadline, "seconds": a.seconds, "most_seconds": a.most_seconds, "warm_up": a.warm_up,
                "no_live": a.rehearse, "queries": queries(WORKLOADS[name]), "runs": [how for _, _, how in todo]}
        (folder / "spec.json").write_text(json.dumps(spec))
        p = subprocess.run([a.brim, "bench", "serving", "--spec", str(folder / "spec.json")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        shutil.rmtree(folder, ignore_errors=True)
        if p.returncode:
            sys.exit(f"brim bench serving: {name}: {p.stderr.strip()[-400:]}")
        j = json.loads(p.stdout)
        bound = j["bound_bytes"] / j["layer_bytes"]
        low, high = CLASSES[name.split("-")[0]]
        if not low <= bound < high:
            sys.exit(f"brim bench serving: {name}: sharing could save {100 * bound:.1f} %, which is not its class")
        self.workloads[name] = j
        for (system, setting, _), r in zip(todo, j["runs"]):
            self.rows.append({**r, "workload": name, "class": name.split("-")[0], "system": system, "setting": setting})
        self.print_workload(name, j, bound)

    def print_workload(self, name, j, bound):
        mib = 1 << 20
        print(f"\n{name}: {len(j['queries'])} queries at {j['queries'][0]['fps']:.1f} frames a second: " +
              ", ".join(f"{q['arch']} {q['bytes'] / mib:.0f} MiB {q['run_ms']:.1f} ms" for q in j["queries"]))
        print(f"sharing saves at most {100 * bound:.1f} %; packed {j['all_bytes'] / mib:.0f} MiB, merged {j['merged_once_bytes'] / mib:.0f}; largest model {j['least_bytes'] / mib:.0f}")
        for r in (r for r in self.rows if r["workload"] == name):
            live, other = r.get("live"), r["rehearsed"]
            text = f"  {r['setting']:5s} {r['system']:13s}"
            if live:
                least, mean = shares(live)
                text += f" in time: least {least:5.1f} mean {mean:5.1f} %, read {rate(live) / 1e6:4.0f} MB/s, {rate(live, 'loads'):5.1f} loads/s, {live['seconds']:4.1f} s |"
            least, mean = shares(other)
            text += f" rehearsed: {least:5.1f} {mean:5.1f} +- {spread(other):3.1f} %, {rate(other) / 1e6:4.0f} MB/s"
            if live:
                text += f" | off {mean - shares(live)[1]:+.1f}"
            print(text, flush=True)

    def cells(self, kind):
        """{(class, setting, system): (least, mean, bytes a second)}, means over workloads."""
        result = {}
        for group in CLASSES:
            for setting in SETTINGS:
                for system in ["no limit", *SYSTEMS]:
                    mine = [r[kind] for r in self.rows if r["class"] == group and r["system"] == system and r["setting"] in (setting, "-")]
                    if mine:
                        least, mean = (statistics.mean(v) for v in zip(*(shares(m) for m in mine)))
                        result[group, setting, system] = least, mean, statistics.mean(rate(m) for m in mine)
        return result

    def table(self, kind):
        cells = self.cells(kind)
        print(f"\nFrames in time, {kind}: least and mean over streams, then means over workloads (MB/s read)\n\n| class | memory | " +
              " | ".join(["no limit", *SYSTEMS]) + " |\n|" + "---|" * (3 + len(SYSTEMS)))
        for group in CLASSES:
            for setting in SETTINGS:
                row = [cells.get((group, setting, system)) for system in ["no limit", *SYSTEMS]]
                if any(row):
                    print(f"| {group} | {setting} | " + " | ".join(f"{c[0]:.1f}, {c[1]:.1f} % ({c[2] / 1e6:.0f})" if c else "-" for c in row) + " |")

    def summary(self):
        kind = "rehearsed" if self.args.rehearse else "live"
        self.table(kind)
        skipped = [100 - shares(r[kind])[1] for r in self.rows if r["system"] == "time sharing"]
        if skipped:
            print(f"\ntime sharing alone skips {min(skipped):.0f} to {max(skipped):.0f} % of the frames")
        aware, blind = ([r for r in self.rows if r["system"] == s] for s in ("merged", "blind"))
        gain = [shares(a[kind])[1] - shares(b[kind])[1] for a, b in zip(aware, blind)]
        if gain:
            print(f"knowing what models share: {statistics.mean(gain):+.1f} points (from {min(gain):+.1f} to {max(gain):+.1f}), bytes read "
                  f"{sum(rate(r[kind]) for r in aware) / max(sum(rate(r[kind]) for r in blind), 1):.2f} times those of the blind scheduler")
        if not self.args.rehearse:
            self.agreement()

    def agreement(self):
        live, rehearsed = self.cells("live"), self.cells("rehearsed")
        off = [rehearsed[k][1] - live[k][1] for k in live if k[2] != "no limit" or k[1] == "min"]
        print(f"rehearsed against live, means over a class: {sum(abs(o) <= 3 for o in off)} of {len(off)} within 3 points, farthest {max(off, key=abs):+.1f}")
        off = sorted(((shares(r["rehearsed"])[1] - shares(r["live"])[1], r) for r in self.rows), key=lambda o: abs(o[0]))
        far = [o for o in off if abs(o[0]) > 3]
        print(f"single rows: {len(off) - len(far)} of {len(off)} within 3 points; mean {statistics.mean(o for o, _ in off):+.2f}, mean distance {statistics.mean(abs(o) for o, _ in off):.2f}")
        for o, r in reversed(far):
            print(f"  {o:+.1f} {r['workload']} {r['setting']} {r['system']}: rehearsals of that length ({r['live']['seconds']:.1f} s) differ among themselves by {spread(r['rehearsed']):.1f}")


def main():
    p = argparse.ArgumentParser(prog="brim bench serving", description=__doc__.split("\n")[0])
    p.add_argument("--brim", default=os.environ.get("BRIM_SELF", "brim"), help=argparse.SUPPRESS)
    p.add_argument("--workloads", default=",".join(WORKLOADS), help="of " + ", ".join(WORKLOADS))
    p.add_argument("--systems", default=",".join(SYSTEMS), help="beside no limit, of " + ", ".join(SYSTEMS))
    p.add_argument("--quick", action="store_true", help="only " + ", ".join(QUICK))
    p.add_argument("--rehearse", action="store_true", help="rehearsals only: no run takes real time")
    p.add_argument("--seconds", type=float, default=4, help="of each run (4)")
    p.add_argument("--most-seconds", type=float, default=10, help="of a live run of which rehearsals say that it varies (10)")
    p.add_argument("--warm-up", type=float, default=2, help="seconds of each run that do not count: all is read once (2)")
    p.add_argument("--load", type=float, default=0.6, help="of the core that runs models, if all fit (0.6)")
    p.add_argument("--deadline", type=float, default=300, help="ms (300)")
    p.add_argument("--pace", type=float, default=5e8, help="bytes a second of the disk (5e8)")
    p.add_argument("--threads", type=int, default=1, help="that run a model (1: the other core reads and makes frames)")
    p.add_argument("--folder", help="for models and packed weights: on a disk faster than the pace")
    p.add_argument("--json", help="all figures into this file")
    args = p.parse_args()
    wanted = QUICK if args.quick else args.workloads.split(",")
    for w in wanted:
        if w not in WORKLOADS:
            sys.exit(f"brim bench serving: --workloads: '{w}' is none of {', '.join(WORKLOADS)}")
    for w in args.systems.split(","):
        if w not in SYSTEMS:
            sys.exit(f"brim bench serving: --systems: '{w}' is none of {', '.join(SYSTEMS)}")
    b, begin = Bench(args), time.time()
    for w in wanted:
        b.workload(w)
    b.summary()
    print(f"\n{(time.time() - begin) / 60:.1f} minutes in all")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps({"rows": b.rows, "workloads": b.workloads}, indent=1) + "\n")


if __name__ == "__main__":
    main()
