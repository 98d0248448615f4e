#!/usr/bin/env python3
"""A scripted chat of hundreds of turns in a fixed number of bytes: is the system prompt whole, is a message ever cut, are answers on topic?

    python3 chat.py --brooklet target/release/brooklet --model MODEL.gguf --out FOLDER [--turns 500] [--ram 16MiB] [--peer llama-peer]

Every turn asks about one of 50 things in one of 10 ways; decoding is greedy, answers have at most 64 tokens. `--ctx-dump` says what is in
brooklet's cache after every turn. With `--peer` (see `../oracles/llama-cpp`), llama.cpp holds the same conversation with as many cache entries,
its `--keep` for the system prompt and context shift.
"""

import argparse
import json
import pathlib
import re
import subprocess

SYSTEM = "You are a patient teacher. Answer in one or two short sentences."
THINGS = """the sun, the moon, volcanoes, rivers, glaciers, bees, whales, horses, wolves, eagles, penguins, bread, cheese, coffee, tea,
chocolate, rice, salt, sugar, honey, iron, gold, glass, paper, cotton, wool, bicycles, trains, ships, bridges, lighthouses, clocks,
telescopes, microscopes, mirrors, candles, printing, money, maps, music, violins, drums, painting, theatre, chess, football, gardens,
forests, deserts, islands"""
WAYS = ["What can you tell me about {}?", "Why do {} matter to people?", "Tell a child about {}.", "Give me one fact about {}.",
        "What is the history of {}?", "How would you describe {}?", "What surprises people about {}?", "Write one sentence about {}.",
        "Where do we meet {} in daily life?", "What should I know about {}?"]


def questions(turns):
    things = [thing.strip() for thing in THINGS.replace("\n", " ").split(",")]
    pairs = [(things[i % len(things)], WAYS[(i + i // len(things)) % len(WAYS)]) for i in range(turns)]
    return [(thing, way.format(thing)) for thing, way in pairs]


def is_on_topic(thing, answer):
    """Returns true if the answer names the thing, in singular or plural."""
    word = thing.split()[-1].rstrip("s")
    return re.search(word, answer, re.IGNORECASE) is not None


def split_messages(live, pinned):
    """Returns the number of messages in a window's text that have lost their beginning or their end; -1 without the pinned text."""
    if not live.startswith(pinned):
        return -1
    pieces = re.split(r"(?<=<\|im_end\|>\n)", live[len(pinned):])
    return sum(re.fullmatch(r"<\|im_start\|>(user|assistant)\n.*<\|im_end\|>\n", piece, re.DOTALL) is None for piece in pieces if piece)


def report(name, asked, answers, windows, pinned, shown):
    whole = sum(window.startswith(pinned) for window in windows)
    split = sum(split_messages(window, pinned) != 0 for window in windows)
    topical = sum(is_on_topic(thing, answer) for (thing, _), answer in zip(asked, answers))
    print(f"{name}: {len(answers)} turns; system prompt whole after {whole}; a message cut in half after {split}; "
          f"{topical} answers name their topic")
    for turn in shown:
        if turn <= len(answers):
            print(f"  turn {turn}: {asked[turn - 1][1]}\n    {' '.join(answers[turn - 1].split())}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brooklet", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--turns", type=int, default=500)
    parser.add_argument("--ram", default="16MiB")
    parser.add_argument("--peer")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    asked = questions(args.turns)
    script = args.out / "questions.txt"
    script.write_text("".join(question + "\n" for _, question in asked))
    shown = [1, 100, 500]

    dump = args.out / "brooklet.jsonl"
    command = [args.brooklet, "chat", "-m", args.model, "--system", SYSTEM, "--ram", args.ram, "--temp", "0", "-n", "64", "--ctx-dump", dump, "--force"]
    with script.open() as lines, (args.out / "brooklet.txt").open("w") as out:
        done = subprocess.run([*map(str, command)], stdin=lines, stdout=out, stderr=subprocess.PIPE, text=True, check=True)
    (args.out / "brooklet.err").write_text(done.stderr)
    turns = [json.loads(line) for line in dump.read_text().splitlines()]
    answers = [turn["messages"][-1]["text"].removeprefix("<|im_start|>assistant\n").removesuffix("<|im_end|>\n") for turn in turns]
    windows = [turn["pinned"] + "".join(message["text"] for message in turn["messages"]) for turn in turns]
    pinned = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
    capacity = turns[0]["capacity"]
    print(f"{args.ram} hold {capacity} tokens; {turns[-1]['position']} tokens went through them")
    report("brooklet", asked, answers, windows, pinned, shown)
    assert all(message["whole"] for turn in turns for message in turn["messages"]), "brooklet says itself that a message was cut"

    if args.peer:
        out = args.out / "peer.jsonl"
        subprocess.run([args.peer, "chat", args.model, SYSTEM, script, out, "-n", "64", "-c", str(capacity)], check=True)
        turns = [json.loads(line) for line in out.read_text().splitlines()]
        report("llama.cpp", asked, [turn["answer"] for turn in turns], [turn["live"] for turn in turns], pinned, shown)


if __name__ == "__main__":
    main()
