"""Turns the hand-written text files under knowledge/ into facts: a question in many phrasings, and its answer.

A Fact is one thing the demo model should know. Most facts are read off the files (what a tariff is, where a port
lies); some are composed from several lines (an event through a channel on a target; the way between two ports), and
whole facts of those kinds are held out of training, to see whether the model composes rather than recites.
"""

from __future__ import annotations

import heapq
import itertools
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent / "knowledge"


@dataclass(frozen=True)
class Fact:
    kind: str  # e.g. "concept.is"; sampling weights and hold-out rules are per kind
    key: str  # unique
    questions: tuple[str, ...]  # full phrasings
    core: Callable[[random.Random], str]  # the sentences that must be said
    extra: tuple[str, ...] = ()  # at most one of these may follow
    followups: tuple[str, ...] = ()  # phrasings that lean on the turn before ("Why does it matter?")
    thoughts: tuple[str, ...] = ()  # short reasoning, for the thinking form
    topic: str = ""  # what it is about; facts of one topic make a conversation
    composed: bool = field(default=False)  # whole fact may be held out


def upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def lower_first(text: str) -> str:
    """Lowers the first letter of a sentence, unless its first word is an acronym or a name."""
    word = text.split(" ", 1)[0]
    return text if word.isupper() and len(word) > 1 else text[:1].lower() + text[1:]


def join_list(parts: list[str]) -> str:
    """'a, b and c'"""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def rows(name: str) -> Iterator[list[str]]:
    """The lines of a 'a | b | c' file, without comments."""
    for line in (FOLDER / name).read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            yield [cell.strip() for cell in line.split("|")]


def fixed(text: str) -> Callable[[random.Random], str]:
    return lambda _rng: text


def fill(templates: str, **values: str) -> tuple[str, ...]:
    """Fills each template of a ' | ' separated list."""
    return tuple(part.strip().format(**values) for part in templates.split(" | "))


# ---------------------------------------------------------------------------------------------------------- concepts

PLURAL_PHRASES = {"sanctions", "incoterms", "rules of origin", "the terms of trade"}

ASK_IS = (
    "What {be} {np}? | What does {name} mean? | Can you explain {np}? | Explain {np}. | Define {name}. | Tell me about {np}. | "
    "How would you describe {np}? | What do people mean by {name}? | In simple words, what {be} {np}? | "
    "I keep hearing about {np}. What does it mean? | Give me a short definition of {name}. | "
    "Could you tell me what {np} {be}? | {name}? | {name} | What exactly {be} {np}? | Please explain {name} to me. | "
    "Help me understand {np}. | What do you know about {np}? | Do you know what {np} {be}? | Describe {np} in a few words. | "
    "I am new to trade. What {be} {np}? | What is meant by {name}? | Teach me about {name}. | Meaning of {name}"
)
ASK_WHY = (
    "Why {do} {np} matter? | Why {be} {np} important? | Why should I care about {np}? | What makes {np} important? | "
    "Why do firms care about {np}? | What {be} the effects of {np}? | Why do people talk about {np}? | "
    "What difference {do} {np} make? | Tell me why {np} {do_s}. | What is the point of knowing about {np}?"
)
ASK_EG = (
    "Give me an example of {np}. | Can you give an example of {np}? | What is an example of {np}? | Show me {np} with an example. | "
    "Explain {np} with an example. | I need an example of {np}. | Example of {name}? | Do you have an example of {np}?"
)
ASK_HOW = (
    "How {do} {np} work? | How {be} {np} used? | Can you tell me how {np} {works}? | Explain how {np} {works}. | "
    "How {do} {np} work in practice? | What goes into {np}? | I want to know how {np} {works}."
)
ASK_CUT = (
    "How can firms deal with {np}? | How do companies handle {np}? | What helps against {np}? | How can {np} be avoided or reduced? | "
    "What can a firm do about {np}? | How do you fight {np}? | Ways to reduce {np}? | What should a company do about {np}? | "
    "How do companies reduce {np}? | How do firms avoid {np}? | How can {np} be reduced? | How do companies deal with {np}?"
)
ASK_DIFFERENCE = (
    "What is the difference between {a} and {b}? | How {do} {a} differ from {b}? | Compare {a} and {b}. | {a} or {b}: what is the difference? | "
    "How are {a} and {b} different? | {an} vs {bn} | Can you compare {a} with {b}? | Explain the difference between {a} and {b}."
)


def read_concepts() -> Iterator[dict[str, str]]:
    block: dict[str, str] = {}
    for line in (FOLDER / "concepts.txt").read_text().splitlines():
        if line.startswith("@ "):
            name, phrase, group = (cell.strip() for cell in line[2:].split("|"))
            block = {"name": name, "np": phrase, "group": group}
        elif line.strip() and not line.startswith("#"):
            key, text = line.split(":", 1)
            block[key] = text.strip()
        elif block:
            yield block
            block = {}
    if block:
        yield block


def concept_facts() -> Iterator[Fact]:
    concepts = list(read_concepts())
    for c in concepts:
        plural = c["np"] in PLURAL_PHRASES
        words = {
            "np": c["np"], "name": c["name"], "be": "are" if plural else "is", "do": "do" if plural else "does",
            "do_s": "matter" if plural else "matters", "works": "work" if plural else "works",
        }  # fmt: skip
        topic = "concept/" + c["name"]
        it = "they" if plural else "it"
        extras = tuple(c[k] for k in ("why", "eg", "how", "cut") if k in c)
        yield Fact(
            "concept.is", topic + "/is", fill(ASK_IS, **words), fixed(c["is"]), extras[:2],
            (), (f"The user asks what {c['np']} {words['be']}. I will define it in plain words.",
                 f"This is about {c['np']}. A short definition will do."), topic,
        )  # fmt: skip
        asks = {
            "why": (ASK_WHY, f"Why {words['do']} {it} matter? | Why {'are they' if plural else 'is it'} important? | And why does that matter? | Why should I care? | Why? | So what?",
                    f"The user asks why {c['np']} {words['do_s']}. I will name the main effect."),
            "eg": (ASK_EG, "Can you give an example? | Give me an example. | Do you have an example? | For example? | What would be an example of that?",
                   f"The user wants an example of {c['np']}. I will pick a simple one."),
            "how": (ASK_HOW, f"How {words['do']} {it} work? | How {words['do']} that work? | Can you explain how? | How does that work in practice?",
                    f"The question is how {c['np']} {words['works']}. I will describe the main steps."),
            "cut": (ASK_CUT, "How can firms deal with that? | What can a company do about it? | How can it be avoided? | What helps against it? | How do firms handle it?",
                    f"The question is what to do about {c['np']}. I will list the usual remedies."),
        }  # fmt: skip
        for key, (ask, follow, thought) in asks.items():
            if key in c:
                yield Fact(f"concept.{key}", f"{topic}/{key}", fill(ask, **words), fixed(c[key]), (), fill(follow), (thought,), topic)

    for a, b in itertools.permutations(concepts, 2):
        if a["group"] != b["group"]:
            continue
        do = "do" if a["np"] in PLURAL_PHRASES else "does"
        yield Fact(
            "compare", f"compare/{a['name']}/{b['name']}",
            fill(ASK_DIFFERENCE, a=a["np"], b=b["np"], an=a["name"], bn=b["name"], do=do),
            fixed(f"{a['is']} In contrast, {lower_first(b['is'])}"),
            thoughts=(f"I have to compare {a['np']} with {b['np']}. I will define the first and then the second.",),
            topic="concept/" + a["name"], composed=True,
        )  # fmt: skip


# ----------------------------------------------------------------------------------------- places, goods, trade terms


def port_facts() -> Iterator[Fact]:
    by_country: dict[str, list[str]] = {}
    for name, country, where, known, cargo in rows("ports.txt"):
        by_country.setdefault(country, []).append(name)
        topic = "port/" + name
        located = f"{name} is a port in {country}, {where}." if country != name else f"{name} is a port city, {where}."
        famous = f"{name} is known for {known}."
        handles = f"The main cargo of {name} is {cargo}." if " " not in cargo else f"The main cargoes of {name} are {cargo}."
        v = {"p": name}
        yield Fact(
            "port.about", topic + "/about",
            fill("Tell me about the port of {p}. | What do you know about {p}? | Describe the port of {p}. | What is {p}? | {p} | Port of {p}? | "
                 "Can you tell me something about {p}? | Give me some facts about the port of {p}. | I want to learn about {p}.", **v),
            fixed(f"{located} It is known for {known}."), (f"Its main cargo: {cargo}.",), (),
            (f"The user asks about {name}. I will say where it is and what it is known for.",), topic,
        )  # fmt: skip
        yield Fact(
            "port.where", topic + "/where",
            fill("Where is {p}? | Where is the port of {p}? | In which country is {p}? | Which country is the port of {p} in? | Where does {p} lie? | "
                 "Can you tell me where {p} is? | On which coast is {p}? | Location of {p}?", **v),
            fixed(located), (), fill("Where is it? | Where is that? | In which country is it? | Where exactly does it lie?"),
            (f"The question is where {name} lies. I will give the country and the coast.",), topic,
        )  # fmt: skip
        yield Fact(
            "port.known", topic + "/known",
            fill("What is {p} known for? | Why is the port of {p} important? | Why does {p} matter? | What is special about {p}? | "
                 "What makes the port of {p} important? | Why is {p} famous?", **v),
            fixed(famous), (handles,), fill("Why is it important? | What is it known for? | What is special about it? | Why does it matter?"),
            (f"The user wants to know why {name} matters.",), topic,
        )  # fmt: skip
        yield Fact(
            "port.cargo", topic + "/cargo",
            fill("What goods go through {p}? | What cargo does {p} handle? | What is shipped through the port of {p}? | What does {p} export and import? | "
                 "Which goods pass through {p}? | Main cargo of {p}? | What do ships carry to and from {p}? | What moves through {p}?", **v),
            fixed(handles), (), fill("What goods go through it? | What cargo does it handle? | What is shipped there? | And what cargo?"),
            (f"The user asks which goods pass through {name}.",), topic,
        )  # fmt: skip
    for country, names in by_country.items():
        if country in names and len(names) == 1:
            continue
        answer = f"{join_list(names[:4])} are ports in {country}." if len(names) > 1 else f"{names[0]} is a port in {country}."
        yield Fact(
            "port.in", f"country/{country}/ports",
            fill("Name a port in {c}. | Which ports are in {c}? | What ports does {c} have? | Do you know a port in {c}? | Ports of {c}? | "
                 "Where do ships land in {c}? | Through which port does {c} trade?", c=country),
            fixed(answer), (), fill("Which ports does it have? | Name a port there. | And its ports?"),
            (f"I need a port in {country}.",), "country/" + country,
        )  # fmt: skip


def goods_facts() -> Iterator[Fact]:
    for name, be, _trait, who, use, moved, price in rows("commodities.txt"):
        topic, big = "goods/" + name, upper_first(name)
        used = f"{big} {be} mostly {use[3:]}." if use.startswith("be ") else f"{big} {be} used to {use}."
        exporters = f"Large exporters of {name} include {who}."
        shipped = f"{big} {be} usually moved {moved}."
        moves = f"The price of {name} depends on {price}."
        do = "do" if be == "are" else "does"
        they = "they" if be == "are" else "it"
        v = {"x": name, "be": be, "do": do, "s": "" if be == "are" else "s"}
        yield Fact(
            "goods.about", topic + "/about",
            fill("Tell me about {x}. | What do you know about {x}? | Tell me about the trade in {x}. | {x} | {x}? | Describe the {x} trade. | How is {x} traded? | "
                 "Explain the {x} market. | What should I know about {x}? | Give me an overview of the trade in {x}.", **v),
            fixed(f"{used} {exporters}"), (shipped, moves), (),
            (f"The user asks about {name}. I will say what it is for and who exports it.",), topic,
        )  # fmt: skip
        yield Fact(
            "goods.who", topic + "/who",
            fill("Who exports {x}? | Which countries export {x}? | Where {do} {x} come from? | Who are the largest exporters of {x}? | Which countries sell {x}? | "
                 "Name exporters of {x}. | What countries supply {x}? | Where can I source {x}?", **v),
            fixed(exporters), (), fill(f"Who exports {'them' if be == 'are' else 'it'}? | Where {do} {they} come from? | Which countries sell {'them' if be == 'are' else 'it'}?"),
            (f"I need the main exporters of {name}.",), topic,
        )  # fmt: skip
        yield Fact(
            "goods.use", topic + "/use",
            fill("What {be} {x} used for? | What is the use of {x}? | Why do people buy {x}? | What do people do with {x}? | Why {be} {x} needed? | What {be} {x} good for?", **v),
            fixed(used), (), fill(f"What {be} {they} used for? | Why do people buy {'them' if be == 'are' else 'it'}?"),
            (f"The question is what {name} {be} used for.",), topic,
        )  # fmt: skip
        yield Fact(
            "goods.moved", topic + "/moved",
            fill("How {be} {x} shipped? | How {be} {x} transported? | How do you move {x}? | In what kind of ship or box {do} {x} travel? | How can I ship {x}? | "
                 "Which transport is used for {x}? | What is the usual way to transport {x}?", **v),
            fixed(shipped), (), fill(f"How {be} {they} shipped? | How {be} {they} transported? | And how is the transport done?"),
            (f"The user asks how {name} {be} moved.",), topic,
        )  # fmt: skip
        yield Fact(
            "goods.price", topic + "/price",
            fill("What moves the price of {x}? | What does the price of {x} depend on? | Why does the price of {x} change? | What drives {x} prices? | "
                 "Why {be} {x} getting dearer? | What affects the price of {x}? | Why do {x} prices go up and down?", **v),
            fixed(moves), (), fill("What moves the price? | What does the price depend on? | And the price? | Why does the price change?"),
            (f"I have to name what moves the price of {name}.",), topic,
        )  # fmt: skip
        yield Fact(
            "live", topic + "/today",
            fill("What is the price of {x} today? | How much {do} {x} cost now? | What will {x} cost next month? | Current {x} price? | "
                 "Give me the latest price of {x}. | How expensive {be} {x} right now? | Will the price of {x} rise this year?", **v),
            fixed(f"I have no live data, so I can not tell you that. In general, the price of {name} depends on {price}."),
            thoughts=(f"This needs live prices, which I do not have. I can say what moves the price of {name}.",), topic=topic,
        )  # fmt: skip


def country_facts() -> Iterator[Fact]:
    for name, exports, imports, note in rows("countries.txt"):
        topic, big = "country/" + name, upper_first(name)
        sells, buys = f"The main exports of {name} include {exports}.", f"The main imports of {name} include {imports}."
        role = f"{big} {note[3:]}" if note.startswith("It ") else note
        v = {"c": name}
        yield Fact(
            "country.exports", topic + "/exports",
            fill("What does {c} export? | What are the main exports of {c}? | What does {c} sell abroad? | Which goods come from {c}? | Main exports of {c}? | "
                 "What can I buy from {c}? | Name some exports of {c}. | Tell me about the exports of {c}.", **v),
            fixed(sells), (note,), fill("What does it export? | And its exports? | What does it sell abroad?"), (f"I need the main exports of {name}.",), topic,
        )  # fmt: skip
        yield Fact(
            "country.imports", topic + "/imports",
            fill("What does {c} import? | What are the main imports of {c}? | What does {c} buy abroad? | Which goods does {c} need from abroad? | Main imports of {c}? | "
                 "What can I sell to {c}? | Name some imports of {c}. | Tell me about the imports of {c}.", **v),
            fixed(buys), (), fill("What does it import? | And its imports? | What does it buy abroad?"), (f"I need the main imports of {name}.",), topic,
        )  # fmt: skip
        yield Fact(
            "country.about", topic + "/about",
            fill("Tell me about the trade of {c}. | What role does {c} play in world trade? | How does {c} trade? | What do you know about {c}? | Describe the trade of {c}. | "
                 "Trade of {c}? | What is the place of {c} in trade?", **v),
            fixed(f"{role} {sells}"), (buys,), (), (f"The user asks about {name}. I will describe its place in trade.",), topic,
        )  # fmt: skip


def passage_facts() -> Iterator[Fact]:
    for name, where, uses, other in rows("passages.txt"):
        topic, v = "passage/" + name, {"p": name}
        be = "are" if name.endswith("straits") else "is"
        verb = "lie" if be == "are" else "runs" if where.startswith("from ") else "lies"
        located = f"{upper_first(name)} {verb} {where}."
        yield Fact(
            "passage.about", topic + "/about",
            fill("What {be} {p}? | Tell me about {p}. | What do you know about {p}? | Describe {p}. | {p} | Explain the role of {p}. | Give me some facts about {p}.", be=be, **v),
            fixed(f"{located} {uses}"), (other,), (), (f"The user asks about {name}. I will say where it is and who uses it.",), topic,
        )  # fmt: skip
        yield Fact(
            "passage.where", topic + "/where",
            fill("Where {be} {p}? | Where {do} {p} lie? | Can you tell me where {p} {be}? | Location of {p}? | In which part of the world {be} {p}?", be=be, do="do" if be == "are" else "does", **v),
            fixed(located), (), fill("Where is it? | Where is that? | Where exactly?"), (f"The question is where {name} {be}.",), topic,
        )  # fmt: skip
        yield Fact(
            "passage.why", topic + "/why",
            fill("Why {be} {p} important? | Why {do} {p} matter for trade? | What goes through {p}? | What depends on {p}? | Who uses {p}? | Which trade uses {p}?", be=be, do="do" if be == "are" else "does", **v),
            fixed(uses), (), fill("Why does it matter? | Why is it important? | Who uses it? | What goes through it?"), (f"I should say which trade uses {name}.",), topic,
        )  # fmt: skip
        yield Fact(
            "passage.other", topic + "/other",
            fill("What happens if {p} {be} closed? | What is the alternative to {p}? | Which way do ships take if they can not use {p}? | How can ships avoid {p}? | "
                 "Is there another way than {p}? | What if {p} {be} blocked? | How do ships go round {p}?", be=be, **v),
            fixed(other), (), fill("What if it is closed? | Is there another way? | What is the alternative? | And if it is blocked?"),
            (f"The user asks for a way other than {name}.",), topic,
        )  # fmt: skip


def compare_terms(a: list[str], b: list[str]) -> str:
    """Where risk passes under each; or, where that is the same, who pays for what."""
    if a[2] != b[2]:
        return f"Under {a[0]}, risk passes {a[2]}. In contrast, under {b[0]}, risk passes {b[2]}."

    def pays(term: list[str], other: list[str]) -> str:
        said = [term[3]] + [term[4]] * (term[4] != other[4])
        if term[3:5] == other[3:5]:
            said = [term[5]]
        return " ".join([f"Under {term[0]}, {lower_first(said[0])}", *said[1:]])

    return f"Risk passes at the same point under {a[0]} and {b[0]}: {a[2]}. {pays(a, b)} {pays(b, a)}"


def incoterm_facts() -> Iterator[Fact]:
    terms = list(rows("incoterms.txt"))
    for code, full, risk, freight, insurance, remark in terms:
        topic, v = "incoterm/" + code, {"k": code, "f": full}
        means, passes = f"{code} stands for {full}.", f"Under {code}, risk passes {risk}."
        yield Fact(
            "incoterm.about", topic + "/about",
            fill("What does {k} mean? | What is {k}? | Explain {k}. | {k} | {k}? | What does {k} stand for? | Tell me about the incoterm {k}. | Define {k}. | Explain the incoterm {f}.", **v),
            fixed(f"{means} {passes}"), (freight, remark), (), (f"{code} is an incoterm. I will give its name and where risk passes.",), topic,
        )  # fmt: skip
        yield Fact(
            "incoterm.risk", topic + "/risk",
            fill("When does risk pass under {k}? | Where does risk pass under {k}? | Who bears the risk under {k}? | At what point does the risk move to the buyer with {k}?", **v),
            fixed(passes), (), fill("When does risk pass? | Who bears the risk? | And the risk?"), (f"The question is where risk passes under {code}.",), topic,
        )  # fmt: skip
        yield Fact(
            "incoterm.freight", topic + "/freight",
            fill("Who pays the freight under {k}? | Who pays for transport with {k}? | Does the seller pay the freight under {k}? | Who pays the shipping cost in {k}?", **v),
            fixed(f"Under {code}, {lower_first(freight)}"), (insurance,), fill("Who pays the freight? | Who pays for transport? | And who pays for shipping?"),
            (f"The question is who pays the freight under {code}.",), topic,
        )  # fmt: skip
        yield Fact(
            "incoterm.insurance", topic + "/insurance",
            fill("Who insures the goods under {k}? | Who pays for insurance under {k}? | Does {k} include insurance? | Who buys the cargo insurance in {k}?", **v),
            fixed(f"Under {code}: {lower_first(insurance)}"), (), fill("Who pays for insurance? | And the insurance? | Does it include insurance?"),
            (f"The question is about insurance under {code}.",), topic,
        )  # fmt: skip
    for a, b in itertools.permutations(terms, 2):
        yield Fact(
            "compare.term", f"compare/{a[0]}/{b[0]}", fill(ASK_DIFFERENCE, a=a[0], b=b[0], an=a[0], bn=b[0], do="does"),
            fixed(compare_terms(a, b)),
            thoughts=(f"I have to compare {a[0]} with {b[0]}. I will say where risk passes and who pays.",), topic="incoterm/" + a[0], composed=True,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------------ causes, advice

CHANNELS = {
    "longer": "longer trips", "blocked": "goods that are stuck", "space": "scarce space", "dearer": "dearer imports",
    "weak": "a weaker currency", "strong": "a stronger currency", "fuel": "dearer transport", "scarce": "less supply",
    "slack": "weaker demand", "glut": "spare room on ships", "plenty": "more supply", "cheaper": "lower tariffs",
}  # fmt: skip
# Shorter names that people use in the same questions.
EVENT_ALIASES = {
    "a tariff increase": ("tariffs", "tariffs go up"), "a port strike": ("port strikes", "a port is on strike"),
    "a rise in fuel prices": ("high fuel prices", "oil prices rise"), "a drought": ("droughts", "a drought strikes"),
    "a canal closure": ("blocked canals", "a canal is blocked"), "a port closure": ("closed ports", "a port is closed"),
    "a weaker currency": ("weak currencies", "a currency gets weaker"), "a recession": ("recessions", "the economy shrinks"),
    "a storm at sea": ("storms", "there is a storm"), "an export ban": ("export bans", "exports are banned"),
}  # fmt: skip
TARGET_ALIASES = {"consumer prices": "prices", "freight rates": "shipping costs", "lead times": "delivery times", "inventory": "stocks"}
PLURAL_EVENTS = {"blank sailings", "sanctions", "too many new ships"}


def short_forms(event: str, clause: str, do: str, target: str) -> tuple[str, ...]:
    """Questions for an event x target in other words: "How do tariffs affect prices?" """
    named = [(event, do, clause)]
    if event in EVENT_ALIASES:
        many, then = EVENT_ALIASES[event]
        named.append((many, "do", then))
    questions: list[str] = []
    for what in dict.fromkeys((target, TARGET_ALIASES.get(target, target))):
        for e, does, c in named:
            if (e, what) != (event, target):
                questions += fill("How {do} {e} affect {t}? | What happens to {t} when {c}? | What {do} {e} do to {t}? | Effect of {e} on {t}?", e=e, do=does, c=c, t=what)
    return tuple(questions)


def cause_facts() -> Iterator[Fact]:
    events: list[tuple[str, str, str, str]] = []
    effects: dict[tuple[str, str], str] = {}
    goods_effects: dict[tuple[str, str], str] = {}
    for row in rows("causes.txt"):
        tag, first = row[0].split(":", 1)
        if tag == "event":
            events.append((first.strip(), row[1], row[2], row[3]))
        elif tag == "effect":
            effects[first.strip(), row[1]] = row[2]
        elif tag == "goods":
            goods_effects[first.strip(), row[1]] = row[2]
    targets = sorted({target for _, target in effects})
    explained = {concept["np"] for concept in read_concepts()}
    for event, clause, does, channel in events:
        do = "do" if event in PLURAL_EVENTS else "does"
        topic = "event/" + event
        if event not in explained:
            v = {"e": event, "c": clause, "do": do}
            yield Fact(
                "event.about", topic + "/about",
                fill("What happens when {c}? | What {do} {e} do to trade? | Tell me about {e}. | What are the effects of {e}? | What if {c}? | "
                     "Explain what {e} means. | How {do} {e} change trade? | {e}?".replace("{e} means", "{e} mean" if do == "do" else "{e} means"), **v),
                fixed(f"{does} {effects[channel, 'freight rates']}"), (effects[channel, "consumer prices"], effects[channel, "lead times"]), (),
                (f"Suppose {clause}. That means {CHANNELS[channel]}. I will name the main effects.",), topic,
            )  # fmt: skip
        for target in targets:
            v = {"e": event, "c": clause, "t": target, "do": do, "s": "" if do == "do" else "s"}
            yield Fact(
                "cause", f"cause/{event}/{target}",
                fill("How {do} {e} affect {t}? | What happens to {t} when {c}? | What {do} {e} mean for {t}? | If {c}, what happens to {t}? | Explain the effect of {e} on {t}. | "
                     "What is the link between {e} and {t}? | How do {t} react when {c}? | Why would {e} change {t}? | Effect of {e} on {t}? | Suppose {c}. What about {t}? | "
                     "Tell me how {e} affect{s} {t}.".replace("How do {t} react", "How do {t} react" if target.endswith("s") else "How does {t} react"), **v)
                + short_forms(event, clause, do, target),
                fixed(f"{does} {effects[channel, target]}"),
                thoughts=(f"Suppose {clause}. That means {CHANNELS[channel]}. I will say what this does to {target}.",), topic=topic, composed=True,
            )  # fmt: skip
        for name, be, trait, *_ in rows("commodities.txt"):
            shape = goods_effects[channel, trait]
            subject = f"Cargo such as {name}" if be == "are" else upper_first(name)
            v = {"e": event, "c": clause, "x": name, "do": do}
            yield Fact(
                "cause.goods", f"cause/{event}/goods/{name}",
                fill("How {do} {e} affect {x}? | What happens to {x} when {c}? | What {do} {e} mean for the trade in {x}? | If {c}, what about {x}? | "
                     "Explain the effect of {e} on {x}. | I trade {x}. What happens when {c}? | How {do} {e} affect {x} exports? | How {do} {e} affect the {x} trade? | "
                     "What happens to {x} exports if {c}?", **v),
                fixed(f"{does} {shape.format(x=name, X=subject)}"),
                thoughts=(f"Suppose {clause}. That means {CHANNELS[channel]}. I will say what this does to {name}.",), topic=topic, composed=True,
            )  # fmt: skip


def pick_remedies(rng: random.Random, remedies: list[str], person: str) -> list[str]:
    chosen = sorted(rng.sample(range(len(remedies)), 3))
    own = {"your": ("its own", "your own"), "it": ("", "")}[person]
    return [remedies[i].replace(*own).replace("than it can", "than you can" if person == "your" else "than it can") for i in chosen]


def advice_facts() -> Iterator[Fact]:
    problems: list[tuple[str, list[str]]] = []
    actors: list[tuple[str, str]] = []
    for row in rows("advice.txt"):
        tag, first = row[0].split(":", 1)
        if tag == "problem":
            problems.append((first.strip(), [r.strip() for r in row[1].split(";")]))
        else:
            actors.append((first.strip(), row[1]))
    for problem, remedies in problems:
        topic = "problem/" + problem

        def you(rng: random.Random, remedies: list[str] = remedies) -> str:
            return f"You can {join_list(pick_remedies(rng, remedies, 'your'))}."

        def numbered(rng: random.Random, remedies: list[str] = remedies) -> str:
            return "\n".join(f"{i}. {upper_first(r)}." for i, r in enumerate(pick_remedies(rng, remedies, "your"), 1))

        yield Fact(
            "advice", topic + "/you",
            fill("My firm suffers from {p}. What can I do? | How can I deal with {p}? | What helps against {p}? | We have {p}. Any advice? | Give me advice on {p}. | "
                 "What should we do about {p}? | I have a problem with {p}. | How do I handle {p}? | Help, we face {p}!", p=problem),
            you, thoughts=(f"The problem is {problem}. I will name a few remedies.",), topic=topic,
        )  # fmt: skip
        yield Fact(
            "advice", topic + "/list",
            fill("Give me three ways to deal with {p}. | List three remedies for {p}. | Name three things that help against {p}. | Three tips for {p}, please. | "
                 "Make a list of ways to handle {p}. | What are three ways to handle {p}?", p=problem),
            numbered, thoughts=(f"The user wants a list of remedies for {problem}. I will give three.",), topic=topic,
        )  # fmt: skip
        for actor, remark in actors:

            def for_actor(rng: random.Random, remedies: list[str] = remedies, remark: str = remark) -> str:
                return f"{remark} It can {join_list(pick_remedies(rng, remedies, 'it'))}."

            yield Fact(
                "advice", f"{topic}/{actor}",
                fill("How can {a} deal with {p}? | What can {a} do about {p}? | What should {a} do about {p}? | How does {a} handle {p}? | Advice for {a} with {p}? | "
                     "How would {a} cope with {p}?", a=actor, p=problem),
                for_actor, thoughts=(f"Think of {actor} that faces {problem}. I will say what is special and name remedies.",), topic=topic, composed=True,
            )  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- routes


def route_facts() -> Iterator[Fact]:
    area_of: dict[str, str] = {}
    ways: dict[str, list[tuple[str, float, str]]] = {}
    for row in rows("seas.txt"):
        tag, first = (part.strip() for part in row[0].split(":", 1))
        if tag == "area":
            area_of.update({port.strip(): first for port in row[1].split(";") if port.strip()})
        else:
            ways.setdefault(first, []).append((row[1], float(row[2]), row[3]))
            ways.setdefault(row[1], []).append((first, float(row[2]), row[3]))

    def shortest(start: str, goal: str) -> list[str]:
        queue: list[tuple[float, str, list[str]]] = [(0.0, start, [])]
        done: set[str] = set()
        while queue:
            length, area, steps = heapq.heappop(queue)
            if area == goal:
                return steps
            if area in done:
                continue
            done.add(area)
            for nxt, cost, step in ways[area]:
                heapq.heappush(queue, (length + cost, nxt, steps + ([] if steps and steps[-1] == step else [step])))
        raise ValueError(f"no way from {start} to {goal}")

    for a, b in itertools.permutations(area_of, 2):
        steps = shortest(area_of[a], area_of[b])
        if steps:
            # "through X" and "through Y" become "through X and Y"
            grouped = [(verb, [s.split(" ", 1)[1] for s in group]) for verb, group in itertools.groupby(steps, key=lambda s: s.split(" ", 1)[0])]
            way = ", then ".join(f"{verb} {join_list(names)}" for verb, names in grouped)
            answer = f"Ships from {a} to {b} usually go {way}."
        else:
            answer = f"{a} and {b} lie in the same waters, so ships need no canal or long crossing between them."
        yield Fact(
            "route", f"route/{a}/{b}",
            fill("How do ships go from {a} to {b}? | What is the sea route from {a} to {b}? | Which way does a ship take from {a} to {b}? | Route from {a} to {b}? | "
                 "I ship goods from {a} to {b}. Which route do they take? | Describe the way by sea from {a} to {b}. | {a} to {b}", a=a, b=b),
            fixed(answer),
            thoughts=(f"{a} lies in the area of {area_of[a]}, and {b} in the area of {area_of[b]}. I will name the passages between them.",),
            topic="port/" + a, composed=True,
        )  # fmt: skip
        yield Fact(
            "live", f"route/{a}/{b}/days",
            fill("How long does it take from {a} to {b}? | How many days from {a} to {b}? | What does it cost to ship a container from {a} to {b}? | Freight rate {a} to {b}? | "
                 "How much is the freight from {a} to {b}?", a=a, b=b),
            fixed("I have no live data and no schedules, so please ask a carrier or a freight forwarder. In general, it depends on the route, the season and the space on ships."),
            thoughts=("This needs live data from carriers, which I do not have. I will say so.",), topic="port/" + a, composed=True,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ everyday


def spread(text: str) -> list[str]:
    """'[a/b] c' -> 'a c', 'b c'"""
    parts = [part.split("/") if i % 2 else [part] for i, part in enumerate(re.split(r"[\[\]]", text))]
    return ["".join(choice) for choice in itertools.product(*parts)]


def everyday_facts() -> Iterator[Fact]:
    blocks: dict[str, dict[str, list[str]]] = {}
    for line in (FOLDER / "everyday.txt").read_text().splitlines():
        if line.startswith("@ "):
            current = blocks.setdefault(line[2:].strip(), {"q": [], "a": [], "x": []})
        elif line[:2] in ("q:", "a:", "x:"):
            text = line[2:].strip()
            current[line[0]] += [q for part in text.split(" | ") for q in spread(part)] if line[0] == "q" else [text]
    for name, block in blocks.items():
        thought = f"This is a general question: {name}. I will name the main points."
        yield Fact("everyday", "everyday/" + name, tuple(block["q"]), fixed(block["a"][0]), tuple(block["x"]), (), (thought,), "everyday/" + name)


# ----------------------------------------------------------------------------------------------------------- smalltalk


def smalltalk_facts() -> Iterator[Fact]:
    concepts = list(read_concepts())
    blocks: dict[str, dict[str, list[str]]] = {}
    for line in (FOLDER / "smalltalk.txt").read_text().splitlines():
        if line.startswith("["):
            current = blocks.setdefault(line.strip("[]"), {"q": [], "a": []})
        elif line[:2] in ("q:", "a:"):
            parts = line[2:].split(" | ") if line[0] == "q" else [line[2:]]
            current[line[0]] += [part.strip() for part in parts]

    def say(answers: list[str]) -> Callable[[random.Random], str]:
        def core(rng: random.Random) -> str:
            concept = rng.choice(concepts)
            return rng.choice(answers).replace("{np}", concept["np"]).replace("{is}", lower_first(concept["is"]))

        return core

    for name, block in blocks.items():
        if name != "offtopic":
            yield Fact("talk", "talk/" + name, tuple(block["q"]), say(block["a"]), thoughts=("The user is making small talk. I will answer in a friendly way.",), topic="talk")

    things: list[str] = []
    asks: list[str] = []
    plain: list[str] = []
    for line in (FOLDER / "offtopic.txt").read_text().splitlines():
        if line.startswith("things:"):
            things = [t.strip() for t in line[7:].split(";")]
        elif line.startswith("ask:"):
            asks = [t.strip() for t in line[4:].split("|")]
        elif line.startswith("plain:"):
            plain = [t.strip() for t in line[6:].split("|")]
    turn_back = say(blocks["offtopic"]["a"])
    thought = ("This is not about trade. I will say so and offer a topic that I know.",)
    for thing in things:
        yield Fact("offtopic", "offtopic/" + thing, tuple(a.format(t=thing) for a in asks), turn_back, thoughts=thought, topic="offtopic", composed=True)
    for question in plain:
        yield Fact("offtopic", "offtopic/" + question, (question,), turn_back, thoughts=thought, topic="offtopic")


def all_facts() -> list[Fact]:
    parts = (concept_facts, port_facts, goods_facts, country_facts, passage_facts, incoterm_facts, cause_facts, advice_facts, route_facts, everyday_facts, smalltalk_facts)
    facts = [fact for part in parts for fact in part()]
    assert len({fact.key for fact in facts}) == len(facts), "fact keys must be unique"
    return facts
