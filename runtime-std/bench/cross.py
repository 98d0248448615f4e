#!/usr/bin/env python3
"""The second paper's table of Whisper, measured: layouts of both caches, their bytes, and the decoder's time.

    python3 cross.py BROOKLET MODEL.gguf SOUND [--types f16 q8_0] [--threads 2] [-r 3]

Baseline: keys and values of all layers. Option 1: self-attention's input once for keys and values (`--cache x`), cross-attention's keys
and values. Option 2: that, and the encoder's output once for all layers (`--cross-cache e`). All runs write the same sound down in turn.
Prints a line of Markdown for each: bytes of the cross cache and of the self cache, the ratio of their sum to the baseline's in f16, bytes of
the caches that a token reads (the whole cross cache, and half of the self cache, which grows), milliseconds a token (median), and the share of words that differ from the baseline's in f16.
"""

import argparse
import re
import statistics
import subprocess

from captions import errors, words

LAYOUTS = {"baseline": ("kv", "kv"), "option 1": ("x", "kv"), "option 2": ("x", "e")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brooklet")
    parser.add_argument("model")
    parser.add_argument("sound")
    parser.add_argument("--types", nargs="+", default=["f16", "q8_0"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-r", type=int, default=3)
    arguments = parser.parse_args()
    cells = {(kind, name): [] for kind in arguments.types for name in LAYOUTS}
    for turn in range(arguments.r):
        for kind, name in sorted(cells, reverse=turn % 2 == 1):
            own, cross = LAYOUTS[name]
            command = [arguments.brooklet, "caption", arguments.sound, "-m", arguments.model, "-t", str(arguments.threads)]
            command += ["--language", "en", "--once", "--stats", "--cache", own, "--cross-cache", cross, "--cache-type", kind]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            parts = {part: int(size) for size, part in re.findall(r"^ *(\d+)  (.+)$", run.stderr, re.M)}
            each = float(re.search(r"([\d.]+) ms each", run.stderr)[1])
            cells[kind, name].append((parts["cache of cross-attention"], parts["caches of all layers"], each, words(run.stdout)))
    print("| caches | cross | self | smaller than the baseline in f16 | read by a token | ms a token | words that differ |\n|---|---|---|---|---|---|---|")
    cross, own, _, text = cells[arguments.types[0], "baseline"][0]
    baseline = cross + own
    for (kind, name), runs in cells.items():
        cross, own, _, heard = runs[0]
        each = statistics.median(run[2] for run in runs)
        differ = errors(text, heard)
        print(f"| {name}, {kind} | {cross:,} | {own:,} | {baseline / (cross + own):.2f} | {cross + own // 2:,} | {each:.2f} | {differ:.1f} % |")


if __name__ == "__main__":
    main()
