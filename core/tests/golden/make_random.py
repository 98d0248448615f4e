#!/usr/bin/env python3
"""Makes the small random llama models of the docs' examples, of tests of firmware and of the hostile set.

    python3 make_random.py [FOLDER]        needs: pip install gguf==0.19.0 numpy

Writes random.gguf (grouped-query attention, tied output) and other.gguf (multi-head attention, an output matrix of its own,
another shape) to FOLDER, by default ../data. Seeded: the same bytes on every machine, which the continuous integration
checks. The weights mean nothing; matrices that write to the residual stream are scaled up so that greedy text wanders instead of
repeating one token.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import TokenType
from gguf.quants import quantize

sys.path.append(str(Path(__file__).resolve().parents[3] / "core/tools"))
import gguf_file  # noqa: E402

MAX_BYTES = 64 * 1024

# Pieces of a SentencePiece vocabulary beside the 256 bytes: enough that encoding has merges to do, and letters left out so that
# it has bytes to fall back to.
PIECES = (
    "▁ e t a o n i h s r d l u m w f , . T ▁t ▁a he in ▁s ▁w re on ▁the er nd ou ▁b ▁sea ▁The ▁was ▁and ▁of"
    " se ea wa as ▁h ▁T Th ▁Th the"
).split(" ")


@dataclass
class Shape:
    """Everything that distinguishes one random model from another."""

    name: str
    seed: int
    layers: int
    d: int
    heads: int
    kv_heads: int
    ff: int
    context: int
    tied: bool
    attention_type: Type
    ffn_type: Type
    embedding_type: Type
    residual_gain: float

    @property
    def kv(self):
        return self.d // self.heads * self.kv_heads


RANDOM = Shape("random", 2, 2, 64, 4, 2, 96, 256, True, Type.Q4_0, Type.Q4_0, Type.Q8_0, 4.0)
OTHER = Shape("other", 38, 1, 32, 2, 2, 64, 128, False, Type.Q8_0, Type.Q4_0, Type.Q4_0, 6.0)


def vocabulary():
    """Texts, scores and types of the tokens: three control tokens, 256 bytes, the pieces (longer ones score higher)."""
    texts = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + PIECES
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 256
    types += [TokenType.NORMAL] * len(PIECES)
    scores = [0.0] * 259 + [float(4 * len(piece)) - 0.01 * i for i, piece in enumerate(PIECES)]
    return texts, scores, types


def matrix(rng, rows, cols, gain, kind):
    """A random matrix of `rows` x `cols` with rows of length `gain` in expectation, quantised to `kind`."""
    weights = (rng.standard_normal((rows, cols)) * (gain / np.sqrt(cols))).astype(np.float32)
    return quantize(weights, kind), kind


def norm(rng, width):
    """Weights of an RMS norm, near one."""
    return (1.0 + 0.1 * rng.standard_normal(width)).astype(np.float32), Type.F32


def tensors(shape, vocab):
    """Names and data of all tensors, in the file's order."""
    rng = np.random.RandomState(shape.seed)
    d, attention, ffn = shape.d, shape.attention_type, shape.ffn_type
    yield "token_embd.weight", matrix(rng, vocab, d, np.sqrt(d), shape.embedding_type)
    yield "output_norm.weight", norm(rng, d)
    if not shape.tied:
        yield "output.weight", matrix(rng, vocab, d, 1.0, Type.Q8_0)
    for layer in range(shape.layers):
        at = f"blk.{layer}."
        yield at + "attn_norm.weight", norm(rng, d)
        yield at + "attn_q.weight", matrix(rng, d, d, 2.0, attention)
        yield at + "attn_k.weight", matrix(rng, shape.kv, d, 2.0, attention)
        yield at + "attn_v.weight", matrix(rng, shape.kv, d, 2.0, attention)
        yield at + "attn_output.weight", matrix(rng, d, d, shape.residual_gain, attention)
        yield at + "ffn_norm.weight", norm(rng, d)
        yield at + "ffn_gate.weight", matrix(rng, shape.ff, d, 2.0, ffn)
        yield at + "ffn_up.weight", matrix(rng, shape.ff, d, 2.0, ffn)
        yield at + "ffn_down.weight", matrix(rng, d, shape.ff, shape.residual_gain, ffn)


def write(shape, path):
    """Writes one model."""
    texts, scores, types = vocabulary()
    facts = [
        ("name", f"brooklet {shape.name}"),
        ("license", "MIT OR Apache-2.0"),
        ("block_count", shape.layers),
        ("context_length", shape.context),
        ("embedding_length", shape.d),
        ("feed_forward_length", shape.ff),
        ("head_count", shape.heads),
        ("head_count_kv", shape.kv_heads),
        ("layer_norm_rms_eps", 1e-5),
        ("rope_freq_base", 10000.0),
        ("rope_dimension_count", shape.d // shape.heads),
        ("vocab_size", len(texts)),
        ("tokenizer_model", "llama"),
        ("token_list", texts),
        ("token_scores", scores),
        ("token_types", types),
        ("bos_token_id", 1),
        ("eos_token_id", 2),
        ("unk_token_id", 0),
    ]
    gguf_file.write(path, "llama", facts, tensors(shape, len(texts)))
    size = path.stat().st_size
    assert size <= MAX_BYTES, f"{path} has {size} bytes, the limit is {MAX_BYTES}"
    print(f"{path}: {size} bytes, {len(texts)} tokens")


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "data"
    for shape in (RANDOM, OTHER):
        write(shape, folder / f"{shape.name}.gguf")


if __name__ == "__main__":
    main()
