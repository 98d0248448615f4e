#!/usr/bin/env python3
"""Writes a trained model as a GGUF file in F32, for `brooklet quantize` to make smaller ones of.

    python3 export.py --size tiny|small --run FOLDER --name NAME [--no-sink] OUT.gguf
"""

import argparse
import json
from pathlib import Path

import torch
from gguf import GGUFWriter, TokenType
from model import SIZES

TENSORS = {"attention_norm": "attn_norm", "query": "attn_q", "key": "attn_k", "value": "attn_v", "output": "attn_output",
           "ff_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--run", type=Path, required=True, help="what train.py wrote")
    parser.add_argument("--name", required=True)
    parser.add_argument("--no-sink", dest="sink", action="store_false")
    parser.add_argument("out")
    args = parser.parse_args()
    config, weights = SIZES[args.size], torch.load(args.run / "model.pt", weights_only=True)
    bpe = json.loads((args.run / "tokenizer.json").read_text())["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)

    writer = GGUFWriter(args.out, "llama")
    writer.add_name(args.name)
    writer.add_license("MIT OR Apache-2.0")
    writer.add_block_count(config.layers)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(config.ff)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.heads)
    writer.add_layer_norm_rms_eps(config.eps)
    writer.add_rope_dimension_count(config.d_model // config.heads)
    writer.add_rope_freq_base(config.theta)
    writer.add_vocab_size(config.vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] + [TokenType.NORMAL] * (len(tokens) - 1))
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"]])
    # The sink begins every text and ends none; llama.cpp takes an ordinary token for the end if none is named.
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(args.sink)
    for name, weight in weights.items():
        match name.split("."):
            case ["embedding", _]:
                name = "token_embd.weight"
            case ["norm", _]:
                name = "output_norm.weight"
            case ["layers", index, part, _]:
                name = f"blk.{index}.{TENSORS[part]}.weight"
        writer.add_tensor(name, weight.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
