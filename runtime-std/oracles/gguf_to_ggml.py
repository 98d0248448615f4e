#!/usr/bin/env python3
"""Writes a Whisper of a GGUF file in the form of whisper.cpp, with the same bytes of every matrix.

    python3 gguf_to_ggml.py MODEL.gguf OUT.bin        needs: pip install gguf==0.19.0 numpy

whisper.cpp then runs the same weights as brooklet, for `bench/captions.py`; and `brooklet convert` must give the tensors of
MODEL.gguf again. The form is in `src/convert/speech/whisper_cpp.rs`. Convolutions must be f16 or f32, as converters write them.
"""

import struct
import sys

import numpy as np
from gguf import GGUFReader

LETTERS = {}


def bytes_of(token):
    """The bytes that a token in GPT-2's letters stands for."""
    if not LETTERS:
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [byte for byte in range(256) if byte not in printable]
        LETTERS.update({chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)})
    return bytes(LETTERS[letter] for letter in token)


def theirs(name):
    side, rest = name.split(".", 1)
    side = {"enc": "encoder", "dec": "decoder"}[side]
    if rest == "token_embd.weight":
        return "decoder.token_embedding.weight"
    if rest == "pos_emb.weight":
        return f"{side}.positional_embedding"
    norms = {"norm_attn": "attn_ln", "norm_self": "attn_ln", "norm_cross": "cross_attn_ln", "norm_ffn": "mlp_ln"}
    words = norms | {"ffn.fc1": "mlp.0", "ffn.fc2": "mlp.2", "conv.0": "conv1", "conv.1": "conv2"}
    words |= {"final_norm": "ln_post" if side == "encoder" else "ln"}
    words |= {"self_attn": "attn", "q": "query", "k": "key", "v": "value"}
    start, (module, ending) = side, rest.rsplit(".", 1)
    if module.startswith("blocks."):
        _, layer, module = module.split(".", 2)
        start = f"{side}.blocks.{layer}"
    module = words.get(module) or ".".join(words.get(part, part) for part in module.split("."))
    return f"{start}.{module}.{ending}"


def main():
    model, out = sys.argv[1:]
    reader = GGUFReader(model)
    value = lambda key: reader.fields[key].contents()  # noqa: E731
    size = lambda side, key: value(f"stt.whisper.{side}.{key}")  # noqa: E731
    sizes = [size("decoder", "vocab_size"), size("encoder", "max_source_positions")]
    sizes += [size("encoder", key) for key in ("d_model", "n_heads", "n_layers")]
    sizes += [size("decoder", key) for key in ("max_target_positions", "d_model", "n_heads", "n_layers")]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    filters = tensors["frontend.mel_filterbank"].data
    kind = max(int(tensor.tensor_type) for tensor in reader.tensors)
    # whisper.cpp knows a file by the type of its matrices: 0 f32, 1 f16, 7 q8_0 with the form's version in thousands.
    sizes += [len(filters), {0: 0, 1: 1, 8: 2007}[kind]]
    with open(out, "wb") as file:
        file.write(b"lmgg" + struct.pack("<11i2i", *sizes, *filters.shape) + filters.astype("<f4").tobytes())
        texts = value("tokenizer.ggml.tokens")[: value("tokenizer.ggml.eos_token_id")]
        file.write(struct.pack("<i", len(texts)))
        for text in map(bytes_of, texts):
            file.write(struct.pack("<I", len(text)) + text)
        for name, tensor in tensors.items():
            if name.startswith("frontend."):
                continue
            shape = [int(dim) for dim in tensor.shape]
            data, stored = tensor.data, int(tensor.tensor_type)
            if name.startswith("enc.conv") and name.endswith("bias"):
                shape = [1, *shape]
            word = theirs(name).encode()
            file.write(struct.pack(f"<3i{len(shape)}i", len(shape), len(word), stored, *shape) + word + np.ascontiguousarray(data).tobytes())


if __name__ == "__main__":
    main()
