#!/usr/bin/env python3
"""Writes quant.txt: blocks of every format that brooklet-core reads, as the Python package `gguf` encodes and decodes them.

Usage: pip install gguf==0.19.0 numpy && python3 make_quant.py

Each line after a `format` line is one row: its bytes and its f32 values (big-endian bit patterns), in hexadecimal.
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

FLOATS = [Type.F32, Type.F16, Type.BF16]
QUANTS = [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0]
# Formats that the package decodes only.
DECODED = [Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.IQ4_NL]
BLOCK = 32


def quant_rows() -> np.ndarray:
    """Blocks of zeros, of one sign, of both, and of scales from f16's subnormals up to its largest numbers."""
    rng = np.random.default_rng(20240601)
    rows = [
        np.zeros(BLOCK),
        np.full(BLOCK, -1.5),
        np.arange(BLOCK) - 13.0,
        20.0 - np.arange(BLOCK),
        np.abs(rng.standard_normal(BLOCK)),
        -np.abs(rng.standard_normal(BLOCK)) - 0.25,
    ]
    for scale in [0.02, 1.0, 37.5, 1e-5, 3e-6, 4e-7, 2e4]:
        rows.append(np.clip(rng.standard_normal(BLOCK), -3, 3) * scale)
    return np.array(rows, dtype=np.float32)


def float_rows() -> np.ndarray:
    """Ordinary numbers, zeros of both signs, infinities, and the ends and subnormals of each float format."""
    rng = np.random.default_rng(20240602)
    special = [0.0, -0.0, np.inf, -np.inf, 65504.0, -65504.0, 6e-8, -3e-5, 6.1035e-5, 1e-40, -1.2e-38, 3.3895e38, 1 / 3, -1.0]
    return np.array([special, rng.standard_normal(len(special))], dtype=np.float32)


def lines(kind: Type, encoded_rows):
    block_len, block_bytes = GGML_QUANT_SIZES[kind]
    yield f"format {kind.name} {kind.value} {block_len} {block_bytes}"
    for encoded in encoded_rows:
        values = dequantize(encoded, kind).reshape(-1)
        assert np.isfinite(values).all() or kind in FLOATS
        yield f"{encoded.tobytes().hex()} {values.astype('>f4').tobytes().hex()}"


def encoded(kind: Type, rows: np.ndarray):
    for row in rows:
        with np.errstate(over="ignore"):
            yield quantize(row.reshape(1, -1), kind)


def random_blocks(kind: Type):
    """Zero bytes, then blocks of random bytes (drawn again where a scale is not finite) until no two elements are equal in all."""
    rng = np.random.default_rng(20240603)
    block_len, block_bytes = GGML_QUANT_SIZES[kind]
    yield np.zeros((1, block_bytes), dtype=np.uint8)
    seen = np.empty((0, block_len), dtype=np.float32)
    while len(np.unique(seen, axis=1).T) < block_len:
        block = rng.integers(0, 256, (1, block_bytes), dtype=np.uint8)
        with np.errstate(invalid="ignore"):
            values = dequantize(block, kind)
        if np.isfinite(values).all():
            seen = np.vstack([seen, values])
            yield block


def main():
    out = [
        f"# Written by make_quant.py with gguf {version('gguf')} and numpy {version('numpy')}.",
        "# format NAME NUMBER ELEMENTS_OF_A_BLOCK BYTES_OF_A_BLOCK, then rows: bytes, f32 values as big-endian hexadecimal.",
    ]
    for kind in FLOATS:
        out += lines(kind, encoded(kind, float_rows()))
    for kind in QUANTS:
        out += lines(kind, encoded(kind, quant_rows()))
    for kind in DECODED:
        out += lines(kind, random_blocks(kind))
    Path(__file__).with_name("quant.txt").write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
