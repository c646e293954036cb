"""Writes the page as a C array: page_embed.py IN.html OUT.c.  SPDX-License-Identifier: Apache-2.0"""
import sys

data = open(sys.argv[1], "rb").read()
with open(sys.argv[2], "w") as out:
    out.write('/* Made from %s by page_embed.py. */\n#include "serve/page.h"\n\n' % sys.argv[1].rsplit("/", 1)[-1])
    out.write("const unsigned char serve_page[] = {\n")
    for i in range(0, len(data), 24):
        out.write("    " + ",".join(map(str, data[i:i + 24])) + ",\n")
    out.write("};\nconst unsigned long serve_page_size = %d;\n" % len(data))
