"""Code that moonshine.py and whisper.py share: the recording, attention, rows as read from a cache, and the commands of both."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple

import gguf
import numpy as np
import soundfile
from scipy.special import erf

sys.path.append(str(Path(__file__).resolve().parents[3] / "core/tools"))
import gguf_file  # noqa: E402

SAMPLE_RATE = 16000
EXACT_POSITIONS = 4
Q8_BLOCK = 32
ROUNDINGS = ["f32", "f16", "q8_0"]


class Linear(NamedTuple):
    weight: np.ndarray  # outputs x inputs
    bias: np.ndarray

    def __call__(self, inputs):
        return inputs @ self.weight.T + self.bias


class Attention(NamedTuple):
    name: str  # "decoder.{layer}.self" or "decoder.{layer}.cross"
    heads: int
    query: Linear
    key: Linear
    value: Linear
    output: Linear
    rope_dim: int = 0
    rope_theta: float = 0.0


class Family(NamedTuple):
    """A kind of speech model. A Model has `decoder_self` and `decoder_cross`, the decoder's attention layers, and text(tokens)."""

    cut: str  # what it calls a part of a recording that is encoded at once
    read: Callable  # path, count (0 for all) -> the recording's cuts
    Model: Callable  # folder
    encode: Callable  # model, samples of a cut -> the encoder's output, frames x d_model
    decode: Callable  # model, encoder's output, hooks -> tokens


def read_samples(path):
    samples, rate = soundfile.read(path, dtype="float32")
    if rate != SAMPLE_RATE or samples.ndim != 1:
        raise ValueError(f"{path}: {rate} Hz, shape {samples.shape}; one channel at {SAMPLE_RATE} Hz is expected")
    return samples


# Attention


def gelu(x):
    return x * np.float32(0.5) * (1 + erf(x * np.float32(np.sqrt(0.5))))


def split_heads(heads, rows):
    """Rows of all heads -> heads x rows x head width."""
    return rows.reshape(len(rows), heads, -1).transpose(1, 0, 2)


def join_heads(rows):
    """The inverse of split_heads()."""
    return rows.transpose(1, 0, 2).reshape(rows.shape[1], -1)


def softmax(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def attend(heads, queries, keys, values, first_position=None):
    """Softmax attention over all heads. With `first_position` (of the queries, the keys' being 0), no query sees a later key."""
    scale = np.float32((queries.shape[1] // heads) ** -0.5)
    scores = split_heads(heads, queries) @ split_heads(heads, keys).transpose(0, 2, 1) * scale
    if first_position is not None:
        later = np.arange(len(keys)) > first_position + np.arange(len(queries))[:, None]
        scores[:, later] = -1e30
    return join_heads(softmax(scores) @ split_heads(heads, values))


class Hooks:
    """Hooks by which a caller sees and replaces parts of a decoder's attention. These change nothing.

    Every call is for the rows that are new: all frames of a cross-attention at once, the next tokens of a self-attention. `layer` is
    its Attention. `keys` are without their bias and not rotated. `inputs` are what keys and values are projected from.
    """

    def see(self, layer, inputs, query_inputs):
        """Called for every step; `inputs` has no rows where a cross-attention's keys are already known."""

    def keys(self, layer, keys):
        """The keys, still without bias and rotation, that queries meet."""
        return keys

    def values(self, layer, keys, values, inputs, first_position):
        """The values that are summed; `values` are the true ones. `first_position` is that of the first row."""
        return values

    def cross(self, layer, queries, summed):
        """The sums of a cross-attention's heads, before its output projection; `summed` are the true ones."""
        return summed


# Rounding


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


# Values from keys


def plain_map(key_weight, value_weight):
    """The map (value columns x key columns) of slim attention: W_V @ inv(W_K), weights being outputs x inputs; float64 inside."""
    return np.linalg.solve(key_weight.astype(np.float64).T, value_weight.astype(np.float64).T).T.astype(np.float32)


class Maps(Hooks):
    """Computes values from rounded keys in the layers that a maps file has, and adds up their error.

    A maps file has, for each layer i that is to compute its values from its keys:
        layers.{i}.map       value columns x (key columns + rank)
        layers.{i}.channels  rank x d_model, optional: further channels of the input that are kept beside the key
        layers.{i}.mean      key columns, optional: taken off a key before it is rounded
        layers.{i}.offset    value columns, optional: added to the mapped value; without it, the value bias plus map @ mean
    """

    def __init__(self, model, path, rounding):
        tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
        self.rounding = rounding
        self.layers, self.errors = {}, {}
        for index, layer in enumerate(model.decoder_self + model.decoder_cross):
            if f"layers.{index}.map" not in tensors:
                continue
            weights = tensors[f"layers.{index}.map"]
            key_columns, inputs = layer.key.weight.shape
            channels = tensors.get(f"layers.{index}.channels", np.zeros((0, inputs), np.float32))
            mean = tensors.get(f"layers.{index}.mean", np.zeros(key_columns, np.float32))
            offset = tensors.get(f"layers.{index}.offset", layer.value.bias + weights[:, :key_columns] @ mean)
            self.layers[layer.name] = weights, channels, mean, offset
            self.errors[layer.name] = np.zeros(2)

    def keys(self, layer, keys):
        if layer.name not in self.layers:
            return keys
        mean = self.layers[layer.name][2]
        return round_rows(keys - mean, self.rounding) + mean

    def values(self, layer, keys, values, inputs, first_position):
        if layer.name not in self.layers:
            return values
        weights, channels, mean, offset = self.layers[layer.name]
        channel_rounding = "f32" if self.rounding == "f32" else "f16"
        kept = [round_rows(keys - mean, self.rounding), round_rows(inputs @ channels.T, channel_rounding)]
        mapped = np.concatenate(kept, axis=1) @ weights.T + offset
        exact = max(0, EXACT_POSITIONS - first_position)
        mapped[:exact] = values[:exact]
        self.errors[layer.name] += [np.square(mapped - values)[exact:].sum(), np.square(values[exact:]).sum()]
        return mapped


# Cross-attention


class CrossCache(Hooks):
    """Lets every cross-attention work on what a cache gives back of the encoder's output."""

    def cross(self, layer, queries, summed):
        return self.attend(layer, queries) + layer.value.bias


class KeysAndValues(CrossCache):
    """Each layer's keys and values of it; biases are left out, as softmax drops that of keys and that of values can be added last."""

    def __init__(self, layers, audio, rounding):
        self.kept = {layer.name: [round_rows(audio @ part.weight.T, rounding) for part in (layer.key, layer.value)] for layer in layers}

    def attend(self, layer, queries):
        return attend(layer.heads, queries, *self.kept[layer.name])


class Encoded(CrossCache):
    """The encoder's output itself, less `mean`, once for all layers: layout `e`."""

    def __init__(self, audio, rounding, mean):
        self.rows, self.mean = round_rows(audio - mean, rounding), mean

    def attend(self, layer, queries):
        columns = self.rows.shape[1]
        key, value = (part.weight.reshape(layer.heads, -1, columns) for part in (layer.key, layer.value))
        inner = (split_heads(layer.heads, queries) @ key).reshape(-1, columns)
        # The mean adds the same number to the score of every frame, which softmax drops.
        weights = softmax(inner @ self.rows.T * np.float32(key.shape[1] ** -0.5))
        mixed = (weights @ self.rows + self.mean).reshape(layer.heads, -1, columns)
        return join_heads(mixed @ value.transpose(0, 2, 1))


class CrossErrors(Hooks):
    """Adds up what each cache's output of each layer is off by, while the decoder goes on with the true one.

    The output is what the output projection makes of the heads, without biases: the value's would only make the error look smaller.
    """

    def __init__(self, caches, errors):
        self.caches, self.errors, self.queries = caches, errors, 0

    def cross(self, layer, queries, summed):
        self.queries += len(queries)
        true = (summed - layer.value.bias) @ layer.output.weight.T
        for name, cache in self.caches.items():
            off = cache.attend(layer, queries) @ layer.output.weight.T - true
            self.errors[name].setdefault(layer.name, np.zeros(2))
            self.errors[name][layer.name] += np.square(off).sum(), np.square(true).sum()
        return summed


class Products(NamedTuple):
    """Multiply-adds of one layer's cross-attention but for the projections of query and output (`core/src/attention/shape.rs`)."""

    once: int  # before the first token
    token: int


def cross_products(layer, frames):
    """Those with keys and values, and those with the encoder's output: each head's query goes through W_K, its sum through W_V."""
    columns, inputs = layer.key.weight.shape
    both_projections = 2 * inputs * columns
    return Products(frames * both_projections, 2 * frames * columns), Products(0, both_projections + 2 * frames * inputs * layer.heads)


def print_bytes(layers):
    columns, inputs = layers[0].key.weight.shape
    for name, elements in ("keys and values of every layer", 2 * columns * len(layers)), ("the encoder's output, once", inputs):
        print(f"bytes a frame, {name}: {2 * elements} in f16, {elements + 2 * elements // Q8_BLOCK} in q8_0")


# The commands


class Recorder(Hooks):
    """Keeps what enters each attention layer."""

    def __init__(self):
        self.rows = {}

    def see(self, layer, inputs, query_inputs):
        self.rows.setdefault((layer.name, "input"), []).append(inputs)
        self.rows.setdefault((layer.name, "query_input"), []).append(query_inputs)

    def recorded(self, layer, what):
        return np.concatenate(self.rows[layer.name, what])


def edit_distance(said, reference):
    """The edit distance between two lists."""
    row = list(range(len(reference) + 1))
    for said_index, word in enumerate(said, 1):
        diagonal, row[0] = row[0], said_index
        for index, other in enumerate(reference, 1):
            diagonal, row[index] = row[index], min(row[index] + 1, row[index - 1] + 1, diagonal + (word != other))
    return row[-1]


def words(text):
    """Its words in small letters, without punctuation; a hyphen parts words."""
    return "".join(letter for letter in text.lower().replace("-", " ") if letter.isalnum() or letter.isspace()).split()


def transcribe(family, arguments):
    model, texts = family.Model(arguments.model), []
    for path in arguments.audio:
        for samples in family.read(path, arguments.count):
            texts.append(model.text(family.decode(model, family.encode(model, samples), Hooks())))
            print(texts[-1].strip(), flush=True)
    if arguments.text:
        said, reference = words(" ".join(texts)), words(arguments.text.read_text(encoding="utf-8"))
        errors = edit_distance(said, reference)
        print(f"word error rate {100 * errors / len(reference):.2f} % ({errors} of {len(reference)})")


def record(family, arguments):
    model = family.Model(arguments.model)
    layers = model.decoder_self + model.decoder_cross
    writer = gguf.GGUFWriter(arguments.out, "layers")
    writer.add_uint32("layers.count", len(layers))
    for index, layer in enumerate(layers):
        writer.add_string(f"layers.{index}.name", layer.name)
        writer.add_string(f"layers.{index}.kind", layer.name.rpartition(".")[2])
        writer.add_uint32(f"layers.{index}.heads", layer.heads)
        writer.add_uint32(f"layers.{index}.rope_dim", layer.rope_dim)
        writer.add_float32(f"layers.{index}.rope_theta", layer.rope_theta)
        for part in ("query", "key", "value", "output"):
            linear = getattr(layer, part)
            writer.add_tensor(f"layers.{index}.{part}.weight", np.ascontiguousarray(linear.weight))
            if linear.bias.any():
                writer.add_tensor(f"layers.{index}.{part}.bias", np.ascontiguousarray(linear.bias))
    for name, path in (("calib", arguments.calib), ("test", arguments.test)):
        for cut, samples in enumerate(family.read(path, arguments.count)):
            recorder = Recorder()
            tokens = family.decode(model, family.encode(model, samples), recorder)
            print(f"{name} {cut}:", model.text(tokens).strip(), flush=True)
            for index, layer in enumerate(layers):
                writer.add_tensor(f"layers.{index}.input.{name}.{cut}", recorder.recorded(layer, "input"))
                if index >= len(model.decoder_self):
                    writer.add_tensor(f"layers.{index}.query_input.{name}.{cut}", recorder.recorded(layer, "query_input"))
    gguf_file.finish(writer)


def plain(family, arguments):
    writer = gguf.GGUFWriter(arguments.out, "maps")
    for index, layer in enumerate(family.Model(arguments.model).decoder_self):
        writer.add_tensor(f"layers.{index}.map", np.ascontiguousarray(plain_map(layer.key.weight, layer.value.weight)))
    gguf_file.finish(writer)


def compare(family, arguments):
    model = family.Model(arguments.model)
    maps = Maps(model, arguments.maps, arguments.round)
    differing = total = 0
    for cut, samples in enumerate(family.read(arguments.audio, arguments.count)):
        audio = family.encode(model, samples)
        true_tokens, mapped_tokens = family.decode(model, audio, Hooks()), family.decode(model, audio, maps)
        errors = edit_distance(mapped_tokens, true_tokens)
        differing, total = differing + errors, total + len(true_tokens)
        print(f"{family.cut} {cut}: {errors} of {len(true_tokens)} tokens differ", flush=True)
        if errors:
            print(f"  true:   {model.text(true_tokens)!r}\n  mapped: {model.text(mapped_tokens)!r}", flush=True)
    for name, (error, norm) in maps.errors.items():
        print(f"{name}: values off by {100 * np.sqrt(error / norm):.4g} %")
    print(f"texts {'differ' if differing else 'equal'}: {differing} of {total} tokens differ (edit distance)")


def cross(family, arguments):
    model = family.Model(arguments.model)
    layers = model.decoder_cross
    caches = {f"kv, {rounding}": partial(KeysAndValues, layers, rounding=rounding) for rounding in ROUNDINGS[1:]}
    caches |= {f"e, {rounding}": partial(Encoded, rounding=rounding, mean=np.float32(0)) for rounding in ROUNDINGS}
    if arguments.calib:
        calibration = [family.encode(model, samples) for samples in family.read(arguments.calib, arguments.count)]
        mean = np.concatenate(calibration).mean(axis=0, dtype=np.float64).astype(np.float32)
        caches |= {f"e, {rounding}, centred": partial(Encoded, rounding=rounding, mean=mean) for rounding in ROUNDINGS[1:]}
    errors, differing = {name: {} for name in caches}, dict.fromkeys(caches, 0)
    frames, queries, tokens, products = [], [], 0, np.zeros(2)
    for cut, samples in enumerate(family.read(arguments.audio, arguments.count)):
        audio = family.encode(model, samples)
        made = {name: cache(audio=audio) for name, cache in caches.items()}
        measured = CrossErrors(made, errors)
        true_tokens = family.decode(model, audio, measured)
        tokens += len(true_tokens)
        frames.append(len(audio))
        queries.append(measured.queries // len(layers))
        products += [len(layers) * layout.once + measured.queries * layout.token for layout in cross_products(layers[0], len(audio))]
        for name, cache in made.items():
            found = family.decode(model, audio, cache)
            if found != true_tokens:
                differing[name] += edit_distance(found, true_tokens)
                print(f"{family.cut} {cut}, {name}:\n  true:  {model.text(true_tokens)!r}\n  found: {model.text(found)!r}", flush=True)
    print("error of the attention output in percent: median (range), then by layer; tokens of the text that differ (edit distance)")
    for name, by_layer in errors.items():
        percent = [100 * np.sqrt(error / norm) for error, norm in by_layer.values()]
        numbers = " ".join(f"{error:.3g}" for error in percent)
        spread = f"{np.median(percent):.3g} ({min(percent):.3g}-{max(percent):.3g})"
        print(f"{name:16} {spread:26} {numbers:50} {differing[name]} of {tokens}")
    print_bytes(layers)
    depth, frame_count = len(layers), round(np.mean(frames))
    kv, encoded = cross_products(layers[0], frame_count)
    print(f"multiply-adds of all layers; {len(frames)} {family.cut}s, on average {frame_count} frames and {np.mean(queries):.0f} tokens:")
    print(f"  a token: kv {depth * kv.token / 1e6:.2f} M, e {depth * encoded.token / 1e6:.2f} M")
    print(f"  keys and values, once: {depth * kv.once / 1e6:.0f} M, or {kv.once / (encoded.token - kv.token):.0f} tokens' lead over e")
    print(f"  in all: kv {products[0] / 1e9:.2f} G, e {products[1] / 1e9:.2f} G")


class CommandLine:
    """The commands that every family has; a script may add its own before run()."""

    def __init__(self, family, description, compared):
        """`compared` is how many cuts of a recording `record`, `compare` and `cross` take if nothing else is said; 0 is all."""
        self.parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.commands, self.family = self.parser.add_subparsers(required=True), family
        transcriber = self.on_model(transcribe, 0)
        transcriber.add_argument("audio", type=Path, nargs="+")
        transcriber.add_argument("--text", type=Path)
        recorder = self.on_model(record, compared)
        recorder.add_argument("--calib", type=Path, required=True)
        recorder.add_argument("--test", type=Path, required=True)
        recorder.add_argument("--out", type=Path, required=True)
        inverter = self.add(plain)
        inverter.add_argument("model", type=Path)
        inverter.add_argument("--out", type=Path, required=True)
        comparer = self.on_model(compare, compared)
        comparer.add_argument("audio", type=Path)
        comparer.add_argument("--maps", type=Path, required=True)
        comparer.add_argument("--round", choices=ROUNDINGS, required=True)
        crosser = self.on_model(cross, compared)
        crosser.add_argument("audio", type=Path)
        crosser.add_argument("--calib", type=Path)

    def add(self, command):
        """A command is a function of the family and the arguments."""
        subparser = self.commands.add_parser(command.__name__)
        subparser.set_defaults(command=command)
        return subparser

    def on_model(self, command, cuts):
        subparser = self.add(command)
        subparser.add_argument("model", type=Path)
        subparser.add_argument(f"--{self.family.cut}s", type=int, default=cuts, dest="count")
        return subparser

    def run(self):
        arguments = self.parser.parse_args()
        arguments.command(self.family, arguments)
