#!/usr/bin/env python3
"""What each metadata key does: logits of the tiny models of all families under changed metadata, by a forward pass in numpy (f64).

    python3 metadata_goldens.py ../../core/tests > ../../core/tests/golden/metadata.txt

The pass is written from the papers and from llama.cpp's meaning of each key (`llama-model.cpp`, its `load_hparams`); it shares no
code with brooklet. Keys of models of speech are those of transcribe.cpp (`arch/whisper/weights.cpp`, its `read_whisper_hparams`, and the converter for Moonshine). Before anything
is written, the pass must give the logits that transformers gives for the unchanged models (those of `family_goldens.py` and
`speech_goldens.py` and `moonshine_goldens.py`). A line of the output is `MODEL CHANGES RESULT`:

- CHANGES: `KEY=TYPE:VALUE` without the architecture (whole, in models of speech, whose keys begin with `stt.`), joined by `;`, with the types u (u32), f (f32), b, s, and au, af (lists);
- RESULT: `same` (no effect), `refused`, or the first LOGITS logits after TOKENS tokens.
"""

import math
import sys
from pathlib import Path

import gguf
import numpy as np

TOKENS, LOGITS = 48, 6
NORMED_BY_HEAD, NORMED_TOGETHER = ("qwen3", "gemma3"), ("olmo2",)
NEIGHBOURS = ("llama", "smollm3")
LAYER_NORM = ("gptneox", "gpt2", "mpt")
GEMMA = ("gemma2", "gemma3")


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        self.arch = self.fields["general.architecture"]
        self.tensors = {t.name: np.asarray(t.data, dtype=np.float64) for t in reader.tensors}

    def logits(self, ids, changes):
        return Pass(self, changes).run(ids)


def per_layer(value):
    """One number for all layers."""
    return value[0] if isinstance(value, list) else value


class Pass:
    def __init__(self, model, changes):
        self.arch, self.tensors = model.arch, model.tensors
        fields = model.fields | {f"{model.arch}.{key}": value for key, value in changes.items()}
        get = lambda key, default=None: fields.get(f"{model.arch}.{key}", default)
        self.layers = get("block_count")
        self.dim = get("embedding_length")
        self.heads = per_layer(get("attention.head_count"))
        self.kv_heads = per_layer(get("attention.head_count_kv", self.heads))
        self.width = get("attention.key_length", self.dim // self.heads)
        kind = "layer_norm_epsilon" if self.arch in LAYER_NORM else "layer_norm_rms_epsilon"
        self.eps = get(f"attention.{kind}")
        self.turned = get("rope.dimension_count", self.width)
        self.base = get("rope.freq_base", 10000.0)
        self.local_base = get("rope.freq_base_swa", 10000.0 if self.arch == "gemma3" else self.base)
        # A factor of 0 is none; one without a type is linear; the old name counts where the new one is missing.
        factor = get("rope.scaling.factor", get("rope.scale_linear", 0.0))
        self.divisor = 1.0 if factor == 0.0 or get("rope.scaling.type", "linear") == "none" else factor
        self.magnitude = get("rope.scaling.attn_factor", 1.0)
        self.window = get("attention.sliding_window", 0) if self.arch in GEMMA else 0
        self.period = get("attention.sliding_window_pattern", {"gemma2": 2, "gemma3": 6}.get(self.arch))
        self.score_cap = get("attn_logit_softcapping", 50.0) if self.arch == "gemma2" else 0.0
        self.logit_cap = get("final_logit_softcapping", {"gemma2": 30.0}.get(self.arch, 0.0)) if self.arch in GEMMA else 0.0
        self.parallel = self.arch == "gptneox" and get("use_parallel_residual", True)
        self.alibi = get("attention.max_alibi_bias", 0.0) if self.arch == "mpt" else 0.0

    def weight(self, name):
        return self.tensors[name + ".weight"]

    def linear(self, name, x):
        return x @ self.weight(name).T + self.tensors.get(name + ".bias", 0.0)

    def norm(self, name, x):
        if name + ".weight" not in self.tensors:
            return x
        if self.arch in LAYER_NORM:
            x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.weight(name)
        return x + self.tensors.get(name + ".bias", 0.0)

    def is_local(self, layer):
        """Whether the layer has a local window."""
        if not self.window:
            return False
        if isinstance(self.period, list):
            return self.period[layer]
        return layer % self.period < self.period - 1

    def rotate(self, x, layer):
        """x [n, heads, width]: RoPE at positions 0, 1, 2, ..."""
        if self.arch in ("gpt2", "mpt") or (self.arch == "smollm3" and layer % 4 == 3):
            return x
        local = self.is_local(layer)
        pairs = self.turned // 2
        angles = (self.local_base if local else self.base) ** (-np.arange(pairs) / pairs)
        if not (local and self.arch == "gemma3"):
            angles = angles / self.divisor
        if "rope_factors_short.weight" in self.tensors:
            angles = angles / self.weight("rope_factors_short")
        angles = np.arange(len(x))[:, None, None] * angles
        cos, sin = np.cos(angles) * self.magnitude, np.sin(angles) * self.magnitude
        out = x.copy()
        if self.arch in NEIGHBOURS:
            a, b = x[..., 0 : self.turned : 2], x[..., 1 : self.turned : 2]
            out[..., 0 : self.turned : 2], out[..., 1 : self.turned : 2] = a * cos - b * sin, a * sin + b * cos
        else:
            a, b = x[..., :pairs], x[..., pairs : self.turned]
            out[..., :pairs], out[..., pairs : self.turned] = a * cos - b * sin, a * sin + b * cos
        return out

    def attention(self, layer, x):
        block, n = f"blk.{layer}.", len(x)
        q_width, kv_width = self.heads * self.width, self.kv_heads * self.width
        if block + "attn_qkv.weight" in self.tensors:
            q, k, v = np.split(self.linear(block + "attn_qkv", x), [q_width, q_width + kv_width], axis=-1)
        else:
            q, k, v = (self.linear(block + "attn_" + name, x) for name in "qkv")
        if self.arch in NORMED_TOGETHER:
            q, k = self.norm(block + "attn_q_norm", q), self.norm(block + "attn_k_norm", k)
        q = q.reshape(n, self.heads, self.width)
        k, v = (y.reshape(n, self.kv_heads, self.width) for y in (k, v))
        if self.arch in NORMED_BY_HEAD:
            q, k = self.norm(block + "attn_q_norm", q), self.norm(block + "attn_k_norm", k)
        q, k = self.rotate(q, layer), self.rotate(k, layer)
        k, v = (np.repeat(y, self.heads // self.kv_heads, axis=1) for y in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(self.width)
        if self.score_cap:
            scores = self.score_cap * np.tanh(scores / self.score_cap)
        distance = np.arange(n)[:, None] - np.arange(n)[None, :]
        if self.alibi:
            scores = scores - np.array(slopes(self.heads, self.alibi))[:, None, None] * distance
        seen = distance >= 0
        if self.is_local(layer):
            seen &= distance < self.window
        scores = np.where(seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return self.linear(block + "attn_output", np.einsum("hqk,khd->qhd", weights, v).reshape(n, -1))

    def feed_forward(self, layer, x):
        block = f"blk.{layer}."
        up = self.linear(block + "ffn_up", x)
        if self.arch in LAYER_NORM:
            return self.linear(block + "ffn_down", gelu_tanh(up) if self.arch == "gpt2" else gelu(up))
        if block + "ffn_gate.weight" in self.tensors:
            gate = self.linear(block + "ffn_gate", x)
        else:
            gate, up = np.split(up, 2, axis=-1)
        gate = gelu_tanh(gate) if self.arch in GEMMA else gate / (1 + np.exp(-gate))
        return self.linear(block + "ffn_down", gate * up)

    def run(self, ids):
        x = self.weight("token_embd")[ids]
        if self.arch in GEMMA:
            x = x * math.sqrt(self.dim)
        if self.arch == "gpt2":
            x = x + self.weight("position_embd")[: len(ids)]
        for layer in range(self.layers):
            block = f"blk.{layer}."
            attended = self.attention(layer, self.norm(block + "attn_norm", x))
            attended = self.norm(block + "post_attention_norm", attended)
            between = x if self.parallel else x + attended
            fed = self.feed_forward(layer, self.norm(block + "ffn_norm", between))
            x = x + attended + self.norm(block + "post_ffw_norm", fed)
        output = "output" if "output.weight" in self.tensors else "token_embd"
        logits = self.norm("output_norm", x) @ self.weight(output).T
        return self.logit_cap * np.tanh(logits / self.logit_cap) if self.logit_cap else logits


class Whisper:
    """Radford et al., arXiv 2212.04356, section 2.2; the logits after the last of `ids`."""

    NAME, LIST = "random-whisper-f32", "speech.txt"

    def __init__(self, tests):
        model = Model(tests / f"data/{self.NAME}.gguf")
        self.fields, self.tensors = model.fields, model.tensors
        lines = dict(line.split(" ", 1) for line in (tests / "golden/speech" / self.LIST).read_text().splitlines())
        self.ids = [int(word) for word in lines["ids"].split()]
        mels, width, vocab, frames = (int(word) for word in lines["model"].split()[1:5])
        kept = np.fromfile(tests / f"golden/speech/{self.NAME}.f32", dtype="<f4")
        self.frames = kept[: frames * mels].reshape(frames, mels).astype(np.float64)
        at = frames * mels + self.rows(frames) * width
        self.kept = kept[at : at + len(self.ids) * vocab].reshape(len(self.ids), vocab)

    @staticmethod
    def rows(frames):
        return frames // 2

    def linear(self, name, x):
        return x @ self.tensors[name + ".weight"].T + self.tensors.get(name + ".bias", 0.0)

    def norm(self, name, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
        return x * self.tensors[name + ".weight"] + self.tensors.get(name + ".bias", 0.0)

    def convolution(self, name, x, stride):
        weight, padded = self.tensors[name + ".weight"], np.pad(x, ((1, 1), (0, 0)))
        places = range(0, len(x), stride)
        rows = [np.einsum("oik,ki->o", weight, padded[at : at + 3]) for at in places]
        return gelu(np.array(rows) + self.tensors[name + ".bias"])

    def attention(self, name, x, source, heads, causal=False, turn=lambda y: y):
        q, k, v = self.linear(name + ".q", x), self.linear(name + ".k", source), self.linear(name + ".v", source)
        q, k, v = (y.reshape(len(y), heads, -1) for y in (q, k, v))
        q, k = turn(q), turn(k)
        scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
        if causal:
            scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return self.linear(name + ".out", np.einsum("hqk,khd->qhd", weights, v).reshape(len(x), -1))

    def feed_forward(self, block, x):
        return x + self.linear(block + "ffn.fc2", gelu(self.linear(block + "ffn.fc1", self.norm(block + "norm_ffn", x))))

    def logits(self, changes):
        """All rows [ids, vocab]."""
        fields = self.fields | changes
        get = lambda side, key: fields[f"stt.whisper.{side}.{key}"]
        x = self.convolution("enc.conv.1", self.convolution("enc.conv.0", self.frames, 1), 2)
        x = x + self.tensors["enc.pos_emb.weight"][: len(x)]
        heads = get("encoder", "n_heads")
        for layer in range(get("encoder", "n_layers")):
            block = f"enc.blocks.{layer}."
            normed = self.norm(block + "norm_attn", x)
            x = self.feed_forward(block, x + self.attention(block + "attn", normed, normed, heads))
        encoded = self.norm("enc.final_norm", x)
        embedding = self.tensors["dec.token_embd.weight"]
        x = embedding[self.ids] + self.tensors["dec.pos_emb.weight"][: len(self.ids)]
        heads = get("decoder", "n_heads")
        for layer in range(get("decoder", "n_layers")):
            block = f"dec.blocks.{layer}."
            normed = self.norm(block + "norm_self", x)
            x = x + self.attention(block + "self_attn", normed, normed, heads, causal=True)
            x = x + self.attention(block + "cross_attn", self.norm(block + "norm_cross", x), encoded, heads)
            x = self.feed_forward(block, x)
        return self.norm("dec.final_norm", x) @ embedding.T

    def mutations(self):
        """Changes, and the result if it is known without computing."""
        encoder, decoder, front = "stt.whisper.encoder.", "stt.whisper.decoder.", "stt.frontend."
        languages = "stt.capability.lang_detect"
        yield from [
            # Honoured.
            ({encoder + "n_layers": 1}, None),
            ({decoder + "n_layers": 1}, None),
            ({encoder + "n_heads": 4, decoder + "n_heads": 4}, None),
            # Without effect: what the tensors of the file say, and what is for the text around the logits.
            ({front + "window": "hann"}, SAME),
            ({front + "mel_norm": "htk"}, SAME),
            ({front + "f_min": 20.0}, SAME),
            ({front + "f_max": 7600.0}, SAME),
            ({front + "chunk_length": 15}, SAME),
            ({front + "n_samples": 240000}, SAME),
            ({front + "nb_max_frames": 1500}, SAME),
            ({front + "dither": 0.0}, SAME),
            ({front + "num_mels": 16}, SAME),
            ({"stt.capability.timestamps": False}, SAME),
            ({"stt.whisper.transcribe_token_id": 300}, SAME),
            ({"stt.whisper.translate_token_id": 300}, SAME),
            ({"stt.whisper.suppress_tokens": [1, 2, 3]}, SAME),
            ({"stt.whisper.begin_suppress_tokens": [1, 2, 3]}, SAME),
        ]
        for changes in [
            {encoder + "n_layers": 30},
            {decoder + "n_layers": 30},
            {encoder + "d_model": 32, decoder + "d_model": 32},
            {encoder + "d_model": 32},
            {encoder + "n_heads": 4},
            {decoder + "n_heads": 4},
            {encoder + "n_heads": 3, decoder + "n_heads": 3},
            {encoder + "ffn_dim": 64, decoder + "ffn_dim": 64},
            {decoder + "ffn_dim": 64},
            {encoder + "num_mel_bins": 8},
            {encoder + "max_source_positions": 30},
            {decoder + "max_target_positions": 48},
            {decoder + "vocab_size": 299},
            {encoder + "activation": "relu"},
            {decoder + "activation": "relu"},
            {decoder + "tie_word_embeddings": False},
            {decoder + "scale_embedding": True},
            {front + "type": "raw"},
            {front + "num_mels": 8},
            {front + "sample_rate": 8000},
            {front + "n_fft": 512},
            {front + "n_fft": 512, front + "win_length": 512},
            {front + "win_length": 320},
            {front + "hop_length": 80},
            {front + "normalize": "per_feature"},
            {front + "pad_mode": "constant"},
            {front + "center": False},
            {front + "pre_emphasis": 0.97},
            {front + "dither": 1e-05},
            {"stt.whisper.no_timestamps_token_id": 300},
            {"stt.whisper.sot_token_id": 300},
            {"stt.whisper.prev_sot_token_id": 300},
            {languages: True, "stt.whisper.transcribe_token_id": 300},
            {languages: True, "stt.capability.translate": True, "stt.whisper.translate_token_id": 300},
            {"stt.whisper.suppress_tokens": "none"},
            {languages: 1},
            {"stt.capability.translate": 1},
        ]:
            yield changes, REFUSED


class Moonshine(Whisper):
    """Jeffries et al., arXiv 2410.15608, section 3.1."""

    NAME, LIST = "random-moonshine-f32", "moonshine.txt"

    @staticmethod
    def rows(frames):
        return (((frames - 127) // 64 + 1 - 7) // 3 + 1 - 3) // 2 + 1

    def convolution(self, number, x, stride):
        weight = self.tensors[f"enc.conv.{number}.weight"]
        taps = weight.shape[-1]
        rows = [np.einsum("oik,ki->o", weight, x[at : at + taps]) for at in range(0, len(x) - taps + 1, stride)]
        return np.array(rows) + self.tensors.get(f"enc.conv.{number}.bias", 0.0)

    @staticmethod
    def turner(fields):
        """Rotates neighbouring pairs at the front of each head by the position."""
        base, part = fields.get("stt.moonshine.rope_theta", 10000.0), fields["stt.moonshine.partial_rotary_factor"]

        def turn(y):
            count = int(y.shape[-1] * part)
            angles = np.arange(len(y))[:, None] * base ** (-np.arange(0, count, 2) / count)
            cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
            a, b, out = y[..., 0:count:2], y[..., 1:count:2], y.copy()
            out[..., 0:count:2], out[..., 1:count:2] = a * cos - b * sin, a * sin + b * cos
            return out

        return turn

    def logits(self, changes):
        fields = self.fields | changes
        get = lambda side, key: fields[f"stt.moonshine.{side}.{key}"]
        turn = self.turner(fields)
        x = np.tanh(self.convolution(0, self.frames, 64))
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        x = x * self.tensors["enc.conv.norm.weight"] + self.tensors["enc.conv.norm.bias"]
        x = gelu(self.convolution(2, gelu(self.convolution(1, x, 3)), 2))
        heads = get("encoder", "n_heads")
        for layer in range(get("encoder", "n_layers")):
            block = f"enc.blocks.{layer}."
            normed = self.norm(block + "norm_attn", x)
            x = self.feed_forward(block, x + self.attention(block + "attn", normed, normed, heads, turn=turn))
        encoded = self.norm("enc.final_norm", x)
        embedding = self.tensors["dec.token_embd.weight"]
        x = embedding[self.ids]
        heads = get("decoder", "n_heads")
        for layer in range(get("decoder", "n_layers")):
            block = f"dec.blocks.{layer}."
            normed = self.norm(block + "norm_self", x)
            x = x + self.attention(block + "self_attn", normed, normed, heads, causal=True, turn=turn)
            x = x + self.attention(block + "cross_attn", self.norm(block + "norm_cross", x), encoded, heads)
            up, gate = np.split(self.linear(block + "ffn.fc1", self.norm(block + "norm_ffn", x)), 2, axis=-1)
            x = x + self.linear(block + "ffn.fc2", up * gate / (1 + np.exp(-gate)))
        return self.norm("dec.final_norm", x) @ embedding.T

    def mutations(self):
        own, front = "stt.moonshine.", "stt.frontend."
        encoder, decoder, stem = own + "encoder.", own + "decoder.", own + "conv_stem."
        heads = lambda side, count: {side + "n_heads": count, side + "n_kv_heads": count}
        yield from [
            ({encoder + "n_layers": 1}, None),
            ({decoder + "n_layers": 1}, None),
            ({**heads(encoder, 4), **heads(decoder, 4), own + "partial_rotary_factor": 0.63}, None),
            ({own + "partial_rotary_factor": 0.4}, None),
            ({own + "rope_theta": 500.0}, None),
            ({front + "type": "samples"}, SAME),
            ({front + "num_mels": 80}, SAME),
            ({decoder + "max_position_embeddings": 48}, SAME),
            ({own + "pad_head_dim_to_multiple_of": 8}, SAME),
            ({own + "pad_token_id": 0}, SAME),
            ({own + "bos_token_id": 5}, SAME),
            ({stem + "channels": [1, 2, 3]}, SAME),
            ({stem + "kernel_sizes": [1, 2, 3]}, SAME),
            ({stem + "groupnorm_num_groups": 1}, SAME),
            ({stem + "groupnorm_eps": 1e-5}, SAME),
            ({"stt.capability.timestamps": True}, SAME),
        ]
        for changes in [
            {encoder + "n_layers": 30},
            {decoder + "n_layers": 30},
            {encoder + "d_model": 32, decoder + "d_model": 32},
            {encoder + "d_model": 32},
            heads(encoder, 4),
            heads(decoder, 3),
            {encoder + "ffn_dim": 32, decoder + "ffn_dim": 32},
            {decoder + "ffn_dim": 32},
            {decoder + "vocab_size": 299},
            {decoder + "tie_word_embeddings": False},
            {encoder + "activation": "relu"},
            {decoder + "activation": "gelu"},
            {own + "attention_bias": True},
            {own + "partial_rotary_factor": 0.0},
            {own + "partial_rotary_factor": 1.5},
            {own + "partial_rotary_factor": 0.67},
            {own + "rope_theta": 0.0},
            {own + "decoder_start_token_id": 300},
            {own + "eos_token_id": 300},
            {front + "sample_rate": 8000},
            {stem + "strides": [64, 3, 3]},
            {stem + "strides": [64, 3]},
            {stem + "groupnorm_num_groups": 2},
            {stem + "groupnorm_eps": 1e-3},
        ]:
            yield changes, REFUSED


def gelu(x):
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def gelu_tanh(x):
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def slopes(heads, bias):
    """Press et al., arXiv 2108.12409, section 3, and the paper's program for other numbers of heads than powers of two."""
    power = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-bias * (i + 1) / power) for i in range(power)]
    rest = [2 ** (-bias / 2 * (2 * i + 1) / power) for i in range(heads - power)]
    return first + rest


ROTARY = "llama qwen2 qwen3 gemma3 gptneox phi3 phi3-longrope olmo2 smollm3".split()
ALL = ROTARY + ["gemma2", "gpt2", "mpt"]
RMS = [name for name in ALL if name not in LAYER_NORM]
SAME, REFUSED = "same", "refused"


def mutations():
    """Changes, the models that they are tried on, and the result if it is known without computing."""
    for changes, names, result in [
        # Honoured.
        ({"rope.freq_base": 700.0}, ROTARY + ["gemma2"], None),
        ({"rope.scaling.factor": 4.0}, ROTARY, None),
        ({"rope.scale_linear": 4.0}, ROTARY, None),
        ({"rope.scale_linear": 4.0, "rope.scaling.factor": 2.0}, ROTARY, None),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}, ROTARY, None),
        ({"rope.scaling.type": "linear", "rope.scale_linear": 8.0}, ROTARY, None),
        ({"rope.scaling.attn_factor": 0.75}, ROTARY + ["gemma2"], None),
        ({"rope.dimension_count": 2}, ["gptneox", "qwen2", "qwen3", "phi3", "olmo2", "smollm3"], None),
        ({"attention.layer_norm_rms_epsilon": 0.25}, RMS, None),
        ({"attention.layer_norm_epsilon": 0.25}, LAYER_NORM, None),
        ({"block_count": 1}, ALL, None),
        ({"use_parallel_residual": False}, ["gptneox"], None),
        ({"attention.max_alibi_bias": 4.0}, ["mpt"], None),
        ({"attention.sliding_window": 5}, GEMMA, None),
        ({"attention.sliding_window_pattern": 3}, GEMMA, None),
        ({"attention.sliding_window_pattern": [True, False] * 4}, ["gemma3"], None),
        ({"rope.freq_base_swa": 300.0}, GEMMA, None),
        ({"attn_logit_softcapping": 0.5}, ["gemma2"], None),
        ({"final_logit_softcapping": 0.5}, GEMMA, None),
        # Honoured, and the same as without it.
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, ROTARY, SAME),
        ({"rope.scaling.factor": 0.0}, ROTARY, SAME),
        ({"rope.scaling.factor": 1.0}, ROTARY + ["gemma2"], SAME),
        ({"attention.head_count": "each"}, ALL, SAME),
        ({"attention.head_count_kv": "each"}, ALL, SAME),
        ({"feed_forward_length": "each"}, ALL, SAME),
        ({"attention.causal": True}, ALL, SAME),
        ({"expert_count": 0}, ALL, SAME),
        ({"logit_scale": 1.0}, ALL, SAME),
        # Without effect.
        ({"vocab_size": 17}, ALL, SAME),
        ({"rope.scaling.finetuned": True}, ALL, SAME),
        ({"rope.scaling.original_context_length": 16}, [name for name in ALL if "phi3" not in name], SAME),
        ({"attention.sliding_window": 5}, [name for name in ALL if name not in GEMMA and "phi3" not in name], SAME),
        ({"pooling_type": 2}, ALL, SAME),
        ({"tensor_data_layout": "Meta AI original pth"}, ALL, SAME),
        ({"expert_used_count": 2}, ALL, SAME),
        ({"rope.freq_base": 700.0}, ["gpt2", "mpt"], SAME),
        ({"rope.scaling.factor": 4.0}, ["gpt2", "mpt"], SAME),
        # Refused.
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}, ROTARY + ["gemma2"], REFUSED),
        ({"rope.scaling.factor": 4.0}, ["gemma2"], REFUSED),
        ({"attention.head_count": "odd"}, ALL, REFUSED),
        ({"attention.head_count_kv": "odd"}, ALL, REFUSED),
        ({"feed_forward_length": "odd"}, ALL, REFUSED),
        ({"feed_forward_length": 40}, ALL, REFUSED),
        ({"embedding_length": 64}, ALL, REFUSED),
        ({"block_count": 30}, ALL, REFUSED),
        ({"attention.key_length": 4}, ALL, REFUSED),
        ({"attention.value_length": 4}, ALL, REFUSED),
        ({"expert_count": 8}, ALL, REFUSED),
        ({"nextn_predict_layers": 1}, ALL, REFUSED),
        ({"logit_scale": 0.5}, ALL, REFUSED),
        ({"residual_scale": 0.5}, ALL, REFUSED),
        ({"embedding_scale": 12.0}, ALL, REFUSED),
        ({"full_attention_interval": 4}, ALL, REFUSED),
        ({"swiglu_clamp_exp": [0.0, 7.0]}, ALL, REFUSED),
        ({"attention.causal": False}, ALL, REFUSED),
        ({"attention.scale": 0.1}, ALL, REFUSED),
        ({"attention.output_scale": 0.5}, ALL, REFUSED),
        ({"attention.temperature_scale": 0.1}, ALL, REFUSED),
        ({"attention.temperature_length": 8192}, ALL, REFUSED),
        ({"attention.clamp_kqv": 0.5}, ALL, REFUSED),
        ({"attention.shared_kv_layers": 1}, ALL, REFUSED),
        ({"attention.kv_lora_rank": 8}, ALL, REFUSED),
        ({"rope.dimension_sections": [4, 4, 0, 0]}, ALL, REFUSED),
        ({"rope.scaling.alpha": 1000.0}, ALL, REFUSED),
        ({"rope.scaling.yarn_log_multiplier": 0.1}, ALL, REFUSED),
        ({"attn_logit_softcapping": 0.5}, [name for name in ALL if name != "gemma2"], REFUSED),
        ({"final_logit_softcapping": 0.5}, [name for name in ALL if name not in GEMMA], REFUSED),
        ({"use_parallel_residual": True}, [name for name in ALL if name != "gptneox"], REFUSED),
        ({"attention.max_alibi_bias": 8.0}, [name for name in ALL if name != "mpt"], REFUSED),
    ]:
        for name in names:
            yield name, changes, result


def written(value):
    """Type and text of a value."""
    if isinstance(value, bool):
        return f"b:{int(value)}"
    if isinstance(value, str):
        return f"s:{value.replace(' ', '_')}"
    if isinstance(value, list):
        types = {bool: "ab", int: "au", float: "af"}
        return f"{types[type(value[0])]}:{','.join(str(int(v) if isinstance(v, bool) else v) for v in value)}"
    return f"{'u' if isinstance(value, int) else 'f'}:{value}"


def spelled_out(model, changes):
    """The changes with lists of a number for each layer: all equal, or the last one different."""
    layers, out = model.fields[f"{model.arch}.block_count"], {}
    for key, value in changes.items():
        if value in ("each", "odd"):
            whole = model.fields.get(f"{model.arch}.{key}", model.fields[f"{model.arch}.attention.head_count"])
            last = whole if value == "each" else whole * 2
            value = [whole] * (layers - 1) + [last]
        out[key] = value
    return out


def line(name, changes, result, plain, logits):
    """Prints a line. A result of None is computed by `logits`."""
    if result is None:
        row = logits()
        if np.abs(row - plain).max() < 1e-3 * np.abs(plain).max():
            sys.exit(f"{name} {changes}: changes nothing here")
        result = " ".join(f"{logit:.7e}" for logit in row[:LOGITS])
    print(name, ";".join(f"{key}={written(value)}" for key, value in changes.items()), result)


def main():
    tests = Path(sys.argv[1])
    folder = tests / "golden/families"
    lines = dict(line.split(" ", 1) for line in (folder / "families.txt").read_text().splitlines() if not line.startswith("model"))
    ids = [int(word) for word in lines["ids"].split()]
    rows = [int(word) for word in lines["rows"].split()]
    models, plain = {}, {}
    for name in ALL:
        models[name] = model = Model(folder / f"{name}.gguf")
        kept = np.fromfile(folder / f"{name}.f32", dtype="<f4").reshape(2, len(rows), -1)[0]
        ours = model.logits(ids, {})[rows]
        error = np.abs(ours - kept).max() / np.abs(kept).max()
        if error > 2e-5:
            sys.exit(f"{name}: {error} from transformers")
        plain[name] = model.logits(ids[:TOKENS], {})[-1]
    for name, changes, result in mutations():
        changes = spelled_out(models[name], changes)
        line(name, changes, result, plain[name], lambda: models[name].logits(ids[:TOKENS], changes)[-1])
    for model in (Whisper(tests), Moonshine(tests)):
        plain = model.logits({})
        error = np.abs(plain - model.kept).max() / np.abs(model.kept).max()
        if error > 2e-5:
            sys.exit(f"{model.NAME}: {error} from transformers")
        for changes, result in model.mutations():
            line(model.NAME, changes, result, plain[-1], lambda: model.logits(changes)[-1])


if __name__ == "__main__":
    main()
