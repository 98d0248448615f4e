"""Run OpenAI Whisper models (CTranslate2 files) in numpy, record what enters their attention, and try smaller caches.

    whisper.py transcribe MODEL AUDIO... [--text TXT]        print the text of each window, and the word error rate against TXT
    whisper.py record MODEL --calib AUDIO --test AUDIO --out LAYERS.gguf
                                                             write the decoder's attention weights and inputs as a layers file
    whisper.py measure LAYERS.gguf                           condition of each W_K, and the error of V = K @ inv(W_K) @ W_V
    whisper.py plain MODEL --out MAPS.gguf                   write those plain maps, for the decoder's self-attention
    whisper.py compare MODEL AUDIO --maps MAPS.gguf --round f32|f16|q8_0
                                                             decode with true values and with mapped ones, and count differing tokens
    whisper.py cross MODEL AUDIO [--calib AUDIO]             one encoder output for all layers beside keys and values: errors, text, costs

MODEL is a folder with model.bin and vocabulary.txt. AUDIO is FLAC or WAV at 16 kHz, cut at pauses into windows of up to 30 seconds;
`--windows N` takes the first N only (4 for `record`, `compare` and `cross`, all for `transcribe`; 0 is all). Texts are decoded greedily,
without timestamps.

Layer i of the layers and maps files is decoder layer i's self-attention for i < L, the number of decoder layers, and decoder
layer i - L's cross-attention from there on.
A maps file is described with common.Maps.
"""

import struct
from pathlib import Path

import gguf
import numpy as np

import common
from common import ROUNDINGS, SAMPLE_RATE, Attention, Linear, attend, gelu, plain_map, round_rows

WINDOW_SAMPLES = 30 * SAMPLE_RATE
PAUSE_SAMPLES = SAMPLE_RATE * 3 // 10
FFT_SIZE = 400
HOP = 160
MEL_BANDS = 80

MAX_NEW_TOKENS = 200

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
        return Attention(f"{stack}.{layer}.self", self.heads, query, key, value, self.linear(prefix + "/linear_1"))

    def cross_attention(self, layer):
        prefix = f"decoder/layer_{layer}/attention"
        key, value = self.split_linear(prefix + "/linear_1", 2)
        query, output = self.linear(prefix + "/linear_0"), self.linear(prefix + "/linear_2")
        return Attention(f"decoder.{layer}.cross", self.heads, query, key, value, output)

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
    samples = common.read_samples(path)
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


def convolve(inputs, convolution, stride):
    """A convolution of width 3 and padding 1: inputs are channels x frames, weights are outputs x channels x 3."""
    padded = np.pad(inputs, ((0, 0), (1, 1)))
    frames = (inputs.shape[1] - 1) // stride + 1
    taps = [convolution.weight[:, :, tap] @ padded[:, tap : tap + stride * frames : stride] for tap in range(3)]
    return sum(taps) + convolution.bias[:, None]


def encode(model, samples):
    """The encoder's output for a window of samples: 1500 frames x d_model."""
    hidden = gelu(convolve(log_mel(samples), model.linear("encoder/conv1"), stride=1))
    hidden = gelu(convolve(hidden, model.linear("encoder/conv2"), stride=2))
    hidden = hidden.T + model.variables["encoder/position_encodings/encodings"]
    for layer, attention in enumerate(model.encoder_self):
        prefix = f"encoder/layer_{layer}"
        inputs = model.normalise(prefix + "/self_attention", hidden)
        hidden = hidden + attention.output(attend(model.heads, attention.query(inputs), attention.key(inputs), attention.value(inputs)))
        hidden = hidden + model.feed_forward(prefix, hidden)
    return model.normalise("encoder", hidden)


class CachedAttention:
    """A decoder's attention layer and the keys and values it has kept."""

    def __init__(self, attention, hooks):
        self.layer, self.hooks = attention, hooks
        self.cached_keys = np.empty((0, attention.key.weight.shape[0]), np.float32)
        self.cached_values = np.empty((0, attention.value.weight.shape[0]), np.float32)

    def __call__(self, inputs, query_inputs, causal):
        layer, first_position = self.layer, len(self.cached_keys)
        self.hooks.see(layer, inputs, query_inputs)
        if len(inputs):
            raw_keys = inputs @ layer.key.weight.T
            keys = self.hooks.keys(layer, raw_keys) + layer.key.bias
            values = self.hooks.values(layer, raw_keys, layer.value(inputs), inputs, first_position)
            self.cached_keys = np.concatenate([self.cached_keys, keys])
            self.cached_values = np.concatenate([self.cached_values, values])
        queries = layer.query(query_inputs)
        summed = attend(layer.heads, queries, self.cached_keys, self.cached_values, first_position if causal else None)
        return layer.output(summed if causal else self.hooks.cross(layer, queries, summed))


def decode(model, audio, hooks):
    """The tokens that the model finds most likely, one by one, for `audio`, the encoder's output for a window."""
    self_attentions = [CachedAttention(attention, hooks) for attention in model.decoder_self]
    cross_attentions = [CachedAttention(attention, hooks) for attention in model.decoder_cross]
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


# The commands


def measure(_, arguments):
    reader = gguf.GGUFReader(arguments.layers)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    print(f"{'layer':16} {'cond(W_K)':>10} {'tokens':>7}   error of V in % with keys in f32, f16, q8_0")
    for index in range(int(reader.fields["layers.count"].contents())):
        key_weight, value_weight = tensors[f"layers.{index}.key.weight"], tensors[f"layers.{index}.value.weight"]
        inputs = np.concatenate([data for name, data in tensors.items() if name.startswith(f"layers.{index}.input.test.")])
        keys, values = inputs @ key_weight.T, inputs @ value_weight.T
        mapping = plain_map(key_weight, value_weight)
        mapped = [round_rows(keys, rounding) @ mapping.T for rounding in ROUNDINGS]
        errors = [100 * np.linalg.norm(rows - values) / np.linalg.norm(values) for rows in mapped]
        name, condition = reader.fields[f"layers.{index}.name"].contents(), np.linalg.cond(key_weight.astype(np.float64))
        print(f"{name:16} {condition:10.2e} {len(inputs):7}   " + " ".join(f"{error:10.4g}" for error in errors))


FAMILY = common.Family("window", read_windows, Model, encode, decode)


def main():
    command_line = common.CommandLine(FAMILY, __doc__, compared=4)
    command_line.add(measure).add_argument("layers", type=Path)
    command_line.run()


if __name__ == "__main__":
    main()
