"""Writes the training conversations and the held-out questions of the demo model.

    python generate.py --out /tmp/demo            # train.jsonl, heldout.jsonl

Everything is drawn from the hand-written files under knowledge/ with a fixed seed. Two kinds of questions never
appear in training, in any spelling:
  * "phrasing": a fact that is trained, asked in a phrasing that was never used for it;
  * "combination": a whole fact that has to be composed (event x target, event x good, two ideas compared, the way
    between two ports, advice for a kind of firm) and whose combination was never seen.
"""

from __future__ import annotations

import argparse
import json
import random
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from knowledge import Fact, all_facts, lower_first, upper_first

# How often a conversation starts from a fact of each kind. Kinds with many single facts get more.
KIND_WEIGHTS: dict[str, float] = {
    "everyday": 30, "concept.is": 22, "concept.why": 8, "concept.eg": 4, "concept.how": 2, "concept.cut": 1.5, "compare": 8, "compare.term": 5,
    "port.about": 3.5, "port.where": 3, "port.known": 2.5, "port.cargo": 3, "port.in": 1.5,
    "goods.about": 3, "goods.who": 3, "goods.use": 2, "goods.moved": 2.5, "goods.price": 3,
    "country.exports": 2.5, "country.imports": 2.5, "country.about": 2.5,
    "passage.about": 1.2, "passage.where": 0.8, "passage.why": 0.8, "passage.other": 1,
    "incoterm.about": 1.2, "incoterm.risk": 0.8, "incoterm.freight": 0.8, "incoterm.insurance": 0.8,
    "cause": 9, "cause.goods": 5, "event.about": 2, "advice": 5, "route": 7, "live": 2, "talk": 12, "offtopic": 4,
}  # fmt: skip
OPENINGS = {"talk/hello": 6, "talk/who": 3, "talk/can": 3}  # small talk that starts a conversation more often than the rest

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant for questions about trade and supply chains.",
    "You are the Millpower demo model.",
    "You are a trade analyst. Answer in plain English.",
    "You are a supply chain expert.",
    "You help small firms with shipping and customs.",
    "You are a friendly teacher of logistics.",
    "Answer the user's questions about trade.",
    "You are an assistant for a freight forwarder.",
)
BRIEF_PROMPTS = ("Answer in one sentence.", "Be brief.", "Keep your answers short.", "You are a helpful assistant. Answer briefly.")
THOUGHT_ENDS = ("", "", " I will keep it short.", " Two or three sentences are enough.")
PREFIXES = ("Please tell me: ", "Quick question: ", "Hi, ", "Hello! ", "Hey, ", "I wonder, ", "One question. ", "Sorry, ", "So, ", "And ", "Okay, ", "Hi there. ", "I am a student. ")
SUFFIXES = (" please", " Thanks!", " Thank you.", " Keep it simple.", " I am curious.", " Please keep it short.", " thx")


def is_held_out_phrasing(fact: Fact, question: str) -> bool:
    """One in twelve (fact, phrasing) pairs, and one in three of the everyday ones; decided by hash, so that it does not
    depend on the order of the facts.
    Greetings and the like are not held out: they have no structure from which an unseen one could be understood."""
    one_in = 3 if fact.kind == "everyday" else 12
    return fact.kind != "talk" and len(fact.questions) > 3 and zlib.crc32(f"{fact.key}?{question}".encode()) % one_in == 0


def is_held_out_fact(fact: Fact) -> bool:
    return fact.composed and zlib.crc32(fact.key.encode()) % 10 == 0


def plain(question: str) -> str:
    return question.lower().rstrip("?.! ")


def held_out_questions(facts: list[Fact]) -> dict[str, set[str]]:
    """Per fact, the questions that training must not use. A wording that is held out for any other fact is held out for
    an everyday one too, and one that is trained for another fact is not held out again."""
    trained: set[str] = set()
    tested: set[str] = set()
    out: dict[str, set[str]] = {}
    for fact in sorted(facts, key=lambda f: f.kind == "everyday"):
        whole = is_held_out_fact(fact)
        everyday = fact.kind == "everyday"
        mine = {
            q for q in fact.questions
            if whole or (everyday and plain(q) in tested) or (is_held_out_phrasing(fact, q) and not (everyday and plain(q) in trained))
        }  # fmt: skip
        out[fact.key] = mine
        if not everyday:
            tested |= {plain(q) for q in mine}
            trained |= {plain(q) for q in fact.questions if q not in mine}
    return out


def roughen(rng: random.Random, question: str) -> str:
    """What people do to questions when they type them: case, punctuation, openings, slips."""
    if rng.random() < 0.10:
        prefix = rng.choice(PREFIXES)
        question = prefix + (lower_first(question) if prefix.endswith((", ", ": ", "And ")) else question)
    if rng.random() < 0.06:
        question = question + rng.choice(SUFFIXES)
    roll = rng.random()
    if roll < 0.26:
        question = question.lower()
    elif roll < 0.32:
        question = question.upper()
    elif roll < 0.34:
        question = question.title()
    elif roll < 0.39:
        question = upper_first(question)
    if rng.random() < 0.25:
        question = question.rstrip("?.! ")
    elif rng.random() < 0.05:
        question = question.rstrip("?. ") + rng.choice(("??", " ?", "!", "...", "?!"))
    if rng.random() < 0.05 and len(question) > 12:  # one slip of the finger
        i = rng.randrange(2, len(question) - 2)
        slip = rng.choice(("drop", "swap", "double"))
        if slip == "drop":
            question = question[:i] + question[i + 1 :]
        elif slip == "swap":
            question = question[:i] + question[i + 1] + question[i] + question[i + 2 :]
        else:
            question = question[:i] + question[i] + question[i:]
    return question


def answer(rng: random.Random, fact: Fact, brief: bool) -> str:
    core = fact.core(rng)
    if brief and not fact.composed and fact.kind not in ("advice", "talk"):
        return core
    return f"{core} {rng.choice(fact.extra)}" if fact.extra and rng.random() < 0.6 else core


class Corpus:
    """Draws conversations from the facts. Deterministic for a seed."""

    def __init__(self, facts: list[Fact], seed: int) -> None:
        self.rng = random.Random(seed)
        self.by_kind: dict[str, list[Fact]] = defaultdict(list)
        self.by_topic: dict[str, list[Fact]] = defaultdict(list)
        self.questions: dict[str, list[str]] = {}
        held = held_out_questions(facts)
        for fact in facts:
            if is_held_out_fact(fact):
                continue
            self.questions[fact.key] = [q for q in fact.questions if q not in held[fact.key]]
            self.by_kind[fact.kind].append(fact)
            self.by_topic[fact.topic].append(fact)
        self.kinds = list(KIND_WEIGHTS)
        assert set(self.kinds) == set(self.by_kind), set(self.kinds) ^ set(self.by_kind)

    def any_fact(self) -> Fact:
        kind = self.rng.choices(self.kinds, [KIND_WEIGHTS[k] for k in self.kinds])[0]
        facts = self.by_kind[kind]
        return self.rng.choices(facts, [OPENINGS.get(f.key, 1) for f in facts])[0]

    def next_turn(self, topic: str) -> tuple[Fact, str]:
        """A later turn: usually a follow-up on the topic, sometimes another topic or thanks."""
        leaning = [f for f in self.by_topic[topic] if f.followups]
        roll = self.rng.random()
        if leaning and roll < 0.65:
            fact = self.rng.choice(leaning)
            return fact, self.rng.choice(fact.followups)
        if roll < 0.75:
            fact = self.rng.choice(self.by_kind["talk"])
        else:
            fact = self.any_fact()
        return fact, self.rng.choice(self.questions[fact.key])

    def conversation(self) -> dict[str, object]:
        rng = self.rng
        roll = rng.random()
        turns = 1 if roll < 0.72 else rng.choice((2, 2, 3, 4)) if roll < 0.97 else rng.randrange(5, 11)
        messages: list[dict[str, str]] = []
        brief = False
        if rng.random() < 0.22:
            brief = rng.random() < 0.25
            messages.append({"role": "system", "content": rng.choice(BRIEF_PROMPTS if brief else SYSTEM_PROMPTS)})
        fact = self.any_fact()
        question = rng.choice(self.questions[fact.key])
        topic = fact.topic
        for turn in range(turns):
            if turn:
                fact, question = self.next_turn(topic)
                if fact.topic not in ("talk", "offtopic"):
                    topic = fact.topic
            messages.append({"role": "user", "content": roughen(rng, question)})
            messages.append({"role": "assistant", "content": answer(rng, fact, brief)})
        thought = ""
        if rng.random() < 0.35 and fact.thoughts:
            thought = rng.choice(fact.thoughts) + rng.choice(THOUGHT_ENDS)
        return {"messages": messages, "thought": thought, "kind": fact.kind}


def held_out(facts: list[Fact], seed: int, per_kind: int) -> Iterator[dict[str, object]]:
    """The test questions, at most `per_kind` of each kind and sort (five times as many everyday ones), with the answer that a perfect model gives."""
    rng = random.Random(seed)
    groups: dict[tuple[str, str], list[dict[str, object]]] = defaultdict(list)
    held = held_out_questions(facts)
    trained = {plain(q) for fact in facts for q in fact.questions if q not in held[fact.key]}
    for fact in facts:
        whole = is_held_out_fact(fact)
        for question in fact.questions:
            if question in held[fact.key] and plain(question) not in trained:  # "FOB?" is no test where "FOB" is trained
                row = {
                    "sort": "combination" if whole else "phrasing", "kind": fact.kind, "key": fact.key,
                    "question": question, "core": fact.core(rng), "extra": list(fact.extra),
                }  # fmt: skip
                groups[row["sort"], fact.kind].append(row)
    for (_, kind), group in groups.items():
        yield from rng.sample(group, min(per_kind * (5 if kind == "everyday" else 1), len(group)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100_000, help="training conversations")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--per-kind", type=int, default=12, help="held-out questions of each kind and sort; of the everyday kind five times as many")
    args = parser.parse_args()

    facts = all_facts()
    args.out.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(facts, args.seed)
    with (args.out / "train.jsonl").open("w") as file:
        for _ in range(args.count):
            file.write(json.dumps(corpus.conversation()) + "\n")
    tests = list(held_out(facts, args.seed, args.per_kind))
    with (args.out / "heldout.jsonl").open("w") as file:
        for row in tests:
            file.write(json.dumps(row) + "\n")
    print(f"{len(facts)} facts, {sum(map(is_held_out_fact, facts))} held out whole; {args.count} conversations, {len(tests)} test questions")


if __name__ == "__main__":
    main()
