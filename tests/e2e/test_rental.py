"""Keys, caps, limits and bills of the real binary, through the clients that tenants use."""

import itertools
import json
import os
import random
import socket
import stat
import subprocess
import threading
import time

import httpx
import openai
import pytest

from conftest import BINARY, MODEL, RentedServer
from test_http import eventually

PROMPT = "Freight rates rise because"
names = itertools.count()


@pytest.fixture(scope="module")
def rented(tmp_path_factory):
    if not BINARY.exists() or not (MODEL / "config.json").exists():
        pytest.fail(f"needs {BINARY} and {MODEL}")
    folder = tmp_path_factory.mktemp("rental")
    server = RentedServer(folder / "log.txt", folder / "ledger")
    # Micro-units: 4 for a token of input, 1 for a cached one, 10 for one of output.
    for unit, rate in (("input_token", "4"), ("cached_token", "1"), ("output_token", "10")):
        server.make("prices", model="*", tier="on_demand", unit=unit, rate=rate)
    yield server
    assert server.stop() == 0, server.log()


class Tenant:
    """A tenant of its own, without a bound to its credit, and one key."""

    def __init__(self, server, **key_fields):
        self.tenant = server.make("tenants", name=f"tenant-{next(names)}", credit_line=None)
        server.make("projects", tenant=self.tenant["id"], name="default")
        self.key = server.make("keys", tenant=self.tenant["id"], name="k", **key_fields)
        self.secret = self.key["secret"]
        self.client = server.openai(self.secret)
        self.http = server.http(self.secret)

    def get(self, path, **parameters):
        answer = self.http.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def usage(self):
        """The totals of all that was billed."""
        data = self.get("/v1/usage")["data"]
        assert len(data) <= 1
        return data[0] if data else {"requests": 0, "input_tokens": 0, "cached_tokens": 0,
                                     "output_tokens": 0, "amount": "0.00"}


def micros(amount):
    return round(float(amount) * 1e6)


def error_of(caught):
    return caught.value.body


# ---- Keys


@pytest.mark.parametrize("key", ["", "none", "mp-AAAAAAAA-" + "a" * 40])
def test_nobody_gets_in_without_a_key(rented, key):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    answer = httpx.post(rented.url + "/v1/completions", headers=headers,
                        json={"model": "demo", "prompt": "x"})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    if key:
        with pytest.raises(openai.AuthenticationError):
            rented.openai(key).models.list()


def test_truncated_and_forged_keys_are_alike(rented):
    secret = rented.developer_key()
    answers = {httpx.get(rented.url + "/v1/models", headers={"authorization": f"Bearer {key}"}).text
               for key in (secret[:-1], secret[:-1] + ("a" if secret[-1] != "a" else "b"), "x")}
    assert len(answers) == 1
    assert secret not in rented.log() and secret[12:] not in rented.metrics()


def test_the_first_start_makes_a_developer(rented):
    assert stat.S_IMODE(os.stat(rented.folder).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(rented.folder / "developer.key").st_mode) == 0o600
    account = rented.http(rented.developer_key()).get("/v1/account").json()
    assert account["tenant"]["name"] == "developer" and account["available"] is None
    answer = rented.openai(rented.developer_key()).chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "Hi"}], max_tokens=3)
    assert answer.usage.completion_tokens == 3


def test_metrics_are_the_operators(rented):
    assert httpx.get(rented.url + "/metrics").status_code == 404
    assert rented.metric("millpower_ledger_commits_total") > 0
    assert rented.metric("millpower_ledger_failed_commits_total") == 0


def test_revocation_holds_for_the_next_request(rented):
    tenant = Tenant(rented)
    assert [model.id for model in tenant.client.models.list()] == ["demo"]
    assert rented.admin.delete(f"/admin/v1/keys/{tenant.key['id']}").status_code == 200
    with pytest.raises(openai.AuthenticationError) as caught:
        tenant.client.models.list()
    assert "revoked" in str(caught.value)


def test_scopes(rented):
    tenant = Tenant(rented, models=["demo"], endpoints=["chat"])
    tenant.client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "Hi"}], max_tokens=1)
    with pytest.raises(openai.PermissionDeniedError):
        tenant.client.completions.create(model="demo", prompt="x")
    with pytest.raises(openai.NotFoundError) as caught:
        Tenant(rented, models=["other"]).client.completions.create(model="demo", prompt="x")
    assert error_of(caught)["code"] == "model_not_found"


# ---- Caps


def test_what_no_cap_covers_does_not_start(rented):
    tenant = Tenant(rented, caps=[{"period": "day", "measure": "tokens", "limit": 5}])
    with pytest.raises(openai.RateLimitError) as caught:
        tenant.client.completions.create(model="demo", prompt=PROMPT, max_tokens=50)
    assert caught.value.code == "insufficient_quota"
    assert error_of(caught)["type"] == "insufficient_quota"
    assert "retry-after" not in caught.value.response.headers
    assert tenant.usage()["requests"] == 0


def test_a_cap_ends_a_stream(rented):
    first = Tenant(rented)
    prompt_tokens = first.client.completions.create(
        model="demo", prompt=PROMPT, max_tokens=1).usage.prompt_tokens
    tenant = Tenant(rented, caps=[{"period": "total", "measure": "tokens",
                                   "limit": prompt_tokens + 150}])
    chunks = list(tenant.client.completions.create(
        model="demo", prompt=PROMPT, max_tokens=600, stream=True,
        stream_options={"include_usage": True}, extra_body={"ignore_eos": True}))
    last = chunks[-2].choices[0]
    assert last.finish_reason == "length"
    assert last.millpower["stopped_by"] == "budget" and "cap" in last.millpower["message"]
    assert chunks[-1].usage.completion_tokens == 150
    assert tenant.usage()["output_tokens"] == 150
    (cap,) = tenant.get("/v1/account")["caps"]
    assert cap["used"] == cap["limit"] and cap["held"] == 0


def test_money_caps(rented):
    tenant = Tenant(rented, caps=[{"period": "month", "measure": "money", "limit": "0.001200"}])
    answer = tenant.client.completions.create(model="demo", prompt=PROMPT, max_tokens=600,
                                              extra_body={"ignore_eos": True})
    assert answer.choices[0].finish_reason == "length"
    spent = micros(tenant.usage()["amount"])
    assert 1200 - 10 < spent <= 1200
    assert spent == 4 * answer.usage.prompt_tokens + 10 * answer.usage.completion_tokens


# ---- Limits


def test_rate_limit_headers(rented):
    tenant = Tenant(rented, limits={"requests_per_minute": 3, "tokens_per_minute": 10000})
    options = {"model": "demo", "prompt": PROMPT, "max_tokens": 2}
    raw = tenant.client.completions.with_raw_response.create(**options)
    assert raw.headers["x-ratelimit-limit-requests"] == "3"
    assert raw.headers["x-ratelimit-remaining-requests"] == "2"
    assert raw.headers["x-ratelimit-limit-tokens"] == "10000"
    assert raw.headers["x-ratelimit-reset-requests"].endswith("s")
    with tenant.client.completions.with_streaming_response.create(stream=True, **options) as stream:
        assert stream.headers["x-ratelimit-remaining-requests"] == "1"
        stream.read()
    tenant.client.completions.create(**options)
    with pytest.raises(openai.RateLimitError) as caught:
        tenant.client.completions.create(**options)
    assert caught.value.code == "rate_limit_exceeded"
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 20
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"


def test_streams_at_a_time(rented):
    tenant = Tenant(rented, limits={"concurrent_requests": 1})
    options = {"model": "demo", "prompt": PROMPT}
    stream = tenant.client.completions.create(max_tokens=1000, stream=True,
                                              extra_body={"ignore_eos": True}, **options)
    next(stream)
    with pytest.raises(openai.RateLimitError):
        tenant.client.completions.create(max_tokens=1, **options)
    stream.close()

    def is_free():
        try:
            return tenant.client.completions.create(max_tokens=1, **options)
        except openai.RateLimitError:
            return None

    assert eventually(is_free)


# ---- Bills


def test_choices_pay_their_prompt_once(rented):
    tenant = Tenant(rented)
    answer = tenant.client.completions.create(model="demo", prompt=PROMPT, n=4, max_tokens=9)
    usage = tenant.usage()
    assert usage["requests"] == 4
    assert usage["input_tokens"] + usage["cached_tokens"] == answer.usage.prompt_tokens
    assert usage["output_tokens"] == answer.usage.completion_tokens


def test_cached_tokens_are_billed_once(rented):
    tenant = Tenant(rented)
    prompt = "All work and no play makes a dull boy. " * 20
    amounts = []
    for _ in range(2):
        before = micros(tenant.usage()["amount"])
        answer = tenant.client.completions.create(model="demo", prompt=prompt, max_tokens=1)
        cached = answer.usage.prompt_tokens_details.cached_tokens
        amounts.append(micros(tenant.usage()["amount"]) - before)
        assert amounts[-1] == (4 * (answer.usage.prompt_tokens - cached) + cached +
                               10 * answer.usage.completion_tokens)
    assert cached > 0 and amounts[1] < amounts[0]
    # Nobody else finds what this tenant's prompts left behind.
    other = Tenant(rented).client.completions.create(model="demo", prompt=prompt, max_tokens=1)
    assert other.usage.prompt_tokens_details.cached_tokens == 0


def test_scoring_bills_the_prompt_alone(rented):
    tenant = Tenant(rented)
    answer = tenant.client.completions.create(model="demo", prompt=PROMPT, max_tokens=0, echo=True,
                                              logprobs=1)
    usage = tenant.usage()
    assert usage["output_tokens"] == answer.usage.completion_tokens == 0
    assert usage["input_tokens"] == answer.usage.prompt_tokens > 0


def test_many_at_once_are_billed_exactly(rented):
    """Sixteen clients with one seed: whole answers, streams, choices, some of them cut off."""
    tenant = Tenant(rented)
    before = rented.metric("millpower_generated_tokens_total")
    failures = []

    def ask(seed):
        random_ = random.Random(seed)
        try:
            for _ in range(8):
                stream = random_.random() < 0.5
                answer = tenant.client.completions.create(
                    model="demo", prompt=PROMPT * random_.randint(1, 5), stream=stream,
                    max_tokens=random_.choice([1, 30, 64, 65, 300]), n=random_.randint(1, 3),
                    extra_body={"ignore_eos": True})
                if not stream:
                    continue
                for at, _ in enumerate(answer):
                    if at == seed:
                        break
                answer.close()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert eventually(lambda: rented.metric("millpower_ledger_open_holds") == 0)
    assert tenant.usage()["output_tokens"] == (
        rented.metric("millpower_generated_tokens_total") - before)
    account = tenant.get("/v1/account")
    assert account["spent"]["total"]["money"] == tenant.usage()["amount"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("at", [0, 1, 30, "last"])
def test_who_hangs_up_pays_what_was_made(rented, stream, at):
    tenant = Tenant(rented)
    total = 1500

    def made():
        return rented.metric("millpower_generated_tokens_total") - before

    def answered():
        return rented.metric("millpower_http_requests_total", route="completions")

    before = rented.metric("millpower_generated_tokens_total")
    answered_before = answered()
    body = json.dumps({"model": "demo", "prompt": PROMPT, "max_tokens": total, "stream": stream,
                       "ignore_eos": True}).encode()
    host, port = rented.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " +
                       tenant.secret.encode() + b"\r\nContent-Type: application/json\r\n"
                       b"Content-Length: %d\r\n\r\n" % len(body) + body)
        if not stream:
            wanted = total if at == "last" else at
            assert eventually(lambda: made() >= wanted)
        else:
            # Events, or the end but for what says that it is the end.
            read = b""
            while (b'"finish_reason":"length"' not in read if at == "last" else
                   read.count(b"data: {") < at):
                piece = client.recv(4096)
                assert piece
                read += piece
    assert eventually(lambda: answered() > answered_before)
    time.sleep(0.1)  # it may have left while its prompt was tokenised
    assert eventually(lambda: rented.metric("millpower_requests_running") == 0 and
                      rented.metric("millpower_requests_waiting") == 0 and
                      rented.metric("millpower_ledger_open_holds") == 0)
    assert tenant.usage()["output_tokens"] == made()
    if at != "last":
        assert made() < total


# ---- What tenants are told


def test_account_usage_and_invoices(rented):
    tenant = Tenant(rented)
    answer = tenant.client.completions.create(model="demo", prompt=PROMPT, max_tokens=5)
    amount = tenant.usage()["amount"]
    account = tenant.get("/v1/account")
    assert account["tenant"]["id"] == tenant.tenant["id"]
    assert account["spent"]["day"]["money"] == amount
    assert tenant.secret not in json.dumps(account)
    (row,) = tenant.get("/v1/usage/requests")["data"]
    assert row["api_request_id"] == answer.id and row["amount"] == amount
    (invoice,) = tenant.get("/v1/invoices")["data"]
    assert invoice["total"] == amount
    whole = tenant.get(f"/v1/invoices/{invoice['month']}")
    assert whole["total"] == amount
    text = tenant.http.get(f"/v1/invoices/{invoice['month']}", params={"format": "text"})
    assert tenant.tenant["name"] in text.text
    csv = tenant.http.get("/v1/usage", params={"format": "csv", "group_by": "model,day"})
    assert csv.headers["content-type"].startswith("text/csv") and "demo" in csv.text
    stats = tenant.get("/v1/stats")
    assert stats["spent"] == amount and stats["models"][0]["id"] == "demo"

    other = Tenant(rented)
    assert other.get("/v1/usage/requests")["data"] == []
    assert other.http.get("/v1/usage", params={"key": tenant.key["id"]}).status_code == 404
    assert other.get("/v1/invoices")["data"] == []
    assert other.get(f"/v1/invoices/{invoice['month']}")["total"] == "0.00"


def test_the_books_balance(rented):
    answer = rented.admin.post("/admin/v1/verify", json={})
    assert answer.json() == {"object": "verification", "ok": True, "faults": []}


def test_a_restart_keeps_everything(tmp_path):
    server = RentedServer(tmp_path / "log1.txt", tmp_path / "ledger")
    key = server.developer_key()
    server.openai(key).completions.create(model="demo", prompt=PROMPT, max_tokens=7,
                                          extra_body={"ignore_eos": True})
    before = server.http(key).get("/v1/usage").json()
    assert before["data"][0]["output_tokens"] == 7
    # One server for one ledger.
    second = subprocess.run([BINARY, "serve", "--model", MODEL, "--port", "0", "--ledger",
                             tmp_path / "ledger"], capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "ledger" in second.stderr and "use" in second.stderr
    assert server.stop() == 0
    again = RentedServer(tmp_path / "log2.txt", tmp_path / "ledger")
    try:
        assert again.developer_key() == key
        assert again.http(key).get("/v1/usage").json() == before
        again.openai(key).completions.create(model="demo", prompt=PROMPT, max_tokens=2)
    finally:
        assert again.stop() == 0
