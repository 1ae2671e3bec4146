"""Asks the demo model the held-out questions and counts what can be counted.

    python evaluate.py --model models/demo --data /tmp/demo             # all held-out questions, four ways
    python evaluate.py --model models/demo --free                       # prints answers to free questions, to be read

Per way of asking: stopped (ended the turn by itself within the limit), on topic (names the subject, or shares words
with the reference answer), right (has most content words of the reference answer), clean (only words that training
answers contain, nothing repeated that the reference does not repeat), and for the thinking form, whether the reasoning block is well formed.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, Qwen3ForCausalLM

from train import ChatFormat

STOP_WORDS = set(
    "a an the of to in on at by for from with and or but as is are be been it its this that these those they them their there "
    "so than then not no can may will would which who what when where how why has have had do does into over under one".split()
)
# Kinds whose answers are drawn at random from several; a right answer shares fewer words with the one on file.
OPEN_KINDS = {"advice": 0.25, "talk": 0.1, "offtopic": 0.4}
FREE_QUESTIONS = (
    "hi", "who are you?", "what is the bullwhip effect", "Why are ships avoiding the Red Sea?", "my container is stuck in the port, what do i do",
    "explain tariffs like I am five", "Is it better to use air or sea freight for fresh flowers?", "What does FOB mean and who pays the freight?",
    "how does a drought affect the price of coffee", "tell me about rotterdam", "Where does cocoa come from?", "what should a small importer do about a new tariff",
    "Why do companies keep safety stock?", "difference between fob and cif", "route from shanghai to rotterdam?", "Who won the football match yesterday?",
    "Write a haiku about the sea.", "What happens to freight rates if the Suez Canal closes?", "how can i reduce my lead times", "what is nearshoring and why is it popular",
    "WHAT IS A BILL OF LADING", "Give me three ways to deal with port congestion.", "What is the freight rate from Shanghai to Los Angeles today?", "thank you!",
    "hello", "Why do freight rates rise?", "How do tariffs affect prices?", "What happens to prices when a port closes?", "What can you do?", "What is a bill of lading?",
    "What is the difference between FOB and CIF?", "what is the difference between fob and cif", "How does a port strike affect lead times?",
    "How does a drought affect wheat exports?", "How can a small importer deal with a new tariff?", "What is the sea route from Shanghai to Rotterdam?",
    "How do companies reduce lead time?", "What causes port congestion?", "What is safety stock?", "Explain demurrage", "why is shipping so expensive right now",
)  # fmt: skip


@dataclass
class Way:
    name: str
    thinking: bool
    sample: bool
    rough: bool = False  # lower case, no punctuation


WAYS = (
    Way("greedy", thinking=False, sample=False),
    Way("sampled", thinking=False, sample=True),
    Way("sampled, lower case, no marks", thinking=False, sample=True, rough=True),
    Way("sampled, thinking", thinking=True, sample=True),
)


class DemoModel:
    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.settings = GenerationConfig.from_pretrained(folder)
        self.chat = ChatFormat()
        self.end = self.tokenizer.token_to_id("<|im_end|>")

    @torch.inference_mode()
    def answer(self, conversations: list[list[dict[str, str]]], way: Way, limit: int) -> list[tuple[str, bool]]:
        """(text, whether it stopped by itself) for each conversation; one padded batch."""
        prompts = [self.tokenizer.encode(self.chat.prompt(c, way.thinking)).ids for c in conversations]
        longest = max(map(len, prompts))
        pad = self.settings.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        chosen = {"temperature": self.settings.temperature, "top_p": self.settings.top_p, "top_k": self.settings.top_k} if way.sample else {}
        settings = GenerationConfig(
            do_sample=way.sample, max_new_tokens=limit, eos_token_id=self.settings.eos_token_id, pad_token_id=pad, **chosen
        )
        output = self.model.generate(ids, attention_mask=mask, generation_config=settings)[:, longest:].tolist()
        results = []
        for row in output:
            stopped = self.end in row
            results.append((self.tokenizer.decode(row[: row.index(self.end)] if stopped else row, skip_special_tokens=True), stopped))
        return results


def content_words(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in STOP_WORDS}


def repeats(text: str, length: int = 6) -> bool:
    words = text.lower().split()
    runs = [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
    return len(set(runs)) < len(runs)


def judge(row: dict, text: str, stopped: bool, way: Way, known: set[str]) -> dict[str, bool]:
    thought_ok = True
    if way.thinking:
        shape = re.fullmatch(r"<think>\n(.+?)\n</think>\n\n(.+)", text, re.DOTALL)
        thought_ok = shape is not None
        text = shape[2] if shape else text
    wanted, given = content_words(row["core"]), content_words(text)
    recall = len(wanted & given) / max(1, len(wanted))
    subject = content_words(row["key"].split("/")[1])
    threshold = OPEN_KINDS.get(row["kind"], 0.7)
    return {
        "stopped": stopped,
        "on topic": recall >= min(0.3, threshold) or subject <= given,
        "right": recall >= threshold,
        "clean": given <= known and (not repeats(text) or repeats(row["core"])),
        "thought": thought_ok,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder written by generate.py")
    parser.add_argument("--free", action="store_true", help="only print answers to free questions")
    parser.add_argument("--limit", type=int, default=120, help="new tokens at most (thinking: 60 more)")
    parser.add_argument("--every", type=int, default=1, help="take every n-th held-out question")
    parser.add_argument("--show", type=int, default=0, help="print this many answers and all that are not right")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    demo = DemoModel(args.model)

    if args.free:
        for way in (WAYS[0], WAYS[3]):
            print(f"== {way.name}")
            chats = [[{"role": "user", "content": q}] for q in FREE_QUESTIONS]
            for question, (text, stopped) in zip(FREE_QUESTIONS, demo.answer(chats, way, args.limit + 60), strict=True):
                print(f"Q: {question}\nA: {text}{'' if stopped else ' [did not stop]'}\n")
        return

    rows = [json.loads(line) for line in (args.data / "heldout.jsonl").open()][:: args.every]
    known: set[str] = set()
    for line in (args.data / "train.jsonl").open():
        for message in json.loads(line)["messages"]:
            if message["role"] == "assistant":
                known |= content_words(message["content"])
    for way in WAYS:
        counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        shown = 0
        for start in range(0, len(rows), 64):
            part = rows[start : start + 64]
            questions = [r["question"].lower().rstrip("?.!") if way.rough else r["question"] for r in part]
            answers = demo.answer([[{"role": "user", "content": q}] for q in questions], way, args.limit + 60 * way.thinking)
            for row, question, (text, stopped) in zip(part, questions, answers, strict=True):
                marks = judge(row, text, stopped, way, known)
                for group in (row["sort"], f"{row['sort']}: {row['kind']}"):
                    counts[group]["questions"] += 1
                    for name, good in marks.items():
                        counts[group][name] += good
                if shown < args.show or (args.show and not marks["right"]):
                    bad = ", ".join(name for name, good in marks.items() if not good)
                    print(f"[{row['kind']}{'; not ' + bad if bad else ''}] Q: {question}\n  A: {text}")
                    shown += 1
        print(f"== {way.name}: {args.model}")
        for group in sorted(counts):
            c = counts[group]
            n = c["questions"]
            print(f"  {group:32s} {n:4d} questions" + "".join(f"  {name} {100 * c[name] / n:5.1f}%" for name in ("stopped", "on topic", "right", "clean"))
                  + (f"  thought {100 * c['thought'] / n:5.1f}%" if way.thinking else ""))  # fmt: skip


if __name__ == "__main__":
    main()
