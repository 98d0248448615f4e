#!/usr/bin/env python3
"""Writes ../src/tokenizer/unicode_table.rs: the runs of letters (general category L*) and numbers (N*) among all code points.

Run it with a Python whose unicodedata is version 15.1.0 (Python 3.13), the version of llama.cpp's own tables, from this
folder:  python3.13 make_unicode.py > ../src/tokenizer/unicode_table.rs
"""

import sys
import unicodedata

VERSION = "15.1.0"
CLASSES = {"L": 1, "N": 2}


def runs():
    """Yields (first code point, class) wherever the class differs from that of the code point before."""
    previous = None
    for code in range(0x110000):
        kind = CLASSES.get(unicodedata.category(chr(code))[0], 0)
        if kind != previous:
            yield code, kind
        previous = kind


def main():
    if unicodedata.unidata_version != VERSION:
        sys.exit(f"unicodedata is {unicodedata.unidata_version}, not {VERSION}")
    packed = [code << 2 | kind for code, kind in runs()]
    print(f"//! Letters and numbers of Unicode {VERSION}. Written by `make_unicode.py`; do not edit.")
    print()
    print("/// Runs of code points of one class: first code point times 4, plus 0 other, 1 letter or 2 number.")
    print("#[rustfmt::skip]")
    print(f"pub(super) static RUNS: [u32; {len(packed)}] = [")
    for start in range(0, len(packed), 12):
        print("    " + ", ".join(f"0x{value:x}" for value in packed[start : start + 12]) + ",")
    print("];")


if __name__ == "__main__":
    main()
