#!/usr/bin/env python3
"""Measures the figures in the README of the models: bits per byte, samples, sinks, conditioning.

    python3 measure.py bits    --brooklet BROOKLET --text held.txt MODEL.gguf...
    python3 measure.py samples --brooklet BROOKLET --words /usr/share/dict/words MODEL.gguf...
    python3 measure.py sinks   --brooklet BROOKLET --text held.txt [--window 255] [--count 50000] MODEL.gguf...
    python3 measure.py keys    --text held.txt --brooklet BROOKLET MODEL-F32.gguf...

`keys`: cond(W_K) of every layer; the relative error of V when it is computed from K as slim
attention does it (W_K^-1 W_V), with K rounded to f16 and to q8_0, on real activations; and the
perplexity with such V beside that with the true one.
"""

import argparse
import json
import math
import re
import subprocess
from pathlib import Path

import numpy as np
from gguf import GGUFReader

SEEDS = (1, 2, 3, 4, 5)


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def ppl(args, model, *options):
    return json.loads(run(args.brooklet, "ppl", "-m", model, "-f", args.text, "--json", *options))


def field(model, name):
    return GGUFReader(model).fields[name].contents()


def context(model):
    return int(field(model, "llama.context_length"))


def bits(args):
    size = Path(args.text).stat().st_size
    for model in args.models:
        parameters = sum(int(np.prod(t.shape)) for t in GGUFReader(model).tensors)
        report = ppl(args, model, "--sinks", "1", "--window", str(context(model) - 1))
        total = report["nll"] * report["tokens"] / math.log(2)
        print(f"{Path(model).name}: {parameters} parameters, {total / size:.4f} bits per byte ({report['tokens']} tokens, perplexity {report['ppl']:.3f})")


def samples(args):
    known = {word.strip().lower() for word in open(args.words, encoding="utf-8")}
    for model in args.models:
        for seed in SEEDS:
            text = run(args.brooklet, "run", "-m", model, "The", "-n", "300", "--temp", "0.7", "--top-p", "0.9", "--seed", str(seed),
                       "--sinks", "1", "--window", str(context(model) - 1), "--ignore-eos")
            words = re.findall(r"[a-z]+(?:'[a-z]+)?", ("The" + text).lower())
            good = sum(word in known or word.removesuffix("'s") in known for word in words)
            tokens = run(args.brooklet, "tokenize", "--ids", "--no-bos", "-m", model, text).split()
            runs = [tuple(tokens[i:i + 20]) for i in range(len(tokens) - 19)]
            print(f"{Path(model).name}, seed {seed}: {good} of {len(words)} words known ({100 * good / len(words):.1f} %), "
                  f"{len(runs) - len(set(runs))} of {len(runs)} 20-grams repeated\n\nThe{text}\n")


def sinks(args):
    for model in args.models:
        row = []
        for count in (0, 1, 2, 4):
            policy = ["--policy", "window"] if count == 0 else ["--sinks", str(count)]
            report = ppl(args, model, *policy, "--window", str(args.window - count), "--count", str(args.count))
            row.append(f"S = {count}: {report['ppl']:.3f}")
        print(f"{Path(model).name}, {args.window} tokens in the cache, {args.count} predictions: " + ", ".join(row), flush=True)


class Llama:
    """The forward pass in f32, with V from K if asked to."""

    def __init__(self, path):
        reader = GGUFReader(path)
        of = lambda name: reader.fields["llama." + name].contents()
        self.layers, self.heads = int(of("block_count")), int(of("attention.head_count"))
        self.eps, self.theta = float(of("attention.layer_norm_rms_epsilon")), float(of("rope.freq_base"))
        self.w = {t.name: np.array(t.data, dtype=np.float32).reshape(tuple(reversed(t.shape.tolist()))) for t in reader.tensors}

    def norm(self, x, name):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.eps) * self.w[name + ".weight"]

    def rotate(self, x):
        tokens, heads, width = x.shape
        angles = np.outer(np.arange(tokens), self.theta ** (-np.arange(width // 2) / (width // 2)))[:, None, :]
        a, b, c, s = x[..., 0::2], x[..., 1::2], np.cos(angles), np.sin(angles)
        return np.stack((a * c - b * s, a * s + b * c), axis=-1).reshape(x.shape).astype(np.float32)

    def logits(self, ids, values=None, errors=None):
        """`values(layer, K, V)` gives the V to use."""
        x = self.w["token_embd.weight"][ids]
        hidden = np.triu(np.full((len(ids), len(ids)), -np.inf, dtype=np.float32), 1)
        for i in range(self.layers):
            w = lambda name: self.w[f"blk.{i}.{name}.weight"]
            n = self.norm(x, f"blk.{i}.attn_norm")
            q, k, v = n @ w("attn_q").T, n @ w("attn_k").T, n @ w("attn_v").T
            if values:
                slim = values(k, w("attn_k"), w("attn_v"))
                errors[i].append((np.square(slim - v).sum(), np.square(v).sum()))
                v = slim
            split = lambda m: m.reshape(len(ids), self.heads, -1)
            q, k, v = self.rotate(split(q)), self.rotate(split(k)), split(v)
            scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1]) + hidden
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            scores /= scores.sum(axis=-1, keepdims=True)
            x = x + np.einsum("hqk,khd->qhd", scores, v).reshape(len(ids), -1) @ w("attn_output").T
            n = self.norm(x, f"blk.{i}.ffn_norm")
            gate = n @ w("ffn_gate").T
            x = x + (gate / (1 + np.exp(-gate)) * (n @ w("ffn_up").T)) @ w("ffn_down").T
        return self.norm(x, "output_norm") @ self.w["token_embd.weight"].T


def q8_0(x):
    blocks = x.reshape(-1, 32)
    scale = (np.abs(blocks).max(axis=1, keepdims=True) / 127).astype(np.float16).astype(np.float32)
    return (np.round(blocks / np.where(scale > 0, scale, 1)).clip(-127, 127) * scale).reshape(x.shape)


ROUNDINGS = {"f32": lambda k: k, "f16": lambda k: k.astype(np.float16).astype(np.float32), "q8_0": q8_0}


def keys(args):
    for path in args.models:
        model, length = Llama(path), context(path)
        ids = np.array([int(i) for i in run(args.brooklet, "tokenize", "--ids", "--no-bos", "-m", path, "-f", args.text).split()])
        first = [0] if field(path, "tokenizer.ggml.add_bos_token") else []
        step = length - len(first)
        pieces = [np.array(first + ids[at:at + step].tolist()) for at in range(0, min(len(ids), 20 * length) - length, step)]

        def nats(values=None, errors=None):
            total = count = 0
            for piece in pieces:
                logits = model.logits(piece, values, errors)[:-1].astype(np.float64)
                top = logits.max(axis=-1)
                total += (np.log(np.exp(logits - top[:, None]).sum(axis=-1)) + top - logits[np.arange(len(piece) - 1), piece[1:]]).sum()
                count += len(piece) - 1
            return total / count

        kv = nats()
        conditions = [np.linalg.cond(model.w[f"blk.{i}.attn_k.weight"].astype(np.float64)) for i in range(model.layers)]
        print(f"{Path(path).name}: cond(W_K) by layer " + ", ".join(f"{c:.3g}" for c in conditions) + f"; perplexity with the true V {math.exp(kv):.4f}")
        for name, rounding in ROUNDINGS.items():
            errors = [[] for _ in range(model.layers)]

            def slim(k, w_k, w_v):
                return (rounding(k).astype(np.float64) @ np.linalg.inv(w_k.astype(np.float64).T) @ w_v.T.astype(np.float64)).astype(np.float32)

            change = math.exp(nats(slim, errors) - kv) - 1
            of_layers = [math.sqrt(sum(e for e, _ in layer) / sum(v for _, v in layer)) for layer in errors]
            print(f"  K in {name}: error of V by layer " + ", ".join(f"{100 * e:.3g} %" for e in of_layers) + f"; perplexity {100 * change:+.3f} %")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for function in (bits, samples, sinks, keys):
        command = commands.add_parser(function.__name__)
        command.add_argument("--brooklet", required=True)
        command.add_argument("models", nargs="+")
        if function is samples:
            command.add_argument("--words", required=True)
        else:
            command.add_argument("--text", required=True)
        if function is sinks:
            command.add_argument("--window", type=int, default=256)
            command.add_argument("--count", type=int, default=50000)
        command.set_defaults(function=function)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
