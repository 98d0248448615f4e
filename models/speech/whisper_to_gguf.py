#!/usr/bin/env python3
"""Converts a Whisper model in the form of CTranslate2 to GGUF.

    python3 whisper_to_gguf.py PACKAGE OUT.gguf [--type f32|f16|q8_0]        needs: pip install gguf==0.19.0 numpy

PACKAGE is a folder with `model.bin` and `vocabulary.txt` (or `vocabulary.json`), or the path of its `model.bin`. Two more files are
used if they are there: `tokenizer.json` has the merges, `config.json` the tokens that must not be chosen. Without it they are found as
OpenAI's tokenizer does, see `non_speech`.

The names of tensors and keys are those of transcribe.cpp, whose files are the published ones. Matrices, convolutions and the token
embedding have the chosen type; the rest (norms, biases, positions, window, mel filters) is always F32. Q8_0 has blocks of 32 in a
row: a tensor whose rows are no multiple of 32 long is stored in F16 then. That is so for both convolutions, whose rows are their 3 taps.

`model.bin`, numbers little-endian, a string being a u16 length that counts a closing NUL, and its bytes: u32 version (6), the string
`WhisperSpec`, u32 revision, u32 number of variables; each variable: string name, u8 rank, u32 dimensions, u8 type, u32 bytes, data;
then u32 number of aliases, each two strings. A matrix is [out, in], a convolution [out, in, taps].

| CTranslate2 | GGUF |
|---|---|
| `encoder/conv1`, `conv2` | `enc.conv.0`, `enc.conv.1` |
| `X/position_encodings/encodings` | `X.pos_emb.weight`; X is `encoder` or `decoder` there, `enc` or `dec` here |
| `X/layer_norm/gamma`, `beta` | `X.final_norm.weight`, `.bias`; other norms alike |
| `encoder/layer_I/self_attention/layer_norm` | `enc.blocks.I.norm_attn` |
| `encoder/layer_I/self_attention/linear_0` = [Q; K; V], `linear_1` | `enc.blocks.I.attn.q`, `.k`, `.v`, `.out` |
| `decoder/embeddings/weight` | `dec.token_embd.weight`, also the output matrix |
| `decoder/layer_I/self_attention/...` | `dec.blocks.I.norm_self`, `.self_attn.q`, `.k`, `.v`, `.out` |
| `decoder/layer_I/attention/layer_norm` | `dec.blocks.I.norm_cross` |
| `decoder/layer_I/attention/linear_0` = Q, `linear_1` = [K; V], `linear_2` | `dec.blocks.I.cross_attn.q`, `.k`, `.v`, `.out` |
| `X/layer_I/ffn/layer_norm`, `linear_0`, `linear_1` | `X.blocks.I.norm_ffn`, `.ffn.fc1`, `.fc2` |

Keys have no bias in Whisper. CTranslate2 stores zeros in its place, which are left out.
"""

import argparse
import json
import re
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize

sys.path.append(str(Path(__file__).resolve().parents[2] / "core/tools"))
import gguf_file  # noqa: E402

SAMPLE_RATE, N_FFT, HOP = 16000, 400, 160
FILE_TYPES = {Type.F32: LlamaFileType.ALL_F32, Type.F16: LlamaFileType.MOSTLY_F16, Type.Q8_0: LlamaFileType.MOSTLY_Q8_0}

# (width, layers of the encoder, layers of the decoder): OpenAI's name of the size.
SIZES = {
    (384, 4, 4): "tiny",
    (512, 6, 6): "base",
    (768, 12, 12): "small",
    (1024, 24, 24): "medium",
    (1280, 32, 32): "large",
    (1280, 32, 4): "large",
}
# OpenAI's models with this vocabulary or a larger one know more than one language (`whisper/model.py`, `is_multilingual`).
MULTILINGUAL = 51865


@dataclass
class Shape:
    """Sizes of a model; the widths and heads of encoder and decoder are equal in every Whisper."""

    encoder_layers: int
    decoder_layers: int
    width: int
    heads: int
    ffn: int
    mels: int
    source_positions: int
    target_positions: int
    vocab: int


@dataclass
class Vocabulary:
    """Tokens by id, in the spelling of GPT-2 (a byte is a printable letter), and the tokens that are never chosen, or not first."""

    tokens: list
    merges: list = field(default_factory=list)
    suppressed: list = field(default_factory=list)
    suppressed_first: list = field(default_factory=list)

    def id(self, name):
        return self.tokens.index(name) if name in self.tokens else None

    def languages(self):
        """Codes of the languages, whose tokens stand between the start of a transcript and the first task."""
        return [token[2:-2] for token in self.tokens[self.id("<|startoftranscript|>") + 1 : self.id("<|translate|>")]]


# --- the front end


def mel_filters(mels, sample_rate=SAMPLE_RATE, n_fft=N_FFT):
    """Triangular filters [mels, n_fft / 2 + 1] on the mel scale of Slaney's Auditory Toolbox, each of area 1 in Hz.

    The scale is linear below 1000 Hz, with 200/3 Hz to a mel, and logarithmic above, with 27 mels to a factor of 6.4 in frequency
    (the default of `librosa.filters.mel`, whose documentation has the formula; `norm="slaney"` is the factor 2 / (right - left)).
    """
    linear, knee, octave = 200 / 3, 1000.0, np.log(6.4) / 27
    top = knee / linear + np.log(sample_rate / 2 / knee) / octave
    mel = np.linspace(0.0, top, mels + 2)
    edges = np.where(mel < knee / linear, mel * linear, knee * np.exp((mel - knee / linear) * octave))
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)[None, :]
    triangles = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    return (np.maximum(triangles, 0.0) * 2 / (right - left)).astype(np.float32)


def window(n=N_FFT):
    """A periodic Hann window: its next sample would be the first one again."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)).astype(np.float32)


# --- the file


def stored(name, values, kind):
    """The array, or the pair of bytes and type, that the file holds."""
    values = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(values).all():
        sys.exit(f"{name} holds a number that is not finite")
    has_kind = values.ndim > 1 and name.endswith(".weight") and not name.endswith("pos_emb.weight")
    if not has_kind or kind == Type.F32:
        return values, Type.F32
    if kind == Type.Q8_0 and values.shape[-1] % 32 == 0:
        return quantize(values, Type.Q8_0), Type.Q8_0
    if abs(values).max() > np.finfo(np.float16).max:
        sys.exit(f"{name} holds a number that is too large for f16")
    return values.astype(np.float16), Type.F16


def write(path, name, variant, licence, shape, vocabulary, tensors, kind):
    """Writes a model file; `tensors` are pairs of a name and an array of f32, without the front end's two."""
    writer = GGUFWriter(str(path), "whisper")
    writer.add_name(name)
    writer.add_license(licence)
    writer.add_file_type(FILE_TYPES[kind])
    multilingual = shape.vocab >= MULTILINGUAL
    writer.add_languages(vocabulary.languages() if multilingual else ["en"])
    writer.add_string("stt.variant", variant)
    writer.add_bool("stt.capability.lang_detect", multilingual)
    writer.add_bool("stt.capability.translate", multilingual)
    writer.add_bool("stt.capability.timestamps", True)
    add_tokenizer(writer, vocabulary)
    add_shape(writer, shape)
    add_prompt(writer, vocabulary)
    add_front_end(writer, shape)
    front_end = [("frontend.mel_filterbank", mel_filters(shape.mels)), ("frontend.window", window())]
    for tensor, values in [*front_end, *tensors]:
        data, of_kind = stored(tensor, values, kind)
        writer.add_tensor(tensor, data, raw_dtype=of_kind)
    gguf_file.finish(writer)


def add_tokenizer(writer, vocabulary):
    end = vocabulary.id("<|endoftext|>")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types([TokenType.NORMAL if token < end else TokenType.CONTROL for token in range(len(vocabulary.tokens))])
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)
    writer.add_add_bos_token(False)


def add_shape(writer, shape):
    sides = {
        "encoder": dict(n_layers=shape.encoder_layers, num_mel_bins=shape.mels, max_source_positions=shape.source_positions),
        "decoder": dict(n_layers=shape.decoder_layers, max_target_positions=shape.target_positions, vocab_size=shape.vocab),
    }
    for side, own in sides.items():
        for key, value in (own | dict(d_model=shape.width, n_heads=shape.heads, ffn_dim=shape.ffn)).items():
            writer.add_uint32(f"stt.whisper.{side}.{key}", value)
        writer.add_string(f"stt.whisper.{side}.activation", "gelu")
    writer.add_bool("stt.whisper.decoder.tie_word_embeddings", True)
    writer.add_bool("stt.whisper.decoder.scale_embedding", False)


def add_prompt(writer, vocabulary):
    ids = {
        "decoder_start": "<|startoftranscript|>",
        "sot": "<|startoftranscript|>",
        "no_timestamps": "<|notimestamps|>",
        "prev_sot": "<|startofprev|>",
        "transcribe": "<|transcribe|>",
        "translate": "<|translate|>",
    }
    for key, token in ids.items():
        if vocabulary.id(token) is None:
            sys.exit(f"the vocabulary has no token {token}")
        writer.add_uint32(f"stt.whisper.{key}_token_id", vocabulary.id(token))
    for key, tokens in {"suppress": vocabulary.suppressed, "begin_suppress": vocabulary.suppressed_first}.items():
        if tokens:
            writer.add_array(f"stt.whisper.{key}_tokens", tokens)


def add_front_end(writer, shape):
    frames = 2 * shape.source_positions
    words = dict(type="mel", window="hann_periodic", normalize="whisper_logmel", pad_mode="reflect", mel_norm="slaney")
    counts = dict(num_mels=shape.mels, sample_rate=SAMPLE_RATE, n_fft=N_FFT, win_length=N_FFT, hop_length=HOP)
    counts |= dict(n_samples=frames * HOP, nb_max_frames=frames)
    if frames * HOP % SAMPLE_RATE == 0:
        counts |= dict(chunk_length=frames * HOP // SAMPLE_RATE)
    for key, value in words.items():
        writer.add_string(f"stt.frontend.{key}", value)
    for key, value in counts.items():
        writer.add_uint32(f"stt.frontend.{key}", value)
    for key, value in dict(dither=0.0, pre_emphasis=0.0, f_min=0.0, f_max=SAMPLE_RATE / 2).items():
        writer.add_float32(f"stt.frontend.{key}", value)
    writer.add_bool("stt.frontend.center", True)


# --- the package


class Bytes:
    """The bytes of `model.bin`, read from front to back."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        part = self.data[self.at : self.at + count]
        if len(part) < count:
            sys.exit("model.bin ends too early")
        self.at += count
        return part

    def number(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize(form)))[0]

    def text(self):
        return self.take(self.number("H")).rstrip(b"\0").decode()


def variables(data):
    """Every variable of `model.bin` by name: f32 arrays, and integers where the file has integers."""
    file = Bytes(data)
    if (version := file.number("I")) != 6 or (spec := file.text()) != "WhisperSpec":
        sys.exit(f"model.bin has version {version}, and not 6" if version != 6 else f"model.bin is a {spec}, and not a WhisperSpec")
    file.number("I")
    found = {}
    for _ in range(file.number("I")):
        name = file.text()
        shape = [file.number("I") for _ in range(file.number("B"))]
        kind, raw = file.number("B"), file.take(file.number("I"))
        if kind == 5:
            values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        elif kind in (0, 4):
            values = np.frombuffer(raw, "<f4" if kind == 0 else "<f2").astype(np.float32)
        elif name == "decoder/alignment_heads":
            # Which heads tell when a word was said: for timestamps of words, and of any shape.
            continue
        elif not shape and kind in (1, 2, 3):
            values = np.frombuffer(raw, f"<i{(1, 2, 4)[kind - 1]}")
        else:
            sys.exit(f"{name} is quantised; only f32, f16 and bf16 are read")
        found[name] = values.reshape(shape)
    return found


def weight_names(side, shape):
    """Pairs of CTranslate2's name and the list of names here that divide its rows; norms and linear layers without their ending."""
    short = side[:3]
    layers = shape.encoder_layers if side == "encoder" else shape.decoder_layers
    attentions = {"self_attention": ("norm_attn", "attn")}
    if side == "decoder":
        attentions = {"self_attention": ("norm_self", "self_attn"), "attention": ("norm_cross", "cross_attn")}
    if side == "encoder":
        yield "conv1", ["enc.conv.0"]
        yield "conv2", ["enc.conv.1"]
    yield "layer_norm", [f"{short}.final_norm"]
    for layer in range(layers):
        theirs, ours = f"layer_{layer}", f"{short}.blocks.{layer}"
        for attention, (norm, name) in attentions.items():
            yield f"{theirs}/{attention}/layer_norm", [f"{ours}.{norm}"]
            fused = [["q", "k", "v"], ["out"]] if attention == "self_attention" else [["q"], ["k", "v"], ["out"]]
            for number, parts in enumerate(fused):
                yield f"{theirs}/{attention}/linear_{number}", [f"{ours}.{name}.{part}" for part in parts]
        yield f"{theirs}/ffn/layer_norm", [f"{ours}.norm_ffn"]
        yield f"{theirs}/ffn/linear_0", [f"{ours}.ffn.fc1"]
        yield f"{theirs}/ffn/linear_1", [f"{ours}.ffn.fc2"]


def converted(found, shape):
    """Pairs of a name and an array of every weight of the model. Takes what it uses out of `found`."""
    tensors = []
    for side in ("encoder", "decoder"):
        if side == "decoder":
            tensors.append(("dec.token_embd.weight", found.pop("decoder/embeddings/weight")))
        tensors.append((f"{side[:3]}.pos_emb.weight", found.pop(f"{side}/position_encodings/encodings")))
        for theirs, ours in weight_names(side, shape):
            norm = theirs.endswith("layer_norm")
            for ending, end in {"weight": "gamma" if norm else "weight", "bias": "beta" if norm else "bias"}.items():
                for name, values in zip(ours, np.split(found.pop(f"{side}/{theirs}/{end}"), len(ours)), strict=True):
                    if ending == "bias" and name.endswith(".k"):
                        if values.any():
                            sys.exit(f"{name} has a bias, which Whisper's keys have not")
                    else:
                        tensors.append((f"{name}.{ending}", values))
    return tensors


def shape_of(found):
    """The sizes, from the shapes of weights. Takes settings that are no weights out of `found`."""
    heads = [int(found.pop(f"{side}/num_heads")) for side in ("encoder", "decoder")]
    ffn = [len(found[f"{side}/layer_0/ffn/linear_0/bias"]) for side in ("encoder", "decoder")]
    if heads[0] != heads[1] or ffn[0] != ffn[1]:
        sys.exit("encoder and decoder have other heads or widths")
    expected = {"decoder/activation": 3, "decoder/pre_norm": 1, "decoder/scale_embeddings": 0, "decoder/alibi": 0}
    for setting, value in (expected | {"decoder/alignment_layer": None, "decoder/start_from_zero_embedding": 0}).items():
        given = found.pop(setting, value)
        if value is not None and given != value:
            sys.exit(f"{setting} is {given}, which is not Whisper's {value}")
    in_layers = [rf"{side}/layer_\d+/ffn/linear_0/bias" for side in ("encoder", "decoder")]
    layers = [sum(re.fullmatch(pattern, name) is not None for name in found) for pattern in in_layers]
    width, mels, _ = found["encoder/conv1/weight"].shape
    positions = [len(found[f"{side}/position_encodings/encodings"]) for side in ("encoder", "decoder")]
    vocab = len(found["decoder/embeddings/weight"])
    return Shape(*layers, width, heads[0], ffn[0], mels, *positions, vocab)


# --- tokens


def letters():
    """GPT-2's letter of each byte: itself if it is printable, else the next one from U+0100 onwards."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def spelled(text):
    """Text in GPT-2's letters."""
    return "".join(letters()[byte] for byte in text.encode())


def non_speech(tokens):
    """Tokens that are no speech: brackets, marks of speakers and of music, as OpenAI's `whisper/tokenizer.py` lists them.

    A symbol counts, with or without a space before it, if it is one token; of a sign of music the first token counts, which many signs
    share. The tokens of tasks and of the start of a text follow, as `transformers` has them in its lists.
    """
    known = {token: number for number, token in enumerate(tokens)}
    music = ["♩", "♪", "♫", "♬", "♭", "♮", "♯"]
    symbols = [*'"#()*+/:;<=>@[\\]^_`{|}~「」『』']
    symbols += "<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪".split()
    # A dash or an apostrophe inside a word is speech.
    found = {known[spelled(" -")], known[spelled(" '")]}
    for symbol in [*symbols, *music]:
        for word in (spelled(symbol), spelled(" " + symbol)):
            if word in known:
                found.add(known[word])
            elif symbol in music:
                found.add(next(known[word[:end]] for end in range(len(word), 0, -1) if word[:end] in known))
    control = [f"<|{word}|>" for word in "startoftranscript translate transcribe startoflm startofprev nocaptions nospeech".split()]
    return sorted(found | {known[token] for token in control if token in known})


def vocabulary_of(folder):
    """Reads the vocabulary and, where the package has them, merges and the lists of tokens that must not be chosen."""
    if (path := folder / "vocabulary.txt").is_file():
        tokens = path.read_text(encoding="utf-8").split("\n")
        tokens = tokens[:-1] if tokens[-1] == "" else tokens
    else:
        tokens = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    vocabulary = Vocabulary(tokens)
    if (path := folder / "tokenizer.json").is_file():
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        if any(tokens[number] != token for token, number in model["vocab"].items()):
            sys.exit("tokenizer.json has other tokens than the vocabulary")
        vocabulary.merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    config = json.loads(path.read_text()) if (path := folder / "config.json").is_file() else {}
    vocabulary.suppressed = config.get("suppress_ids") or non_speech(tokens)
    vocabulary.suppressed_first = config.get("suppress_ids_begin") or [tokens.index(spelled(" ")), tokens.index("<|endoftext|>")]
    return vocabulary


def variant_of(shape):
    """OpenAI's name of a model of these sizes; the first two large models have the same."""
    size = SIZES.get((shape.width, shape.encoder_layers, shape.decoder_layers), f"{shape.width}")
    if shape.mels == 128:
        size += "-v3"
    if size == "large-v3" and shape.decoder_layers == 4:
        size += "-turbo"
    return f"whisper-{size}" + ("" if shape.vocab >= MULTILINGUAL else ".en")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=["f32", "f16", "q8_0"], default="f16")
    parser.add_argument("--variant", help="default: by the model's sizes, as whisper-tiny.en")
    parser.add_argument("--licence", default="MIT", help="default: MIT, that of OpenAI's weights")
    args = parser.parse_args()
    folder = args.package if args.package.is_dir() else args.package.parent
    found = variables((folder / "model.bin" if args.package.is_dir() else args.package).read_bytes())
    try:
        shape = shape_of(found)
        tensors = converted(found, shape)
    except KeyError as error:
        sys.exit(f"model.bin has no {error.args[0]}")
    if found:
        sys.exit(f"model.bin holds what Whisper has not: {', '.join(sorted(found))}")
    vocabulary = vocabulary_of(folder)
    if len(vocabulary.tokens) != shape.vocab:
        sys.exit(f"the vocabulary has {len(vocabulary.tokens)} tokens, and the model {shape.vocab}")
    variant = args.variant or variant_of(shape)
    name = variant.replace("-", " ", 1).capitalize()
    write(args.out, name, variant, args.licence, shape, vocabulary, tensors, Type[args.type.upper()])
    print(f"{args.out}: {name}, {shape}, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
