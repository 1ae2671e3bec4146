"""Choices, penalties, biases, tiers and what is told of prompts, through OpenAI's own client."""

import pytest

from test_chat import NO_THINKING, chat

PROMPT = "Freight rates"


def complete(client, **fields):
    fields = {"max_tokens": 12, "temperature": 0, "prompt": PROMPT} | fields
    return client.completions.create(model="demo", **fields)


def ids(client, **fields):
    extra = fields.pop("extra_body", {}) | {"return_token_ids": True}
    return complete(client, extra_body=extra, **fields).choices[0].token_ids


def test_choices_are_what_their_seeds_give_alone(client):
    options = {"temperature": 1.5, "extra_body": NO_THINKING | {"top_k": 0}}
    answer = chat(client, n=4, seed=70, **options)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    alone = [chat(client, seed=70 + i, **options) for i in range(4)]
    texts = [choice.message.content for choice in answer.choices]
    assert texts == [one.choices[0].message.content for one in alone]
    assert len(set(texts)) > 1
    assert answer.usage.prompt_tokens == alone[0].usage.prompt_tokens
    assert answer.usage.completion_tokens == sum(one.usage.completion_tokens for one in alone)


def test_choices_stream_by_their_index(client):
    options = {"temperature": 1, "n": 3, "seed": 5}
    whole = chat(client, **options)
    texts, ends = ["", "", ""], [None] * 3
    for event in chat(client, stream=True, stream_options={"include_usage": True}, **options):
        for choice in event.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
        usage = event.usage
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_choices_of_several_prompts(client):
    answer = complete(client, prompt=[PROMPT, "The"], n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in answer.choices]
    assert texts[0] == texts[1] != texts[2] == texts[3]  # greedy


def test_a_bias_forbids_and_forces(client):
    plain = ids(client)
    without = ids(client, logit_bias={str(plain[0]): -100})
    assert without[0] != plain[0]
    other = next(token for token in range(1000, 1100) if token not in plain)
    assert ids(client, logit_bias={str(other): 100}, max_tokens=5) == [other] * 5
    # Logprobs are told of the model's own distribution, which a bias does not change.
    biased = complete(client, logit_bias={str(other): 100}, max_tokens=1, logprobs=1).choices[0]
    assert biased.logprobs.token_logprobs[0] < -1


def test_penalties_against_repetition(client):
    other = "1000"
    again = ids(client, logit_bias={other: 30}, max_tokens=8)
    assert again == [int(other)] * 8
    for penalty in ({"presence_penalty": 2, "logit_bias": {other: 1.9}},
                    {"frequency_penalty": 2, "logit_bias": {other: 30}},
                    {"extra_body": {"repetition_penalty": 2.0}}):
        penalised = ids(client, max_tokens=40, **{"temperature": 0} | penalty)
        plain = ids(client, max_tokens=40, **{key: value for key, value in penalty.items()
                                              if key == "logit_bias"})
        assert max(map(penalised.count, penalised)) <= max(map(plain.count, plain))
        assert penalised != plain


def test_min_tokens_holds_the_end_back(client):
    short = chat(client, max_tokens=64)
    assert short.choices[0].finish_reason == "stop"
    count = short.usage.completion_tokens + 10
    longer = chat(client, max_tokens=count + 5, extra_body=NO_THINKING | {"min_tokens": count})
    assert longer.usage.completion_tokens >= count


def test_stop_token_ids(client):
    plain = ids(client)
    stop = plain[4]
    answer = complete(client, extra_body={"stop_token_ids": [stop], "return_token_ids": True}).choices[0]
    assert answer.token_ids == plain[: plain.index(stop) + 1]
    assert answer.finish_reason == "stop"


def test_tokens_of_a_repeated_prompt_are_cached(client, server):
    prompt = "A port is a place where ships load and discharge their cargo. " * 20
    first = complete(client, prompt=prompt)
    before = server.metric("millpower_cached_prompt_tokens_total")
    again = complete(client, prompt=prompt)
    cached = again.usage.prompt_tokens_details.cached_tokens
    assert 0 < cached < again.usage.prompt_tokens
    assert server.metric("millpower_cached_prompt_tokens_total") == before + cached
    assert again.choices[0].text == first.choices[0].text


def test_without_a_prefix_cache(own_server):
    import openai
    server = own_server("--no-prefix-cache")
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=120)
    for _ in range(2):
        answer = complete(client, prompt="A port is a place where ships load. " * 20)
        assert answer.usage.prompt_tokens_details.cached_tokens == 0


def test_tiers(client, own_server):
    assert complete(client, extra_body={"service_tier": "flex"}).service_tier == "flex"
    assert chat(client, service_tier="auto").service_tier == "default"
    import openai
    server = own_server("--priority-tier")
    allowed = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=120)
    assert chat(allowed, service_tier="priority").service_tier == "priority"


def test_prompt_logprobs_are_those_of_an_echo(client):
    echoed = complete(client, echo=True, logprobs=2, max_tokens=1,
                      extra_body={"return_token_ids": True}).choices[0]
    told = complete(client, max_tokens=1, extra_body={"prompt_logprobs": 2}).choices[0]
    assert told.logprobs is None
    assert told.prompt_logprobs[0] is None
    for at, token in enumerate(echoed.prompt_token_ids[1:], 1):
        entry = told.prompt_logprobs[at][str(token)]
        assert entry["logprob"] == pytest.approx(echoed.logprobs.token_logprobs[at])
        assert entry["decoded_token"] == echoed.logprobs.tokens[at]
        ranks = [other["rank"] for other in told.prompt_logprobs[at].values()]
        assert ranks[:2] == [1, 2] and set(ranks[2:]) <= {None}


def test_a_batch_of_token_ids_is_scored(client):
    """What lm-evaluation-harness sends."""
    prompts = [[72, 105, 300], [500, 600, 700, 800]]
    answer = client.completions.create(model="demo", prompt=prompts, max_tokens=1, temperature=0,
                                       echo=True, logprobs=1, seed=1234)
    for prompt, choice in zip(prompts, answer.choices):
        logprobs = choice.logprobs
        assert len(logprobs.token_logprobs) == len(prompt) + 1
        assert logprobs.token_logprobs[0] is None
        for logprob, top in zip(logprobs.token_logprobs[1:], logprobs.top_logprobs[1:]):
            assert logprob <= max(top.values())
