"""For the tests of the command line: ONNX and PNG files by hand, and TAP. Standard library only. SPDX-License-Identifier: Apache-2.0"""
import struct, zlib

PATIENCE = 1200 # seconds to wait for what must come, on a slow machine under a sanitizer: only what hangs takes so long (base/testing.h)


# ---- ONNX by hand: just enough protobuf

def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def num(field, n):
    return varint(field << 3) + varint(n)


def sub(field, *parts):
    body = b"".join(p.encode() if isinstance(p, str) else p for p in parts)
    return varint(field << 3 | 2) + varint(len(body)) + body


def value(field, name, dims, dtype=1):
    return sub(field, sub(1, name), sub(2, sub(1, num(1, dtype), sub(2, *[sub(1, num(1, d)) for d in dims]))))


def node(op, ins, outs):
    return sub(1, *[sub(1, i) for i in ins], *[sub(2, o) for o in outs], sub(3, op.lower()), sub(4, op))


def tensor(name, dims, raw):
    return sub(5, *[num(1, d) for d in dims], num(2, 1), sub(8, name), sub(9, raw))


def onnx(*graph, opset=13):
    return num(1, 8) + sub(7, *graph, sub(2, "g")) + sub(8, num(2, opset))


def png(w, h, row):
    """row(y): 3 * w bytes of red, green, blue."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    packed, z = b"", zlib.compressobj(1)
    for y in range(h):
        packed += z.compress(b"\0" + row(y))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)) + chunk(b"IDAT", packed + z.flush()) + chunk(b"IEND", b"")


# ---- TAP

class Skip(Exception):
    """Raised by a test that cannot run here; its text says why."""


def run(tests):
    """Runs all; how many failed."""
    print(f"1..{len(tests)}")
    bad = 0
    for i, f in enumerate(tests, 1):
        try:
            f()
            print(f"ok {i} - {f.__name__}", flush=True)
        except Skip as why:
            print(f"ok {i} - {f.__name__} # SKIP {why}", flush=True)
        except Exception as e:  # the report is the test's
            bad += 1
            first, *rest = f"{type(e).__name__}: {e}".split("\n")
            print(f"not ok {i} - {f.__name__}: {first}", *("# " + line for line in rest), sep="\n", flush=True)
    return bad
