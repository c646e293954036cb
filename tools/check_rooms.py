#!/usr/bin/env python3
"""Checks that #include lines go down: a file may include its own room and any lower floor (src/FLOORS).

Also checks that every internal header says #pragma once and opens with a comment. Prints each offence as
file:line and exits 1 if there is one. Test files (*_test.c) obey the same rule.
"""
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
src = root / "src"
floors = {}
for line in (src / "FLOORS").read_text().splitlines():
    line = line.split("#")[0].split()
    if line:
        floors[line[1]] = int(line[0])

bad = []
include = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
for path in sorted(src.rglob("*.[ch]")):
    room = path.relative_to(src).parts[0]
    if room not in floors:
        bad.append(f"{path.relative_to(root)}:1: room '{room}' has no floor in src/FLOORS")
        continue
    text = path.read_text()
    if path.suffix == ".h" and "#pragma once" not in text:
        bad.append(f"{path.relative_to(root)}:1: no #pragma once")
    if not text.lstrip().startswith(("/*", "//")):
        bad.append(f"{path.relative_to(root)}:1: does not open with a comment that says what it is for")
    for number, line in enumerate(text.splitlines(), 1):
        m = include.match(line)
        if not m:
            continue
        target = m.group(1)
        if "/" not in target:
            bad.append(f'{path.relative_to(root)}:{number}: write "{room}/{target}", with the room')
            continue
        other = target.split("/")[0]
        if other not in floors:
            bad.append(f"{path.relative_to(root)}:{number}: includes unknown room '{other}'")
        elif other != room and floors[other] >= floors[room]:
            bad.append(f"{path.relative_to(root)}:{number}: floor {floors[room]} '{room}' includes "
                       f"floor {floors[other]} '{other}'")
for line in bad:
    print(line)
print(f"{len(bad)} offences" if bad else "floors: clean")
sys.exit(1 if bad else 0)
