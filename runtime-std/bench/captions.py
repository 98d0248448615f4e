#!/usr/bin/env python3
"""Times captions of brooklet and of another program in turn, and counts their word errors.

    python3 captions.py BROOKLET MODEL.gguf PEER SOUND=TRANSCRIPT... [--threads 2] [-r 3] [--beam 1] [--ours=--once]

A run is a whole process: start, reading, decoding. Both have the same threads. Prints for each sound
the median seconds, the largest anonymous memory (looked at every 10 ms), and the word error rate in
per cent (case and punctuation ignored, numbers not made alike). No program makes a second try at a part, unless
`--ours` replaces brooklet's option `--once`. PEER may be `-`: then brooklet runs alone.
MODEL.gguf and PEER must hold the same weights: models/speech/README.md says where to get both. PEER is a
folder in the form of CTranslate2 (faster-whisper runs it: `pip install faster-whisper`), a folder with
Moonshine in that of ONNX Runtime (`pip install onnxruntime soundfile`), or a ggml-*.bin of whisper.cpp
(`oracles/gguf_to_ggml.py` writes one). That needs its library: `--whisper-cpp SOURCE` is a source tree with
a CMakeLists.txt, as the crate `whisper-rs-sys` has one, and `pip install soundfile soxr`; it is given decoded
samples, so that its time has no decoding. `--peer-python` names the Python that has the packages. ONNX Runtime
hears the parts into which brooklet cuts the sound, greedily too, and is told where they are.
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


DECODE = """
import sys, soundfile, soxr
samples, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
soxr.resample(samples.mean(axis=1), rate, 16000).astype("<f4").tofile(sys.argv[2])
"""


def whisper_cpp(source, work):
    """The program of `whisper_cpp.c`, built for this processor unless it is there."""
    program = os.path.join(work, "whisper_cpp")
    if not os.path.exists(program):
        build = os.path.join(work, "build")
        options = ["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DWHISPER_BUILD_TESTS=OFF", "-DWHISPER_BUILD_EXAMPLES=OFF", "-DGGML_NATIVE=ON"]
        with open(os.path.join(work, "build.log"), "w") as log:
            for words in (["-S", source, "-B", build, *options], ["--build", build, "-j"]):
                subprocess.run(["cmake", *words], check=True, stdout=log, stderr=log)
        libraries = [os.path.join(folder, name) for folder, _, names in os.walk(build) for name in names if name.endswith(".a")]
        own = os.path.join(os.path.dirname(os.path.abspath(__file__)), "whisper_cpp.c")
        includes = [f"-I{source}/include", f"-I{source}/ggml/include"]
        subprocess.run(
            ["cc", "-O2", own, *includes, "-o", program, "-Wl,--start-group", *libraries, "-Wl,--end-group", "-lstdc++", "-fopenmp", "-lpthread", "-lm"], check=True
        )
    return program


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
    parser.add_argument("peer")
    parser.add_argument("sounds", nargs="+", metavar="SOUND=TRANSCRIPT")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--beam", type=int, default=1, help="of the peer")
    parser.add_argument("--kind", default="int8", help="compute type of the peer")
    parser.add_argument("-r", type=int, default=3)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--ours", default="--once", help="options of brooklet, in one word: --ours=--carry")
    parser.add_argument("--whisper-cpp", metavar="SOURCE")
    parser.add_argument("--work", default="whisper-cpp-build", help="folder for what is built of it, and for samples")
    arguments = parser.parse_args()
    for pair in arguments.sounds:
        sound, transcript = pair.split("=")
        reference = words(open(transcript).read())
        ours = [arguments.brooklet, "caption", sound, "-m", arguments.model, "-t", str(arguments.threads), "--language", "en", *arguments.ours.split()]
        python, threads = arguments.peer_python, str(arguments.threads)
        peer = theirs = None
        if arguments.peer == "-":
            pass
        elif arguments.whisper_cpp:
            peer = "whisper.cpp"
            os.makedirs(arguments.work, exist_ok=True)
            program = whisper_cpp(arguments.whisper_cpp, arguments.work)
            samples = os.path.join(arguments.work, os.path.basename(sound) + ".f32")
            subprocess.run([python, "-c", DECODE, sound, samples], check=True)
            theirs = [program, arguments.peer, samples, threads, str(arguments.beam)]
        elif os.path.exists(os.path.join(arguments.peer, "encoder_model.ort")):
            peer = "onnxruntime"
            theirs = [python, "-c", ONNX, arguments.peer, sound, threads, parts(ours)]
        else:
            peer = "faster-whisper"
            theirs = [python, "-c", PEER, arguments.peer, sound, threads, str(arguments.beam), arguments.kind]
        commands = {"brooklet": ours} | ({peer: theirs} if peer else {})
        found = {name: [] for name in commands}
        for turn in range(arguments.r):
            for name, command in sorted(commands.items(), reverse=turn % 2 == 1):
                found[name].append(run(command))
        for name, runs in found.items():
            seconds = statistics.median(run[1] for run in runs)
            peak = max(run[2] for run in runs)
            rate = errors(reference, words(runs[-1][0]))
            print(f"{os.path.basename(sound)}  {name:15} {seconds:6.2f} s  {peak / 1024:6.1f} MiB anonymous  {rate:5.2f} % word errors", flush=True)
        if not peer:
            continue
        ratios = [peer[1] / our[1] for our, peer in zip(*found.values())]
        print(f"{os.path.basename(sound)}  brooklet takes 1/{statistics.median(ratios):.2f} of the peer's time", flush=True)


if __name__ == "__main__":
    main()
