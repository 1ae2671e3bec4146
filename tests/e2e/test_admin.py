"""Several models in one process, loaded and unloaded while others stream."""

import re
import shutil
import subprocess
import threading
import time

import httpx
import openai
import pytest

from conftest import BINARY, MODEL
from test_http import eventually

KEY = "a key that is long enough"
LONG = {"prompt": "The", "max_tokens": 1500, "stream": True, "extra_body": {"ignore_eos": True}}


@pytest.fixture
def admin_server(own_server, tmp_path):
    (tmp_path / "key").write_text(KEY + "\n")
    shutil.copytree(MODEL, tmp_path / "root" / "second")
    server = own_server("--admin-port", "0", "--admin-key-file", str(tmp_path / "key"),
                        "--model-root", str(tmp_path / "root"))
    url = re.search(r"admin API at (http://127\.0\.0\.1:\d+/admin/v1)", server.log()).group(1)
    server.admin = httpx.Client(base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=60)
    server.admin_port = url.split(":")[2].split("/")[0]
    server.key_file = str(tmp_path / "key")
    yield server
    server.admin.close()


def client_of(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=120)


def test_two_models_answer_as_each_alone(own_server):
    server = own_server(models=(f"a={MODEL}", f"b={MODEL}"))
    client = client_of(server)
    assert [model.id for model in client.models.list()] == ["a", "b"]
    options = {"prompt": "Freight rates", "max_tokens": 40, "temperature": 0}
    expected = client.completions.create(model="a", **options).choices[0].text
    results = {}

    def ask(name, at):
        results[name, at] = client.completions.create(model=name, **options).choices[0].text

    threads = [threading.Thread(target=ask, args=(name, at)) for name in "ab" for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and set(results.values()) == {expected}
    for name in "ab":
        assert server.metric("millpower_generated_tokens_total", model=name) > 0
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="c", **options)


def test_kv_memory_is_shared_in_equal_parts(own_server):
    server = own_server("--kv-memory", "8MiB", models=(f"a={MODEL}", f"b={MODEL}"))
    pages = [server.metric("millpower_kv_pages_total", model=name) for name in "ab"]
    alone = own_server("--kv-memory", "4MiB")
    assert pages == [alone.metric("millpower_kv_pages_total")] * 2


def test_needs_the_key(admin_server):
    for headers in ({"authorization": "Bearer nope"}, {"authorization": KEY}):
        response = admin_server.admin.get("/models", headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert httpx.get(admin_server.url + "/admin/v1/models").status_code == 404
    assert KEY not in admin_server.log()


def test_makes_a_key_and_tells_it_once(own_server):
    server = own_server("--admin-port", "0")
    key, = re.findall(r"admin key, not shown again: ([0-9a-f]{64})", server.log())
    url = re.search(r"admin API at (\S+)", server.log()).group(1)
    assert httpx.get(url + "/models", headers={"authorization": f"Bearer {key}"}).status_code == 200


def test_loads_and_unloads_while_another_streams(admin_server):
    admin, client = admin_server.admin, client_of(admin_server)
    resident = admin_server.metric("millpower_process_resident_bytes")
    gaps, done = [], threading.Event()

    def stream():
        last = time.monotonic()
        for _ in client.completions.create(model="demo", **LONG):
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
        done.set()

    streaming = threading.Thread(target=stream)
    streaming.start()
    assert eventually(lambda: gaps)
    for _ in range(3):
        response = admin.post("/models", json={"name": "second", "path": "second"})
        assert response.status_code == 202 and response.json()["state"] == "loading"
        assert admin.post("/models", json={"name": "second", "path": "second"}).status_code == 409
        assert eventually(lambda: admin.get("/models/second").json()["state"] == "ready", 60)
        assert client.completions.create(model="second", prompt="The", max_tokens=3).choices[0].text
        assert admin.get("/models/second").json()["memory"]["weights_bytes"] > 1_000_000
        assert admin.delete("/models/second").status_code == 202
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="second", prompt="The", max_tokens=3)
        assert eventually(lambda: admin.get("/models/second").status_code == 404, 60)
    streaming.join(timeout=120)
    assert done.is_set()
    assert max(gaps) < 10  # nothing stalled, on however busy a machine
    assert [model["id"] for model in admin.get("/models").json()["data"]] == ["demo"]
    assert admin_server.metric("millpower_process_resident_bytes") < resident + 64e6


def test_unloading_lets_running_requests_end(admin_server):
    client = client_of(admin_server)
    stream = client.completions.create(model="demo", **LONG | {"max_tokens": 300})
    next(iter(stream))
    assert admin_server.admin.delete("/models/demo").status_code == 202
    assert httpx.get(admin_server.url + "/health/ready").status_code == 503
    *_, last = stream
    assert last.choices[0].finish_reason == "length"
    assert eventually(lambda: admin_server.admin.get("/models").json()["data"] == [])


@pytest.mark.parametrize("fields, param", [
    ({"path": "../.."}, "path"),
    ({"path": "/etc"}, "path"),
    ({"path": "second", "weights": "int3"}, "weights"),
    ({"path": "second", "name": "a b"}, "name"),
])
def test_bad_requests_are_named(admin_server, fields, param):
    response = admin_server.admin.post("/models", json={"name": "x"} | fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_what_can_not_be_loaded_says_why(admin_server, tmp_path):
    (tmp_path / "root" / "second" / "config.json").write_text("{}")
    admin_server.admin.post("/models", json={"name": "x", "path": "second"})
    assert eventually(lambda: admin_server.admin.get("/models/x").json()["state"] == "failed")
    assert "config.json" in admin_server.admin.get("/models/x").json()["error"]


def test_the_command_line_manages_models(admin_server):
    def admin(*args):
        return subprocess.run([BINARY, "admin", "--port", admin_server.admin_port, "--key-file",
                               admin_server.key_file, "models", *args],
                              capture_output=True, text=True, timeout=120)

    assert admin("list").stdout.startswith("demo ")
    loaded = admin("load", "second", "second", "--kv-memory", "4MiB", "--wait")
    assert loaded.returncode == 0 and " ready, " in loaded.stdout, loaded.stderr
    assert len(admin("list").stdout.splitlines()) == 2
    assert "already" in admin("load", "second", "second").stderr
    assert admin("unload", "second", "--wait").stdout.split() == ["second", "unloaded"]
    assert admin("unload", "second").returncode == 1
