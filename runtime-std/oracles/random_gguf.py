#!/usr/bin/env python3
"""Writes a small llama-family GGUF with random weights, so that every branch of a forward pass can be compared.

    python3 random_gguf.py OUT [--layers 2] [--dim 64] [--heads 4] [--kv-heads 2] [--head-dim 16] [--ff 96] [--vocab 256]
                           [--context 512] [--theta 10000] [--rope-factors] [--rope-linear F] [--untied]
                           [--type F32|F16|BF16|Q4_0|Q4_1|Q5_0|Q5_1|Q8_0] [--seed 1] [--slim RANK]

Weights are scaled so that attention is far from uniform and logits are a few units wide. The file has no tokenizer
(`no_vocab`): feed ids. `--slim` adds the tensors of a slim model with RANK rank-correction channels, random as well: for the time that
it takes, which depends on shapes alone; its values do not follow from its keys.
"""

import argparse
import sys
from pathlib import Path

import gguf
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2] / "core/tools"))
import gguf_file  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    sizes = dict(layers=2, dim=64, heads=4, kv_heads=2, head_dim=16, ff=96, vocab=256, context=512, seed=1)
    for name, default in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--theta", type=float, default=10000.0)
    parser.add_argument("--rope-factors", action="store_true")
    parser.add_argument("--rope-linear", type=float)
    parser.add_argument("--untied", action="store_true")
    parser.add_argument("--type", default="F32")
    parser.add_argument("--slim", type=int, metavar="RANK")
    args = parser.parse_args()
    gguf_file.write(args.out, "llama", facts(args), tensors(args))


def facts(args):
    yield "name", f"random llama, seed {args.seed}"
    yield "block_count", args.layers
    yield "context_length", args.context
    yield "embedding_length", args.dim
    yield "feed_forward_length", args.ff
    yield "head_count", args.heads
    yield "head_count_kv", args.kv_heads
    yield "key_length", args.head_dim
    yield "value_length", args.head_dim
    yield "layer_norm_rms_eps", 1e-5
    yield "rope_freq_base", args.theta
    yield "rope_dimension_count", args.head_dim
    yield "vocab_size", args.vocab
    if args.rope_linear:
        yield "rope_scaling_type", gguf.RopeScalingType.LINEAR
        yield "rope_scaling_factor", args.rope_linear
    yield "tokenizer_model", "no_vocab"


def tensors(args):
    """Names and data of all tensors, in the file's order."""
    rng = np.random.default_rng(args.seed)
    kind = gguf.GGMLQuantizationType[args.type]

    def matrix(name, rows, columns, gain=1.0):
        values = (rng.standard_normal((rows, columns)) * gain / columns**0.5).astype(np.float32)
        return name, (gguf.quants.quantize(values, kind), kind)

    def norm(name):
        return name, (1.0 + 0.1 * rng.standard_normal(args.dim)).astype(np.float32)

    def slim(block):
        columns = args.kv_heads * args.head_dim
        shapes = {"map": (columns, columns + args.slim), "channels": (args.slim, args.dim), "mean": (columns,), "offset": (columns,)}
        for part, shape in shapes.items():
            values = rng.standard_normal(shape) / args.dim**0.5
            if values.size:
                yield f"{block}.attn_slim_{part}.weight", values.astype(np.float16 if len(shape) == 2 else np.float32)

    yield matrix("token_embd.weight", args.vocab, args.dim, gain=2.0 if not args.untied else args.dim**0.5)
    if args.rope_factors:
        factors = np.geomspace(1.0, 8.0, args.head_dim // 2).astype(np.float32)
        yield "rope_freqs.weight", factors
    for layer in range(args.layers):
        block = f"blk.{layer}"
        yield norm(f"{block}.attn_norm.weight")
        yield matrix(f"{block}.attn_q.weight", args.heads * args.head_dim, args.dim, gain=2.0)
        yield matrix(f"{block}.attn_k.weight", args.kv_heads * args.head_dim, args.dim, gain=2.0)
        yield matrix(f"{block}.attn_v.weight", args.kv_heads * args.head_dim, args.dim)
        yield matrix(f"{block}.attn_output.weight", args.dim, args.heads * args.head_dim)
        if args.slim is not None:
            yield from slim(block)
        yield norm(f"{block}.ffn_norm.weight")
        yield matrix(f"{block}.ffn_gate.weight", args.ff, args.dim)
        yield matrix(f"{block}.ffn_up.weight", args.ff, args.dim)
        yield matrix(f"{block}.ffn_down.weight", args.dim, args.ff)
    yield norm("output_norm.weight")
    if args.untied:
        yield matrix("output.weight", args.vocab, args.dim, gain=3.0)


if __name__ == "__main__":
    main()
