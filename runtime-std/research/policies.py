#!/usr/bin/env python3
"""The four ways of keeping tokens on one text: perplexity, time per token, where attention goes. Resumes where it was stopped.

    python3 policies.py --brooklet target/release/brooklet --model smollm2-135m --ids book.ids --out FOLDER
                        [--count 20000] [--windows 256 512 1024] [--stride 6] [--times 256 512 1024 2048 4096]
                        [--stages cached recompute breaks times attention] [--newline 198]

`book.ids` holds token ids separated by blanks (`brooklet tokenize -m MODEL --ids --no-bos -f book.txt`). W is the whole cache: sinks
and window together. `recompute` scores every K-th position; the other policies' scores are paired with it there, so that the
difference has a small standard error. Every result is a JSON file in FOLDER, and `summary` (always done) prints one table and
draws `policies.svg` and `attention.svg`.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess

SINKS = 4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brooklet", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--ids", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--dense", type=int, default=8_192)
    parser.add_argument("--windows", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--times", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--stride", type=int, default=6)
    parser.add_argument("--newline", type=int, default=198, help="id of a line break (198 in SmolLM2)")
    stages = ["cached", "breaks", "attention", "times", "recompute"]
    parser.add_argument("--stages", nargs="*", default=stages, choices=stages)
    return parser.parse_args()


class Bench:
    def __init__(self, args):
        self.args = args
        args.out.mkdir(parents=True, exist_ok=True)

    def run(self, name, *words):
        """Runs a command whose standard output is JSON, once; keeps it in NAME.json."""
        file = self.args.out / f"{name}.json"
        if not file.exists():
            command = [self.args.brooklet, words[0], "-m", self.args.model, *map(str, words[1:]), "--json"]
            print("+", " ".join(command), flush=True)
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            file.write_text(done.stdout)
        return json.loads(file.read_text())

    def ppl(self, name, policy, window, *more, ids=None):
        scores = self.args.out / f"{name}.scores"
        return self.run(name, "ppl", "--ids", ids or self.args.ids, "--policy", policy, "--scores", scores, "--force",
                        *(["--window", window] if window else []), *more)

    def sink(self, name, cache, *more, ids=None):
        return self.ppl(name, "sink", cache - SINKS, "--sinks", SINKS, *more, ids=ids)


def cached(bench):
    args = bench.args
    bench.ppl("dense", "dense", None, "--count", args.dense)
    for cache in args.windows:
        bench.sink(f"sink-{cache}", cache, "--count", args.count)
        bench.ppl(f"window-{cache}", "window", cache, "--count", args.count)


def breaks(bench):
    """The first tokens replaced by line breaks: what counts is that they are first, not what they say (the paper's table 1)."""
    args = bench.args
    ids = args.out / "breaks.ids"
    tokens = args.ids.read_text().split()
    ids.write_text(" ".join([str(args.newline)] * SINKS + tokens[SINKS:]))
    for cache in args.windows:
        bench.sink(f"breaks-{cache}", cache, "--count", args.count, ids=ids)


def recompute(bench):
    args = bench.args
    for cache in args.windows:
        bench.ppl(f"recompute-{cache}", "recompute", cache, "--count", args.count, "--stride", args.stride)


def times(bench):
    """Time per token with a full cache: a prompt that fills it, then greedy tokens."""
    args = bench.args
    text = args.out / "prompt.txt"
    words = ["the", "sea", "was", "calm", "and", "a", "small", "boat", "lay", "on", "it"]
    for cache in args.times:
        text.write_text(" ".join(words[i % len(words)] for i in range(cache + 32)))
        for policy in ["sink", "window", "dense", "recompute"]:
            window = {"sink": cache - SINKS, "dense": cache + 128}.get(policy, cache)
            tokens = 4 if policy == "recompute" else 64
            bench.run(f"time-{policy}-{cache}", "run", "-f", text, "-n", tokens, "--ignore-eos", "--temp", 0,
                      "--policy", policy, "--window", window, "--sinks", SINKS)


def attention(bench):
    weights = bench.args.out / "attention.txt"
    bench.ppl("attention", "dense", None, "--count", 256, "--sink-mass", "--attention", weights)


def scores(bench, name):
    lines = (bench.args.out / f"{name}.scores").read_text().split("\n")
    return {int(at): float(nats) for at, nats in (line.split() for line in lines if line)}


def paired(bench, name, other):
    """Mean difference of two runs where both have scores, and its standard error."""
    a, b = scores(bench, name), scores(bench, other)
    differences = [a[at] - b[at] for at in sorted(a.keys() & b.keys())]
    return statistics.mean(differences), statistics.stdev(differences) / math.sqrt(len(differences)), len(differences)


def load(bench, name):
    file = bench.args.out / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def summary(bench):
    args = bench.args
    rows = []
    if dense := load(bench, "dense"):
        rows.append(f"| dense | {args.dense} | {dense['tokens']} | {dense['ppl']:.2f} | - |")
    for cache in args.windows:
        for policy in ["sink", "breaks", "window", "recompute"]:
            result = load(bench, f"{policy}-{cache}")
            if not result:
                continue
            against = "-"
            if policy != "recompute" and load(bench, f"recompute-{cache}"):
                mean, error, n = paired(bench, f"{policy}-{cache}", f"recompute-{cache}")
                against = f"{100 * math.expm1(mean):+.2f} % ± {100 * error:.2f} (n = {n})"
            rows.append(f"| {policy} | {cache} | {result['tokens']} | {result['ppl']:.2f} | {against} |")
    print("| policy | cache | predictions | perplexity | against recompute, paired |\n|---|---|---|---|---|")
    print("\n".join(rows))
    print("\n| cache | sink ms/token | window | dense | recompute | recompute / sink |\n|---|---|---|---|---|---|")
    for cache in args.times:
        speeds = [load(bench, f"time-{policy}-{cache}") for policy in ["sink", "window", "dense", "recompute"]]
        if all(speeds):
            ms = [1000 / speed["statistics"]["tps"] for speed in speeds]
            print(f"| {cache} | " + " | ".join(f"{t:.2f}" for t in ms) + f" | {ms[3] / ms[0]:.0f} |")
    draw(bench)


def draw(bench):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "brooklet"
    import matplotlib.pyplot as plt

    args = bench.args
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    for policy in ["window", "recompute", "sink"]:
        found = [(c, r["ppl"]) for c in args.windows if (r := load(bench, f"{policy}-{c}"))]
        left.plot(*zip(*found), marker="o", label=policy) if found else None
        found = [(c, 1000 / r["statistics"]["tps"]) for c in args.times if (r := load(bench, f"time-{policy}-{c}"))]
        right.plot(*zip(*found), marker="o", label=policy) if found else None
    if dense := load(bench, "dense"):
        left.axhline(dense["ppl"], linestyle=":", color="grey", label=f"dense ({args.dense})")
    left.set(xlabel="tokens in the cache", ylabel="perplexity", xscale="log")
    right.set(xlabel="tokens in the cache", ylabel="ms per token", xscale="log", yscale="log")
    for axes, ticks in ((left, args.windows), (right, args.times)):
        axes.set_xticks(ticks, ticks)
        axes.minorticks_off()
        axes.legend()
    figure.tight_layout()
    figure.savefig(args.out / "policies.svg", metadata={"Date": None})
    if (file := args.out / "attention.txt").exists():
        draw_attention(file, args.out / "attention.svg", plt)


def draw_attention(file, out, plt):
    import numpy as np

    layer, _, slot, weight = np.loadtxt(file).T
    layers, slots = int(layer.max()) + 1, int(slot.max()) + 1
    heads = len(weight) // (layers * slots)
    mass = weight.reshape(layers, heads, slots).mean(axis=1)
    # A token is seen by itself and what follows: the mean over those.
    mass *= slots / (slots - np.arange(slots))
    figure, axes = plt.subplots(figsize=(9, 3.6))
    image = axes.imshow(100 * mass[:, :32], aspect="auto", cmap="magma_r", interpolation="nearest")
    axes.set(xlabel="position of the token attended to (first 32 of 256; mean over heads and later tokens)", ylabel="layer")
    figure.colorbar(image, label="% of attention")
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


def main():
    bench = Bench(arguments())
    for stage in bench.args.stages:
        globals()[stage](bench)
    summary(bench)


main()
