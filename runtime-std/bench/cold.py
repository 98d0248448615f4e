#!/usr/bin/env python3
"""A cold start of two programs in turn: time until a one-token run is over, and the most anonymous memory seen on the way.

    python3 cold.py --peer "llama-peer generate MODEL.gguf prompt.ids -n 1 -t 2" --ours "brooklet run -m MODEL.gguf PROMPT -n 1 -t 2"
                    [-r 7] [--warm]

Before every run the page cache is emptied (as root; `--warm` leaves it), so that the model is read from the disk. Both programs should
get the same prompt. RssAnon is read every 2 ms.
"""

import argparse
import pathlib
import shlex
import statistics
import subprocess
import time


def empty_page_cache():
    subprocess.run(["sync"], check=True)
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")


def run(command):
    start = time.perf_counter()
    process = subprocess.Popen(shlex.split(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        try:
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            break
        for line in status.splitlines():
            if line.startswith("RssAnon:"):
                most = max(most, int(line.split()[1]))
        time.sleep(0.002)
    if process.wait() != 0:
        raise SystemExit(f"{command} failed")
    return time.perf_counter() - start, most


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--ours", required=True)
    parser.add_argument("-r", type=int, default=7)
    parser.add_argument("--warm", action="store_true")
    args = parser.parse_args()
    seconds, memory = {"ours": [], "peer": []}, {"ours": 0, "peer": 0}
    for _ in range(args.r):
        for name, command in (("ours", args.ours), ("peer", args.peer)):
            if not args.warm:
                empty_page_cache()
            took, most = run(command)
            seconds[name].append(took)
            memory[name] = max(memory[name], most)
    for name, times in seconds.items():
        print(f"{name}: median {statistics.median(times):.3f} s ({min(times):.3f} to {max(times):.3f}), at most {memory[name]} kB anonymous")
    ratios = [peer / ours for ours, peer in zip(seconds["ours"], seconds["peer"])]
    print(f"peer / ours: median {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
