#!/usr/bin/env python3
"""Perplexity with keys and values and with slim attention, over windows of the same length and over caches of the same size.

    python3 perplexity.py --brooklet BROOKLET --text held.txt [--count 100000] [--caches 64,128] MODEL.gguf SLIM.gguf...

Each SLIM is a copy that `brooklet slim` made of MODEL. `--caches` are tokens in the cache of keys and values, sinks included; a slim
cache gets as many, and then as many as fit the bytes that the first took (as the plan counts them, the sinks' exact values
included), up to what the model was trained for. All predictions are the same ones.
"""

import argparse
import json
import subprocess


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


class Measure:
    def __init__(self, args):
        self.args = args

    def options(self, model, kind, capacity):
        return ["-m", model, "--sinks", self.args.sinks, "--window", capacity - self.args.sinks, "--cache-type", kind, "--json"]

    def plan(self, model, kind, capacity):
        return json.loads(run(self.args.brooklet, "plan", *self.options(model, kind, capacity)))

    def cache_bytes(self, model, kind, capacity):
        return self.plan(model, kind, capacity)["parts"][0]["bytes"]

    def largest(self, model, kind, budget):
        """Most tokens whose cache fits `budget` bytes, and the model's context."""
        fits, too_many = self.args.sinks + 1, self.plan(model, kind, self.args.sinks + 1)["trained_context"] + 1
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if self.cache_bytes(model, kind, middle) <= budget:
                fits = middle
            else:
                too_many = middle
        return fits

    def ppl(self, model, kind, capacity):
        options = self.options(model, kind, capacity)
        report = json.loads(run(self.args.brooklet, "ppl", "-f", self.args.text, "--count", self.args.count, *options))
        return report["ppl"], report["tokens"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brooklet", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--caches", default="64,128")
    parser.add_argument("--sinks", type=int, default=1)
    parser.add_argument("--types", default="f16,q8_0")
    parser.add_argument("model")
    parser.add_argument("slim", nargs="+")
    args = parser.parse_args()
    measure = Measure(args)
    print("| cache | type | tokens | bytes | perplexity | beside kv |\n|---|---|---|---|---|---|")
    for capacity in map(int, args.caches.split(",")):
        for kind in args.types.split(","):
            size = measure.cache_bytes(args.model, kind, capacity)
            kv, tokens = measure.ppl(args.model, kind, capacity)
            print(f"| kv | {kind} | {capacity} | {size} | {kv:.4f} | {tokens} predictions |", flush=True)
            for model in args.slim:
                for slots in (capacity, measure.largest(model, kind, size)):
                    used = measure.cache_bytes(model, kind, slots)
                    ppl, same = measure.ppl(model, kind, slots)
                    assert same == tokens
                    print(f"| {model} | {kind} | {slots} | {used} ({100 * (used / size - 1):+.1f} %) | {ppl:.4f} | {100 * (ppl / kv - 1):+.3f} % |", flush=True)


if __name__ == "__main__":
    main()
