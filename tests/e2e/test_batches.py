"""Files and batches with OpenAI's client, against the real binary with a ledger."""

import json
import signal
import time

import httpx
import openai
import pytest

WAIT_SECONDS = 120
OVER = {"completed", "failed", "expired", "cancelled"}


def connect(server, ledger):
    key = (ledger / "developer.key").read_text().strip()
    return openai.OpenAI(base_url=server.url + "/v1", api_key=key, max_retries=0, timeout=60)


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "ledger"


@pytest.fixture
def server(own_server, ledger):
    return own_server("--ledger", str(ledger))


@pytest.fixture
def client(server, ledger):
    return connect(server, ledger)


def line(custom_id, **body):
    return json.dumps(
        {
            "custom_id": custom_id,
            "method": "POST",
            "url": "/v1/completions",
            "body": {"model": "demo", "prompt": "The ship", "max_tokens": 4, "temperature": 0} | body,
        }
    )


def start(client, lines, **options):
    content = "\n".join(lines).encode()
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    assert file.bytes == len(content) and file.filename == "requests.jsonl"
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/completions", completion_window="24h", **options
    )


def wait(client, batch, statuses=OVER):
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        batch = client.batches.retrieve(batch.id)
        if batch.status in statuses:
            return batch
        time.sleep(0.05)
    pytest.fail(f"still {batch.status}: {batch.request_counts}")


def results(client, file_id):
    if file_id is None:
        return []
    return [json.loads(one) for one in client.files.content(file_id).text.splitlines()]


def test_flow(client):
    lines = [line(f"line-{i}", max_tokens=i % 5 + 1) for i in range(30)]
    lines.insert(7, line("bad", temperature=9))
    batch = wait(client, start(client, lines, metadata={"job": "7"}))
    assert batch.status == "completed" and batch.metadata == {"job": "7"}
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (31, 30, 1)

    answers = {one["custom_id"]: one for one in results(client, batch.output_file_id)}
    assert set(answers) == {f"line-{i}" for i in range(30)}
    for i in range(30):
        response = answers[f"line-{i}"]["response"]
        assert response["status_code"] == 200
        assert response["body"]["usage"]["completion_tokens"] <= i % 5 + 1
    alone = client.completions.create(model="demo", prompt="The ship", max_tokens=5, temperature=0)
    assert answers["line-4"]["response"]["body"]["choices"][0]["text"] == alone.choices[0].text

    (error,) = results(client, batch.error_file_id)
    assert error["custom_id"] == "bad" and error["response"]["status_code"] == 400
    assert error["response"]["body"]["error"]["param"] == "temperature"

    assert [one.id for one in client.batches.list(limit=1)] == [batch.id]
    names = {file.id for file in client.files.list()}
    assert names == {batch.input_file_id, batch.output_file_id, batch.error_file_id}
    assert client.files.delete(batch.output_file_id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(batch.output_file_id)


def test_faulty_input(client):
    batch = wait(client, start(client, [line("a"), "{", line("a")]))
    assert batch.status == "failed"
    assert [(error.line, error.code) for error in batch.errors.data] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
    ]


def test_cancel(client):
    batch = start(client, [line(f"line-{i}", max_tokens=500, ignore_eos=True) for i in range(200)])
    wait(client, batch, {"in_progress"})
    with pytest.raises(openai.ConflictError):
        client.files.delete(batch.input_file_id)
    client.batches.cancel(batch.id)
    batch = wait(client, batch)
    assert batch.status == "cancelled"
    told = results(client, batch.output_file_id) + results(client, batch.error_file_id)
    assert sorted(one["custom_id"] for one in told) == sorted(f"line-{i}" for i in range(200))


def test_needs_a_key(server):
    assert httpx.get(server.url + "/v1/files").status_code == 401
    assert httpx.post(server.url + "/v1/batches", json={}).status_code == 401


def test_kill_and_restart(own_server, ledger):
    count = 300
    server = own_server("--ledger", str(ledger))
    client = connect(server, ledger)
    batch = start(client, [line(f"line-{i}", max_tokens=8) for i in range(count)])
    for share in (0.2, 0.5):
        deadline = time.monotonic() + WAIT_SECONDS
        while client.batches.retrieve(batch.id).request_counts.completed < share * count:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        server = own_server("--ledger", str(ledger))
        client = connect(server, ledger)
    batch = wait(client, batch)
    assert batch.status == "completed" and batch.request_counts.completed == count
    told = results(client, batch.output_file_id)
    assert sorted(one["custom_id"] for one in told) == sorted(f"line-{i}" for i in range(count))
    # Each line was billed once, whatever was computed twice.
    key = {"Authorization": f"Bearer {client.api_key}"}
    usage = httpx.get(server.url + "/v1/usage", params={"group_by": "tier"}, headers=key).json()
    (row,) = [row for row in usage["data"] if row["tier"] == "batch"]
    assert row["requests"] == count
