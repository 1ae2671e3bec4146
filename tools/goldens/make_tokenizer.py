#!/usr/bin/env python3
"""Makes the goldens of src/text/tokenizer_test.cc with the Hugging Face `tokenizers` library.

    python3 -m venv venv && venv/bin/pip install tokenizers==0.23.3
    venv/bin/python tools/goldens/make_tokenizer.py tests/text_data

Reads qwen3_tokenizer.json.gz there (the vocabulary published with Qwen3) and writes:
  tokenizer_mixed.jsonl.gz       1 MB of mixed text: {"text", "count", "crc"} of its ids
  tokenizer_code_points.json.gz  {"crc": [...]}: one per 4,096 code points, see code_point_text()
  tokenizer_decode.jsonl.gz      random ids: {"ids", "text", "text_without_special"}
  tokenizer_flags.jsonl.gz       small tokenizers that use every flag: {"tokenizer", "cases"}
A crc is CRC-32 over the ids as little-endian int32. Deterministic for one version of the library.
(tokenizer_golden.jsonl.gz, 4,000 short texts with their ids, comes from the same library.)
"""
import gzip
import json
import random
import struct
import sys
import zlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, trainers

BLOCK = 4096
CODE_POINT_END = 0x40000  # planes 4 and up hold nothing with a property


def crc(ids):
    return zlib.crc32(struct.pack(f"<{len(ids)}i", *ids))


def write(path, lines):
    # mtime=0: the same goldens are the same bytes
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
        for line in lines:
            out.write((json.dumps(line, ensure_ascii=False) + "\n").encode())


# ---- Mixed text

EMOJI = ["😀", "👩‍👩‍👧‍👦", "🇸🇬", "👍🏽", "❤️", "🏳️‍🌈", "1️⃣", "🤷🏻‍♂️"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n ", "\u00a0", "\u3000", "\u2028", "\u180e",
          " " * 17, "\t\t\t\n", "\u0085", "\v", "\f", "\u200b"]
MARKS = ["e\u0301", "\u1e9b\u0323", "q\u0307\u0323", "\u0958", "\uac00\u11a8", "\u1100\u1161\u11a8",
         "\u212b", "\ufb01", "שׁ", "مُحَمَّد", "ตั้", "नि", "\u0344", "\u2126", "\U0001d15e",
         "\u0cc6\u0cc2\u0cd5", "a\u0898\u0323", "\U00011935\U00011930"]
CONTRACTIONS = ["'s", "'T", "'re", "'VE", "'m", "'Ll", "'d", "'\u017f", "'x", "'", "''s", "\u2019s"]
CODE = ["for (int i = 0; i < n; ++i) {\n\t\tsum += a[i] * b[i];\n\t}\n", "def f(x):\n    return x**2\n",
        "SELECT * FROM t WHERE a>=10;--x\r\n", "{\"k\": [1, 2.5e-07, null]}", "</div>\n", "$ rm -rf ./*\n",
        "#include <vector>\n", "std::vector<std::pair<int,int>>", "x = y ? 'a' : \"b\";", "0xDEADBEEF"]
ADDED = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "<|im_end", "<|endoftext|>"]


def scripts_of(tokenizer):
    """Decoded vocabulary by script: (first, last code point) -> words."""
    ranges = {"latin": (0x41, 0x24F), "han": (0x4E00, 0x9FFF), "arabic": (0x600, 0x6FF),
              "cyrillic": (0x400, 0x4FF), "hangul": (0xAC00, 0xD7A3), "thai": (0xE00, 0xE7F),
              "kana": (0x3040, 0x30FF), "hebrew": (0x590, 0x5FF)}
    words = {name: [] for name in ranges}
    for token in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([token])
        for name, (first, last) in ranges.items():
            if text.strip() and all(first <= ord(c) <= last for c in text.strip()):
                words[name].append(text)
    return words


def mixed_lines(tokenizer):
    rng = random.Random(20240611)
    words = scripts_of(tokenizer)
    extras = [EMOJI, SPACES, MARKS, CONTRACTIONS, CODE, ADDED]
    total = 0
    while total < 1_000_000:
        parts = []
        script = words[rng.choice(["latin", "latin", "han", "han", *words])]
        noise = rng.choice([0.05, 0.2, 0.6])
        for _ in range(rng.randint(1, 500)):
            if rng.random() < noise:
                parts.append(rng.choice(rng.choice(extras)))
            elif rng.random() < 0.1:
                parts.append(rng.choice(["", " "]) + str(rng.randint(0, 10 ** rng.randint(1, 20))))
            elif rng.random() < 0.1:
                parts.append(rng.choice(",.;:!?-()[]{}\"…—。，、「」؟"))
            else:
                parts.append(rng.choice(script))
        if rng.random() < 0.05:
            parts.append(rng.choice(["a", " ", "\n", "中", "=", "1", "é"]) * rng.randint(100, 5000))
        text = "".join(parts)
        total += len(text.encode())
        ids = tokenizer.encode(text).ids
        yield {"text": text, "count": len(ids), "crc": crc(ids)}


# ---- Every code point, as a letter, number, space or other, and as a mark

def code_point_text(first):
    """The test builds the same text."""
    return "".join(f"a{c}b q{c}\u0323\u0301 1{c}2 {c}"
                   for c in map(chr, range(first, first + BLOCK)) if not "\ud800" <= c <= "\udfff")


# ---- Decoding

def decode_lines(tokenizer):
    rng = random.Random(7)
    size = tokenizer.get_vocab_size()
    partial = [t for t in range(size) if "\ufffd" in tokenizer.decode([t])]
    for _ in range(1000):
        ids = [rng.choice([rng.randrange(size + 5), rng.choice(partial), rng.randrange(256),
                           rng.randrange(151643, size)]) for _ in range(rng.randint(1, 40))]
        yield {"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=False),
               "text_without_special": tokenizer.decode(ids, skip_special_tokens=True)}


# ---- Flags: small vocabularies trained on the spot

CORPUS = ["the tea is in the tin, and the cat sat at nine; it's 12345 tons of tin"] * 5 + CODE


def small_tokenizer(split, string_merges, ignore_merges, nfc):
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    tokenizer.pre_tokenizer = byte_level if split is None else pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(split), "isolated"), byte_level])
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=400, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    document = json.loads(tokenizer.to_str())
    model = document["model"]
    model["ignore_merges"] = ignore_merges
    if ignore_merges:  # words that no merge makes
        for word in ["zzz", "\u0120zq"]:
            model["vocab"][word] = len(model["vocab"])
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_tokens([
        AddedToken("[L]", lstrip=True, normalized=False),
        AddedToken("[R]", rstrip=True, normalized=False),
        AddedToken("[LR]", lstrip=True, rstrip=True, normalized=False),
        AddedToken("word", single_word=True, normalized=False),
        AddedToken("caf\u00e9", normalized=True),
        AddedToken("two words", normalized=True),
        AddedToken("<a", normalized=False), AddedToken("<ab>", normalized=False)])
    tokenizer.add_special_tokens([AddedToken("<s>", normalized=False), AddedToken("[S]", lstrip=True)])
    document = json.loads(tokenizer.to_str())
    if string_merges:
        document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    return document


def flag_lines():
    rng = random.Random(3)
    pieces = ["[L]", "[R]", "[LR]", "word", "words", "sword", "word's", "cafe\u0301", "café", "two words",
              "<a", "<ab", "<ab>", "<abc", "<s>", "[S]", "the", "zzz", " zq", "123456", "it's", "\u00a0",
              "\u0301", "_", "中文", "é", ".", "!", *SPACES]
    llama = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
             r"|\s*[\r\n]+|\s+(?!\S)|\s+")
    gaps = r"\p{L}+|\d*"  # leaves much unmatched, and matches nothing
    for split, string_merges, ignore_merges, nfc in [(None, True, False, True), (llama, False, True, True),
                                                     (gaps, True, False, False), (llama, False, False, False)]:
        document = small_tokenizer(split, string_merges, ignore_merges, nfc)
        tokenizer = Tokenizer.from_str(json.dumps(document))
        cases = []
        for _ in range(400):
            text = "".join(rng.choice(pieces) for _ in range(rng.randint(1, 12))).replace("\u180e", "")
            case = {"text": text, "ids": tokenizer.encode(text).ids}
            tokenizer.encode_special_tokens = True
            case["ids_without_special"] = tokenizer.encode(text).ids
            tokenizer.encode_special_tokens = False
            cases.append(case)
        yield {"tokenizer": document, "cases": cases}


def main():
    folder = sys.argv[1]
    with gzip.open(f"{folder}/qwen3_tokenizer.json.gz") as file:
        tokenizer = Tokenizer.from_str(file.read().decode())
    write(f"{folder}/tokenizer_mixed.jsonl.gz", mixed_lines(tokenizer))
    blocks = [crc(tokenizer.encode(code_point_text(first)).ids)
              for first in range(0, CODE_POINT_END, BLOCK)]
    write(f"{folder}/tokenizer_code_points.json.gz", [{"crc": blocks}])
    write(f"{folder}/tokenizer_decode.jsonl.gz", decode_lines(tokenizer))
    write(f"{folder}/tokenizer_flags.jsonl.gz", flag_lines())


if __name__ == "__main__":
    main()
