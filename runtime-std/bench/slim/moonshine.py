"""Run Moonshine speech models (ONNX Runtime .ort files) in numpy, record what enters their attention, and try values computed from keys.

    moonshine.py transcribe MODEL AUDIO... [--text TXT]      print the text of each piece, and the word error rate against TXT
    moonshine.py record MODEL --calib AUDIO --test AUDIO --out LAYERS.gguf
                                                             write the decoder's attention weights and inputs as a layers file
    moonshine.py measure LAYERS.gguf                         condition of each self-attention's W_K, and the errors of plain slim attention
    moonshine.py plain MODEL --out MAPS.gguf                 write plain slim attention's maps: V = K @ inv(W_K) @ W_V
    moonshine.py compare MODEL AUDIO --maps MAPS.gguf --round f32|f16|q8_0
                                                             decode with true values and with mapped ones, and count differing tokens
    moonshine.py check MODEL AUDIO                           compare the forward pass with ONNX Runtime's (needs `onnxruntime`)

MODEL is a folder with encoder_model.ort, decoder_model_merged.ort and tokenizer.bin. AUDIO is FLAC or WAV at 16 kHz, cut at quiet places
into pieces of 6 to 12 seconds; `--pieces N` takes the first N only (3 for `check`; otherwise, and for 0, all). Decoding is greedy.

Layer i of the layers and maps files is decoder layer i's self-attention for i < L, and decoder layer i - L's cross-attention above.

A maps file has, for each self-attention i that is to compute its values from its keys:
    layers.{i}.map       value columns x (key columns + rank)
    layers.{i}.channels  rank x d_model, optional: further channels of the input that are kept beside the key
    layers.{i}.mean      key columns, optional: taken off a key before it is rounded
    layers.{i}.offset    value columns, optional: added to the mapped value; without it, map @ mean
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
import soundfile
from scipy.special import erf, expit

SAMPLE_RATE = 16000
SHORTEST_PIECE, LONGEST_PIECE = 6 * SAMPLE_RATE, 12 * SAMPLE_RATE

HEADS = 8
ROPE_DIM = 32
ROPE_THETA = 1e4
NORM_EPSILON = np.float32(1e-5)
START_TOKEN, END_TOKEN = 1, 2
MAX_TOKENS = 200

EXACT_POSITIONS = 4
Q8_BLOCK = 32
ROUNDINGS = ["f32", "f16", "q8_0"]


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
        """Where the field's value lies, or None."""
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
        """Where the elements of a vector of tables or strings lie."""
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
    """What ONNX Runtime's DynamicQuantizeLinear leaves of the inputs of a matrix product: 256 levels for the whole tensor."""
    low, high = min(inputs.min(), np.float32(0)), max(inputs.max(), np.float32(0))
    scale = (high - low) / np.float32(255)
    zero_point = np.rint(-low / scale)
    return (np.clip(np.rint(inputs / scale) + zero_point, 0, 255) - zero_point) * scale


# The audio


def read_pieces(path, count=0):
    """The recording as pieces that end where the loudness of 0.2 seconds is lowest; the first `count` of them if count is not 0."""
    samples, rate = soundfile.read(path, dtype="float32")
    if rate != SAMPLE_RATE or samples.ndim != 1:
        raise ValueError(f"{path}: {rate} Hz, shape {samples.shape}; one channel at {SAMPLE_RATE} Hz is expected")
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


def gelu(x):
    return x * np.float32(0.5) * (1 + erf(x * np.float32(np.sqrt(0.5))))


def convolve(inputs, weight, stride):
    """A convolution without padding: inputs are channels x frames, the weight is outputs x channels x width."""
    windows = np.lib.stride_tricks.sliding_window_view(inputs, weight.shape[2], axis=1)[:, ::stride]
    columns = windows.transpose(0, 2, 1).reshape(-1, windows.shape[1])
    return weight.reshape(len(weight), -1) @ columns


def split_heads(rows):
    """Rows of all heads -> heads x rows x head width."""
    return rows.reshape(len(rows), HEADS, -1).transpose(1, 0, 2)


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


def attend(queries, keys, values, first_position=None):
    """Softmax attention over all heads. With `first_position` (of the queries, the keys' being 0), no query sees a later key."""
    scale = np.float32((queries.shape[1] // HEADS) ** -0.5)
    scores = split_heads(queries) @ split_heads(keys).transpose(0, 2, 1) * scale
    if first_position is not None:
        later = np.arange(len(keys)) > first_position + np.arange(len(queries))[:, None]
        scores[:, later] = -1e30
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ split_heads(values)).transpose(1, 0, 2).reshape(queries.shape)


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
        hidden = hidden + linear(f"{prefix}.self_attn.o_proj", attend(rotate(query), rotate(key), value))
        inputs = normalise(hidden, weights[f"{prefix}.post_attention_layernorm.weight"])
        hidden = hidden + linear(f"{prefix}.mlp.fc2", gelu(linear(f"{prefix}.mlp.fc1", inputs)))
    return normalise(hidden, weights["layer_norm.weight"])


class Hooks:
    """What the decoder shows of attention and lets a caller replace in its self-attention. These change nothing.

    Every call is for the tokens that are new. `keys` are not rotated yet. `inputs` are what keys and values are projected from.
    """

    def see(self, name, inputs):
        """What queries are projected from, in the layer "decoder.{layer}.self" or "decoder.{layer}.cross"."""

    def keys(self, layer, keys):
        """The keys that are rotated and met by queries."""
        return keys

    def values(self, layer, keys, values, inputs, first_position):
        """The values that are summed; `values` are the true ones. `first_position` is that of the first row."""
        return values


class Decoder:
    """The decoder over one piece of audio, and the keys and values it has kept."""

    def __init__(self, model, audio, hooks):
        self.model, self.hooks, self.position = model, hooks, 0
        layers = range(model.depth(model.decoder))
        width = model.embeddings.shape[1]
        self.own_keys = [np.empty((0, width), np.float32) for _ in layers]
        self.own_values = [np.empty((0, width), np.float32) for _ in layers]
        self.audio_keys = [self.linear(f"layers.{layer}.encoder_attn.k_proj", audio) for layer in layers]
        self.audio_values = [self.linear(f"layers.{layer}.encoder_attn.v_proj", audio) for layer in layers]

    def linear(self, name, inputs):
        return self.model.linear(self.model.decoder, name, inputs)

    def self_attention(self, layer, inputs):
        query, raw_keys, values = (self.linear(f"layers.{layer}.self_attn.{part}_proj", inputs) for part in "qkv")
        keys = rotate(self.hooks.keys(layer, raw_keys), self.position)
        values = self.hooks.values(layer, raw_keys, values, inputs, self.position)
        self.own_keys[layer] = np.concatenate([self.own_keys[layer], keys])
        self.own_values[layer] = np.concatenate([self.own_values[layer], values])
        summed = attend(rotate(query, self.position), self.own_keys[layer], self.own_values[layer], self.position)
        return self.linear(f"layers.{layer}.self_attn.o_proj", summed)

    def cross_attention(self, layer, inputs):
        query = self.linear(f"layers.{layer}.encoder_attn.q_proj", inputs)
        return self.linear(f"layers.{layer}.encoder_attn.o_proj", attend(query, self.audio_keys[layer], self.audio_values[layer]))

    def feed_forward(self, layer, inputs):
        up, gate = np.split(self.linear(f"layers.{layer}.mlp.fc1", inputs), 2, axis=-1)
        return self.linear(f"layers.{layer}.mlp.fc2", gate * expit(gate) * up)

    def step(self, tokens):
        """The logits after each of the tokens, which follow those of the steps before."""
        weights, hidden = self.model.decoder, self.model.embeddings[tokens]
        for layer in range(len(self.own_keys)):
            inputs = normalise(hidden, weights[f"layers.{layer}.input_layernorm.weight"])
            self.hooks.see(f"decoder.{layer}.self", inputs)
            hidden = hidden + self.self_attention(layer, inputs)
            inputs = normalise(hidden, weights[f"layers.{layer}.post_attention_layernorm.weight"])
            self.hooks.see(f"decoder.{layer}.cross", inputs)
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


# Values from keys


def round_rows(rows, rounding):
    """Rows as a cache of that type gives them back. q8_0 has one f16 scale for each 32 columns of a row."""
    if rounding == "f32":
        return rows
    if rounding == "f16":
        return rows.astype(np.float16).astype(np.float32)
    blocks = rows.reshape(len(rows), -1, Q8_BLOCK)
    scales = round_rows(np.abs(blocks).max(axis=-1, keepdims=True) / 127, "f16")
    levels = np.rint(np.divide(blocks, scales, out=np.zeros_like(blocks), where=scales > 0))
    return (np.clip(levels, -127, 127) * scales).reshape(rows.shape)


def plain_map(key_weight, value_weight):
    """The map (value columns x key columns) of slim attention: W_V @ inv(W_K), weights being outputs x inputs; float64 inside."""
    return np.linalg.solve(key_weight.astype(np.float64).T, value_weight.astype(np.float64).T).T.astype(np.float32)


class Maps(Hooks):
    """Computes values from rounded keys in the layers that a maps file has, and adds up their error."""

    def __init__(self, model, path, rounding):
        tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
        width = model.embeddings.shape[1]
        self.rounding = rounding
        self.layers, self.errors = {}, {}
        for layer in range(model.depth(model.decoder)):
            if f"layers.{layer}.map" not in tensors:
                continue
            weights = tensors[f"layers.{layer}.map"]
            channels = tensors.get(f"layers.{layer}.channels", np.zeros((0, width), np.float32))
            mean = tensors.get(f"layers.{layer}.mean", np.zeros(width, np.float32))
            offset = tensors.get(f"layers.{layer}.offset", weights[:, :width] @ mean)
            self.layers[layer] = weights, channels, mean, offset
            self.errors[layer] = np.zeros(2)

    def keys(self, layer, keys):
        if layer not in self.layers:
            return keys
        mean = self.layers[layer][2]
        return round_rows(keys - mean, self.rounding) + mean

    def values(self, layer, keys, values, inputs, first_position):
        if layer not in self.layers:
            return values
        weights, channels, mean, offset = self.layers[layer]
        channel_rounding = "f32" if self.rounding == "f32" else "f16"
        kept = [round_rows(keys - mean, self.rounding), round_rows(inputs @ channels.T, channel_rounding)]
        mapped = np.concatenate(kept, axis=1) @ weights.T + offset
        exact = max(0, EXACT_POSITIONS - first_position)
        mapped[:exact] = values[:exact]
        self.errors[layer] += [np.square(mapped - values)[exact:].sum(), np.square(values[exact:]).sum()]
        return mapped


# The commands


class Recorder(Hooks):
    """Keeps what enters each attention layer, a list of rows by the layer's name."""

    def __init__(self):
        self.rows = {}

    def see(self, name, inputs):
        self.rows.setdefault(name, []).append(inputs)


def edit_distance(said, reference):
    """The edit distance between two lists."""
    row = list(range(len(reference) + 1))
    for said_index, word in enumerate(said, 1):
        diagonal, row[0] = row[0], said_index
        for index, other in enumerate(reference, 1):
            diagonal, row[index] = row[index], min(row[index] + 1, row[index - 1] + 1, diagonal + (word != other))
    return row[-1]


def words(text):
    kept = text.lower().replace("’", "'").replace("-", " ")
    return "".join(letter for letter in kept if letter.isalnum() or letter.isspace()).split()


def relative_error(found, true):
    return np.linalg.norm(found - true) / np.linalg.norm(true)


def transcribe(arguments):
    model, texts = Model(arguments.model), []
    for path in arguments.audio:
        for samples in read_pieces(path, arguments.pieces):
            texts.append(model.text(decode(model, encode(model, samples), Hooks())))
            print(texts[-1], flush=True)
    if arguments.text:
        said, reference = words(" ".join(texts)), words(arguments.text.read_text(encoding="utf-8"))
        errors = edit_distance(said, reference)
        print(f"word error rate {100 * errors / len(reference):.2f} % ({errors} of {len(reference)})")


def record(arguments):
    model = Model(arguments.model)
    depth = model.depth(model.decoder)
    kinds = [("self", "self_attn", ROPE_DIM, ROPE_THETA), ("cross", "encoder_attn", 0, 0.0)]
    writer = gguf.GGUFWriter(arguments.out, "layers")
    writer.add_uint32("layers.count", 2 * depth)
    for first_index, (kind, module, rope_dim, rope_theta) in zip((0, depth), kinds):
        for layer in range(depth):
            prefix = f"layers.{first_index + layer}"
            writer.add_string(f"{prefix}.name", f"decoder.{layer}.{kind}")
            writer.add_string(f"{prefix}.kind", kind)
            writer.add_uint32(f"{prefix}.heads", HEADS)
            writer.add_uint32(f"{prefix}.rope_dim", rope_dim)
            writer.add_float32(f"{prefix}.rope_theta", rope_theta)
            for part in ("query", "key", "value", "output"):
                weight = model.decoder[f"layers.{layer}.{module}.{part[0]}_proj"]
                writer.add_tensor(f"{prefix}.{part}.weight", np.ascontiguousarray(weight.T))
    for name, path in (("calib", arguments.calib), ("test", arguments.test)):
        for piece, samples in enumerate(read_pieces(path, arguments.pieces)):
            recorder, audio = Recorder(), encode(model, samples)
            print(f"{name} {piece}:", model.text(decode(model, audio, recorder)), flush=True)
            rows = {layer: np.concatenate(parts) for layer, parts in recorder.rows.items()}
            for layer in range(depth):
                writer.add_tensor(f"layers.{layer}.input.{name}.{piece}", rows[f"decoder.{layer}.self"])
                writer.add_tensor(f"layers.{depth + layer}.input.{name}.{piece}", audio)
                writer.add_tensor(f"layers.{depth + layer}.query_input.{name}.{piece}", rows[f"decoder.{layer}.cross"])
    write_file(writer)


def write_file(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def measure(arguments):
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
            summed = [attend(rotate(piece @ query.T), rotate(keys), rows, first_position=0) for piece, keys, rows in parts]
            return np.concatenate(values), np.concatenate(summed)

        true = outputs("f32", mapped=False)
        found = [outputs(rounding, mapped=True) for rounding in ROUNDINGS]
        value_errors, attention_errors = ([100 * relative_error(pair[part], true[part]) for pair in found] for part in (0, 1))
        name, condition = reader.fields[f"layers.{index}.name"].contents(), np.linalg.cond(key.astype(np.float64))
        numbers = " | ".join(" ".join(f"{error:12.4g}" for error in errors) for errors in (value_errors, attention_errors))
        print(f"{name:15} {condition:9.3g} {len(true[0]):7} | {numbers}")


def plain(arguments):
    model = Model(arguments.model)
    writer = gguf.GGUFWriter(arguments.out, "maps")
    for layer in range(model.depth(model.decoder)):
        key, value = (model.decoder[f"layers.{layer}.self_attn.{part}_proj"].T for part in "kv")
        writer.add_tensor(f"layers.{layer}.map", np.ascontiguousarray(plain_map(key, value)))
    write_file(writer)


def compare(arguments):
    model = Model(arguments.model)
    maps = Maps(model, arguments.maps, arguments.round)
    differing = total = 0
    for piece, samples in enumerate(read_pieces(arguments.audio, arguments.pieces)):
        audio = encode(model, samples)
        true_tokens, mapped_tokens = decode(model, audio, Hooks()), decode(model, audio, maps)
        errors = edit_distance(mapped_tokens, true_tokens)
        differing, total = differing + errors, total + len(true_tokens)
        print(f"piece {piece}: {errors} of {len(true_tokens)} tokens differ", flush=True)
        if errors:
            print("  true:  ", model.text(true_tokens), "\n  mapped:", model.text(mapped_tokens), flush=True)
    for layer, (error, norm) in maps.errors.items():
        print(f"decoder.{layer}.self: values off by {100 * np.sqrt(error / norm):.4g} %")
    print(f"texts {'differ' if differing else 'equal'}: {differing} of {total} tokens differ (edit distance)")


def check(arguments):
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
    for piece, samples in enumerate(read_pieces(arguments.audio, arguments.pieces)):
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def command(run, pieces=None):
        subparser = commands.add_parser(run.__name__)
        subparser.set_defaults(run=run)
        if pieces is not None:
            subparser.add_argument("model", type=Path)
            subparser.add_argument("--pieces", type=int, default=pieces)
        return subparser

    transcriber = command(transcribe, pieces=0)
    transcriber.add_argument("audio", type=Path, nargs="+")
    transcriber.add_argument("--text", type=Path)
    recorder = command(record, pieces=0)
    recorder.add_argument("--calib", type=Path, required=True)
    recorder.add_argument("--test", type=Path, required=True)
    recorder.add_argument("--out", type=Path, required=True)
    command(measure).add_argument("layers", type=Path)
    inverter = command(plain)
    inverter.add_argument("model", type=Path)
    inverter.add_argument("--out", type=Path, required=True)
    comparer = command(compare, pieces=0)
    comparer.add_argument("audio", type=Path)
    comparer.add_argument("--maps", type=Path, required=True)
    comparer.add_argument("--round", choices=ROUNDINGS, required=True)
    command(check, pieces=3).add_argument("audio", type=Path)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
