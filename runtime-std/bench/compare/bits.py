#!/usr/bin/env python3
"""Compares two builds of brooklet bit by bit: logits, texts and files must be the same bytes.

    python3 bits.py OLD NEW                      both programs run
    python3 bits.py --save FOLDER OLD            keeps what OLD writes
    python3 bits.py FOLDER NEW                   compares with what was kept
    python3 bits.py OLD NEW --size short --runner "qemu-aarch64 -cpu cortex-a53 -L SYSROOT"

A case is one command. Most are `brooklet ppl --dump` on the models smollm2-135m and gemma3-270m
(both pulled before), the program's own `small`, and copies of it that `brooklet slim` makes: every
policy, type of cache and instruction set of this machine, one thread and two, tokens in chunks
(`prefill`) and one by one (`decode`). The others are the weight formats, the attention probe,
sampled texts, the tokens of a text, and the files of `brooklet slim` and `brooklet quantize`.

Says for each case `equal` or the first difference, and where the arena has another size. Exits
with 1 if a case differs. `--size full` runs all (some minutes), `quick` about half of them (a minute),
`short` what an emulator can do. `--only WORDS` runs the cases whose name has all the words.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile

TEXT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "emma.txt"
CACHES = ("f32", "f16", "q8_0")
POLICIES = ("sink", "window", "dense", "recompute")

SLIM = ["slim", "small", "-o", "{out}", "--calib", str(TEXT), "--calib-tokens", "256"]
# Copies of models that the cases run, and the commands that make them; `{out}` is the file.
COPIES = {
    # Keys alone in all layers; keys with rank-correction channels in one; keys and values in one.
    "slim": SLIM,
    "slim-kr": [*SLIM, "--bound", "0.0005", "--cache-type", "f16"],
    "slim-mixed": [*SLIM, "--bound", "0.0004", "--cache-type", "f16", "--drop-v"],
}
SMALL_FORMATS = ("F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL")
LARGE_FORMATS = ("Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K")
COPIES |= {f"small-{name}": ["quantize", "small", "{out}", name] for name in SMALL_FORMATS}
COPIES |= {f"smollm2-{name}": ["quantize", "smollm2-135m", "{out}", name] for name in LARGE_FORMATS}


class Case:
    """One command. It writes to `{out}` where that is among its words, else its standard output counts."""

    def __init__(self, name, isa, words, stdin=""):
        self.name, self.isa, self.words, self.stdin = name, isa, [str(word) for word in words], stdin


def score(model, policy, cache, threads, kind, sinks, window, count, stride):
    """The words of `ppl`: `prefill` scores every token, `decode` feeds every `stride`-th alone."""
    kept = ["--policy", policy]
    if policy == "sink":
        kept += ["--sinks", sinks, "--window", window]
    elif policy == "window":
        kept += ["--window", sinks + window]
    elif policy == "recompute":
        kept += ["--window", min(8, sinks + window)]
        count = min(count, 14)
    return [
        "ppl", "-m", model, "-f", TEXT, *kept, "--cache-type", cache, "-t", threads, "--count", count,
        "--stride", 1 if kind == "prefill" else min(stride, count // 3), "--json", "--dump", "{out}",
    ]  # fmt: skip


def grid(label, model, isas, sizes, every=1):
    """Policies x caches x kinds x threads x instruction sets, or one in `every` of them."""
    for i, isa in enumerate(isas):
        for p, policy in enumerate(POLICIES):
            for c, cache in enumerate(CACHES):
                for k, kind in enumerate(("prefill", "decode")):
                    for threads in (1, 2):
                        if (i + p + c + k + threads) % every:
                            continue
                        name = f"{label} {policy} {cache} {kind} {threads}t {isa}"
                        yield Case(name, isa, score(model, policy, cache, threads, kind, *sizes[kind]))


def cases(size, isas, copies):
    """All cases. Sizes are sinks, window, tokens, and the distance of those that are decoded."""
    if size == "short":
        isas = isas[-1:]
    vectors = [isa for isa in isas if isa != "scalar"]
    small = {"prefill": (4, 60, 300, 1), "decode": (4, 28, 200, 3)}
    large = {"prefill": (4, 40, 100, 1), "decode": (4, 20, 60, 4)}
    few = {"prefill": (2, 6, 14, 1), "decode": (2, 4, 12, 2)}
    short, quick = size == "short", size == "quick"
    if short:
        small, large = {"prefill": (4, 20, 60, 1), "decode": (4, 12, 40, 3)}, few
    models = [("small", "small"), *((name, copies / f"{name}.gguf") for name in ("slim", "slim-kr", "slim-mixed"))]
    for label, model in models:
        yield from grid(label, model, isas, small, every={"full": 1, "quick": 2, "short": 4}[size])
    for label, model in (("smollm2", "smollm2-135m"), ("gemma", "gemma3-270m")):
        if short:
            chosen = POLICIES if label == "smollm2" else ("sink", "dense")
            for isa in vectors:
                for p, policy in enumerate(chosen):
                    kind = ("prefill", "decode")[p % 2]
                    words = score(model, policy, CACHES[(p + 1) % 3], 2, kind, *few["decode"])
                    yield Case(f"{label} {policy} short {isa}", isa, words)
            continue
        yield from grid(label, model, vectors, large, every=1 if not quick else 2 if label == "smollm2" else 4)
        for policy, cache in [(policy, "f16") for policy in POLICIES] + [("sink", "f32"), ("sink", "q8_0")]:
            kind = "decode" if policy in ("dense", "window") else "prefill"
            yield Case(f"{label} {policy} {cache} {kind} 2t scalar", "scalar", score(model, policy, cache, 2, kind, 2, 4, 8, 2))
        # Past the window of Gemma's local layers, and past a chunk of the prompt.
        for isa in vectors:
            if not quick or label == "gemma":
                yield Case(f"{label} dense long {isa}", isa, score(model, "dense", "f16", 2, "decode", 0, 0, 640, 80))
            if not quick or label == "smollm2":
                yield Case(f"{label} sink long {isa}", isa, score(model, "sink", "q8_0", 2, "decode", 4, 540, 640, 80))
    yield from extra(size, isas, vectors, models, copies)


def extra(size, isas, vectors, models, copies):
    """Formats of weights, what probes see, and texts."""
    short, quick = size == "short", size == "quick"
    scored = ["-f", TEXT, "--json", "-t", 2]
    for isa in isas:
        # A format of SmolLM2 takes its time without vectors.
        tokens = {"scalar": 2}.get(isa, 6 if short else 40)
        for name in SMALL_FORMATS:
            model = copies / f"small-{name}.gguf"
            words = ["ppl", "-m", model, *scored, "--count", 48, "--dump", "{out}"]
            yield Case(f"format {name} {isa}", isa, words)
        for name in LARGE_FORMATS if not short else LARGE_FORMATS[::2]:
            model = copies / f"smollm2-{name}.gguf"
            words = ["ppl", "-m", model, *scored, "--window", 24, "--count", tokens, "--dump", "{out}"]
            yield Case(f"format {name} {isa}", isa, words)
    best = vectors[-1:] or isas[-1:]
    probed = models if short else [*models, ("smollm2", "smollm2-135m"), ("gemma", "gemma3-270m")]
    for isa in isas:
        for label, model in probed:
            if isa == "scalar" and label in ("smollm2", "gemma"):
                continue
            start = ["ppl", "-m", model, *scored, "--count", 40]
            yield Case(f"attention {label} {isa}", isa, [*start, "--window", 20, "--attention", "{out}"])
            if not quick or label not in ("smollm2", "gemma"):
                words = [*start, "--window", 20, "--f32-activations", "--dump", "{out}"]
                yield Case(f"f32-activations {label} {isa}", isa, words)
            yield Case(f"skip-weights {label} {isa}", isa, [*start, "--skip-weights", 1000, "--dump", "{out}"])
        words = ["ppl", "-m", copies / "slim.gguf", "--cache", "kv", *scored, "--count", 60]
        yield Case(f"slim as kv {isa}", isa, [*words, "--dump", "{out}"])
        words = ["ppl", "-m", copies / "small-Q4_0.gguf", "--no-mmap", *scored, "--count", 30]
        yield Case(f"no-mmap {isa}", isa, [*words, "--dump", "{out}"])
        for label, model in models:
            for seed, options in (
                (1, ["--temp", 0]),
                (2, ["--temp", 0.8]),
                (3, ["--temp", 1.2, "--top-k", 30, "--top-p", 0.9, "--repeat-penalty", 1.2, "--window", 40]),
                (4, ["--temp", 0.7, "--min-p", 0.1, "--top-k", 0, "--stop", "ing", "--stop", "\n"]),
            ):
                if short and seed % 2:
                    continue
                words = ["run", "-m", model, "Once upon a time, ", "-n", 120, "--seed", seed, *options]
                yield Case(f"text {label} {seed} {isa}", isa, words)
    for isa in best:
        tokens = 8 if short else 40
        chat = ["chat", "-m", "smollm2-135m", "--seed", 3, "-n", tokens]
        for label, model in (("smollm2", "smollm2-135m"), ("gemma", "gemma3-270m")):
            words = ["run", "-m", model, "The sea was", "-n", tokens, "--seed", 5, "--temp", 0.8]
            yield Case(f"text {label} {isa}", isa, words)
        if not short:
            yield Case(f"chat {isa}", isa, chat, stdin="Hello there\nTell me a story\n")
        if size == "full":
            for policy in (["--window", 100], ["--cache-type", "q8_0", "--system", "You are brief."]):
                name = f"chat {' '.join(map(str, policy))} {isa}"
                yield Case(name, isa, [*chat, *policy], stdin="Hello there\nTell me a story\nAnd then?\n")
        for model in ("small", "smollm2-135m", "gemma3-270m"):
            yield Case(f"tokens {model} {isa}", isa, ["tokenize", "-m", model, "--ids", "-f", TEXT])


class Failed(Exception):
    """A program did not end well; the words are its own."""


class Program:
    """A build of brooklet, with what runs it before its name."""

    def __init__(self, path, runner, scratch):
        self.command, self.scratch = [*shlex.split(runner), str(pathlib.Path(path).resolve())], scratch

    def run(self, words, isa=None, stdin="", out=None):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("BROOKLET_ISA")}
        if isa:
            environment["BROOKLET_ISA"] = isa
        words = [str(out) if word == "{out}" else word for word in words]
        return subprocess.run([*self.command, *words], input=stdin.encode(), capture_output=True, env=environment, check=False)

    def answer(self, case):
        """Returns the output of the case, and the bytes of the arena if the program reports them."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            out = pathlib.Path(folder) / "out"
            done = self.run(case.words, case.isa, case.stdin, out)
            if done.returncode:
                raise Failed(f"{shlex.join(case.words)}: status {done.returncode}: {done.stderr.decode().strip()}")
            if "{out}" not in case.words:
                return done.stdout, None
            return out.read_bytes(), json.loads(done.stdout)["arena_bytes"]

    def isas(self):
        """Returns the instruction sets that the program lists when it is asked for an unknown one."""
        said = self.run(["bench", "-m", "small"], isa="none").stderr.decode()
        found = re.search(r"has ([a-z0-9, ]+)\)?", said)
        if not found:
            raise SystemExit(f"which instruction sets are there? {said}")
        return [name.strip() for name in found[1].replace(" and ", ",").split(",")]


class Kept:
    """Outputs of an earlier program: an index, and every different output once."""

    def __init__(self, folder):
        self.folder, self.index = folder, {}
        if (folder / "index.json").exists():
            self.index = json.loads((folder / "index.json").read_text())

    def put(self, case, output, arena):
        name = hashlib.sha256(output).hexdigest()
        (self.folder / name).write_bytes(output)
        self.index[case.name] = {"output": name, "arena": arena}

    def finish(self):
        (self.folder / "index.json").write_text(json.dumps(self.index, indent=1))

    def answer(self, case):
        if case.name not in self.index:
            return None, None
        entry = self.index[case.name]
        return (self.folder / entry["output"]).read_bytes(), entry["arena"]


def difference(old, new):
    """Words on the first byte that differs, None where all are equal."""
    if old == new:
        return None
    at = next((i for i, (a, b) in enumerate(zip(old, new)) if a != b), min(len(old), len(new)))
    said = f"byte {at} of {len(old)} (new: {len(new)})"
    try:
        return f"{said}: {old[max(0, at - 20) : at + 20].decode()!r} against {new[max(0, at - 20) : at + 20].decode()!r}"
    except UnicodeDecodeError:
        word = at // 4 * 4
        if word + 4 > min(len(old), len(new)):
            return said
        (before,), (after,) = (struct.unpack_from("<f", side, word) for side in (old, new))
        return f"{said}, as f32 number {word // 4}: {before!r} against {after!r}"


def make_copies(program, folder):
    """Makes the models of COPIES."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, words in COPIES.items():
        done = program.run([*words, "--force"], out=folder / f"{name}.gguf")
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr.decode()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="+", help="OLD, or a folder that --save wrote, and NEW")
    parser.add_argument("--save", type=pathlib.Path, help="folder for what OLD writes")
    parser.add_argument("--size", choices=("full", "quick", "short"), default="full")
    parser.add_argument("--isa", nargs="+", help="instruction sets; all that NEW names unless given")
    parser.add_argument("--runner", default="", help="words before the programs, such as an emulator")
    parser.add_argument("--copies", type=pathlib.Path, help="copies of models from an earlier run, not compared again")
    parser.add_argument("--only", nargs="+", default=[], help="words that the names of the cases have")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--quiet", action="store_true", help="name only what differs")
    arguments = parser.parse_args()
    if len(arguments.programs) != (1 if arguments.save else 2):
        parser.error("give OLD and NEW, or --save FOLDER and OLD")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as scratch:
        sys.exit(compare(arguments, pathlib.Path(scratch)))


def compare(arguments, scratch):
    saved = arguments.save or (pathlib.Path(arguments.programs[0]) if os.path.isdir(arguments.programs[0]) else None)
    old = Kept(saved) if saved and not arguments.save else Program(arguments.programs[0], arguments.runner, scratch)
    new = None if arguments.save else Program(arguments.programs[1], arguments.runner, scratch)
    copies = arguments.copies or (saved or scratch) / "copies"
    if not arguments.copies and isinstance(old, Program):
        make_copies(old, copies)
    chosen = list(cases(arguments.size, arguments.isa or (new or old).isas(), copies))
    chosen = [case for case in chosen if all(word in case.name.split() for word in arguments.only)]
    if not chosen:
        raise SystemExit(f"no case has the words {' '.join(arguments.only)}")
    if arguments.save:
        return save(old, chosen, arguments)
    different, grown, absent = [], [], []

    def pair(case):
        before = old.answer(case)
        try:
            return case, before, new.answer(case), None
        except Failed as error:
            return case, before, (None, None), str(error)

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for case, (before, arena_before), (after, arena_after), failed in pool.map(pair, chosen):
            if before is None:
                absent.append(case.name)
                continue
            found = failed or difference(before, after)
            if found:
                different.append(case.name)
            if found or not arguments.quiet:
                print(f"{case.name}: {found or 'equal'}", flush=True)
            if not failed and arena_before != arena_after:
                grown.append(f"{case.name}: arena {arena_before} -> {arena_after} ({arena_after / arena_before - 1:+.3%})")
    if not arguments.copies and not arguments.only:
        different += compare_copies(new, copies, scratch, arguments.quiet)
    print("\n".join(grown[:20] + [f"and {len(grown) - 20} more"] * (len(grown) > 20)) or "no arena has another size")
    if absent:
        print(f"{len(absent)} cases were not kept: {', '.join(absent[:5])} ...")
    print(f"{len(chosen) - len(absent)} cases, {len(different)} differ or failed", *different, sep="\n  ")
    return 1 if different or absent else 0


def save(old, chosen, arguments):
    shutil.copyfile(old.command[-1], arguments.save / "program")
    kept = Kept(arguments.save)
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for case, (output, arena) in zip(chosen, pool.map(old.answer, chosen)):
            kept.put(case, output, arena)
            if not arguments.quiet:
                print(case.name, flush=True)
    kept.finish()
    print(f"{len(chosen)} cases kept, {len({entry['output'] for entry in kept.index.values()})} different outputs")
    return 0


def compare_copies(new, copies, scratch, quiet):
    """Names of the copies that NEW writes in another way."""
    different = []
    for name, words in COPIES.items():
        out = scratch / "copy.gguf"
        done = new.run([*words, "--force"], out=out)
        found = done.stderr.decode() if done.returncode else difference((copies / f"{name}.gguf").read_bytes(), out.read_bytes())
        if found:
            different.append(f"file {name}")
        if found or not quiet:
            print(f"file {name}: {found or 'equal'}", flush=True)
    return different


if __name__ == "__main__":
    main()
