#!/usr/bin/env python3
"""Times captions of brooklet and of faster-whisper in turn, and counts their word errors.

    python3 captions.py BROOKLET MODEL.gguf CT2_FOLDER SOUND=TRANSCRIPT... [--threads 2] [-r 3] [--beam 1]

A run is a whole process: start, reading, decoding. Both have the same threads. Prints for each sound
the median seconds, the largest anonymous memory (looked at every 10 ms), and the word error rate in
per cent (case and punctuation ignored, numbers not made alike). MODEL.gguf and CT2_FOLDER must hold
the same weights: models/speech/README.md says where to get both. Needs `pip install faster-whisper`;
`--peer-python` names the Python that has it.
"""

import argparse
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
        found = {"brooklet": [], "faster-whisper": []}
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
