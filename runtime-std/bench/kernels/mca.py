#!/usr/bin/env python3
"""Micro-operations and cycles a byte of weights of the decode kernels, for processors that need not be at hand.

    RUSTFLAGS="-C symbol-mangling-version=v0" cargo build --release       names that say what a function is for
    python3 mca.py PROGRAM [--mca llvm-mca-16] [--formats Q4_0 Q8_0]

PROGRAM is this folder's bench for x86-64. The loop of each kernel is taken from it (the innermost that multiplies) and given to
llvm-mca. Its products tell how many weights an iteration reads. Prints a table for each instruction set: micro-operations a
byte, and cycles a byte if all loads hit the first-level cache, for each processor. llvm-mca has no model of Intel's small cores
after Silvermont (`slm`). For AArch64 `../guest` counts instructions: there the compiler makes one function of all formats.
"""

import argparse
import re
import subprocess

# Bits a weight.
BITS = {"Q4_0": 4.5, "Q4_1": 5, "Q5_0": 5.5, "Q5_1": 6, "Q8_0": 8.5, "IQ4_NL": 4.5}
BITS |= {"Q2_K": 2.625, "Q3_K": 3.4375, "Q4_K": 4.5, "Q5_K": 5.5, "Q6_K": 6.5625}
TYPES = {f"Block{name.replace('_K', 'K') if name.endswith('_K') else name}": name for name in BITS}
TYPES["BlockIq4Nl"] = TYPES.pop("BlockIQ4_NL")

# By instruction set: what its functions are called, and processors that have it.
SETS = {
    "sse41": (r"x86::sse41::decode::<", ["slm", "haswell", "znver4"]),
    "avx2": (r"x86::avx2::decode::<", ["haswell", "alderlake", "znver4"]),
    "avxvnni": (r"x86::avx_vnni::decode::<", ["alderlake", "sapphirerapids"]),
    "avx512": (r"x86::avx512::decode::<", ["icelake-server", "sapphirerapids", "znver4"]),
}

# Weights that an instruction multiplies.
PRODUCTS = [
    (r"v?pmaddubsw.*%zmm|vpdpbusd.*%zmm", 64),
    (r"(?:\{vex\} )?vp(?:maddubsw|dpbusd).*%ymm", 32),
    (r"pmaddubsw", 16),
]


def functions(program):
    """The name and the instructions (address, text) of each function of the kernels."""
    out = subprocess.run(["objdump", "-d", "--no-show-raw-insn", program], check=True, capture_output=True, text=True).stdout
    for part in re.split(r"\n\n", out):
        head = re.match(r"[0-9a-f]+ <(\S+)>:\n", part.lstrip("\n"))
        if head and "kernels" in head[1]:
            lines = re.findall(r"^ +([0-9a-f]+):\t(.*)$", part, re.M)
            yield head[1], [(int(at, 16), text.split("<")[0].split("#  ")[0].strip()) for at, text in lines]


def demangled(names):
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return dict(zip(names, done.stdout.splitlines()))


def weights_of(text):
    return next((weights for pattern, weights in PRODUCTS if re.match(pattern, text)), 0)


def loop(instructions):
    """The instructions of the smallest loop that multiplies."""
    found = []
    for i, (at, text) in enumerate(instructions):
        jump = re.match(r"j[a-z]+\s+([0-9a-f]+)$", text)
        if jump and instructions[0][0] <= int(jump[1], 16) <= at:
            body = [t for a, t in instructions[: i + 1] if a >= int(jump[1], 16)]
            if any(weights_of(t) for t in body):
                found.append(body)
    return min(found, key=len) if found else None


def analysed(mca, body, processor):
    """Micro-operations and cycles of an iteration."""
    text = "\n".join(re.sub(r"^(j[a-z]+\s+)([0-9a-f]+)$", r"\g<1>0x\2", line) for line in body) + "\n"
    words = [mca, "-mtriple=x86_64-linux-gnu", f"-mcpu={processor}", "-iterations=200"]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    operations = re.search(r"Total uOps:\s+(\d+)", done.stdout)
    cycles = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if not operations:
        return None
    return int(operations[1]) / 200, int(cycles[1]) / 200


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", metavar="PROGRAM")
    parser.add_argument("--mca", default="llvm-mca-16")
    parser.add_argument("--formats", nargs="+", default=list(BITS))
    arguments = parser.parse_args()
    found = dict(functions(arguments.program))
    names = demangled(list(found))
    named = {names[name]: body for name, body in found.items()}
    for isa, (pattern, processors) in SETS.items():
        rows = {}
        for name, instructions in named.items():
            block = next((TYPES[word] for word in re.findall(r"Block\w+", name) if word in TYPES), None)
            if block not in arguments.formats or not re.search(pattern, name):
                continue
            body = loop(instructions)
            if not body:
                continue
            size = sum(weights_of(text) for text in body) * BITS[block] / 8
            cells = []
            for processor in processors:
                result = analysed(arguments.mca, body, processor)
                cells.append(f"{result[0] / size:.2f}, {result[1] / size:.2f}" if result else "-")
            rows[block] = cells
        if rows:
            print(f"\n| {isa}: micro-operations, cycles a byte | {' | '.join(processors)} |\n|{'---|' * (len(processors) + 1)}")
            for block in (block for block in BITS if block in rows):
                print(f"| {block} | {' | '.join(rows[block])} |")


if __name__ == "__main__":
    main()
