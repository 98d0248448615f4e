#!/usr/bin/env python3
"""Converts a Moonshine model in the form of ONNX Runtime to GGUF.

    python3 moonshine_to_gguf.py FOLDER OUT.gguf [--type f32|f16|q8_0]        needs: pip install gguf==0.19.0 numpy

FOLDER holds `encoder_model.ort`, `decoder_model_merged.ort` and `tokenizer.bin`, as the packages `moonshine-voice` and `moonshine-cpp`
have them. Only the files are read; nothing of ONNX is needed.

The names of tensors and keys are those of transcribe.cpp. Matrices, convolutions and the token embedding have the chosen type; norms
and biases are always F32. Q8_0 has blocks of 32 in a row: a tensor whose rows are no multiple of 32 long is stored in F16 then. That is
so for the three convolutions, whose rows are their taps.

An `.ort` file is a FlatBuffer (onnxruntime/core/flatbuffers/schema/ort.fbs). Its graph holds constants and nodes; the decoder's are in
the branch for an empty cache (`else_branch`). Matrices have numbers for names, so that each is found by the node that multiplies by it,
and is [in, out] there. They are integers, all of one scale and zero point, which the graph turns into floats or multiplies by as they
are. What only depends on constants is computed here. `proj_out` was quantised apart from the embedding, whose transpose it is; it is
left out, and so the output is the embedding.

`tokenizer.bin` has for each token its length, in one byte if that is under 128, else in two, of which the first counts 128 more than
the length modulo 128 and the second 128s; and its bytes.
"""

import argparse
import re
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, TokenType

sys.path.append(str(Path(__file__).resolve().parents[2] / "core/tools"))
import gguf_file  # noqa: E402
from whisper_to_gguf import FILE_TYPES, SAMPLE_RATE, stored  # noqa: E402

KERNELS, STRIDES = [127, 7, 3], [64, 3, 2]
START, END, UNKNOWN = 1, 2, 0
# Positions of the decoder: 6.5 tokens for each of the 30 seconds that the models were trained with at most.
POSITIONS = 194


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


def write(path, name, variant, licence, shape, tokens, tensors, kind):
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


# --- the package


class Table:
    """A table of a FlatBuffer: fields by their number in the schema."""

    def __init__(self, data, at):
        self.data, self.start = data, at
        self.fields = at - self.take("i", at)
        self.end = self.take("H", self.fields)

    def take(self, form, at, count=None):
        try:
            values = struct.unpack_from(f"<{'' if count is None else count}{form}", self.data, at)
        except struct.error:
            sys.exit("the .ort file ends too early")
        return values if count is not None else values[0]

    def at(self, field):
        """Where a field of the table itself is; None if it is absent."""
        entry = 4 + 2 * field
        offset = self.take("H", self.fields + entry) if entry < self.end else 0
        return self.start + offset if offset else None

    def number(self, field, form="i", default=0):
        at = self.at(field)
        return default if at is None else self.take(form, at)

    def target(self, at):
        return at + self.take("I", at)

    def table(self, field):
        at = self.at(field)
        return None if at is None else Table(self.data, self.target(at))

    def vector(self, field, form="B"):
        at = self.at(field)
        if at is None:
            return b"" if form == "B" else ()
        at = self.target(at)
        count = self.take("I", at)
        if form == "B":
            return self.data[at + 4 : at + 4 + count]
        return self.take(form, at + 4, count)

    def text(self, field):
        return bytes(self.vector(field)).decode()

    def references(self, field):
        at = self.at(field)
        if at is None:
            return []
        at = self.target(at)
        return [self.target(at + 4 + 4 * i) for i in range(self.take("I", at))]

    def tables(self, field):
        return [Table(self.data, at) for at in self.references(field)]

    def texts(self, field):
        return [bytes(self.data[at + 4 : at + 4 + self.take("I", at)]).decode() for at in self.references(field)]


KINDS = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?"}


class Graph:
    """The constants of a graph and of the branch for an empty cache, and the weight of every node that has one, by the node's name."""

    def __init__(self, path):
        data = path.read_bytes()
        if data[4:8] != b"ORTM":
            sys.exit(f"{path} is not in the form of ONNX Runtime")
        root = Table(data, struct.unpack_from("<I", data)[0])
        self.constants, self.weights = {}, {}
        self.walk(root.table(1).table(7))

    def walk(self, graph):
        for tensor in graph.tables(0):
            kind = tensor.number(3)
            if kind not in KINDS:
                sys.exit(f"{tensor.text(0)} has the unknown type {kind}")
            self.constants[tensor.text(0)] = np.frombuffer(tensor.vector(4), KINDS[kind]).reshape(tensor.vector(2, "q"))
        nodes = [(node.text(5), node.text(0), node.texts(8), node.texts(9), node) for node in graph.tables(2)]
        # Nodes are in no order here: those that depend on constants only are computed until none is left.
        folded = True
        while folded:
            folded = [node for node in nodes if self.fold(*node[:4])]
        for operation, name, inputs, _, node in nodes:
            self.note(operation, name, inputs)
            for attribute in node.tables(10):
                if attribute.text(0) == "else_branch":
                    self.walk(attribute.table(7))

    def fold(self, operation, name, inputs, outputs):
        """Computes a node whose inputs are constants; True if it was one."""
        values = [self.constants.get(name) for name in inputs]
        if outputs[0] in self.constants or any(value is None for value in values):
            return False
        if operation == "Cast":
            result = values[0].astype(np.float32)
        elif operation in ("Mul", "Add", "Sub"):
            result = dict(Mul=np.multiply, Add=np.add, Sub=np.subtract)[operation](*values)
        elif operation == "DequantizeLinear":
            result = dequantized(*values)
        else:
            return False
        self.constants[outputs[0]] = result
        return True

    def note(self, operation, name, inputs):
        """Keeps the weight of a node."""
        of = self.constants.get
        places = {"MatMulIntegerToFloat": (1, 3, 5), "DynamicQuantizeMatMul": (1, 2, 3), "Gather": (0, None, None)}
        norm = name.startswith("/groupnorm/") and operation in ("Mul", "Add")
        if norm or operation in ("MatMul", "Gemm", "Conv", "FusedConv") and len(inputs) > 1:
            weight = of(inputs[1])
        elif operation in places:
            weight, scale, zero = (None if place is None else of(inputs[place]) for place in places[operation])
            if operation == "Gather" and weight is not None and weight.dtype != np.float32:
                prefix = inputs[0].removesuffix("_quantized")
                scale, zero = of(f"{prefix}_scale"), of(f"{prefix}_zero_point")
            if weight is not None and scale is not None:
                weight = dequantized(weight, scale, zero)
        else:
            return
        if weight is not None and weight.dtype == np.float32:
            self.weights[re.sub(r"_quant$", "", name)] = weight

    def weight(self, pattern, ending=r"(MatMul|Gather|Conv|Gemm)"):
        """The weight of the one node whose name matches."""
        found = {name: values for name, values in self.weights.items() if re.fullmatch(rf"/?(model/decoder/)?{pattern}/{ending}", name)}
        if len(found) != 1:
            sys.exit(f"{len(found)} nodes have the weight of {pattern}: {', '.join(found) or 'none'}")
        return next(iter(found.values()))

    def constant(self, pattern):
        """The one constant whose name matches; the merged graph has the same ones twice."""
        found = {name: values for name, values in self.constants.items() if re.fullmatch(rf"(model\.decoder\.)?{pattern}(_merged_\d+)?", name)}
        if len(found) != 1:
            sys.exit(f"{len(found)} constants are {pattern}: {', '.join(found) or 'none'}")
        return next(iter(found.values())).astype(np.float32)


def dequantized(values, scale, zero=None):
    zero = np.float32(0) if zero is None else zero.astype(np.float32)
    return (values.astype(np.float32) - zero) * scale


def tensors_of(encoder, decoder, layers):
    """Pairs of a name and an array of every weight of the model."""

    def output(part):
        return "(o_proj|dense)" if part == "o" else f"{part}_proj"

    def matrix(graph, pattern):
        return np.ascontiguousarray(graph.weight(pattern).T)

    def ends(graph, layer, ours, names):
        """The weight and the bias of one of the feed-forward layer's two matrices, whichever of its `names` it has."""
        pattern = f"({'|'.join(names)})"
        yield f"{ours}.weight", matrix(graph, f"layers.{layer}/mlp/{pattern}")
        yield f"{ours}.bias", graph.constant(rf"layers\.{layer}\.mlp\.{pattern}\.bias")

    for number in range(3):
        yield f"enc.conv.{number}.weight", encoder.weight(f"conv{number + 1}")
        if number > 0:
            yield f"enc.conv.{number}.bias", encoder.constant(rf"conv{number + 1}\.bias")
    yield "enc.conv.norm.weight", encoder.weight("groupnorm", "Mul").reshape(-1)
    yield "enc.conv.norm.bias", encoder.weight("groupnorm", "Add").reshape(-1)
    for layer in range(layers[0]):
        theirs, ours = f"layers.{layer}", f"enc.blocks.{layer}"
        yield f"{ours}.norm_attn.weight", encoder.constant(rf"{re.escape(theirs)}\.input_layernorm\.weight")
        for part, name in dict(q="q", k="k", v="v", o="out").items():
            yield f"{ours}.attn.{name}.weight", matrix(encoder, f"{theirs}/self_attn/{output(part)}")
        yield f"{ours}.norm_ffn.weight", encoder.constant(rf"{re.escape(theirs)}\.post_attention_layernorm\.weight")
        yield from ends(encoder, layer, f"{ours}.ffn.fc1", ["fc1", "up_proj"])
        yield from ends(encoder, layer, f"{ours}.ffn.fc2", ["fc2", "down_proj"])
    yield "enc.final_norm.weight", encoder.constant(r"layer_norm\.weight")
    yield "dec.token_embd.weight", decoder.weight("embed_tokens")
    for layer in range(layers[1]):
        theirs, ours = f"layers.{layer}", f"dec.blocks.{layer}"
        norms = dict(norm_self="input", norm_cross="post_attention", norm_ffn="final")
        for norm, name in norms.items():
            yield f"{ours}.{norm}.weight", decoder.constant(rf"{re.escape(theirs)}\.{name}_layernorm\.weight")
        for attention, name in dict(self_attn="self_attn", cross_attn="encoder_attn").items():
            for part, short in dict(q="q", k="k", v="v", o="out").items():
                yield f"{ours}.{attention}.{short}.weight", matrix(decoder, f"{theirs}/{name}/{output(part)}")
        yield from ends(decoder, layer, f"{ours}.ffn.fc1", ["fc1", "up_proj"])
        yield from ends(decoder, layer, f"{ours}.ffn.fc2", ["fc2", "down_proj"])
    yield "dec.final_norm.weight", decoder.constant(r"norm\.weight")


def tokens_of(data, vocab):
    """The tokens as GGUF spells them; those of the vocabulary that the file leaves out are special ones, which are never written."""
    tokens, at = [], 0
    while at < len(data):
        length = data[at]
        at += 1
        if length >= 128:
            length += 128 * (data[at] - 1)
            at += 1
        tokens.append(data[at : at + length])
        at += length
    if len(tokens) > vocab:
        sys.exit(f"tokenizer.bin has {len(tokens)} tokens, and the model {vocab}")
    # After the three special ones come all bytes.
    for byte in range(256):
        if tokens[3 + byte] != bytes([byte]):
            sys.exit(f"token {3 + byte} is not byte {byte}")
        tokens[3 + byte] = b"<0x%02X>" % byte
    return tokens + [b"<<ST_%d>>" % number for number in range(len(tokens), vocab)]


def shape_of(encoder, decoder):
    layers = [
        sum(re.fullmatch(rf"/{start}layers\.\d+/self_attn/q_proj/MatMul", name) is not None for name in graph.weights)
        for graph, start in ((encoder, ""), (decoder, "model/decoder/"))
    ]
    vocab, width = decoder.weight("embed_tokens").shape
    ffn = len(encoder.constant(r"layers\.0\.mlp\.fc1\.bias"))
    # Sizes that no weight shows: every published model has them.
    return Shape(*layers, width, heads=8, ffn=ffn, rotated=32, positions=POSITIONS, vocab=vocab)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=["f32", "f16", "q8_0"], default="f16")
    parser.add_argument("--licence", default="MIT", help="default: MIT, that of Useful Sensors' English weights")
    args = parser.parse_args()
    encoder, decoder = (Graph(args.folder / name) for name in ("encoder_model.ort", "decoder_model_merged.ort"))
    shape = shape_of(encoder, decoder)
    variant = "moonshine-" + {288: "tiny", 416: "base"}.get(shape.width, str(shape.width))
    tokens = tokens_of((args.folder / "tokenizer.bin").read_bytes(), shape.vocab)
    tensors = tensors_of(encoder, decoder, (shape.encoder_layers, shape.decoder_layers))
    name = variant.replace("-", " ").capitalize()
    write(args.out, name, variant, args.licence, shape, tokens, tensors, Type[args.type.upper()])
    print(f"{args.out}: {name}, {shape}, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
