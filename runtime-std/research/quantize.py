#!/usr/bin/env python3
"""Root-mean-square errors of brooklet's and llama.cpp's quantisers on one tensor of a model, and their ratio.

Usage: python3 quantize.py --ours PROGRAM --peer PROGRAM MODEL.gguf TENSOR [--weights 262144]

Needs numpy and gguf 0.19.0, by whose dequantisation both are read. The weights are cut to rows of 256, so that no format falls back.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

sys.path.append(str(Path(__file__).resolve().parents[2] / "core/tools"))
import gguf_file  # noqa: E402

# Formats, and files in which `ffn_up` has them.
FORMATS = {"Q2_K": "Q2_K", "Q3_K": "Q3_K_S", "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S", "Q6_K": "Q6_K", "IQ4_NL": "IQ4_NL"}


def values_of(path: Path, name: str) -> np.ndarray:
    tensor = next(tensor for tensor in GGUFReader(path).tensors if tensor.name == name)
    return dequantize(tensor.data, tensor.tensor_type).reshape(-1).astype(np.float32)


def write(path: Path, values: np.ndarray):
    facts = [
        ("block_count", 1),
        ("context_length", 64),
        ("embedding_length", 256),
        ("feed_forward_length", 256),
        ("head_count", 2),
        ("layer_norm_rms_eps", 1e-5),
    ]
    gguf_file.write(path, "llama", facts, [("blk.0.ffn_up.weight", values.reshape(-1, 256))])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("model", type=Path)
    parser.add_argument("tensor")
    parser.add_argument("--weights", type=int, default=262144)
    args = parser.parse_args()
    values = values_of(args.model, args.tensor)[: args.weights]
    values = values[: len(values) // 256 * 256]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.gguf", Path(folder) / "out.gguf"
        write(source, values)
        for name, mix in FORMATS.items():
            errors = []
            for program in [args.ours, args.peer]:
                target.unlink(missing_ok=True)
                subprocess.run([program, "quantize", source, target, mix], check=True, stdout=subprocess.DEVNULL)
                back = values_of(target, "blk.0.ffn_up.weight").astype(np.float64)
                errors.append(np.sqrt(np.mean((back - values) ** 2)))
            ours, theirs = errors
            print(f"{name:7} ours {ours:.4e}  llama.cpp {theirs:.4e}  ratio {ours / theirs if theirs else float('nan'):.4f}")


main()
