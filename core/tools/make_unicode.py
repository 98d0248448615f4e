#!/usr/bin/env python3
"""Writes tables of ../src/tokenizer: the runs of letters (general category L*) and numbers (N*) among all code points, or those
of letters by case.

Run it with a Python whose unicodedata is version 15.1.0 (Python 3.13, or the package unicodedata2 15.1.0), the version of
llama.cpp's own tables, from this folder:
    python3.13 make_unicode.py > ../src/tokenizer/unicode_table.rs
    python3.13 make_unicode.py case > ../src/tokenizer/case_table.rs
"""

import sys

try:
    import unicodedata2 as unicodedata
except ImportError:
    import unicodedata

VERSION = "15.1.0"
CLASSES = {"L": 1, "N": 2}
CASES = {"Lu": 1, "Lt": 1, "Ll": 2, "Lm": 3, "Lo": 3, "Mn": 3, "Mc": 3, "Me": 3}


def runs(kind_of):
    """Yields (first code point, class) wherever the class differs from that of the code point before."""
    previous = None
    for code in range(0x110000):
        kind = kind_of(unicodedata.category(chr(code)))
        if kind != previous:
            yield code, kind
        previous = kind


def table(title, meaning, packed):
    """Prints a file with a table."""
    print(f"//! {title} of Unicode {VERSION}. Written by `make_unicode.py`; do not edit.")
    print()
    print(f"/// Runs of code points of one class: first code point times 4, plus {meaning}.")
    print("#[rustfmt::skip]")
    print(f"pub(super) static RUNS: [u32; {len(packed)}] = [")
    for start in range(0, len(packed), 12):
        print("    " + ", ".join(f"0x{value:x}" for value in packed[start : start + 12]) + ",")
    print("];")


def main():
    if unicodedata.unidata_version != VERSION:
        sys.exit(f"unicodedata is {unicodedata.unidata_version}, not {VERSION}")
    pack = lambda kind_of: [code << 2 | kind for code, kind in runs(kind_of)]
    if sys.argv[1:] == ["case"]:
        meaning = "0, 1 upper, 2 lower or 3 both"
        table("Letters and marks by case", meaning, pack(lambda category: CASES.get(category, 0)))
    else:
        meaning = "0 other, 1 letter or 2 number"
        table("Letters and numbers", meaning, pack(lambda category: CLASSES.get(category[0], 0)))


if __name__ == "__main__":
    main()
