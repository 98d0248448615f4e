#!/usr/bin/env python3
"""Cost of a decoded token by the size of the window, with keys and values in the cache and with slim attention.

    python3 window.py --brooklet brooklet [--json FILE]                           milliseconds
    python3 window.py --brooklet AARCH64-BROOKLET --guest "qemu-aarch64 -cpu cortex-a76 -plugin ./libcount.so"   instructions

The models are random (../../oracles/random_gguf.py), one a shape and layout, since time depends on shapes alone; --model adds files, the
first of them as it was and the others of the same model slimmed. A window is all tokens of the cache, 4 sinks among them; each program
fills it first, so that every token that is measured evicts one. Milliseconds: medians of turns in which the layouts alternate; in
brackets the median of the paired ratios to keys and values. Instructions (../../bench/guest/count.c counts them; one thread): 8 tokens, then 24,
the difference over 16; in brackets the ratio. The last column is the ratio of the multiply-adds of attention that core/src/attention/shape.rs
counts, for the first slim layout.

Needs numpy and gguf. Prints a table in Markdown; --json has the runs too.
"""

import argparse
import json
import pathlib
import re
import shlex
import statistics
import subprocess
import sys
import tempfile

RUNTIME = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(RUNTIME / "bench"))
from interleave import Served  # noqa: E402

SINKS = 4


class Shape:
    """`D,HEADS,LAYERS,FF`: multi-head attention."""

    def __init__(self, text):
        self.dim, self.heads, self.layers, self.ff = (int(word) for word in text.split(","))
        self.name = f"d {self.dim}, {self.heads} heads, {self.layers} layers"

    def write(self, path, rank):
        command = [sys.executable, RUNTIME / "oracles/random_gguf.py", path, "--type", "Q8_0", "--context", 16384]
        command += ["--dim", self.dim, "--heads", self.heads, "--kv-heads", self.heads, "--head-dim", self.dim // self.heads]
        command += ["--layers", self.layers, "--ff", self.ff] + ([] if rank is None else ["--slim", rank])
        subprocess.run([str(word) for word in command], check=True)
        return path

    def products(self, rank, slots):
        """Ratio of multiply-adds of slim attention to those of keys and values, in a rotated model."""
        d, kept = self.dim, self.dim + rank
        kv = 2 * d * d + 2 * slots * d
        return (d * kept + 3 * slots * d + slots * kept * self.heads + kept * d) / kv


def bench(args, model, cache_type, window):
    threads = 1 if args.guest else args.threads
    command = f"{args.guest} " if args.guest else ""
    command += f"{args.brooklet} bench -m {shlex.quote(model)} --serve -t {threads}"
    return f"{command} --cache-type {cache_type} --sinks {SINKS} --window {window - SINKS}"


def milliseconds(args, models, cache_type, window):
    """Per layout, milliseconds a token of every turn."""
    served = {name: Served(bench(args, model, cache_type, window)) for name, model in models.items()}
    tokens = {}
    for name, program in served.items():
        program.ask(f"p {window}")
        seconds = float(program.ask("d 8")[0]) / 8
        tokens[name] = min(max(round(args.turn / seconds), 4), 512)
    turns = {name: [] for name in models}
    order = list(models)
    for _ in range(args.turns):
        for name in order:
            turns[name].append(1e3 * float(served[name].ask(f"d {tokens[name]}")[0]) / tokens[name])
        order.append(order.pop(0))
    for program in served.values():
        program.close()
    return turns


def instructions(args, models, cache_type, window):
    """Per layout, millions of instructions a token."""

    def count(model):
        command = shlex.split(bench(args, model, cache_type, window))
        requests = f"p {window}\nd 8\nd 24\n"
        done = subprocess.run(command, input=requests, capture_output=True, text=True, check=False)
        # At READY, and at each answer.
        answered = [int(count) for count in re.findall(r"so_far (\d+)", done.stderr)]
        if done.returncode or len(answered) != 4:
            raise SystemExit(f"{shlex.join(command)}: {done.stderr}")
        _, filled, short, long = answered
        return (long - short - (short - filled)) / 16e6

    return {name: [count(model)] for name, model in models.items()}


def entry(runs, base):
    ratio = statistics.median(a / b for a, b in zip(runs, base))
    return f"{statistics.median(runs):.3f}" + ("" if runs is base else f" ({ratio:.2f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brooklet", required=True)
    parser.add_argument("--guest", metavar="CMD", help="emulator with the counting plugin: counts instructions instead of time")
    parser.add_argument("--shape", nargs="*", metavar="D,HEADS,LAYERS,FF", help="default: 512,8,4,1408 and 1024,16,2,2816")
    parser.add_argument("--model", nargs="+", action="append", default=[], metavar="FILE", help="a model, and the same slimmed")
    parser.add_argument("--ranks", type=int, nargs="+", default=[0, 8, 32])
    parser.add_argument("--types", nargs="+", default=["f16", "q8_0"])
    parser.add_argument("--windows", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096, 8192])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--turn", type=float, default=0.15, metavar="SECONDS")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    shapes = [Shape(text) for text in (["512,8,4,1408", "1024,16,2,2816"] if args.shape is None else args.shape)]
    measure = instructions if args.guest else milliseconds
    results = []
    with tempfile.TemporaryDirectory() as folder:
        sets = []
        for shape in shapes:
            layouts = {"kv": None} | {f"k+{rank}" if rank else "k": rank for rank in args.ranks}
            path = pathlib.Path(folder) / shape.name.replace(", ", "-").replace(" ", "")
            sets.append((shape.name, {name: shape.write(f"{path}-{name}.gguf", rank) for name, rank in layouts.items()}, shape))
        for first, *others in args.model:
            names = [pathlib.Path(path).stem for path in (first, *others)]
            sets.append((names[0], dict(zip(["kv", *names[1:]], (first, *others))), None))
        for name, models, shape in sets:
            print(f"\n{name}\n\n| window | cache | {' | '.join(models)} | counted |\n|---|---|{'---|' * (len(models) + 1)}")
            for cache_type in args.types:
                for window in args.windows:
                    runs = measure(args, models, cache_type, window)
                    results.append(dict(model=name, cache_type=cache_type, window=window, runs=runs))
                    counted = f"{shape.products(args.ranks[0], window):.2f}" if shape else ""
                    columns = " | ".join(entry(of, runs["kv"]) for of in runs.values())
                    print(f"| {window} | {cache_type} | {columns} | {counted} |", flush=True)
    if args.json:
        unit = "million guest instructions" if args.guest else "milliseconds"
        report = dict(unit=f"{unit} a token", command=sys.argv[1:], results=results)
        pathlib.Path(args.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
