#!/usr/bin/env bash
# Fuzzes every reader of foreign bytes: tools/fuzz.sh [SECONDS each, default 60] [NAME...]
#
# Each target starts from its committed corpus; what it finds new goes to a temporary folder. Then the committed corpus alone is run
# once, and the lines of the reader that it reaches are counted: a corpus that reaches few lines makes a short run worth little.
# The end: a table, and status 1 if anything was found; the inputs are then kept in build-fuzz/found/NAME.
# SPDX-License-Identifier: Apache-2.0
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -gt 0 ] && shift
case "$seconds" in '' | *[!0-9]*) echo "fuzz: expected SECONDS, found '$seconds'" >&2; exit 2 ;; esac
build=${BRIM_FUZZ_BUILD:-build-fuzz}
least=80 # per cent of the lines of the readers named in reader()

tool() { for t in "$1-14" "$1"; do command -v "$t" && return; done; echo "fuzz: no $1; install llvm-14" >&2; return 1; }
profdata=$(tool llvm-profdata)
cov=$(tool llvm-cov)

reader() { # the files of which the target is the test; "!" first: they must reach $least
    case "$1" in
    onnx) echo ! src/graph/{wire,onnx,onnx_attr,onnx_tensor,names}.c ;;
    card) echo ! src/task/card*.c ;;
    site) echo ! src/engine/site*.c ;;
    npy) echo ! src/tensor/npy.c ;;
    http) echo ! src/serve/http{,_guard,_api,_stream}.c ;;
    yaml) echo src/base/yaml*.c ;;
    head) echo src/task/head*.c src/task/peaks.c ;;
    mot) echo src/task/mot.c ;;
    job) echo src/engine/job_file.c ;;
    picture) echo src/rows/picture.c ;;
    labels) echo src/train/data_{pairs,folder,text,video,crops}.c ;;
    esac | tr ' ' '\n' | grep -v _test.c | xargs
}

if [ ! -f "$build/build.ninja" ]; then
    compiler=clang
    command -v ccache >/dev/null && compiler="ccache clang"
    CC=$compiler meson setup "$build" -Dfuzz=true -Dbuildtype=debugoptimized >"$build.setup.log" 2>&1 ||
        { cat "$build.setup.log" >&2; exit 1; }
    rm -f "$build.setup.log"
fi
ninja ${JOBS:+-j"$JOBS"} -C "$build" fuzzers >"$build/build.log" 2>&1 || { tail -50 "$build/build.log" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/brim-fuzz-XXXXXX")
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1

lines_of() { # NAME: "PERCENT COVERED/ALL" of its reader from the committed corpus, or "-"
    local name=$1 files
    files=$(reader "$name" | tr -d '!')
    [ -n "$files" ] || { echo "- -"; return; }
    LLVM_PROFILE_FILE=$work/$name.raw "$build/tests/fuzz/${name}_fuzz" -runs=0 "tests/fuzz/corpus/$name" >"$work/$name.cov" 2>&1 || true
    "$profdata" merge -o "$work/$name.data" "$work/$name.raw" 2>/dev/null || { echo "- -"; return; }
    "$cov" export -summary-only -instr-profile "$work/$name.data" "$build/tests/fuzz/${name}_fuzz" |
        python3 -c 'import json, os, sys
wanted = [os.path.realpath(f) for f in sys.argv[1:]]
lines = [f["summary"]["lines"] for f in json.load(sys.stdin)["data"][0]["files"] if os.path.realpath(f["filename"]) in wanted]
covered, count = sum(l["covered"] for l in lines), sum(l["count"] for l in lines)
print("%.1f %d/%d" % (100 * covered / max(count, 1), covered, count))' $files
}

failed=0
printf '%-10s %12s %9s %9s %9s  %s\n' target executions exec/s findings lines 'of its reader, from the committed corpus'
for source in tests/fuzz/*_fuzz.c; do
    name=$(basename "$source" _fuzz.c)
    [ $# = 0 ] || case " $* " in *" $name "*) ;; *) continue ;; esac
    mkdir -p "$work/$name" "$work/found"
    status=0
    if [ "$seconds" -gt 0 ]; then
        # A fork of its own for nothing but time: libFuzzer ends by itself, `timeout` is for a target that hangs in a system call.
        LLVM_PROFILE_FILE=/dev/null timeout $((seconds * 2 + 120)) "$build/tests/fuzz/${name}_fuzz" -max_total_time="$seconds" \
            -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$work/found/$name-" \
            "$work/$name" "tests/fuzz/corpus/$name" >"$work/$name.log" 2>&1 </dev/null || status=$?
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$name.log" 2>/dev/null || true)
    rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$work/$name.log" 2>/dev/null || true)
    findings=$(find "$work/found" -name "$name-*" -type f | wc -l)
    [ "$status" = 0 ] || [ "$findings" -gt 0 ] || findings=1
    read -r percent count < <(lines_of "$name")
    note=$(reader "$name" | tr -d '!' | sed 's/^ *//')
    printf '%-10s %12s %9s %9s %8s%%  %s %s\n' "$name" "${runs:--}" "${rate:--}" "$findings" "$percent" "$count" "$note" | sed 's/-%/- /; s/- *$//'
    if [ "$findings" -gt 0 ]; then
        failed=1
        mkdir -p "$build/found/$name"
        find "$work/found" -name "$name-*" -type f -exec cp {} "$build/found/$name/" \;
        cp "$work/$name.log" "$build/found/$name/log"
        grep -m1 -E 'ERROR|SUMMARY|runtime error' "$work/$name.log" | sed 's/^/    /' || true
        echo "    inputs and log: $build/found/$name"
    fi
    case "$(reader "$name")" in
    !*) [ "$percent" != - ] && awk -v p="$percent" -v l="$least" 'BEGIN { exit !(p < l) }' && { failed=1; echo "    below $least %: extend tests/fuzz/corpus/$name"; } ;;
    esac
done
exit $failed
