#!/usr/bin/env python3
"""An independent forward pass of llama-family models in numpy, weights dequantised by the `gguf` package.

    python3 forward_f32.py MODEL IDS_FILE [--start A] [--count N] [--policy dense|window|sink|recompute]
                           [--sinks S] [--window W] [--banded] [--stride K] [--dump LOGITS] [--sink-mass] [--f64]

Scores N predictions, of tokens A+1 to A+N, the cache being empty before token A, and prints one JSON object. S and W
count cache entries and W includes the token itself. `--dump` writes one row of raw little-endian f32 logits per
prediction.

What is computed, row vectors throughout:
- RMSNorm (Zhang and Sennrich 2019): x * w / sqrt(mean(x^2) + eps).
- RoPE (Su et al. 2021) on neighbouring pairs (2i, 2i+1), angle = position * base^(-2i/d_head) / factor_i, the factors being
  the file's `rope_freqs.weight` (Llama 3) or 1; linear position scaling if the file asks for it.
- attention with grouped queries (Ainslie et al. 2023), scale 1/sqrt(head size); SwiGLU (Shazeer 2020).
- policy sink (Xiao et al. 2024, StreamingLLM): token t sees tokens j < S and j > t-W, and positions are those inside the
  cache. Keys are kept unrotated; for every single query the whole cache is rotated at positions 0, 1, 2, ... and the query
  at the last of them. `--banded` uses instead that scores depend on distance only: window keys at absolute positions,
  sinks against a query rotated at min(t, S+W-1). Both give the same numbers; the first is the definition, the second is fast.
- policy window is sink with S = 0; policy recompute evaluates the last W tokens afresh for each (K-th) prediction.
"""

import argparse
import json
import sys
import time

import gguf
import numpy as np

ROWS = 128  # queries per tile of attention, and rows per tile of the output projection


class Config:
    """Facts from the metadata."""

    def __init__(self, fields):
        arch = fields["general.architecture"].contents()
        if arch != "llama":
            sys.exit(f"family {arch}: this forward pass knows llama only")

        def get(key, default=None):
            field = fields.get(f"{arch}.{key}")
            if field is None and default is None:
                sys.exit(f"{arch}.{key} is missing")
            return default if field is None else field.contents()

        self.layers = get("block_count")
        self.dim = get("embedding_length")
        self.heads = get("attention.head_count")
        self.kv_heads = get("attention.head_count_kv", self.heads)
        self.head_dim = get("attention.key_length", self.dim // self.heads)
        if get("rope.dimension_count", self.head_dim) != self.head_dim:
            sys.exit("llama.cpp rotates whole heads in this family, and so does this forward pass")
        self.rope_base = get("rope.freq_base", 10000.0)
        self.eps = get("attention.layer_norm_rms_epsilon")
        scaling = get("rope.scaling.type", "none")
        if scaling not in ("none", "linear"):
            sys.exit(f"rope scaling {scaling}: unknown here")
        self.rope_scale = get("rope.scaling.factor") if scaling == "linear" else 1.0


class Weights:
    """Dequantised tensors by name; `take` forgets what it gives so that unread tensors can be reported."""

    def __init__(self, reader, dtype):
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.dtype = dtype

    def take(self, name):
        tensor = self.tensors.pop(name)
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        shape = tuple(int(n) for n in reversed(tensor.shape))
        return np.ascontiguousarray(values.reshape(shape), dtype=self.dtype)

    def take_if(self, name):
        return self.take(name) if name in self.tensors else None


class Model:
    """All weights of a llama-family file."""

    def __init__(self, path, dtype):
        reader = gguf.GGUFReader(path)
        self.config = Config(reader.fields)
        weights = Weights(reader, dtype)
        self.embedding = weights.take("token_embd.weight")
        factors = weights.take_if("rope_freqs.weight")
        self.blocks = [self.block(weights, number) for number in range(self.config.layers)]
        self.norm = weights.take("output_norm.weight")
        output = weights.take_if("output.weight")
        self.output = self.embedding if output is None else output
        if weights.tensors:
            sys.exit(f"tensors that this forward pass does not use: {sorted(weights.tensors)}")
        self.frequencies = rope_frequencies(self.config, factors)

    @staticmethod
    def block(weights, number):
        names = "attn_norm attn_q attn_k attn_v attn_output ffn_norm ffn_gate ffn_up ffn_down".split()
        return {name: weights.take(f"blk.{number}.{name}.weight") for name in names}


def rope_frequencies(config, factors):
    """Radians per position of each pair, f64."""
    pairs = np.arange(config.head_dim // 2, dtype=np.float64)
    plain = config.rope_base ** (-2.0 * pairs / config.head_dim) / config.rope_scale
    return plain if factors is None else plain / factors.astype(np.float64)


def rms_norm(x, weight, eps):
    return x * (1.0 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + x.dtype.type(eps))) * weight


def rotate(x, positions, frequencies):
    """RoPE of x [n, heads, head_dim] at one position per row; angles in f64, rounded once."""
    turned = np.empty_like(x)
    angles = np.asarray(positions, dtype=np.float64)[:, None, None] * frequencies
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    turned[..., 0::2] = even * cos - odd * sin
    turned[..., 1::2] = even * sin + odd * cos
    return turned


def softmax(scores):
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True)


class Attention:
    """Attention to the entries that a policy keeps: at most `sinks` + `window`; window None keeps everything."""

    def __init__(self, config, frequencies, sinks, window, banded, mass_of=0):
        self.config, self.frequencies = config, frequencies
        self.sinks, self.window, self.banded = sinks, window, banded
        self.scale = config.head_dim**-0.5
        self.mass_of = mass_of  # attention is summed over the first this many tokens
        self.mass = []  # per layer: sum over queries, by head

    def __call__(self, q, k, v):
        """Outputs [n, heads * head_dim] of q [n, heads, head_dim] over raw keys k and values v [n, kv_heads, head_dim]."""
        count = len(q)
        self.mass.append(np.zeros(self.config.heads))
        full = count if self.window is None else min(count, self.sinks + self.window)
        tiled = count if self.banded else full  # the rest is done one query at a time
        out = np.empty((count, self.config.heads * self.config.head_dim), dtype=q.dtype)
        self.tiles(q, k, v, tiled, out)
        for t in range(tiled, count):
            out[t] = self.single(t, q[t], k, v)
        return out

    def tiles(self, q, k, v, count, out):
        """Queries 0..count in tiles, by distance."""
        positions = np.arange(count)
        keys = rotate(k[:count], positions, self.frequencies)
        queries = rotate(q[:count], positions, self.frequencies)
        window = count if self.window is None else self.window
        at_sinks = rotate(q[:count], np.minimum(positions, self.sinks + window - 1), self.frequencies)
        for first in range(0, count, ROWS):
            last = min(first + ROWS, count)
            low = max(self.sinks, first - window + 1)
            t, j = np.arange(first, last)[:, None], np.arange(low, last)[None, :]
            seen = (j <= t) & (j > t - window)
            seen_sinks = np.arange(min(self.sinks, last))[None, :] <= t
            sinks = seen_sinks.shape[1]
            visible = np.concatenate([seen_sinks, seen], axis=1)
            value = np.concatenate([v[:sinks], v[low:last]])
            scores = np.concatenate(
                [self.scores(at_sinks[first:last], keys[:sinks]), self.scores(queries[first:last], keys[low:last])], axis=-1
            )
            scores = np.where(visible, scores, scores.dtype.type(-1e30))
            out[first:last] = self.weigh(scores, value, sinks, low)

    def single(self, t, query, k, v):
        """One query by the definition: the whole cache rotated at its positions."""
        kept = np.r_[0 : self.sinks, t - self.window + 1 : t + 1]
        positions = np.arange(len(kept))
        keys = rotate(k[kept], positions, self.frequencies)
        queries = rotate(query[None], positions[-1:], self.frequencies)
        low = self.sinks if self.sinks else t - self.window + 1
        return self.weigh(self.scores(queries, keys), v[kept], self.sinks, low)[0]

    def scores(self, queries, keys):
        """[heads, n, m]: scaled dot products, each group of query heads with its kv head."""
        grouped = queries.reshape(len(queries), self.config.kv_heads, -1, self.config.head_dim)
        flat = grouped.transpose(1, 2, 0, 3).reshape(self.config.kv_heads, -1, self.config.head_dim)
        product = flat @ keys.transpose(1, 2, 0)
        return (product * product.dtype.type(self.scale)).reshape(self.config.heads, len(queries), len(keys))

    def weigh(self, scores, values, sinks, low):
        """[n, heads * head_dim]: softmax over all entries, then the weighted sum of values."""
        weights = softmax(scores)
        if self.mass_of:
            first = weights[..., :sinks][..., : self.mass_of].sum(axis=(-1, -2), dtype=np.float64)
            rest = max(0, self.mass_of - max(low, sinks)) if low == sinks else max(0, self.mass_of - low)
            self.mass[-1] += first + weights[..., sinks : sinks + rest].sum(axis=(-1, -2), dtype=np.float64)
        heads, rows, entries = weights.shape
        flat = weights.reshape(self.config.kv_heads, -1, entries) @ values.transpose(1, 0, 2)
        return flat.reshape(heads, rows, -1).transpose(1, 0, 2).reshape(rows, -1)


def hidden_states(model, ids, attention):
    """The normed last hidden state of every token, [n, dim]."""
    config = model.config
    x = model.embedding[ids]
    for block in model.blocks:
        normed = rms_norm(x, block["attn_norm"], config.eps)
        split = lambda name, heads: (normed @ block[name].T).reshape(len(x), heads, config.head_dim)
        q, k, v = split("attn_q", config.heads), split("attn_k", config.kv_heads), split("attn_v", config.kv_heads)
        x = x + attention(q, k, v) @ block["attn_output"].T
        normed = rms_norm(x, block["ffn_norm"], config.eps)
        gate = normed @ block["ffn_gate"].T
        x = x + (gate / (1.0 + np.exp(-gate)) * (normed @ block["ffn_up"].T)) @ block["ffn_down"].T
    return rms_norm(x, model.norm, config.eps)


def score(model, hidden, targets, dump):
    """Negative log-likelihoods of the targets, f64; rows of logits go to `dump` if given."""
    nll = np.empty(len(targets))
    for first in range(0, len(targets), ROWS):
        logits = hidden[first : first + ROWS] @ model.output.T
        if dump:
            dump.write(logits.astype("<f4").tobytes())
        wide = logits.astype(np.float64)
        top = wide.max(axis=1)
        normaliser = top + np.log(np.exp(wide - top[:, None]).sum(axis=1))
        nll[first : first + ROWS] = normaliser - wide[np.arange(len(wide)), targets[first : first + ROWS]]
    return nll


def recompute(model, ids, args, make, dump):
    """The last `window` tokens afresh for every `stride`-th prediction."""
    nll = []
    for t in range(0, args.count, args.stride):
        low = max(0, t - args.window + 1)
        hidden = hidden_states(model, ids[low : t + 1], make(0, None))
        nll.append(score(model, hidden[-1:], ids[t + 1 : t + 2], dump)[0])
    return np.array(nll)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("ids")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--count", type=int)
    parser.add_argument("--policy", choices=["dense", "window", "sink", "recompute"], default="dense")
    parser.add_argument("--sinks", type=int, default=4)
    parser.add_argument("--window", type=int, default=508)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--banded", action="store_true")
    parser.add_argument("--dump")
    parser.add_argument("--sink-mass", action="store_true")
    parser.add_argument("--f64", action="store_true")
    return parser.parse_args()


def main():
    args = arguments()
    dtype = np.float64 if args.f64 else np.float32
    model = Model(args.model, dtype)
    ids = np.array(open(args.ids).read().split(), dtype=np.int64)[args.start :]
    args.count = len(ids) - 1 if args.count is None else args.count
    if not 0 < args.count < len(ids):
        sys.exit(f"--count {args.count}: the file holds {len(ids) - 1} predictions after --start")
    sinks = args.sinks if args.policy == "sink" else 0
    window = args.window if args.policy in ("window", "sink") else None
    mass_of = args.sinks if args.sink_mass else 0
    make = lambda s, w: Attention(model.config, model.frequencies, s, w, args.banded, mass_of)
    dump = open(args.dump, "wb") if args.dump else None
    started = time.time()
    report = {"model": args.model, "policy": args.policy, "sinks": sinks, "window": window, "start": args.start}
    if args.policy == "recompute":
        report["window"] = args.window
        nll = recompute(model, ids, args, make, dump)
    else:
        attention = make(sinks, window)
        hidden = hidden_states(model, ids[: args.count], attention)
        nll = score(model, hidden, ids[1 : args.count + 1], dump)
        if args.sink_mass:
            report["sink_mass"] = [(layer / args.count).round(6).tolist() for layer in attention.mass]
    mean = float(nll.mean())
    error = float(nll.std(ddof=1) / len(nll) ** 0.5) if len(nll) > 1 else 0.0
    report |= {"tokens": len(nll), "nll": round(mean, 6), "nll_error": round(error, 6), "ppl": round(float(np.exp(mean)), 4)}
    report |= {"dtype": np.dtype(dtype).name, "numpy": np.__version__, "gguf": gguf_version(), "seconds": round(time.time() - started, 1)}
    print(json.dumps(report))


def gguf_version():
    from importlib.metadata import version

    return version("gguf")


if __name__ == "__main__":
    main()
