"""Run Moonshine speech models (ONNX Runtime .ort files) in numpy, record what enters their attention, and try smaller caches.

    moonshine.py transcribe MODEL AUDIO... [--text TXT]      print the text of each piece, and the word error rate against TXT
    moonshine.py record MODEL --calib AUDIO --test AUDIO --out LAYERS.gguf
                                                             write the decoder's attention weights and inputs as a layers file
    moonshine.py measure LAYERS.gguf                         condition of each self-attention's W_K, and the errors of plain slim attention
    moonshine.py plain MODEL --out MAPS.gguf                 write plain slim attention's maps: V = K @ inv(W_K) @ W_V
    moonshine.py compare MODEL AUDIO --maps MAPS.gguf --round f32|f16|q8_0
                                                             decode with true values and with mapped ones, and count differing tokens
    moonshine.py cross MODEL AUDIO [--calib AUDIO]           one encoder output for all layers beside keys and values: errors, text, costs
    moonshine.py check MODEL AUDIO                           compare the forward pass with ONNX Runtime's (needs `onnxruntime`)

MODEL is a folder with encoder_model.ort, decoder_model_merged.ort and tokenizer.bin. AUDIO is FLAC or WAV at 16 kHz, cut at quiet places
into pieces of 6 to 12 seconds; `--pieces N` takes the first N only (3 for `check`; otherwise, and for 0, all). Decoding is greedy.

Layer i of the layers and maps files is decoder layer i's self-attention for i < L, and decoder layer i - L's cross-attention above.
A maps file is described with common.Maps.
"""

from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
from scipy.special import expit

import common
from common import ROUNDINGS, SAMPLE_RATE, Attention, Hooks, Linear, attend, gelu, plain_map, round_rows

SHORTEST_PIECE, LONGEST_PIECE = 6 * SAMPLE_RATE, 12 * SAMPLE_RATE

HEADS = 8
ROPE_DIM = 32
ROPE_THETA = 1e4
NORM_EPSILON = np.float32(1e-5)
START_TOKEN, END_TOKEN = 1, 2
MAX_TOKENS = 200


# The model file: a flatbuffer. Of ONNX Runtime's schema, ort.fbs, these fields are read here:
#     InferenceSession  1 model
#     Model             7 graph
#     Graph             0 initializers (Tensor), 2 nodes
#     Tensor            0 name, 2 dims, 3 data_type, 4 raw_data
#     Node              0 name, 5 op_type, 8 inputs (strings), 10 attributes
#     Attribute         0 name, 7 graph


class Table:
    """A flatbuffer table. A field's number is its place in the schema; a field may be absent."""

    def __init__(self, data, position):
        self.data, self.position = data, position

    def integer(self, position, element_type):
        return int(np.frombuffer(self.data, element_type, 1, position)[0])

    def follow(self, position):
        return position + self.integer(position, "<u4")

    def field(self, number):
        """Position of the field's value, or None."""
        field_offsets = self.position - self.integer(self.position, "<i4")
        entry = 4 + 2 * number
        if entry >= self.integer(field_offsets, "<u2"):
            return None
        offset = self.integer(field_offsets + entry, "<u2")
        return self.position + offset if offset else None

    def scalar(self, number, element_type):
        position = self.field(number)
        return 0 if position is None else self.integer(position, element_type)

    def table(self, number):
        position = self.field(number)
        return None if position is None else Table(self.data, self.follow(position))

    def array(self, number, element_type, bytes_counted=False):
        """A vector of numbers; `bytes_counted` if its stored length is in bytes."""
        position = self.field(number)
        if position is None:
            return np.zeros(0, element_type)
        start = self.follow(position)
        count = self.integer(start, "<u4") // (np.dtype(element_type).itemsize if bytes_counted else 1)
        return np.frombuffer(self.data, element_type, count, start + 4)

    def text(self, number):
        return self.array(number, "u1").tobytes().decode()

    def elements(self, number):
        """Positions of the elements of a vector of tables or strings."""
        position = self.field(number)
        if position is None:
            return []
        start = self.follow(position)
        return [self.follow(start + 4 + 4 * index) for index in range(self.integer(start, "<u4"))]

    def tables(self, number):
        return [Table(self.data, element) for element in self.elements(number)]

    def texts(self, number):
        return [self.data[element + 4 : element + 4 + self.integer(element, "<u4")].decode() for element in self.elements(number)]


class Node(NamedTuple):
    name: str
    operator: str
    inputs: list


def read_graph(graph, branch):
    """The tensors (by name) and nodes of a graph; of an If node, those of its `branch` too."""
    element_types = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?"}
    tensors, nodes = {}, []
    for tensor in graph.tables(0):
        element_type = element_types[tensor.scalar(3, "<i4")]
        tensors[tensor.text(0)] = tensor.array(4, element_type, bytes_counted=True).reshape(tensor.array(2, "<i8"))
    for node in graph.tables(2):
        nodes.append(Node(node.text(0), node.text(5), node.texts(8)))
        for attribute in node.tables(10):
            if attribute.text(0) == branch:
                more_tensors, more_nodes = read_graph(attribute.table(7), branch)
                tensors |= more_tensors
                nodes += more_nodes
    return tensors, nodes


def dequantise(tensors, name):
    """The weight `name`, float32. An integer zero point is in quantised units, a float one in the weight's own."""
    levels, scale, zero_point = (tensors[f"{name}_{part}"] for part in ("quantized", "scale", "zero_point"))
    if zero_point.dtype.kind == "f":
        return levels.astype(np.float32) * scale + zero_point
    return (levels.astype(np.float32) - zero_point.astype(np.float32)) * scale


def plain_name(name):
    """A tensor's or node's name as both models spell it: "/model/decoder/layers.0/mlp/up_proj/MatMul" is "layers.0.mlp.fc1"."""
    name = name.strip("/").replace("/", ".").removeprefix("model.decoder.")
    for suffix in ("_merged_0", "_add_tensor", "_quant", ".MatMul"):
        name = name.removesuffix(suffix)
    return name.replace("dense", "o_proj").replace("up_proj", "fc1").replace("down_proj", "fc2")


def read_weights(path, branch="else_branch"):
    """The float32 weights of an .ort file, by plain name. Matrices are stored inputs x outputs; most are known by their node only."""
    data = path.read_bytes()
    if data[4:8] != b"ORTM":
        raise ValueError(f"{path}: not an .ort file")
    session = Table(data, int.from_bytes(data[:4], "little"))
    tensors, nodes = read_graph(session.table(1).table(7), branch)
    found = {name: tensor for name, tensor in tensors.items() if tensor.dtype == np.float32}
    for name in tensors:
        if name.endswith("_quantized"):
            stem = name.removesuffix("_quantized")
            found[stem] = dequantise(tensors, stem)
    weights = {plain_name(name): tensor for name, tensor in found.items()}
    for node in nodes:
        if "MatMul" in node.operator or node.name in ("/groupnorm/Mul", "/groupnorm/Add"):
            name = node.inputs[1].removesuffix("_quantized").removesuffix("_add_tensor")
            if name in found:
                weights[plain_name(node.name)] = found[name]
    return weights


def read_vocabulary(path):
    """The tokens' bytes: each is preceded by its length, which takes two bytes (low 7 bits, then the rest) from 128 on."""
    data, position, vocabulary = path.read_bytes(), 0, []
    while position < len(data):
        length = data[position]
        position += 1
        if length >= 128:
            length += 128 * (data[position] - 1)
            position += 1
        vocabulary.append(data[position : position + length])
        position += length
    return vocabulary


class Model:
    def __init__(self, folder):
        self.encoder = read_weights(folder / "encoder_model.ort")
        self.decoder = read_weights(folder / "decoder_model_merged.ort")
        self.vocabulary = read_vocabulary(folder / "tokenizer.bin")
        self.embeddings = self.decoder["embed_tokens.weight"]
        self.decoder.setdefault("proj_out", self.embeddings.T)
        self.quantise_activations = False
        layers = range(self.depth(self.decoder))
        self.decoder_self = [self.attention(f"decoder.{layer}.self", f"layers.{layer}.self_attn", ROPE_DIM, ROPE_THETA) for layer in layers]
        self.decoder_cross = [self.attention(f"decoder.{layer}.cross", f"layers.{layer}.encoder_attn") for layer in layers]

    def attention(self, name, prefix, *rotation):
        """A layer of the decoder for those who look at it; the forward pass takes its weights by name, as linear() does."""
        weights = [self.decoder[f"{prefix}.{part}_proj"].T for part in "qkvo"]
        return Attention(name, HEADS, *(Linear(weight, np.zeros(len(weight), np.float32)) for weight in weights), *rotation)

    def depth(self, weights):
        return sum(name.endswith("self_attn.q_proj") for name in weights)

    def linear(self, weights, name, inputs):
        if self.quantise_activations:
            inputs = quantise_dynamically(inputs)
        return inputs @ weights[name] + weights.get(f"{name}.bias", np.float32(0))

    def text(self, tokens):
        joined = b"".join(self.vocabulary[token] for token in tokens if token > END_TOKEN)
        return joined.decode("utf-8", errors="replace").replace("▁", " ").strip()


def quantise_dynamically(inputs):
    """Rounds the inputs of a matrix product as ONNX Runtime's DynamicQuantizeLinear does: 256 levels for the whole tensor."""
    low, high = min(inputs.min(), np.float32(0)), max(inputs.max(), np.float32(0))
    scale = (high - low) / np.float32(255)
    zero_point = np.rint(-low / scale)
    return (np.clip(np.rint(inputs / scale) + zero_point, 0, 255) - zero_point) * scale


# The audio


def read_pieces(path, count=0):
    """The recording as pieces that end where the loudness of 0.2 seconds is lowest; the first `count` of them if count is not 0."""
    samples = common.read_samples(path)
    smoothed = SAMPLE_RATE // 5
    loudness = np.convolve(np.square(samples, dtype=np.float64), np.ones(smoothed), mode="same")
    pieces, start = [], 0
    while len(samples) - start > LONGEST_PIECE:
        first, last = start + SHORTEST_PIECE, min(start + LONGEST_PIECE, len(samples) - SHORTEST_PIECE)
        end = first + int(np.argmin(loudness[first : last + 1]))
        pieces.append(samples[start:end])
        start = end
    return (pieces + [samples[start:]])[: count or None]


# The forward pass


def normalise(inputs, weight):
    centred = inputs - inputs.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + NORM_EPSILON) * weight


def convolve(inputs, weight, stride):
    """A convolution without padding: inputs are channels x frames, the weight is outputs x channels x width."""
    windows = np.lib.stride_tricks.sliding_window_view(inputs, weight.shape[2], axis=1)[:, ::stride]
    columns = windows.transpose(0, 2, 1).reshape(-1, windows.shape[1])
    return weight.reshape(len(weight), -1) @ columns


def rotate(rows, first_position=0):
    """Rotary embedding of pairs (0, 1), (2, 3), ... of each head's first ROPE_DIM columns; rows are of all heads."""
    frequencies = ROPE_THETA ** (-np.arange(0, ROPE_DIM, 2) / ROPE_DIM)
    angles = np.arange(first_position, first_position + len(rows))[:, None] * frequencies
    cosines, sines = np.cos(angles).astype(np.float32)[:, None], np.sin(angles).astype(np.float32)[:, None]
    heads = rows.reshape(len(rows), HEADS, -1)
    even, odd = heads[..., 0:ROPE_DIM:2], heads[..., 1:ROPE_DIM:2]
    rotated = heads.copy()
    rotated[..., 0:ROPE_DIM:2] = even * cosines - odd * sines
    rotated[..., 1:ROPE_DIM:2] = odd * cosines + even * sines
    return rotated.reshape(rows.shape)


def encode(model, samples):
    """The encoder's output for a piece of audio: frames (about 42 a second) x d_model."""
    weights = model.encoder

    def linear(name, inputs):
        return model.linear(weights, name, inputs)

    hidden = np.tanh(convolve(samples[None], weights["conv1.weight"], stride=64))
    hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + NORM_EPSILON)
    hidden = hidden * weights["groupnorm.Mul"] + weights["groupnorm.Add"]
    hidden = gelu(convolve(hidden, weights["conv2.weight"], stride=3) + weights["conv2.bias"][:, None])
    hidden = gelu(convolve(hidden, weights["conv3.weight"], stride=2) + weights["conv3.bias"][:, None]).T
    for layer in range(model.depth(weights)):
        prefix = f"layers.{layer}"
        inputs = normalise(hidden, weights[f"{prefix}.input_layernorm.weight"])
        query, key, value = (linear(f"{prefix}.self_attn.{part}_proj", inputs) for part in "qkv")
        hidden = hidden + linear(f"{prefix}.self_attn.o_proj", attend(HEADS, rotate(query), rotate(key), value))
        inputs = normalise(hidden, weights[f"{prefix}.post_attention_layernorm.weight"])
        hidden = hidden + linear(f"{prefix}.mlp.fc2", gelu(linear(f"{prefix}.mlp.fc1", inputs)))
    return normalise(hidden, weights["layer_norm.weight"])


class Decoder:
    """The decoder over one piece of audio, and the keys and values it has kept."""

    def __init__(self, model, audio, hooks):
        self.model, self.audio, self.hooks, self.position = model, audio, hooks, 0
        width = model.embeddings.shape[1]
        self.own_keys = [np.empty((0, width), np.float32) for _ in model.decoder_self]
        self.own_values = [np.empty((0, width), np.float32) for _ in model.decoder_self]
        self.audio_keys, self.audio_values = [], []
        for layer, attention in enumerate(model.decoder_cross):
            raw_keys, values = (self.linear(f"layers.{layer}.encoder_attn.{part}_proj", audio) for part in "kv")
            self.audio_keys.append(hooks.keys(attention, raw_keys))
            self.audio_values.append(hooks.values(attention, raw_keys, values, audio, 0))

    def linear(self, name, inputs):
        return self.model.linear(self.model.decoder, name, inputs)

    def self_attention(self, layer, inputs):
        attention = self.model.decoder_self[layer]
        self.hooks.see(attention, inputs, inputs)
        query, raw_keys, values = (self.linear(f"layers.{layer}.self_attn.{part}_proj", inputs) for part in "qkv")
        keys = rotate(self.hooks.keys(attention, raw_keys), self.position)
        values = self.hooks.values(attention, raw_keys, values, inputs, self.position)
        self.own_keys[layer] = np.concatenate([self.own_keys[layer], keys])
        self.own_values[layer] = np.concatenate([self.own_values[layer], values])
        summed = attend(HEADS, rotate(query, self.position), self.own_keys[layer], self.own_values[layer], self.position)
        return self.linear(f"layers.{layer}.self_attn.o_proj", summed)

    def cross_attention(self, layer, inputs):
        attention = self.model.decoder_cross[layer]
        self.hooks.see(attention, self.audio if self.position == 0 else self.audio[:0], inputs)
        query = self.linear(f"layers.{layer}.encoder_attn.q_proj", inputs)
        summed = attend(HEADS, query, self.audio_keys[layer], self.audio_values[layer])
        return self.linear(f"layers.{layer}.encoder_attn.o_proj", self.hooks.cross(attention, query, summed))

    def feed_forward(self, layer, inputs):
        up, gate = np.split(self.linear(f"layers.{layer}.mlp.fc1", inputs), 2, axis=-1)
        return self.linear(f"layers.{layer}.mlp.fc2", gate * expit(gate) * up)

    def step(self, tokens):
        """The logits after each of the tokens, which follow those of the steps before."""
        weights, hidden = self.model.decoder, self.model.embeddings[tokens]
        for layer in range(len(self.own_keys)):
            inputs = normalise(hidden, weights[f"layers.{layer}.input_layernorm.weight"])
            hidden = hidden + self.self_attention(layer, inputs)
            inputs = normalise(hidden, weights[f"layers.{layer}.post_attention_layernorm.weight"])
            hidden = hidden + self.cross_attention(layer, inputs)
            hidden = hidden + self.feed_forward(layer, normalise(hidden, weights[f"layers.{layer}.final_layernorm.weight"]))
        self.position += len(tokens)
        return self.linear("proj_out", normalise(hidden, weights["norm.weight"]))


def decode(model, audio, hooks):
    """The tokens that the model finds most likely, one by one, for `audio`, the encoder's output for a piece."""
    decoder, tokens = Decoder(model, audio, hooks), [START_TOKEN]
    while len(tokens) <= MAX_TOKENS:
        token = int(np.argmax(decoder.step(tokens[-1:])[-1]))
        if token == END_TOKEN:
            break
        tokens.append(token)
    return tokens[1:]


# The commands


def relative_error(found, true):
    return np.linalg.norm(found - true) / np.linalg.norm(true)


def measure(_, arguments):
    """Errors over the test pieces, no position exact: of V, and of the heads' outputs where the scores' keys are rounded too."""
    reader = gguf.GGUFReader(arguments.layers)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    print("layer           cond(W_K)  tokens |   error of V in %, keys in f32, f16, q8_0 | of the attention output")
    for index in range(int(reader.fields["layers.count"].contents())):
        if reader.fields[f"layers.{index}.kind"].contents() != "self":
            continue
        query, key, value = (tensors[f"layers.{index}.{part}.weight"] for part in ("query", "key", "value"))
        mapping = plain_map(key, value)
        pieces = [data for name, data in tensors.items() if name.startswith(f"layers.{index}.input.test.")]

        def outputs(rounding, mapped):
            """The values of all pieces, and what attention makes of them."""
            kept = [round_rows(piece @ key.T, rounding) for piece in pieces]
            values = [keys @ mapping.T if mapped else piece @ value.T for keys, piece in zip(kept, pieces)]
            parts = zip(pieces, kept, values)
            summed = [attend(HEADS, rotate(piece @ query.T), rotate(keys), rows, first_position=0) for piece, keys, rows in parts]
            return np.concatenate(values), np.concatenate(summed)

        true = outputs("f32", mapped=False)
        found = [outputs(rounding, mapped=True) for rounding in ROUNDINGS]
        value_errors, attention_errors = ([100 * relative_error(pair[part], true[part]) for pair in found] for part in (0, 1))
        name, condition = reader.fields[f"layers.{index}.name"].contents(), np.linalg.cond(key.astype(np.float64))
        numbers = " | ".join(" ".join(f"{error:12.4g}" for error in errors) for errors in (value_errors, attention_errors))
        print(f"{name:15} {condition:9.3g} {len(true[0]):7} | {numbers}")


def check(family, arguments):
    """Both decoders get the same tokens and ONNX Runtime's encoder output, so that the logits' error is the decoder's own.

    The tiny model's file quantises activations too, which nothing else here does; it is the one that takes attention masks.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    encoder, decoder = (
        onnxruntime.InferenceSession(arguments.model / name, options, providers=["CPUExecutionProvider"])
        for name in ("encoder_model.ort", "decoder_model_merged.ort")
    )
    takes_mask = any(value.name == "attention_mask" for value in encoder.get_inputs())
    model = Model(arguments.model)
    head_width = model.embeddings.shape[1] // HEADS
    for piece, samples in enumerate(family.read(arguments.audio, arguments.count)):
        feeds = {"input_values": samples[None]}
        if takes_mask:
            feeds["attention_mask"] = np.ones((1, len(samples)), np.int64)
        (audio,) = encoder.run(None, feeds)
        tokens = [START_TOKEN, *decode(model, audio[0], Hooks())]
        feeds = {"input_ids": np.array([tokens]), "encoder_hidden_states": audio, "use_cache_branch": np.array([False])}
        if takes_mask:
            feeds["encoder_attention_mask"] = np.ones((1, len(samples)), np.int64)
        for value in decoder.get_inputs():
            if value.name.startswith("past_key_values"):
                feeds[value.name] = np.zeros((1, HEADS, 0, head_width), np.float32)
        logits = decoder.run(["logits"], feeds)[0][0]
        for quantised in (False, True) if takes_mask else (False,):
            model.quantise_activations = quantised
            found = Decoder(model, audio[0], Hooks()).step(tokens)
            same = int((found.argmax(axis=-1) == logits.argmax(axis=-1)).sum())
            activations, encoder_error = "int8" if quantised else "f32", relative_error(encode(model, samples), audio[0])
            print(
                f"piece {piece}, {activations} activations here: relative error of encoder {encoder_error:.2e}, of logits"
                f" {relative_error(found, logits):.2e} (largest {np.abs(found - logits).max():.2e} of {np.abs(logits).max():.1f});"
                f" same choice after {same} of {len(tokens)} tokens",
                flush=True,
            )
        model.quantise_activations = False


FAMILY = common.Family("piece", read_pieces, Model, encode, decode)


def main():
    command_line = common.CommandLine(FAMILY, __doc__, compared=0)
    command_line.add(measure).add_argument("layers", type=Path)
    command_line.on_model(check, 3).add_argument("audio", type=Path)
    command_line.run()


if __name__ == "__main__":
    main()
