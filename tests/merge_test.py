#!/usr/bin/env python3
"""Merging from the command line, and what goes wrong with it: the report and its figures, targets that nobody meets, models without pictures, a model that was
replaced meanwhile, a full disk, a box that is not there. Standard library only; everything is made in a temporary folder. Prints TAP.

usage: merge_test.py BRIM          SPDX-License-Identifier: Apache-2.0"""
import json, os, random, resource, shutil, signal, subprocess, sys, tempfile

sys.dont_write_bytecode = True
import made
from made import png

BRIM = os.path.abspath(sys.argv[1])
DIR = tempfile.mkdtemp(prefix="brim-merge-")
ENV = dict(os.environ, BRIM_STORE=os.path.join(DIR, "usual"))
TESTS = []


def test(f):
    TESTS.append(f)
    return f


def path(name):
    p = os.path.join(DIR, name)
    os.makedirs(os.path.dirname(p), exist_ok=True)
    return p


def write(name, data):
    with open(path(name), "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    return path(name)


def brim(*args, status=0, says=(), **more):
    p = subprocess.run([BRIM, *args], cwd=DIR, env=ENV, stdin=subprocess.DEVNULL, timeout=made.PATIENCE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    assert p.returncode == status, f"{args}: status {p.returncode}, not {status}: {p.stderr[-600:]}"
    for word in [says] if isinstance(says, str) else says:
        assert word in p.stderr, f"{args}: '{word}' is not in: {p.stderr[-600:]}"
    if status:
        assert len(p.stderr.strip().split("\n")) == 1, p.stderr
    return p.stdout


def pictures(folder, n, turned=0):
    """Three classes, of which red is the most frequent: a colour each, with noise. turned: called by other names."""
    rng = random.Random(1)
    colours = (("blue", (20, 60, 210), n), ("green", (30, 200, 40), n), ("red", (200, 30, 40), 2 * n))
    for i, (_, base, k) in enumerate(colours):
        name = colours[(i + turned) % 3][0]
        for i in range(k):
            write(f"{folder}/{name}/{i}.png", png(32, 32, lambda y: bytes(min(255, max(0, v + rng.randint(-30, 30))) for _ in range(32) for v in base)))


def make():
    pictures("train", 8)
    pictures("val", 5)
    pictures("turned", 8, 1)
    pictures("turned-val", 5, 1)
    brim("new", "cifar-resnet20", "--classes", "3", "--size", "32", "-o", "new.onnx")
    for data, val, out in ("train", "val", "t"), ("turned", "turned-val", "u"):
        brim("train", "--model", "new.onnx", "--data", data, "--val", val, "--out", out, "--epochs", "8", "--batch", "8", "--lr", "0.003", "--optimizer", "adamw", "--priority",
             "normal", "--threads", "1", "--json")
    for name, out in ("a", "t"), ("b", "t"), ("c", "u"):
        shutil.copy(path(out + "/best.onnx"), path(name + ".onnx"))
        write(name + ".yaml", "card: 1\nhead: classify\ninput: {size: [32, 32], mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375]}\nlabels: [blue, green, red]\n")
    brim("new", "cifar-resnet20", "--classes", "3", "--size", "32", "--seed", "9", "-o", "other.onnx")


def merge(*args, **more):
    return brim("merge", "a.onnx", "b.onnx", "--data", "train", "--val", "val", "--batch", "8", "--threads", "1", *args, **more)


def report(out):
    with open(path(f"{out}/merge.json")) as f:
        return json.load(f)


def files(folder):
    return {os.path.join(d, f): open(os.path.join(d, f), "rb").read() for d, _, names in os.walk(path(folder)) for f in names if f not in ("lock", "gate")}


@test
def equal_models_share_at_once_and_the_report_says_all():
    text = merge("--out", "m1", "--minutes", "20", "--store", "s1")
    lines = [l for l in text.split("\n") if "always the most frequent class" in l]
    assert len(lines) == 2 and lines[0].split()[:2] == ["a", "top-1"], text
    assert " saved (" in text and " min and " in text and "% of" not in lines[0], text
    r = report("m1")
    assert r["saved_bytes"] == r["most_bytes"] == r["equal_bytes_before"] > 0 and r["bytes_after"] == r["bytes"] - r["saved_bytes"], r
    assert abs(r["minutes"] * 60 - r["seconds"]) < 1e-6 and r["share_norm"] is False, r
    for m in r["members"]:
        assert m["measure"] == "top-1" and m["chance"] == 0.5 and m["chance_is"] == "always the most frequent class", m  # 10 of 20 are red
        assert m["after"] >= m["target"] == 0.95 * m["before"] > 0.5, m
        assert abs(m["after_error"] - (m["after"] * (1 - m["after"]) / 20) ** 0.5) < 1e-6, m  # of a share of 20 pictures
    models = json.loads(brim("models", "list", "--store", "s1", "--json"))
    assert sorted(m["name"] for m in models["models"]) == ["a", "b"], models


@test
def a_target_that_nobody_meets_ends_with_the_originals():
    text = brim("merge", "a.onnx", "c.onnx", "--data", "a=train", "--val", "a=val", "--data", "c=turned", "--val", "c=turned-val", "--batch", "8", "--threads", "1", "--out", "m2", "--minutes",
                "0.005", "--target", "100", "--lr", "0.000000001", "--store", "s2")  # they call the same colours by other names, and nothing is learnt
    r = report("m2")
    assert r["saved_bytes"] == 0 and r["bytes_after"] == r["bytes"] and all(m["before"] == m["after"] for m in r["members"]), r
    assert "no sharing kept every model at its target: the originals are left as they were" in text, text  # status 0: the search did what it could
    assert not os.path.exists(path("s2/models/a")), "nothing is published"


@test
def models_without_pictures_are_named():
    brim("merge", "a.onnx", "b.onnx", "--data", "a=train", "--out", "m3", "--minutes", "0.1", status=2, says="model 'b': no data: give it --data b=PATH")
    brim("merge", "--estimate", "a.onnx", "b.onnx", "--data", "a=train", status=2, says="model 'b': no pictures to look at: --data b=PATH")
    os.makedirs(path("void"), exist_ok=True)
    merge("--out", "m3b", "--data", "b=void", status=2, says="void")


@test
def a_model_that_was_replaced_is_not_published_over():
    merge("--out", "m4", "--minutes", "20", "--store", "s4")
    before = files("s4")
    was = open(path("b.onnx"), "rb").read()
    try:
        shutil.copy(path("other.onnx"), path("b.onnx"))
        merge("--out", "m4", "--minutes", "30", "--store", "s4", "--resume", status=1,
              says=["model 'b' was replaced since the search began (b.onnx): nothing is published any more", "begin anew with another --out"])
        assert files("s4") == before
    finally:
        write("b.onnx", was)
    merge("--out", "m4", "--minutes", "30", "--store", "s4", "--resume")  # it is back: the copies in m4/models were used all the time
    brim("models", "import", "other.onnx", "--name", "a", "--store", "s4")
    merge("--out", "m4", "--minutes", "40", "--store", "s4", "--resume", status=1, says="model 'a' was replaced since the search began (in the store)")


@test
def a_full_disk_leaves_what_was_there():
    merge("--out", "m5", "--minutes", "20", "--store", "s5")
    results, stored = files("m5"), files("s5")

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the program must see to it
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))
    merge("--out", "m5", "--minutes", "30", "--store", "s5", "--resume", status=1, says="File too large", preexec_fn=small_files)
    left = files("m5")
    for name in results:
        if name.endswith(".onnx") or name.endswith("merge.json"):
            assert left[name] == results[name], name
    assert files("s5") == stored
    merge("--out", "m6", "--minutes", "20", "--store", "s5", status=1, says="File too large", preexec_fn=small_files)
    assert files("s5") == stored
    brim("models", "verify", "--store", "s5")


@test
def no_box_no_merge_in_it():
    brim("merge", "a.onnx", "b.onnx", "--data", "train", "--out", "m7", "--on-box", status=2, says="usual")
    assert not os.path.exists(path("m7"))


@test
def what_will_probably_merge():
    r = json.loads(brim("merge", "--estimate", "a.onnx", "b.onnx", "--json"))
    assert r["expected_from"] == "weights and architecture", r
    assert all(l["likelihood"] == 1 and set(l["likelihoods"]) == {1} for l in r["layers"]), r
    assert r["expected_bytes"] <= r["saved_bytes"] and abs(r["expected_share"] - r["expected_bytes"] / r["bytes"]) < 1e-5, r
    r = json.loads(brim("merge", "--estimate", "a.onnx", "other.onnx", "--json"))
    assert 0 < r["expected_share"] < r["saved_share"] and all(0.5 <= l["likelihood"] < 0.9 for l in r["layers"]), r
    p = json.loads(brim("merge", "--estimate", "a.onnx", "other.onnx", "--data", "val", "--card", "other=a.yaml", "--json"))
    assert p["expected_from"] == "weights and pictures" and p["expected_bytes"] != r["expected_bytes"], p
    assert "probably" in brim("merge", "--estimate", "a.onnx", "other.onnx")


@test
def of_a_short_video_every_frame_counts():
    """Frames held out lie in five stretches all over it."""
    brim("scene", "-o", "short", "--cameras", "1", "--seconds", "6", "--fps", "5", "--size", "160x96", "--seed", "4")
    brim("new", "brimcrop", "--classes", "8", "--seed", "1", "-o", "v0.onnx")
    shutil.copy(path("v0.onnx"), path("v1.onnx"))
    write("v.yaml", "card: 1\nhead: embedding\ninput: {size: [64, 64], mean: 127.5, std: 127.5}\n")
    brim("merge", "v0.onnx", "v1.onnx", "--card", "v.yaml", "--data", "short/cam1.mp4", "--out", "m12", "--minutes", "0.5", "--batch", "4", "--threads", "1")
    for m in report("m12")["members"]:
        assert (m["pictures_trained"], m["pictures_measured"]) == (25, 5), m  # 30 frames: the last of each six
        assert m["after"] > 0.9999 and 0 <= m["after_error"] < 1e-4, m


@test
def another_size_is_another_network():
    """What was measured is what is written: merged at 24 x 24, original and result take 24 x 24, and what takes the place of a stored model must not."""
    merge("--out", "m10", "--minutes", "20", "--size", "24")
    work = json.loads(brim("explain", "a.onnx", "--json"))["flops"]
    for name in ("m10/a.onnx", "m10/models/a.onnx"):
        assert abs(json.loads(brim("explain", name, "--json"))["flops"] / work - (24 / 32) ** 2) < 0.01, name
    for name in "ab":
        write(f"m10/{name}.yaml", open(path(name + ".yaml")).read().replace("[32, 32]", "[24, 24]"))
    brim("merge", "m10/a.onnx", "m10/b.onnx", "--guard", "--data", "val", "--out", "m10")
    brim("merge", "a.onnx", "b.onnx", "--data", "train", "--out", "m11", "--size", "24", "--store", "s6", status=2, says="merge without --size, or into --out alone")
    assert not os.path.exists(path("m11")) and not os.path.exists(path("s6"))


@test
def a_cascades_model_is_taught_with_crops():
    """Objects cut out of videos with labels; each class alone, and all of them; what they are called elsewhere is their class."""
    brim("scene", "-o", "site", "--cameras", "1", "--seconds", "6", "--fps", "5", "--size", "320x192", "--seed", "3", "--people", "6", "--vehicles", "6")
    brim("new", "brimcrop", "--classes", "8", "--seed", "1", "-o", "e0.onnx")
    write("e.yaml", "card: 1\nhead: embedding\ninput: {size: [64, 64], mean: 127.5, std: 127.5}\n")
    names = ["e0", "e1", "e2"]
    for name in names[1:]:
        shutil.copy(path("e0.onnx"), path(name + ".onnx"))
    crops = [w for i, name in enumerate(names) for w in ("--crops", f"{name}={i}")]
    brim("merge", *(n + ".onnx" for n in names), "--card", "e.yaml", "--data", "site", *crops, "--out", "m8", "--minutes", "0.5", "--batch", "4", "--threads", "1")
    report = json.load(open(path("m8/merge.json")))
    rows = [[float(v) for v in r.split(",")] for r in open(path("site/truth/cam1.txt"))]
    for i, m in enumerate(report["members"]):
        fit = [r for r in rows if r[0] % 5 == 1 and r[8] >= 0.5 and min(min(r[2] + r[4], 320) - max(r[2], 0), min(r[3] + r[5], 192) - max(r[3], 0)) >= 12]
        n = sum(not i or r[7] == i for r in fit)
        assert n > 2 and m["pictures_trained"] + m["pictures_measured"] == n, (m, n)
    assert {m["measure"] for m in report["members"]} == {"likeness to the original"}, report["members"]
    brim("merge", "--estimate", "e0.onnx", "e1.onnx", "--data", "site", "--crops", "1", "--card", "e.yaml")
    two = ("merge", "e0.onnx", "e1.onnx", "--card", "e.yaml", "--data", "site", "--out", "m9", "--minutes", "0.1")
    brim(*two, "--crops", "e0=people", status=2, says="--crops e0=people: a class of the MOT rows (0: all)")
    brim(*two, "--crops", "e3=1", status=2, says="no model of this merge is called 'e3'")
    brim(*two, "--crops", "e0=77", status=2, says="model 'e0'")
    brim(*two, "--crops", "e0=1:shoes", status=2, says="shoes")
    assert not os.path.exists(path("m9/e0.onnx"))


def main():
    make()
    failed = made.run(TESTS)
    shutil.rmtree(DIR, ignore_errors=True)
    return 1 if failed else 0


sys.exit(main())
