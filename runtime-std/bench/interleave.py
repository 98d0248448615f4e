#!/usr/bin/env python3
"""Times brooklet against llama.cpp, run by run in turn, so that the machine's drift hits both alike.

    python3 interleave.py --peer "llama-peer bench MODEL --serve -t 2" --ours "brooklet bench -m MODEL --serve -t 2"
                          [-p 256] [-n 64] [-r 9]

Both programs stay warm and answer one request per line: after READY, `p N` (prefill of N tokens, last logits only) and
`n N` (N decoded tokens, full logits) with seconds, `m` with peak and anonymous resident kB. `--ours-once` takes a command
without `--serve`: it is started for each turn with `-p P -n N -r 1 --json` and its own warm-up. Prints one JSON object:
medians in tokens per second, and the median of the paired ratios ours/peer with its quartiles.
"""

import argparse
import json
import shlex
import statistics
import subprocess


class Served:
    """A warm process that answers requests."""

    def __init__(self, command):
        self.process = subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "READY":
            raise SystemExit(f"{command}: not ready")

    def ask(self, request):
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()

    def rate(self, kind, tokens):
        return tokens / float(self.ask(f"{kind} {tokens}")[0])

    def memory(self):
        return [int(word) for word in self.ask("m")]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Once:
    """A command that is started anew for each turn; both figures of a turn come from one start."""

    def __init__(self, command, prompt, generated):
        self.command = shlex.split(command) + ["-p", str(prompt), "-n", str(generated), "-r", "1", "--json"]
        self.report = None

    def rate(self, kind, _tokens):
        if kind == "p":
            self.report = json.loads(subprocess.run(self.command, check=True, capture_output=True, text=True).stdout)
        return self.report["prefill_tps" if kind == "p" else "decode_tps"]

    def memory(self):
        return None

    def close(self):
        pass


def summary(ours, peer):
    ratios = sorted(a / b for a, b in zip(ours, peer))
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    figures = {"ours_tps": statistics.median(ours), "peer_tps": statistics.median(peer)}
    return {key: round(value, 2) for key, value in figures.items()} | {
        "ratio": round(middle, 3),
        "ratio_quartiles": [round(low, 3), round(high, 3)],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--ours")
    parser.add_argument("--ours-once")
    parser.add_argument("-p", type=int, default=256)
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("-r", type=int, default=9)
    args = parser.parse_args()
    if (args.ours is None) == (args.ours_once is None):
        parser.error("give --ours or --ours-once")
    peer = Served(args.peer)
    ours = Served(args.ours) if args.ours else Once(args.ours_once, args.p, args.n)
    rates = {("p", "ours"): [], ("p", "peer"): [], ("n", "ours"): [], ("n", "peer"): []}
    for turn in range(args.r):
        for kind, tokens in (("p", args.p), ("n", args.n)):
            pair = [("ours", ours), ("peer", peer)]
            for name, program in pair if turn % 2 == 0 else reversed(pair):
                rates[kind, name].append(program.rate(kind, tokens))
    report = {"prompt": args.p, "generated": args.n, "turns": args.r}
    report["prefill"] = summary(rates["p", "ours"], rates["p", "peer"])
    report["decode"] = summary(rates["n", "ours"], rates["n", "peer"])
    report["memory_kb_peak_anon"] = {"ours": ours.memory(), "peer": peer.memory()}
    for program in (ours, peer):
        program.close()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
