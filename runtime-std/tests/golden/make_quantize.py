#!/usr/bin/env python3
"""Writes what llama.cpp makes of blocks and of whole files: quantize.txt, rules.gguf and quantized.sha256.

Usage: pip install gguf==0.19.0 numpy
       cd runtime-std/bench/llama-cpp && CFLAGS=-ffp-contract=off CXXFLAGS=-ffp-contract=off cargo build --release
       python3 make_quantize.py target/release/llama-peer

`llama-peer quantize` is llama.cpp's own quantiser (llama-cpp-sys-2 0.1.161). Where numpy computes the same thing, the Python package
`gguf` must agree with it.
"""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import quantize

FORMATS = ["F16", "Q8_0", "Q5_0", "Q4_1", "Q4_0"]
BLOCK = 32
HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
# Every source format, tied and untied output.
MODELS = [
    "core/tests/data/random-gqa-f16.gguf",
    "core/tests/data/random-gqa-q5_1.gguf",
    "core/tests/data/random-mqa-llama3-f32.gguf",
    "core/tests/data/random-gqa-bf16.gguf",
    "core/tests/data/random-gqa-q4_0.gguf",
    "core/tests/data/random-gqa-q4_1.gguf",
    "core/tests/data/random-gqa-q5_0.gguf",
    "core/tests/data/random-gqa-q8_0.gguf",
    "boards/cortex-m/model/random.gguf",
    "runtime-std/tests/golden/rules.gguf",
]


def block_rows() -> np.ndarray:
    """Ordinary blocks of many scales, and those where rounding or a tie decides."""
    rng = np.random.default_rng(20261122)
    steps = np.arange(BLOCK) - 16.0
    rows = [
        np.zeros(BLOCK),
        -np.zeros(BLOCK),
        np.full(BLOCK, -1.5),
        np.full(BLOCK, 1.5),
        # The same largest magnitude with both signs, in both orders.
        np.where(np.arange(BLOCK) % 2, 1.0, -1.0) * 3,
        np.where(np.arange(BLOCK) % 2, -1.0, 1.0) * 3,
        # Halves between the integers of each format.
        steps / 2 + 0.25,
        steps / 32,
        np.r_[127.0, np.arange(BLOCK - 1) - 15.5],
        np.r_[-127.0, np.arange(BLOCK - 1) - 15.5],
        np.r_[-8.0, np.linspace(-8, 8, BLOCK - 1)],
        np.r_[15.0, 0.0, np.linspace(0, 15, BLOCK - 2)],
        # Ties of f16, in its normal and its subnormal numbers, and where it ends.
        1 + (2 * np.arange(BLOCK) + 1) * 2.0**-11,
        (2 * np.arange(BLOCK) + 1) * 2.0**-25,
        np.linspace(65472, 65519.99, BLOCK),
        # Scales that f16 stores as subnormal numbers or as zero, and one whose reciprocal overflows.
        steps * 1e-7,
        steps * 1e-9,
        steps * 1e-30,
        steps * 1e-41,
        np.r_[1e-45, np.zeros(BLOCK - 1)],
    ]
    for exponent in range(-24, 15):
        rows.append(np.clip(rng.standard_normal(BLOCK), -3.9, 3.9) * 2.0**exponent)
    return np.array(rows, dtype=np.float32)


def write_model(path: Path, tensors: dict[str, np.ndarray], experts: int = 0):
    """A file that llama.cpp's quantiser takes for a llama: it reads no more than this of the metadata."""
    writer = GGUFWriter(str(path), "llama")
    writer.add_file_type(0)
    writer.add_block_count(11)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_rules(path: Path):
    """Tensors by whose names and shapes llama.cpp decides, not in its order."""
    rng = np.random.default_rng(20261123)

    def random(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    tensors = {
        "output_norm.weight": random(64),
        "output.weight": random(3, 64),
        "token_embd.weight": random(3, 64),
        "rope_freqs.weight": random(16),
    }
    for layer in [10, 2, 0]:
        tensors |= {
            f"blk.{layer}.attn_q.weight": random(2, 64),
            f"blk.{layer}.attn_q.bias": random(2, 64),
            f"blk.{layer}.attn_k.weight": random(2, 64),
            f"blk.{layer}.attn_v.weight": random(2, 64),
            f"blk.{layer}.attn_output.weight": random(2, 64).astype(np.float16),
            f"blk.{layer}.attn_norm.weight": random(2, 64),
            f"blk.{layer}.ffn_gate_inp.weight": random(2, 64),
            f"blk.{layer}.ffn_up_exps.weight": random(2, 3, 64),
            f"blk.{layer}.ffn_down_exps.weight": random(2, 3, 36),
            f"blk.{layer}.ffn_down.weight": random(2, 31),
        }
    write_model(path, tensors, experts=8)


def peer(program: str, source: Path, target: Path, name: str):
    subprocess.run([program, "quantize", source, target, name], check=True)


def block_lines(program: str, folder: Path):
    rows = block_rows()
    source, target = folder / "blocks.gguf", folder / "quantized.gguf"
    write_model(source, {"blk.0.ffn_up.weight": rows})
    yield "# Written by make_quantize.py with llama.cpp in llama-cpp-sys-2 0.1.161, compiled with -ffp-contract=off."
    yield "# Each block: its 32 values (f32, little-endian), then its bytes in " + ", ".join(FORMATS) + "."
    encoded = {}
    for name in FORMATS:
        peer(program, source, target, name)
        tensor = GGUFReader(target).tensors[0]
        assert tensor.tensor_type.name == name
        encoded[name] = np.array(tensor.data).view(np.uint8).reshape(len(rows), -1)
        # numpy warns of, and differs in, conversions that C leaves undefined.
        usual = np.abs(rows).max(axis=1) > 1e-35
        numpy = quantize(rows[usual], GGMLQuantizationType[name]).view(np.uint8).reshape(usual.sum(), -1)
        assert (numpy == encoded[name][usual]).all(), name
    for index, row in enumerate(rows):
        yield " ".join([row.astype("<f4").tobytes().hex()] + [encoded[name][index].tobytes().hex() for name in FORMATS])


def digest_lines(program: str, folder: Path):
    target = folder / "quantized.gguf"
    for model in MODELS:
        for name in FORMATS:
            peer(program, ROOT / model, target, name)
            yield f"{hashlib.sha256(target.read_bytes()).hexdigest()} {name} {model}"


def main():
    program = sys.argv[1]
    write_rules(HERE / "rules.gguf")
    with tempfile.TemporaryDirectory() as folder:
        for name, lines in [("quantize.txt", block_lines), ("quantized.sha256", digest_lines)]:
            (HERE / name).write_text("\n".join(lines(program, Path(folder))) + "\n")


main()
