#!/usr/bin/env python3
"""Makes training text of the model's output: joins beginnings and continuations, drops all that
is not a plain story, holds some stories back.

    python3 corpus.py --out FOLDER PROMPTS.jsonl TEXTS.jsonl [PROMPTS.jsonl TEXTS.jsonl ...]

Writes train.txt and held.txt, stories separated by an empty line. One story in 18 is
held back; the choice depends on the text only.
"""

import argparse
import hashlib
import json
import re
from pathlib import Path

PLAIN = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": " - ", "\u2026": "...", "\u00a0": " "}
ALLOWED = re.compile(r"[A-Za-z0-9 .,!?'\"\-:;]+")
UNWANTED = re.compile(r"\b(story|stories|sentence|sentences|paragraph|author|question|answer|AI|character|characters|kill|killed|dead|die|died|blood|"
                      r"gun|sex|naked|drunk|beer|wine|hell|God|Jesus)\b", re.IGNORECASE)


def story(start, text):
    """The story as plain text, or None."""
    text = (start + text).strip()
    for old, new in PLAIN.items():
        text = text.replace(old, new)
    text = re.sub(r"\s+", " ", text)
    # Ends with a sentence, closing quotes included.
    end = max(text.rfind(mark) for mark in ".!?")
    text = text[:end + 1] + ('"' if text[end + 1:end + 2] == '"' else "")
    words = text.split()
    # A sentence that begins without a blank before it.
    if re.search(r'[a-z][.!?]"?[A-Z]', text):
        return None
    if not 20 <= len(words) <= 250 or not ALLOWED.fullmatch(text) or UNWANTED.search(text) or text.count('"') % 2:
        return None
    # Stuck in a loop: a run of six words that comes twice, or few different words.
    runs = [tuple(words[i:i + 6]) for i in range(len(words) - 5)]
    if len(set(runs)) < len(runs) or len(set(words)) < 0.4 * len(words):
        return None
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()
    kept, seen, dropped = {"train": [], "held": []}, set(), 0
    for prompts, texts in zip(args.files[::2], args.files[1::2]):
        starts = [json.loads(line)["start"] for line in open(prompts, encoding="utf-8")]
        for line in open(texts, encoding="utf-8"):
            if not line.endswith("\n"):
                break
            item = json.loads(line)
            text = story(starts[item["line"]], item["text"])
            digest = hashlib.sha256((text or "").encode()).digest()
            if text is None or digest in seen:
                dropped += 1
                continue
            seen.add(digest)
            kept["held" if digest[0] * 256 + digest[1] < 65536 // 18 else "train"].append(text)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, stories in kept.items():
        text = "".join(story + "\n\n" for story in stories)
        (args.out / f"{name}.txt").write_text(text, encoding="utf-8")
        print(f"{name}.txt: {len(stories)} stories, {len(text)} bytes, sha256 {hashlib.sha256(text.encode()).hexdigest()}")
    print(f"dropped: {dropped}")


if __name__ == "__main__":
    main()
