#!/usr/bin/env python3
"""The weight store from the command line: what `brim models` does, names of stored models under run, explain and serve, tensors that two
models have in common, and what goes wrong: each mistake one line and the right exit status. Standard library only. Prints TAP.

usage: models_test.py BRIM          SPDX-License-Identifier: Apache-2.0"""
import fcntl, json, os, pathlib, shutil, struct, subprocess, sys, time

sys.dont_write_bytecode = True
import cli_test as c
from cli_test import brim, node, onnx, path, tensor, test, value, write

c.TESTS.clear()
SIDE = 128
BYTES = 3 * SIDE * SIDE * 4  # of one weight: large enough for a blob of its own
STORE = pathlib.Path(path("store"))


def numbers(seed):
    return struct.pack(f"<{BYTES // 4}f", *[((i * 7 + seed * 13) % 97) / 97 for i in range(BYTES // 4)])


def network(name, *weights):
    """y = ((x + w0) * w1 + w2) ..., so that no two can be folded; weights of equal seeds are equal tensors, whatever they are called."""
    shape = [1, 3, SIDE, SIDE]
    names = ["x"] + [f"{name}{i}" for i in range(1, len(weights))] + ["y"]
    nodes = [node("Mul" if i % 2 else "Add", [names[i], f"w{i}"], [names[i + 1]]) for i in range(len(weights))]
    return write(name + ".onnx", onnx(*nodes, *[tensor(f"w{i}", shape, numbers(w)) for i, w in enumerate(weights)],
                                      value(11, "x", shape) + value(12, "y", shape)))


def models(*args, **more):
    return json.loads(brim("models", *args, "--json", **more))


def fresh(*names):
    """An empty store with these models: one has weights 1 and 2, two 1 and 3 (weight 1 is common), big 1 to 6."""
    shutil.rmtree(STORE, ignore_errors=True)
    network("one", 1, 2), network("two", 1, 3), network("big", 1, 2, 3, 4, 5, 6)
    return [models("import", n + ".onnx") for n in names]


def on_disk(folder):
    return sum(f.stat().st_size for f in (STORE / folder).rglob("*") if f.is_file())


def sum_of(out):
    return open(path(out + "/y.npy"), "rb").read()


def damage(file, at):
    with open(file, "r+b") as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 1]))


@test
def import_list_show():
    first, second = fresh("one", "two")
    assert first["name"] == "one" and first["version"] == 1 and first["new"] and first["shared_bytes"] == 0, first
    again = models("import", "one.onnx")
    assert again["version"] == 1 and not again["new"] and again["new_bytes"] == 0, again
    rows = {r["name"]: r for r in models("list")["models"]}
    assert sorted(rows) == ["one", "two"] and not rows["one"]["pinned"] and rows["one"]["uses"] == 0, rows
    shown = models("show", "one")
    assert len(shown["tensor_list"]) == 2 and all(t["bytes"] == BYTES and t["dtype"] == "float32" for t in shown["tensor_list"]), shown
    assert "one version 1" in brim("models", "show", "one") and "two" in brim("models", "list")
    network("one", 1, 7)  # the file changed: a new version, of which one tensor is new
    changed = models("import", "one.onnx")
    assert changed["version"] == 2 and BYTES <= changed["new_bytes"] < 1.1 * BYTES, changed
    assert models("import", "two.onnx", "--name", "other")["name"] == "other"


@test
def equal_tensors_are_held_once_on_disk():
    first, second = fresh("one", "two")
    assert second["shared_bytes"] == BYTES and BYTES <= second["new_bytes"] < 1.1 * BYTES, second
    held = on_disk("blobs")
    assert 3 * BYTES <= held < 3.1 * BYTES, f"{held} bytes for three different tensors of {BYTES}"
    common = {t["shared_with"] for t in models("show", "two")["tensor_list"]}
    assert common == {None, "one"}, common
    print(f"# two models of {2 * BYTES} bytes each, one tensor in common: {held} bytes of blobs")


@test
def pin_remove_gc():
    fresh("one", "two")
    assert models("pin", "one")["pinned"]
    brim("models", "remove", "one", status=1, says=["one", "unpin"])
    assert not models("unpin", "one")["pinned"]
    assert models("remove", "one")["bytes"] >= BYTES
    assert 2 * BYTES <= on_disk("blobs") < 2.1 * BYTES, "what two has in common with one must stay"
    brim("run", "two", "--output", "kept")
    brim("run", "one", status=2, says="one")
    network("two", 8, 9)
    models("import", "two.onnx")
    models("gc")
    assert 2 * BYTES <= on_disk("blobs") < 2.1 * BYTES, "the old version's tensors go"
    assert models("gc")["files"] == 0
    assert models("verify")["damage"] == []


@test
def names_of_stored_models_run_as_their_files_do():
    fresh("one", "two", "big")
    for name in ("one", "big"):
        brim("run", name + ".onnx", "--seed", "1", "--output", "file")
        brim("run", name, "--seed", "1", "--output", "stored")
        assert sum_of("file") == sum_of("stored")
        assert json.loads(brim("explain", name, "--json"))["flops"] == json.loads(brim("explain", name + ".onnx", "--json"))["flops"]
    written = on_disk("packed")
    os.rename(path("big.onnx"), path("hidden"))  # the store alone is enough
    budget = json.loads(brim("run", "big", "--seed", "1", "--output", "all", "--json"))["peak_bytes"] - 2 * BYTES
    r = json.loads(brim("run", "big", "--seed", "1", "--output", "small", "--json", "--budget", str(budget), "--repeat", "3"))
    assert r["streamed_bytes"] > 0 and r["read_bytes_per_run"] == r["streamed_bytes"] and r["peak_bytes"] <= budget, r
    assert sum_of("all") == sum_of("small")
    assert on_disk("packed") == written, "packed once, used from then on"
    text = brim("explain", "big", "--budget", str(budget))
    assert "stream" in text, text
    x = json.loads(brim("explain", "big", "--budget", str(budget), "--json"))
    assert "window" in json.dumps(x), x
    brim("explain", "big", "--budget", "1000", status=1, says="budget")
    other = path("elsewhere")
    shutil.copytree(STORE, other)
    brim("run", "big", "--store", other)
    brim("explain", "big", "--store", other)


@test
def deleted_packed_files_are_made_again():
    fresh("one")
    brim("run", "one", "--seed", "1", "--output", "before")
    shutil.rmtree(STORE / "packed")
    brim("run", "one", "--seed", "1", "--output", "after")
    assert sum_of("before") == sum_of("after")


def serving(budget, *names):
    """A box with these stored models, each asked for by one query; returns its `brim mem` when all have run."""
    os.makedirs(path("pictures"), exist_ok=True)
    with open(path("pictures/a.png"), "wb") as f:
        f.write(c.png(SIDE, SIDE, 100))
    lines = [f"version: 1\nbudget: {budget}\ncameras: {{cam: {{url: pictures, loop: true}}}}\nmodels:\n"]
    for n in names:
        write(n + ".yaml", f"card: 1\nhead: image\ninput: {{size: [{SIDE}, {SIDE}]}}\n")
        lines.append(f"  {n}: {{onnx: {n}, card: {n}.yaml}}\n")
    lines.append("queries:\n")
    lines += [f"  q{n}: {{cameras: cam, model: {n}, fps: 5}}\n" for n in names]
    box = c.Box(write("stored.yaml", "".join(lines)), "--no-http")
    try:
        end = time.time() + c.made.PATIENCE
        while time.time() < end:
            why = json.loads(brim("why", "cam", "--json"))
            if all(q["ran"] for q in why["queries"]):
                break
            time.sleep(0.1)
        assert all(q["ran"] and not q["problem"] for q in why["queries"]), why
        uses = {r["name"]: r["uses"] for r in models("list")["models"]}
        assert all(uses[n] for n in names), uses
        brim("models", "remove", names[0], status=1, says=names[0])
        return json.loads(brim("mem", "--json"))
    finally:
        box.end()


def weights(mem):
    return sum(p["used"].get("weights", 0) for p in mem["payers"])


@test
def equal_tensors_are_held_once_in_memory():
    fresh("one", "two")
    alone, mem = weights(serving("64M", "one")), serving("64M", "one", "two")
    both = weights(mem)
    print(f"# weights in memory: one model {alone}, two with one tensor in common {both} (of {4 * BYTES} bytes)")
    assert 2 * BYTES <= alone < 2.2 * BYTES, alone
    assert 3 * BYTES <= both < 3.3 * BYTES, both
    assert mem["shared_bytes"] == BYTES, mem["shared_bytes"]
    plan = json.loads(brim("plan", "stored.yaml", "--json"))
    assert plan["shared_bytes"] == BYTES and 4 * BYTES <= plan["weights_bytes"] < 4.4 * BYTES, plan
    assert "less what models share: 192.0 KiB" in brim("plan", "stored.yaml")


def scaled(name, seed, scale):
    """y = conv(x, w) * s: s would be folded into w."""
    w = struct.pack("<1728f", *[((i * 7 + seed * 13) % 97) / 97 for i in range(1728)])
    s = struct.pack("<64f", *[scale + i / 64 for i in range(64)])
    return write(name + ".onnx", onnx(node("Conv", ["x", "w"], ["c"]), node("Mul", ["c", "s"], ["y"]), tensor("w", [64, 3, 3, 3], w),
                                      tensor("s", [64, 1, 1], s), value(11, "x", [1, 3, 16, 16]) + value(12, "y", [1, 64, 14, 14])))


@test
def sharing_is_recorded_and_explained():
    fresh()
    scaled("a", 1, 1), scaled("b", 1, 2), scaled("c", 2, 1)
    models("import", "a.onnx")
    before = json.loads(brim("explain", "a", "--json"))
    assert before["shared_bytes"] == 0 and before["steps"][0]["post_ops"] == 0, before
    out = [json.loads(line) for line in brim("models", "import", "b.onnx", "c.onnx", "--shared", "--json").splitlines()]
    assert out[2] == {"sharing_models": 2, "shared_tensors": 1, "shared_bytes": 6912, "saved_bytes": 6912, "changed_models": 2}, out
    assert [r["version"] for r in models("list")["models"]] == [2, 2, 1]
    step = json.loads(brim("explain", "a", "--json"))["steps"][0]
    assert step["shared"] == "w" and step["shared_with"] == "b" and step["shared_bytes"] >= 6912 and step["post_ops"] == 1, step
    assert "'w', shared with b" in brim("explain", "a")
    for n in "abc":
        brim("run", n + ".onnx", "--seed", "3", "--output", "file")
        brim("run", n, "--seed", "3", "--output", "stored")
        x, y = [struct.unpack("<12544f", sum_of(o)[-4 * 12544:]) for o in ("file", "stored")]
        assert max(abs(p - q) for p, q in zip(x, y)) < 1e-4
    again = models("import", "a.onnx")
    assert not again["new"] and again["version"] == 2, again
    scaled("b", 3, 1)
    models("import", "b.onnx")
    assert "nobody now" in brim("explain", "a")
    assert models("share") == {"sharing_models": 0, "shared_tensors": 0, "shared_bytes": 0, "saved_bytes": 0, "changed_models": 1}
    assert "nothing is shared" in brim("models", "share")
    brim("models", "share", "a", "nobody", status=2, says="nobody")
    brim("models", "share", "a", "a", status=2, says="twice")


@test
def a_shared_pair():
    """The face detectors of the shared data, of which 47 of 64 tensors are equal."""
    folder = pathlib.Path(os.environ.get("BRIM_DATA") or pathlib.Path(os.environ.get("BRIM_SOURCE", ".")) / "../shared/data").resolve() / "models/openvino"
    pair = [folder / f"face-detection-retail-{n}.onnx" for n in ("0004", "0044")]
    if not all(p.exists() for p in pair):
        return print("# skipped: the shared models are not there (BRIM_DATA)")
    fresh()
    first, second = [models("import", str(p)) for p in pair]
    print(f"# first {first['new_bytes']} bytes, second {second['new_bytes']} new and {second['shared_bytes']} shared")
    assert second["shared_bytes"] > 0.3 * second["bytes"] and second["new_bytes"] < 0.75 * second["bytes"], second
    for r, p in zip((first, second), pair):
        brim("run", str(p), "--seed", "3", "--output", "file")
        brim("run", r["name"], "--seed", "3", "--output", "stored")
        for f in os.listdir(path("file")):
            assert open(path("file/" + f), "rb").read() == open(path("stored/" + f), "rb").read(), f


@test
def what_is_not_there():
    fresh("one")
    for verb in ("show", "pin", "unpin", "remove"):
        brim("models", verb, "nobody", status=2, says="nobody")
        brim("models", verb, status=2, says="NAME")
    brim("models", "show", "../one", status=2)
    brim("models", "import", "nowhere.onnx", status=2, says="nowhere.onnx")
    brim("models", "import", status=2, says="FILE.onnx")
    brim("models", "import", "one.onnx", "--name", "a/b", status=2, says="a/b")
    brim("models", "polish", status=2, says="polish")
    brim("models", status=2, says="import")
    for command in ("run", "explain"):
        brim(command, "nobody", status=2, says="nobody")
    write("text.onnx", "no model")
    brim("models", "import", "text.onnx", status=2, says="text.onnx")
    assert [r["name"] for r in models("list")["models"]] == ["one"]


@test
def altered_files_are_named():
    fresh("one")
    brim("run", "one", "--output", "good", "--seed", "1")
    blob = max((STORE / "blobs").iterdir(), key=lambda f: f.stat().st_size)
    packed = max((f for f in (STORE / "packed").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    damage(packed, packed.stat().st_size // 2)
    assert packed.name in brim("models", "verify", "--json", status=1, lines=0, says=packed.name)
    brim("run", "one", "--output", "bad", "--seed", "1", status=1, says="altered")
    packed.unlink()
    brim("run", "one", "--output", "again", "--seed", "1")
    assert sum_of("again") == sum_of("good")
    damage(blob, blob.stat().st_size // 2)
    r = json.loads(brim("models", "verify", "--json", status=1, lines=0))
    assert any(blob.name in d for d in r["damage"]), r
    models("import", "one.onnx")  # importing the file again heals it
    assert not any(blob.name in d for d in models("verify")["damage"])
    blob.unlink()
    brim("models", "verify", status=1, lines=0, says=blob.name)


@test
def a_store_of_another_format():
    fresh("one")
    (STORE / "store").write_bytes(b"brim store 99\n")
    before = sorted(str(f) for f in STORE.rglob("*"))
    brim("models", "list", status=2, says=str(STORE.name))
    p = subprocess.run([c.BRIM, "models", "import", "two.onnx"], env=c.ENV, cwd=c.DIR, capture_output=True, text=True, timeout=c.made.PATIENCE)
    assert p.returncode == 2 and "format 1" in p.stderr, p
    assert sorted(str(f) for f in STORE.rglob("*")) == before, "a store of another format is left alone"


@test
def two_writers():
    fresh("one")
    network("late", 11, 12)
    with open(STORE / "lock", "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        p = subprocess.Popen([c.BRIM, "models", "import", "late.onnx", "--json"], env=c.ENV, cwd=c.DIR, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert [r["name"] for r in models("list")["models"]] == ["one"], "readers do not wait for a writer"
        brim("run", "one.onnx")
        assert p.poll() is None, p.communicate()
    out, errors = p.communicate(timeout=c.made.PATIENCE)
    assert p.returncode == 0 and json.loads(out)["new"], errors
    several = [subprocess.Popen([c.BRIM, "models", "import", n + ".onnx"], env=c.ENV, cwd=c.DIR, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
               for n in ("one", "two", "big", "two")]
    for p in several:
        assert p.wait(60) == 0, p.stderr.read()
    assert sorted(r["name"] for r in models("list")["models"]) == ["big", "late", "one", "two"]
    assert models("verify")["damage"] == []


@test
def a_store_that_cannot_be_written():
    fresh("one")
    lock = pathlib.Path(path("file"))
    shutil.rmtree(lock, ignore_errors=True)
    lock.write_text("a file, not a folder")
    brim("models", "list", "--store", str(lock), status=1, says="file")
    if os.geteuid() == 0:
        return print("# read-only folders: root writes to them anyway")
    for f in [STORE, *STORE.rglob("*")]:
        f.chmod(f.stat().st_mode & ~0o222)
    try:
        brim("models", "import", "two.onnx", status=1, says="store")
    finally:
        for f in [STORE, *STORE.rglob("*")]:
            f.chmod(f.stat().st_mode | 0o200)


if __name__ == "__main__":
    sys.exit(c.main())
