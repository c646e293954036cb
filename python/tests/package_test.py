#!/usr/bin/env python3
"""The Python package as its users have it: numbers, views, shapes, errors, threads. TAP.

Arguments: the folder that holds the package `brim`, and why it cannot be tested ("" if it can).
SPDX-License-Identifier: Apache-2.0"""
import gc
import os
import pathlib
import sys
import threading
import time
import traceback
import weakref

folder, missing = sys.argv[1:3]
if missing:
    print(f"1..0 # SKIP {missing}")
    sys.exit(0)
sys.path.insert(0, folder)
sys.dont_write_bytecode = True
import numpy as np

import brim


# ---- ONNX in 25 lines: y = relu(conv(x, w)), z = x + x; batch and sides are symbols

def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def node(op, ins, outs, **ints):
    attributes = b"".join(field(5, field(1, k) + b"".join(field(8, i) for i in v) + field(20, 7)) for k, v in ints.items())
    return field(1, b"".join(field(1, i) for i in ins) + b"".join(field(2, o) for o in outs) + field(4, op) + attributes)


def value(name, dims, dtype=1):
    shape = b"".join(field(1, field(2, d) if isinstance(d, str) else field(1, d)) for d in dims)
    return field(1, name) + field(2, field(1, field(1, dtype) + field(2, shape)))


def model_bytes():
    w = weights()
    tensor = b"".join(field(1, d) for d in w.shape) + field(2, 1) + field(8, "w") + field(9, w.tobytes())
    x = ["n", 3, "h", "w"]
    graph = (node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]) + node("Relu", ["c"], ["y"]) + node("Add", ["x", "x"], ["z"]) +
             field(2, "net") + field(5, tensor) + field(11, value("x", x)) + field(12, value("y", ["n", 4, "h", "w"])) +
             field(12, value("z", x)))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def weights():
    return np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype(np.float32)


def expected(x):
    w, (n, _, h, k) = weights().astype(np.float64), x.shape
    p = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = sum(np.einsum("ncij,oc->noij", p[:, :, a:a + h, b:b + k], w[:, :, a, b]) for a in range(3) for b in range(3))
    return np.maximum(y, 0)


def picture(*shape, seed=2):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def near(got, want):
    assert got.shape == want.shape, (got.shape, want.shape)
    assert np.abs(got - want).max() < 1e-4, np.abs(got - want).max()


def raises(kind, call, *words):
    try:
        call()
    except kind as e:
        for w in words:
            assert w in str(e), f"{e!r} does not say {w!r}"
        return e
    raise AssertionError(f"no {kind.__name__}")


# ---- the tests

def says_what_goes_in_and_out():
    m = brim.Model(model_bytes())
    assert m.inputs == [brim.IO("x", "float32", ("n", 3, "h", "w"))], m.inputs
    assert [o.name for o in m.outputs] == ["y", "z"]
    assert brim.version().count(".") == 2


def computes():
    m = brim.Model(model_bytes())
    for shape in [(1, 3, 9, 11), (2, 3, 16, 16), (1, 3, 9, 11)]:
        x = picture(*shape)
        y, z = m.run(x)
        near(y, expected(x))
        near(z, 2 * x)
        y2, _ = m.run({"x": x})
        assert np.array_equal(y, y2) and y.flags.owndata and y.flags.c_contiguous


def takes_any_strides():
    m = brim.Model(model_bytes())
    x = picture(2, 20, 24, 6)[:, ::2, 1:13, ::2].transpose(0, 3, 1, 2)  # a slice of an NHWC picture
    assert not x.flags.c_contiguous
    near(m.run(x)[0], expected(x))
    near(m.run(x[:, :, ::-1])[0], expected(x[:, :, ::-1]))
    near(m.run(np.broadcast_to(np.float32(0.5), (1, 3, 8, 8)))[0], expected(np.full((1, 3, 8, 8), 0.5, np.float32)))


def views_do_not_copy():
    m = brim.Model(model_bytes())
    p = m.plan((1, 3, 8, 8))
    x = picture(1, 3, 8, 8)
    i = p.input(0)
    assert i.shape == (1, 3, 8, 8) and not i.flags.owndata and i.base is not None
    i[:] = x
    y, z = p.run()
    assert not y.flags.owndata and not y.flags.writeable
    near(y, expected(x))
    again = p.output(0)
    assert again.__array_interface__["data"][0] == y.__array_interface__["data"][0]
    p.input(0)[:] = 0
    p.run()
    assert (y == 0).all()  # the same memory
    out = [np.full((1, 4, 8, 8), -1, np.float32), None]
    got = p.run(x, out=out)
    assert got[0] is out[0]
    near(out[0], expected(x))
    near(got[1], 2 * x)


def views_outlive_everything_else():
    m = brim.Model(model_bytes())
    y = m.plan((1, 3, 8, 8)).run(picture(1, 3, 8, 8))[0]
    want = y.copy()
    gone = weakref.ref(m)
    del m
    gc.collect()
    assert gone() is None
    picture(64, 3, 64, 64)
    assert np.array_equal(y, want)


def bytes_are_borrowed_safely():
    data = bytearray(model_bytes())
    m = brim.Model(data)
    raises(BufferError, lambda: data.append(0))
    m.run(picture(1, 3, 8, 8))
    del m
    gc.collect()
    data.append(0)


def errors_are_exceptions():
    m = brim.Model(model_bytes())
    e = raises(brim.Error, lambda: brim.Model("/nonexistent/model.onnx"), "nonexistent")
    assert e.code == -2 and e.name == "input/output error" and isinstance(e, RuntimeError)
    raises(brim.Error, lambda: brim.Model(b"no model"))
    raises(brim.Error, lambda: m.run(np.zeros((1, 3, 8, 8))), "float32", "float64")
    raises(brim.Error, lambda: m.run(picture(1, 4, 8, 8)))
    raises(brim.Error, lambda: m.plan(), "h")
    raises(ValueError, lambda: m.run(), "1")
    raises(ValueError, lambda: m.run({"X": picture(1, 3, 8, 8)}), "x", "X")
    raises(ValueError, lambda: brim.Model(model_bytes(), precision="f8"), "f8")
    raises(ValueError, lambda: m.plan((1, 3, 8, 8), (1,)))
    raises(ValueError, lambda: m.plan((1,) * 9))
    raises(TypeError, lambda: brim.Model(3))
    p = m.plan((1, 3, 8, 8))
    raises(brim.Error, lambda: p.run(picture(1, 3, 8, 9)), "[1, 3, 8, 8]", "[1, 3, 8, 9]")
    raises(brim.Error, lambda: p.run(picture(1, 3, 8, 8), out=[np.empty((1, 4, 8, 7), np.float32), None]))
    raises(brim.Error, lambda: p.input(1))
    near(p.run(picture(1, 3, 8, 8))[0], expected(picture(1, 3, 8, 8)))


def budgets_hold():
    b = brim.Budget(bytes=4 << 20, threads=1)
    m = brim.Model(model_bytes(), budget=b)
    m.run(picture(1, 3, 16, 16))
    assert 0 < b.used <= b.peak <= b.limit == 4 << 20
    e = raises(brim.Error, lambda: m.run(picture(8, 3, 512, 512)))
    assert e.code == -1, e.code
    m.run(picture(1, 3, 16, 16))
    del m, e  # a traceback holds its frames, and they the model
    gc.collect()
    assert b.used == 0 and brim.Budget().limit is None


def explains():
    p = brim.Model(model_bytes()).plan((1, 3, 8, 8))
    assert "Conv" in p.explain()
    d = p.explain(as_dict=True)
    assert d["steps"] and d["weight_bytes"] == p.memory["weights"]
    assert p.memory["activations"] >= p.memory["activations_lower_bound"] > 0


def runs_from_many_threads():
    models = [brim.Model(model_bytes()) for _ in range(2)]
    wrong = []

    def work(k):
        try:
            for i in range(20):
                x = picture(1, 3, 8 + 4 * (i % 3), 8, seed=k * 100 + i)
                near(models[k % 2].run(x)[0], expected(x))
        except Exception:
            wrong.append(traceback.format_exc())

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, wrong[0]


def releases_the_interpreter():
    """While a model runs elsewhere, this thread goes on: it counts during a run that takes far longer than a switch."""
    p = brim.Model(model_bytes(), threads=1).plan((4, 3, 512, 512))
    p.input(0)[:] = 1
    done = []
    t = threading.Thread(target=lambda: (p.run(), done.append(time.monotonic())))
    counted = 0
    t.start()
    while not done:
        counted += 1
        time.sleep(0)
    t.join()
    assert counted > 10, counted


def leaks_nothing():
    def once():
        m = brim.Model(model_bytes(), budget=budget)
        m.run(picture(1, 3, 8, 8))
        raises(brim.Error, lambda: m.run(np.zeros(3)))

    budget = brim.Budget()
    once()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(20):
        once()
    gc.collect()
    assert budget.used == 0 and len(gc.get_objects()) - before < 20


def runs_real_models():
    data = os.environ.get("BRIM_DATA", "")
    file = pathlib.Path(data or "/nonexistent") / "models/nanodet/nanodet_m_320.onnx"
    if not file.exists():
        return f"{file} is not there ($BRIM_DATA)"
    outs = brim.Model(file).run(picture(1, 3, 320, 320))
    assert len(outs) == 6 and all(np.isfinite(o).all() for o in outs)


tests = [says_what_goes_in_and_out, computes, takes_any_strides, views_do_not_copy, views_outlive_everything_else,
         bytes_are_borrowed_safely, errors_are_exceptions, budgets_hold, explains, runs_from_many_threads, releases_the_interpreter,
         leaks_nothing, runs_real_models]
print(f"1..{len(tests)}")
failed = 0
for number, test in enumerate(tests, 1):
    try:
        skip = test()
        print(f"ok {number} - {test.__name__}" + (f" # SKIP {skip}" if skip else ""))
    except Exception:
        failed += 1
        print(f"not ok {number} - {test.__name__}")
        print("\n".join("# " + line for line in traceback.format_exc().splitlines()))
sys.exit(failed > 0)
