#!/usr/bin/env python3
"""Greedy text of a Whisper file by brooklet and by OpenAI's own program, on real sounds.

    python3 whisper_text.py BROOKLET MODEL.gguf SOUND...        needs: pip install openai-whisper gguf soundfile

Both compute in f32 with the file's weights, write times, make no second try and feed no earlier text. Prints the words in which they differ,
and the share of OpenAI's words that are the same. In the last half minute they may differ by design: `transcribe` fills the features after the
sound's end with zeros, brooklet with those of silence, as `whisper.decode` does. Sounds have one channel of 16,000 samples a second.
"""

import argparse
import difflib
import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import soundfile
import torch
import whisper
from gguf_to_ggml import theirs

sys.path.append(str(Path(__file__).resolve().parents[2] / "core/tools"))
import gguf_file  # noqa: E402


def model_of(path):
    """OpenAI's model with the file's weights."""
    reader = gguf.GGUFReader(path)
    get = lambda key: reader.fields[f"stt.whisper.{key}"].contents()  # noqa: E731
    side = lambda side: [get(f"{side}.{key}") for key in ("d_model", "n_heads", "n_layers")]  # noqa: E731
    sizes = [get("encoder.num_mel_bins"), get("encoder.max_source_positions"), *side("encoder")]
    sizes += [get("decoder.vocab_size"), get("decoder.max_target_positions"), *side("decoder")]
    model = whisper.model.Whisper(whisper.model.ModelDimensions(*sizes)).eval()
    weights = {theirs(tensor.name): torch.from_numpy(gguf_file.whole(tensor)) for tensor in reader.tensors if not tensor.name.startswith("frontend.")}
    model.load_state_dict(weights)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brooklet")
    parser.add_argument("model")
    parser.add_argument("sounds", nargs="+")
    args = parser.parse_args()
    model = model_of(args.model)
    for sound in args.sounds:
        samples, rate = soundfile.read(sound, dtype="float32")
        if rate != 16000 or samples.ndim != 1:
            sys.exit(f"{sound} has {rate} samples a second, or more than one channel")
        options = dict(language="en", temperature=0.0, condition_on_previous_text=False, fp16=False)
        segments = model.transcribe(np.ascontiguousarray(samples), **options)["segments"]
        words = [args.brooklet, "caption", sound, "-m", args.model, "--format", "jsonl", "--language", "en", "--once"]
        words += ["--f32-activations", "--cache-type", "f32"]
        lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
        ours = " ".join(json.loads(line)["text"] for line in lines).split()
        other = " ".join(segment["text"].strip() for segment in segments).split()
        same = 0
        for kind, a, b, c, d in difflib.SequenceMatcher(None, other, ours, autojunk=False).get_opcodes():
            if kind == "equal":
                same += b - a
            else:
                print(f"{sound}: openai {' '.join(other[a:b])!r}, brooklet {' '.join(ours[c:d])!r}")
        print(f"{sound}: {same} of {len(other)} words are the same, {len(lines)} and {len(segments)} captions", flush=True)


if __name__ == "__main__":
    main()
