#!/usr/bin/env python3
"""Writes the texts that tokenizers are compared on: python3 tokenizer_corpus.py FOLDER

Everything here was written for this purpose or is generated from a fixed seed, so the files are free of any licence.
Goldens are made from them with llama-peer (see README.md beside this file).
"""

import random
import sys
from pathlib import Path

ZWJ, VS16, KEYCAP = "\u200d", "\ufe0f", "\u20e3"

CODE = r'''// Rust
#[derive(Debug, Clone)]
pub fn dot<const N: usize>(a: &[f32; N], b: &[f32; N]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>() // 0x1F_u8, 1e-3, 'a', "\u{1F600}"
}

# Python
def fizz(n: int) -> str:
	"""tabs	here"""
	return "Fizz" * (n % 3 == 0) + 'Buzz'*(n%5==0) or f"{n:>08.3f}"

/* C */
#include <stdint.h>
static inline int32_t clamp(int32_t v, int32_t lo, int32_t hi) { return v<lo?lo:(v>hi?hi:v); }
for(;;){if(x!=y&&!(z||w))i++;else--j;a[i]|=b->c<<3;}

{"json": [1, -2.5e10, null, true], "nested": {"k": "v\\n\t\"q\""}}
<div class="a-b_c" id='x'>&nbsp;&amp;<br/></div><!-- comment -->
SELECT COUNT(*) FROM t WHERE a>=10 AND b<>'it''s' -- sql
$ grep -rn --include='*.rs' "TODO|FIXME" ./src | awk '{print $1}' | sort -u > out.txt 2>&1
https://example.org/path?q=1&r=%20two#frag  user.name+tag@mail.example.co.uk  C:\Users\me\file.txt  ~/.config/app.toml
camelCaseIdentifier snake_case_identifier SCREAMING_SNAKE kebab-case-id __dunder__ x1y2z3 HTTPServer2XMLParser
λ x → ∀y∈ℝ: x² ≤ y³ ≠ ∞ ∑∏∫ √2 ≈ 1.414… ½ ¾ ①②③ Ⅳ ⅷ
'''

CONTRACTIONS = """I'm you're he's she'd we'll they've isn't can't won't
I'M YOU'RE HE'S SHE'D WE'LL THEY'VE ISN'T CAN'T WON'T
I'm I'M i'm 'S's'T't'Re're'VE've'M'm'Ll'll'D'd 's't're've'm'll'd
' s ' t 's 't  're  'll\n've\t'd
don''t rock'n'roll 'tis 'twas o'clock y'all'd've l'amour d'accord qu'il
I\u2019m you\u2019re don\u2019t \u2018quoted\u2019 it\u02bcs
'sx 'tx 'rex 'vex 'mx 'llx 'dx 'SX 'lL 'Ll 'rE 'vE
x'ſ y'K 'İ'ı
"""

PROSE = """It was late. The rain had stopped, and along the quay the lamps were being lit one by one.

\tMrs. Harrow (who had not spoken for an hour) said: "Well -- is it to be to-night, or never?" He laughed.
"Never," he said, "is a long word..." and then, after a pause, "but to-morrow's longer!"

CHAPTER II.    In which nothing happens

The naïve café façade; Ångström, coöperate, Straße, œuvre, piñata, Čapek, Łódź, Þór, ĳssel, ﬁne ﬂow.
Добрый вечер, товарищи! Съешь ещё этих мягких французских булок. Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.
שָׁלוֹם עֲלֵיכֶם, מה שלומך? ภาษาไทยไม่มีวรรคระหว่างคำ ქართული ენა Հայերեն ພາສາລາວ አማርኛ ᏣᎳᎩ தமிழ் తెలుగు বাংলা
"""

CJK = """我能吞下玻璃而不伤身体。我能吞下玻璃而不傷身體。
日本語のテキスト、ひらがな、カタカナ、ﾊﾝｶｸ、漢字かな交じり文。「引用」『二重』(括弧)【隅付き】～…ー
东京2025年3月１２日，价格：￥1,234.５６元。第一章　开始 𠀀𠮷野家 㐀㐁 龘靐齉
我 们 say hello世界123中文abc、def
"""

KOREAN = """안녕하세요, 세계! 나는 유리를 먹을 수 있어요. 그래도 아프지 않아요.
가나다라마바사 ㄱㄴㄷㄹ ㅏㅑㅓㅕ ㅋㅋㅋㅋ ㅠㅠ 한글\u1112\u1161\u11ab\u1100\u1173\u11af 서울2024년 값이 뷁 쀍
"""

ARABIC = """السلام عليكم ورحمة الله وبركاته، كيف الحال؟ أنا قادر على أكل الزجاج و هذا لا يؤلمني.
بِسْمِ ٱللَّٰهِ ٱلرَّحْمَٰنِ ٱلرَّحِيمِ ١٢٣٤٥٦٧٨٩٠ ۱۲۳۴ ـــ ﷺ ﷲ می\u200cخواهم \u200fRTL\u200e \u202bembed\u202c
"""

DEVANAGARI = """नमस्ते दुनिया! मैं काँच खा सकता हूँ और मुझे उससे कोई चोट नहीं पहुंचती। क्ष त्र ज्ञ श्री क्\u200dष क्\u200cष
१२३४५६७८९० ॐ ।। संस्कृतम् अ॒ग्निमी॑ळे पु॒रोहि॑तं हिन्दी123मिश्रित
"""


def emoji():
    """Faces, skin tones, ZWJ families, flags, keycaps, tag sequences."""
    tones = "".join("👍" + chr(0x1F3FB + n) for n in range(5))
    family = ZWJ.join("👨👩👧👦")
    worker = "👩🏽" + ZWJ + "💻"
    rainbow = "🏳" + VS16 + ZWJ + "🌈"
    flags = "🇩🇪🇯🇵🇺🇸 🇺🇳🇧 🇦"
    keycaps = "".join(c + VS16 + KEYCAP for c in "0123456789#*")
    scotland = "🏴" + "".join(chr(0xE0000 + ord(c)) for c in "gbsct") + "\U000E007F"
    heart = "❤ ❤" + VS16 + " ❤" + VS16 + ZWJ + "🔥"
    return (
        f"😀😃 😄  😁\n{tones}\n{family} {worker}{worker} {rainbow}\n{flags}\n{keycaps}\n{scotland}{heart}\n"
        "text😀text 123😀456 !😀? 😀's 😀's🙂\n🫠🫨🪿 ☺☻♥♦ ™©® ⌚⏰ ➡️⬅️ 🅰️🆎\n"
        + "🎉" * 17 + "\n"
    )


def combining():
    """Marks above and below, decomposed letters, long stacks."""
    zalgo = "".join(c + "".join(chr(0x300 + (ord(c) * 7 + k * 13) % 0x70) for k in range(6)) for c in "Zalgo text")
    return (
        "e\u0301 e\u0300 n\u0303 o\u0308 A\u030a c\u0327 a\u0323\u0302 q\u0307\u0323\n"
        f"{zalgo}\n\u0301leading mark 's\u0301 1\u0301 2\u20dd !\u0301 \u0301\u0302\u0303\n"
        "व\u0947\u0902 क\u093c \u0e01\u0e33\u0e49 \u05e9\u05c1\u05b8 \u1ee4\u0301 \u1e69\u0323 가\u0301 👍\u0301 x\ufe00 ㊗\ufe0e\n"
    )


def control():
    """Every C0 and C1 control, formats, separators, BOMs, noncharacters."""
    c0 = "".join(f"{chr(n)}a" for n in range(0x20))
    c1 = "".join(chr(n) for n in range(0x7F, 0xA0))
    formats = "\u00ad\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202c\u2060\u2066\u2069\ufeff\ufff9\ufffb\ufffc\ufffd"
    return f"{c0}\n{c1}\n{formats}\n\x00\x00\x00 \x00\x1b[31mred\x1b[0m\x07\x08\x7f\n\ufeffbom \ufdd0\ufffe\uffff\U0001ffff\U0010fffe\U0010ffff\n"


def blanks():
    """Runs of every kind of white space, at the start, inside, before text and at the very end."""
    spaces = "".join(f"{n}{' ' * n}x" for n in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 257))
    newlines = "".join(f"a{chr(10) * n}" for n in (1, 2, 3, 4, 5, 8, 9, 17, 40))
    tabs = "".join(f"t{chr(9) * n}" for n in (1, 2, 3, 4, 5, 8, 9, 17, 40))
    mixed = "a \n b\t\n c \t d  \n\n  e\n \n \n f \r g\v h\f i \t\t \n\t\n.  .   !  ?\n  ;"
    odd = "".join(f"[{chr(c)}][{chr(c) * 2}x{chr(c)}1{chr(c)}!]" for c in
                  (0x85, 0xA0, 0x1680, 0x2000, 0x2003, 0x2007, 0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000))
    return f"   lead{spaces}\n{newlines}{tabs}\n{mixed}\n{odd}\n \xa0 \u3000 x\u3000 \n word  \t \n\n   "


def numbers():
    """Runs of 1 to 20 digits, separators, signs, and other scripts' digits."""
    runs = " ".join("12345678901234567890"[:n] for n in range(1, 21))
    joined = "".join(f"{'9' * n}," for n in range(1, 12))
    return (
        f"{runs}\n{joined}\n0 00 000 0000 007 3.14159 -42 +7 1,234,567.89 1e10 1E-5 0x1F 0b1010 1/2 50% $19.99 €5 №7 #1\n"
        "2024-02-29T23:59:59Z 12:34 a1b22c333d4444 x1 1x  12  345   6789\n12\n34 \t56 v1.2.3-rc4 192.168.0.1 555-0123\n"
        "٠١٢٣٤٥ ०१२३ 〇一二三 １２３４ ᠐᠑ 𝟎𝟏𝟐𝟑 𝟘 ²³¹ ₀₁₂ ¼½¾ ①⑳ ⅠⅡ ፩፪ 𐄇 1٢3४5\n" + "7" * 101 + "\n"
    )


def private():
    """Private use, unassigned, lone high planes."""
    return "\ue000\uf8ff a\ue123b 1\ue0002\n\U000f0000\U0010fffd\n\u0378\u0379\u05ff\u1c8f\u2fe0\ua7d2x\U0001f8ff \U000e0fff\U0003fffd\U0005abcd\n\ue000\ue001 's\ue002\n"


SPECIAL = "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><|im_start|> <|endoftext|>x <s> </s> <unk> <0x0A> ▁ ▁▁a <repo_name> <file_sep> Ġ Ċ Ä\n"


def soup():
    """Random strings over an alphabet in which neighbouring classes meet in every order."""
    rng = random.Random(20240229)
    classes = [
        "abcXYZ", "éßΩжあ漢가अع", "0123456789", "٣५４²Ⅷ", " ", "  ", "\n", "\t", "\r\n", "\u00a0\u3000", "'", "'s", "'LL", "!?.,;:", "-_/\\",
        "()[]{}<>", "$€+=^~|`", "\u0301\u093f\u20dd", "😀👍🏽" + ZWJ, "\ue000\u0378", "\x00\x07\x1b\x7f", "\u200b\u200d\u00ad\ufeff", "’“”—…",
    ]
    lines = []
    for _ in range(450):
        parts = []
        for _ in range(rng.randint(1, 12)):
            group = rng.choice(classes)
            whole = group.strip() == "" or group.startswith("'")
            parts.append(group if whole else "".join(rng.choice(group) for _ in range(rng.randint(1, 4))))
        lines.append("".join(parts))
    return "\n".join(lines)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "arabic": ARABIC, "blanks": blanks(), "cjk": CJK, "code": CODE, "combining": combining(), "contractions": CONTRACTIONS,
        "control": control(), "crlf": PROSE.replace("\n", "\r\n") + "\r\r\n\n\r x\r", "devanagari": DEVANAGARI, "emoji": emoji(),
        "korean": KOREAN, "numbers": numbers(), "private": private(), "prose": PROSE, "soup": soup(), "special": SPECIAL,
    }
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text.encode("utf-8"))


if __name__ == "__main__":
    main()
