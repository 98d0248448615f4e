#!/usr/bin/env python3
"""Tiny random models of every family with the logits that Hugging Face transformers computes for them, dense and under a sink policy.

    python3 family_goldens.py ../../core/tests/golden/families [--peer PATH/TO/llama-peer] [--only NAME ...]

Writes into the folder

- `NAME.gguf`: the model in f32, with the names, shapes, metadata and permutations of llama.cpp's converter, without a tokenizer;
- `NAME.f32`: logits, little-endian f32. Two blocks of `len(rows)` rows of `vocab` numbers: the first block is dense, the second is
  the sink policy, or for models with learned positions (gpt2) the window by recompute;
- `families.txt`: lines of a key and words, for all models: `made-with`, `ids` (the tokens fed, from position 0), `rows` (the
  positions whose logits were kept; row `t` is computed from the tokens 0..=t), `sinks`, `window`, and one line
  `model NAME VOCAB sink|recompute` each.

The sink policy with S sinks and a window of W: the query at index t sees the tokens t-W+1..=t and the first S. Keys have their own
index as their position. The query has the position t towards the window and min(t, S+W-1) towards a sink that has left the window.
All layers' keys and values come from this same pass. A layer with a local window of L tokens sees no more of them: its last min(W, L), and the
first min(S, L-W) if W is smaller. The recompute
policy: row t is the last row of a dense pass over the last W tokens, numbered from 0.

transformers knows no such mask with two positions for a query. Its attention is therefore replaced by one that rotates by itself, while
the model is called with all positions 0, where the rotation is the identity (but for the factor of LongRoPE, which stays with the
model). For mpt (ALiBi) the biases are replaced, and the rest of the attention is the stock one: a table of the distances within the
cache for every query, which hides keys, too. Without a policy this must give the stock attention's logits, which is checked; as angles
are in f64 here and in f32 there, the logits of this attention are the ones kept. With `--peer`, llama.cpp must load each file and give
the dense logits: so the files are as its converter would write them. (It takes GELU from a table in f16, in its tanh form for gptneox
too: there it differs by some 1e-3, elsewhere by 1e-5 to 1e-4.)
"""

import argparse
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from torch.nn.functional import softmax
from transformers import AttentionInterface, AttentionMaskInterface

sys.path.append(str(Path(__file__).resolve().parents[2] / "core/tools"))
import gguf_file  # noqa: E402

TOKENS, SINKS, WINDOW = 200, 2, 40
ROWS = [0, 7, *range(39, 49), *range(TOKENS - 32, TOKENS)]
VOCAB, WIDTH = 64, 32
COMMON = dict(
    vocab_size=VOCAB,
    hidden_size=WIDTH,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    tie_word_embeddings=False,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
    attn_implementation="eager",
)
DEFAULT = dict(rope_type="default")
LINEAR = dict(rope_type="linear", factor=8.0)
GEMMA = dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=16, tie_word_embeddings=True, rms_norm_eps=1e-6)
SMALL_GEMMA = GEMMA | dict(num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"])


def longrope(rotated):
    """LongRoPE's factors; the long ones must never be used here."""
    short = np.geomspace(1.0, 3.0, rotated // 2).tolist()
    return dict(rope_type="longrope", rope_theta=10000.0, short_factor=short, long_factor=[9.0] * (rotated // 2))


# Name: architecture in GGUF, class prefix in transformers, settings beside COMMON.
MODELS = {
    "llama": ("llama", "Llama", {}),
    "qwen2": ("qwen2", "Qwen2", dict(tie_word_embeddings=True, rope_parameters=dict(rope_theta=1e6, rope_type="default"))),
    "qwen3": ("qwen3", "Qwen3", dict(head_dim=16, rope_parameters=dict(rope_theta=1e6, rope_type="default"))),
    "gemma2": ("gemma2", "Gemma2", GEMMA | dict(num_hidden_layers=3, attn_logit_softcapping=3.0, final_logit_softcapping=5.0)),
    "gemma3": ("gemma3", "Gemma3", GEMMA | dict(head_dim=8, query_pre_attn_scalar=8, num_hidden_layers=7, num_key_value_heads=1, intermediate_size=24)),
    "gptneox": ("gptneox", "GPTNeoX", dict(num_attention_heads=2)),
    "gptneox-sequential": ("gptneox", "GPTNeoX", dict(num_attention_heads=2, use_parallel_residual=False)),
    "phi3": ("phi3", "Phi3", {}),
    "phi3-longrope": (
        "phi3",
        "Phi3",
        dict(num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=1024, original_max_position_embeddings=256)
        | dict(partial_rotary_factor=0.75, rope_parameters=longrope(12) | dict(partial_rotary_factor=0.75), tie_word_embeddings=True),
    ),
    "olmo2": ("olmo2", "Olmo2", dict(rope_parameters=dict(rope_theta=5e5, rope_type="default"))),
    "gpt2": ("gpt2", "GPT2", dict(n_embd=WIDTH, n_layer=2, n_head=4, n_positions=256, tie_word_embeddings=True)),
    "gemma3-linear": (
        "gemma3",
        "Gemma3",
        GEMMA
        | dict(num_hidden_layers=3, layer_types=["sliding_attention", "full_attention", "sliding_attention"])
        | dict(rope_parameters={"sliding_attention": DEFAULT | dict(rope_theta=1e4), "full_attention": LINEAR | dict(rope_theta=1e6)}),
    ),
    "gemma3-middle": ("gemma3", "Gemma3", SMALL_GEMMA | dict(sliding_window=WINDOW + 1)),
    "gemma3-wide": ("gemma3", "Gemma3", SMALL_GEMMA | dict(sliding_window=WINDOW + SINKS + 8)),
    # As many key heads as query heads: for slim attention.
    "qwen2-mha": ("qwen2", "Qwen2", dict(num_key_value_heads=4, rope_parameters=dict(rope_theta=1e6, rope_type="default"))),
    "phi3-mha": (
        "phi3",
        "Phi3",
        dict(num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=1024, original_max_position_embeddings=256)
        | dict(partial_rotary_factor=0.75, rope_parameters=longrope(12) | dict(partial_rotary_factor=0.75)),
    ),
    # Layer 3 does not rotate; a layer on either side of it does.
    "smollm3": (
        "smollm3",
        "SmolLM3",
        dict(num_hidden_layers=5, tie_word_embeddings=True, rope_parameters=dict(rope_theta=5e6, rope_type="default")),
    ),
    # ALiBi, also with a number of heads that is not a power of two.
    "mpt": ("mpt", "Mpt", dict(d_model=WIDTH, n_heads=4, n_layers=2)),
    "mpt-6-heads": ("mpt", "Mpt", dict(d_model=24, n_heads=6, n_layers=2)),
}


# --- the model


def random_weights(model, gemma, rng):
    """Scales that keep attention far from uniform and logits a few units wide; no norm is all ones, no bias is zero."""
    for name, weight in sorted(model.named_parameters()):
        values = rng.standard_normal(tuple(weight.shape))
        if name.endswith("bias"):
            values *= 0.3
        elif weight.dim() == 1:
            values = values * 0.2 + (0.0 if gemma else 1.0)
        elif "embed_tokens" in name or "embed_in" in name or "wte" in name:
            values *= 2.0 / WIDTH**0.5 if model.config.tie_word_embeddings else 1.0
        elif "wpe" in name:
            values *= 0.3
        else:
            sharp = ("q_proj", "k_proj", "qkv", "query_key_value", "c_attn", "lm_head", "embed_out")
            fan_in = weight.shape[0 if "transformer.h" in name else 1]
            values *= (2.0 if any(word in name for word in sharp) else 1.0) / fan_in**0.5
        weight.data = torch.from_numpy(values.astype(np.float32))


def build(name):
    family, prefix, settings = MODELS[name]
    settings = COMMON | settings
    if prefix == "GPT2":
        settings = {key: value for key, value in settings.items() if not key.startswith(("hidden", "num_", "inter", "max_"))}
    if prefix == "Mpt":
        kept = ("vocab_size", "attn_implementation", "bos_token_id", "eos_token_id", "pad_token_id")
        settings = {key: COMMON[key] for key in kept} | MODELS[name][2] | dict(max_seq_len=512, tie_word_embeddings=True)
    text = "Text" if prefix == "Gemma3" else ""
    config = getattr(transformers, f"{prefix}{text}Config")(**settings)
    model = getattr(transformers, f"{prefix}{'LMHeadModel' if prefix == 'GPT2' else 'ForCausalLM'}")(config)
    random_weights(model, family.startswith("gemma"), np.random.default_rng(11 + list(MODELS).index(name)))
    model.tie_weights()
    return model.eval()


# --- the sink policy


def rotated(states, positions, frequencies):
    """The pairs (i, i + half) of each head's first channels turned by `positions` times their frequency; the rest as it is."""
    angles = positions.double()[:, None] * frequencies.double()[None, :]
    cos, sin = angles.cos().float(), angles.sin().float()
    half = len(frequencies)
    first, second, rest = states[..., :half], states[..., half : 2 * half], states[..., 2 * half :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


class Policy:
    """The keys that a query sees, and their positions. `frequencies` by layer, `local` windows by layer or None."""

    def __init__(self, model, sinks, window):
        self.sinks, self.window = sinks, window
        config = model.config
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
        rotary = next(module for name, module in model.named_modules() if name.endswith("rotary_emb"))
        of_kind = lambda kind: getattr(rotary, f"{kind}_inv_freq", None)
        self.frequencies = [rotary.inv_freq if of_kind(kind) is None else of_kind(kind) for kind in kinds]
        for layer, rotates in enumerate(getattr(config, "no_rope_layers", [])):
            # The list says 1 of the layers that do rotate.
            if not rotates:
                self.frequencies[layer] = rotary.inv_freq[:0]
        self.local = [config.sliding_window if kind == "sliding_attention" else None for kind in kinds]

    def attention(self, module, query, key, value, mask, scaling=None, softcap=None, **_):
        group = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        frequencies, local = self.frequencies[module.layer_idx], self.local[module.layer_idx] or TOKENS
        window, sinks = min(self.window, local), min(self.sinks, max(local - self.window, 0))
        at = torch.arange(query.shape[2])
        turned = rotated(key, at, frequencies).transpose(2, 3)
        scores = rotated(query, at, frequencies) @ turned
        towards_sinks = rotated(query, at.clamp(max=sinks + window - 1), frequencies) @ turned
        distance = at[:, None] - at[None, :]
        near = (distance >= 0) & (distance < window)
        sink = (distance >= 0) & ~near & (at[None, :] < sinks)
        scores = torch.where(near, scores, towards_sinks) * scaling
        if softcap is not None:
            scores = (scores / softcap).tanh() * softcap
        weights = softmax(scores.masked_fill(~(near | sink), -math.inf), dim=-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights


class Biases:
    """ALiBi under a policy: what is added to the score of each query and key, by their distance within the cache."""

    def __init__(self, model, sinks, window):
        at = torch.arange(TOKENS)
        distance = at[:, None] - at[None, :]
        near = (distance >= 0) & (distance < window)
        sink = (distance >= 0) & ~near & (at[None, :] < sinks)
        within = at.clamp(max=sinks + window - 1)[:, None] - at[None, :]
        stock = model.transformer.build_mpt_alibi_tensor(model.config.n_heads, 2)
        bias = stock[:, :, :1] * torch.where(near, distance, within)
        self.bias = bias.masked_fill(~(near | sink), -math.inf)


def logits(model, ids, policy=None):
    """Rows of logits; with a policy by its own attention."""
    given = torch.tensor(ids)[None]
    positions = {}
    if isinstance(policy, Biases):
        model.transformer.build_mpt_alibi_tensor = lambda *_, **__: policy.bias
    elif policy:
        AttentionInterface.register("policy", policy.attention)
        AttentionMaskInterface.register("policy", lambda *_, **__: None)
        model.config._attn_implementation = "policy"
        positions = dict(position_ids=torch.zeros_like(given))
    with torch.no_grad():
        rows = model(given, use_cache=False, **positions).logits[0]
    model.config._attn_implementation = "eager"
    if isinstance(policy, Biases):
        del model.transformer.build_mpt_alibi_tensor
    return rows.float().numpy()


# --- the file


def metadata(writer, family, config):
    """Writes the metadata that llama.cpp's converter writes for the family."""
    heads = config.num_attention_heads
    writer.add_name(f"random {family}")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_seq_len if family == "mpt" else config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(4 * config.hidden_size if family in ("gpt2", "mpt") else config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("no_vocab")
    if family in ("gpt2", "gptneox", "mpt"):
        writer.add_layer_norm_eps(config.layer_norm_eps if family == "gptneox" else config.layer_norm_epsilon)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_head_count_kv(config.num_key_value_heads)
    if family == "gptneox":
        share = config.rope_parameters["partial_rotary_factor"]
        writer.add_rope_dimension_count(int(share * (config.hidden_size // heads)))
        writer.add_parallel_residual(config.use_parallel_residual)
    if family == "mpt":
        writer.add_max_alibi_bias(float(config.attn_config.alibi_bias_max))
    if family in ("qwen3", "gemma2", "gemma3"):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if family in ("gemma2", "gemma3"):
        writer.add_sliding_window(config.sliding_window)
    if family == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if family == "gemma3":
        rope = config.rope_parameters["full_attention"]
        writer.add_rope_freq_base(rope["rope_theta"])
        if rope["rope_type"] == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
        if config.layer_types[1] == "full_attention":
            # The converter writes this for architectures whose pattern may vary; llama.cpp reads it here too.
            writer.add_sliding_window_pattern(2)
    if family in ("llama", "qwen2", "qwen3", "olmo2", "phi3", "smollm3"):
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if family in ("llama", "smollm3"):
        writer.add_rope_dimension_count(config.hidden_size // heads)
    if family == "phi3":
        share = config.rope_parameters.get("partial_rotary_factor", 1.0)
        writer.add_rope_dimension_count(int(share * config.hidden_size) // heads)
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
        writer.add_sliding_window(config.sliding_window or 0)
    if config_longrope(config):
        scale = config.max_position_embeddings / config.original_max_position_embeddings
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(config.original_max_position_embeddings)))


def config_longrope(config):
    parameters = getattr(config, "rope_parameters", None) or {}
    return parameters if parameters.get("rope_type") == "longrope" else None


def neighbours(weight, heads):
    """llama and smollm3: rows of a projection so that a pair's channels lie side by side."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def apart(weight, heads):
    """gptneox only: rows by head of (query, key, value) become all queries, all keys, all values."""
    return weight.reshape(heads, 3, -1, *weight.shape[1:]).swapaxes(0, 1).reshape(weight.shape)


def converted(family, config, name, weight):
    """The weight as the file stores it."""
    if family in ("llama", "smollm3") and name.endswith("q_proj.weight"):
        return neighbours(weight, config.num_attention_heads)
    if family in ("llama", "smollm3") and name.endswith("k_proj.weight"):
        return neighbours(weight, config.num_key_value_heads)
    if family == "gptneox" and "query_key_value" in name:
        return apart(weight, config.num_attention_heads)
    if family == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return weight.T
    if family.startswith("gemma") and "norm" in name:
        return weight + 1
    return weight


def write(path, family, model):
    config = model.config
    writer = gguf.GGUFWriter(path, family)
    metadata(writer, family, config)
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == family)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    if parameters := config_longrope(config):
        for key in ("long", "short"):
            writer.add_tensor(f"rope_factors_{key}.weight", np.array(parameters[f"{key}_factor"], np.float32))
    for name, weight in model.named_parameters():
        stored = names.get_name(name, (".weight", ".bias"))
        if stored is None:
            sys.exit(f"{family}: llama.cpp has no name for {name}")
        values = converted(family, config, name, weight.detach().numpy())
        writer.add_tensor(stored, np.ascontiguousarray(values, np.float32))
    gguf_file.finish(writer)


# --- checks, and the goldens


def by_llama_cpp(peer, path, ids):
    with tempfile.TemporaryDirectory() as folder:
        words, out = Path(folder, "ids"), Path(folder, "logits")
        words.write_text(" ".join(map(str, ids)))
        command = [peer, "logits", path, words, out, "-n", str(TOKENS), "--cache-type", "f32", "--flash", "off", "-t", "1"]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
        return np.fromfile(out, "<f4").reshape(TOKENS, VOCAB)


def make(name, folder, ids, peer):
    """Writes a model and its golden; gives its line of families.txt."""
    family = MODELS[name][0]
    model = build(name)
    write(folder / f"{name}.gguf", family, model)
    dense = logits(model, ids)
    if family == "gpt2":
        kind, second = "recompute", np.stack([logits(model, ids[max(0, t + 1 - WINDOW) : t + 1])[-1] for t in range(TOKENS)])
    else:
        policy = Biases if family == "mpt" else Policy
        kind, second = "sink", logits(model, ids, policy(model, SINKS, WINDOW))
        stock, dense = dense, logits(model, ids, policy(model, 0, TOKENS))
        error = abs(stock - dense).max()
        if error > 2e-4:
            sys.exit(f"{name}: {error} between the policy's attention and the stock one")
    np.stack([dense[ROWS], second[ROWS]]).astype("<f4").tofile(folder / f"{name}.f32")
    report = f"{name}: std {dense.std():.2f}, max {abs(dense).max():.1f}, {kind} differs by {abs(dense - second).max():.2f}"
    if peer:
        error = abs(by_llama_cpp(peer, folder / f"{name}.gguf", ids) - dense).max()
        report += f", llama.cpp by {error:.1e}"
        if error > 1e-2:
            print(f"{name}: llama.cpp gives other logits", file=sys.stderr)
    print(report, f"{(folder / f'{name}.gguf').stat().st_size} bytes")
    return f"model {name} {VOCAB} {kind}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer")
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    ids = np.random.default_rng(7).integers(0, VOCAB, TOKENS).tolist()
    models = [make(name, args.folder, ids, args.peer) for name in MODELS if not args.only or name in args.only]
    if not args.only:
        versions = {"transformers": transformers, "torch": torch, "numpy": np}
        made = " ".join(f"{name} {module.__version__}" for name, module in versions.items())
        lines = [f"made-with {made} gguf {metadata_version('gguf')}", f"ids {' '.join(map(str, ids))}", f"rows {' '.join(map(str, ROWS))}"]
        (args.folder / "families.txt").write_text("\n".join([*lines, f"sinks {SINKS}", f"window {WINDOW}", *models, ""]))


def metadata_version(package):
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    main()
