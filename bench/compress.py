#!/usr/bin/env python3
"""Would packed weights that are compressed on disk arrive sooner? Real packed blocks, lz4 and zstd, one core.

A block plan reads packed blocks from disk straight to where kernels use them. Compressed, a block would be read in fewer bytes and then be
decompressed by a core that could compute instead. For every block of the given packed files (a store's packed/ folder: run the models once
from it) this measures the ratio and, as the fastest of several passes, the speed of decompression, and prints what arrives a second at
several disk speeds, with reading and decompression overlapped perfectly: min(disk * ratio, decompression). That is a bound in favour of compression:
the core is not free, and the copy that it makes is one that direct reading does not need. Every decompressed block is compared.

`planes`: the bytes of each number are separated first (all lowest bytes, then the next ones), which helps every codec with floats; putting them back
is measured too (NumPy, where it is there). `core share`: how much of one core decompression takes while that disk runs at full speed.

`--bf16`: the same numbers rounded to bf16 by this script (nearest, ties to even): brim packs f32 only so far, so there are no bf16 blocks to take.

usage: compress.py [--bf16] FILE...      needs libzstd.so.1 and liblz4.so.1; numpy for `planes` and --bf16
SPDX-License-Identifier: Apache-2.0"""
import argparse, ctypes, struct, time

try:
    import numpy
except ImportError:
    numpy = None

DISKS = (150e6, 500e6, 2400e6)
PAGE, PASSES = 4096, 3


def blocks(path):
    """The blocks of a packed file (src/weights/packed.h); of those that lie in other files, nothing."""
    data = open(path, "rb").read()
    if data[:8] != b"BRIMPACK":
        raise SystemExit(f"{path}: no packed file")
    at, n = struct.unpack_from("<QQ", data, 16)
    index, out = data[at:at + n], []

    def string(i):
        size, = struct.unpack_from("<I", index, i)
        return i + 4 + size
    i = string(0) + 32 + 8
    files, = struct.unpack_from("<I", index, i)
    i += 4
    for _ in range(files):
        i = string(i)
    count, = struct.unpack_from("<I", index, i)
    i += 4
    for _ in range(count):
        file, offset, size, _tail = struct.unpack_from("<IQQI", index, i)
        i += 24 + 32 + 4 * ((size + 65535) // 65536)
        if file == 0:
            out.append(data[offset:offset + size])
    return out


class Zstd:
    def __init__(self, level):
        self.name, self.level = f"zstd -{level}", level
        self.lib = ctypes.CDLL("libzstd.so.1")
        for f in (self.lib.ZSTD_compress, self.lib.ZSTD_decompress, self.lib.ZSTD_compressBound):
            f.restype = ctypes.c_size_t

    def compress(self, data):
        room = self.lib.ZSTD_compressBound(ctypes.c_size_t(len(data)))
        to = ctypes.create_string_buffer(room)
        n = self.lib.ZSTD_compress(to, ctypes.c_size_t(room), data, ctypes.c_size_t(len(data)), self.level)
        return to.raw[:n]

    def decompress(self, data, to):
        return self.lib.ZSTD_decompress(to, ctypes.c_size_t(len(to)), data, ctypes.c_size_t(len(data)))


class Lz4:
    def __init__(self, level):
        self.name, self.level = "lz4" if not level else f"lz4hc -{level}", level
        self.lib = ctypes.CDLL("liblz4.so.1")

    def compress(self, data):
        room = self.lib.LZ4_compressBound(len(data))
        to = ctypes.create_string_buffer(room)
        n = self.lib.LZ4_compress_HC(data, to, len(data), room, self.level) if self.level else \
            self.lib.LZ4_compress_default(data, to, len(data), room)
        return to.raw[:n]

    def decompress(self, data, to):
        return self.lib.LZ4_decompress_safe(data, to, len(data), len(to))


def planes(data, element):
    return numpy.frombuffer(data, numpy.uint8).reshape(-1, element).T.tobytes()


def bf16(data):
    u = numpy.frombuffer(data, numpy.uint32)
    return ((u + 0x7fff + (u >> 16 & 1)) >> 16).astype(numpy.uint16).tobytes()


def measure(codec, originals, element, split):
    """(ratio, bytes a second that decompression gives)"""
    texts = [planes(b, element) if split else b for b in originals]
    packed, total = [codec.compress(t) for t in texts], sum(map(len, texts))
    rooms, best = [ctypes.create_string_buffer(len(t)) for t in texts], float("inf")
    results = [numpy.empty((len(t) // element, element), numpy.uint8) for t in texts] if split else []
    views = [numpy.frombuffer(r, numpy.uint8).reshape(element, -1).T for r in rooms] if split else []
    for _ in range(PASSES):
        begin = time.thread_time()
        for k, (p, r) in enumerate(zip(packed, rooms)):
            if codec.decompress(p, r) != len(r):
                raise SystemExit(f"{codec.name}: a block did not decompress")
            if split:
                results[k][...] = views[k]
        best = min(best, time.thread_time() - begin)
    for k, b in enumerate(originals):
        if (results[k].tobytes() if split else rooms[k].raw) != b:
            raise SystemExit(f"{codec.name}: a block came back altered")
    return total / sum(map(len, packed)), total / best


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--bf16", action="store_true", help="round the f32 numbers to bf16 first")
    args.add_argument("files", nargs="+")
    a = args.parse_args()
    data = [b for f in a.files for b in blocks(f)]
    element = 2 if a.bf16 else 4
    if a.bf16:
        data = [bf16(b) for b in data]
    print(f"{len(a.files)} packed files, {len(data)} blocks, {sum(map(len, data)) / 1e6:.1f} MB, {'f32 rounded to bf16 here' if a.bf16 else 'f32 as packed'}; one core")
    print(f"{'codec':<16} {'ratio':>6} {'decompressed':>13}  " + "  ".join(f"{f'at {d / 1e6:.0f} MB/s':>12} {'core':>5}" for d in DISKS))
    for codec in (Lz4(0), Lz4(9), Zstd(1), Zstd(3), Zstd(19)):
        for split in ([False, True] if numpy else [False]):
            ratio, speed = measure(codec, data, element, split)
            cells = [f"{min(d * ratio, speed) / d:10.2f} x {min(d * ratio / speed, 1) * 100:5.0f}%" for d in DISKS]
            print(f"{codec.name + (' planes' if split else ''):<16} {ratio:6.3f} {speed / 1e6:8.0f} MB/s  " + "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
