#!/usr/bin/env python3
"""Makes small random models with goldens, and checks the forward pass against llama.cpp on them.

    python3 random_goldens.py FOLDER --peer PATH/TO/llama-peer

For each model NAME: `NAME.gguf` and `NAME.txt`, lines of a key and numbers: `ids` that are fed; mean negative
log-likelihoods `dense`, `window W`, `sink S W`, `recompute W K` (every K-th position) by forward_f32.py in f64; `last`, the
logits that predict the last id. For models with f32 weights llama.cpp must give the same `dense`, `window` and `sink` numbers
(to 1e-5: it computes in f32) and the same greedy continuation, which is written as `greedy`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SMALL = "--dim 32 --heads 4 --head-dim 8 --ff 64 --vocab 64 --layers 2".split()
TYPES = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
MODELS = {
    "random-gqa-f32": ["--kv-heads", "2"],
    "random-mha-f32": ["--kv-heads", "4"],
    "random-mqa-llama3-f32": ["--kv-heads", "1", "--untied", "--rope-factors", "--theta", "500000"],
    "random-linear-f32": ["--kv-heads", "2", "--rope-linear", "4"],
} | {f"random-gqa-{name.lower()}": ["--kv-heads", "2", "--type", name] for name in TYPES}
POLICIES = {"dense": [], "window 32": ["--window", "32"], "sink 4 28": ["--sinks", "4", "--window", "28"]}
TOKENS = 160


def output_of(command):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout


def forward(model, ids, *more):
    return json.loads(output_of([sys.executable, HERE / "forward_f32.py", model, ids, "--f64", *more]))["nll"]


def goldens(model, ids, scratch):
    """Lines of the golden file."""
    lines = {name: forward(model, ids, "--policy", name.split()[0], *options) for name, options in POLICIES.items()}
    lines["recompute 32 16"] = forward(model, ids, "--policy", "recompute", "--window", "32", "--stride", "16")
    forward(model, ids, "--dump", scratch)
    lines["last"] = " ".join(f"{logit:.6f}" for logit in np.fromfile(scratch, dtype="<f4").reshape(TOKENS, -1)[-1])
    return lines


def check_against_llama_cpp(peer, model, ids, lines):
    """Exits if llama.cpp disagrees; gives its greedy continuation."""
    for name, options in POLICIES.items():
        report = json.loads(output_of([peer, "ppl", model, ids, "--cache-type", "f32", "--flash", "off", *options]))
        if abs(report["nll"] - lines[name]) > 1e-5:
            sys.exit(f"{model} {name}: {lines[name]} here, {report['nll']} by llama.cpp")
    rows = output_of([peer, "generate", model, ids, "-n", "32", "--cache-type", "f32", "--flash", "off"]).split()
    return " ".join(rows[::2])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer", required=True)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    words = " ".join(map(str, np.random.default_rng(7).integers(0, 64, TOKENS + 1)))
    ids, scratch = args.folder / "ids.tmp", args.folder / "logits.tmp"
    ids.write_text(words)
    for name, options in MODELS.items():
        model = args.folder / f"{name}.gguf"
        output_of([sys.executable, HERE / "random_gguf.py", model, *SMALL, *options])
        lines = {"ids": words} | goldens(model, ids, scratch)
        if name.endswith("-f32"):
            lines["greedy"] = check_against_llama_cpp(args.peer, model, ids, lines)
        text = "".join(f"{key} {value}\n" for key, value in lines.items())
        (args.folder / f"{name}.txt").write_text(text)
        print(f"{name}: {model.stat().st_size} bytes, dense {lines['dense']}")
    ids.unlink()
    scratch.unlink()


if __name__ == "__main__":
    main()
