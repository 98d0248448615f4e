#!/usr/bin/env python3
"""Where the instructions of a decoded token go: functions and blocks of code, counted under QEMU.

    gcc -O2 -shared -fPIC -o libcount.so count.c
    CARGO_PROFILE_RELEASE_STRIP=none boards/cross.sh aarch64-unknown-linux-gnu -- build --release -p brooklet
    python3 by_function.py --plugin ./libcount.so --ours AARCH64-BROOKLET [--cpu cortex-a76] [--blocks 8] -- MODEL.gguf...

The protocol of per_token.py: one thread, the difference of runs of 24 and 8 tokens. The program must have its symbols. For each block
is printed: millions of instructions a token, instructions in the block, times a token, its address in the program (`objdump -d
--start-address`), its function. Calls that the compiler put into another function count there.
"""

import argparse
import bisect
import collections
import pathlib
import subprocess
import tempfile


def listed(words):
    return [line.split(maxsplit=3) for line in subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()]


def code_start(program):
    """Where the program's file says that its code is loaded."""
    lines = subprocess.run(["readelf", "-lW", program], check=True, capture_output=True, text=True).stdout.splitlines()
    for words in map(str.split, lines):
        if words[:1] == ["LOAD"] and "E" in words[6:-1]:
            return int(words[2], 16)
    raise SystemExit(f"{program}: no segment of code")


def blocks(args, model, request):
    """Times that each block, by address and length, was executed."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "blocks"
        program = [args.ours, "bench", "-m", model, "--serve", "-t", "1", "--window", "508"]
        words = ["qemu-aarch64", "-cpu", args.cpu, "-plugin", f"{args.plugin},blocks={path}", "-L", args.sysroot, *program]
        subprocess.run(words, input=f"{request}\n", check=True, capture_output=True, text=True)
        found = collections.Counter()
        for address, length, times in (map(int, line.split()) for line in path.read_text().splitlines()):
            found[address, length] += times
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugin", required=True)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--cpu", default="cortex-a76")
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--functions", type=int, default=12)
    parser.add_argument("--sysroot", default="/usr/aarch64-linux-gnu")
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()
    symbols = sorted((int(words[0], 16), words[3]) for words in listed(["nm", "-SC", args.ours]) if len(words) == 4 and words[2] in "tTwW")
    if not symbols:
        raise SystemExit(f"{args.ours} has no symbols: build it with CARGO_PROFILE_RELEASE_STRIP=none")
    starts, base = [start for start, _ in symbols], code_start(args.ours)

    def function(address):
        at = bisect.bisect_right(starts, address) - 1
        return symbols[at][1] if 0 <= address - base < symbols[-1][0] else "(a library)"

    for model in args.models:
        short, long = (blocks(args, model, request) for request in ("n 8", "n 24"))
        rows = [((long[key] - short[key]) * key[1] / 16e6, key[1], (long[key] - short[key]) / 16, key[0] + base) for key in long]
        totals = collections.Counter()
        for millions, _, _, address in rows:
            totals[function(address)] += millions
        print(f"{model.rsplit('/', 1)[-1]} {args.cpu}: {sum(totals.values()):.1f} M instructions a token")
        for name, millions in totals.most_common(args.functions):
            print(f"{millions:8.2f} M  {name}")
        for millions, length, times, address in sorted(rows, reverse=True)[: args.blocks]:
            print(f"{millions:8.2f} M  {length:4} x {times:8.0f}  {address:#x}  {function(address)}")


if __name__ == "__main__":
    main()
