#!/usr/bin/env python3
"""Writes what llama.cpp makes of blocks and of whole files: quantize.txt, quantize_errors.txt, quantize_mixes.txt, rules.gguf and
quantized.sha256.

Usage: pip install gguf==0.19.0 numpy
       cd runtime-std/oracles/llama-cpp && CFLAGS=-ffp-contract=off CXXFLAGS=-ffp-contract=off cargo build --release
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
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quantize

sys.path.append(str(Path(__file__).resolve().parents[3] / "core/tools"))
import gguf_file  # noqa: E402

# Formats that are held to llama.cpp's bytes, and files that consist of them where no row is a multiple of 256.
FORMATS = ["F16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"]
MIXES = ["Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"]
TARGETS = FORMATS + MIXES + ["IQ4_NL"]
# Formats that are held to llama.cpp's error, and files in which most tensors have them.
SEARCHED = {"Q2_K": "Q2_K", "Q3_K": "Q3_K_S", "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S", "Q6_K": "Q6_K", "IQ4_NL": "IQ4_NL"}
VERSION = "llama.cpp in llama-cpp-sys-2 0.1.161"
BLOCK = 32
SUPER_BLOCK = 256
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
    "core/tests/data/random.gguf",
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
    facts = [
        ("file_type", 0),
        ("block_count", 11),
        ("context_length", 64),
        ("embedding_length", 64),
        ("feed_forward_length", 32),
        ("head_count", 2),
        ("layer_norm_rms_eps", 1e-5),
    ]
    gguf_file.write(path, "llama", facts + expert_facts(experts), tensors.items())


def expert_facts(experts: int) -> list:
    return [("expert_count", experts), ("expert_used_count", 2)] if experts else []


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
        for name in FORMATS + MIXES:
            peer(program, ROOT / model, target, name)
            yield f"{hashlib.sha256(target.read_bytes()).hexdigest()} {name} {model}"


def words(seed: int, count: int) -> np.ndarray:
    """splitmix64."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15) * np.arange(1, count + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def bells(seed: int, count: int) -> np.ndarray:
    """Sums of four 16-bit numbers: nearly a bell curve between -4 and 4, every value exact in f32."""
    z = words(seed, count)
    pieces = sum((z >> np.uint64(16 * i)) & np.uint64(0xFFFF) for i in range(4))
    return (pieces.astype(np.int64) - 2 * 0xFFFF) / 2.0**15


def error_sets() -> dict[str, np.ndarray]:
    """The sets of src/convert/quantize/errors.rs; computed in f64, rounded to f32 at the end."""
    count = 64 * SUPER_BLOCK
    bell = bells(1, count)
    index = np.arange(count)
    sets = {
        "bell": bell,
        "tails": bell**5,
        "outliers": np.where(words(2, count) % np.uint64(61) == 0, 16 * bell, bell),
        "positive": np.abs(bell) + 2,
        "negative": -np.abs(bell) / 4 - 1,
        "sparse": np.where(words(3, count) % np.uint64(8) == 0, bell, 0),
        "parts": bell * 2.0 ** (index // 16 % 16 - 8),
        "ramp": index % 256 / 64 - 1,
        "signs": np.where(words(4, count) % np.uint64(2) == 0, 1.0, -1.0),
        "constant": np.full(count, 0.75),
        "minus": np.full(count, -0.75),
        "zero": np.zeros(count),
        "tiny": bell * 2.0**-14,
        "vanishing": bell * 2.0**-24,
        "huge": bell * 2.0**17,
    }
    return {name: values.astype(np.float32) for name, values in sets.items()}


def error_lines(program: str, folder: Path):
    yield f"# Written by make_quantize.py with {VERSION}: the root of the mean squared difference."
    source, target = folder / "set.gguf", folder / "quantized.gguf"
    for name, values in error_sets().items():
        write_model(source, {"blk.10.ffn_up.weight": values.reshape(-1, SUPER_BLOCK)})
        for format, mix in SEARCHED.items():
            peer(program, source, target, mix)
            tensor = GGUFReader(target).tensors[0]
            assert tensor.tensor_type.name == format
            back = dequantize(np.array(tensor.data), tensor.tensor_type).reshape(-1).astype(np.float64)
            yield f"{name} {format} {np.sqrt(np.mean((back - values) ** 2)):.8e}"


# Architecture, layers, heads, heads of keys, experts, columns, whether the output has a matrix of its own.
SHAPES = [
    ("llama", 30, 9, 3, 0, 256, False),
    ("llama", 22, 32, 4, 0, 512, True),
    ("llama", 80, 64, 8, 0, 256, True),
    ("llama", 16, 32, 8, 8, 256, True),
    ("llama", 9, 8, 2, 4, 288, True),
    ("qwen2", 24, 14, 2, 0, 256, False),
    ("qwen3", 28, 16, 8, 0, 256, True),
    ("gemma2", 26, 8, 4, 0, 256, False),
    ("gemma3", 18, 4, 1, 0, 320, False),
    ("gptneox", 12, 12, 12, 0, 256, True),
    ("phi3", 32, 32, 32, 0, 256, True),
    ("olmo2", 17, 16, 16, 0, 256, True),
    ("gpt2", 7, 12, 12, 0, 256, False),
]


def write_shape(path: Path, shape: tuple):
    name, layers, heads, key_heads, experts, cols, untied = shape
    facts = [
        ("file_type", 0),
        ("block_count", layers),
        ("context_length", 64),
        ("embedding_length", cols),
        ("feed_forward_length", 256),
        ("head_count", heads),
        ("head_count_kv", key_heads),
        ("layer_norm_rms_eps", 1e-5),
        ("layer_norm_eps", 1e-5),
        ("sliding_window", 64),
        ("parallel_residual", True),
    ]
    tensors = [(tensor, np.zeros((2, cols), dtype=np.float32)) for tensor in shape_tensors(shape)]
    gguf_file.write(path, name, facts + expert_facts(experts), tensors)


def shape_tensors(shape: tuple) -> list[str]:
    name, layers, _, _, experts, _, untied = shape
    fused = name in ["gptneox", "phi3", "gpt2"]
    attention = ["attn_qkv"] if fused else ["attn_q", "attn_k", "attn_v"]
    down = ["ffn_down_exps", "ffn_down_shexp"] if experts else ["ffn_down"]
    parts = attention + ["attn_output", "ffn_up"] + down
    outer = ["token_embd.weight"] + ["output.weight"] * untied + ["position_embd.weight"] * (name == "gpt2")
    return outer + [f"blk.{layer}.{part}.weight" for layer in range(layers) for part in parts]


def mix_lines(program: str, folder: Path):
    yield f"# Written by make_quantize.py with {VERSION}: ggml's numbers of the formats."
    yield "# Of each shape its architecture, layers, heads, heads of keys, experts and columns; then of each tensor the formats in files"
    yield "# of " + ", ".join(TARGETS) + "."
    source, target = folder / "shape.gguf", folder / "quantized.gguf"
    for shape in SHAPES:
        write_shape(source, shape)
        formats = {tensor: [] for tensor in shape_tensors(shape)}
        for name in TARGETS:
            peer(program, source, target, name)
            for tensor in GGUFReader(target).tensors:
                formats[tensor.name].append(str(int(tensor.tensor_type)))
        yield "shape " + " ".join(map(str, shape[:6]))
        for tensor, numbers in formats.items():
            yield tensor + " " + " ".join(numbers)


def main():
    program = sys.argv[1]
    write_rules(HERE / "rules.gguf")
    with tempfile.TemporaryDirectory() as folder:
        files = [
            ("quantize.txt", block_lines),
            ("quantize_errors.txt", error_lines),
            ("quantize_mixes.txt", mix_lines),
            ("quantized.sha256", digest_lines),
        ]
        for name, lines in files:
            (HERE / name).write_text("\n".join(lines(program, Path(folder))) + "\n")


if __name__ == "__main__":
    main()
