#!/usr/bin/env python3
"""Writes a trained model as a GGUF file in F32, from which `brooklet quantize` makes smaller ones.

    python3 export.py --size tiny|small --run FOLDER --name NAME [--no-sink] OUT.gguf
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from gguf import TokenType
from model import SIZES

sys.path.append(str(Path(__file__).resolve().parents[3] / "core/tools"))
import gguf_file  # noqa: E402

TENSORS = {"attention_norm": "attn_norm", "query": "attn_q", "key": "attn_k", "value": "attn_v", "output": "attn_output",
           "ff_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--run", type=Path, required=True, help="output folder of train.py")
    parser.add_argument("--name", required=True)
    parser.add_argument("--no-sink", dest="sink", action="store_false")
    parser.add_argument("out")
    args = parser.parse_args()
    config, weights = SIZES[args.size], torch.load(args.run / "model.pt", weights_only=True)
    bpe = json.loads((args.run / "tokenizer.json").read_text())["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)

    facts = [
        ("name", args.name),
        ("license", "MIT OR Apache-2.0"),
        ("block_count", config.layers),
        ("context_length", config.context),
        ("embedding_length", config.d_model),
        ("feed_forward_length", config.ff),
        ("head_count", config.heads),
        ("head_count_kv", config.heads),
        ("layer_norm_rms_eps", config.eps),
        ("rope_dimension_count", config.d_model // config.heads),
        ("rope_freq_base", config.theta),
        ("vocab_size", config.vocab),
        ("tokenizer_model", "gpt2"),
        ("tokenizer_pre", "gpt-2"),
        ("token_list", tokens),
        ("token_types", [TokenType.CONTROL] + [TokenType.NORMAL] * (len(tokens) - 1)),
        ("token_merges", [merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"]]),
        # The sink begins every text and ends none; llama.cpp takes an ordinary token for the end if
        # none is named.
        ("bos_token_id", 0),
        ("eos_token_id", 0),
        ("add_bos_token", args.sink),
    ]
    gguf_file.write(args.out, "llama", facts, tensors(weights))


def tensors(weights):
    """Returns names as in the file, and values."""
    for name, weight in weights.items():
        match name.split("."):
            case ["embedding", _]:
                name = "token_embd.weight"
            case ["norm", _]:
                name = "output_norm.weight"
            case ["layers", index, part, _]:
                name = f"blk.{index}.{TENSORS[part]}.weight"
        yield name, weight.float().numpy()


if __name__ == "__main__":
    main()
