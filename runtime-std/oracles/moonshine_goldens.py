#!/usr/bin/env python3
"""A tiny random Moonshine, and what Hugging Face transformers computes with it.

    python3 moonshine_goldens.py [TESTS]        by default ../../core/tests

Writes into the folder TESTS

- `data/random-moonshine-f32.gguf`: the model in f32, with the names and keys of transcribe.cpp, which
  `runtime-std/src/convert/speech` gives to real ones, and with a vocabulary of the 256 bytes and some pieces;
- `golden/speech/random-moonshine-f32.f32`: little-endian f32. For each number of samples: the samples; the output of the encoder,
  [rows, width], after its last norm; the logits of the decoder, [ids, vocab];
- `golden/speech/moonshine.txt`: lines as in `speech.txt` (see `speech_goldens.py`), with samples in place of frames.

A third of each head is not rotated, and heads are no multiple of 16 wide, as in the real models. Weights and precision are as in
`speech_goldens.py`.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from speech_goldens import golden, package_version, random_weights

sys.path.append(str(Path(__file__).resolve().parents[2] / "models/speech"))
from whisper_to_gguf import FILE_TYPES, SAMPLE_RATE, gguf_file, stored  # noqa: E402

KERNELS, STRIDES = [127, 7, 3], [64, 3, 2]
START, END, UNKNOWN = 1, 2, 0


@dataclass
class Shape:
    """Sizes of a model; widths and heads of encoder and decoder are equal in every Moonshine."""

    encoder_layers: int
    decoder_layers: int
    width: int
    heads: int
    ffn: int
    rotated: int
    positions: int
    vocab: int


NAME = "random-moonshine-f32"
SHAPE = Shape(encoder_layers=2, decoder_layers=2, width=64, heads=2, ffn=64, rotated=20, positions=32, vocab=300)
# Several parts of the stem, and the shortest sound that has a row.
SAMPLES = [20_000, 895]
IDS = 12


def build():
    sides = ("encoder", "decoder")
    config = transformers.MoonshineConfig(
        vocab_size=SHAPE.vocab,
        hidden_size=SHAPE.width,
        intermediate_size=SHAPE.ffn,
        max_position_embeddings=SHAPE.positions,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=(SHAPE.rotated + 0.25) * SHAPE.heads / SHAPE.width),
        attn_implementation="eager",
        **{f"{side}_num_hidden_layers": layers for side, layers in zip(sides, (SHAPE.encoder_layers, SHAPE.decoder_layers))},
        **{f"{side}_num_attention_heads": SHAPE.heads for side in sides},
        **{f"{side}_num_key_value_heads": SHAPE.heads for side in sides},
    )
    return transformers.MoonshineForConditionalGeneration(config).eval()


def named_of(encoder_layers, decoder_layers):
    """Pairs of a name in the file and one in transformers."""
    for number in range(3):
        for ending in ("weight", "bias")[: 1 if number == 0 else 2]:
            yield f"enc.conv.{number}.{ending}", f"encoder.conv{number + 1}.{ending}"
    for ending in ("weight", "bias"):
        yield f"enc.conv.norm.{ending}", f"encoder.groupnorm.{ending}"
    yield "enc.final_norm.weight", "encoder.layer_norm.weight"
    yield "dec.final_norm.weight", "decoder.norm.weight"
    yield "dec.token_embd.weight", "decoder.embed_tokens.weight"
    norms = {
        "enc": dict(norm_attn="input_layernorm", norm_ffn="post_attention_layernorm"),
        "dec": dict(norm_self="input_layernorm", norm_cross="post_attention_layernorm", norm_ffn="final_layernorm"),
    }
    attentions = {"enc": dict(attn="self_attn"), "dec": dict(self_attn="self_attn", cross_attn="encoder_attn")}
    for short, side, layers in (("enc", "encoder", encoder_layers), ("dec", "decoder", decoder_layers)):
        for layer in range(layers):
            ours, theirs = f"{short}.blocks.{layer}", f"{side}.layers.{layer}"
            for here, there in norms[short].items():
                yield f"{ours}.{here}.weight", f"{theirs}.{there}.weight"
            for here, there in attentions[short].items():
                for part in "qkv":
                    yield f"{ours}.{here}.{part}.weight", f"{theirs}.{there}.{part}_proj.weight"
                yield f"{ours}.{here}.out.weight", f"{theirs}.{there}.o_proj.weight"
            for matrix in ("fc1", "fc2"):
                for ending in ("weight", "bias"):
                    yield f"{ours}.ffn.{matrix}.{ending}", f"{theirs}.mlp.{matrix}.{ending}"


def tokens():
    bytes_ = [b"<0x%02X>" % byte for byte in range(256)]
    pieces = [b"\xe2\x96\x81", *(bytes([letter]) for letter in b"abcdefghijklmnopqrstuvwxyz"), b"th", b"\xe2\x96\x81th", b"\xe2\x96\x81the"]
    made = [b"<unk>", b"<s>", b"</s>", *bytes_, *pieces]
    return made + [b"<<ST_%d>>" % number for number in range(SHAPE.vocab - len(made))]


def write_file(path, name, variant, licence, shape, tokens, tensors, kind):
    """Writes a model file; `tokens` are bytes by id, `tensors` pairs of a name and an array of f32."""
    writer = GGUFWriter(str(path), "moonshine")
    writer.add_name(name)
    writer.add_license(licence)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_languages(["en"])
    writer.add_string("stt.variant", variant)
    for capability in ("lang_detect", "translate", "timestamps"):
        writer.add_bool(f"stt.capability.{capability}", False)
    add_tokenizer(writer, tokens)
    add_shape(writer, shape)
    for key, value in dict(type="raw").items():
        writer.add_string(f"stt.frontend.{key}", value)
    for key, value in dict(sample_rate=SAMPLE_RATE, num_mels=1).items():
        writer.add_uint32(f"stt.frontend.{key}", value)
    for tensor, values in tensors:
        data, of_kind = stored(tensor, values, kind)
        writer.add_tensor(tensor, data, raw_dtype=of_kind)
    gguf_file.finish(writer)


def token_type(number, token):
    if number == UNKNOWN:
        return TokenType.UNKNOWN
    if re.fullmatch(rb"<0x[0-9A-F]{2}>", token):
        return TokenType.BYTE
    return TokenType.CONTROL if re.fullmatch(rb"</?s>|<<.*>>", token) else TokenType.NORMAL


def add_tokenizer(writer, tokens):
    writer.add_tokenizer_model("bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([token_type(number, token) for number, token in enumerate(tokens)])
    writer.add_bos_token_id(START)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_add_bos_token(True)
    writer.add_bool("tokenizer.ggml.byte_fallback", True)


def add_shape(writer, shape):
    sides = dict(encoder=(shape.encoder_layers, "gelu"), decoder=(shape.decoder_layers, "silu"))
    for side, (layers, activation) in sides.items():
        counts = dict(n_layers=layers, d_model=shape.width, n_heads=shape.heads, n_kv_heads=shape.heads, ffn_dim=shape.ffn)
        if side == "decoder":
            counts |= dict(vocab_size=shape.vocab, max_position_embeddings=shape.positions)
        for key, value in counts.items():
            writer.add_uint32(f"stt.moonshine.{side}.{key}", value)
        writer.add_string(f"stt.moonshine.{side}.activation", activation)
    writer.add_bool("stt.moonshine.decoder.tie_word_embeddings", True)
    for key, token in dict(decoder_start=START, bos=START, eos=END, pad=END).items():
        writer.add_uint32(f"stt.moonshine.{key}_token_id", token)
    # A little more than the rotated part, which is rounded down from it.
    writer.add_float32("stt.moonshine.partial_rotary_factor", (shape.rotated + 0.25) * shape.heads / shape.width)
    writer.add_float32("stt.moonshine.rope_theta", 10000.0)
    writer.add_bool("stt.moonshine.attention_bias", False)
    stem = "stt.moonshine.conv_stem"
    writer.add_array(f"{stem}.channels", [shape.width, 2 * shape.width, shape.width])
    writer.add_array(f"{stem}.kernel_sizes", KERNELS)
    writer.add_array(f"{stem}.strides", STRIDES)
    writer.add_uint32(f"{stem}.groupnorm_num_groups", 1)
    writer.add_float32(f"{stem}.groupnorm_eps", 1e-5)


def write(path, model):
    weights = {name.removeprefix("model."): weight.detach().numpy() for name, weight in model.named_parameters()}
    tensors = [(ours, weights.pop(theirs)) for ours, theirs in named_of(SHAPE.encoder_layers, SHAPE.decoder_layers)]
    if weights:
        sys.exit(f"the file has no name for {', '.join(weights)}")
    facts = ("Random Moonshine", "moonshine-random", "MIT OR Apache-2.0", SHAPE, tokens())
    write_file(path, *facts, tensors, GGMLQuantizationType.F32)


def results(model, samples, ids):
    """The encoder's output and the logits."""
    with torch.no_grad():
        encoded = model.model.encoder(samples[None]).last_hidden_state
        hidden = model.model.decoder(torch.tensor([ids]), encoder_hidden_states=encoded, use_cache=False).last_hidden_state
        return [encoded[0].numpy(), model.proj_out(hidden)[0].numpy()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tests = Path(__file__).resolve().parents[2] / "core/tests"
    parser.add_argument("tests", type=Path, nargs="?", default=tests)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(29)
    model = build()
    random_weights(model, rng, SHAPE.width)
    model.tie_weights()
    samples = torch.from_numpy(rng.uniform(-0.5, 0.5, max(SAMPLES)).astype(np.float32))
    ids = [START] + rng.integers(3, 289, IDS - 1).tolist()
    data, goldens = args.tests / "data", args.tests / "golden/speech"
    write(data / f"{NAME}.gguf", model)
    with open(goldens / f"{NAME}.f32", "wb") as file:
        for count in SAMPLES:
            for values in golden(model, samples[:count], ids, results):
                file.write(values.tobytes())
    versions = {"transformers": transformers, "torch": torch, "numpy": np}
    made = " ".join(f"{name} {module.__version__}" for name, module in versions.items())
    lines = [
        f"made-with {made} gguf {package_version('gguf')}",
        f"ids {' '.join(map(str, ids))}",
        f"model {NAME} 1 {SHAPE.width} {SHAPE.vocab} {' '.join(map(str, SAMPLES))}",
    ]
    (goldens / "moonshine.txt").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
