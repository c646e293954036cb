#!/usr/bin/env python3
"""Prints the summary of a demo run and checks that the main job was done; exit 1 if it was not."""
import json
import os
import sys

with open(sys.argv[1]) as f:
    s = json.load(f)
bad, handed_on = list(s["problems"]), 0
any_speed = "BRIM_DEMO_ANY_SPEED" in os.environ  # a build with sanitizers on a busy machine runs what it can: something, not each query
print(f"{'query':10} {'camera':10} {'frames':>7} {'run':>6} {'tracks':>7} {'events':>7} {'p50 ms':>7} {'p95 ms':>7}")
for q in s["queries"]:
    print(f"{q['query']:10} {q['camera']:10} {q['offered']:7} {q['run']:6} {q['tracks']:7} {q['events']:7} {q['p50_ms']:7.1f} {q['p95_ms']:7.1f}")
    if q["problem"]:
        bad.append(f"{q['query']}@{q['camera']}: {q['problem']}")
    if ">" in q["query"]:  # a cascade runs where its query found something to look at closer
        handed_on += q["run"]
        continue
    if not any_speed and (not q["run"] or q["run"] < q["offered"] // 2):
        bad.append(f"{q['query']}@{q['camera']}: only {q['run']} of {q['offered']} frames were run")
    if q["query"] not in ("bicycles", "parked") and not any_speed and (not q["tracks"] or not q["events"]):  # there may be none for a while
        bad.append(f"{q['query']}@{q['camera']}: nothing was tracked")
if not any(q["run"] for q in s["queries"] if ">" not in q["query"]):
    bad.append("no frame was run at all")
if not handed_on and not any_speed:
    bad.append("no cascade ever ran")
for c in s["cameras"]:
    if c["state"] != "live":
        bad.append(f"camera {c['camera']} is {c['state']}: {c['error']}")
m = s["memory"]
print(f"budget: peak {m['peak_bytes'] / 2**20:.1f} of {m['limit_bytes'] / 2**20:.1f} MiB; "
      f"the kernel says {m['rss']['total'] / 2**20:.1f} MiB resident, {m['rss']['anon'] / 2**20:.1f} of it private")
if m["peak_bytes"] > m["limit_bytes"]:
    bad.append("the budget was exceeded")
weights, stay = s["floor"]["all_models"], s["blocks"]["kept"] + s["blocks"]["window"]
if s["blocks"]["window"]:
    print(f"weights: {weights / 2**20:.1f} MiB in {stay / 2**20:.1f} MiB of memory; {s['blocks']['read_bytes'] / 2**20:.0f} MiB were read from the disk before use")
else:  # what a plan counts for cameras is a bound: sometimes they take less, and everything fits
    print(f"weights: all {weights / 2**20:.1f} MiB found room")
for line in bad:
    print("NOT RIGHT:", line)
print("demo: done" if not bad else "demo: failed")
sys.exit(1 if bad else 0)
