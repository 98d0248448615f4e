#!/usr/bin/env python3
"""Compares two files of raw little-endian f32 logits, row by row: python3 compare.py A B --vocab V [--ids IDS_FILE]

A is the reference. Prints one JSON object: KL(A||B) in nats (mean, median, 99th percentile, maximum and its row),
top-1 agreement, the reference's top-1 minus top-2 logit where the two disagree, and, with the ids that were fed, the mean
negative log-likelihood of both.
"""

import argparse
import json

import numpy as np

ROWS = 64


def log_softmax(logits):
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


def compare(a, b, targets):
    """Per row: KL(a||b), whether the first choice agrees, a's margin, and both log-probabilities of the target."""
    ln_a, ln_b = log_softmax(a), log_softmax(b)
    kl = (np.exp(ln_a) * (ln_a - ln_b)).sum(axis=1)
    first, second = np.partition(a, -2, axis=1)[:, -1], np.partition(a, -2, axis=1)[:, -2]
    rows = np.arange(len(targets))
    return kl, a.argmax(1) == b.argmax(1), first - second, ln_a[rows, targets], ln_b[rows, targets]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--vocab", type=int, required=True)
    parser.add_argument("--ids")
    args = parser.parse_args()
    a, b = (np.memmap(path, dtype="<f4", mode="r").reshape(-1, args.vocab) for path in (args.a, args.b))
    count = min(len(a), len(b))
    ids = np.array(open(args.ids).read().split(), dtype=np.int64) if args.ids else np.zeros(count + 1, dtype=np.int64)
    count = min(count, len(ids) - 1)
    spans = [(n, min(n + ROWS, count)) for n in range(0, count, ROWS)]
    parts = [compare(a[n:m], b[n:m], ids[n + 1 : m + 1]) for n, m in spans]
    kl, agree, margin, ln_a, ln_b = (np.concatenate(part) for part in zip(*parts))
    apart = margin[~agree]
    report = {
        "rows": count,
        "kl_mean": float(kl.mean()),
        "kl_median": float(np.median(kl)),
        "kl_p99": float(np.quantile(kl, 0.99)),
        "kl_max": float(kl.max()),
        "kl_max_row": int(kl.argmax()),
        "top1_agreement": float(agree.mean()),
        "disagreements": int(len(apart)),
        "disagreement_margin_median": float(np.median(apart)) if len(apart) else None,
        "disagreement_margin_max": float(apart.max()) if len(apart) else None,
        "max_abs_logit_difference": max(float(np.abs(a[n:m] - b[n:m]).max()) for n, m in spans),
    }
    if args.ids:
        report |= {"nll_a": float(-ln_a.mean()), "nll_b": float(-ln_b.mean())}
        report["ppl_ratio"] = float(np.exp(ln_a.mean() - ln_b.mean()))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
