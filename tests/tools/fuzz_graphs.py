"""Random small graphs over many operators, shapes, attributes and types, checked against ONNX Runtime.

    python tests/tools/fuzz_graphs.py BRIM COUNT [SEED] [--keep DIR]     # prints a line per disagreement and the figure
    python tests/tools/fuzz_graphs.py --record DIR COUNT [SEED]          # writes cases for `brim verify`
    --more: every other node from fuzz_more.py, at opset 17, 21, 23 or 24

A graph is grown node by node: what ONNX Runtime refuses, or what is not finite, is dropped. Values are multiples of 1/8, and a value remembers
whether it is exact; operators that jump (Floor, Greater, ArgMax ...) read exact values only, as the last bit of a float must not decide.
Empty values are left out: ONNX Runtime 1.31 returns what was in memory for a MatMul over 0 and allows windows that do not fit.
Tolerance: |a - b| <= 1e-4 * max(1, max |b|) + 1e-3 |b|, types and shapes equal. SPDX-License-Identifier: Apache-2.0"""
import json, os, random, shutil, subprocess, sys, tempfile
import numpy as np, onnx, onnxruntime as ort
from onnx import helper as h, numpy_helper as nh, TensorProto as T
import fuzz_more

MORE = "--more" in sys.argv
so = ort.SessionOptions()
so.log_severity_level = 4
so.intra_op_num_threads = 1
ort.set_default_logger_severity(4)


def run(model, feed):
    return ort.InferenceSession(model.SerializeToString(), so, providers=["CPUExecutionProvider"]).run(None, feed)


FLOAT = "Abs Neg Relu LeakyRelu Elu Selu Celu Sigmoid Tanh Softplus Softsign HardSigmoid HardSwish Erf Sin Cos Atan Asinh Identity ThresholdedRelu Sqrt Exp Reciprocal Sinh Cosh Log".split()
EXACT_UNARY = {"Abs", "Neg", "Relu", "Identity"}
JUMPS = "Floor Ceil Round Sign".split()
BINARY = "Add Sub Mul Max Min Div Pow Mean Sum".split()
COMPARE = "Greater Less Equal GreaterOrEqual LessOrEqual".split()
REDUCE = "ReduceSum ReduceMean ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp ReduceProd".split()
NP = {np.dtype("float32"): T.FLOAT, np.dtype("float64"): T.DOUBLE, np.dtype("int64"): T.INT64, np.dtype("int32"): T.INT32, np.dtype("bool"): T.BOOL,
      np.dtype("uint8"): T.UINT8, np.dtype("int8"): T.INT8}


class Graph:
    def __init__(self, rng):
        self.r, self.nodes, self.values, self.exact = rng, [], {}, {}
        self.opset = rng.choice([17, 21, 23, 24]) if MORE else 17
        self.inputs, self.consts = [], []
        self.last = set()  # values that no other node may read
        for _ in range(rng.randint(1, 3)):
            self.leaf(self.draw(self.shape(), rng.choice(["float32"] * 5 + ["int64", "int32", "float64"])), const=False)

    def shape(self, rank=None):
        return [self.r.choice([1, 2, 3, 4, 5, 7, 8]) for _ in range(self.r.randint(0, 4) if rank is None else rank)]

    def draw(self, shape, dtype="float32"):
        g = np.random.default_rng(self.r.getrandbits(32))
        if dtype == "bool":
            return g.random(shape) > 0.5
        a = g.integers(-16, 17, shape)
        return np.asarray(a / 8 if dtype.startswith("f") else np.abs(a) if dtype == "uint8" else a).astype(dtype)

    def leaf(self, a, const=None):
        name = f"v{len(self.values)}"
        self.values[name], self.exact[name] = np.asarray(a), True
        (self.consts if (self.r.random() < 0.6 if const is None else const) else self.inputs).append(name)
        return name

    def const(self, a):
        return self.leaf(np.asarray(a), True)

    def pick(self, ok=lambda a: True, exact=False):
        names = [n for n, a in self.values.items() if n not in self.consts and n not in self.last and ok(a) and (not exact or self.exact[n])]
        return self.r.choice(names[-6:]) if names else None

    def imports(self):
        return [h.make_opsetid("", self.opset)] + ([h.make_opsetid(fuzz_more.MS, 1)] if MORE else [])

    def add(self, op, ins, n_out=1, keeps=True, domain="", **attrs):
        outs = [f"v{len(self.values) + i}" for i in range(n_out)]
        attrs = {k: v for k, v in attrs.items() if v != []}
        node = h.make_node(op, ins, outs, domain=domain, **attrs)
        feed = {i: self.values[i] for i in ins if i}
        m = h.make_model(h.make_graph([node], "g", [h.make_tensor_value_info(k, NP[a.dtype], a.shape) for k, a in feed.items()],
                                      [h.make_tensor_value_info(o, T.UNDEFINED, None) for o in outs]), opset_imports=self.imports(), ir_version=10)
        for o in m.graph.output:
            o.ClearField("type")
        try:
            got = run(m, feed)
        except Exception:
            return False
        for a in got:
            if a.dtype not in NP or not a.size or a.size > 20000 or not np.all(np.isfinite(a.astype(np.float64))) or (a.size and np.abs(a.astype(np.float64)).max() > 1e5):
                return False
        exact = keeps and all(self.exact[i] for i in ins if i)
        for o, a in zip(outs, got):
            self.values[o], self.exact[o] = a, exact
        self.nodes.append(node)
        return True

    def grow(self):
        if MORE and self.r.random() < 0.5:
            return fuzz_more.grow(self)
        r, f = self.r, lambda a: a.dtype.kind == "f"
        what = r.choice("unary unary binary binary compare reduce shape shape shape conv conv pool matmul gemm gather scatter softmax norm where topk cast nonzero clip concat arg pad resize cumsum logic dynamic onehot einsum quant trilu".split())
        x = self.pick(f)
        a = self.values.get(x)
        if what == "unary" and x:
            if r.random() < 0.2:
                y = self.pick(f, True)
                return y and self.add(r.choice(JUMPS), [y])
            op = r.choice(FLOAT)
            kw = {"alpha": r.choice([0.1, 0.5, 1.0, 2.0])} if op in ("LeakyRelu", "Elu", "Celu", "ThresholdedRelu") else {}
            if op == "ThresholdedRelu" and not self.exact[x]:
                return
            return self.add(op, [x], keeps=op in EXACT_UNARY, **kw)
        if what in ("binary", "compare", "logic"):
            x = self.pick((lambda v: v.dtype == bool) if what == "logic" else (lambda v: v.dtype != bool), what == "compare")
            if not x:
                return
            a = self.values[x]
            shape = list(a.shape[r.randint(0, a.ndim):])
            shape = [1 if r.random() < 0.25 else d for d in shape]
            y = self.leaf(self.draw(shape, str(a.dtype)))
            op = r.choice(BINARY if what == "binary" else COMPARE if what == "compare" else ["And", "Or", "Xor"])
            if a.dtype.kind != "f" and op in ("Div", "Pow", "Mean", "Sum"):
                op = "Mul"
            return self.add(op, [x, y] if r.random() < 0.7 else [y, x], keeps=op not in ("Div", "Pow", "Mean"))
        if not x:
            return
        n = a.ndim
        ax = r.randint(-n, n - 1) if n else 0
        axes = sorted(r.sample(range(n), r.randint(1, n))) if n else []
        if what == "reduce" and n:
            op = r.choice(REDUCE)
            kd = r.randint(0, 1)
            if op == "ReduceSum":
                return self.add(op, [x, self.const(np.array(axes, np.int64))], keeps=False, keepdims=kd)
            keeps = op in ("ReduceMax", "ReduceMin")
            if self.opset >= 18:
                return self.add(op, [x, self.const(np.array(axes, np.int64))], keeps=keeps, keepdims=kd)
            return self.add(op, [x], keeps=keeps, axes=axes, keepdims=kd)
        if what == "shape":
            k = r.choice("transpose reshape squeeze unsqueeze flatten slice tile expand split d2s s2d shape".split())
            x = self.pick()
            a = self.values[x]
            n = a.ndim
            i64 = lambda v: self.const(np.array(v, np.int64))
            if k == "transpose":
                p = list(range(n))
                r.shuffle(p)
                return self.add("Transpose", [x], perm=p)
            if k == "reshape":
                d = list(a.shape)
                d = d + [1] if r.random() < 0.3 or not d else [-1] + d[2:] if n > 1 else [1, -1]
                return self.add("Reshape", [x, i64(d)])
            if k == "squeeze":
                return self.add("Squeeze", [x])
            if k == "unsqueeze":
                return n < 5 and self.add("Unsqueeze", [x, i64([r.randint(0, n)])])
            if k == "flatten":
                return self.add("Flatten", [x], axis=r.randint(0, n))
            if k == "slice" and n:
                axs = r.sample(range(n), r.randint(1, n))
                return self.add("Slice", [x, i64([r.randint(-6, 6) for _ in axs]), i64([r.choice([-7, -1, 2, 3, 99]) for _ in axs]), i64(axs), i64([r.choice([1, 1, 2, -1]) for _ in axs])])
            if k == "tile" and n:
                return self.add("Tile", [x, i64([r.randint(1, 2) for _ in range(n)])])
            if k == "expand":
                return self.add("Expand", [x, i64([r.choice([1, 1, d]) for d in a.shape] if r.random() < 0.5 else [2] + list(a.shape))])
            if k == "split" and n and a.shape[-1] > 1:
                c = r.randint(1, a.shape[-1] - 1)
                return self.add("Split", [x, i64([c, a.shape[-1] - c])], 2, axis=-1)
            if k == "d2s" and n == 4:
                return self.add("DepthToSpace", [x], blocksize=2, mode=r.choice(["DCR", "CRD"]))
            if k == "s2d" and n == 4:
                return self.add("SpaceToDepth", [x], blocksize=2)
            return self.add("Shape", [x])
        if what == "conv":
            sp = r.choice([1, 2, 2, 2, 3])
            if a.dtype != np.float32 or n != sp + 2:
                x = self.leaf(self.draw([r.randint(1, 2), r.choice([1, 2, 3, 4, 6, 8])] + [r.randint(3, 9) for _ in range(sp)]), False)
                a = self.values[x]
            g = r.choice([v for v in range(1, a.shape[1] + 1) if a.shape[1] % v == 0])
            kk = [r.randint(1, 3) for _ in range(sp)]
            out = g * r.randint(1, 3)
            kw = dict(group=g, strides=[r.randint(1, 2) for _ in range(sp)])
            if r.random() < 0.3:
                kw["auto_pad"] = r.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
            else:
                kw["pads"] = [r.randint(0, 2) for _ in range(2 * sp)]
            tr = r.random() < 0.3
            if not tr and "auto_pad" not in kw or r.random() < 0.2:
                kw["dilations"] = [r.randint(1, 2) for _ in range(sp)]
            w = self.leaf(self.draw([a.shape[1], out // g] + kk if tr else [out, a.shape[1] // g] + kk), r.random() < 0.85)
            ins = [x, w] + ([self.const(self.draw([out]))] if r.random() < 0.5 else [])
            return self.add("ConvTranspose" if tr else "Conv", ins, keeps=False, **kw)
        if what == "pool" and n in (3, 4, 5):
            op = r.choice("MaxPool AveragePool GlobalAveragePool GlobalMaxPool".split())
            if op.startswith("G"):
                return self.add(op, [x], keeps=op == "GlobalMaxPool")
            kk = [r.randint(1, min(3, d)) for d in a.shape[2:]]
            kw = dict(kernel_shape=kk, strides=[r.randint(1, 2) for _ in kk], pads=[r.randint(0, k - 1) for k in kk * 2], ceil_mode=r.choice([0, 0, 1]))
            if op == "AveragePool":
                kw["count_include_pad"] = r.randint(0, 1)
                kw["ceil_mode"] = 0
            return self.add(op, [x], keeps=op == "MaxPool", **kw)
        if what == "matmul" and n:
            k = a.shape[-1]
            y = self.leaf(self.draw(r.choice([[k, r.randint(1, 9)], [k], list(a.shape[:-2]) + [k, 3]]), str(a.dtype)))
            return self.add("MatMul", [x, y], keeps=False)
        if what == "gemm" and n == 2:
            ta, tb, m = r.randint(0, 1), r.randint(0, 1), r.randint(1, 9)
            k, rows = (a.shape[0], a.shape[1]) if ta else (a.shape[1], a.shape[0])
            y = self.leaf(self.draw([m, k] if tb else [k, m], str(a.dtype)))
            ins = [x, y] + ([self.leaf(self.draw(r.choice([[m], [1], [rows, m], [rows, 1]]), str(a.dtype)))] if r.random() < 0.6 else [])
            return self.add("Gemm", ins, keeps=False, transA=ta, transB=tb, alpha=r.choice([1.0, 0.5]), beta=r.choice([1.0, 2.0]))
        if what == "gather" and n:
            d = a.shape[ax]
            k = r.choice(["Gather", "GatherElements", "GatherND"])
            idx = lambda s, lim: self.leaf(np.random.default_rng(r.getrandbits(32)).integers(-lim, lim, s), r.random() < 0.5)
            if not d:
                return
            if k == "Gather":
                return self.add(k, [x, idx(self.shape(r.randint(0, 2)), d)], axis=ax)
            if k == "GatherElements":
                return self.add(k, [x, idx(a.shape, d)], axis=ax)
            return a.shape[0] and self.add(k, [x, idx([3, 1], a.shape[0])])
        if what == "scatter" and n and a.shape[0]:
            k = r.choice(["ScatterElements", "ScatterND"])
            if k == "ScatterND":
                i = self.leaf(np.array(r.sample(range(a.shape[0]), 1), np.int64).reshape(1, 1), r.random() < 0.5)
                return self.add(k, [x, i, self.leaf(self.draw([1] + list(a.shape[1:]), str(a.dtype)))])
            i = self.leaf(np.zeros([1] + list(a.shape[1:]), np.int64) + r.randint(0, a.shape[0] - 1))
            return self.add(k, [x, i, self.leaf(self.draw([1] + list(a.shape[1:]), str(a.dtype)))], axis=0)
        if what == "softmax" and n:
            return self.add(r.choice(["Softmax", "LogSoftmax", "LpNormalization"]), [x], keeps=False, axis=ax)
        if what == "norm" and n >= 3:
            c = a.shape[1]
            vec = lambda: self.const(self.draw([c], str(a.dtype)))
            k = r.choice(["BatchNormalization", "InstanceNormalization", "LayerNormalization", "LRN"])
            if k == "BatchNormalization":
                return self.add(k, [x, vec(), vec(), vec(), self.const(np.abs(self.draw([c], str(a.dtype))) + 1)], keeps=False)
            if k == "InstanceNormalization":
                return self.add(k, [x, vec(), vec()], keeps=False, epsilon=0.01)
            if k == "LayerNormalization":
                return self.add(k, [x, self.const(self.draw([a.shape[-1]], str(a.dtype)))], keeps=False, axis=-1, epsilon=0.01)
            return n == 4 and self.add(k, [x], keeps=False, size=r.choice([1, 3, 5]))
        if what == "where":
            return self.add("Where", [self.leaf(self.draw([r.choice([1, d]) for d in a.shape], "bool")), x, self.leaf(self.draw(a.shape, str(a.dtype)))])
        if what == "topk" and n and self.exact[x] and len(set(a.ravel().tolist())) == a.size:
            return self.add("TopK", [x, self.const(np.array([r.randint(1, a.shape[ax])]))], 2, axis=ax, largest=r.randint(0, 1))
        if what == "cast":
            x = self.pick(lambda v: True, True)
            return x and self.add("Cast", [x], to=r.choice([T.FLOAT, T.FLOAT, T.INT64, T.INT32, T.DOUBLE, T.BOOL]))
        if what == "nonzero":
            x = self.pick(lambda v: v.ndim > 0, True)
            return x and self.add("NonZero", [x])
        if what == "clip":
            return self.add("Clip", [x, self.const(np.array(-0.5, a.dtype)), self.const(np.array(r.choice([0.5, 6]), a.dtype))])
        if what == "concat" and n:
            s = list(a.shape)
            s[ax] = r.randint(1, 3)
            return self.add("Concat", [x, self.leaf(self.draw(s, str(a.dtype))), x], axis=ax)
        if what == "arg" and n:
            y = self.pick(lambda v: v.ndim and v.dtype.kind == "f" and v.size, True)
            return y and self.add(r.choice(["ArgMax", "ArgMin"]), [y], axis=-1, keepdims=r.randint(0, 1), select_last_index=r.randint(0, 1))
        if what == "pad" and n:
            mode = r.choice(["constant", "constant", "edge", "reflect"])
            p = [r.randint(0, 2) if mode != "reflect" else r.randint(0, min(d - 1, 1)) for d in list(a.shape) * 2]
            return self.add("Pad", [x, self.const(np.array(p, np.int64))], mode=mode)
        if what == "resize" and n == 4 and a.dtype == np.float32:
            scales = [2, 1.5, 3] if self.opset < 19 else [2, 3]  # since 19, corners of a size that is not whole lie elsewhere than in ONNX Runtime
            s = np.array([1, 1, r.choice(scales), r.choice(scales)], np.float32)
            mode = r.choice(["nearest", "linear", "cubic"])
            return self.add("Resize", [x, "", self.const(s)], keeps=mode == "nearest", mode=mode,
                            coordinate_transformation_mode=r.choice(["asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel"]) if mode != "nearest" else "asymmetric",
                            **({"nearest_mode": "floor"} if mode == "nearest" else {}))
        if what == "cumsum" and n:
            return self.add("CumSum", [x, self.const(np.array(ax))], exclusive=r.randint(0, 1), reverse=r.randint(0, 1))
        if what == "dynamic" and self.exact[x] and n:
            k = f"v{len(self.values)}"
            if not self.add("NonZero", [x]):
                return
            if not self.add("Transpose", [k], perm=[1, 0]):
                return
            return self.add("GatherND", [x, f"v{len(self.values) - 1}"])
        if what == "onehot":
            i = self.leaf(np.random.default_rng(r.getrandbits(32)).integers(-4, 4, self.shape(r.randint(1, 2))), False)
            return self.add("OneHot", [i, self.const(np.array(4)), self.const(np.array([0, 1], np.float32))], axis=-1)
        if what == "einsum" and n == 2:
            return self.add("Einsum", [x, self.leaf(self.draw([a.shape[1], 3], str(a.dtype)))], keeps=False, equation="ij,jk->ki")
        if what == "quant" and self.exact[x] and a.dtype == np.float32:
            y = f"v{len(self.values) + 2}"
            s, z = self.const(np.array(0.25, np.float32)), self.const(np.array(3, np.uint8))
            return self.add("QuantizeLinear", [x, s, z]) and self.add("DequantizeLinear", [y, s, z])
        if what == "trilu" and n >= 2:
            return self.add("Trilu", [x, self.const(np.array(r.randint(-1, 1)))], upper=r.randint(0, 1))


def make(seed):
    g = Graph(random.Random(seed))
    want, tries = g.r.randint(1, 8), 0
    while len(g.nodes) < want and tries < 60:
        tries += 1
        try:
            g.grow()
        except (ValueError, IndexError):  # this shape has no such node
            pass
    if not g.nodes:
        return None
    used = {i for n in g.nodes for i in n.input}
    made = [o for n in g.nodes for o in n.output]
    outs = [o for o in made if o not in used] or made[-1:]
    if g.r.random() < 0.3:
        outs = list(dict.fromkeys(outs + [g.r.choice(made)]))
    ins = [i for i in g.inputs if i in used]
    info = lambda n: h.make_tensor_value_info(n, NP[g.values[n].dtype], [f"{n}_{k}" if g.r.random() < 0.3 else d for k, d in enumerate(g.values[n].shape)])
    m = h.make_model(h.make_graph(g.nodes, f"seed{seed}", [info(i) for i in ins], [h.make_tensor_value_info(o, NP[g.values[o].dtype], None) for o in outs],
                                  [nh.from_array(g.values[c], c) for c in g.consts if c in used]), opset_imports=g.imports(), ir_version=10 if MORE else 8)
    feed = {i: g.values[i] for i in ins}
    try:
        return m, ins, feed, outs, run(m, feed)
    except Exception:
        return None


def write(folder, made):
    m, ins, feed, outs, want = made
    os.makedirs(folder + "/test_data_set_0")
    open(folder + "/model.onnx", "wb").write(m.SerializeToString())
    for i, name in enumerate(ins):
        open(f"{folder}/test_data_set_0/input_{i}.pb", "wb").write(nh.from_array(feed[name], name).SerializeToString())
    for i, name in enumerate(outs):
        open(f"{folder}/test_data_set_0/output_{i}.pb", "wb").write(nh.from_array(want[i], name).SerializeToString())


def batch(folder, seed, count):
    """Writes cases for `count` seeds in a child, because ONNX Runtime dies of some graphs; returns the folders and how many seeds killed it."""
    end, died = seed + count, 0
    while seed < end:
        child = os.fork()
        if not child:
            for k in range(seed, end):
                open(folder + "/at", "w").write(str(k))
                made = make(k)
                if made:
                    write(f"{folder}/{k:06d}", made)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
        seed, died = int(open(folder + "/at").read()) + 1, died + 1
    os.remove(folder + "/at")
    return sorted(f"{folder}/{x}" for x in os.listdir(folder) if os.path.exists(f"{folder}/{x}/test_data_set_0")), died


def main():
    keep = sys.argv.pop(sys.argv.index("--keep") + 1) if "--keep" in sys.argv else None
    args = [a for a in sys.argv[1:] if a not in ("--keep", "--more")]
    record = args[0] == "--record"
    if record:
        args = args[1:]
    target, count, seed = args[0], int(args[1]), int(args[2]) if len(args) > 2 else 1
    total = {"passed": 0, "failed": 0, "unsupported": 0, "crashed": 0}
    died = 0
    while sum(total.values()) < count:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as d:
            n = min(200, count - sum(total.values()))
            cases, killed = batch(target if record else d, seed, n)
            seed, died = seed + n, died + killed
            if record:
                total["passed"] += n
                continue
            todo = list(cases)
            while todo:
                p = subprocess.run([target, "verify", "--json", "--atol", "1e-4", *todo], capture_output=True, text=True)
                rows = [json.loads(x) for x in p.stdout.splitlines()]
                for j in rows:
                    total[j["verdict"]] += 1
                    if j["verdict"] != "passed":
                        print(f"{j['verdict']}: {os.path.basename(j['case'])}: {j['why'].replace(d, '')}", flush=True)
                        if keep:
                            shutil.copytree(j["case"], f"{keep}/{os.path.basename(j['case'])}", dirs_exist_ok=True)
                todo = todo[len(rows):]
                if todo and p.returncode not in (0, 1):
                    total["crashed"] += 1
                    print(f"crashed ({p.returncode}): {os.path.basename(todo[0])}: {p.stderr[-300:]}", flush=True)
                    if keep:
                        shutil.copytree(todo[0], f"{keep}/{os.path.basename(todo[0])}", dirs_exist_ok=True)
                    todo = todo[1:]
                elif todo:
                    break
    print(", ".join(f"{v} {k}" for k, v in total.items()), f"(next seed {seed}; {died} seeds killed ONNX Runtime; ONNX Runtime {ort.__version__})")


main()
