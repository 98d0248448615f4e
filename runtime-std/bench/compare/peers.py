#!/usr/bin/env python3
"""Times brooklet beside llama.cpp and ik_llama.cpp, built here from sources that you give, in turn.

    python3 peers.py BROOKLET MODEL... --llama FOLDER --ik FOLDER [--threads 1 2] [-p 256] [-n 64] [-r 5]
    python3 peers.py BROOKLET MODEL... --llama FOLDER --ik FOLDER --depth 3500 -n 24 [--cache-type q8_0]
    python3 peers.py BROOKLET MODEL... --llama FOLDER --level sse41 --threads 1
    python3 peers.py BROOKLET MODEL... --llama FOLDER --busy 1 --threads 2

FOLDER is a source tree with a CMakeLists.txt. What is built stays in `--work`, so that a second run builds nothing.
ik_llama.cpp runs twice: as it is, and with weights repacked when they are loaded (`-rtr 1`); the table names the better one of
each cell. All use flash attention. With `--level` the peers are built for that instruction set only and brooklet is told to use
no better one. With `--busy N` each program also runs beside N processes that never wait, and the table says which share of its
own quiet speed it keeps. A turn starts each program once, with its own warm-up; the order turns round. Prints a line of Markdown for each
model and number of threads: medians of tokens a second, and in brackets the median of the paired ratios brooklet / peer with
its quartiles. `reading` is the share of the rate at which brooklet's threads read the same bytes (`bench --json`).
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import interleave  # noqa: E402

# CMake options for each level; `native` is what the builds of both projects do unasked.
AVX2 = {option: "ON" for option in ("GGML_SSE42", "GGML_AVX", "GGML_AVX2", "GGML_FMA", "GGML_F16C", "GGML_BMI2")}
LEVELS = {
    "native": {"GGML_NATIVE": "ON"},
    "sse41": {option: "OFF" for option in AVX2} | {"GGML_SSE42": "ON"},
    "avx2": AVX2,
    "avxvnni": AVX2 | {"GGML_AVX_VNNI": "ON"},
}


def build(source, work, name, level):
    """The path of llama-bench, built unless it is there."""
    folder = work / f"{name}-{level}"
    program = folder / "bin" / "llama-bench"
    if not program.exists():
        options = {"CMAKE_BUILD_TYPE": "Release", "LLAMA_BUILD_SERVER": "OFF", "LLAMA_BUILD_TESTS": "OFF", "LLAMA_CURL": "OFF"}
        options |= {"GGML_NATIVE": "OFF"} | LEVELS[level]
        define = [f"-D{key}={value}" for key, value in options.items()]
        with open(work / f"{name}-{level}.log", "w") as log:
            for words in (["-S", source, "-B", folder, *define], ["--build", folder, "-j", "--target", "llama-bench"]):
                print(f"cmake {' '.join(map(str, words))}", file=sys.stderr)
                subprocess.run(["cmake", *words], check=True, stdout=log, stderr=log)
    return program


def printed_json(words, env=None):
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True, env=env).stdout)


class Peer:
    """A llama-bench, started anew for each turn."""

    def __init__(self, name, program, extra=()):
        self.name, self.program, self.extra = name, program, list(extra)

    def rates(self, model, threads, arguments):
        """Tokens a second of (prefill, decode); of prefill none at depth."""
        words = [self.program, "-m", model, "-t", str(threads), "-r", "1", "-fa", "1", "-o", "json", *self.extra]
        words += ["-ctk", arguments.cache_type, "-ctv", arguments.cache_type]
        if not arguments.depth:
            words += ["-p", str(arguments.p), "-n", str(arguments.n)]
        elif self.name == "llama":
            words += ["-p", "0", "-n", str(arguments.n), "-d", str(arguments.depth)]
        else:
            words += ["-p", "0", "-n", "0", "-gp", f"{arguments.depth},{arguments.n}"]
        runs = printed_json(words)
        decode = [run["avg_ts"] for run in runs if run["n_gen"]]
        prefill = [run["avg_ts"] for run in runs if not run["n_gen"]]
        return (prefill or [None])[0], decode[0]


class Brooklet:
    name = "brooklet"

    def __init__(self, program, isa):
        self.program, self.isa = program, isa
        self.shares = []

    def rates(self, model, threads, arguments):
        words = [self.program, "bench", "-m", model, "-t", str(threads), "-r", "1", "--json"]
        words += ["-n", str(arguments.n), "--cache-type", arguments.cache_type]
        if arguments.depth:
            words += ["-d", str(arguments.depth), "--window", str(arguments.depth + arguments.n + 64), "-p", "1"]
        else:
            words += ["-p", str(arguments.p)]
        report = printed_json(words, os.environ | {"BROOKLET_ISA": self.isa})
        self.shares.append(report["decode_bytes_per_second"] / report["reading_bytes_per_second"])
        return report["prefill_tps"], report["decode_tps"]


def cell(ours, peers):
    """Brooklet's median, then each peer's with the ratio; of ik's two the one that is faster."""
    if ours[0] is None or not peers:
        return "-"
    said = [f"{statistics.median(ours):.0f}"]
    best = {}
    for name, rates in peers.items():
        project = name.split(" ")[0]
        if project not in best or statistics.median(rates) > statistics.median(best[project][1]):
            best[project] = (name, rates)
    for name, rates in best.values():
        report = interleave.summary(ours, rates)
        low, high = report["ratio_quartiles"]
        said.append(f"{name} {report['peer_tps']:.0f} ({report['ratio']:.2f}, {low:.2f} to {high:.2f})")
    return "; ".join(said)


class Busy:
    """Processes that compute for some of every 16.7 milliseconds, as a screen's do, or always."""

    def __init__(self, number, milliseconds):
        self.number = number
        self.program = "while True: pass"
        if milliseconds:
            self.program = f"""
import time
while True:
    end = time.perf_counter() + {milliseconds / 1000}
    while time.perf_counter() < end: pass
    time.sleep({(16.7 - milliseconds) / 1000})"""

    def __enter__(self):
        words = [sys.executable, "-c", self.program]
        self.processes = [subprocess.Popen(words) for _ in range(self.number)]

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()


def kept(programs, model, threads, arguments):
    """The shares of their quiet speed that programs keep beside busy processes: of decode, then of prefill."""
    shares = {program.name: ([], []) for program in programs}
    for turn in range(arguments.r):
        for program in programs if turn % 2 == 0 else reversed(programs):
            quiet = program.rates(model, threads, arguments)
            with Busy(arguments.busy, arguments.busy_ms):
                loaded = program.rates(model, threads, arguments)
            for of, before, beside in zip(shares[program.name], quiet, loaded):
                if before is not None:
                    of.append(beside / before)
    cells = []
    for which in (1, 0):
        said = []
        for name, of in shares.items():
            if of[which]:
                low, middle, high = statistics.quantiles(of[which], n=4)
                said.append(f"{name} {middle:.2f} ({low:.2f} to {high:.2f})")
        cells.append("; ".join(said))
    return cells


def measure(programs, model, threads, arguments):
    found = {program.name: ([], []) for program in programs}
    for turn in range(arguments.r):
        for program in programs if turn % 2 == 0 else reversed(programs):
            if program.name not in found:
                continue
            try:
                prefill, decode = program.rates(model, threads, arguments)
            except subprocess.CalledProcessError as error:
                print(f"{program.name} cannot run {model}: {error}", file=sys.stderr)
                del found[program.name]
                continue
            found[program.name][0].append(prefill)
            found[program.name][1].append(decode)
    cells = []
    for which in (0, 1):
        ours = found["brooklet"][which]
        peers = {name: rates[which] for name, rates in found.items() if name != "brooklet" and rates[which][0] is not None}
        cells.append(cell(ours, peers))
    return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brooklet")
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--llama", type=pathlib.Path, help="source of llama.cpp")
    parser.add_argument("--ik", type=pathlib.Path, help="source of ik_llama.cpp")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("peers"), help="where they are built")
    parser.add_argument("--level", choices=LEVELS, default="native")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("-p", type=int, default=256, help="tokens of a prefill")
    parser.add_argument("-n", type=int, default=64, help="tokens that are decoded")
    parser.add_argument("--depth", type=int, help="tokens in the cache before those that are decoded")
    parser.add_argument("--cache-type", default="f16")
    parser.add_argument("-r", type=int, default=5, help="turns")
    parser.add_argument("--busy", type=int, default=0, help="processes beside, for the share of speed that is kept")
    parser.add_argument("--busy-ms", type=float, default=0, help="they compute for that many of every 16.7 milliseconds; always unless given")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    peers = []
    if arguments.llama:
        peers.append(Peer("llama", build(arguments.llama, arguments.work, "llama", arguments.level)))
    if arguments.ik:
        program = build(arguments.ik, arguments.work, "ik", arguments.level)
        peers += [Peer("ik", program), Peer("ik repacked", program, ["-rtr", "1"])]
    processor = [line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    print(f"{processor[0].split(': ')[1]}, level {arguments.level}, {arguments.r} turns\n")
    depth = f" after {arguments.depth}, {arguments.cache_type} cache" if arguments.depth else ""
    if arguments.busy:
        print(f"Share of quiet speed kept beside {arguments.busy} busy.\n\n| model, threads | decode{depth} | prefill |\n|---|---|---|")
    else:
        print(f"| model, threads | decode{depth} | reading | prefill {arguments.p} |\n|---|---|---|---|")
    for model in arguments.models:
        for threads in arguments.threads:
            ours = Brooklet(arguments.brooklet, "" if arguments.level == "native" else arguments.level)
            name = f"{pathlib.Path(model).stem}, {threads}"
            if arguments.busy:
                decode, prefill = kept([ours, *peers], model, threads, arguments)
                print(f"| {name} | {decode} | {'-' if arguments.depth else prefill} |", flush=True)
                continue
            prefill, decode = measure([ours, *peers], model, threads, arguments)
            share = statistics.median(ours.shares)
            print(f"| {name} | {decode} | {share:.0%} | {'-' if arguments.depth else prefill} |", flush=True)


if __name__ == "__main__":
    main()
