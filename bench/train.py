#!/usr/bin/env python3
"""`brim bench train`: training beside PyTorch, and detectors before and after.

    brim bench train [--only throughput,dropout,memory,vehicles,person,cifar] [--quick] [--precision f32|bf16] [--python FILE] [--json FILE]

throughput  steps on noise (forward, loss, backward, SGD with momentum), PyTorch channels-last with the same layers and number of parameters: one long-lived
            process each; in every round each runs for a moment, the order turns, and the ratio is that of the round's two neighbours (median over rounds)
dropout     the same of networks that drop
cifar       ResNet-20 from the same first weights (written by PyTorch as ONNX), recipe, epochs and threads on the shared 10,000 CIFAR-10 pictures: accuracy
            on the shared test part, seconds
vehicles    `brim train --task detect` with its defaults on the shared photos of vehicles: held-out AP before and after
person      the 192-pixel person detector on frames of one fixed camera, taught by yolox_nano at 416: AP on later frames against the teacher's boxes
memory      ResNet-50, batch 32, with and without recomputed activations: bytes that the plan says and bytes that the process grows by

The peer is the PyTorch of --python ($BRIM_PEERS, else Debian's /usr/bin/python3 with python3-torch and python3-torchvision); parts that need it say so and are
left out where there is none (cifar also wants its package onnx). Data: $BRIM_DATA. SPDX-License-Identifier: Apache-2.0"""
import argparse
import json
import lzma
import math
import os
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

PARTS = ["throughput", "dropout", "memory", "vehicles", "person", "cifar"]
MIB = 1 << 20
NETWORKS = [  # name, brim's network, task, size, batch; quick: the first three only
    ("ResNet-18, 64 x 64", "resnet18", "classify", 64, 32), ("MobileNetV2, 96 x 96", "mobilenetv2", "classify", 96, 16),
    ("GPT-2 mini, 512 tokens", "gpt2-mini", "language", 512, 1), ("YOLOX-nano, 416 x 416", "yolox-nano", "detect", 416, 4),
    ("ResNet-18, 224 x 224", "resnet18", "classify", 224, 8)]
DROPPING = [("AlexNet, 224 x 224", "alexnet", "classify", 224, 16), ("SqueezeNet, 128 x 128", "squeezenet", "classify", 128, 16)]  # both sides drop
BOXES = 8


# ---- the other side: the same networks in PyTorch. Runs in the peer's interpreter

def torch_yolox_nano():
    import torch
    from torch import nn

    def conv(cin, cout, k, stride=1, groups=1):
        return nn.Sequential(nn.Conv2d(cin, cout, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(cout, eps=1e-3, momentum=0.03), nn.SiLU())

    def light(cin, cout, k, stride=1):
        return nn.Sequential(conv(cin, cin, k, stride, cin), conv(cin, cout, 1))

    class Bottleneck(nn.Module):
        def __init__(self, c, shortcut):
            super().__init__()
            self.body, self.shortcut = nn.Sequential(conv(c, c, 1), light(c, c, 3)), shortcut

        def forward(self, x):
            return x + self.body(x) if self.shortcut else self.body(x)

    class Csp(nn.Module):
        def __init__(self, cin, cout, n, shortcut=True):
            super().__init__()
            h = cout // 2
            self.one, self.two, self.out = conv(cin, h, 1), conv(cin, h, 1), conv(2 * h, cout, 1)
            self.body = nn.Sequential(*[Bottleneck(h, shortcut) for _ in range(n)])

        def forward(self, x):
            return self.out(torch.cat((self.body(self.one(x)), self.two(x)), 1))

    class Spp(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.one, self.out = conv(c, c // 2, 1), conv(c * 2, c, 1)
            self.pools = nn.ModuleList([nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13)])

        def forward(self, x):
            x = self.one(x)
            return self.out(torch.cat([x] + [p(x) for p in self.pools], 1))

    class Head(nn.Module):
        def __init__(self, cin, classes):
            super().__init__()
            self.stem = conv(cin, 64, 1)
            self.of_class, self.of_box = nn.Sequential(light(64, 64, 3), light(64, 64, 3)), nn.Sequential(light(64, 64, 3), light(64, 64, 3))
            self.box, self.object, self.classes = nn.Conv2d(64, 4, 1), nn.Conv2d(64, 1, 1), nn.Conv2d(64, classes, 1)

        def forward(self, x):
            x = self.stem(x)
            c, b = self.of_class(x), self.of_box(x)
            return torch.cat((self.box(b), self.object(b).sigmoid(), self.classes(c).sigmoid()), 1).flatten(2)

    class Net(nn.Module):
        def __init__(self, classes=80):
            super().__init__()
            self.stem = conv(12, 16, 3)
            self.dark2, self.dark3 = nn.Sequential(light(16, 32, 3, 2), Csp(32, 32, 1)), nn.Sequential(light(32, 64, 3, 2), Csp(64, 64, 3))
            self.dark4, self.dark5 = nn.Sequential(light(64, 128, 3, 2), Csp(128, 128, 3)), nn.Sequential(light(128, 256, 3, 2), Spp(256), Csp(256, 256, 1, False))
            self.lateral, self.reduce, self.up = conv(256, 128, 1), conv(128, 64, 1), nn.Upsample(scale_factor=2)
            self.p4, self.p3, self.n3, self.n4 = Csp(256, 128, 1, False), Csp(128, 64, 1, False), Csp(128, 128, 1, False), Csp(256, 256, 1, False)
            self.down2, self.down1 = light(64, 64, 3, 2), light(128, 128, 3, 2)
            self.heads = nn.ModuleList([Head(c, classes) for c in (64, 128, 256)])

        def forward(self, x):
            x = torch.cat((x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), 1)
            a = self.dark3(self.dark2(self.stem(x)))
            b = self.dark4(a)
            top = self.lateral(self.dark5(b))
            mid = self.reduce(self.p4(torch.cat((self.up(top), b), 1)))
            p3 = self.p3(torch.cat((self.up(mid), a), 1))
            p4 = self.n3(torch.cat((self.down2(p3), mid), 1))
            p5 = self.n4(torch.cat((self.down1(p4), top), 1))
            return torch.cat([h(p) for h, p in zip(self.heads, (p3, p4, p5))], 2).transpose(1, 2)

    return Net()


def torch_gpt(length, vocabulary=512, d=384, heads=6, layers=6):
    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
            self.qkv, self.out, self.up, self.down = nn.Linear(d, 3 * d), nn.Linear(d, d), nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
            self.register_buffer("mask", torch.full((length, length), -1e9).triu(1), persistent=False)

        def forward(self, x):
            n, t, _ = x.shape
            q, k, v = (y.view(n, t, heads, d // heads).transpose(1, 2) for y in self.qkv(self.n1(x)).split(d, 2))
            p = (q @ k.transpose(2, 3) / math.sqrt(d // heads) + self.mask).softmax(3)
            x = x + self.out((p @ v).transpose(1, 2).reshape(n, t, d))
            return x + self.down(nn.functional.gelu(self.up(self.n2(x))))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.places = nn.Embedding(vocabulary, d), nn.Parameter(torch.randn(length, d) * 0.02)
            self.layers, self.norm = nn.Sequential(*[Layer() for _ in range(layers)]), nn.LayerNorm(d)

        def forward(self, tokens):
            return self.norm(self.layers(self.table(tokens) + self.places)) @ self.table.weight.t()

    return Net()


def torch_detect_loss(torch, out, batch, size):
    """The same terms as brim's, on as many cells assigned by chance."""
    cells = out.shape[1]
    strides = torch.cat([torch.full(((size // s) ** 2,), float(s)) for s in (8, 16, 32)])
    columns = torch.cat([torch.arange(size // s).repeat(size // s) for s in (8, 16, 32)]).float()
    rows = torch.cat([torch.arange(size // s).repeat_interleave(size // s) for s in (8, 16, 32)]).float()
    chosen = torch.tensor([cells * k // BOXES + k for k in range(BOXES)])
    grid, s = torch.stack((columns, rows), 1)[chosen], strides[chosen, None]
    assigned = torch.zeros(batch, cells)
    assigned[:, chosen] = 1
    classes = torch.zeros(batch, BOXES, out.shape[2] - 5)
    classes[:, range(BOXES), range(BOXES)] = 0.8
    to = torch.cat((grid * s - 2 * s, grid * s + 2 * s), 1)
    bce = torch.nn.functional.binary_cross_entropy

    def loss(out):
        o = out[:, chosen]
        xy, half = (o[..., :2] + grid) * s, o[..., 2:4].exp() * s / 2
        inner = (torch.minimum(xy + half, to[:, 2:]) - torch.maximum(xy - half, to[:, :2])).clamp(min=0).prod(2)
        iou = inner / ((2 * half).prod(2) + (to[:, 2:] - to[:, :2]).prod(1) - inner + 1e-9)
        return (5 * (1 - iou ** 2).sum() + bce(out[..., 4], assigned, reduction="sum") + bce(o[..., 5:], classes, reduction="sum")) / (batch * BOXES)
    return loss


def status_bytes(key):
    for line in open("/proc/self/status"):
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


def torch_worker(name, task, size, batch, threads, precision):
    import torch
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    import torchvision
    before = status_bytes("VmRSS")
    if name == "yolox-nano":
        net = torch_yolox_nano()
    elif name == "gpt2-mini":
        net = torch_gpt(size)
    else:
        net = {"resnet18": torchvision.models.resnet18, "resnet50": torchvision.models.resnet50, "mobilenetv2": torchvision.models.mobilenet_v2,
               "alexnet": torchvision.models.alexnet, "squeezenet": torchvision.models.squeezenet1_0}[name]()
    net.train()
    if task == "language":
        x, labels = torch.randint(0, 512, (batch, size)), torch.randint(0, 512, (batch * size,))
        loss_of = lambda y: torch.nn.functional.cross_entropy(y.flatten(0, 1), labels)
    else:
        net = net.to(memory_format=torch.channels_last)
        x = (torch.rand(batch, 3, size, size) * 2 - 1).contiguous(memory_format=torch.channels_last)
        labels = torch.arange(batch) % 1000
        loss_of = lambda y: torch.nn.functional.cross_entropy(y, labels)
        if task == "detect":
            with torch.no_grad():
                loss_of = torch_detect_loss(torch, net(x[:1]).expand(batch, -1, -1), batch, size)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)
    print(json.dumps({"parameters": sum(p.numel() for p in net.parameters()), "version": torch.__version__, "rss_before": before}), flush=True)
    for line in sys.stdin:
        seconds, steps, begin, cpu = float(line), 0, time.perf_counter(), time.process_time()
        while True:
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                y = net(x)
            loss = loss_of(y.float())
            loss.backward()
            optimiser.step()
            steps += 1
            if time.perf_counter() - begin >= seconds:
                break
        print(json.dumps({"steps": steps, "seconds": time.perf_counter() - begin, "cpu_s": time.process_time() - cpu, "loss": float(loss.detach()),
                          "peak_rss": status_bytes("VmHWM")}), flush=True)


def torch_resnet20():
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, cin, cout, stride):
            super().__init__()
            self.c1, self.b1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
            self.c2, self.b2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
            self.side = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)) if cin != cout else nn.Identity()

        def forward(self, x):
            return torch.relu(self.b2(self.c2(torch.relu(self.b1(self.c1(x))))) + self.side(x))

    layers, c = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
    for width in (16, 32, 64):
        for i in range(3):
            layers.append(Block(c, width, 2 if width != c else 1))
            c = width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight)
    return net


MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def as_begun(path, state):
    """The exporter runs the network once, and writes running statistics that have seen that picture."""
    import onnx
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name in state:
            tensor.CopyFrom(onnx.numpy_helper.from_array(state[tensor.name].numpy(), tensor.name))
    onnx.save(model, path)


def torch_cifar(train, test, seed, epochs, batch, lr, threads, onnx):
    """Writes the first weights as ONNX and waits for a line; then trains."""
    import inspect
    import numpy as np
    import torch
    import warnings
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    net = torch_resnet20()
    net.train()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    old = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}  # the new exporter wants onnxscript, and knows no training
    torch.onnx.export(net, torch.zeros(2, 3, 32, 32), onnx, **old, opset_version=13, training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False,
                      input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "N"}, "y": {0: "N"}})
    net.load_state_dict(state)
    as_begun(onnx, state)
    net = net.to(memory_format=torch.channels_last)
    print(json.dumps({"parameters": sum(p.numel() for p in net.parameters())}), flush=True)
    sys.stdin.readline()

    def read(path):
        rows = np.fromfile(path, np.uint8).reshape(-1, 3073)
        return torch.from_numpy(rows[:, 1:].reshape(-1, 3, 32, 32).copy()), torch.from_numpy(rows[:, 0].astype(np.int64))

    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    x, y = read(train)
    padded = torch.nn.functional.pad(x, (4, 4, 4, 4))
    decay = [p for p in net.parameters() if p.dim() > 1]
    plain = [p for p in net.parameters() if p.dim() <= 1]
    optimiser = torch.optim.SGD([{"params": decay, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0}], lr=lr, momentum=0.9)
    steps = len(x) // batch
    begin, draw = time.perf_counter(), np.random.default_rng(seed)
    for epoch in range(epochs):
        order = draw.permutation(len(x))
        for step in range(steps):
            at, total, warm = epoch * steps + step, epochs * steps, steps
            now = lr * (at + 1) / warm if at < warm else lr * 0.5 * (1 + math.cos(math.pi * (at - warm) / (total - warm)))
            for g in optimiser.param_groups:
                g["lr"] = now
            index = order[step * batch:(step + 1) * batch]
            dx, dy, flip = draw.integers(0, 9, batch), draw.integers(0, 9, batch), draw.random(batch) < 0.5
            rows = [padded[i, :, b:b + 32, a:a + 32] for i, a, b in zip(index, dx, dy)]
            rows = torch.stack([r.flip(2) if f else r for r, f in zip(rows, flip)]).float()
            rows = ((rows - mean) / std).contiguous(memory_format=torch.channels_last)
            optimiser.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(net(rows), y[index]).backward()
            optimiser.step()
    seconds = time.perf_counter() - begin
    net.eval()
    x, y = read(test)
    with torch.no_grad():
        right = sum(int((net((x[i:i + 200].float() - mean) / std).argmax(1) == y[i:i + 200]).sum()) for i in range(0, len(x), 200))
    print(json.dumps({"top1": right / len(x), "seconds": seconds, "peak_rss": status_bytes("VmHWM")}), flush=True)


# ---- this side

class Worker:
    """A process that answers a line with a line."""

    def __init__(self, argv):
        self.p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first = self.line()

    def line(self):
        line = self.p.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.p.args[:4])}: ended with status {self.p.wait()}")
        return json.loads(line)

    def ask(self, text):
        self.p.stdin.write(f"{text}\n")
        self.p.stdin.flush()
        return self.line()

    def close(self):
        self.p.stdin.close()
        self.p.stdout.close()
        self.p.wait()


class Bench:
    def __init__(self, o):
        self.o, self.brim = o, os.environ.get("BRIM_SELF") or shutil.which("brim")
        self.data = pathlib.Path(os.environ.get("BRIM_DATA", "../shared/data"))
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="brim-train-"))
        self.out = {"threads": o.threads, "quick": o.quick}
        self.peer = self.find_peer()
        self.precision = [] if o.precision == "f32" else ["--precision", o.precision]

    def find_peer(self):
        for python in (self.o.python, os.environ.get("BRIM_PEERS"), "/usr/bin/python3"):
            if not python:
                continue
            p = subprocess.run([python, "-c", "import torch, torchvision, numpy; print(torch.__version__, torchvision.__version__)"], capture_output=True, text=True)
            if p.returncode == 0:
                print(f"peer: PyTorch {p.stdout.split()[0]}, torchvision {p.stdout.split()[1]} ({python}); {self.o.threads} threads", flush=True)
                self.out["peer"] = p.stdout.strip()
                return python
        print("peer: no interpreter with torch and torchvision (apt install python3-torch python3-torchvision); only brim is measured", flush=True)
        return None

    def run(self, *words, quiet=True):
        p = subprocess.run([self.brim, *map(str, words)], capture_output=True, text=True)
        if p.returncode:
            raise RuntimeError(f"brim {' '.join(map(str, words[:3]))}: {p.stderr.strip()}")
        return [json.loads(l) for l in p.stdout.splitlines() if l.startswith("{")]

    def need(self, path):
        path = self.data / path
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there; $BRIM_DATA names the folder of shared data")
        return path

    # -- throughput

    @staticmethod
    def grown(worker):
        """Bytes resident at most beyond those before the network was made, after two steps."""
        worker.ask(0.01)
        return (last := worker.ask(0.01))["peak_rss"] - worker.first["rss_before"], last

    def budget(self, argv, wanted):
        """What brim's job may take so that its process grows by `wanted` bytes; the least that will do if that is too little."""
        plain = Worker(argv)
        grown, last = self.grown(plain)
        plain.close()
        budget = wanted - (grown - last["counted_peak"])
        p = subprocess.run([*argv, "--budget", str(budget)], input="", capture_output=True, text=True)
        least = re.search(r"--budget (\d+)M", p.stderr)
        if p.returncode and not least:
            raise RuntimeError(p.stderr.strip())
        return int(least[1]) * MIB if p.returncode else budget

    def workers(self, name, task, size, batch):
        argv, w = [self.brim, "bench", "train", name, "--turns", "--size", str(size), "--batch", str(batch), "--threads", str(self.o.threads), *self.precision], {}
        if self.peer:
            w["torch"] = Worker([self.peer, __file__, "--torch-worker", name, task, str(size), str(batch), str(self.o.threads), self.o.precision])
            if self.o.share:
                argv += ["--budget", str(self.budget(argv, int(self.o.share * self.grown(w["torch"])[0])))]
        return {"brim": Worker(argv), **w}

    def dropout(self):
        self.throughput(DROPPING, "dropout")

    def throughput(self, networks=None, key="throughput"):
        rows, seconds, rounds = [], self.o.seconds or (1.0 if self.o.quick else 3.0), self.o.rounds or (3 if self.o.quick else 7)
        print(f"\nthroughput: pictures (tokens) a second, median of {rounds} rounds of {seconds:g} s; CPU: ratio of CPU seconds per step; "
              "MiB: resident at most, whole process; grown: the same without what the process was before the network")
        print(f"{'network':<24}{'batch':>6}{'brim':>10}{'PyTorch':>10}{'ratio':>8}{'CPU':>8}{'brim MiB':>10}{'PyTorch':>10}{'memory':>8}{'grown':>8}")
        for title, name, task, size, batch in networks or (NETWORKS[:3] if self.o.quick else NETWORKS):
            w = self.workers(name, task, size, batch)
            base = {k: v.first["rss_before"] for k, v in w.items()}
            counts = {k: v.first["parameters"] for k, v in w.items()}
            if len(set(counts.values())) > 1:
                print(f"{title}: not the same network: {counts}")
            speed, cpu, last = {k: [] for k in w}, {k: [] for k in w}, {}
            for k in w:
                w[k].ask(0.01)
                w[k].ask(0.01)
            for i in range(rounds):
                for k in sorted(w, reverse=i % 2 == 1):
                    r = last[k] = w[k].ask(seconds)
                    speed[k].append(r["steps"] * batch * (size if task == "language" else 1) / r["seconds"])
                    cpu[k].append(r["cpu_s"] / r["steps"])
            for k in w:
                w[k].close()
            row = {"network": title, "parameters": counts["brim"], "batch": batch, "brim": statistics.median(speed["brim"]), "brim_mib": last["brim"]["peak_rss"] / MIB,
                   "brim_counted_mib": last["brim"]["counted_peak"] / MIB}
            line = f"{title:<24}{batch:>6}{row['brim']:>10.1f}"
            if self.peer:
                row.update(torch=statistics.median(speed["torch"]), torch_mib=last["torch"]["peak_rss"] / MIB,
                           ratio=statistics.median(a / b for a, b in zip(speed["brim"], speed["torch"])),
                           cpu_ratio=statistics.median(b / a for a, b in zip(cpu["brim"], cpu["torch"])))
                row["memory"] = row["brim_mib"] / row["torch_mib"]
                row["grown"] = (last["brim"]["peak_rss"] - base["brim"]) / (last["torch"]["peak_rss"] - base["torch"])
                line += f"{row['torch']:>10.1f}{row['ratio']:>8.2f}{row['cpu_ratio']:>8.2f}{row['brim_mib']:>10.0f}{row['torch_mib']:>10.0f}{row['memory']:>8.2f}{row['grown']:>8.2f}"
            else:
                line += f"{'':>36}{row['brim_mib']:>10.0f}"
            print(line, flush=True)
            rows.append(row)
        if self.peer:
            mean = {k: math.exp(statistics.mean(math.log(r[k]) for r in rows)) for k in ("ratio", "cpu_ratio", "memory", "grown")}
            print(f"{'geometric mean':<24}{'':>26}{mean['ratio']:>8.2f}{mean['cpu_ratio']:>8.2f}{'':>20}{mean['memory']:>8.2f}{mean['grown']:>8.2f}")
            self.out[key + "_mean"] = mean
        self.out[key] = rows

    # -- memory

    def memory(self):
        batch, first, rows = 8 if self.o.quick else 32, None, []
        print(f"\nmemory: ResNet-50, 224 x 224, batch {batch}: MiB that the plan says (of it activations), that were counted, that the process grew by; CPU seconds a step")
        for title, share in (("all activations kept", None), ("in 0.6 of that, recomputed", 0.6)):
            how = ["--budget", str(int(first * share))] if share else ["--recompute", "-1"]
            w = Worker([self.brim, "bench", "train", "resnet50", "--turns", "--batch", str(batch), "--threads", str(self.o.threads), *how, *self.precision])
            w.ask(0.01)
            r = w.ask(0.01)
            w.close()
            first = first or w.first["predicted"]
            row = {"title": title, "batch": batch, "predicted_mib": w.first["predicted"] / MIB, "activations_mib": w.first["activations"] / MIB,
                   "counted_mib": r["counted_peak"] / MIB, "grown_mib": r["anon_growth"] / MIB, "cpu_s": r["cpu_s"] / r["steps"]}
            print(f"{title:<28}{row['predicted_mib']:>8.0f} ({row['activations_mib']:.0f}){row['counted_mib']:>8.0f}{row['grown_mib']:>8.0f} "
                  f"({100 * (row['grown_mib'] / row['predicted_mib'] - 1):+.1f} %){row['cpu_s']:>8.2f}", flush=True)
            rows.append(row)
        self.out["memory"] = rows

    # -- detectors

    def before_and_after(self, title, epochs, *words):
        """The scores of epoch 0 are those of the network as it was given."""
        begin = time.monotonic()
        lines = self.run("train", "detect", *words, "--epochs", epochs, "--score-first", "--augment", "flip=0.5", "--threads", self.o.threads,
                         "--out", self.folder / title, "--priority", "normal", "--json")
        scored = [l for l in lines if "epoch" in l]
        before, last, end = scored[0], scored[-1], lines[-1]
        row = {"before_ap50": before["ap50"], "before_ap": before["ap"], "after_ap50": last["ap50"], "after_ap": last["ap"], "best_ap50": end["best"], "epochs": epochs,
               "seconds": time.monotonic() - begin, "peak_mib": end["peak_bytes"] / MIB}
        print(f"AP50 {row['before_ap50']:.3f} -> {row['after_ap50']:.3f} (best epoch {row['best_ap50']:.3f}), AP {row['before_ap']:.3f} -> {row['after_ap']:.3f}; "
              f"{epochs} epochs, {row['seconds']:.0f} s, {row['peak_mib']:.0f} MiB", flush=True)
        self.out[title] = row

    def vehicles(self):
        print("\nvehicles: yolox_nano (COCO's car and truck) on photos of cars and ambulances, 66 of 240 held out", flush=True)
        self.before_and_after("vehicles", 2 if self.o.quick else 6, "--model", self.need("models/yolox/yolox_nano_416x416.onnx"),
                              "--data", self.need("images/openimages_vehicles/a"), "--classes", "car=2,ambulance=7", "--held-out", 0.25, "--seed", 1)

    def person(self):
        print("\nperson: the 192-pixel detector on one camera's first three quarters, taught by yolox_nano at 416; scored on the last quarter", flush=True)
        self.before_and_after("person", 2 if self.o.quick else 6, "--model", self.need("models/light_person_detector/light_person_detector.onnx"),
                              "--data", self.need("videos/multicam/four_cam/cam0.mp4"), "--teacher", self.need("models/yolox/yolox_nano_416x416.onnx"),
                              "--teacher-classes", "person=0", "--held-out", 0.25)

    # -- cifar

    def unpack(self, name):
        to = self.folder / name.removesuffix(".xz")
        if not to.exists():
            with lzma.open(self.need(f"images/cifar10/{name}")) as f:
                to.write_bytes(f.read(1000 * 3073 if self.o.quick else -1))
        return to

    def cifar(self):
        train, test = self.unpack("train_a_10000.bin.xz"), self.unpack("test_a_2000.bin.xz")
        epochs, batch, lr = self.o.epochs or (1 if self.o.quick else 24), 100, 0.1
        rows = []
        if not self.peer:
            print("\ncifar: left out, PyTorch writes the first weights")
            return
        print(f"\ncifar: ResNet-20 from nothing, {epochs} epochs, batches of {batch}, SGD {lr} cosine; brim and PyTorch from the same weights")
        for seed in range(1, (1 if self.o.quick else self.o.seeds) + 1):
            onnx = self.folder / f"resnet20-{seed}.onnx"
            torch = Worker([self.peer, __file__, "--torch-cifar", str(train), str(test), str(seed), str(epochs), str(batch), str(lr), str(self.o.threads), str(onnx)])
            begin = time.monotonic()
            lines = self.run("train", "--model", onnx, "--data", train, "--held-out", 0, "--epochs", epochs, "--batch", batch, "--lr", lr, "--warmup", 1,
                             "--augment", "flip=0.5,shift=4", "--seed", seed, "--threads", self.o.threads, "--out", self.folder / f"cifar-{seed}", "--priority", "normal", "--json")
            seconds = time.monotonic() - begin
            ours = self.run("eval", "classify", "--model", self.folder / f"cifar-{seed}" / "last.onnx", "--data", test, "--json")[-1]
            theirs = torch.ask("go")
            torch.close()
            row = {"seed": seed, "brim_top1": ours["top1"], "torch_top1": theirs["top1"], "brim_s": seconds, "torch_s": theirs["seconds"],
                   "brim_mib": lines[-1]["peak_bytes"] / MIB, "torch_mib": theirs["peak_rss"] / MIB}
            print(f"seed {seed}: brim {100 * row['brim_top1']:.2f} % in {seconds:.0f} s ({row['brim_mib']:.0f} MiB counted), PyTorch {100 * row['torch_top1']:.2f} % in "
                  f"{row['torch_s']:.0f} s ({row['torch_mib']:.0f} MiB resident)", flush=True)
            rows.append(row)
        if len(rows) > 1:
            mean = {k: statistics.mean(r[k] for r in rows) for k in rows[0]}
            apart = [100 * (r["brim_top1"] - r["torch_top1"]) for r in rows]
            print(f"mean: brim {100 * mean['brim_top1']:.2f} %, PyTorch {100 * mean['torch_top1']:.2f} %: {statistics.mean(apart):+.2f} points, standard error "
                  f"{statistics.stdev(apart) / math.sqrt(len(apart)):.2f}; seconds {mean['brim_s']:.0f} and {mean['torch_s']:.0f}")
        self.out["cifar"] = rows


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--torch-worker":
        name, task, size, batch, threads, precision = sys.argv[2:8]
        return torch_worker(name, task, int(size), int(batch), int(threads), precision)
    if len(sys.argv) > 1 and sys.argv[1] == "--torch-cifar":
        train, test, seed, epochs, batch, lr, threads, onnx = sys.argv[2:10]
        return torch_cifar(train, test, int(seed), int(epochs), int(batch), float(lr), int(threads), onnx)
    p = argparse.ArgumentParser(prog="brim bench train", description=__doc__.split("\n")[0], epilog="\n".join(__doc__.split("\n")[4:-3]),
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", help="parts, with commas: " + ",".join(PARTS))
    p.add_argument("--quick", action="store_true", help="less of everything: to see that it works, the figures mean little")
    p.add_argument("--python", help="interpreter with torch and torchvision ($BRIM_PEERS, /usr/bin/python3)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--precision", default="f32", choices=["f32", "bf16"], help="of throughput and memory; PyTorch: autocast")
    p.add_argument("--share", type=float, help="throughput: brim in this share of what PyTorch's process grows by, or as near as it comes (activations are computed again)")
    p.add_argument("--rounds", type=int, help="of throughput (7)")
    p.add_argument("--seconds", type=float, help="of each turn (3)")
    p.add_argument("--epochs", type=int, help="of cifar (24)")
    p.add_argument("--seeds", type=int, default=3, help="of cifar (3)")
    p.add_argument("--json", metavar="FILE", help="figures go there too")
    o = p.parse_args()
    parts = o.only.split(",") if o.only else PARTS
    for part in parts:
        if part not in PARTS:
            p.error(f"--only: '{part}' is none of {', '.join(PARTS)}")
    begin, bench, failed = time.monotonic(), Bench(o), False
    try:
        for part in parts:
            try:
                getattr(bench, part)()
            except (FileNotFoundError, RuntimeError) as e:
                print(f"{part}: {e}", file=sys.stderr)
                failed = True
        bench.out["seconds"] = time.monotonic() - begin
        print(f"\nall of it: {bench.out['seconds'] / 60:.1f} minutes")
        if o.json:
            pathlib.Path(o.json).write_text(json.dumps(bench.out, indent=1) + "\n")
    finally:
        shutil.rmtree(bench.folder, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
