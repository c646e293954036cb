"""Every model of tests/data/bad (tests/tools/make_bad_models.py) is refused: no signal, exit status 1 or 2, one line that says the expected word,
and never more memory than the budget of 256 MiB and a margin. SPDX-License-Identifier: Apache-2.0"""
import glob, os, resource, subprocess, sys

brim, folder = sys.argv[1:]
models = sorted(glob.glob(folder + "/*.onnx"))
print(f"1..{len(models)}")
failed = 0
for i, path in enumerate(models, 1):
    words = open(path[:-4] + "txt").read().strip()
    try:
        run = subprocess.run([brim, "run", path, "--budget", "256M", "--seed", "1"], capture_output=True, text=True, timeout=1200, stdin=subprocess.DEVNULL)
        why = (f"status {run.returncode}" if run.returncode not in (1, 2) else f"'{words}' is not in it" if words not in run.stderr
               else "not one line" if len(run.stderr.strip().splitlines()) != 1 else "")
        said = run.stderr.strip()
    except subprocess.TimeoutExpired:
        why, said = "60 seconds", ""
    failed += bool(why)
    print(f"{'not ok' if why else 'ok'} {i} - {os.path.basename(path)} {why}")
    if why:
        print("# " + said.replace("\n", "\n# "))
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(f"# largest resident set {peak / 1024:.0f} MiB")
sys.exit(failed > 0)
