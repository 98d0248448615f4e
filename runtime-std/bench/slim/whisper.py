"""Run OpenAI Whisper models (CTranslate2 files) in numpy, record what enters their attention, and try values computed from keys.

    whisper.py transcribe MODEL AUDIO... [--text TXT]        print the text of each window, and the word error rate against TXT
    whisper.py record MODEL --calib AUDIO --test AUDIO --out LAYERS.gguf
                                                             write the decoder's attention weights and inputs as a layers file
    whisper.py measure LAYERS.gguf                           condition of each W_K, and the error of V = K @ inv(W_K) @ W_V
    whisper.py plain MODEL --out MAPS.gguf                   write those plain maps, for the decoder's self-attention
    whisper.py compare MODEL AUDIO --maps MAPS.gguf --round f32|f16|q8_0
                                                             decode with true values and with mapped ones, and count differing tokens

MODEL is a folder with model.bin and vocabulary.txt. AUDIO is FLAC or WAV at 16 kHz, cut at pauses into windows of up to 30 seconds;
`--windows N` takes the first N only (4 for `record` and `compare`, all for `transcribe`; 0 is all). Texts are decoded greedily,
without timestamps.

Layer i of the layers and maps files is decoder layer i's self-attention for i < L, the number of decoder layers, and decoder
layer i - L's cross-attention from there on.

A maps file has, for each layer i that is to compute its values from its keys:
    layers.{i}.map       value columns x (key columns + rank)
    layers.{i}.channels  rank x d_model, optional: further channels of the input that are kept beside the key
    layers.{i}.mean      key columns, optional: taken off a key before it is rounded
    layers.{i}.offset    value columns, optional: added to the mapped value; without it, the value bias plus map @ mean
"""

import argparse
import struct
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
import soundfile
from scipy.special import erf

SAMPLE_RATE = 16000
WINDOW_SAMPLES = 30 * SAMPLE_RATE
PAUSE_SAMPLES = SAMPLE_RATE * 3 // 10
FFT_SIZE = 400
HOP = 160
MEL_BANDS = 80

MAX_NEW_TOKENS = 200
EXACT_POSITIONS = 4
Q8_BLOCK = 32

MULTILINGUAL_VOCABULARY = 51865
MULTILINGUAL_START = [50258, 50259, 50359, 50363]  # start of transcript, English, transcribe, no timestamps
MULTILINGUAL_END = 50257
ENGLISH_START = [50257, 50362]  # start of transcript, no timestamps
ENGLISH_END = 50256


# The model file


def read_variables(path):
    """The variables of a CTranslate2 model.bin, by name; floats of 16 bits become float32."""
    data = path.read_bytes()
    offset = 0

    def number(form):
        nonlocal offset
        (value,) = struct.unpack_from("<" + form, data, offset)
        offset += struct.calcsize("<" + form)
        return value

    def string():
        nonlocal offset
        length = number("H")
        offset += length
        return data[offset - length : offset].rstrip(b"\0").decode()

    version, spec, revision = number("I"), string(), number("I")
    if (version, spec, revision) != (6, "WhisperSpec", 3):
        raise ValueError(f"{path}: version {version}, spec {spec}, revision {revision}")
    element_types = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
    variables = {}
    for _ in range(number("I")):
        name = string()
        shape = [number("I") for _ in range(number("B"))]
        element_type = np.dtype(element_types[number("B")])
        size = number("I")
        array = np.frombuffer(data, element_type, size // element_type.itemsize, offset).reshape(shape)
        variables[name] = array.astype(np.float32) if element_type.kind == "f" else array
        offset += size
    for _ in range(number("I")):
        alias, name = string(), string()
        variables[alias] = variables[name]
    return variables


class Linear(NamedTuple):
    weight: np.ndarray  # outputs x inputs
    bias: np.ndarray

    def __call__(self, inputs):
        return inputs @ self.weight.T + self.bias


class Attention(NamedTuple):
    name: str
    query: Linear
    key: Linear
    value: Linear
    output: Linear


class Model:
    def __init__(self, folder):
        self.variables = read_variables(folder / "model.bin")
        lines = (folder / "vocabulary.txt").read_text(encoding="utf-8").split("\n")
        self.embeddings = self.variables["decoder/embeddings/weight"]
        self.vocabulary = lines[: len(self.embeddings)]
        self.heads = int(self.variables["decoder/num_heads"])
        multilingual = len(self.embeddings) == MULTILINGUAL_VOCABULARY
        self.start = MULTILINGUAL_START if multilingual else ENGLISH_START
        self.end = MULTILINGUAL_END if multilingual else ENGLISH_END
        self.encoder_self = [self.self_attention("encoder", layer) for layer in range(self.count("encoder"))]
        self.decoder_self = [self.self_attention("decoder", layer) for layer in range(self.count("decoder"))]
        self.decoder_cross = [self.cross_attention(layer) for layer in range(self.count("decoder"))]

    def count(self, stack):
        return sum(f"{stack}/layer_{layer}/ffn/linear_0/weight" in self.variables for layer in range(64))

    def linear(self, prefix):
        return Linear(self.variables[prefix + "/weight"], self.variables[prefix + "/bias"])

    def split_linear(self, prefix, parts):
        joined = self.linear(prefix)
        return [Linear(*rows) for rows in zip(np.split(joined.weight, parts), np.split(joined.bias, parts))]

    def self_attention(self, stack, layer):
        prefix = f"{stack}/layer_{layer}/self_attention"
        query, key, value = self.split_linear(prefix + "/linear_0", 3)
        return Attention(f"{stack}.{layer}.self", query, key, value, self.linear(prefix + "/linear_1"))

    def cross_attention(self, layer):
        prefix = f"decoder/layer_{layer}/attention"
        key, value = self.split_linear(prefix + "/linear_1", 2)
        return Attention(f"decoder.{layer}.cross", self.linear(prefix + "/linear_0"), key, value, self.linear(prefix + "/linear_2"))

    def normalise(self, prefix, inputs):
        centred = inputs - inputs.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(1e-5))
        return centred / deviation * self.variables[prefix + "/layer_norm/gamma"] + self.variables[prefix + "/layer_norm/beta"]

    def feed_forward(self, prefix, inputs):
        hidden = self.linear(prefix + "/ffn/linear_0")(self.normalise(prefix + "/ffn", inputs))
        return self.linear(prefix + "/ffn/linear_1")(gelu(hidden))

    def text(self, tokens):
        """The text of tokens: each letter of a token stands for a byte, as in GPT-2's byte table. Special tokens appear by name."""
        plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
        others = [byte for byte in range(256) if byte not in plain]
        byte_of = {chr(byte): byte for byte in plain} | {chr(256 + index): byte for index, byte in enumerate(others)}
        letters = "".join(self.vocabulary[token] for token in tokens)
        return bytes(byte_of[letter] for letter in letters).decode("utf-8", errors="replace")


# The front end


def read_windows(path, count=0):
    """The recording as windows of 30 seconds, each cut at a pause and padded with zeros; the first `count` of them if count is not 0.

    A window that breaks off within a word makes Whisper stop early, or leave out a sentence.
    """
    samples, rate = soundfile.read(path, dtype="float32")
    if rate != SAMPLE_RATE or samples.ndim != 1:
        raise ValueError(f"{path}: {rate} Hz, shape {samples.shape}; one channel at {SAMPLE_RATE} Hz is expected")
    windows = []
    while len(samples):
        length = quietest_cut(samples[:WINDOW_SAMPLES]) if len(samples) > WINDOW_SAMPLES else len(samples)
        windows.append(np.pad(samples[:length], (0, WINDOW_SAMPLES - length)))
        samples = samples[length:]
    return windows[: count or None]


def quietest_cut(samples):
    """The middle of the quietest PAUSE_SAMPLES in the last third of a window."""
    start = len(samples) * 2 // 3
    energy = np.cumsum(np.square(samples[start:], dtype=np.float64))
    return start + int(np.argmin(energy[PAUSE_SAMPLES:] - energy[:-PAUSE_SAMPLES])) + PAUSE_SAMPLES // 2


def mel_filters():
    """Triangular filters, bands x frequencies, on Slaney's scale (linear to 1000 Hz, then logarithmic), each of equal area."""
    linear_step, corner, log_step = 200 / 3, 1000.0, np.log(6.4) / 27
    corner_mel = corner / linear_step
    top = corner_mel + np.log(SAMPLE_RATE / 2 / corner) / log_step
    mels = np.linspace(0, top, MEL_BANDS + 2)
    edges = np.where(mels < corner_mel, mels * linear_step, corner * np.exp(log_step * (mels - corner_mel)))
    frequencies = np.linspace(0, SAMPLE_RATE / 2, FFT_SIZE // 2 + 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (frequencies - low) / (centre - low)
    falling = (high - frequencies) / (high - centre)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)


def log_mel(samples):
    """A window's features, bands x frames, as OpenAI's whisper computes them."""
    padded = np.pad(samples, FFT_SIZE // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[:-1:HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT_SIZE) / FFT_SIZE)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    logs = np.log10(np.maximum(mel_filters() @ power.T, 1e-10))
    return ((np.maximum(logs, logs.max() - 8) + 4) / 4).astype(np.float32)


# The forward pass


def gelu(x):
    return x * np.float32(0.5) * (1 + erf(x * np.float32(np.sqrt(0.5))))


def convolve(inputs, convolution, stride):
    """A convolution of width 3 and padding 1: inputs are channels x frames, weights are outputs x channels x 3."""
    padded = np.pad(inputs, ((0, 0), (1, 1)))
    frames = (inputs.shape[1] - 1) // stride + 1
    taps = [convolution.weight[:, :, tap] @ padded[:, tap : tap + stride * frames : stride] for tap in range(3)]
    return sum(taps) + convolution.bias[:, None]


def attend(heads, queries, keys, values, first_position=None):
    """Softmax attention over all heads. With `first_position` (of the queries, the keys' being 0), no query sees a later key."""

    def split(rows):
        return rows.reshape(len(rows), heads, -1).transpose(1, 0, 2)

    head_width = queries.shape[1] // heads
    scores = split(queries) @ split(keys).transpose(0, 2, 1) * np.float32(head_width**-0.5)
    if first_position is not None:
        later = np.arange(len(keys)) > first_position + np.arange(len(queries))[:, None]
        scores[:, later] = -1e30
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ split(values)).transpose(1, 0, 2).reshape(queries.shape)


def encode(model, samples):
    """The encoder's output for a window of samples: 1500 frames x d_model."""
    hidden = gelu(convolve(log_mel(samples), model.linear("encoder/conv1"), stride=1))
    hidden = gelu(convolve(hidden, model.linear("encoder/conv2"), stride=2))
    hidden = hidden.T + model.variables["encoder/position_encodings/encodings"]
    for layer, attention in enumerate(model.encoder_self):
        prefix = f"encoder/layer_{layer}"
        inputs = model.normalise(prefix + "/self_attention", hidden)
        hidden = hidden + attention.output(
            attend(model.heads, attention.query(inputs), attention.key(inputs), attention.value(inputs))
        )
        hidden = hidden + model.feed_forward(prefix, hidden)
    return model.normalise("encoder", hidden)


class Hooks:
    """What decode() shows of attention and lets a caller replace. These change nothing.

    Every call is for the rows that are new: all 1500 of a cross-attention at once, the next tokens of a self-attention. `keys` are
    without their bias. `inputs` are what keys and values are projected from.
    """

    def see(self, layer, inputs, query_inputs):
        """Called first; `inputs` has no rows where a cross-attention's keys are already known."""

    def keys(self, layer, keys):
        """The keys, still without bias, that queries meet."""
        return keys

    def values(self, layer, keys, values, inputs, first_position):
        """The values that are summed; `values` are the true ones. `first_position` is that of the first row."""
        return values


class CachedAttention:
    """A decoder's attention layer and the keys and values it has kept."""

    def __init__(self, model, attention, hooks):
        self.heads, self.layer, self.hooks = model.heads, attention, hooks
        self.cached_keys = np.empty((0, attention.key.weight.shape[0]), np.float32)
        self.cached_values = np.empty((0, attention.value.weight.shape[0]), np.float32)

    def __call__(self, inputs, query_inputs, causal):
        layer, first_position = self.layer, len(self.cached_keys)
        self.hooks.see(layer.name, inputs, query_inputs)
        if len(inputs):
            raw_keys = inputs @ layer.key.weight.T
            keys = self.hooks.keys(layer.name, raw_keys) + layer.key.bias
            values = self.hooks.values(layer.name, raw_keys, layer.value(inputs), inputs, first_position)
            self.cached_keys = np.concatenate([self.cached_keys, keys])
            self.cached_values = np.concatenate([self.cached_values, values])
        queries = layer.query(query_inputs)
        summed = attend(self.heads, queries, self.cached_keys, self.cached_values, first_position if causal else None)
        return layer.output(summed)


def decode(model, audio, hooks):
    """The tokens that the model finds most likely, one by one, for `audio`, the encoder's output for a window."""
    self_attentions = [CachedAttention(model, attention, hooks) for attention in model.decoder_self]
    cross_attentions = [CachedAttention(model, attention, hooks) for attention in model.decoder_cross]
    tokens, new_tokens, position = [], model.start, 0
    while len(tokens) < MAX_NEW_TOKENS:
        positions = model.variables["decoder/position_encodings/encodings"][position : position + len(new_tokens)]
        hidden = model.embeddings[new_tokens] + positions
        for layer, (self_attention, cross_attention) in enumerate(zip(self_attentions, cross_attentions)):
            prefix = f"decoder/layer_{layer}"
            inputs = model.normalise(prefix + "/self_attention", hidden)
            hidden = hidden + self_attention(inputs, inputs, causal=True)
            queries = model.normalise(prefix + "/attention", hidden)
            hidden = hidden + cross_attention(audio if position == 0 else audio[:0], queries, causal=False)
            hidden = hidden + model.feed_forward(prefix, hidden)
        token = int(np.argmax(model.embeddings @ model.normalise("decoder", hidden[-1])))
        if token == model.end:
            break
        position += len(new_tokens)
        tokens.append(token)
        new_tokens = [token]
    return tokens


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
        self.rounding = rounding
        self.layers, self.errors = {}, {}
        for index, attention in enumerate(model.decoder_self + model.decoder_cross):
            if f"layers.{index}.map" not in tensors:
                continue
            weights = tensors[f"layers.{index}.map"]
            key_columns, inputs = attention.key.weight.shape
            channels = tensors.get(f"layers.{index}.channels", np.zeros((0, inputs), np.float32))
            mean = tensors.get(f"layers.{index}.mean", np.zeros(key_columns, np.float32))
            offset = tensors.get(f"layers.{index}.offset", attention.value.bias + weights[:, :key_columns] @ mean)
            self.layers[attention.name] = weights, channels, mean, offset
            self.errors[attention.name] = np.zeros(2)

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
    """Keeps what enters each attention layer."""

    def __init__(self):
        self.rows = {}

    def see(self, layer, inputs, query_inputs):
        self.rows.setdefault((layer, "input"), []).append(inputs)
        self.rows.setdefault((layer, "query_input"), []).append(query_inputs)

    def recorded(self, layer, what):
        return np.concatenate(self.rows[layer, what])


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


def transcribe(arguments):
    model, texts = Model(arguments.model), []
    for path in arguments.audio:
        for samples in read_windows(path, arguments.windows):
            texts.append(model.text(decode(model, encode(model, samples), Hooks())))
            print(texts[-1].strip(), flush=True)
    if arguments.text:
        said, reference = words(" ".join(texts)), words(arguments.text.read_text(encoding="utf-8"))
        errors = edit_distance(said, reference)
        print(f"word error rate {100 * errors / len(reference):.2f} % ({errors} of {len(reference)})")


def record(arguments):
    model = Model(arguments.model)
    layers = model.decoder_self + model.decoder_cross
    writer = gguf.GGUFWriter(arguments.out, "layers")
    writer.add_uint32("layers.count", len(layers))
    for index, layer in enumerate(layers):
        writer.add_string(f"layers.{index}.name", layer.name)
        writer.add_string(f"layers.{index}.kind", layer.name.rpartition(".")[2])
        writer.add_uint32(f"layers.{index}.heads", model.heads)
        writer.add_uint32(f"layers.{index}.rope_dim", 0)
        writer.add_float32(f"layers.{index}.rope_theta", 0.0)
        for part in ("query", "key", "value", "output"):
            linear = getattr(layer, part)
            writer.add_tensor(f"layers.{index}.{part}.weight", np.ascontiguousarray(linear.weight))
            if linear.bias.any():
                writer.add_tensor(f"layers.{index}.{part}.bias", np.ascontiguousarray(linear.bias))
    for name, path in (("calib", arguments.calib), ("test", arguments.test)):
        for segment, samples in enumerate(read_windows(path, arguments.windows)):
            recorder = Recorder()
            print(f"{name} {segment}:", model.text(decode(model, encode(model, samples), recorder)).strip(), flush=True)
            for index, layer in enumerate(layers):
                writer.add_tensor(f"layers.{index}.input.{name}.{segment}", recorder.recorded(layer.name, "input"))
                if index >= len(model.decoder_self):
                    writer.add_tensor(f"layers.{index}.query_input.{name}.{segment}", recorder.recorded(layer.name, "query_input"))
    write_file(writer)


def write_file(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def measure(arguments):
    reader = gguf.GGUFReader(arguments.layers)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    print(f"{'layer':16} {'cond(W_K)':>10} {'tokens':>7}   error of V in % with keys in f32, f16, q8_0")
    for index in range(int(reader.fields["layers.count"].contents())):
        key_weight, value_weight = tensors[f"layers.{index}.key.weight"], tensors[f"layers.{index}.value.weight"]
        inputs = np.concatenate([data for name, data in tensors.items() if name.startswith(f"layers.{index}.input.test.")])
        keys, values = inputs @ key_weight.T, inputs @ value_weight.T
        mapping = plain_map(key_weight, value_weight)
        mapped = [round_rows(keys, rounding) @ mapping.T for rounding in ("f32", "f16", "q8_0")]
        errors = [100 * np.linalg.norm(rows - values) / np.linalg.norm(values) for rows in mapped]
        name, condition = reader.fields[f"layers.{index}.name"].contents(), np.linalg.cond(key_weight.astype(np.float64))
        print(f"{name:16} {condition:10.2e} {len(inputs):7}   " + " ".join(f"{error:10.4g}" for error in errors))


def plain(arguments):
    writer = gguf.GGUFWriter(arguments.out, "maps")
    for index, layer in enumerate(Model(arguments.model).decoder_self):
        writer.add_tensor(f"layers.{index}.map", np.ascontiguousarray(plain_map(layer.key.weight, layer.value.weight)))
    write_file(writer)


def compare(arguments):
    model = Model(arguments.model)
    maps = Maps(model, arguments.maps, arguments.round)
    differing = total = 0
    for window, samples in enumerate(read_windows(arguments.audio, arguments.windows)):
        audio = encode(model, samples)
        true_tokens, mapped_tokens = decode(model, audio, Hooks()), decode(model, audio, maps)
        errors = edit_distance(mapped_tokens, true_tokens)
        differing, total = differing + errors, total + len(true_tokens)
        print(f"window {window}: {errors} of {len(true_tokens)} tokens differ")
        if errors:
            print(f"  true:   {model.text(true_tokens)!r}\n  mapped: {model.text(mapped_tokens)!r}", flush=True)
    for name, (error, norm) in maps.errors.items():
        print(f"{name}: values off by {100 * np.sqrt(error / norm):.4g} %")
    print(f"texts {'differ' if differing else 'equal'}: {differing} of {total} tokens differ (edit distance)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def command(run, windows=None):
        subparser = commands.add_parser(run.__name__)
        subparser.set_defaults(run=run)
        if windows is not None:
            subparser.add_argument("--windows", type=int, default=windows)
        return subparser

    transcriber = command(transcribe, windows=0)
    transcriber.add_argument("model", type=Path)
    transcriber.add_argument("audio", type=Path, nargs="+")
    transcriber.add_argument("--text", type=Path)
    recorder = command(record, windows=4)
    recorder.add_argument("model", type=Path)
    recorder.add_argument("--calib", type=Path, required=True)
    recorder.add_argument("--test", type=Path, required=True)
    recorder.add_argument("--out", type=Path, required=True)
    command(measure).add_argument("layers", type=Path)
    inverter = command(plain)
    inverter.add_argument("model", type=Path)
    inverter.add_argument("--out", type=Path, required=True)
    comparer = command(compare, windows=4)
    comparer.add_argument("model", type=Path)
    comparer.add_argument("audio", type=Path)
    comparer.add_argument("--maps", type=Path, required=True)
    comparer.add_argument("--round", choices=["f32", "f16", "q8_0"], required=True)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
