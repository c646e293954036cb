#!/usr/bin/env python3
"""`brim bench applications`: SwapNet's setting (2024, section 8): three applications, eleven inference tasks, each application in one budget that its networks
together exceed 2.32 to 5.81 times.

The networks are `brim new`'s (random weights: bytes and work are right, answers are not), comparable to the paper's VGG-19, ResNet-101, YOLOv3 and FCN. One camera
(a drawn scene) feeds all tasks of an application in `brim serve`; the demand is what the box counts with everything in memory. Rates are what two cores can do.

Standard library only. usage: applications.py applications [options]          SPDX-License-Identifier: Apache-2.0"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

MIB = 1 << 20
# task: (network, side of its input, head)
APPLICATIONS = {
    "self-driving": {"signs": ("vgg19", 224, "classify"), "vehicles": ("resnet101", 224, "classify"), "objects": ("yolox-s", 320, "yolox"),
                     "lanes": ("resnet50", 224, "classify")},
    "roadside": {"cars": ("resnet152", 224, "classify"), "plates": ("vgg16", 224, "classify"), "objects": ("yolox-tiny", 416, "yolox"),
                 "people": ("densenet121", 224, "classify")},
    "UAV": {"scene": ("resnet101", 224, "classify"), "objects": ("yolox-s", 320, "yolox"), "ground": ("inceptionv3", 299, "classify")},
}
CARDS = {
    "classify": "card: 1\nhead: classify\ninput: {{size: [{0}, {0}], mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375]}}\nclasses: 1000\n",
    "yolox": "card: 1\nhead: yolox\ninput: {{size: [{0}, {0}], resize: letterbox, colour: bgr}}\nstrides: [8, 16, 32]\nclasses: 80\n",
}


class Bench:
    def __init__(self, args):
        self.args = args
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="brim-applications-", dir=args.folder))
        self.call("scene", "-o", str(self.folder / "scene"), "--cameras", "1", "--seconds", "6")
        self.video = next((self.folder / "scene").glob("*.mp4"))

    def call(self, *args):
        p = subprocess.run([self.args.brim, *args], capture_output=True)
        if p.returncode:
            sys.exit(f"brim bench applications: brim {' '.join(args)}: {p.stderr.decode(errors='replace').strip()[-300:]}")
        return p.stdout

    def site(self, tasks):
        text = f"version: 1\nprecision: {self.args.precision}\noutputs: {{http: off, database: off}}\ncameras: {{cam: {{url: {self.video}, loop: true}}}}\nmodels:\n"
        for network, side, head in {t[0]: t for t in tasks.values()}.values():
            onnx = self.folder / f"{network}.onnx"
            if not onnx.exists():
                self.call("new", network, "--size", str(side), "-o", str(onnx))
                onnx.with_suffix(".yaml").write_text(CARDS[head].format(side))
            text += f"  {network}: {{onnx: {onnx}}}\n"
        text += "queries:\n"
        for task, (network, _, _) in tasks.items():
            text += f"  {task}: {{cameras: cam, model: {network}, fps: {self.args.fps}, deadline_ms: {self.args.deadline}}}\n"
        path = self.folder / "site.yaml"
        path.write_text(text)
        return path

    def serve(self, site, budget, seconds):
        out = self.call("serve", str(site), "--store", str(self.folder / "store"), "--no-http", "--json", "--seconds", str(seconds), "--budget", str(int(budget)))
        return json.loads(out.decode().strip().split("\n")[-1])

    def application(self, name):
        site = self.site(APPLICATIONS[name])
        self.serve(site, 1 << 40, 4)  # packs
        full = self.serve(site, 1 << 40, self.args.seconds)
        demand = sum(v for k, v in full["floor"].items() if k in ("arena", "scratch", "code", "frames", "decoders", "heads", "other", "all_models"))
        rows = []
        for factor in [1] + self.args.factors:
            r = full if factor == 1 else self.serve(site, demand / factor, self.args.seconds)
            for q in r["queries"]:
                base = next(x for x in full["queries"] if x["query"] == q["query"])
                missed = q["offered"] - q["run"] + q["late"]
                rows.append({"application": name, "task": q["query"], "network": APPLICATIONS[name][q["query"]][0], "factor": factor, "budget": demand / factor,
                             "offered": q["offered"], "run": q["run"], "missed": missed, "p50_ms": q["p50_ms"], "p95_ms": q["p95_ms"],
                             "over_full": q["p50_ms"] / base["p50_ms"] if base["p50_ms"] else None, "peak_bytes": r["memory"]["peak_bytes"]})
                x = rows[-1]
                ratio = f"{x['over_full']:7.2f}" if x["over_full"] and q["run"] else "      -"
                print(f"{name:13} {x['task']:9} {x['network']:12} {factor:8.2f} {x['budget'] / MIB:7.0f} MiB {x['peak_bytes'] / MIB:7.0f} {q['offered']:7} {q['run']:5} "
                      f"{missed:6} {q['p50_ms']:8.1f} {q['p95_ms']:8.1f} {ratio}", flush=True)
        return rows


def main():
    p = argparse.ArgumentParser(prog="brim bench applications", description="Eleven tasks in three applications, each in one budget that is too small for it.")
    p.add_argument("what", choices=["applications"], help=argparse.SUPPRESS)
    p.add_argument("--seconds", type=float, default=30, help="of each run (default 30)")
    p.add_argument("--fps", type=float, default=0.5, help="of each task (default 0.5)")
    p.add_argument("--deadline", type=int, default=2000, help="milliseconds from picture to result (default 2000)")
    p.add_argument("--factors", type=lambda s: [float(x) for x in s.split(",")], default=[2.32, 4, 5.81], help="demand / budget (default 2.32,4,5.81)")
    p.add_argument("--precision", default="f32", choices=["f32", "auto"])
    p.add_argument("--only", action="append", choices=sorted(APPLICATIONS), help="one of them; may come again")
    p.add_argument("--folder", help="on the disk to measure (default: the usual place for temporary files)")
    p.add_argument("--json", help="also write the figures to this file")
    p.add_argument("--brim", default=os.environ.get("BRIM_SELF", "brim"), help=argparse.SUPPRESS)
    args = p.parse_args()
    bench = Bench(args)
    print(f"{'application':13} {'task':9} {'network':12} {'demand/':>8} {'budget':>11} {'peak':>7} {'offered':>7} {'run':>5} {'missed':>6} {'p50 ms':>8} {'p95 ms':>8} {'x full':>7}")
    try:
        rows = [r for name in (args.only or APPLICATIONS) for r in bench.application(name)]
    finally:
        shutil.rmtree(bench.folder, ignore_errors=True)
    tight = [r for r in rows if r["factor"] > 1]
    print(f"\n{sum(r['missed'] for r in tight)} of {sum(r['offered'] for r in tight)} deadlines missed in too small budgets; with everything in memory "
          f"{sum(r['missed'] for r in rows if r['factor'] == 1)} of {sum(r['offered'] for r in rows if r['factor'] == 1)}")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
