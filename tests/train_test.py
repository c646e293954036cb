#!/usr/bin/env python3
"""Training as people get it wrong, from the command line: status and one clear line each, nothing overwritten; what can be worked around is counted and said.
Standard library only; everything is made in a temporary folder. Prints TAP.

usage: train_test.py BRIM          SPDX-License-Identifier: Apache-2.0"""
import json, os, pty, random, shutil, sqlite3, struct, subprocess, sys, tempfile

sys.dont_write_bytecode = True
import made
from made import png, sub

BRIM = os.path.abspath(sys.argv[1])
DIR = tempfile.mkdtemp(prefix="brim-train-")
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


def brim(*args, status=0, says=(), at=""):
    p = subprocess.run([BRIM, *args], cwd=path(at), stdin=subprocess.DEVNULL, timeout=made.PATIENCE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert p.returncode == status, f"{args}: status {p.returncode}, not {status}: {p.stderr[-600:]}"
    for word in [says] if isinstance(says, str) else says:
        assert word in p.stderr, f"{args}: '{word}' is not in: {p.stderr[-600:]}"
    if status:
        assert len([l for l in p.stderr.strip().split("\n") if not any(w in l for w in (" samples; left out", " times a picture", " begins untrained"))]) == 1, p.stderr
    return p.stdout


def pictures(folder, n=10):
    """Two classes: red and green, with noise."""
    rng = random.Random(1)
    for name, base in (("green", (30, 200, 40)), ("red", (200, 30, 40))):
        for i in range(n):
            write(f"{folder}/{name}/{i}.png", png(32, 32, lambda y: bytes(min(255, max(0, v + rng.randint(-30, 30))) for _ in range(32) for v in base)))


def train(*args, **more):
    return brim("train", "--model", "net.onnx", "--batch", "8", "--lr", "0.003", "--optimizer", "adamw", "--priority", "normal", "--threads", "1", *args, **more)


@test
def bad_pictures_are_counted_and_said():
    pictures("bad")
    write("bad/green/none.png", b"")
    write("bad/green/cut.png", open(path("bad/green/0.png"), "rb").read()[:70])
    write("bad/red/huge.png", png(10000, 10000, lambda y: bytes(30000)))  # 100 megapixels in some 300 KB
    os.makedirs(path("bad/void"), exist_ok=True)
    p = subprocess.run([BRIM, "train", "--model", "net.onnx", "--data", "bad", "--out", "o1", "--epochs", "2", "--batch", "8", "--lr", "0.003", "--optimizer", "adamw", "--held-out",
                        "0", "--priority", "normal", "--json"], cwd=DIR, stdin=subprocess.DEVNULL, timeout=made.PATIENCE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert p.returncode == 0, p.stderr
    assert "bad: 22 samples; left out: 1 pictures, 0 boxes; 1 classes without a sample. The first: bad/green/none.png: an empty file or none" in p.stderr, p.stderr
    assert "could not be decoded, and another took its place" in p.stderr, p.stderr
    assert json.loads(p.stdout.strip().split("\n")[-1])["corrupt"] >= 2
    r = json.loads(brim("eval", "classify", "--model", "o1/last.onnx", "--data", "bad", "--json"))
    assert r["samples"] == 20 and r["skipped"] == 2, r


@test
def other_classes_get_a_new_head():
    pictures("two")
    out = train("--data", "two", "--out", "o2", "--epochs", "1", "--held-out", "0.3", "--text", says="net.onnx: 2 classes instead of 3: layer '")
    assert "held out" in out
    r = json.loads(brim("eval", "classify", "--model", "o2/best.onnx", "--data", "two", "--json"))
    assert r["samples"] == 20 and r["top5"] == 1, r
    train("--data", "two", "--out", "o2", status=2, says="--resume goes on with it, or take another --out")


@test
def a_job_that_goes_on_keeps_its_options():
    pictures("two")
    words = ("--data", "two", "--out", "kept", "--epochs", "2", "--held-out", "0")
    train(*words, "--max-steps", "1", status=1, says="stopped after 1 updates; --resume goes on")
    before = open(path("kept/last.brim"), "rb").read()
    for new, says in ((("--epochs", "9"), "--epochs 9: "), (("--epochs=9",), "--epochs=9: "), (("--patience", "3"), "--patience: "), (("nonsense",), "nonsense: ")):
        brim("train", "--resume", "--out", "kept", *new, status=2,
             says="brim train: " + says + "a job that goes on keeps the options that it was begun with; leave that out, or begin another job in another --out")
        assert open(path("kept/last.brim"), "rb").read() == before
    mixed = ("--data", "two", "--out", "kept2", "--epochs", "2", "--held-out", "0", "--patience", "5")
    train(*mixed, "--max-steps", "1", status=1, says="stopped after 1 updates")
    for new in (("--epochs", "5"), ("--patience", "2"), ("--batch", "2")):  # the words of other options
        brim("train", "--resume", "--out", "kept2", *new, status=2, says=f"{' '.join(new)}: a job that goes on keeps the options")
    train(*words, "--resume", "--max-steps", "2", "--json", status=1, says="stopped after 2 updates")  # the command itself, said again
    brim("train", "--resume", "--out=kept")
    assert os.path.exists(path("kept/last.onnx"))


@test
def a_job_goes_on_wherever_its_inputs_are_found():
    """What was said at the beginning is seen from where it was said, not from where --resume is; all of it may also be moved together."""
    pictures("a/two", 8), pictures("a/held", 3)
    os.makedirs(path("b"), exist_ok=True)
    brim("new", "squeezenet", "--classes", "2", "--size", "32", "-o", "a/teacher.onnx")
    words = ("--model", "../net.onnx", "--data", "two", "--val", "../a/held", "--teacher", "./teacher.onnx", "--epochs", "2", "--batch", "4", "--lr", "0.003", "--optimizer", "adamw",
             "--priority", "normal", "--threads", "1")
    brim("train", *words, "--out", "whole", at="a")
    begin = lambda out, at: brim("train", *words, "--out", out, "--max-steps", "1", status=1, says="stopped after 1 updates", at=at)
    read = lambda name: open(path(name), "rb").read()
    begin("parts", "a")
    brim("train", "--resume", "--out", "../a/parts", "--max-steps", "2", status=1, says="stopped after 2 updates", at="b")
    brim("train", *words, "--resume", "--out", path("a/parts"), "--max-steps", "3", status=1, says="stopped after 3 updates", at="b")  # the same words: they mean the same
    brim("train", "--resume", "--out", "a/parts")
    assert read("a/parts/last.onnx") == read("a/whole/last.onnx") and read("a/parts/best.onnx") == read("a/whole/best.onnx")
    begin("moved", "a")
    os.rename(path("a"), path("c"))
    brim("train", "--resume", "--out", "../c/moved", status=2, says="/a/two: No such file", at="b")
    shutil.rmtree(path("a"), ignore_errors=True)
    shutil.copytree(path("c/held"), path("a/held"))  # a part of what was said is there again, the rest is not
    brim("train", "--resume", "--out", "moved", "--max-steps", "2", status=1, says="stopped after 2 updates", at="c")
    brim("train", "--resume", "--out", "../c/moved", at="b")  # and that is remembered
    assert read("c/moved/last.onnx") == read("c/whole/last.onnx")


@test
def a_job_that_ended_early_says_so_again():
    pictures("two")
    words = ("--data", "two", "--out", "early", "--epochs", "9", "--patience", "1", "--held-out", "0.3", "--lr", "1e-30")  # nothing is learnt: the second epoch is no better
    assert " (ended early); best epoch 1; " in train(*words, "--text")
    before = open(path("early/last.onnx"), "rb").read()
    for _ in range(2):
        assert "early: 2 epochs, 2 updates in " in (out := brim("train", "--resume", "--out", "early", "--text")) and " (ended early); best epoch 1; " in out, out
    assert json.loads(brim("train", "--resume", "--out", "early", "--json"))["stopped_early"] is True
    assert open(path("early/last.onnx"), "rb").read() == before


@test
def lines_for_machines_and_for_people():
    """JSON where nobody looks; text on a terminal, and where it is asked for."""
    pictures("two")
    words = ("--data", "two", "--epochs", "1", "--held-out", "0.3")
    lines = [json.loads(line) for line in train(*words, "--out", "l1").splitlines()]
    assert [("epoch" in x, "done" in x) for x in lines] == [(True, False), (False, True)], lines
    assert train(*words, "--out", "l2", "--text").startswith("epoch 1/1  loss ")
    train(*words, "--out", "l3", "--text", "--json", status=2, says="--json and --text: one of them")
    assert json.loads(brim("train", "--resume", "--out", "l2"))["done"] is True  # what was said before is not kept
    ours, theirs = pty.openpty()
    subprocess.run([BRIM, "train", "--model", "net.onnx", "--batch", "8", "--threads", "1", "--priority", "normal", *words, "--out", "l4"], cwd=DIR, stdin=subprocess.DEVNULL, stdout=theirs,
                   stderr=subprocess.DEVNULL, check=True)
    os.close(theirs)
    assert os.read(ours, 4096).startswith(b"epoch 1/1  loss ")
    os.close(ours)


@test
def a_loss_that_is_no_number():
    pictures("two")
    brim("train", "--model", "net.onnx", "--data", "two", "--out", "o3", "--batch", "8", "--epochs", "20", "--warmup", "10", "--lr", "900", "--optimizer", "sgd", "--priority", "normal",
         "--threads", "1", "--held-out", "0", status=1, says=["the loss or a gradient is not a finite number, first at '", "; try a smaller learning rate, or a warm-up"])
    brim("new", "cifar-resnet20", "--classes", "2", "-o", "norms.onnx")  # its batch norms' statistics overflow first
    brim("train", "--model", "norms.onnx", "--data", "two", "--out", "o19", "--batch", "8", "--epochs", "40", "--warmup", "40", "--lr", "900", "--priority", "normal", "--threads", "1",
         "--held-out", "0", status=1, says="the loss or a gradient is not a finite number, first at '")


@test
def boxes_that_cannot_be():
    for i in range(4):
        write(f"yolo/images/{i}.png", png(64, 64, lambda y: bytes(192)))
    write("yolo/classes.txt", "thing\n")
    write("yolo/labels/0.txt", "0 0.5 0.5 0.4 0.4\n7 0.5 0.5 0.4 0.4\n0 nan 0.5 0.4 0.4\n0 0.5 0.5 0 0.4\n")
    brim("new", "brimdet", "--size", "64", "--classes", "1", "-o", "det.onnx")
    brim("train", "detect", "--model", "det.onnx", "--data", "yolo", "--out", "o4", "--epochs", "1", "--batch", "2", "--held-out", "0", "--priority", "normal",
         says="yolo: 4 samples; left out: 0 pictures, 3 boxes; 0 classes without a sample. The first: yolo/labels/0.txt:2: a class that the set does not have; it is left out")
    for said, what in ((f"thing={n}", f"det.onnx: it has classes 0 to 0; --classes says thing={n}") for n in (1, 700)):
        brim("train", "detect", "--model", "det.onnx", "--data", "yolo", "--out", "o17", "--classes", said, "--batch", "2", "--held-out", "0", status=2, says=what)
    brim("train", "detect", "--model", "det.onnx", "--data", "yolo", "--out", "o17", "--classes", "bicycle=3", status=2, says="none of its 1 classes ('thing' ...) is one of the 1 that are wanted ('bicycle' ...)")
    brim("eval", status=2, says="expected classify, detect, embed, image, attributes, text or tracks")
    write("yolo/labels/0.txt", "0 0.5 0.5\n")
    brim("train", "detect", "--model", "det.onnx", "--data", "yolo", "--out", "o5", status=2, says="yolo/labels/0.txt:1: expected `class cx cy w h`")
    write("yolo/labels/0.txt", "9 0.5 0.5 0.4 0.4\n")
    brim("train", "detect", "--model", "det.onnx", "--data", "yolo", "--out", "o5", status=2, says="no box in it can be used: yolo/labels/0.txt:1: a class that the set does not have")
    assert not os.path.exists(path("o5")), "nothing is written for data that is refused"


@test
def what_less_memory_costs():
    pictures("two")
    brim("new", "mobilenetv2", "--classes", "2", "--size", "32", "-o", "deep.onnx")
    out = brim("train", "--model", "deep.onnx", "--data", "two", "--out", "o18", "--batch", "8", "--dry-run")
    rows = [line.split() for line in out.split("\n") if "(level " in line]
    need = [float(r[0]) * {"KiB": 1, "MiB": 1024, "GiB": 1 << 20}[r[1]] for r in rows]
    again = [int(r[2]) for r in rows]
    assert len(rows) >= 3 and again[0] == 0, out
    assert need == sorted(need, reverse=True) and again == sorted(set(again)), f"more time, and no less memory: {out}"


@test
def boxes_as_peaks():
    """A network with heat maps: trained, scored, another number of classes."""
    for i in range(6):
        write(f"peaks/images/{i}.png", png(64, 64, lambda y: bytes(v for x in range(64) for v in ((220, 30, 30) if 8 <= x < 32 and 16 <= y < 48 else (60, 60, 60)))))
        write(f"peaks/labels/{i}.txt", "0 0.3125 0.5 0.375 0.5\n")
    write("peaks/classes.txt", "thing\n")
    brim("new", "brimpoint", "--size", "64", "-o", "points.onnx")
    options = ("--data", "peaks", "--epochs", "1", "--batch", "3", "--held-out", "0", "--priority", "normal", "--threads", "1")
    brim("train", "detect", "--model", "points.onnx", *options, "--out", "o7", says="points.onnx: 1 classes instead of 80: layer '")
    got = json.loads(brim("eval", "detect", "--model", "o7/best.onnx", "--data", "peaks", "--json"))
    assert got["samples"] == 6 and 0 <= got["ap50"] <= 1, got
    brim("eval", "detect", "--model", "points.onnx", "--data", "two", status=2, says="the data has one class per picture and no boxes")


@test
def events_of_a_box():
    """Rows without pictures teach nothing, and say so; nor does what is no database."""
    pictures("two")
    write("text.db", "This is no database, but it is longer than the header of one would be, which is a hundred bytes, so that it is read.")
    write("empty/events.db", "")
    for data, status, says in (("gone.db", 2, "gone.db: No such file"), ("text.db", 1, "file is not a database"), ("empty", 2, "no database of events of brim serve")):
        train("classify", "--data", data, "--out", "o8", status=status, says=says)
    box = sqlite3.connect(path("store/events.db"))
    box.execute("CREATE TABLE events(id INTEGER PRIMARY KEY AUTOINCREMENT, uid BLOB NOT NULL UNIQUE, time REAL NOT NULL, camera TEXT NOT NULL, query TEXT NOT NULL, event TEXT NOT NULL,"
                " zone TEXT NOT NULL, label TEXT NOT NULL, attributes TEXT NOT NULL, track INTEGER NOT NULL, frame INTEGER NOT NULL, score REAL NOT NULL, seconds REAL NOT NULL,"
                " direction INTEGER NOT NULL, x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL)")
    box.execute("PRAGMA user_version=1")
    box.execute("PRAGMA journal_mode=WAL")
    train("classify", "--data", "store", "--out", "o8", status=2, says="store: no events in it yet")
    names = ("green", "red")
    for i in range(40):
        uid = bytes([i] + 15 * [7])
        box.execute("INSERT INTO events VALUES(NULL, ?, ?, 'yard', 'all', 'appeared', '', ?, '', ?, ?, 0.9, 0, 0, 0, 0, 32, 32, 32, 32)", (uid, 10**9 + i, names[i % 2], i, i))
    box.commit()  # the writer stays: it is only read
    train("classify", "--data", "store", "--out", "o8", status=2, says="none of its 40 events has a picture; a box keeps them with 'pictures: 256M'")
    for i in range(36):
        shutil.copy(path(f"two/{names[i % 2]}/{i % 10}.png"), path(f"store/events.db.pictures/{bytes([i] + 15 * [7]).hex()}.jpg"))
    brim("train", "classify", "--model", "net.onnx", "--batch", "8", "--lr", "0.003", "--optimizer", "adamw", "--priority", "normal", "--threads", "1", "--data", "store", "--out", "o8",
         "--epochs", "1", "--since", "2001-01-01", says=["36 samples; left out: 4 events without a picture, 0 pictures, 0 boxes", "event 37 has no picture any more"])
    train("classify", "--data", "store", "--out", "o9", "--since", "yesterday", status=2, says="--since: 'yesterday' is no time such as 90m, 24h, 7d, 2026-11-20")
    train("classify", "--data", "store", "--out", "o9", "--since", "7d", status=2, says="no events that --query, --camera and --since let through")
    train("classify", "--data", "store", "--out", "o9", "--camera", "door", status=2, says="no events that --query, --camera and --since let through")
    train("classify", "--data", "store", "--out", "o9", "--label", "colour", status=2, says="--label of events is label, attributes, zone, event, query or camera, not 'colour'")
    train("embed", "--data", "store", "--out", "o9", status=2, says="a box's own events are for --task classify, detect and attributes")
    train("classify", "--data", "store", "--out", "o15", "--epochs", "2", "--max-steps", "1", status=1, says="stopped after 1 updates")
    box.execute("UPDATE events SET label = 'amber' WHERE id = 5")  # something new was seen meanwhile, and stands first in the order of names
    box.commit()
    brim("train", "--resume", "--out", "o15", says="store: its classes are others than when the job began; the 2 that it began with are kept")
    assert json.loads(brim("eval", "classify", "--model", "o15/last.onnx", "--data", "two", "--json"))["samples"] == 20
    train("attributes", "--data", "store", "--out", "o16", status=2, says="store: of its 40 events none with a picture says anything as attributes; a cascade in the site file does")
    box.execute("UPDATE events SET attributes = CASE id % 3 WHEN 0 THEN 'hat 0.91, bag 0.62' WHEN 1 THEN 'bag 0.77' ELSE '' END")
    box.commit()
    train("attributes", "--data", "store", "--out", "o16", "--epochs", "2", "--held-out", "0.3", "--max-steps", "1", status=1, says="stopped after 1 updates")
    box.execute("UPDATE events SET attributes = 'age 0.5' WHERE id = 1")
    box.commit()
    brim("train", "--resume", "--out", "o16", says="store: its classes are others than when the job began; the 2 that it began with are kept")
    got = json.loads(brim("eval", "attributes", "--model", "o16/last.onnx", "--data", "store", "--classes", "bag,hat", "--json"))
    assert got["samples"] == 24 and 0 <= got["accuracy"] <= 1, got  # 26 of 40 events say something, of two the picture is gone
    train("attributes", "--data", "store", "--out", "o9", "--label", "zone", status=2, says="--label is for --task classify")
    box.execute("PRAGMA user_version=7")
    train("classify", "--data", "store", "--out", "o9", status=2, says="store/events.db has schema 7, this brim knows 1")
    box.close()


@test
def words_and_data_that_do_not_fit():
    pictures("two")
    os.makedirs(path("nothing"), exist_ok=True)
    for args, says in ((("--data", "nothing"), "no folders in it; pictures are expected in one folder per class"), (("--data", "gone"), "gone: No such file"),
                       (("detect", "--data", "two"), "it has one class per picture; that is for --task classify, not detect"),
                       (("embed", "--data", "two", "--batch", "9", "--held-out", "0"), "a batch of 9 is no multiple of 4 pictures of a class"),
                       (("clasify", "--data", "two"), "did you mean 'classify'?"), (("classify", "embed", "--data", "two"), "'embed': what is it?"),
                       (("--data", "two", "--distill", "0.5"), "need a --teacher"), (("--data", "two", "--teacher", "net.onnx", "--distill", "2"), "--distill goes from 0 to 1"),
                       (("embed", "--data", "two", "--teacher", "net.onnx"), "--teacher is for classify and detect")):
        train(*args, "--out", "o6", status=2, says=says)
        shutil.rmtree(path("o6"), ignore_errors=True)
    brim("eval", "text", "--model", "net.onnx", "--data", "two", status=2, says="a language model has one input of int64 [N, tokens]")
    brim("eval", "classify", "--model", "net.onnx", "--data", "two", "--gallery", "two", status=2, says="--gallery is for embed")
    for option, value, says in (("held-out", "1.5", "--held-out goes from 0 to below 1"), ("held-out", "-1", "--held-out goes from 0 to below 1"), ("batch", "-3", "--batch goes from 1 to 4096"),
                                ("batch", "5000", "--batch goes from 1 to 4096"), ("threads", "-2", "--threads goes from 0"), ("seed", "-1", "--seed: 0 or more"),
                                ("mean", "1,2", "--mean: one number or three with commas, not '1,2'"), ("mean", "127.5x", "not '127.5x'"), ("mean", "1,2,3,4", "not '1,2,3,4'"),
                                ("std", "nan", "not 'nan'")):
        brim("eval", "classify", "--model", "net.onnx", "--data", "two", "--" + option, value, status=2, says=says)
    for option in ("max-steps", "patience", "freeze-but", "every", "save-every"):
        train("--data", "two", "--out", "o6", "--" + option, "-1", status=2, says="--max-steps, --patience, --freeze-but, --every and --save-every are 0 or more")


@test
def numbers_that_are_none_of_the_default():
    """What was said is never taken for what was not said."""
    pictures("two")
    for option, value, says in (("lr", "0", "--lr is above 0"), ("batch", "0", "--batch goes from 1 to 65536"), ("held-out", "-1", "--held-out goes from 0 to below 1"),
                                ("ema", "-1", "the decay of the running mean is -1"), ("warmup", "-1", "--warmup goes from 0"), ("accumulate", "0", "--accumulate is 1 or more"),
                                ("size", "-3", "--size goes to 8192"), ("per-identity", "-2", "--per-identity, --width, --category and --data-every are 1 or more"),
                                ("margin", "0", "--margin is above 0"), ("focal", "-1", "--margin, --triplet and --focal are 0 or more"), ("l1", "-1", "--l1, --mse, --ssim and --adversary are 0 or more"),
                                ("lr-last", "-1", "--lr-last and --gamma are 0 or more"), ("freeze", "stem", "--freeze stem: no name of what could be trained begins so"),
                                ("dropout", "1", "--dropout goes from 0 to below 1"), ("dropout", "-0.1", "--dropout goes from 0 to below 1")):
        words = ["train", "--model", "net.onnx", "--data", "two", "--out", "o12", "--priority", "normal", "--threads", "1"]
        brim(*words, *([] if option == "batch" else ["--batch", "8"]), "--" + option, value, status=2, says=says)
        shutil.rmtree(path("o12"), ignore_errors=True)


@test
def lines_of_json_are_json():
    """Also where there is no number to tell: nothing held out, or a network that went wrong in its last step."""
    pictures("two")
    last = train("--data", "two", "--out", "o13", "--epochs", "1", "--held-out", "0", "--json").strip().split("\n")[-1]
    assert json.loads(last)["best"] is None, last
    p = subprocess.run([BRIM, "train", "--model", "net.onnx", "--data", "two", "--out", "o14", "--epochs", "2", "--batch", "16", "--lr", "999", "--weight-decay", "9", "--optimizer", "sgd",
                        "--val", "two", "--priority", "normal", "--threads", "1", "--json"], cwd=DIR, stdin=subprocess.DEVNULL, timeout=made.PATIENCE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in p.stdout.strip().split("\n"):
        if line:
            json.loads(line, parse_constant=lambda word: (_ for _ in ()).throw(AssertionError(f"{word} in {line}")))


def while_training():
    """As PyTorch exports a network in training at opset 13: the norm has five outputs, the dropout a switch that is on."""
    from made import node, onnx, tensor, value
    rng = random.Random(2)
    floats = lambda n, low, high: struct.pack(f"<{n}f", *[rng.uniform(low, high) for _ in range(n)])
    switch = sub(5, made.num(2, 9), sub(8, "on"), sub(9, b"\1"))
    ratio = sub(5, made.num(2, 1), sub(8, "half"), sub(9, struct.pack("<f", 0.5)))
    return onnx(node("Conv", ["x", "conv.weight"], ["c"]), node("BatchNormalization", ["c", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["n", "a", "b", "d", "e"]),
                node("Relu", ["n"], ["r"]), node("GlobalAveragePool", ["r"], ["p"]), node("Flatten", ["p"], ["f"]), node("Dropout", ["f", "half", "on"], ["g"]),
                node("Gemm", ["g", "fc.weight"], ["y"]), tensor("conv.weight", [8, 3, 3, 3], floats(216, -0.3, 0.3)), tensor("bn.weight", [8], floats(8, 0.9, 1.1)),
                tensor("bn.bias", [8], floats(8, -0.1, 0.1)), tensor("bn.mean", [8], floats(8, -0.1, 0.1)), tensor("bn.var", [8], floats(8, 0.9, 1.1)),
                tensor("fc.weight", [8, 2], floats(16, -0.5, 0.5)), switch, ratio, value(11, "x", [1, 3, 32, 32]), value(12, "y", [1, 2]))


@test
def dropout_is_kept_through_a_kill():
    """What is dropped is a function of the seed and the update: a job that was killed comes to the same bytes, with the ratio that it was begun with."""
    pictures("two")
    write("drops.onnx", while_training())
    brim("train", "--model", "cifar-resnet20", "--data", "two", "--out", "d0", "--batch", "8", "--dropout", "0.3", status=2, says="--dropout 0.3: the network has no Dropout")
    words = ["train", "--model", "drops.onnx", "--data", "two", "--batch", "4", "--accumulate", "2", "--epochs", "6", "--held-out", "0", "--optimizer", "adamw", "--priority", "normal", "--threads", "1",
             "--json"]
    last = lambda out: open(path(f"{out}/last.onnx"), "rb").read()
    brim(*words, "--out", "d1")
    brim(*words, "--out", "d2", "--dropout", "0.5")
    brim(*words, "--out", "d3", "--dropout", "0")
    brim(*words, "--out", "d4", "--dropout", "0.7")
    assert last("d1") == last("d2") and last("d3") != last("d1") and last("d4") != last("d1") and last("d4") != last("d3")
    p = subprocess.Popen([BRIM, *words, "--out", "d5", "--dropout", "0.7"], cwd=DIR, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert p.stdout.readline()
    p.kill()
    p.communicate(timeout=made.PATIENCE)
    brim("train", "--resume", "--out", "d5", "--dropout", "0.5", status=2, says="keeps the options")
    brim("train", "--resume", "--out", "d5", "--json")
    assert last("d5") == last("d4")
    scores = [json.loads(brim("eval", "classify", "--model", "d5/last.onnx", "--data", "two", "--json")) for _ in range(2)]
    for s in scores:
        s.pop("seconds")
    assert scores[0] == scores[1], scores
    assert b"DropoutBy" not in last("d5") and sub(4, "Dropout") in last("d5")


@test
def a_network_exported_while_training():
    pictures("two")
    write("raw.onnx", while_training())
    brim("run", "raw.onnx", status=2, says=("BatchNormalization", "brim export F.onnx -o G.onnx"))
    brim("eval", "classify", "--model", "raw.onnx", "--data", "two", status=2, says="brim export")
    brim("export", "raw.onnx", "-o", "clean.onnx")
    brim("run", "clean.onnx")
    before = json.loads(brim("eval", "classify", "--model", "clean.onnx", "--data", "two", "--json"))
    lines = brim("train", "--model", "raw.onnx", "--data", "two", "--out", "o9", "--epochs", "1", "--batch", "8", "--score-first", "--held-out", "0", "--val", "two", "--priority", "normal",
                 "--json")
    first = json.loads(lines.split("\n")[0])
    assert first["epoch"] == 0 and abs(first["val_loss"] - before["loss"]) < 1e-4, (first, before)
    for name in ("model", "last", "best"):
        text = open(path(f"o9/{name}.onnx"), "rb").read()
        at = text.index(b"BatchNormalization")
        assert sub(2, "n") in text[at - 120:at] and sub(2, "a") not in text[at - 120:at], "a norm with outputs for training"
        assert sub(1, "on") not in text, "a dropout that is on"
    brim("export", "none.onnx", "-o", "o.onnx", status=2, says="none.onnx")
    brim("export", "clean.onnx", status=2, says="expected one checkpoint, or an ONNX file")


@test
def sides_that_are_none():
    """A side is digits; what else stands there is not read as far as it goes."""
    for size in ("64x", "x64", "-1", "1e3", "64x64x64", "64X64", " 64", "+64", "64 ", "64.0", "0x", "", "64x-64", "\u0666\u0664"):
        brim("new", "brimdet", "--size=" + size, "-o", "sides.onnx", status=2, says=f"--size '{size}': expected a side such as 320, or width and height such as 512x288")
    for size in ("0x64", "64x0", "0x0", "31", "4097", "64x31", "320x4097", "99999999", "9" * 40, "64x" + "9" * 40):
        brim("new", "brimdet", "--size", size, "-o", "sides.onnx", status=2, says=f"--size {size}: sides go from 32 to 4096")
    brim("new", "brimdet", "--size", "100", "-o", "sides.onnx", status=2, says="brimdet: its input's sides are multiples of 32")
    brim("new", "resnet18", "--size", "64x32", "-o", "sides.onnx", status=2, says="only the yolox detectors, brimdet and brimpoint take a width and a height")
    assert not os.path.exists(path("sides.onnx"))
    for size in ("0", "64x96"):
        brim("new", "brimdet", "--size", size, "-o", "sides.onnx")


def main():
    brim("new", "squeezenet", "--classes", "3", "--size", "32", "-o", "net.onnx")
    failed = made.run(TESTS)
    shutil.rmtree(DIR, ignore_errors=True)
    return 1 if failed else 0


sys.exit(main())
