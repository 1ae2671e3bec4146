"""Chat and completions through OpenAI's own client."""

import pytest

QUESTION = [{"role": "user", "content": "What is a bill of lading?"}]
NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}


def chat(client, **fields):
    fields = {"max_tokens": 24, "temperature": 0, "extra_body": NO_THINKING} | fields
    return client.chat.completions.create(model="demo", messages=QUESTION, **fields)


def test_answers(client):
    answer = chat(client)
    choice = answer.choices[0]
    assert answer.object == "chat.completion"
    assert answer.model == "demo"
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert 0 < answer.usage.completion_tokens <= 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streams_the_same(client):
    whole = chat(client)
    events = list(chat(client, stream=True))
    assert events[0].choices[0].delta.role == "assistant"
    text = "".join(event.choices[0].delta.content or "" for event in events)
    assert text == whole.choices[0].message.content
    assert events[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(event.usage is None for event in events)


def test_streams_usage(client):
    *events, last = chat(client, stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage.completion_tokens > 0
    assert all(event.usage is None for event in events)


def test_greedy_answers_repeat(client):
    assert chat(client).choices[0].message.content == chat(client).choices[0].message.content


def test_seeds_repeat_and_differ(client):
    def sample(seed):
        answer = client.completions.create(model="demo", prompt="The", max_tokens=24, seed=seed,
                                           temperature=2, top_p=1, extra_body={"top_k": 0})
        return answer.choices[0].text

    texts = [sample(seed) for seed in range(4)]
    assert texts == [sample(seed) for seed in range(4)]
    assert len(set(texts)) > 1


def test_thinking_is_apart_from_content(client):
    thinking = chat(client, max_tokens=200, extra_body={"chat_template_kwargs": {"enable_thinking": True}})
    assert "<think>" not in (thinking.choices[0].message.content or "")
    assert not hasattr(chat(client).choices[0].message, "reasoning_content")


def test_stops_at_a_string(client):
    text = chat(client).choices[0].message.content
    stop = text[len(text) // 2 : len(text) // 2 + 4]
    stopped = chat(client, stop=[stop]).choices[0]
    assert stopped.message.content == text[: text.index(stop)]
    assert stopped.finish_reason == "stop"


def test_stops_at_a_length(client):
    answer = chat(client, max_tokens=3)
    assert answer.usage.completion_tokens == 3
    assert answer.choices[0].finish_reason == "length"


def test_logprobs(client):
    answer = chat(client, logprobs=True, top_logprobs=3)
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens
    for entry in entries:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 3
        # Greedy: the token is the likeliest of all.
        assert entry.top_logprobs[0].token == entry.token
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob)
    text = b"".join(bytes(entry.bytes) for entry in entries).decode(errors="replace")
    assert text.startswith(answer.choices[0].message.content)


def test_completes(client):
    answer = client.completions.create(model="demo", prompt="Freight rates", max_tokens=8,
                                       temperature=0, logprobs=2, echo=True)
    choice = answer.choices[0]
    assert choice.text.startswith("Freight rates")
    assert choice.logprobs.token_logprobs[0] is None
    assert len(choice.logprobs.tokens) == answer.usage.total_tokens
    for token, offset in zip(choice.logprobs.tokens, choice.logprobs.text_offset):
        if token.isascii() and not token.startswith("<|"):
            assert choice.text[offset:].startswith(token)


def test_completes_several_prompts_as_if_alone(client):
    prompts = ["Freight rates", "A port is", "The"]
    options = {"model": "demo", "max_tokens": 8, "temperature": 0}
    together = client.completions.create(prompt=prompts, **options)
    alone = [client.completions.create(prompt=prompt, **options) for prompt in prompts]
    assert [c.text for c in together.choices] == [a.choices[0].text for a in alone]


def test_echo_scores_what_was_generated(client):
    """Logprobs of tokens as output and as prompt agree."""
    made = client.completions.create(model="demo", prompt="Freight rates", max_tokens=8,
                                     temperature=0, logprobs=0,
                                     extra_body={"return_token_ids": True}).choices[0]
    ids = made.prompt_token_ids + made.token_ids
    scored = client.completions.create(model="demo", prompt=ids, max_tokens=0, logprobs=0,
                                       echo=True).choices[0]
    assert scored.logprobs.token_logprobs[len(made.prompt_token_ids):] == pytest.approx(
        made.logprobs.token_logprobs, abs=1e-4)


TOOL = {"type": "function",
        "function": {"name": "vessel_position", "description": "Where a vessel is",
                     "parameters": {"type": "object", "properties": {"imo": {"type": "string"}}}}}


def test_tools_are_put_into_the_prompt(client):
    plain = chat(client, max_tokens=1).usage.prompt_tokens
    with_tools = chat(client, max_tokens=1, tools=[TOOL]).usage.prompt_tokens
    not_offered = chat(client, max_tokens=1, tools=[TOOL], tool_choice="none").usage.prompt_tokens
    assert with_tools > plain
    assert not_offered == plain


def test_a_tool_conversation_is_accepted(client):
    call = {"id": "call_1", "type": "function",
            "function": {"name": "vessel_position", "arguments": '{"imo": "9"}'}}
    answer = client.chat.completions.create(
        model="demo", max_tokens=8, tools=[TOOL],
        messages=QUESTION + [{"role": "assistant", "content": None, "tool_calls": [call]},
                             {"role": "tool", "tool_call_id": "call_1", "content": "Lowell"}])
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")
