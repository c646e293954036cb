#!/usr/bin/env bash
# libbrim as its users meet it: installed in a folder, found by pkg-config, the example compiled against it and run, the header taken by a C++
# compiler, and nothing visible or linked that should not be. TAP. Arguments: the source folder, the build folder.
source=$1 build=$2
work=$(mktemp -d /tmp/brim-outside-XXXXXX)
trap 'rm -rf "$work"' EXIT
n=0
check() { # NAME COMMAND...: its output is shown if it fails
    n=$((n + 1))
    local name=$1; shift
    if "$@" >"$work/out" 2>&1; then echo "ok $n - $name"; else echo "not ok $n - $name"; sed 's/^/# /' "$work/out" | head -40; fi
}
skip() { n=$((n + 1)); echo "ok $n - $1 # SKIP $2"; }

install() {
    meson install -C "$build" --no-rebuild --quiet --destdir "$work/root" --tags runtime,devel &&
        pc=$(find "$work/root" -name brim.pc) && prefix=$(sed -n 's/^prefix=//p' "$pc") && [ -f "$work/root$prefix/include/brim.h" ] &&
        mkdir "$work/lib" && cp -P "$(dirname "$pc")"/../libbrim.so* "$work/lib/" && [ -L "$work/lib/libbrim.so" ] &&
        sed -e "s|^prefix=.*|prefix=$work/root$prefix|" "$pc" >"$work/lib/brim.pc"
}
symbols() {
    nm -D --defined-only "$work/lib/libbrim.so.0" | awk '{print $3}' >"$work/symbols"
    grep -q '^brim_run@@LIBBRIM_0$' "$work/symbols" || { echo "brim_run is not there"; return 1; }
    ! grep -v -e '^brim_[a-z_]*@@LIBBRIM_0$' -e '^LIBBRIM_0' -e '^__\(asan\|ubsan\|tsan\|odr_asan\)' "$work/symbols"
}
declared() { # every function of the header is exported, and nothing else
    grep -o '\bbrim_[a-z_]*(' "$source/src/api/brim.h" | tr -d '(' | sort -u >"$work/header"
    grep '^BRIM_API' "$source/src/api/brim.h" | grep -o '\bbrim_[a-z_]*(' | tr -d '(' | sort -u >"$work/functions"
    sed -n 's/^\(brim_[a-z_]*\)@@.*/\1/p' "$work/symbols" | sort -u >"$work/exported"
    diff "$work/functions" "$work/exported"
}
soname() { readelf -d "$work/lib/libbrim.so" | grep -q 'SONAME.*\[libbrim\.so\.0\]'; }
links() { ! readelf -d "$work/lib/libbrim.so" | grep -E 'NEEDED.*(libav|libsw|sqlite|mosquitto|microhttpd)'; }
example() {
    # shellcheck disable=SC2046
    ${CC:-cc} -Wall -Wextra -Werror -std=c99 "$source/examples/run.c" -o "$work/run" \
        $(PKG_CONFIG_PATH="$work/lib" pkg-config --cflags --libs brim) "-Wl,-rpath,$work/lib" $1
}
runs() { "$work/run" "$source/tests/fuzz/corpus/onnx/conv.onnx" | tee "$work/said"; grep -q 'output 0 is float32' "$work/said"; }
refuses() { ! "$work/run" "$source/README.md" 2>"$work/said" && grep -q '^run: ' "$work/said"; }
cpp() {
    printf '#include <brim.h>\nint main() {\n  brim_model_options o = BRIM_MODEL_OPTIONS_INIT;\n  brim_tensor t = BRIM_TENSOR_INIT;\n' >"$work/a.cpp"
    printf '  brim_io io = BRIM_IO_INIT;\n  brim_memory m = BRIM_MEMORY_INIT;\n  brim_budget_options b = BRIM_BUDGET_OPTIONS_INIT;\n' >>"$work/a.cpp"
    printf '  return brim_version()[0] == 0 || !o.size || !t.size || !io.size || !m.size || !b.size;\n}\n' >>"$work/a.cpp"
    # shellcheck disable=SC2046
    "$1" -std=c++11 -Wall -Wextra -Werror "$work/a.cpp" -o "$work/a" \
        $(PKG_CONFIG_PATH="$work/lib" pkg-config --cflags --libs brim) "-Wl,-rpath,$work/lib" $2 && "$work/a"
}

sanitize=$(sed -n "s/.*-fsanitize=\([a-z,]*\).*/-fsanitize=\1/p" "$build/compile_commands.json" | head -1)
check "installed" install
check "only brim_ is visible, with its version" symbols
check "what the header declares is what the library has" declared
check "its name is libbrim.so.0" soname
check "no FFmpeg, SQLite, MQTT, HTTP" links
check "the example compiles as C99 against the installed library" example "$sanitize"
check "the example runs" runs
check "the example refuses what is no model" refuses
cxx=$(command -v g++ || command -v clang++ || command -v c++)
if [ -n "$cxx" ]; then check "C++ takes the header" cpp "$cxx" "$sanitize"; else skip "C++ takes the header" "no C++ compiler"; fi
echo "1..$n"
