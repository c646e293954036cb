#!/usr/bin/env python3
"""Prints "passed failed skipped" of a meson junit log; a test program that died counts as one failure."""
import sys
import xml.etree.ElementTree as ElementTree

passed = failed = skipped = 0
try:
    suites = ElementTree.parse(sys.argv[1]).getroot()
except (OSError, ElementTree.ParseError):
    print("0 1 0")
    sys.exit()
for case in suites.iter("testcase"):
    if case.find("failure") is not None or case.find("error") is not None:
        failed += 1
    elif case.find("skipped") is not None:
        skipped += 1
    else:
        passed += 1
for suite in suites.iter("testsuite"):  # a program that crashed or timed out before its plan was done
    if int(suite.get("errors", 0)) and not any(c.find("error") is not None for c in suite.iter("testcase")):
        failed += int(suite.get("errors"))
print(passed, failed, skipped)
