#!/usr/bin/env python3
"""A tiny random Whisper, and what Hugging Face transformers computes with it.

    python3 speech_goldens.py [TESTS]        by default ../../core/tests

Writes into the folder TESTS

- `data/random-whisper-f32.gguf`: the model in f32, with the names and keys of `models/speech/whisper_to_gguf.py`, and with a vocabulary
  of the 256 bytes and one merge of two, Whisper's control tokens, and timestamps;
- `golden/speech/random-whisper-f32.f32`: little-endian f32. For each number of frames: the log-mel features fed, [frames, mels]; the
  output of the encoder, [frames / 2, width], after its last norm; the logits of the decoder, [ids, vocab];
- `golden/speech/speech.txt`: lines of a key and words: `made-with`, `ids` (the tokens fed to the decoder, from position 0), and one line
  `model NAME MELS WIDTH VOCAB FRAMES...` each.

transformers takes as many frames as the encoder has positions for. For fewer frames, it is a second model with the same weights
and the first positions only; the features are the first rows of those of the full length.

The weights are f32 numbers, and every result is computed in f64 and then rounded, so that it is the same on every machine, and an error
found against it is all of the other side. The script checks that transformers in f32 gives it too.
"""

import argparse
import copy
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType

sys.path.append(str(Path(__file__).resolve().parents[2] / "models/speech"))
import whisper_to_gguf  # noqa: E402

NAME = "random-whisper-f32"
SHAPE = whisper_to_gguf.Shape(
    encoder_layers=2,
    decoder_layers=2,
    width=64,
    heads=2,
    ffn=128,
    mels=16,
    source_positions=24,
    target_positions=32,
    vocab=300,
)
# The full length, and a part of it.
FRAMES = [48, 30]
IDS = 12
# In Whisper's order; timestamps fill the vocabulary.
CONTROL = "endoftext startoftranscript en translate transcribe startoflm startofprev nospeech notimestamps".split()

# Part of a tensor's name here, and in transformers.
NAMES = {
    "enc.": "model.encoder.",
    "dec.": "model.decoder.",
    "blocks": "layers",
    "conv.0": "conv1",
    "conv.1": "conv2",
    "pos_emb": "embed_positions",
    "token_embd": "embed_tokens",
    "final_norm": "layer_norm",
    "norm_attn": "self_attn_layer_norm",
    "norm_self": "self_attn_layer_norm",
    "norm_cross": "encoder_attn_layer_norm",
    "norm_ffn": "final_layer_norm",
    ".attn.": ".self_attn.",
    "cross_attn.": "encoder_attn.",
    "attn.q": "attn.q_proj",
    "attn.k": "attn.k_proj",
    "attn.v": "attn.v_proj",
    "attn.out": "attn.out_proj",
    "ffn.fc": "fc",
}


# --- the model


def random_weights(model, rng, width):
    """Scales that keep attention far from uniform and logits a few units wide; no norm is all ones, no bias is zero."""
    for name, weight in sorted(model.named_parameters()):
        values = rng.standard_normal(tuple(weight.shape))
        if name.endswith("bias"):
            values *= 0.3
        elif weight.dim() == 1:
            values = values * 0.2 + 1.0
        elif "embed_positions" in name:
            values *= 0.5
        elif "embed_tokens" in name:
            values *= 2.0 / width**0.5
        else:
            sharp = name.endswith(("q_proj.weight", "k_proj.weight"))
            values *= (1.5 if sharp else 1.0) / weight[0].numel() ** 0.5
        weight.data = torch.from_numpy(values.astype(np.float32))


def build(positions):
    """A model with `positions` of the encoder, its weights not yet set."""
    config = transformers.WhisperConfig(
        vocab_size=SHAPE.vocab,
        d_model=SHAPE.width,
        encoder_layers=SHAPE.encoder_layers,
        decoder_layers=SHAPE.decoder_layers,
        encoder_attention_heads=SHAPE.heads,
        decoder_attention_heads=SHAPE.heads,
        encoder_ffn_dim=SHAPE.ffn,
        decoder_ffn_dim=SHAPE.ffn,
        num_mel_bins=SHAPE.mels,
        max_source_positions=positions,
        max_target_positions=SHAPE.target_positions,
        activation_function="gelu",
        attn_implementation="eager",
        **dict.fromkeys(["bos_token_id", "eos_token_id", "pad_token_id"]),
    )
    return transformers.WhisperForConditionalGeneration(config).eval()


def shortened(model, positions):
    """The same model with the first `positions` of the encoder only."""
    short, weights = build(positions), copy.copy(model.state_dict())
    key = "model.encoder.embed_positions.weight"
    weights[key] = weights[key][:positions]
    short.load_state_dict(weights)
    return short


# --- the file


def vocabulary():
    tokens = [*sorted(whisper_to_gguf.letters()), "th", *(f"<|{word}|>" for word in CONTROL)]
    tokens += [f"<|{0.02 * step:.2f}|>" for step in range(SHAPE.vocab - len(tokens))]
    made = whisper_to_gguf.Vocabulary(tokens, merges=["t h"])
    control = ["startoftranscript", "translate", "transcribe", "startoflm", "startofprev", "nospeech"]
    made.suppressed = sorted([made.id("#"), made.id("["), *(made.id(f"<|{word}|>") for word in control)])
    made.suppressed_first = [made.id(whisper_to_gguf.spelled(" ")), made.id("<|endoftext|>")]
    return made


def theirs(name):
    for here, there in NAMES.items():
        name = name.replace(here, there)
    return name


def named(model):
    """Pairs of a name in the file and an array, in the order of a converted file."""
    for side in ("encoder", "decoder"):
        short = side[:3]
        if side == "decoder":
            yield "dec.token_embd.weight"
        yield f"{short}.pos_emb.weight"
        for _, names in whisper_to_gguf.weight_names(side, SHAPE):
            for name in names:
                yield f"{name}.weight"
                if not name.endswith(".k"):
                    yield f"{name}.bias"


def write(path, model):
    weights = {name: weight.detach().numpy() for name, weight in model.named_parameters()}
    tensors = [(name, weights.pop(theirs(name))) for name in named(model)]
    if weights:
        sys.exit(f"the file has no name for {', '.join(weights)}")
    facts = ("Random Whisper", "whisper-random", "MIT OR Apache-2.0", SHAPE, vocabulary())
    whisper_to_gguf.write(path, *facts, tensors, GGMLQuantizationType.F32)


# --- the goldens


def results(model, features, ids):
    """The encoder's output and the logits; `features` [frames, mels]."""
    with torch.no_grad():
        encoded = model.model.encoder(features.T[None]).last_hidden_state
        hidden = model.model.decoder(torch.tensor([ids]), encoder_hidden_states=encoded, use_cache=False).last_hidden_state
        return [encoded[0].numpy(), model.proj_out(hidden)[0].numpy()]


def golden(model, features, ids, results=results):
    """The arrays that the file keeps of one number of frames."""
    single = results(model, features, ids)
    exact = [values.astype("<f4") for values in results(copy.deepcopy(model).double(), features.double(), ids)]
    for values, other in zip(exact, single, strict=True):
        error = abs(values - other).max() / abs(values).max()
        if error > 2e-6:
            sys.exit(f"{len(features)} frames: f32 differs from f64 by {error}")
    print(f"{len(features)} frames: encoder std {exact[0].std():.2f}, logits std {exact[1].std():.2f}, max {abs(exact[1]).max():.1f}")
    return [features.numpy().astype("<f4"), *exact]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tests = Path(__file__).resolve().parents[2] / "core/tests"
    parser.add_argument("tests", type=Path, nargs="?", default=tests)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(23)
    model = build(SHAPE.source_positions)
    random_weights(model, rng, SHAPE.width)
    model.tie_weights()
    # Normalised log-mel features lie between some -1 and 1.5.
    features = torch.from_numpy(rng.uniform(-1.0, 1.5, (max(FRAMES), SHAPE.mels)).astype(np.float32))
    start = [vocabulary().id(f"<|{word}|>") for word in ("startoftranscript", "notimestamps")]
    ids = start + rng.integers(0, 256, IDS - len(start)).tolist()
    folders = args.tests / "data", args.tests / "golden/speech"
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    data, goldens = folders
    write(data / f"{NAME}.gguf", model)
    with open(goldens / f"{NAME}.f32", "wb") as file:
        for frames in FRAMES:
            for values in golden(shortened(model, frames // 2), features[:frames], ids):
                file.write(values.tobytes())
    versions = {"transformers": transformers, "torch": torch, "numpy": np}
    made = " ".join(f"{name} {module.__version__}" for name, module in versions.items())
    lines = [
        f"made-with {made} gguf {package_version('gguf')}",
        f"ids {' '.join(map(str, ids))}",
        f"model {NAME} {SHAPE.mels} {SHAPE.width} {SHAPE.vocab} {' '.join(map(str, FRAMES))}",
    ]
    (goldens / "speech.txt").write_text("\n".join([*lines, ""]))


def package_version(package):
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    main()
