#!/usr/bin/env python3
"""Greedy text of a Moonshine file by brooklet and by Hugging Face transformers, on the same parts of real sounds.

    python3 moonshine_text.py BROOKLET MODEL.gguf SOUND...        needs: pip install torch transformers gguf soundfile

brooklet computes in f32 and cuts each sound at its pauses. Each part goes through transformers, with the file's weights in f32. Prints
the parts whose texts differ, and how many are equal. Sounds have one channel of 16,000 samples a second.
"""

import argparse
import json
import subprocess
import sys

import gguf
import soundfile
import torch
import transformers
from moonshine_goldens import gguf_file, named_of


def model_of(path):
    """The model of the file, and its tokens."""
    reader = gguf.GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    get = lambda key: fields[f"stt.moonshine.{key}"]
    sides = ("encoder", "decoder")
    config = transformers.MoonshineConfig(
        vocab_size=get("decoder.vocab_size"),
        hidden_size=get("decoder.d_model"),
        intermediate_size=get("decoder.ffn_dim"),
        max_position_embeddings=get("decoder.max_position_embeddings"),
        rope_parameters=dict(rope_type="default", rope_theta=get("rope_theta"), partial_rotary_factor=get("partial_rotary_factor")),
        **{f"{side}_num_hidden_layers": get(f"{side}.n_layers") for side in sides},
        **{f"{side}_num_attention_heads": get(f"{side}.n_heads") for side in sides},
        **{f"{side}_num_key_value_heads": get(f"{side}.n_kv_heads") for side in sides},
    )
    model = transformers.MoonshineForConditionalGeneration(config).eval()
    tensors = {tensor.name: gguf_file.whole(tensor) for tensor in reader.tensors}
    layers = [get(f"{side}.n_layers") for side in sides]
    weights = {f"model.{theirs}": torch.from_numpy(tensors[ours]) for ours, theirs in named_of(*layers)}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"proj_out.weight"}:
        sys.exit(f"weights that do not fit: {missing}, {unexpected}")
    model.tie_weights()
    return model, fields["tokenizer.ggml.tokens"]


def written(model, tokens, samples):
    most = -(-len(samples) * 13 // 32000)
    with torch.no_grad():
        ids = model.generate(torch.from_numpy(samples)[None], max_new_tokens=most, do_sample=False, num_beams=1)[0].tolist()
    raw = b""
    for token in (tokens[number] for number in ids[1:] if number != 2):
        raw += bytes([int(token[3:5], 16)]) if token.startswith("<0x") else token.encode()
    return " ".join(raw.decode(errors="replace").replace("\u2581", " ").split())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brooklet")
    parser.add_argument("model")
    parser.add_argument("sounds", nargs="+")
    args = parser.parse_args()
    model, tokens = model_of(args.model)
    equal = parts = 0
    for sound in args.sounds:
        samples, rate = soundfile.read(sound, dtype="float32")
        if rate != 16000 or samples.ndim != 1:
            sys.exit(f"{sound} has {rate} samples a second, or more than one channel")
        words = [args.brooklet, "caption", sound, "-m", args.model, "--format", "jsonl", "--f32-activations", "--cache-type", "f32"]
        for line in subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines():
            caption = json.loads(line)
            part = samples[round(caption["start"] * rate) : round(caption["end"] * rate)]
            theirs = written(model, tokens, part)
            parts += 1
            equal += theirs == caption["text"]
            if theirs != caption["text"]:
                print(f"{sound} {caption['start']:.2f}:\n  brooklet      {caption['text']}\n  transformers  {theirs}")
    print(f"{equal} of {parts} parts have the same text")


if __name__ == "__main__":
    main()
