#!/usr/bin/env python3
"""The command line as people get it wrong: each mistake gets one clear line and the right exit status (0 fine,
1 the work failed, 2 wrong usage or input), and never a crash. Standard library only; everything is made in a temporary folder. Prints TAP.

usage: cli_test.py BRIM          SPDX-License-Identifier: Apache-2.0"""
import json, os, resource, shutil, signal, socket, stat, struct, subprocess, sys, tempfile, threading, time

sys.dont_write_bytecode = True
import made
from made import node, onnx, tensor, value

BRIM = os.path.abspath(sys.argv[1])
DIR = tempfile.mkdtemp(prefix="brim-cli-")
ENV = dict(os.environ, BRIM_STORE=os.path.join(DIR, "store"))
TESTS = []


def test(f):
    TESTS.append(f)
    return f


def path(name):
    return os.path.join(DIR, name)


def write(name, data):
    with open(path(name), "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    return path(name)


def brim(*args, status=0, says=None, lines=1, **more):
    """Runs; checks the status, that stderr has the words, and that a mistake is told in `lines` lines."""
    p = subprocess.run([BRIM, *args], env=ENV, cwd=DIR, stdin=subprocess.DEVNULL, timeout=made.PATIENCE,
                       **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more})
    err = (p.stderr or b"").decode(errors="replace")
    assert status is None or p.returncode == status, f"{args}: status {p.returncode}, not {status}: {err[-800:]}"
    for word in [says] if isinstance(says, str) else says or []:
        assert word in err, f"{args}: '{word}' is not in: {err[-800:]}"
    if status and lines:
        assert len(err.strip().split("\n")) == lines, f"{args}: {err}"
    return (p.stdout or b"").decode(errors="replace")


def npy(dims, raw, descr="<f4"):
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({''.join(f'{d}, ' for d in dims)}), }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + raw


IO = value(11, "x", [1, 4]) + value(12, "y", [1, 4])
GOOD = onnx(node("Add", ["x", "w"], ["y"]), tensor("w", [1, 4], struct.pack("<4f", 1, 2, 3, 4)), IO)
SITE = "version: 1\ncameras: {cam: {url: empty, loop: true}}\nqueries: {q: {cameras: cam, model: motion}}\n"


@test
def a_good_model_runs():
    write("good.onnx", GOOD)
    write("x.npy", npy([1, 4], struct.pack("<4f", 1, 1, 1, 1)))
    out = json.loads(brim("run", "good.onnx", "--input", "x=x.npy", "--output", "out", "--json"))
    assert out["outputs"][0]["shape"] == [1, 4]
    assert open(path("out/y.npy"), "rb").read()[-16:] == struct.pack("<4f", 2, 3, 4, 5)
    json.loads(brim("explain", "good.onnx", "--json"))


@test
def broken_onnx():
    cases = {
        "empty": b"", "text": b"this is no model\n" * 20, "half": GOOD[:len(GOOD) // 2],
        "cyclic": onnx(node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"]), IO),
        "lying": onnx(node("Add", ["x", "w"], ["y"]), tensor("w", [1, 4000], b"1234"), IO),
        "huge": onnx(node("Add", ["x", "w"], ["y"]), tensor("w", [1 << 40, 1 << 40], b"1234"), IO),
        "dangling": onnx(node("Add", ["x", "nothing"], ["y"]), IO),
    }
    for name, data in cases.items():
        write(name + ".onnx", data)
        brim("run", name + ".onnx", status=2, says=name + ".onnx")
        brim("explain", name + ".onnx", status=2, says=name + ".onnx")


@test
def every_cut_and_many_flips():
    """A crash would be a negative status; what is still a model may run."""
    for i in range(0, len(GOOD), 7):
        for data in (GOOD[:i], GOOD[:i] + bytes([GOOD[i] ^ 0xff]) + GOOD[i + 1:]):
            write("mangled.onnx", data)
            p = subprocess.run([BRIM, "run", "mangled.onnx", "--budget", "64M"], env=ENV, cwd=DIR,
                               capture_output=True, timeout=made.PATIENCE)
            assert p.returncode in (0, 1, 2), f"byte {i}: {p.returncode} {p.stderr}"


@test
def unsupported_operator():
    write("odd.onnx", onnx(node("Frobnicate", ["x"], ["y"]), IO))
    brim("run", "odd.onnx", status=2, says=["Frobnicate", "opset 13"])


@test
def wrong_inputs():
    write("good.onnx", GOOD)
    write("short.npy", npy([1, 4], b"1234"))
    write("text.npy", b"no numbers")
    write("shape.npy", npy([2, 3, 9], bytes(4 * 54)))
    write("ints.npy", npy([1, 4], bytes(32), "<i8"))
    for f in ("short", "text", "shape", "ints"):
        brim("run", "good.onnx", "--input", f"x={f}.npy", status=2)
    brim("run", "good.onnx", "--input", "z=x.npy", status=2, says="no such input")
    brim("run", "good.onnx", "--input", "x=nowhere.npy", status=2, says="nowhere.npy")
    brim("run", "good.onnx", "--budget", "1", status=1, says="budget")


@test
def a_file_that_is_not_there():
    for command in ("run", "explain"):
        brim(command, "nosuch.onnx", status=2, says="No such file")
        brim(command, "nosuch", status=2, says="in the store")


@test
def wrong_usage():
    write("good.onnx", GOOD)
    brim("frobnicate", status=2, says="frobnicate")
    brim("run", "--thread", "1", "good.onnx", status=2, says="--threads")
    brim("run", "good.onnx", "--threads", "many", status=2, says="whole number")
    brim("run", "good.onnx", "--budget", "-3M", status=2, says="size")
    brim("run", "good.onnx", "--repeat", "0", status=2, says="--repeat")
    brim("run", "good.onnx", "--threads", status=2, says="needs a value")
    brim("run", status=2)
    brim("run", "nowhere.onnx", status=2, says="nowhere.onnx")
    brim("serve", "nowhere.yaml", status=2, says="nowhere.yaml")
    brim("mem", status=2, says="store")
    brim("budget", "lots", status=2, says="300M")
    for verb in ("run", "explain", "verify", "serve", "mem", "why", "budget", "check"):
        assert "usage" in brim(verb, "--help")
    assert "usage" in brim("--help") and "brim" in brim("--version")


@test
def site_errors_have_positions():
    write("bad.yaml", "version: 1\ncameras: {a: {url: x}}\nqueries:\n  q: {cameras: b, model: motion}\n")
    brim("serve", "bad.yaml", "--no-http", status=2, says="bad.yaml:4:")
    brim("check", "bad.yaml", status=2, lines=0)
    write("torn.yaml", "version: 1\ncameras: {a: [\n")
    brim("serve", "torn.yaml", "--no-http", status=2, says="torn.yaml:")


@test
def output_that_cannot_be_written():
    write("good.onnx", GOOD)
    with open("/dev/full", "wb") as full:
        brim("run", "good.onnx", "--json", status=1, says="output", stdout=full)
    p = subprocess.run(["/bin/sh", "-c", 'exec "$0" run good.onnx --output closed >&-', BRIM], env=ENV, cwd=DIR,
                       capture_output=True, timeout=made.PATIENCE)
    assert p.returncode in (0, 1), p
    assert open(path("closed/y.npy"), "rb").read(6) == b"\x93NUMPY"
    assert os.path.getsize(path("closed/y.npy")) == 144, "stdout went into the file"


@test
def what_is_no_file_is_written_into():
    fifo, got, net = path("fifo"), [], ("new", "cifar-resnet20", "--classes", "2", "-o")
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: got.append(open(fifo, "rb").read()))
    reader.start()
    brim(*net, fifo)
    reader.join()
    brim(*net, "net.onnx")
    assert got[0] == open(path("net.onnx"), "rb").read() and stat.S_ISFIFO(os.stat(fifo).st_mode)
    brim(*net, "/dev/full", status=1, says="/dev/full: cannot write: No space left on device")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@test
def full_disk():
    def small():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
    write("good.onnx", GOOD)
    brim("run", "good.onnx", "--output", "full", status=1, says="y.npy", preexec_fn=small)


def png(w, h, grey):
    """grey: 0 to 255, or None for noise."""
    return made.png(w, h, lambda y: os.urandom(3 * w) if grey is None else bytes([grey]) * 3 * w)


# ---- a running box

class Box:
    def __init__(self, site, *args, **more):
        self.p = subprocess.Popen([BRIM, "serve", site, *args], env=ENV, cwd=DIR, stdin=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, **{"stdout": subprocess.PIPE, **more})
        self.lines, self.changed = [], threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()
        end = time.time() + made.PATIENCE
        while self.p.poll() is None and time.time() < end:
            if subprocess.run([BRIM, "mem"], env=ENV, cwd=DIR, capture_output=True).returncode == 0:
                break
            time.sleep(0.05)

    def read(self):
        for line in self.p.stderr:
            with self.changed:
                self.lines.append(line.decode(errors="replace"))
                self.changed.notify_all()

    def expect(self, word):
        with self.changed:
            assert self.changed.wait_for(lambda: any(word in x for x in self.lines), made.PATIENCE), \
                f"'{word}' is not in {self.lines}"

    def end(self, how=signal.SIGTERM):
        self.p.send_signal(how)
        try:
            status = self.p.wait(made.PATIENCE)
        except subprocess.TimeoutExpired:
            self.p.kill()
            raise AssertionError("it did not end")
        assert status == 0, f"status {status}: {self.lines}"


@test
def the_life_of_a_box():
    os.makedirs(path("empty"), exist_ok=True)
    write("site.yaml", SITE)
    box = Box("site.yaml", "--no-http")
    try:
        assert json.loads(brim("mem", "--json"))["limit_bytes"] > 0
        assert json.loads(brim("why", "cam", "--json"))["camera"] == "cam"
        brim("mem"), brim("why", "cam")
        brim("why", "cow", status=2, says="there are: cam")
        brim("budget", "1", status=1)
        assert json.loads(brim("budget", "300M"))["limit_bytes"] == 300 << 20
        brim("serve", "site.yaml", "--no-http", status=1, says="pid", lines=0)
        write("site.yaml", SITE.replace("motion", "motoin"))
        box.p.send_signal(signal.SIGHUP)
        box.expect("site.yaml:3:")
        write("site.yaml", SITE.replace("motion}", "motion, fps: 3}"))
        box.p.send_signal(signal.SIGHUP)
        box.expect("reloaded")
    finally:
        box.end()
    brim("mem", status=2, says="store")


@test
def port_in_use():
    os.makedirs(path("empty"), exist_ok=True)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        write("port.yaml", SITE + f'outputs: {{http: "127.0.0.1:{port}"}}\n')
        brim("serve", "port.yaml", status=1, says=str(port), lines=0)


@test
def a_reader_of_standard_output_that_does_not_read():
    """The box runs on, says so, and ends when told to."""
    write("many.yaml", "version: 1\nbudget: 200M\ncameras: {a: {url: many, pace: max, loop: true}}\n"
          "queries: {q: {cameras: all, model: motion, fps: 1000}}\noutputs: {jsonl: '-'}\n")
    os.makedirs(path("many"), exist_ok=True)
    for i in range(4):
        write(f"many/{i}.png", png(160, 96, 60 * i))
    box = Box("many.yaml", "--no-http", "--json")
    try:
        box.expect("does not read")
        runs = [json.loads(brim("mem", "--json"))["limit_bytes"] for _ in range(2)]
        assert runs[0] == 200 << 20
        box.end()
        box.expect("lines were dropped")
    finally:
        box.p.kill()
    lines = box.p.stdout.read().decode().split("\n")
    assert len(lines) > 50
    for line in lines[:-1]:
        json.loads(line)


@test
def videos_are_not_written_over_and_may_fail():
    os.makedirs(path("many"), exist_ok=True)
    os.makedirs(path("videos"), exist_ok=True)
    for i in range(4):
        write(f"many/{i}.png", png(160, 96, 60 * i))
    site = write("video.yaml", SITE.replace("url: empty, loop: true", "url: many, pace: max") + f"outputs: {{database: off, video: {path('videos')}}}\n")
    old = write("videos/cam.mp4", b"what was seen yesterday")
    brim("serve", site, "--no-http", "--json")  # to the end of the pictures
    assert open(old, "rb").read() == b"what was seen yesterday"
    assert os.path.getsize(path("videos/cam-2.mp4")) > 1000

    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
    os.makedirs(path("videos/cam-3.mp4"))  # a name that is taken by something else is passed over
    for i in range(4):
        write(f"many/{i}.png", png(640, 480, None))
    brim("serve", site, "--no-http", "--json", says="cam-4.mp4", preexec_fn=small)
    assert 1000 < os.path.getsize(path("videos/cam-4.mp4")) <= 1 << 16


@test
def a_camera_that_sends_garbage():
    write("noise.mp4", os.urandom(100000))
    write("noise.yaml", SITE.replace("url: empty, loop: true", "url: noise.mp4, pace: max") + "outputs: {jsonl: '-'}\n")
    out = brim("serve", "noise.yaml", "--no-http", "--json")
    assert json.loads(out.strip().split("\n")[-1])["cameras"][0]["error"]


@test
def a_card_that_does_not_fit():
    os.makedirs(path("empty"), exist_ok=True)
    write("good.onnx", GOOD)
    write("good.yaml", "card: 1\nhead: classify\ninput: {size: [8, 8]}\nlabels: [a, b]\n")
    write("card.yaml", SITE.replace("model: motion", "model: m") + "models: {m: {onnx: good.onnx}}\n")
    out = json.loads(brim("serve", "card.yaml", "--no-http", "--seconds", "1", "--json"))
    assert "good.yaml" in out["queries"][0]["problem"], out["queries"]


def plan_site(extra="", deadline=300):
    """Two models with 48 KiB of weights each on one camera that never comes."""
    os.makedirs(path("empty"), exist_ok=True)
    io = value(11, "x", [1, 3, 64, 64]) + value(12, "y", [1, 3, 64, 64])
    for name in "ab":
        raw = struct.pack("<49152f", *[ord(name)] * 49152)[:12288 * 4]
        write(f"{name}.onnx", onnx(node("Add", ["x", "w"], ["y"]), tensor("w", [1, 3, 64, 64], raw), io))
        write(f"{name}.yaml", "card: 1\nhead: image\ninput: {size: [64, 64]}\n")
    return write("plan.yaml", f"version: 1\nbudget: 64M\n{extra}cameras: {{cam: {{url: empty, loop: true}}}}\n"
                              "models: {a: {onnx: a.onnx}, b: {onnx: b.onnx}}\n"
                              f"queries: {{p: {{cameras: cam, model: a, fps: 2, deadline_ms: {deadline}}}, "
                              "q: {cameras: cam, model: b, fps: 2, deadline_ms: 300}, r: {cameras: cam, model: motion}}\n")


@test
def plan_says_whether_a_site_fits():
    site = plan_site()
    r = json.loads(brim("plan", site, "--disk", "300M", "--json"))
    assert r["fits"] and r["in_time"] and r["disk_given"] and r["disk_bytes_per_s"] == 300 << 20, r
    assert r["budget_bytes"] == 64 << 20 and r["weights_bytes"] >= 2 * 49152, r
    assert r["beside_weights_bytes"] < r["least_bytes"] <= r["deadline_bytes"] <= r["beside_weights_bytes"] + r["weights_bytes"] + (1 << 20), r
    assert [q["model"] for q in r["queries"]] == ["a", "b", None], r
    assert all(0 < q["compute_ms"] <= q["latency_ms"] <= q["behind_ms"] for q in r["queries"][:2]), r
    assert r["queries"][2]["latency_ms"] is None and r["queries"][2]["in_time"], r
    # measured anew each time, and frames may differ a little: hence the MiB
    small = json.loads(brim("plan", site, "--budget", "1M", "--disk", "300M", "--json", status=1, lines=0))
    assert not small["fits"] and small["at_budget"] is None and small["queries"][0]["latency_ms"] is None, small
    enough = json.loads(brim("plan", site, "--budget", str(r["least_bytes"] + (1 << 20)), "--json", status=None, lines=0))
    assert enough["fits"] and not enough["disk_given"], enough
    text = brim("plan", site)
    assert "it fits" in text and "sure to do" in text and "assumed: " in text, text


@test
def plan_counts_the_queues_of_outputs():
    def beside(outputs):
        return json.loads(brim("plan", plan_site(f"outputs: {{{outputs}}}\n"), "--disk", "300M", "--json", status=None))["beside_weights_bytes"]
    none = beside("database: off")
    assert beside("database: off, jsonl: lines.jsonl") == none + (1 << 20)
    rows = beside("database: rows.db")
    assert none + (1 << 20) < rows < none + (4 << 20), (none, rows)
    assert beside("database: rows.db, jsonl: lines.jsonl, pictures: {keep: 10M}") == rows + (3 << 20)


@test
def plan_of_a_site_without_models():
    write("still.yaml", SITE)
    os.makedirs(path("empty"), exist_ok=True)
    r = json.loads(brim("plan", "still.yaml", "--json"))
    assert r["weights_bytes"] == 0 and r["disk_bytes_per_s"] is None and r["in_time"], r


@test
def plan_gets_wrong_input():
    write("still.yaml", SITE)
    brim("plan", status=2, says="give one site file")
    brim("plan", "nowhere.yaml", status=2, says="nowhere.yaml")
    brim("plan", "still.yaml", "--disk", "0", status=2, says="--disk 0")
    brim("plan", "still.yaml", "--disk", "fast", status=2, says="fast")
    brim("plan", "still.yaml", "--budgt", "1M", status=2, says="--budget")
    write("wrong.yaml", SITE.replace("motion", "motoin"))
    brim("plan", "wrong.yaml", status=2, says="wrong.yaml:3:", lines=0)


def linear(name, width, *numbers):
    """A chain of linear layers, width to width, each full of one number."""
    io = value(11, "x0", [1, width]) + value(12, f"x{len(numbers)}", [1, width])
    body = b"".join(node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) +
                    tensor(f"w{i}", [width, width], struct.pack("<f", v) * width * width) for i, v in enumerate(numbers))
    return write(name, onnx(body, io))


@test
def merge_estimates_what_models_could_share():
    linear("l1.onnx", 4, 1, 2)
    linear("l2.onnx", 4, 2, 3, 4)
    linear("l3.onnx", 8, 1)
    os.makedirs(path("empty"), exist_ok=True)
    site = write("merge.yaml", SITE + "models: {door: {onnx: l1.onnx}, gate: {onnx: l2.onnx}}\n")
    for members, names in (["l1.onnx", "l2.onnx"], ["l1", "l2"]), ([site], ["door", "gate"]):
        r = json.loads(brim("merge", "--estimate", *members, "--svg", "m.svg", "--json"))
        assert [m["name"] for m in r["members"]] == names and r["bytes"] == 5 * 64, r
        assert r["saved_bytes"] == 2 * 64 and r["equal_bytes"] == 64 and abs(r["saved_share"] - 0.4) < 1e-4, r
        assert r["layers"] == [{"layer": "MatMul 4x4", "bytes": 64, "counts": [2, 3], "saved_bytes": 128, "equal_bytes": 64, "likelihood": 1, "likelihoods": [1, 1]}], r
        assert r["expected_bytes"] == 128 and abs(r["expected_share"] - 0.4) < 1e-4 and r["expected_from"] == "weights and architecture", r
    assert open(path("m.svg")).read().startswith("<svg ")
    assert "40.0 %" in brim("merge", "--estimate", site)
    assert "nothing in common" in brim("merge", "--estimate", "l1.onnx", "l3.onnx")
    r = json.loads(brim("merge", "--estimate", site, "l3.onnx", "--json"))
    assert len(r["members"]) == 3 and r["layers"][0]["counts"] == [2, 3, 0], r
    brim("models", "import", "l1.onnx", "l2.onnx", "--json")
    stored = write("stored.yaml", SITE + "models: {door: {onnx: l1}, gate: {onnx: l2.onnx}}\n")
    for members in ["l1", "l2"], [stored]:
        r = json.loads(brim("merge", "--estimate", *members, "--json"))
        assert r["bytes"] == 5 * 64 and r["saved_bytes"] == 2 * 64 and r["equal_bytes"] == 64, r


@test
def merge_gets_wrong_input():
    linear("l1.onnx", 4, 1, 2)
    write("still.yaml", SITE)
    write("bad.onnx", "no model")
    linear("l2.onnx", 4, 3, 2)
    brim("merge", "l1.onnx", "l2.onnx", status=2, says="--out DIR is needed")
    brim("merge", "l1.onnx", "--out", "m", status=2, says="merging takes two models or more")
    brim("merge", "l1.onnx", "l1.onnx", "--out", "m", status=2, says="two models are called 'l1'")
    brim("merge", "l1.onnx", "nowhere.onnx", "--out", "m", status=2, says="nowhere.onnx")
    brim("merge", "l1.onnx", "l2.onnx", "--out", "m", "--minutes", "0", status=2, says="--minutes")
    brim("merge", "l1.onnx", "l2.onnx", "--out", "m", "--target", "101", status=2, says="--target")
    brim("merge", "l1.onnx", "l2.onnx", "--out", "m", "--lr", "-1", status=2, says="--lr: above 0")
    for part in ("0", "1", "-0.2", "2"):
        brim("merge", "l1.onnx", "l2.onnx", "--out", "m", "--held-out", part, status=2, says="--held-out: a part of --data, above 0 and below 1")
    brim("merge", "l1.onnx", "l2.onnx", "--out", "m", "--policy", "luck", status=2, says="none of groups, grow, split")
    brim("merge", "l1.onnx", "l2.onnx", "--out", "m", "--data", "other=x", status=2, says="no model of this merge is called 'other'")
    brim("merge", "l1.onnx", "l2.onnx", "--out", "none/m", status=1, says="none/m")
    brim("merge", "l1.onnx", "l2.onnx", "--out", "m", "--guard", status=2, says="no merge in it")
    assert not os.path.exists("m"), "refused merges leave nothing behind"
    brim("merge", "--estimate", status=2, says="give a site file or ONNX files")
    brim("merge", "--estimate", "l1.onnx", status=2, says="l1.onnx has one model")
    brim("merge", "--estimate", "still.yaml", status=2, says="still.yaml has no model")
    brim("merge", "--estimate", "l1.onnx", "nowhere.onnx", status=2, says="nowhere.onnx")
    brim("merge", "--estimate", "l1.onnx", "nobody", status=2, says="nobody")
    brim("merge", "--estimate", "l1.onnx", "bad.onnx", status=2, says="bad.onnx")
    brim("merge", "--estimate", "l1.onnx", "l1.onnx", "--svg", "none/m.svg", status=1, says="none/m.svg")


def main():
    failed = made.run(TESTS)
    shutil.rmtree(DIR, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
