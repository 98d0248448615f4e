#!/usr/bin/env python3
"""Times two builds of brooklet in turn on several models: ratios new/old from an empty cache.

    python3 speed.py OLD NEW MODEL... [--threads 2 1] [-p 256] [-n 64] [-r 9] [--isa avx2]
    python3 speed.py OLD NEW MODEL... --depth 3500 -n 24 [--cache-type q8_0]

With --depth tokens are decoded after a prefill of as many.

Both programs stay warm (`bench --serve`) and answer turn by turn, so that the machine's load hits
both alike. Prints a line for each model and number of threads: medians of the paired ratios new/old of
decode and prefill, with their quartiles. `wall` is by the clock; `cpu` is by the seconds that the
program's threads were on a processor, which says more of one thread on a busy machine (threads that
wait for each other may spin, which counts). OLD beside OLD shows what is noise. Exits with 1 if a
median of wall time is under `--least`.
"""

import argparse
import os
import pathlib
import shlex
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import interleave  # noqa: E402


class Program(interleave.Served):
    """A warm process, and what its threads have used of the processors."""

    def processor_seconds(self):
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def rates(self, kind, tokens):
        """Tokens a second by the clock and by the processors."""
        before = self.processor_seconds()
        wall = self.rate(kind, tokens)
        return wall, tokens / (self.processor_seconds() - before)


def compare(commands, arguments):
    """Measures of (old, new) by what is timed and by which clock."""
    programs = [Program(command) for command in commands]
    decode = ("d" if arguments.depth else "n", arguments.n)
    kinds = [decode] if arguments.depth else [("p", arguments.p), decode]
    found = {(kind, clock): ([], []) for kind, _ in kinds for clock in ("wall", "cpu")}
    if arguments.depth:
        for program in programs:
            program.rate("p", arguments.depth)
    for turn in range(arguments.r):
        for kind, tokens in kinds:
            for side in (0, 1) if turn % 2 == 0 else (1, 0):
                wall, cpu = programs[side].rates(kind, tokens)
                found[kind, "wall"][side].append(wall)
                found[kind, "cpu"][side].append(cpu)
    for program in programs:
        program.close()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("-p", type=int, default=256, help="tokens of a prefill")
    parser.add_argument("-n", type=int, default=64, help="tokens that are decoded")
    parser.add_argument("--depth", type=int, help="tokens in the cache before those that are decoded")
    parser.add_argument("--cache-type", default="f16")
    parser.add_argument("-r", type=int, default=9, help="turns")
    parser.add_argument("--isa", help="instruction set; the best unless given")
    parser.add_argument("--least", type=float, default=0.99)
    arguments = parser.parse_args()
    if arguments.isa:
        os.environ["BROOKLET_ISA"] = arguments.isa
    slower = False
    for model in arguments.models:
        for threads in arguments.threads:
            words = ["bench", "-m", model, "--serve", "-t", str(threads), "--cache-type", arguments.cache_type]
            if arguments.depth:
                words += ["--window", str(arguments.depth + arguments.n * arguments.r)]
            commands = [shlex.join([program, *words]) for program in (arguments.old, arguments.new)]
            found = compare(commands, arguments)
            said = []
            for kind, name in (("n", "decode"), ("d", f"decode after {arguments.depth}"), ("p", "prefill")):
                if (kind, "wall") not in found:
                    continue
                for clock in ("wall", "cpu"):
                    old, new = found[kind, clock]
                    report = interleave.summary(new, old)
                    low, high = report["ratio_quartiles"]
                    said.append(f"{name} {clock} {report['ratio']:.3f} ({low:.3f} to {high:.3f})")
                    slower |= clock == "wall" and report["ratio"] < arguments.least
                said[-1] += f" at {interleave.summary(*found[kind, 'wall'])['peer_tps']:.0f} tokens/s"
            print(f"{pathlib.Path(model).name}, {threads} threads: {'; '.join(said)}", flush=True)
    sys.exit(slower)


if __name__ == "__main__":
    main()
