#!/usr/bin/env python3
"""`brim bench swap`: networks in less memory than their weights need, beside the bound and beside what people do today.

For each network, disk and budget (demand / 1.5, 2.32, 4, 5.81, 10; demand = weights + activations + scratch + code with all resident) one
`brim run --budget` in a process of its own, inside a memory cgroup of budget + idle process + 48 MiB and, where a disk speed is given, a blkio
cgroup that throttles the reads of the store's device, or with --pace a reader that plays a disk of that speed (a peer's cgroup is that of budget + its own idle process + 48 MiB). Runs pause between each other as frames do, so that the window is full when one begins.

bound: the larger of the compute time and, over all operators i, C(<i) + max(0, W(i..n) - (budget - activations live at i)) / bandwidth, the
bandwidth being that of the measured runs (bytes read over the time in which reads were under way). A throttled cgroup lets a tenth of a second's
bytes through at once after a rest, so it is more than what the cgroup says where pauses are long beside the reads.
Beside it: ONNX Runtime with its weights in the process and with its weights mapped from an external file, both in the same cgroups; whole-model
load and evict, and a block swap that reads through the page cache and copies (both are brim's kernels: --residency whole|copy).

Standard library only; --peers NAME needs an interpreter with that engine. SPDX-License-Identifier: Apache-2.0"""
import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

MIB = 1 << 20
FACTORS = [1.5, 2.32, 4, 5.81, 10]
NETWORKS = ["resnet50", "vgg16"]
ALL = ["resnet50", "resnet101", "resnet152", "vgg16", "vgg19", "yolov3"]
MARGIN = 48 * MIB
MEMORY, BLKIO = pathlib.Path("/sys/fs/cgroup/memory"), pathlib.Path("/sys/fs/cgroup/blkio")


class Cgroup:
    """A v1 memory cgroup and a blkio one for a child; says what it cannot do."""

    def __init__(self, limit, disk, device):
        self.folders, self.missing = [], []
        name = f"brim-swap-{os.getpid()}"
        if limit:
            self._make(MEMORY / name, {"memory.limit_in_bytes": str(int(limit))}, "memory")
        if disk:
            self._make(BLKIO / name, {"blkio.throttle.read_bps_device": f"{device} {int(disk)}"}, "blkio")

    def _make(self, folder, files, what):
        try:
            folder.mkdir(exist_ok=True)
            for name, text in files.items():
                (folder / name).write_text(text)
            self.folders.append(folder)
        except OSError as e:
            self.missing.append(f"{what}: {e.strerror}")

    def enter(self):
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(os.getpid()))

    def killed(self):
        for folder in self.folders:
            with contextlib.suppress(OSError):
                for line in (folder / "memory.oom_control").read_text().splitlines():
                    if line.startswith("oom_kill ") and int(line.split()[1]):
                        return True
        return False

    def cache(self):
        for folder in self.folders:
            with contextlib.suppress(OSError):
                for line in (folder / "memory.stat").read_text().splitlines():
                    if line.startswith("cache "):
                        return int(line.split()[1])
        return 0

    def close(self):
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def device_of(path):
    """MAJOR:MINOR of the whole disk that `path` lies on."""
    number = os.stat(path).st_dev
    folder = pathlib.Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    if (folder / "partition").exists():
        return (folder.parent / "dev").read_text().strip()
    return f"{os.major(number)}:{os.minor(number)}"


def child(command, limit=None, disk=None, device=None, timeout=900):
    """Runs `command`; returns (its JSON or None, killed, bytes of page cache in its cgroup at the end, why)."""
    group = Cgroup(limit, disk, device)
    try:
        p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=group.enter)
        out, err = p.communicate(timeout=timeout)
        killed = group.killed() or p.returncode == -9
        try:
            return json.loads(out), killed, group.cache(), "; ".join(group.missing)
        except ValueError:
            return None, killed, group.cache(), err.decode(errors="replace").strip()[-200:]
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()
        return None, False, 0, f"more than {timeout} s"
    finally:
        group.close()


class Bench:
    def __init__(self, args):
        self.args = args
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="brim-swap-", dir=args.folder))
        self.device = device_of(self.folder)
        self.rows, self.peers = [], []
        self.idle = 0

    def brim(self, path, *options, **where):
        return child([self.args.brim, "run", str(path), "--json", "--threads", str(self.args.threads), "--store", str(self.folder / "store"),
                      "--precision", self.args.precision, *options], **where)

    def slower(self, disk):
        """How `disk` bytes a second are enforced: (options of brim run, the cgroup's rate)."""
        return (["--pace", str(int(disk))], None) if disk and self.args.pace else ([], disk)

    def network(self, name):
        if os.path.exists(name):
            return pathlib.Path(name)
        path = self.folder / f"{name}.onnx"
        if not path.exists():
            p = subprocess.run([self.args.brim, "new", name, "-o", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            if p.returncode:
                sys.exit(f"brim bench swap: {name} is no file, and {p.stderr.decode(errors='replace').strip()}")
        return path

    def full(self, path):
        """All resident: the time to compare with, and the demand."""
        out = self.folder / "full"
        shutil.rmtree(out, ignore_errors=True)  # outputs of another network have other names
        j, _, _, why = self.brim(path, "--repeat", str(self.args.repeat), "--output", str(out))
        if not j:
            sys.exit(f"brim bench swap: {path}: {why}")
        text = subprocess.run([self.args.brim, "explain", str(path), "--json", "--threads", str(self.args.threads)], capture_output=True, check=True).stdout
        x = json.loads(text)
        demand = j["weight_bytes"] + x["activation_bytes"] + x["scratch_bytes"] + x["code_bytes"]
        return j, demand, out

    def same_bits(self, a, b):
        files = sorted(f.name for f in a.iterdir())
        return all((a / f).read_bytes() == (b / f).read_bytes() for f in files)

    def pause_ms(self, full, budget, demand, disk):
        """Long enough for the window to fill again, as between frames."""
        return min(int(1000 * budget / (disk or 1e9)) + 20, 2000)

    def swap(self, name, disk):
        path = self.network(name)
        full, demand, truth = self.full(path)
        for factor in self.args.factors:
            budget = int(demand / factor)
            out = self.folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            options, rate = self.slower(disk)
            j, killed, cache, why = self.brim(path, "--repeat", str(self.args.repeat), "--pause", str(self.pause_ms(full, budget, demand, disk)), *options,
                                              "--budget", str(budget), "--output", str(out), limit=budget + self.idle + MARGIN, disk=rate, device=self.device)
            row = {"network": pathlib.Path(name).stem, "precision": self.args.precision, "disk": disk, "factor": factor, "demand": demand, "budget": budget,
                   "full_ms": full["median_ms"], "killed": killed, "why": why}
            if j:
                row.update({k: j[k] for k in ("median_ms", "min_ms", "p95_ms", "predicted_ms", "bound_ms", "naive_bound_ms", "compute_ms", "steady_ms", "peak_bytes",
                                              "window_bytes", "kept_bytes", "streamed_bytes", "read_bytes_per_run", "disk_bytes_per_s", "run_disk_bytes_per_s", "pack_ms")})
                row.update(page_cache=cache, same_bits=self.same_bits(truth, out), over_bound=(j["median_ms"] - 2) / j["bound_ms"],
                           predicted_over_measured=j["predicted_ms"] / j["median_ms"], exact=j["read_bytes_per_run"] == j["streamed_bytes"])
            self.rows.append(row)
            self.print_row(row)

    def print_head(self):
        print(f"{'network':12} {'disk MB/s':>9} {'demand/':>7} {'budget':>9} {'full ms':>8} {'ms':>8} {'p95':>8} {'predicted':>9} {'bound':>8} {'naive':>8} {'MB/s':>6} "
              f"{'x bound':>7} {'pred/ms':>7} {'read MiB':>8} {'cache':>6}  notes")

    def print_row(self, r):
        head = f"{r['network']:12} {r['disk'] / 1e6 if r['disk'] else 0:9.0f} {r['factor']:7.2f} {r['budget'] / MIB:5.1f} MiB {r['full_ms']:8.1f} "
        if "median_ms" not in r:
            print(head + ("KILLED" if r["killed"] else r["why"]), flush=True)
            return
        notes = [n for n, bad in (("other bits", not r["same_bits"]), ("bytes read differ", not r["exact"]), ("KILLED", r["killed"]),
                                  ("over its budget", r["peak_bytes"] > r["budget"]), (r["why"], r["why"])) if bad]
        print(head + f"{r['median_ms']:8.1f} {r['p95_ms']:8.1f} {r['predicted_ms']:9.1f} {r['bound_ms']:8.1f} {r['naive_bound_ms']:8.1f} {r['run_disk_bytes_per_s'] / 1e6:6.0f} {r['over_bound']:7.3f} "
              f"{r['predicted_over_measured']:7.3f} {r['read_bytes_per_run'] / MIB:8.1f} {r['page_cache'] / MIB:6.1f}  {'; '.join(notes)}", flush=True)

    # ---- what people do today

    def peer(self, what, name, factor, command, disk, idle=None):
        full, demand, _ = self.full(self.network(name))
        budget = int(demand / factor)
        j, killed, cache, why = child(command, limit=budget + (idle or self.idle) + MARGIN, disk=disk, device=self.device)
        row = {"what": what, "network": name, "disk": disk, "factor": factor, "budget": budget, "killed": killed, "median_ms": j["median_ms"] if j else None,
               "why": "" if j else why, "page_cache": cache}
        self.peers.append(row)
        ms = f"{j['median_ms']:8.1f} ms" if j else "KILLED by the cgroup" if killed else f"not run: {why}"
        print(f"{what:42} {name:12} {disk / 1e6 if disk else 0:6.0f} MB/s  demand/{factor:<5} {ms}", flush=True)

    def all_peers(self, name, factor, disk):
        path = self.network(name)
        common = ["--json", "--threads", str(self.args.threads), "--store", str(self.folder / "store"), "--repeat", str(self.args.repeat)]
        full, demand, _ = self.full(path)
        budget = str(int(demand / factor))
        pause = ["--pause", str(self.pause_ms(full, int(budget), demand, disk))]
        self.peer("brim, blocks", name, factor, [self.args.brim, "run", str(path), *common, *pause, "--budget", budget], disk)
        self.peer("brim, read() then copy, block by block", name, factor, [self.args.brim, "run", str(path), *common, *pause, "--budget", budget, "--swap", "copy"], disk)
        self.peer("brim, whole model loaded for each run", name, factor, [self.args.brim, "run", str(path), *common, *pause, "--swap", "whole"], disk)
        if not self.args.peers_python:
            print("ONNX Runtime: not run (no interpreter: set BRIM_PEERS or --python)")
            return
        worker = [self.args.peers_python, "-B", str(pathlib.Path(__file__).resolve()), "--worker"]
        made, _, _, why = child([*worker, json.dumps({"path": str(path), "folder": str(self.folder), "prepare": True})])
        if not made:
            return print(f"ONNX Runtime: not run ({why})")
        for external in (False, True):
            self.peer("ONNX Runtime, weights " + ("mapped from an external file" if external else "in the process"), name, factor,
                      [*worker, json.dumps({"path": str(path), "external": external, "folder": str(self.folder), "threads": self.args.threads,
                                            "repeat": self.args.repeat})], disk, made["idle"])

    def run(self):
        j, _, _, _ = self.brim(self.network("squeezenet"))
        self.idle = j["peak_rss_bytes"] - j["peak_bytes"] if j else 24 * MIB
        print(f"device {self.device}, {self.args.threads} threads, {self.args.precision}; idle process {self.idle / MIB:.1f} MiB; "
              f"each run inside a memory cgroup of budget + idle + 48 MiB\n")
        self.print_head()
        for name in self.args.networks:
            for disk in self.args.disks:
                self.swap(name, disk)
        if not self.args.no_peers:
            print()
            for disk in self.args.disks:
                self.all_peers(self.args.networks[0], 2.32, disk)
        ok = [r for r in self.rows if "median_ms" in r]
        if ok:
            print(f"\n{len(ok)} of {len(self.rows)} ran; (ms - 2) over the bound: median {statistics.median(r['over_bound'] for r in ok):.3f}, worst "
                  f"{max(r['over_bound'] for r in ok):.3f}; predicted over measured: {min(r['predicted_over_measured'] for r in ok):.3f} to "
                  f"{max(r['predicted_over_measured'] for r in ok):.3f}; same bits {sum(r['same_bits'] for r in ok)}, exact reads {sum(r['exact'] for r in ok)}, "
                  f"killed {sum(r['killed'] for r in self.rows)}")
        if self.args.svg:
            pathlib.Path(self.args.svg).write_text(svg(self.rows))
        if self.args.json:
            pathlib.Path(self.args.json).write_text(json.dumps({"rows": self.rows, "peers": self.peers}, indent=1) + "\n")


# ---- the plot

def svg(rows):
    """One panel per network and disk: latency over demand / budget, with the bound and full residency. Logarithmic latency."""
    import math
    panels = {}
    for r in rows:
        if "median_ms" in r:
            panels.setdefault((r["network"], r["disk"]), []).append(r)
    columns, w, h = 3, 330, 230
    lines = (len(panels) + columns - 1) // columns
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{columns * w}" height="{lines * h + 40}" font-family="sans-serif" font-size="11">',
           '<rect width="100%" height="100%" fill="white"/>',
           '<text x="12" y="22" font-size="14" font-weight="bold">Latency in less memory than the network needs</text>',
           '<g transform="translate(400 12)"><path d="M0 6h24" stroke="#c33" stroke-width="2"/><circle cx="12" cy="6" r="3" fill="#c33"/><text x="30" y="10">brim</text>'
           '<path d="M80 6h24" stroke="#36c" stroke-dasharray="5 3"/><text x="110" y="10">bound</text>'
           '<path d="M170 6h24" stroke="#888"/><text x="200" y="10">all in memory</text></g>']
    for n, ((network, disk), group) in enumerate(sorted(panels.items(), key=lambda k: (k[0][0], -(k[0][1] or 1e12)))):
        x0, y0 = n % columns * w + 48, n // columns * h + 70
        pw, ph = w - 70, h - 75
        top = math.log10(max(max(r["median_ms"], r["bound_ms"]) for r in group) * 1.2)
        low = math.log10(min(min(r["full_ms"], r["bound_ms"]) for r in group) * 0.8)
        px = lambda f: x0 + pw * (math.log(f) / math.log(12))
        py = lambda ms: y0 + ph * (1 - (math.log10(ms) - low) / (top - low))
        speed = f"{disk / 1e6:.0f} MB/s" if disk else "disk not throttled"
        out.append(f'<text x="{x0}" y="{y0 - 10}" font-weight="bold">{network}, {speed}</text>')
        out.append(f'<path d="M{x0} {y0}v{ph}h{pw}" fill="none" stroke="#444"/>')
        for f in FACTORS:
            out.append(f'<text x="{px(f):.1f}" y="{y0 + ph + 14}" text-anchor="middle">1/{f:g}</text>')
        step = [1, 2, 5]
        for e in range(0, 6):
            for s in step:
                v = s * 10 ** e
                if low <= math.log10(v) <= top:
                    out.append(f'<text x="{x0 - 4}" y="{py(v) + 4:.1f}" text-anchor="end">{v}</text><path d="M{x0} {py(v):.1f}h{pw}" stroke="#ddd"/>')
        full = group[0]["full_ms"]
        out.append(f'<path d="M{x0} {py(full):.1f}h{pw}" stroke="#888"/>')
        group.sort(key=lambda r: r["factor"])
        for key, style in (("bound_ms", 'stroke="#36c" stroke-dasharray="5 3"'), ("median_ms", 'stroke="#c33" stroke-width="2"')):
            points = " ".join(f"{px(r['factor']):.1f},{py(r[key]):.1f}" for r in group)
            out.append(f'<polyline points="{points}" fill="none" {style}/>')
        out += [f'<circle cx="{px(r["factor"]):.1f}" cy="{py(r["median_ms"]):.1f}" r="3" fill="#c33"/>' for r in group]
    out.append(f'<text x="12" y="{lines * h + 32}" fill="#444">budget as a share of the demand (weights + activations + scratch + code); ms, logarithmic</text></svg>')
    return "\n".join(out) + "\n"


# ---- ONNX Runtime, in a process of its own

def worker(job):
    import time
    path = job["path"]
    if job.get("prepare"):
        import onnx
        os.makedirs(os.path.join(job["folder"], "external"), exist_ok=True)
        copy = os.path.join(job["folder"], "external", os.path.basename(path))
        onnx.save(onnx.load(path), copy, save_as_external_data=True, location=os.path.basename(path) + ".bin", size_threshold=1024)
        import numpy
        import onnxruntime
        with open("/proc/self/status") as f:
            rss = [int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS")]
        return print(json.dumps({"idle": rss[0]}))
    import numpy
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    if job["external"]:
        path = os.path.join(job["folder"], "external", os.path.basename(job["path"]))
        if not os.path.exists(path):
            sys.exit("the external copy was not made")
        options.add_session_config_entry("session.disable_prepacking", "1")  # packed copies would be anonymous memory
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    i = session.get_inputs()[0]
    x = numpy.random.default_rng(0).random([d if isinstance(d, int) else 1 for d in i.shape], dtype=numpy.float32)
    session.run(None, {i.name: x})
    times = []
    for _ in range(job["repeat"]):
        begin = time.perf_counter()
        session.run(None, {i.name: x})
        times.append((time.perf_counter() - begin) * 1e3)
    print(json.dumps({"median_ms": statistics.median(times)}))


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--worker":
        return worker(json.loads(sys.argv[2]))
    p = argparse.ArgumentParser(prog="brim bench swap", description="Networks in less memory than their weights need.")
    p.add_argument("networks", nargs="*", help=f"names of `brim new`, or ONNX files (default {' '.join(NETWORKS)})")
    p.add_argument("--all", action="store_true", help="all of " + " ".join(ALL))
    p.add_argument("--disks", default="0,500,150", help="MB/s by a blkio cgroup, comma-separated; 0: not throttled")
    p.add_argument("--factors", default=",".join(str(f) for f in FACTORS), help="demand / budget")
    p.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    p.add_argument("--precision", default="f32")
    p.add_argument("--repeat", type=int, default=7)
    p.add_argument("--svg", help="write the plot to this file")
    p.add_argument("--json", help="write all figures to this file")
    p.add_argument("--folder", default=None, help="on the disk to measure (default: the usual place for temporary files)")
    p.add_argument("--pace", action="store_true", help="play the slower disks in brim's reader: exact and without credit (peers keep the cgroup)")
    p.add_argument("--no-peers", action="store_true")
    p.add_argument("--brim", default=os.environ.get("BRIM_SELF", "brim"), help=argparse.SUPPRESS)
    args = p.parse_args()
    args.networks = args.networks or (ALL if args.all else NETWORKS)
    args.disks = [float(d) * 1e6 or None for d in args.disks.split(",")]
    args.factors = [float(f) for f in args.factors.split(",")]
    args.peers_python = os.environ.get("BRIM_PEERS")
    bench = Bench(args)
    try:
        bench.run()
    finally:
        shutil.rmtree(bench.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
