"""Errors, limits, cancellation and the endpoints that OpenAI's client does not know."""

import concurrent.futures
import json
import socket
import time
from urllib.parse import urlsplit

import httpx
import openai
import pytest

CHAT = "/v1/chat/completions"
LONG = {"model": "demo", "messages": [{"role": "user", "content": "Tell me all."}],
        "ignore_eos": True, "stream": True}


def body(**fields):
    return {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2} | fields


def cancelled_count(server):
    return server.metric("millpower_generations_finished_total", reason="cancelled")


def eventually(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_health_banner_and_description(http):
    assert http.get("/health/live").status_code == 200
    assert http.get("/health/ready").status_code == 200
    assert http.get("/").json()["name"] == "millpower"
    assert http.get("/openapi.json").json()["openapi"].startswith("3.1")


def test_models(client, http):
    model = client.models.retrieve("demo")
    assert [m.id for m in client.models.list()] == ["demo"]
    assert model.owned_by == "millpower"
    assert http.get("/v1/models/demo").json()["max_model_len"] > 0


def test_errors_are_openais(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "Hi"}], n=17)
    assert caught.value.param == "n"


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": 5}]},
         "messages[1].content"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"logit_bias": {"ham": 1}}, "logit_bias"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_bad_fields_are_named(http, fields, param):
    response = http.post(CHAT, json=body(**fields))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_http_errors(http):
    assert http.post(CHAT, content="{").status_code == 415
    headers = {"content-type": "application/json"}
    assert http.post(CHAT, content="{", headers=headers).status_code == 400
    assert http.post(CHAT, content=b'{"model": "\xff"}', headers=headers).status_code == 400
    assert http.get(CHAT).status_code == 405
    assert http.get("/nope").status_code == 404
    assert http.get("/", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"


def test_a_body_that_is_too_large(http):
    response = http.post(CHAT, headers={"content-type": "application/json", "connection": "close"},
                         content=b" " * (33 << 20))
    assert response.status_code == 413


def test_a_prompt_that_is_too_long(http):
    length = http.get("/v1/models/demo").json()["max_model_len"]
    response = http.post("/v1/completions", json={"model": "demo", "prompt": [1] * (length + 5)})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert str(length) in error["message"] and str(length + 5) in error["message"]


@pytest.mark.parametrize("text", ["Hello, world!", "naïve 船荷証券 🚢\n\n\t end", " ", "<|im_start|>"])
def test_tokenize_and_back(http, text):
    tokens = http.post("/tokenize", json={"model": "demo", "prompt": text}).json()
    assert tokens["count"] == len(tokens["tokens"])
    back = http.post("/detokenize", json={"model": "demo", "tokens": tokens["tokens"]})
    assert back.json() == {"prompt": text}


def test_tokenize_counts_what_a_chat_costs(http):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    tokens = http.post("/tokenize", json={"model": "demo", "messages": messages}).json()
    answer = http.post(CHAT, json=body(messages=messages)).json()
    assert tokens["count"] == answer["usage"]["prompt_tokens"]


def test_metrics_count(server, http):
    before = server.metric("millpower_generated_tokens_total")
    http.post(CHAT, json=body(max_tokens=5, ignore_eos=True))
    assert server.metric("millpower_generated_tokens_total") == before + 5
    assert server.metric("millpower_http_requests_total", route="chat", status="200") > 0
    assert server.metric("millpower_process_resident_bytes") > 0
    for histogram in ("queue_seconds", "time_to_first_token_seconds", "inter_token_seconds",
                      "generation_seconds", "generation_prompt_tokens", "generation_output_tokens",
                      "step_seconds", "step_device_seconds", "step_rows", "step_sequences"):
        assert server.metric(f"millpower_{histogram}_count", model="demo") > 0, histogram


def test_a_client_that_leaves_stops_the_work(server):
    cancelled = cancelled_count(server)
    with httpx.stream("POST", server.url + CHAT, json=LONG, timeout=60) as response:
        lines = response.iter_lines()
        for _ in range(6):
            next(lines)
    assert eventually(lambda: cancelled_count(server) == cancelled + 1)
    assert eventually(lambda: server.metric("millpower_requests_running") == 0)
    tokens = server.metric("millpower_generated_tokens_total")
    time.sleep(0.3)
    assert server.metric("millpower_generated_tokens_total") == tokens


def test_a_client_that_leaves_before_its_answer(server):
    cancelled = cancelled_count(server)
    address = urlsplit(server.url)
    content = json.dumps(LONG | {"stream": False}).encode()
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: h\r\n"
                           b"Content-Type: application/json\r\n"
                           b"Content-Length: %d\r\n\r\n" % len(content) + content)
        assert eventually(lambda: server.metric("millpower_requests_running") == 1)
    assert eventually(lambda: cancelled_count(server) == cancelled + 1)


def test_a_full_queue_says_so(own_server):
    server = own_server("--max-num-seqs", "1", "--queue", "1")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:  # one runs, one waits, and so on
        answers = list(pool.map(lambda _: httpx.post(server.url + CHAT, json=LONG, timeout=60), range(8)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused and any(answer.status_code == 200 for answer in answers)
    for answer in refused:
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert server.metric("millpower_requests_refused_total", model="demo", reason="queue_full") == len(refused)


def test_sigterm_finishes_what_is_running(own_server):
    server = own_server()
    with httpx.stream("POST", server.url + CHAT, json=LONG | {"max_tokens": 100}, timeout=60) as response:
        lines = response.iter_lines()
        next(lines)
        server.terminate()
        rest = list(lines)
    assert "data: [DONE]" in rest
    assert server.process.wait(timeout=30) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url + "/health/live")


def test_sigterm_does_not_wait_for_ever(own_server):
    server = own_server("--drain-seconds", "1")
    with httpx.stream("POST", server.url + CHAT, json=LONG, timeout=60) as response:
        next(response.iter_lines())
        server.terminate()
        assert server.process.wait(timeout=30) == 0


@pytest.mark.parametrize("allowed, origin, answer", [
    ("https://app.example", "https://app.example", "https://app.example"),
    ("https://app.example", "https://evil.example", None),
    ("*", "https://evil.example", "*"),
    (None, "https://app.example", None),
])
def test_cors(own_server, allowed, origin, answer):
    server = own_server(*(("--cors-origin", allowed) if allowed else ()))
    preflight = httpx.options(server.url + CHAT, headers={
        "origin": origin, "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang"})
    assert preflight.status_code == 204
    assert preflight.headers.get("access-control-allow-origin") == answer
    assert ("x-stainless-lang" in preflight.headers.get("access-control-allow-headers", "")) == (answer is not None)
    for response in (httpx.post(server.url + CHAT, json=body(), headers={"origin": origin}, timeout=60),
                     httpx.get(server.url + "/nope", headers={"origin": origin})):
        assert response.headers.get("access-control-allow-origin") == answer
        assert ("retry-after" in response.headers.get("access-control-expose-headers", "")) == (answer is not None)
