#!/usr/bin/env python3
"""Makes tests/data/gradients/NAME.onnx and NAME.bin: small networks and what PyTorch computes of them.

    python3 tests/tools/make_gradients.py       # needs torch; made with 1.13 (Debian 12)

NAME.bin is a list of records: u32 length of the name, the name, u32 rank, i64 sizes, f32 numbers (all little-endian):
    in (the input; whole numbers for token ids), target or labels, logits, loss (20 numbers: plain gradient steps on one batch),
    grad:PARAMETER of the first step, next:STATE (running statistics after it).
The rate of the steps is the record `rate`.
SPDX-License-Identifier: Apache-2.0
"""
import os
import struct
import sys

import torch
from torch import nn
from torch.nn import functional as F

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'data', 'gradients')


class Block(nn.Module):  # ResNet's basic block
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.down = None
        if stride != 1 or cin != cout:
            self.down = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (self.down(x) if self.down else x))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2))
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.blocks(x), 1), 1))


class Inverted(nn.Module):  # MobileNetV2's
    def __init__(self, cin, cout, stride, t):
        super().__init__()
        mid = cin * t
        self.same = stride == 1 and cin == cout
        self.body = nn.Sequential(
            nn.Conv2d(cin, mid, 1, bias=False), nn.BatchNorm2d(mid), nn.ReLU6(),
            nn.Conv2d(mid, mid, 3, stride, 1, groups=mid, bias=False), nn.BatchNorm2d(mid), nn.ReLU6(),
            nn.Conv2d(mid, cout, 1, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        return x + self.body(x) if self.same else self.body(x)


class MobileNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.blocks = nn.Sequential(Inverted(8, 8, 1, 3), Inverted(8, 12, 2, 3), Inverted(12, 12, 1, 3))
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


def base(cin, cout, k, stride=1, groups=1):
    return nn.Sequential(nn.Conv2d(cin, cout, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(cout, eps=1e-3, momentum=0.03),
                         nn.SiLU())


class Yolox(nn.Module):  # focus, two levels with a way down and up, a decoupled head, boxes decoded as exported
    def __init__(self):
        super().__init__()
        self.focus = base(12, 8, 3)
        self.dark = base(8, 12, 3, 2)
        self.spp = base(24, 12, 1)
        self.lateral = base(12, 8, 1)
        self.out = base(16, 8, 3)
        self.stems = nn.ModuleList([base(8, 8, 1), base(12, 8, 1)])
        self.cls_convs = nn.ModuleList([base(8, 8, 3, groups=8), base(8, 8, 3)])
        self.reg_convs = nn.ModuleList([base(8, 8, 3), base(8, 8, 3, groups=8)])
        self.cls_preds = nn.ModuleList([nn.Conv2d(8, 3, 1) for _ in range(2)])
        self.reg_preds = nn.ModuleList([nn.Conv2d(8, 4, 1) for _ in range(2)])
        self.obj_preds = nn.ModuleList([nn.Conv2d(8, 1, 1) for _ in range(2)])

    def forward(self, x):
        x = torch.cat((x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), 1)
        a = self.focus(x)
        b = self.dark(a)
        b = self.spp(torch.cat((b, F.max_pool2d(b, 5, 1, 2)), 1))
        a = self.out(torch.cat((F.interpolate(self.lateral(b), scale_factor=2, mode='nearest'), a), 1))
        rows = []
        for i, x in enumerate((a, b)):
            x = self.stems[i](x)
            reg = self.reg_convs[i](x)
            y = torch.cat((self.reg_preds[i](reg), self.obj_preds[i](reg).sigmoid(), self.cls_preds[i](self.cls_convs[i](x)).sigmoid()), 1)
            rows.append(y.flatten(2))
        y = torch.cat(rows, 2).permute(0, 2, 1)
        return torch.cat((y[..., :2], torch.exp(0.5 * y[..., 2:4]), y[..., 4:]), -1)


class Attention(nn.Module):
    def __init__(self, d, heads, t):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.c_attn, self.c_proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.c_fc, self.c_out = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.heads = heads
        self.register_buffer('mask', torch.tril(torch.ones(t, t)).bool().view(1, 1, t, t))

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.c_attn(self.ln_1(x)).split(d, 2)
        q, k, v = (z.view(n, t, self.heads, d // self.heads).transpose(1, 2) for z in (q, k, v))
        w = (q @ k.transpose(-2, -1)) / (d // self.heads) ** 0.5
        w = F.softmax(w.masked_fill(~self.mask, float('-inf')), -1)
        x = x + self.c_proj((w @ v).transpose(1, 2).reshape(n, t, d))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x))))


class Gpt(nn.Module):  # GPT-2: weights of the head are those of the embedding
    def __init__(self, vocabulary=40, d=24, t=8):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, d), nn.Embedding(t, d)
        self.h = nn.Sequential(Attention(d, 2, t), Attention(d, 2, t))
        self.ln_f = nn.LayerNorm(d)
        self.register_buffer('places', torch.arange(t))
        for p in (self.wte, self.wpe):
            nn.init.normal_(p.weight, 0, 0.1)

    def forward(self, x):
        x = self.ln_f(self.h(self.wte(x) + self.wpe(self.places)))
        return F.linear(x, self.wte.weight).flatten(0, 1)


def record(f, name, t):
    t = t.detach().to(torch.float32).contiguous()
    n = name.encode()
    f.write(struct.pack('<I', len(n)) + n + struct.pack('<I', t.dim()) + struct.pack('<%dq' % t.dim(), *t.shape) + t.numpy().tobytes())


def make(name, net, x, kind, rate, opset=13):
    for n, p in list(net.named_parameters()) + list(net.named_buffers()):  # the exporter merges initialisers that are equal: all ones, say
        if p.dim() == 1 and p.is_floating_point():
            p.data += 0.2 * torch.rand_like(p)
    net.eval()
    path = os.path.join(OUT, name + '.onnx')
    torch.onnx.export(net, x, path, opset_version=opset, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
                      input_names=['in'], output_names=['out'])
    net.train()
    with open(os.path.join(OUT, name + '.bin'), 'wb') as f:
        record(f, 'in', x)
        record(f, 'rate', torch.tensor([rate]))
        losses = []
        target = None
        for step in range(20):
            y = net(x)
            if target is None:
                target = torch.randint(0, y.shape[1], (y.shape[0],)) if kind == 'labels' else torch.rand_like(y)
                record(f, kind, target)
                record(f, 'logits', y)
            loss = F.cross_entropy(y, target) if kind == 'labels' else F.mse_loss(y, target)
            losses.append(loss.item())
            net.zero_grad()
            loss.backward()
            for n, p in net.named_parameters():
                if step == 0:
                    record(f, 'grad:' + n, p.grad)
                p.data -= rate * p.grad
            for n, b in net.named_buffers():
                if step == 0 and 'running' in n:
                    record(f, 'next:' + n, b)
        record(f, 'loss', torch.tensor(losses))
    print('%s: %d parameters, loss %.4f to %.4f' % (name, sum(p.numel() for p in net.parameters()), losses[0], losses[-1]), file=sys.stderr)


def main():
    os.makedirs(OUT, exist_ok=True)
    torch.manual_seed(7)
    torch.set_num_threads(1)
    make('resnet', ResNet(), torch.randn(4, 3, 16, 16), 'labels', 0.1)
    make('mobilenet', MobileNet(), torch.randn(4, 3, 16, 16), 'labels', 0.1)
    make('yolox', Yolox(), torch.randn(2, 3, 32, 32), 'target', 0.1)
    make('gpt', Gpt(), torch.randint(0, 40, (3, 8)), 'labels', 0.1)


main()
