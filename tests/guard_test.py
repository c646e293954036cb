#!/usr/bin/env python3
"""The drift guard as people see it: a box serves two merged models, the scene turns from day to dusk (`brim scene`), or another real video is switched to, and the one that only
knew the day goes back to its original, by itself; the API, /metrics, the summary and the page say so. Standard library only. Prints TAP.

usage: guard_test.py BRIM          SPDX-License-Identifier: Apache-2.0"""
import json, os, re, shutil, signal, struct, subprocess, sys, tempfile, time, urllib.request

sys.dont_write_bytecode = True
import made
from made import Skip, node, num, onnx, sub, tensor, value

BRIM = os.path.abspath(sys.argv[1])
DIR = tempfile.mkdtemp(prefix="brim-guard-")
ENV = dict(os.environ, BRIM_STORE=os.path.join(DIR, "store"))
DATA = os.environ.get("BRIM_DATA") or os.path.join(os.environ.get("BRIM_SOURCE", "."), "..", "shared", "data")
TESTS = []


def test(f):
    TESTS.append(f)
    return f


def path(name):
    return os.path.join(DIR, name)


def write(name, data):
    os.makedirs(os.path.dirname(path(name)), exist_ok=True)
    with open(path(name), "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def read(name):
    with open(path(name), "rb") as f:
        return f.read()


def floats(name, dims, numbers):
    return tensor(name, dims, struct.pack(f"<{len(numbers)}f", *numbers))


def ints(name, numbers):
    return sub(5, num(1, len(numbers)), num(2, 7), sub(8, name), sub(9, struct.pack(f"<{len(numbers)}q", *numbers)))


def detector(slope, level):
    """One thing in every picture, with score sigmoid(slope * mean + level)."""
    scores, boxes = [0, slope / 3] * 2, [0.5, 0, 0.9, 0.9, 0.1, 0.1, 0.4, 0.4]
    return onnx(node("GlobalAveragePool", ["x"], ["m"]), node("Conv", ["m", "ws", "bs"], ["s"]), node("Sigmoid", ["s"], ["p"]), node("Reshape", ["p", "to_s"], ["scores"]),
                node("Conv", ["m", "wk", "bk"], ["k"]), node("Reshape", ["k", "to_k"], ["boxes"]),
                floats("ws", [4, 3, 1, 1], [w for w in scores for _ in range(3)]), floats("bs", [4], [-9, level, -9, level]), floats("wk", [8, 3, 1, 1], [0] * 24),
                floats("bk", [8], boxes), ints("to_s", [1, 2, 2]), ints("to_k", [1, 2, 4]), value(11, "x", [1, 3, 32, 32]), value(12, "scores", [1, 2, 2]),
                value(12, "boxes", [1, 2, 4]))


CARD = "card: 1\nhead: ultraface\ninput: {size: [32, 32], std: 255}\noutputs: [scores, boxes]\nlabels: [thing]\nscore: 0.5\n"
REPORT = {"members": [{"name": "cars"}, {"name": "people"}, {"name": "more"}], "bytes": 1000, "saved_bytes": 200, "layers": [{"bytes": 100, "users": ["cars", "people", "more"]}]}


def merge(edge):
    """What `brim merge` leaves. The merged cars find nothing in pictures that are darker than `edge`."""
    shutil.rmtree(path("out"), ignore_errors=True)
    shutil.rmtree(path("store"), ignore_errors=True)
    for name, merged in (("cars", detector(60, -60 * edge)), ("people", detector(0, 2.1))):
        write(f"out/models/{name}.onnx", detector(0, 2))
        write(f"out/{name}.onnx", merged)
        write(f"out/{name}.yaml", CARD)
    write("out/merge.json", json.dumps(REPORT))


class Box:
    def __init__(self, video):
        self.site(video)
        self.p = subprocess.Popen([BRIM, "serve", "site.yaml", "--json"], env=ENV, cwd=DIR, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=open(path("log"), "w"), text=True)
        self.url = self.until(lambda: re.search(r"http://127\.0\.0\.1:\d+", read("log").decode()), "its address").group()

    def site(self, video):
        guard = "guard: {every: 100ms, window: 8, target: 0.9}"
        write("site.yaml", f"version: 1\nthreads: 1\nprecision: f32\ncameras: {{street: {{url: '{video}', loop: true}}}}\n"
                           f"models:\n  cars: {{onnx: out/cars.onnx, {guard}}}\n  people: {{onnx: out/people.onnx, {guard}}}\n"
                           "queries:\n  c: {cameras: all, model: cars, fps: 10}\n  p: {cameras: all, model: people, fps: 10}\noutputs: {http: {listen: '127.0.0.1:0'}}\n")

    def switch(self, video):
        self.site(video)
        self.p.send_signal(signal.SIGHUP)

    def until(self, check, what):
        end = time.time() + made.PATIENCE
        while time.time() < end:
            try:
                found = check()
            except OSError:
                found = None
            if found:
                return found
            assert self.p.poll() is None, read("log").decode()[-2000:]
            time.sleep(0.05)
        raise AssertionError(f"waited in vain for {what}: {self.guards()} {read('log').decode()[-1500:]}")

    def get(self, address):
        with urllib.request.urlopen(self.url + address, timeout=made.PATIENCE) as r:
            return r.read().decode()

    def guards(self):
        return {g["model"]: g for g in json.loads(self.get("/api/v1/guards"))["guards"]}

    def guard(self, model, state, compared=0):
        return self.until(lambda: next((g for g in self.guards().values() if g["model"] == model and g["state"] == state and g["compared"] >= compared), None), f"{model} {state}")

    def metric(self, name):
        return dict((m.group(1), float(m.group(2))) for m in re.finditer(rf'^{name}{{model="(\w+)"}} (\S+)$', self.get("/metrics"), re.M))

    def end(self):
        self.p.send_signal(signal.SIGINT)
        out, _ = self.p.communicate(timeout=made.PATIENCE)
        assert self.p.returncode == 0, read("log").decode()[-2000:]
        return json.loads(out)


def goes_back(edge, day, dusk):
    merge(edge)
    before = read("out/people.onnx")
    box = Box(day)
    g = box.guard("cars", "guarding", 10)
    assert g["score"] > 0.99 and g["target"] == 0.9 and g["measure"] == "AP50 against the original" and g["frames"] == 8, g
    assert box.metric("brim_guard_on") == {"cars": 1, "people": 1} and box.metric("brim_guard_reverted") == {"cars": 0, "people": 0}
    assert box.metric("brim_guard_score")["cars"] > 0.99 and box.metric("brim_guard_target") == {"cars": 0.9, "people": 0.9} and box.metric("brim_guard_frames_total")["cars"] >= 10
    box.switch(dusk)
    g = box.guard("cars", "reverted")
    assert g["reverted_score"] < 0.9 and g["reverted_at"] > 1e9, g
    compared = box.guards()["people"]["compared"]
    g = box.guard("people", "guarding", compared + 9)  # a window of the dusk, and it stays
    assert g["score"] > 0.99, g
    assert box.metric("brim_guard_on") == {"cars": 0, "people": 1} and box.metric("brim_guard_reverted") == {"cars": 1, "people": 0}
    problems = json.loads(box.get("/api/v1/status"))["problems"]
    assert any(p.startswith("guard cars: merged, it was ") for p in problems), problems
    assert "guardcard" in box.get("/")
    assert read("out/cars.onnx") == read("out/models/cars.onnx") and read("out/people.onnx") == before
    box.until(lambda: json.loads(read("out/merge.json")).get("reverted") == ["cars"], "merge.json")
    assert json.loads(read("out/merge.json"))["layers"][0]["users"] == ["people", "more"]
    summary = {g["model"]: g["state"] for g in box.end()["guards"]}
    assert summary == {"cars": "reverted", "people": "guarding"}, summary
    box = Box(dusk)  # the next start knows
    assert box.guard("cars", "reverted")["compared"] == 0
    box.end()


@test
def the_day_turns_to_dusk():
    for light, seconds in (("day", "3"), ("day-to-dusk", "6")):
        p = subprocess.run([BRIM, "scene", "-o", light, "--cameras", "1", "--seconds", seconds, "--fps", "5", "--size", "128x72", "--light", light], cwd=DIR, timeout=made.PATIENCE, capture_output=True)
        assert p.returncode == 0, p.stderr
    goes_back(0.4, "day/cam1.mp4", "day-to-dusk/cam1.mp4")


@test
def another_real_video_comes():
    bright, darker = (os.path.join(DATA, "videos", "traffic_it", name) for name in ("traffic.mp4", "salitona.mp4"))
    if not os.path.exists(bright) or not os.path.exists(darker):
        raise Skip("there are no real videos in $BRIM_DATA")
    goes_back(0.51, os.path.abspath(bright), os.path.abspath(darker))


@test
def check_says_what_is_missing():
    merge(0.4)
    start = "version: 1\ncameras: {a: {url: v.mp4}}\nmodels:\n"
    write("v.mp4", "")
    write("alone/cars.onnx", read("out/cars.onnx"))
    write("alone/cars.yaml", CARD)
    for model, says in (("{onnx: out/cars.onnx, guard: on}", None), ("{onnx: alone/cars.onnx}", None), ("{onnx: alone/cars.onnx, guard: {original: out/models/cars.onnx, every: 1m}}", None),
                        ("{onnx: alone/cars.onnx, guard: on}", "site.yaml:4:40: models.cars.guard: alone/cars.onnx did not come out of 'brim merge'"),
                        ("{onnx: out/cars.onnx, guard: {original: gone.onnx}}", "site.yaml:4:49: models.cars.guard.original: cannot open gone.onnx: No such file"),
                        ("{onnx: out/cars.onnx, guard: {target: 95}}", "site.yaml:4:47: models.cars.guard.target: expected a number from 0.01 to 1, found '95'")):
        write("site.yaml", f"{start}  cars: {model}\nqueries: {{q: {{cameras: all, model: cars}}}}\n")
        p = subprocess.run([BRIM, "check", "site.yaml"], env=ENV, cwd=DIR, stdin=subprocess.DEVNULL, timeout=made.PATIENCE, capture_output=True, text=True)
        told = p.stdout + p.stderr
        assert (p.returncode == 0) == (says is None) and (says or "") in told, (model, p.returncode, told)


try:
    failed = made.run(TESTS)
finally:
    shutil.rmtree(DIR, ignore_errors=True)
sys.exit(failed > 0)
