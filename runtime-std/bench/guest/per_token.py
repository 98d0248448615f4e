#!/usr/bin/env python3
"""Guest instructions per token of brooklet and llama.cpp on emulated Arm cores: everything counted, model loading cancelled.

    gcc -O2 -shared -fPIC -o libcount.so count.c
    python3 per_token.py --plugin ./libcount.so --ours AARCH64-BROOKLET [--peer AARCH64-LLAMA-PEER]
                         [--cpu cortex-a76 cortex-a72] -- MODEL.gguf...

One thread; each program answers the requests of `bench --serve` (see ../interleave.py). Decode: runs of 8 and 24 tokens from an empty
cache, full logits each; prefill: 32 and 160 tokens, the last one's logits only. What a token costs is the difference over the number of
tokens. Instructions are not cycles. A program may be several words.
"""

import argparse
import re
import shlex
import subprocess


def count(args, cpu, program, model, requests):
    command = ["qemu-aarch64", "-cpu", cpu, "-plugin", args.plugin, "-L", args.sysroot, *program(model)]
    done = subprocess.run(command, input="".join(f"{line}\n" for line in requests), capture_output=True, text=True, check=False)
    found = re.search(r"guest_instructions (\d+)", done.stderr)
    if done.returncode or not found:
        raise SystemExit(f"{shlex.join(command)}: {done.stderr}")
    return int(found[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugin", required=True)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--cpu", nargs="+", default=["cortex-a76", "cortex-a72"])
    parser.add_argument("--sysroot", default="/usr/aarch64-linux-gnu")
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()
    programs = {"brooklet": lambda model: [*shlex.split(args.ours), "bench", "-m", model, "--serve", "-t", "1", "--window", "508"]}
    if args.peer:
        programs["llama.cpp"] = lambda model: [*shlex.split(args.peer), "bench", model, "--serve", "-t", "1"]
    for model in args.models:
        for cpu in args.cpu:
            for name, program in programs.items():
                counts = [count(args, cpu, program, model, [request]) for request in ("n 8", "n 24", "p 32", "p 160")]
                decode, prefill = (counts[1] - counts[0]) / 16e6, (counts[3] - counts[2]) / 128e6
                print(f"{model.rsplit('/', 1)[-1]} {cpu} {name}: decode {decode:.1f} M, prefill {prefill:.1f} M instructions a token",
                      flush=True)


if __name__ == "__main__":
    main()
