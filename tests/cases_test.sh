#!/bin/sh
# Recorded models (tests/tools/make_dynamic_cases.py, make_fused_cases.py, make_small_cases.py): fused operators, functions, control flow and sizes that depend on data: all pass, with the strongest
# kernels and with plain C. SPDX-License-Identifier: Apache-2.0
brim=$1
cases=$2
echo 1..2
n=0
for option in "" --only-ref; do
    n=$((n + 1))
    if out=$("$brim" verify $option --atol 1e-4 "$cases"/*) && echo "$out" | grep -q ' passed, 0 failed, 0 unsupported$'; then
        echo "ok $n - $(echo "$out" | tail -n 1) $option"
    else
        echo "$out" | sed 's/^/# /'
        echo "not ok $n - verify $option"
    fi
done
