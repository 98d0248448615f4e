#!/usr/bin/env python3
"""Times the decode of one program with several instruction sets, in turn: ratios to the last of them.

    python3 isas.py PROGRAM MODEL... [--isas best scalar sse41 avx2 avx512] [--threads 1 2] [-n 16] [-r 7] [-p 0]

`best` is what the program takes unasked: the best instruction set, with narrower kernels where its core was measured to decode
faster with them. With `-p P` prefill of P tokens is timed instead. All stay warm (`bench --serve`) and answer turn by turn. Prints
a line for each model and number of threads: medians of the paired ratios with their quartiles, and tokens a second of the last.
"""

import argparse
import pathlib
import shlex
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import interleave  # noqa: E402


def served(program, model, isa, threads):
    isa = "" if isa == "best" else isa
    words = ["env", f"BROOKLET_ISA={isa}", program, "bench", "-m", model, "--serve", "-t", str(threads)]
    return interleave.Served(shlex.join(words))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--isas", nargs="+", default=["best", "sse41", "avx2", "avx512"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("-n", type=int, default=16, help="tokens that are decoded")
    parser.add_argument("-p", type=int, default=0, help="tokens of a prefill, timed instead")
    parser.add_argument("-r", type=int, default=7, help="turns")
    arguments = parser.parse_args()
    request = ("p", arguments.p) if arguments.p else ("n", arguments.n)
    for model in arguments.models:
        for threads in arguments.threads:
            programs = [served(arguments.program, model, isa, threads) for isa in arguments.isas]
            rates = [[] for _ in programs]
            for _ in range(arguments.r):
                for program, of in zip(programs, rates):
                    of.append(program.rate(*request))
            for program in programs:
                program.close()
            said = []
            for isa, of in zip(arguments.isas[:-1], rates):
                report = interleave.summary(of, rates[-1])
                low, high = report["ratio_quartiles"]
                said.append(f"{isa} {report['ratio']:.2f} ({low:.2f} to {high:.2f})")
            last = f"{arguments.isas[-1]} {statistics.median(rates[-1]):.1f} tokens/s"
            print(f"{pathlib.Path(model).name}, {threads} threads: {'; '.join(said)}; {last}", flush=True)


if __name__ == "__main__":
    main()
