#!/usr/bin/env python3
"""Times two builds of brooklet in turn on several models: ratios new/old of prefill and decode from an empty cache.

    python3 speed.py OLD NEW MODEL... [--threads 2 1] [-p 256] [-n 64] [-r 9] [--window W] [--isa avx2]

Both programs stay warm and alternate (`../interleave.py`), so that the machine's load hits both alike. Prints a line a model and number of
threads: medians of the paired ratios with their quartiles, and the tokens per second of NEW. OLD beside OLD shows what is noise.
Exits with 1 if a median ratio is under `--least` (0.99 unless given).
"""

import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys

DRIVER = pathlib.Path(__file__).resolve().parents[1] / "interleave.py"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("-p", type=int, default=256)
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("-r", type=int, default=9)
    parser.add_argument("--window", type=int, help="tokens of the window; the program's default unless given")
    parser.add_argument("--isa", help="instruction set; the best unless given")
    parser.add_argument("--least", type=float, default=0.99)
    arguments = parser.parse_args()
    environment = os.environ | ({"BROOKLET_ISA": arguments.isa} if arguments.isa else {})
    slower = False
    for model in arguments.models:
        for threads in arguments.threads:
            options = ["bench", "-m", model, "--serve", "-t", str(threads)]
            if arguments.window:
                options += ["--window", str(arguments.window)]
            old, new = (shlex.join([program, *options]) for program in (arguments.old, arguments.new))
            command = [sys.executable, str(DRIVER), "--peer", old, "--ours", new]
            command += ["-p", str(arguments.p), "-n", str(arguments.n), "-r", str(arguments.r)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            report = json.loads(done.stdout)
            words = []
            for what in ("decode", "prefill"):
                found = report[what]
                low, high = found["ratio_quartiles"]
                words.append(f"{what} {found['ratio']:.3f} ({low:.3f} to {high:.3f}), {found['ours_tps']:.0f} tokens/s")
                slower |= found["ratio"] < arguments.least
            print(f"{pathlib.Path(model).name} {threads} threads: {'; '.join(words)}", flush=True)
    sys.exit(slower)


if __name__ == "__main__":
    main()
