#!/usr/bin/env python3
"""Makes tests/text_data/chat_formats.jsonl.gz: conversations rendered by the official templates.

    python3 -m venv venv && venv/bin/pip install jinja2==3.1.6
    venv/bin/python tools/goldens/make_chat.py tests/text_data qwen3=FILE \\
        qwen3-instruct-2507=FILE qwen3-thinking-2507=FILE

FILE is the chat_template of the Qwen3 release of that name, as a .jinja file. The conversations are
those of chat_golden.jsonl.gz and some that stress numbers, escapes and odd turns. Each line:
{"format", "messages", "tools", "add_generation_prompt", "chat_template_kwargs", "rendered"}.
"""
import gzip
import json
import random
import sys

from jinja2.sandbox import ImmutableSandboxedEnvironment


def environment():
    """As transformers.utils.chat_template_utils sets it up."""
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return env


def extra_conversations():
    numbers = [0, -1, 2.5, 1e-7, 1e16, 1e15, 123456789012345.6, -0.0, 1e-4, 0.00001, 1.0, 100.0, 5e-324,
               1.7976931348623157e308, 2**63 - 1, -2**63, 2**64 - 1, 0.1, 1 / 3, 1e22, 12345678.9, 9007199254740993]
    rng = random.Random(1)
    numbers += [rng.uniform(-1, 1) * 10 ** rng.randint(-20, 20) for _ in range(200)]
    text = "quote \" slash \\ / tab \t nul-ish \x01\x1f del \x7f <b>&amp;</b> ' \u2028 é 中 😀"
    tool = {"type": "function", "function": {"name": "f", "parameters": {"default": numbers, "d": text,
            text: {}, "e": [], "n": None, "t": True}}}
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": numbers[:6], "s": text}}}
    system, user = {"role": "system", "content": "be brief\n"}, {"role": "user", "content": "hi\n\n"}
    think = "<think>\n\na\nb\n\n</think>\n\nyes"
    for tools in (None, [tool], [tool, tool]):
        yield [user], tools
        yield [system, user], tools
        yield [user, system, user], tools
        yield [user, {"role": "assistant", "content": think}], tools
        yield [user, {"role": "assistant", "content": "<think>x</think>y</think>z<think>w"}, user], tools
        yield [user, {"role": "assistant", "content": "a</think>\n\nb", "reasoning_content": "\n\nr\n"}], tools
        yield [user, {"role": "assistant", "content": None, "tool_calls": [call, call]},
               {"role": "tool", "content": "1"}, {"role": "tool", "content": text}], tools
        yield [user, {"role": "assistant", "content": think, "tool_calls": [call]},
               {"role": "tool", "content": "1"}, {"role": "assistant", "content": "\nok"}], tools
        yield [user, {"role": "assistant", "content": "\n", "tool_calls": [call]}, {"role": "tool", "content": ""},
               user, {"role": "tool", "content": "2"}], tools
        yield [{"role": "tool", "content": "first"}, user], tools
        yield [user, {"role": "assistant", "content": "x"},
               {"role": "user", "content": "<tool_response>\nold style\n</tool_response>"}], tools
        yield [{"role": "assistant", "content": think}], tools


def main():
    folder = sys.argv[1]
    with gzip.open(f"{folder}/chat_golden.jsonl.gz", "rt") as file:
        conversations = [(c["messages"], c["tools"]) for c in map(json.loads, file)][:40]
    conversations += extra_conversations()
    with open(f"{folder}/chat_formats.jsonl.gz", "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
        for argument in sys.argv[2:]:
            name, path = argument.split("=", 1)
            template = environment().from_string(open(path).read())
            thinking = {"qwen3": [{}, {"enable_thinking": False}, {"enable_thinking": True}]}.get(name, [{}])
            for index, (messages, tools) in enumerate(conversations):
                case = {"format": name, "messages": messages, "tools": tools,
                        "add_generation_prompt": index % 4 != 0,
                        "chat_template_kwargs": thinking[index % len(thinking)]}
                case["rendered"] = template.render(messages=messages, tools=tools,
                                                   add_generation_prompt=case["add_generation_prompt"],
                                                   **case["chat_template_kwargs"])
                out.write((json.dumps(case, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
