#!/usr/bin/env python3
"""Texts split by the pre-tokenizers `gpt-4o`, `tekken` and `seed-coder`, by Hugging Face's `tokenizers` (Oniguruma).

    pip install tokenizers==0.23.3
    python3 split_goldens.py > ../../core/tests/golden/splits.txt

A line is the name, and the pieces as bytes in hexadecimal. The patterns are those of the models' `tokenizer.json` (Phi-4-mini,
Mistral-Nemo, Seed-Coder). Characters that are younger than Unicode 15.1 are left out, as tables differ there.
"""

import random

from tokenizers import Regex, pre_tokenizers

WORDS = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]%s[\p{Ll}\p{Lm}\p{Lo}\p{M}]%s"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
PATTERNS = {
    "gpt-4o": WORDS % ("*", "+") + f"{CONTRACTION}?|" + WORDS % ("+", "*") + rf"{CONTRACTION}?|\p{{N}}{{1,3}}" + REST,
    "tekken": WORDS % ("*", "+") + "|" + WORDS % ("+", "*") + r"|\p{N}" + REST,
    "seed-coder": CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
}

TEXTS = [
    "I'm you're he's she'd we'll they've isn't CAN'T WON'T I'M YOU'RE HE'S 's'S'T'lL'd'Re don''t rock'n'roll",
    "camelCaseIdentifier HTTPServer2XMLParser snake_case_ID SCREAMING_SNAKE kebab-case x1y2z3 iPhone McDonald's eBay",
    "https://example.org/path?q=1&r=%20two#frag  C:\\Users\\me //\n/ /\r\n a/b/\n\n//c",
    "1234567890 12,345.67 ½¾ ①②③ ٣٤٥ 2³ 1e-5 v1.2.3",
    "Ünïcödé ÉCOLE École ÀÉÎ àéî ß ẞ ǅungla ǄUNGLA Ωμέγα ΩΜΕΓΑ Привет ПРИВЕТ пРИвЕТ Հայերեն ქართული ᲥᲐᲠᲗᲣᲚᲘ",
    "cafe\u0301 CAFE\u0301 e\u0301\u0327E\u0301 \u0301abc \u0301ABC !\u0301a \u0301\u0302 नमस्ते தமிழ் שָׁלוֹם",
    "你好，世界！これはテストです。한국어 ไทย العربية ʰʷ aʰB Aʰ ªº",
    "def f(x):\n\treturn x  # ok\r\n\r\n    y = 'it''s'\n   \n  end",
    "  leading   and trailing   \n \n\t\t\u3000\u2003x\u00a0y  ",
    "😀👨‍👩‍👧‍👦🏳️‍🌈 !!! ... -- ?!? «quote» “quote” it’s",
]
POOL = (
    list("aAzZbBéÉßñÑжЖωΩǅǈ") + list("ʰªº中あ한ไاא") + ["\u0301", "\u0327", "\u093f", "\u05b0", "\u20dd"]
    + list("019½²٣Ⅷ") + list("    \t\n\r\u00a0\u3000\u2028") + list("''''sStTmMdDlrev") + list("!/-_.,()€😀\u200d\u00ad")
)


def texts():
    yield from TEXTS
    random.seed(20261122)
    for _ in range(250):
        yield "".join(random.choices(POOL, k=random.randint(1, 40)))


def main():
    for name, pattern in PATTERNS.items():
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        for text in texts():
            pieces = [piece for piece, _ in split.pre_tokenize_str(text)]
            assert "".join(pieces) == text
            print(name, *(piece.encode().hex() for piece in pieces))


if __name__ == "__main__":
    main()
