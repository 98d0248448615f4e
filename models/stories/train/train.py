#!/usr/bin/env python3
"""Trains one model; resumes an interrupted run.

    python3 train.py --size tiny|small --text FOLDER --out FOLDER [--steps N] [--no-sink] [--condition 0.1] [--minutes M]

Every sample is the sink token and then a piece of the text (StreamingLLM, Xiao et al., arXiv
2309.17453, section 3.3); with --no-sink it is the piece alone. The loss has a term that keeps W_K
well-conditioned (`Model.key_spread`), unless --condition is 0. Two runs with the same arguments on
the same machine and number of threads give the same weights, however often they were interrupted.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from model import SIZES, Model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SINK = "<|sink|>"
SEED = 20261122

# Tokens in a step, steps, largest learning rate. More steps of the larger model learn the text by
# heart: after 1,000 of 2,200 its bits per byte of other text rose.
SCHEDULES = {"tiny": (16384, 2000, 6e-3), "small": (16384, 1100, 3e-3)}


def tokenizer(text, vocab, path):
    """Byte-level BPE with GPT-2's pre-tokenizer; token 0 is the sink."""
    if path.exists():
        return Tokenizer.from_file(str(path))
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=[SINK], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  show_progress=False)
    bpe.train_from_iterator(text.splitlines(keepends=True), trainer)
    assert bpe.get_vocab_size() == vocab
    bpe.save(str(path))
    return bpe


def ids(bpe, text):
    # In parts, since an encoding keeps much more than its ids.
    parts = text.split("\n\n")
    return np.concatenate([np.array(e.ids, dtype=np.int64) for e in bpe.encode_batch([part + "\n\n" for part in parts if part])])


def sample(data, rng, batch, context, sink):
    """Inputs and targets, `batch x context`."""
    starts = rng.integers(0, len(data) - context - 1, batch)
    rows = np.stack([data[start:start + context + 1] for start in starts])
    if sink:
        rows = np.concatenate([np.zeros((batch, 1), dtype=np.int64), rows[:, 1:]], axis=1)
    rows = torch.from_numpy(rows)
    return rows[:, :-1], rows[:, 1:]


@torch.no_grad()
def held_bits(model, data, size, sink, context):
    """Bits per byte of the held-out text, in pieces of `context` tokens."""
    model.eval()
    total = 0.0
    for start in range(0, len(data), context * 32):
        part = data[start:start + context * 32]
        for row in np.array_split(part, range(context, len(part), context)):
            if len(row) < 2:
                continue
            tokens = np.concatenate([[0], row]) if sink else row
            tokens = torch.from_numpy(tokens)[None]
            total += F.cross_entropy(model(tokens[:, :-1])[0], tokens[0, 1:], reduction="sum").item()
    model.train()
    return total / math.log(2) / size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--no-sink", dest="sink", action="store_false")
    parser.add_argument("--condition", type=float, default=0.1)
    parser.add_argument("--minutes", type=float, help="stop then, resumably")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    config = SIZES[args.size]
    step_tokens, steps, peak = SCHEDULES[args.size]
    steps = args.steps or steps
    args.out.mkdir(parents=True, exist_ok=True)
    train_text, held_text = ((args.text / f"{name}.txt").read_text(encoding="utf-8") for name in ("train", "held"))
    bpe = tokenizer(train_text, config.vocab, args.out / "tokenizer.json")
    train, held = ids(bpe, train_text), ids(bpe, held_text)
    print(f"{len(train)} tokens, {len(train_text) / len(train):.2f} bytes each; held out {len(held)}", flush=True)

    model = Model(config)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=peak, betas=(0.9, 0.95))
    state_path, first, log = args.out / "state.pt", 0, []
    if state_path.exists():
        state = torch.load(state_path, weights_only=False)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, log = state["step"], state["log"]
    count = sum(p.numel() for p in model.parameters())
    print(f"{args.size}: {count} parameters, steps {first} to {steps} of {step_tokens} tokens", flush=True)

    def save(step):
        partial = state_path.with_suffix(".partial")
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "log": log}, partial)
        partial.rename(state_path)

    began, batch = time.monotonic(), step_tokens // config.context
    for step in range(first, steps):
        # Up over 100 steps, then down in a half cosine to a twentieth.
        rate = peak * min((step + 1) / 100, 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        # A generator of its own for every step, so that a resumed run draws what an uninterrupted
        # one would.
        torch.manual_seed(SEED + step)
        inputs, targets = sample(train, np.random.default_rng((SEED, step)), batch, config.context, args.sink)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(inputs)
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        spread = model.key_spread()
        (loss + args.condition * spread).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done = step + 1
        if done % 100 == 0 or done == steps:
            bits = held_bits(model, held, len(held_text.encode()), args.sink, config.context) if done % 500 == 0 or done == steps else None
            rate = (done - first) * step_tokens / (time.monotonic() - began)
            log.append({"step": done, "loss": round(loss.item(), 4), "spread": round(spread.item(), 5), "held_bits_per_byte": bits})
            print(f"step {done}: loss {loss.item():.4f}, spread {spread.item():.4f}, {rate:.0f} tokens/s"
                  + (f", held out {bits:.4f} bits per byte" if bits else ""), flush=True)
        late = args.minutes is not None and time.monotonic() - began > 60 * args.minutes
        if done % 250 == 0 or done == steps or late:
            save(done)
        if late:
            print("out of time; run again to go on", flush=True)
            return
    torch.save(model.state_dict(), args.out / "model.pt")
    (args.out / "log.json").write_text(json.dumps({"arguments": vars(args) | {"text": None, "out": None}, "config": config.as_dict(),
                                                   "parameters": count, "log": log}, indent=1) + "\n")


if __name__ == "__main__":
    main()
