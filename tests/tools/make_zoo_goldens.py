#!/usr/bin/env python3
"""Outputs of PyTorch for the networks of `brim new`, given the same weights: writes tests/data/zoo_goldens.txt.

    python3 tests/tools/make_zoo_goldens.py BRIM [ARCH...] > tests/data/zoo_goldens.txt

BRIM is the program: `BRIM new ARCH --seed 7 --size S -o F.onnx` draws the weights. Every list of numbers (biases, normalisation) is then stirred, because
as they are drawn most are 0 or 1 and would hide mistakes; src/model/zoo_golden_test.c does the same. They go into torchvision's module, or where it has
none into one written here from the paper, in the order in which its layers run; every shape must fit and every number be used. The input is the
project's generator from seed 5. A line: network, size, output, count, largest magnitude, and 16 numbers spread over the output.

Needs torch and torchvision (made with Debian's 1.13.0 and 0.14.1), nothing else. SPDX-License-Identifier: Apache-2.0
"""
import math
import struct
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

warnings.filterwarnings("ignore")
torch.set_grad_enabled(False)


# ---- the weights: just enough of protobuf to read a file's initialisers

def varint(b, at):
    v = shift = 0
    while True:
        c = b[at]
        at += 1
        v |= (c & 127) << shift
        shift += 7
        if c < 128:
            return v, at


def fields(b):
    at = 0
    while at < len(b):
        key, at = varint(b, at)
        if key & 7 == 0:
            v, at = varint(b, at)
        elif key & 7 == 2:
            n, at = varint(b, at)
            v = b[at:at + n]
            at += n
        else:
            n = 4 if key & 7 == 5 else 8
            v = b[at:at + n]
            at += n
        yield key >> 3, v


def initialisers(path):
    with open(path, "rb") as f:
        model = memoryview(f.read())
    graph = next(v for k, v in fields(model) if k == 7)
    for k, v in fields(graph):
        if k != 5:
            continue
        dims, name, dtype, raw = [], "", 0, b""
        for kk, vv in fields(v):
            if kk == 1:
                if isinstance(vv, int):
                    dims.append(vv)
                else:
                    at = 0
                    while at < len(vv):
                        d, at = varint(vv, at)
                        dims.append(d)
            elif kk == 2:
                dtype = vv
            elif kk == 8:
                name = bytes(vv).decode()
            elif kk == 9:
                raw = vv
        if dtype == 1:
            yield name, np.frombuffer(raw, np.float32).reshape(dims).copy()


def lcg(seed, n):
    out = np.empty(n, np.uint32)
    x = seed
    for i in range(n):
        x = (x * 1664525 + 1013904223) & 0xffffffff
        out[i] = x
    return out


def stir(name, a):
    seed = 0
    for c in name.encode():
        seed = (seed * 31 + c) & 0xffffffff
    u = (lcg(seed, a.size) >> 8).astype(np.float32) / np.float32(16777216)
    if name.endswith(".running_var"):
        return np.float32(0.5) + u
    return a + np.float32(0.2) * (u - np.float32(0.5))


def weights(path):
    rows = []
    for name, a in initialisers(path):
        if a.ndim == 0 or name.endswith((".fixed", ".scales")):
            continue
        rows.append((name, stir(name, a) if a.ndim == 1 else a))
    return rows


# ---- into a module, in the order in which its layers run

def leaves(m):
    return [x for x in m.modules() if not list(x.children()) and (list(x.parameters(recurse=False)) or isinstance(x, nn.BatchNorm2d))]


def load(module, rows, run):
    order, hooks = [], []
    for leaf in leaves(module):
        hooks.append(leaf.register_forward_pre_hook(lambda m, _: order.append(m) if m not in order else None))
    run(module)
    for h in hooks:
        h.remove()
    at = 0
    rows = [r for r in rows if not r[0].endswith(".rescale")] if not hasattr(module, "scale_of") else rows
    special = [a for n, a in rows if n.endswith(".rescale")]
    rows = [r for r in rows if not r[0].endswith(".rescale")]
    if special:
        module.scale_of().data = torch.from_numpy(special[0].reshape(-1))
    for m in order:
        tensors = [m.weight] + ([m.bias] if getattr(m, "bias", None) is not None else [])
        if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm1d)):
            tensors += [m.running_mean, m.running_var]
        for t in tensors:
            name, a = rows[at]
            at += 1
            if tuple(t.shape) != a.shape:
                sys.exit(f"{name} is {a.shape}, {m} wants {tuple(t.shape)}")
            t.data = torch.from_numpy(a)
    if at != len(rows):
        sys.exit(f"{len(rows) - at} tensors are left over, from {rows[at][0]}")


# ---- modules that torchvision does not have

class Unit(nn.Module):
    def __init__(self, i, o, k=1, s=1, g=1, act="relu", eps=1e-5):
        super().__init__()
        self.c, self.b, self.act = nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o, eps=eps), act

    def forward(self, x):
        x = self.b(self.c(x))
        return {"relu": F.relu, "silu": F.silu, "leaky": lambda v: F.leaky_relu(v, 0.1), "none": lambda v: v}[self.act](x)


class Yolov3(nn.Module):
    def __init__(self):
        super().__init__()
        u = lambda i, o, k, s=1: Unit(i, o, k, s, act="leaky")
        self.stem = u(3, 32, 3)
        self.stages, self.blocks = nn.ModuleList(), nn.ModuleList()
        for i, n in enumerate([1, 2, 8, 8, 4]):
            w = 64 << i
            self.stages.append(u(w // 2, w, 3, 2))
            self.blocks.append(nn.ModuleList(nn.Sequential(u(w, w // 2, 1), u(w // 2, w, 3)) for _ in range(n)))
        five = lambda i, w: nn.Sequential(u(i, w, 1), u(w, 2 * w, 3), u(2 * w, w, 1), u(w, 2 * w, 3), u(2 * w, w, 1))
        self.fives = nn.ModuleList([five(1024, 512), five(768, 256), five(384, 128)])
        self.heads = nn.ModuleList(nn.Sequential(u(w, 2 * w, 3), nn.Conv2d(2 * w, 255, 1)) for w in (512, 256, 128))
        self.ups = nn.ModuleList([u(512, 256, 1), u(256, 128, 1)])

    def forward(self, x):
        x, route, out = self.stem(x), [], []
        for s, b in zip(self.stages, self.blocks):
            x = s(x)
            for r in b:
                x = x + r(x)
            route.append(x)
        for i in range(3):
            if i:
                x = torch.cat([F.interpolate(self.ups[i - 1](x), scale_factor=2), route[4 - i]], 1)
            x = self.fives[i](x)
            out.append(self.heads[i](x))
        return out


class Yolov3Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        u = lambda i, o, k: Unit(i, o, k, act="leaky")
        self.body = nn.ModuleList(u(3 if w == 16 else w // 2, w, 3) for w in (16, 32, 64, 128, 256, 512))
        self.a, self.b, self.c = u(512, 1024, 3), u(1024, 256, 1), u(256, 512, 3)
        self.large, self.d, self.e, self.small = nn.Conv2d(512, 255, 1), u(256, 128, 1), u(384, 256, 3), nn.Conv2d(256, 255, 1)

    def forward(self, x):
        for i, m in enumerate(self.body):
            x = m(x)
            if i == 4:
                route = x
            if i < 5:
                x = F.max_pool2d(x, 2)
        x = self.b(self.a(F.max_pool2d(x, 3, 1, 1)))
        large = self.large(self.c(x))
        return [large, self.small(self.e(torch.cat([F.interpolate(self.d(x), scale_factor=2), route], 1)))]


class Yolox(nn.Module):
    """Written after the paper's figures and YOLOX's configuration table."""
    def __init__(self, depth, width, dw):
        super().__init__()
        u = lambda i, o, k=1, s=1, g=1: Unit(i, o, k, s, g, "silu", 1e-3)
        conv = lambda i, o, s=1: nn.Sequential(u(i, i, 3, s, i), u(i, o)) if dw else u(i, o, 3, s)
        d, w = max(round(3 * depth), 1), int(64 * width)

        class Csp(nn.Module):
            def __init__(self, i, o, n, add):
                super().__init__()
                h = o // 2
                self.a, self.b, self.m, self.c, self.add = u(i, h), u(i, h), nn.ModuleList(nn.Sequential(u(h, h), conv(h, h)) for _ in range(n)), u(2 * h, o), add

            def forward(self, x):
                a, b = self.a(x), self.b(x)
                for m in self.m:
                    a = a + m(a) if self.add else m(a)
                return self.c(torch.cat([a, b], 1))

        self.focus = u(12, w, 3)
        c3, c4, c5 = 4 * w, 8 * w, 16 * w
        self.d2 = nn.Sequential(conv(w, 2 * w, 2), Csp(2 * w, 2 * w, d, True))
        self.d3 = nn.Sequential(conv(2 * w, c3, 2), Csp(c3, c3, 3 * d, True))
        self.d4 = nn.Sequential(conv(c3, c4, 2), Csp(c4, c4, 3 * d, True))
        self.down5, self.spp1, self.spp2, self.csp5 = conv(c4, c5, 2), u(c5, c5 // 2), u(2 * c5, c5), Csp(c5, c5, d, False)
        self.lateral, self.p4, self.reduce, self.p3 = u(c5, c4), Csp(2 * c4, c4, d, False), u(c4, c3), Csp(2 * c3, c3, d, False)
        self.b2, self.n3, self.b1, self.n4 = conv(c3, c3, 2), Csp(2 * c3, c4, d, False), conv(c4, c4, 2), Csp(2 * c4, c5, d, False)
        h = 4 * w
        self.heads = nn.ModuleList(nn.ModuleList([u(c, h), nn.Sequential(conv(h, h), conv(h, h)), nn.Conv2d(h, 80, 1), nn.Sequential(conv(h, h), conv(h, h)),
                                                  nn.Conv2d(h, 4, 1), nn.Conv2d(h, 1, 1)]) for c in (c3, c4, c5))

    def forward(self, x):
        x = self.focus(torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1))
        x2 = self.d3(self.d2(x))
        x1 = self.d4(x2)
        y = self.spp1(self.down5(x1))
        x0 = self.csp5(self.spp2(torch.cat([y] + [F.max_pool2d(y, k, 1, k // 2) for k in (5, 9, 13)], 1)))
        top = self.lateral(x0)
        mid = self.reduce(self.p4(torch.cat([F.interpolate(top, scale_factor=2), x1], 1)))
        m0 = self.p3(torch.cat([F.interpolate(mid, scale_factor=2), x2], 1))
        m1 = self.n3(torch.cat([self.b2(m0), mid], 1))
        m2 = self.n4(torch.cat([self.b1(m1), top], 1))
        out = []
        for x, (stem, c, cp, r, bp, op) in zip((m0, m1, m2), self.heads):
            x = stem(x)
            cls = cp(c(x)).sigmoid()
            f = r(x)
            out.append(torch.cat([bp(f), op(f).sigmoid(), cls], 1).flatten(2))
        return [torch.cat(out, 2).transpose(1, 2)]


class Osnet(nn.Module):
    def __init__(self):
        super().__init__()

        class Light(nn.Module):
            def __init__(self, c):
                super().__init__()
                self.a, self.b, self.n = nn.Conv2d(c, c, 1, bias=False), nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False), nn.BatchNorm2d(c)

            def forward(self, x):
                return F.relu(self.n(self.b(self.a(x))))

        class Block(nn.Module):
            def __init__(self, i, o):
                super().__init__()
                m = o // 4
                self.a = Unit(i, m)
                self.s = nn.ModuleList(nn.Sequential(*[Light(m) for _ in range(n)]) for n in (1, 2, 3, 4))
                self.g1, self.g2, self.b = nn.Conv2d(m, max(m // 16, 1), 1), nn.Conv2d(max(m // 16, 1), m, 1), Unit(m, o, act="none")
                self.d = Unit(i, o, act="none") if i != o else None

            def forward(self, x):
                y = self.a(x)
                streams = [s(y) for s in self.s]
                y = sum(s * self.g2(F.relu(self.g1(s.mean((2, 3), keepdim=True)))).sigmoid() for s in streams)
                y = self.b(y)
                return F.relu(y + (self.d(x) if self.d else x))

        self.stem = Unit(3, 16, 7, 2)
        self.body = nn.ModuleList([Block(16, 64), Block(64, 64), Unit(64, 64), Block(64, 96), Block(96, 96), Unit(96, 96), Block(96, 128), Block(128, 128),
                                   Unit(128, 128)])
        self.fc, self.bn = nn.Linear(128, 512), nn.BatchNorm1d(512)

    def forward(self, x):
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        for i, m in enumerate(self.body):
            x = m(x)
            if i in (2, 5):
                x = F.avg_pool2d(x, 2)
        return [F.relu(self.bn(self.fc(x.mean((2, 3)))))]


class Transposed(nn.Module):
    """x W + b, W as [in, out]."""
    def __init__(self, i, o):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(i, o)), nn.Parameter(torch.zeros(o))

    def forward(self, x):
        return x @ self.weight + self.bias


class Positions(nn.Module):
    def __init__(self, n, w):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n, w))

    def forward(self, n):
        return self.weight[:n]


class Gpt2(nn.Module):
    def __init__(self, layers, width, heads, vocabulary, positions):
        super().__init__()
        self.heads, self.e, self.p = heads, nn.Embedding(vocabulary, width), Positions(positions, width)
        self.layers = nn.ModuleList(nn.ModuleList([nn.LayerNorm(width), Transposed(width, 3 * width), Transposed(width, width), nn.LayerNorm(width),
                                                   Transposed(width, 4 * width), Transposed(4 * width, width)]) for _ in range(layers))
        self.last = nn.LayerNorm(width)

    def forward(self, t):
        x = self.e(t) + self.p(t.shape[1])
        n, l, w = x.shape
        for n1, qkv, proj, n2, up, down in self.layers:
            q, k, v = (a.view(n, l, self.heads, -1).transpose(1, 2) for a in qkv(n1(x)).split(w, 2))
            a = (q @ k.transpose(2, 3) / math.sqrt(w // self.heads)).masked_fill(torch.ones(l, l).triu(1).bool(), -math.inf).softmax(3) @ v
            x = x + proj(a.transpose(1, 2).reshape(n, l, w))
            h = up(n2(x))
            x = x + down(0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h ** 3))))
        return [self.last(x) @ self.e.weight.T]


class Rms(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(w))

    def forward(self, x):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * self.weight


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        lin = lambda i, o: nn.Linear(i, o, bias=False)
        self.e = nn.Embedding(512, 64)
        self.layers = nn.ModuleList(nn.ModuleList([Rms(64), lin(64, 64), lin(64, 32), lin(64, 32), lin(64, 64), Rms(64), lin(64, 172), lin(64, 172), lin(172, 64)])
                                    for _ in range(5))
        self.last = Rms(64)

    @staticmethod
    def turn(x):
        n, l, h, d = x.shape
        angle = torch.arange(l)[:, None] * 10000.0 ** (-torch.arange(0, d, 2) / d)
        c = torch.view_as_complex(x.reshape(n, l, h, d // 2, 2)) * torch.polar(torch.ones_like(angle), angle)[None, :, None]
        return torch.view_as_real(c).reshape(n, l, h, d)

    def forward(self, t):
        x = self.e(t)
        n, l, w = x.shape
        for n1, q, k, v, o, n2, gate, up, down in self.layers:
            y = n1(x)
            Q, K, V = self.turn(q(y).view(n, l, 8, 8)), self.turn(k(y).view(n, l, 4, 8)), v(y).view(n, l, 4, 8)
            Q, K, V = Q.transpose(1, 2), K.repeat_interleave(2, 2).transpose(1, 2), V.repeat_interleave(2, 2).transpose(1, 2)
            a = (Q @ K.transpose(2, 3) / math.sqrt(8)).masked_fill(torch.ones(l, l).triu(1).bool(), -math.inf).softmax(3) @ V
            x = x + o(a.transpose(1, 2).reshape(n, l, w))
            y = n2(x)
            x = x + down(F.silu(gate(y)) * up(y))
        return [self.last(x) @ self.e.weight.T]


class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        c = lambda i, o: nn.Sequential(nn.Conv2d(i, o, 3, 1, 1), nn.ReLU())
        two = lambda i, o: nn.Sequential(c(i, o), c(o, o))
        w = [16, 32, 64, 96]
        self.down = nn.ModuleList([two(3, 16), two(16, 32), two(32, 64)])
        self.mid = two(64, 96)
        self.up = nn.ModuleList([c(96, 64), c(64, 32), c(32, 16)])
        self.join = nn.ModuleList([two(128, 64), two(64, 32), two(32, 16)])
        self.last = nn.Conv2d(16, 3, 3, 1, 1)

    def forward(self, x):
        y, skip = x, []
        for m in self.down:
            skip.append(m(y))
            y = F.max_pool2d(skip[-1], 2)
        y = self.mid(y)
        for u, j in zip(self.up, self.join):
            y = j(torch.cat([skip.pop(), u(F.interpolate(y, scale_factor=2))], 1))
        return [x + self.last(y)]


class Ssd(nn.Module):
    """torchvision's backbone and head, without what makes boxes of their outputs."""
    def __init__(self, name):
        super().__init__()
        full = getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None)
        self.backbone, self.head = full.backbone, full.head
        if name.startswith("ssd300"):
            self.scale_of = lambda: self.backbone.scale_weight

    def forward(self, x):
        y = self.head(list(self.backbone(x).values()))
        return [y["bbox_regression"], y["cls_logits"]]


def vision(name, **kw):
    return lambda: getattr(torchvision.models, name)(weights=None, **kw)


NETS = {  # name: (size, module)
    **{n: (64, vision(n)) for n in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")},
    **{n: (224, vision(n)) for n in ("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn", "alexnet")},
    "mobilenetv2": (64, vision("mobilenet_v2")), "squeezenet": (96, vision("squeezenet1_0")),
    "mobilenetv3-large": (64, vision("mobilenet_v3_large")), "mobilenetv3-small": (64, vision("mobilenet_v3_small")),
    "shufflenetv2": (64, vision("shufflenet_v2_x1_0")), "googlenet": (96, vision("googlenet", aux_logits=False, init_weights=False)),
    "inceptionv3": (107, vision("inception_v3", aux_logits=False, init_weights=False)), "densenet121": (64, vision("densenet121")),
    "ssd300-vgg": (300, lambda: Ssd("ssd300_vgg16")), "ssdlite-mobilenetv3": (160, lambda: Ssd("ssdlite320_mobilenet_v3_large")),
    "yolov3": (64, Yolov3), "yolov3-tiny": (64, Yolov3Tiny),
    "yolox-nano": (96, lambda: Yolox(0.33, 0.25, True)), "yolox-tiny": (64, lambda: Yolox(0.33, 0.375, False)), "yolox-s": (64, lambda: Yolox(0.33, 0.5, False)),
    "osnet-x0.25": (128, Osnet), "unet": (32, Unet),
    "gpt2": (32, lambda: Gpt2(12, 768, 12, 50257, 1024)), "gpt2-mini": (48, lambda: Gpt2(6, 384, 6, 512, 256)), "llama-mini": (48, Llama),
}


def main():
    brim, only = sys.argv[1], sys.argv[2:]
    print(f"# made by tests/tools/make_zoo_goldens.py with torch {torch.__version__}, torchvision {torchvision.__version__}")
    for arch, (size, make) in NETS.items():
        if only and arch not in only:
            continue
        with tempfile.NamedTemporaryFile(suffix=".onnx") as f:
            subprocess.run([brim, "new", arch, "--seed", "7", "--size", str(size), "-o", f.name], check=True, stdout=subprocess.DEVNULL)
            rows = weights(f.name)
        module = make().eval()
        if "gpt2" in arch or "llama" in arch:
            x = torch.from_numpy((lcg(5, size) >> 8).astype(np.int64) % (50257 if arch == "gpt2" else 512))[None]
        else:
            w = size // 2 if arch.startswith("osnet") else size
            x = torch.from_numpy(((lcg(5, 3 * size * w) >> 8).astype(np.float32) / np.float32(16777216)).reshape(1, 3, size, w))
        load(module, rows, lambda m: m(x))
        out = module(x)
        for i, y in enumerate(out if isinstance(out, list) else [out]):
            y = y.double().flatten().numpy()
            at = [k * (len(y) - 1) // 15 for k in range(16)]
            print(arch, size, i, len(y), "%.9g" % np.abs(y).max(), *("%.9g" % y[k] for k in at), flush=True)


main()
