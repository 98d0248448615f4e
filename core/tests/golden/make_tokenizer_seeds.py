#!/usr/bin/env python3
"""Writes the first inputs of the fuzz target `tokenizer`: small valid tokenizers of both kinds, each followed by a text.

Usage: pip install gguf==0.19.0 && python3 make_tokenizer_seeds.py
"""

from pathlib import Path

from gguf import GGUFWriter, TokenType

CORPUS = Path(__file__).parent.parent / "corpus/tokenizer"
TEXT = "Hello  the the\n\n 123 it's — naïve\r\n<|x|>日本語\t".encode() + b"\xe2\x82 \xff"


def write(name: str, fill):
    path = CORPUS / name
    w = GGUFWriter(path, "llama")
    fill(w)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    w.write_padding(w.fout[0], w.fout[0].tell())
    w.fout[0].write(TEXT)
    w.close()


def bpe(pre: str, letters: str):
    """The characters that stand for bytes in byte-level BPE, as far as `letters` has them, and a few merges."""

    def fill(w: GGUFWriter):
        merges = ["t h", "th e", "Ġ the", "l l", "Ġ Ġ", "h e", "he ll", "Ã ¯"]
        tokens = list(letters) + [m.replace(" ", "") for m in merges] + ["<|x|>", "<|endoftext|>"]
        types = [TokenType.NORMAL] * (len(tokens) - 2) + [TokenType.USER_DEFINED, TokenType.CONTROL]
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre(pre)
        w.add_token_list(tokens)
        w.add_token_types(types)
        w.add_token_merges(merges)
        w.add_bos_token_id(len(tokens) - 1)

    return fill


def spm(w: GGUFWriter):
    pieces = ["<unk>", "<s>", "</s>", "<0x0A>", "<0xE2>", "<0xFF>", "▁", "▁the", "▁t", "he", "l", "ll", "H", "e", "t", "h", "<|x|>"]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 3
    kinds += [TokenType.NORMAL] * (len(pieces) - 7) + [TokenType.USER_DEFINED]
    w.add_tokenizer_model("llama")
    w.add_token_list(pieces)
    w.add_token_types(kinds)
    w.add_token_scores([float(-i) for i in range(len(pieces))])


if __name__ == "__main__":
    CORPUS.mkdir(parents=True, exist_ok=True)
    ascii_and_more = "".join(map(chr, range(33, 127))) + "ĠĊčĉÃ¯æ¢â"
    for pre in ["gpt-2", "smollm", "llama-bpe", "qwen2"]:
        write(f"bpe-{pre}", bpe(pre, ascii_and_more))
    write("spm", spm)
