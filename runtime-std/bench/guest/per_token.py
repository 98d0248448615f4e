#!/usr/bin/env python3
"""Guest instructions per token on an emulated Arm core: everything counted, model loading cancelled.

    gcc -O2 -shared -fPIC -o libcount.so count.c
    python3 per_token.py --plugin ./libcount.so --model MODEL.gguf [--cpu cortex-a76 cortex-a72] -- BROOKLET

One thread. Decode: runs of 8 and 24 tokens after the same prompt; prefill: prompts of 32 and 160 tokens, one token after them. The
difference over the number of tokens is what one costs. Instructions are not cycles. BROOKLET may be several words.
"""

import argparse
import re
import subprocess

PROMPT = ("The sea was calm that morning and the old man sat on the wall above the harbour with a cup of tea in his hand looking at the "
          "boats that came and went between the islands ")


def count(args, cpu, prompt, tokens):
    command = ["qemu-aarch64", "-cpu", cpu, "-plugin", args.plugin, "-L", args.sysroot, *args.program, "run", "-m", args.model, prompt,
               "-n", str(tokens), "--temp", "0", "--ignore-eos", "-t", "1", "--window", "508", "--stats"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    prompt_tokens = int(re.search(r"prompt +(\d+) tokens", done.stderr)[1])
    return int(re.search(r"guest_instructions (\d+)", done.stderr)[1]), prompt_tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugin", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--cpu", nargs="+", default=["cortex-a76", "cortex-a72"])
    parser.add_argument("--sysroot", default="/usr/aarch64-linux-gnu")
    parser.add_argument("program", nargs="+")
    args = parser.parse_args()
    for cpu in args.cpu:
        few, _ = count(args, cpu, PROMPT, 8)
        many, _ = count(args, cpu, PROMPT, 24)
        short, short_tokens = count(args, cpu, PROMPT, 1)
        long, long_tokens = count(args, cpu, PROMPT * 5, 1)
        print(f"{cpu}: decode {(many - few) / 16 / 1e6:.1f} M, prefill {(long - short) / (long_tokens - short_tokens) / 1e6:.1f} M "
              f"instructions a token (prompts of {short_tokens} and {long_tokens})", flush=True)


if __name__ == "__main__":
    main()
