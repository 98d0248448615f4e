#!/usr/bin/env python3
"""Times captions of brooklet and of faster-whisper or ONNX Runtime in turn, and counts their word errors.

    python3 captions.py BROOKLET MODEL.gguf FOLDER SOUND=TRANSCRIPT... [--threads 2] [-r 3] [--beam 1]

A run is a whole process: start, reading, decoding. Both have the same threads. Prints for each sound
the median seconds, the largest anonymous memory (looked at every 10 ms), and the word error rate in
per cent (case and punctuation ignored, numbers not made alike). MODEL.gguf and FOLDER must hold the
same weights: models/speech/README.md says where to get both. A FOLDER in the form of CTranslate2 needs
`pip install faster-whisper`, a Moonshine in that of ONNX Runtime `pip install onnxruntime soundfile`;
`--peer-python` names the Python that has it. ONNX Runtime hears the parts into which brooklet cuts the
sound, greedily too, and is told where they are.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time

PEER = """
import sys
from faster_whisper import WhisperModel
folder, sound, threads, beam, kind = sys.argv[1:]
model = WhisperModel(folder, device="cpu", compute_type=kind, cpu_threads=int(threads))
segments, _ = model.transcribe(sound, beam_size=int(beam), language="en", temperature=0.0, condition_on_previous_text=False)
print(" ".join(segment.text.strip() for segment in segments))
"""

ONNX = """
import sys, json, numpy as np, onnxruntime as ort, soundfile
folder, sound, threads, parts = sys.argv[1:]
options = ort.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = int(threads), 1
load = lambda name: ort.InferenceSession(f"{folder}/{name}.ort", options, providers=["CPUExecutionProvider"])
encoder, decoder = load("encoder_model"), load("decoder_model_merged")
named = {value.name: value for value in decoder.get_inputs()}
past = [name for name in named if name.startswith("past_key_values")]
_, heads, _, width = named[past[0]].shape
outputs = [value.name for value in decoder.get_outputs()]
pieces, data, at = [], open(f"{folder}/tokenizer.bin", "rb").read(), 0
while at < len(data):
    length, at = data[at], at + 1
    if length >= 128:
        length, at = length + 128 * (data[at] - 1), at + 1
    pieces.append(data[at : at + length])
    at += length
samples, rate = soundfile.read(sound, dtype="float32")
texts = []
for start, end in json.loads(parts):
    part = samples[round(start * rate) : round(end * rate)][None]
    inputs = {"input_values": part}
    if len(encoder.get_inputs()) > 1:
        inputs["attention_mask"] = np.ones(part.shape, np.int64)
    heard = encoder.run(None, inputs)[0]
    cache = {name: np.zeros((1, heads, 0, width), np.float32) for name in past}
    ids = [1]
    for step in range(-(-part.shape[1] * 13 // 32000)):
        inputs = {"input_ids": np.array([[ids[-1]]]), "encoder_hidden_states": heard, "use_cache_branch": np.array([step > 0]), **cache}
        if "encoder_attention_mask" in named:
            inputs["encoder_attention_mask"] = np.ones(part.shape, np.int64)
        found = dict(zip(outputs, decoder.run(None, inputs)))
        ids.append(int(found["logits"][0, -1].argmax()))
        if ids[-1] == 2:
            break
        for name in past:
            if step == 0 or ".decoder." in name:
                cache[name] = found[name.replace("past_key_values", "present")]
    text = b"".join(pieces[number] for number in ids[1:] if number < len(pieces) and number != 2)
    texts.append(text.decode(errors="replace").replace(chr(0x2581), " ").strip())
print(" ".join(texts))
"""


def parts(command):
    """Where a model without times has cut the sound, as JSON."""
    lines = subprocess.run([*command, "--format", "jsonl"], check=True, capture_output=True, text=True).stdout.splitlines()
    captions = map(json.loads, lines)
    return json.dumps([(caption["start"], caption["end"]) for caption in captions])


def words(text):
    return re.sub(r"[^a-z0-9' ]", " ", text.lower().replace("\u2019", "'")).split()


def errors(reference, heard):
    """Word error rate: the fewest insertions, deletions and replacements, by the reference's words."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(reference, 1):
        above_left, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            above = row[j]
            row[j] = min(above + 1, row[j - 1] + 1, above_left + (word != other))
            above_left = above
    return 100 * row[-1] / len(reference)


def anonymous(pid):
    """Anonymous memory of a process in kB; 0 once it has ended."""
    try:
        with open(f"/proc/{pid}/status") as status:
            return next((int(line.split()[1]) for line in status if line.startswith("RssAnon")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def run(command):
    """Text, seconds, and the peak of anonymous memory in kB."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous(process.pid))
        time.sleep(0.01)
    seconds = time.monotonic() - start
    if process.returncode:
        sys.exit(f"{command[0]} has failed")
    return process.stdout.read(), seconds, peak


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brooklet")
    parser.add_argument("model")
    parser.add_argument("folder")
    parser.add_argument("sounds", nargs="+", metavar="SOUND=TRANSCRIPT")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--beam", type=int, default=1, help="of the peer")
    parser.add_argument("--kind", default="int8", help="compute type of the peer")
    parser.add_argument("-r", type=int, default=3)
    parser.add_argument("--peer-python", default=sys.executable)
    arguments = parser.parse_args()
    for pair in arguments.sounds:
        sound, transcript = pair.split("=")
        reference = words(open(transcript).read())
        ours = [arguments.brooklet, "caption", sound, "-m", arguments.model, "-t", str(arguments.threads), "--language", "en"]
        theirs = [arguments.peer_python, "-c", PEER, arguments.folder, sound, str(arguments.threads), str(arguments.beam), arguments.kind]
        peer = "faster-whisper"
        if os.path.exists(os.path.join(arguments.folder, "encoder_model.ort")):
            peer = "onnxruntime"
            theirs = [arguments.peer_python, "-c", ONNX, arguments.folder, sound, str(arguments.threads), parts(ours)]
        found = {"brooklet": [], peer: []}
        for turn in range(arguments.r):
            for name, command in sorted(zip(found, (ours, theirs)), reverse=turn % 2 == 1):
                found[name].append(run(command))
        for name, runs in found.items():
            seconds = statistics.median(run[1] for run in runs)
            peak = max(run[2] for run in runs)
            rate = errors(reference, words(runs[-1][0]))
            print(f"{os.path.basename(sound)}  {name:15} {seconds:6.2f} s  {peak / 1024:6.1f} MiB anonymous  {rate:5.2f} % word errors", flush=True)
        ratios = [peer[1] / our[1] for our, peer in zip(*found.values())]
        print(f"{os.path.basename(sound)}  brooklet takes 1/{statistics.median(ratios):.2f} of the peer's time", flush=True)


if __name__ == "__main__":
    main()
