#!/usr/bin/env python3
"""Prints "passed failed skipped" of a Meson test run: of the cases in its junit log, and one failure more for each program that died or timed out before
its cases were done (Meson's junit log says nothing of those; testlog.json beside it does).

usage: count_tests.py meson-logs/testlog.junit.xml          SPDX-License-Identifier: Apache-2.0"""
import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

passed = failed = skipped = 0
seen = {}  # failed cases by program
try:
    suites = ElementTree.parse(sys.argv[1]).getroot()
    programs = [json.loads(line) for line in (pathlib.Path(sys.argv[1]).parent / "testlog.json").read_text().splitlines()]
except (OSError, ValueError, ElementTree.ParseError):
    print("0 1 0")
    sys.exit()
for suite in suites.iter("testsuite"):
    for case in suite.iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
            seen[suite.get("name")] = seen.get(suite.get("name"), 0) + 1
            seen[case.get("name")] = 1  # programs without cases of their own are cases of one suite
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
for program in programs:
    if program["result"] in ("FAIL", "ERROR", "TIMEOUT", "INTERRUPT"):
        name = program["name"]
        if not any(name == s or name.split(" / ")[-1] == s or s.endswith(name) for s in seen):
            failed += 1
print(passed, failed, skipped)
