#!/usr/bin/env python3
"""Writes a small llama-family GGUF with random weights, so that every branch of a forward pass can be compared.

    python3 random_gguf.py OUT [--layers 2] [--dim 64] [--heads 4] [--kv-heads 2] [--head-dim 16] [--ff 96] [--vocab 256]
                           [--context 512] [--theta 10000] [--rope-factors] [--rope-linear F] [--untied]
                           [--type F32|F16|BF16|Q4_0|Q4_1|Q5_0|Q5_1|Q8_0] [--seed 1] [--slim RANK]

Weights are scaled so that attention is far from uniform and logits are a few units wide. The file has no tokenizer
(`no_vocab`): feed ids. `--slim` adds the tensors of a slim model with RANK further channels, random as well: for the time that
it takes, which depends on shapes alone; its values do not follow from its keys.
"""

import argparse

import gguf
import numpy as np


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
    write(parser.parse_args())


def metadata(writer, args):
    writer.add_name(f"random llama, seed {args.seed}")
    writer.add_block_count(args.layers)
    writer.add_context_length(args.context)
    writer.add_embedding_length(args.dim)
    writer.add_feed_forward_length(args.ff)
    writer.add_head_count(args.heads)
    writer.add_head_count_kv(args.kv_heads)
    writer.add_key_length(args.head_dim)
    writer.add_value_length(args.head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(args.theta)
    writer.add_rope_dimension_count(args.head_dim)
    writer.add_vocab_size(args.vocab)
    if args.rope_linear:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(args.rope_linear)
    writer.add_tokenizer_model("no_vocab")


def write(args):
    rng = np.random.default_rng(args.seed)
    kind = gguf.GGMLQuantizationType[args.type]
    writer = gguf.GGUFWriter(args.out, "llama")
    metadata(writer, args)

    def matrix(name, rows, columns, gain=1.0):
        values = (rng.standard_normal((rows, columns)) * gain / columns**0.5).astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def norm(name):
        writer.add_tensor(name, (1.0 + 0.1 * rng.standard_normal(args.dim)).astype(np.float32))

    def slim(block):
        columns = args.kv_heads * args.head_dim
        shapes = {"map": (columns, columns + args.slim), "channels": (args.slim, args.dim), "mean": (columns,), "offset": (columns,)}
        for part, shape in shapes.items():
            values = rng.standard_normal(shape) / args.dim**0.5
            if values.size:
                writer.add_tensor(f"{block}.attn_slim_{part}.weight", values.astype(np.float16 if len(shape) == 2 else np.float32))

    matrix("token_embd.weight", args.vocab, args.dim, gain=2.0 if not args.untied else args.dim**0.5)
    if args.rope_factors:
        factors = np.geomspace(1.0, 8.0, args.head_dim // 2).astype(np.float32)
        writer.add_tensor("rope_freqs.weight", factors)
    for layer in range(args.layers):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm.weight")
        matrix(f"{block}.attn_q.weight", args.heads * args.head_dim, args.dim, gain=2.0)
        matrix(f"{block}.attn_k.weight", args.kv_heads * args.head_dim, args.dim, gain=2.0)
        matrix(f"{block}.attn_v.weight", args.kv_heads * args.head_dim, args.dim)
        matrix(f"{block}.attn_output.weight", args.dim, args.heads * args.head_dim)
        if args.slim is not None:
            slim(block)
        norm(f"{block}.ffn_norm.weight")
        matrix(f"{block}.ffn_gate.weight", args.ff, args.dim)
        matrix(f"{block}.ffn_up.weight", args.ff, args.dim)
        matrix(f"{block}.ffn_down.weight", args.dim, args.ff)
    norm("output_norm.weight")
    if args.untied:
        matrix("output.weight", args.vocab, args.dim, gain=3.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
