#!/usr/bin/env python3
"""The ids that the boards' demonstration must produce, from a forward pass that shares no code with brooklet.

    python3 reference.py [FOLDER]        needs: pip install gguf==0.19.0 numpy

For random.gguf and other.gguf in FOLDER (by default core's test data, and the script's own for the ids) writes a file of the same
name with the ending .ids: the ids of the prompt and the ids generated. brooklet must give the same ids with f32 activations and an f32 cache. Says how far f32 rounding is
from changing one: the smallest difference between the best two logits, in standard deviations of the logits.

Weights are dequantised by the `gguf` package, everything is computed in float64 from the whole list of cached tokens, and
positions are counted in the cache at every step (StreamingLLM, Xiao et al., section 3.2): no ring, no rotated keys are kept.
"""

import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

PROMPT = "The sea was 7 °C."
TOKENS = 32
SINKS = 4
WINDOW = 20


def read(path):
    """Metadata and tensors of a model."""
    reader = GGUFReader(path)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
        tensors[tensor.name] = values.reshape([int(n) for n in reversed(tensor.shape)])
    return facts, tensors


def encode(facts, text):
    """SentencePiece: of all neighbours that make a token, the best-scored are merged first; the rest falls back to bytes."""
    ids = {token: i for i, token in enumerate(facts["tokenizer.ggml.tokens"])}
    scores = facts["tokenizer.ggml.scores"]
    symbols = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [(-scores[ids[a + b]], i) for i, (a, b) in enumerate(zip(symbols, symbols[1:])) if a + b in ids]
        if not pairs:
            break
        at = min(pairs)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    encoded = [facts["tokenizer.ggml.bos_token_id"]]
    for symbol in symbols:
        encoded += [ids[symbol]] if symbol in ids else [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return encoded


def rms_norm(x, weight, epsilon):
    return x / np.sqrt(np.mean(x * x) + epsilon) * weight


def rotate(heads, position, theta):
    """Rotary embedding of interleaved pairs (Su et al., RoFormer, equation 34)."""
    width = heads.shape[1]
    angles = position * theta ** (-np.arange(0, width, 2) / width)
    even, odd = heads[:, 0::2], heads[:, 1::2]
    rotated = np.empty_like(heads)
    rotated[:, 0::2] = even * np.cos(angles) - odd * np.sin(angles)
    rotated[:, 1::2] = even * np.sin(angles) + odd * np.cos(angles)
    return rotated


def attend(queries, keys, values):
    """Softmax attention; several query heads may share a key and value head."""
    group = len(queries) // keys.shape[1]
    out = []
    for head, query in enumerate(queries):
        scores = keys[:, head // group] @ query / np.sqrt(len(query))
        weights = np.exp(scores - scores.max())
        out.append(weights / weights.sum() @ values[:, head // group])
    return np.concatenate(out)


class Model:
    def __init__(self, path):
        self.facts, self.tensors = read(path)
        self.heads = self.facts["llama.attention.head_count"]
        self.kv_heads = self.facts["llama.attention.head_count_kv"]
        self.theta = self.facts["llama.rope.freq_base"]
        self.epsilon = self.facts["llama.attention.layer_norm_rms_epsilon"]
        self.cache = [([], []) for _ in range(self.facts["llama.block_count"])]

    def layer(self, index, x):
        def weight(name):
            return self.tensors[f"blk.{index}.{name}.weight"]

        normed = rms_norm(x, weight("attn_norm"), self.epsilon)
        keys, values = self.cache[index]
        keys.append((weight("attn_k") @ normed).reshape(self.kv_heads, -1))
        values.append((weight("attn_v") @ normed).reshape(self.kv_heads, -1))
        if len(keys) > SINKS + WINDOW:
            del keys[SINKS], values[SINKS]
        queries = rotate((weight("attn_q") @ normed).reshape(self.heads, -1), len(keys) - 1, self.theta)
        rotated = np.array([rotate(key, position, self.theta) for position, key in enumerate(keys)])
        x = x + weight("attn_output") @ attend(queries, rotated, np.array(values))
        normed = rms_norm(x, weight("ffn_norm"), self.epsilon)
        gate = weight("ffn_gate") @ normed
        return x + weight("ffn_down") @ (gate / (1 + np.exp(-gate)) * (weight("ffn_up") @ normed))

    def feed(self, token):
        """The logits that follow `token`."""
        x = self.tensors["token_embd.weight"][token]
        for index in range(len(self.cache)):
            x = self.layer(index, x)
        output = self.tensors.get("output.weight", self.tensors["token_embd.weight"])
        return output @ rms_norm(x, self.tensors["output_norm.weight"], self.epsilon)


def generate(path):
    """Ids of the prompt, ids generated, smallest margin."""
    model = Model(path)
    prompt, ids, margin = encode(model.facts, PROMPT), [], np.inf
    for token in prompt:
        logits = model.feed(token)
    while True:
        second, best = np.sort(logits)[-2:]
        margin = min(margin, (best - second) / logits.std())
        ids.append(int(np.argmax(logits)))
        if len(ids) == TOKENS:
            return prompt, ids, margin
        logits = model.feed(ids[-1])


def main():
    here = Path(__file__).resolve().parent
    models, out = (Path(sys.argv[1]),) * 2 if len(sys.argv) > 1 else (here.parents[2] / "core/tests/data", here)
    for name in ("other", "random"):
        prompt, ids, margin = generate(models / f"{name}.gguf")
        lines = [" ".join(map(str, line)) for line in (prompt, ids)]
        (out / f"{name}.ids").write_text("\n".join(lines) + "\n")
        print(f"{name}: smallest margin {margin:.3f}")


if __name__ == "__main__":
    main()
