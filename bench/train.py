"""Training steps beside PyTorch: the same networks, batch, precision and threads, in turn, each in a process of its own.

usage: train.py PATH-TO-brim [--rounds 3] [--only NAME] [--precision f32|bf16]

Each process takes one step that is not counted and then a few; its least counts, and the least of the rounds. PyTorch runs channels_last and, with
--precision bf16, under torch.cpu.amp.autocast. Memory: brim's peak of its budget and its largest resident set; PyTorch's largest resident set less that
after `import torch` and a product (what its libraries take), which favours PyTorch. Needs torch and torchvision; prints what it found.
SPDX-License-Identifier: Apache-2.0"""
import argparse, json, math, os, resource, subprocess, sys, time

JOBS = [("resnet18", 64, 32), ("resnet18", 224, 8), ("mobilenetv2", 96, 16), ("gpt2-mini", 512, 1)]


def network(name, size):
    import torch, torchvision
    from torch import nn
    if name == "resnet18": return torchvision.models.resnet18(num_classes=1000)
    if name == "mobilenetv2": return torchvision.models.mobilenet_v2(num_classes=1000, dropout=0.0)
    if name == "resnet50": return torchvision.models.resnet50(num_classes=1000)
    if name == "gpt2-mini": return gpt(nn, torch, size)
    raise SystemExit(f"{name}: no twin in PyTorch here")


def gpt(nn, torch, size, words=None):
    spec = json.loads(os.environ.get("GPT", '{"vocab": 512, "width": 384, "layers": 6, "heads": 6, "places": 512}'))
    width, heads, vocab = spec["width"], spec["heads"], spec["vocab"]

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x, mask):
            n, t, _ = x.shape
            q, k, v = self.qkv(self.a(x)).view(n, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            w = (q @ k.transpose(-1, -2) / math.sqrt(width // heads) + mask).softmax(-1)
            x = x + self.out((w @ v).transpose(1, 2).reshape(n, t, width))
            return x + self.down(nn.functional.gelu(self.up(self.b(x))))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.word, self.place = nn.Embedding(vocab, width), nn.Embedding(spec.get("places", 1024), width)
            self.blocks, self.norm = nn.ModuleList(Block() for _ in range(spec["layers"])), nn.LayerNorm(width)
            self.register_buffer("mask", torch.triu(torch.full((size, size), -1e9), 1))

        def forward(self, x):
            h = self.word(x) + self.place(torch.arange(x.shape[1]))
            for b in self.blocks: h = b(h, self.mask)
            return self.norm(h) @ self.word.weight.T

    return Net()


def torch_step(name, size, batch, precision, steps):
    import torch
    torch.set_num_threads(2)
    torch.manual_seed(1)
    torch.rand(256, 256) @ torch.rand(256, 256)
    libraries = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    m = network(name, size).train()
    text = name.startswith("gpt2")
    if text:
        vocab = m.word.weight.shape[0]
        x, y = torch.randint(vocab, (batch, size)), torch.randint(vocab, (batch * size,))
        opt = torch.optim.AdamW(m.parameters(), lr=1e-4)
    else:
        m = m.to(memory_format=torch.channels_last)
        x, y = torch.rand(batch, 3, size, size).to(memory_format=torch.channels_last), torch.randint(1000, (batch,))
        opt = torch.optim.SGD(m.parameters(), lr=1e-4, momentum=0.9)
    wall, cpu = [], []
    for i in range(steps + 1):
        a, b = time.perf_counter(), time.process_time()
        opt.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            out = m(x)
        out = out.float()
        torch.nn.functional.cross_entropy(out.view(-1, out.shape[-1]), y).backward()
        opt.step()
        if i:
            wall.append(time.perf_counter() - a)
            cpu.append(time.process_time() - b)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"ms": min(wall) * 1e3, "cpu_ms": min(cpu) * 1e3, "bytes": peak - libraries, "resident": peak,
                      "parameters": sum(p.numel() for p in m.parameters())}))


def child(argv):
    p = subprocess.run(argv, capture_output=True, text=True)
    if p.returncode: return None, p.stderr.strip().splitlines()[-1:]
    r = json.loads(p.stdout.strip().splitlines()[-1])
    return r, None


def main():
    a = argparse.ArgumentParser()
    a.add_argument("brim")
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--steps", type=int, default=5)
    a.add_argument("--only", default="")
    a.add_argument("--precision", default="f32")
    a.add_argument("--torch", nargs=3)
    o = a.parse_args()
    if o.torch: return torch_step(o.torch[0], int(o.torch[1]), int(o.torch[2]), o.precision, o.steps)
    began, ratios = time.time(), []
    print("| network, side or words, batch | brim ms (processor) | PyTorch ms (processor) | times as fast | brim MB, of its budget | PyTorch MB, less its libraries | share | whole processes | share |\n|---|---|---|---|---|---|---|---|---|---|")
    for name, size, batch in JOBS:
        if o.only and o.only != name: continue
        ours, theirs, why = [], [], None
        for _ in range(o.rounds):
            argv = [o.brim, "bench", "train", name, "--size", str(size), "--batch", str(batch), "--steps", str(o.steps), "--json"]
            if name.startswith("gpt2"): argv += ["--optimizer", "adamw"]
            if o.precision != "f32": argv += ["--precision", o.precision]
            x, bad = child(argv)
            if x: ours.append(x)
            else: print(name, bad, file=sys.stderr)
            x, why = child([sys.executable, __file__, o.brim, "--precision", o.precision, "--steps", str(o.steps), "--torch", name, str(size), str(batch)])
            if x: theirs.append(x)
            else: print(name, why, file=sys.stderr)
        if not ours or not theirs: continue
        least = lambda l, k: min(x[k] for x in l)
        m, t = least(ours, "ms"), least(theirs, "ms")
        ratios.append(t / m)
        if ours[0]["parameters"] != theirs[0]["parameters"]: print(f"{name}: {ours[0]['parameters']} parameters against {theirs[0]['parameters']}", file=sys.stderr)
        print(f"| {name}, {size}, {batch} | {m:.0f} ({least(ours, 'cpu_ms'):.0f}) | {t:.0f} ({least(theirs, 'cpu_ms'):.0f}) | {t / m:.2f} | "
              f"{ours[0]['all'] / 1e6:.0f} | {least(theirs, 'bytes') / 1e6:.0f} | {ours[0]['all'] / least(theirs, 'bytes'):.2f} | "
              f"{least(ours, 'resident') / 1e6:.0f}, {least(theirs, 'resident') / 1e6:.0f} | {least(ours, 'resident') / least(theirs, 'resident'):.2f} |", flush=True)
    if ratios: print(f"\ngeometric mean {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}; {time.time() - began:.0f} s in all")


main()
