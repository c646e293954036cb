"""Writes the page as a C array: page_embed.py IN.html OUT.c.  SPDX-License-Identifier: Apache-2.0"""
import base64
import hashlib
import re
import sys

data = open(sys.argv[1], "rb").read()


def hashes(tag):
    found = re.findall(b"<%s>(.*?)</%s>" % (tag, tag), data, re.S)
    return " ".join("'sha256-%s'" % base64.b64encode(hashlib.sha256(t).digest()).decode() for t in found) or "'none'"


csp = ("default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src %s; script-src %s; base-uri 'none'; "
       "form-action 'none'; frame-ancestors 'none'") % (hashes(b"style"), hashes(b"script"))
with open(sys.argv[2], "w") as out:
    out.write('/* Made from %s by page_embed.py. */\n#include "serve/page.h"\n\n' % sys.argv[1].rsplit("/", 1)[-1])
    out.write("const unsigned char serve_page[] = {\n")
    for i in range(0, len(data), 24):
        out.write("    " + ",".join(map(str, data[i:i + 24])) + ",\n")
    out.write("};\nconst unsigned long serve_page_size = %d;\nconst char serve_page_csp[] = \"%s\";\n" % (len(data), csp))
