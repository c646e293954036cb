#!/usr/bin/env python3
"""`brim bench serving`: its table of workloads, and a small workload rehearsed. serving_test.py BRIM           SPDX-License-Identifier: Apache-2.0"""
import json
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "bench"))
import serving  # noqa: E402

BRIM = sys.argv[1]
failed = count = 0


def check(ok, what):
    global failed, count
    count += 1
    failed += not ok
    print(f"{'ok' if ok else 'not ok'} {count} - {what}")


def show(rows):
    for (system, setting), r in rows.items():
        least, mean = serving.shares(r)
        print(f"# {setting:5s} {system:13s} least {least:5.1f} mean {mean:5.1f} +- {serving.spread(r):3.1f} %, {serving.rate(r) / 1e6:5.2f} MB/s")


def table():
    known = subprocess.run([BRIM, "new", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name, text in serving.WORKLOADS.items():
        rows = serving.queries(text)
        check(3 <= len(rows) <= 8 and len({r["name"] for r in rows}) == len(rows) and len({r["classes"] for r in rows}) == len(rows),
              f"{name}: {len(rows)} queries, each with a name and classes of its own")
        check(all(r["arch"] in known for r in rows), f"{name}: networks that brim new knows")
    classes = [name.split("-")[0] for name in serving.WORKLOADS]
    check(all(classes.count(c) == 5 for c in serving.CLASSES) and len(classes) == 15, "five workloads in each class")
    check(len(serving.runs()) == 13 and serving.runs()[0][2]["setting"] < 0, "thirteen runs of each, the first without a limit")


def run(spec, folder):
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    return subprocess.run([BRIM, "bench", "serving", "--spec", str(path)], capture_output=True, text=True)


def small(folder):
    """Three networks that are the same but for their classes, on a slow disk; little to compute, so that how long that took when it was measured is no matter."""
    spec = {"folder": str(folder), "pace": 2e7, "threads": 1, "load": 0.1, "deadline_ms": 400, "seconds": 4, "most_seconds": 4, "warm_up": 1, "no_live": True,
            "queries": serving.queries("3 cifar-resnet20@32"), "runs": [how for _, _, how in serving.runs()]}
    p = run(spec, folder)
    check(p.returncode == 0, f"a small workload {p.stderr.strip()}")
    if p.returncode:
        return
    j = json.loads(p.stdout)
    rows = {(system, setting): r["rehearsed"] for (system, setting, _), r in zip(serving.runs(), j["runs"])}
    show(rows)
    check(all(serving.spread(r) < 50 and len(r) == 6 for r in rows.values()), "six rehearsals of each")
    check(0.6 < j["bound_bytes"] / j["layer_bytes"] < 0.67, "two thirds could be shared, but for the last layers")
    check(serving.shares(rows["no limit", "-"])[1] >= 95, "without a limit next to nothing is late")
    for setting in serving.SETTINGS:
        aware, blind, alone = (rows[s, setting] for s in ("merged", "blind", "time sharing"))
        check(serving.rate(aware) <= serving.rate(blind) or serving.shares(aware)[1] > serving.shares(blind)[1],
              f"{setting}: knowing what is shared reads no more, or more frames are in time")
        check(serving.shares(aware)[1] >= serving.shares(alone)[1] - 10, f"{setting}: merged models are no worse")
    for system in serving.SYSTEMS:
        means = [serving.shares(rows[system, s])[1] for s in serving.SETTINGS]
        check(means[1] >= means[0] - 10 and means[2] >= means[1] - 10, f"{system}: more memory is no worse")
    for r in rows.values():
        for c in r:
            for s in c["streams"]:
                if s["offered"] != s["in_time"] + s["late"] + sum(s["dropped"].values()):
                    return check(False, "every frame is counted once")
    check(True, "every frame is counted once")


def refused(folder):
    good = {"folder": str(folder), "pace": 1e7, "threads": 1, "load": 0.5, "deadline_ms": 400, "seconds": 1, "most_seconds": 1, "warm_up": 0, "queries": [], "runs": []}
    one = serving.queries("cifar-resnet20@32")
    for what, spec in (("no queries", good), ("one query", {**good, "queries": one}), ("no such network", {**good, "queries": [{**one[0], "arch": "resnet19"}] * 2}),
                       ("no pace", {**good, "pace": 0.0}), ("a field is missing", {k: v for k, v in good.items() if k != "load"}),
                       ("too many", {**good, "queries": one * 17})):
        p = run(spec, folder)
        check(p.returncode in (1, 2) and "brim bench" in p.stderr and not p.stdout, f"{what}: {p.stderr.strip()[:90]}")


table()
with tempfile.TemporaryDirectory(prefix="brim-serving-test-") as d:
    small(pathlib.Path(d))
    refused(pathlib.Path(d))
print(f"1..{count}")
sys.exit(failed > 0)
