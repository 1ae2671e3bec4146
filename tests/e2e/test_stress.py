"""Hundreds of clients that connect, stall, cut and retry. Nothing may leak, nothing may stall.

MILLPOWER_STRESS_SECONDS  how long (30)
"""

import asyncio
import json
import os
import pathlib
import random
import time
from urllib.parse import urlsplit

import httpx

from test_http import CHAT, cancelled_count, eventually

SECONDS = float(os.environ.get("MILLPOWER_STRESS_SECONDS", 30))
CLIENTS = 200
SEED = 20250101


def message(path, fields, headers=""):
    content = json.dumps(fields).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: h\r\n{headers}Content-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n").encode() + content


def chat(rng, **fields):
    return {"model": "demo", "messages": [{"role": "user", "content": "Why? " * rng.randint(1, 60)}],
            "max_tokens": rng.randint(1, 200), "ignore_eos": True, "n": rng.choice((1, 1, 1, 2))} | fields


async def cut(reader, writer, rng):
    """Sends part of a request, or all of it, and goes."""
    data = message(CHAT, chat(rng))
    writer.write(data[: rng.randint(0, len(data))])
    await writer.drain()
    await asyncio.sleep(rng.random() * 0.2)


async def stall(reader, writer, rng):
    """Asks for a stream and reads none or little of it for a while."""
    writer.write(message(CHAT, chat(rng, stream=True)))
    await writer.drain()
    await asyncio.sleep(rng.random() * 0.5)
    await asyncio.wait_for(reader.read(rng.randint(1, 2000)), 60)
    await asyncio.sleep(rng.random() * 0.5)


async def whole(reader, writer, rng):
    """Waits for its answer, whatever that is; several times on one connection."""
    for _ in range(rng.randint(1, 3)):
        writer.write(message(CHAT, chat(rng, max_tokens=rng.randint(1, 8))))
        await writer.drain()
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 120)
        status = int(head.split()[1])
        assert status in (200, 429), head
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await asyncio.wait_for(reader.readexactly(length), 60)


async def nonsense(reader, writer, rng):
    writer.write(rng.choice((b"\0" * 100, b"GET / HTTP/9.9\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n",
                             message(CHAT, {"model": "demo", "n": -1}), message("/nope", {}))))
    await writer.drain()
    await asyncio.wait_for(reader.read(1), 30)


async def client(address, number, deadline):
    rng = random.Random(SEED + number)
    rounds = 0
    while time.monotonic() < deadline:
        behave = rng.choice((cut, cut, stall, stall, whole, nonsense))
        try:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        try:
            await behave(reader, writer, rng)
            rounds += 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # closed on us: what it does to those who misbehave
        finally:
            if rng.random() < 0.5:
                writer.transport.abort()
            writer.close()
            try:
                await asyncio.wait_for(writer.wait_closed(), 10)
            except (ConnectionError, TimeoutError):
                writer.transport.abort()
        await asyncio.sleep(rng.random() * 0.3)
    return rounds


async def canary(url, deadline):
    """One well-behaved client: retries when told to, and must get on."""
    worst, answers = 0, 0
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        while time.monotonic() < deadline:
            start = time.monotonic()
            while True:
                assert (await http.get("/health/live")).status_code == 200
                answer = await http.post("/v1/completions", json={"model": "demo", "prompt": "The",
                                                                  "max_tokens": 4})
                if answer.status_code == 200:
                    break
                assert answer.status_code == 429, answer.text
                assert int(answer.headers["retry-after"]) >= 1
                await asyncio.sleep(0.2)
            worst, answers = max(worst, time.monotonic() - start), answers + 1
            await asyncio.sleep(0.1)
    return worst, answers


def resources(server):
    """Open files, threads and resident bytes of the server."""
    process = pathlib.Path(f"/proc/{server.process.pid}")
    return (len(list((process / "fd").iterdir())), len(list((process / "task").iterdir())),
            server.metric("millpower_process_resident_bytes"))


def is_idle(server):
    return all(server.metric(f"millpower_{name}") == 0
               for name in ("requests_running", "requests_waiting", "kv_pages_used"))


async def storm(server, seconds):
    deadline = time.monotonic() + seconds
    address = urlsplit(server.url)
    watch = asyncio.create_task(canary(server.url, deadline))
    rounds = await asyncio.gather(*(client(address, i, deadline) for i in range(CLIENTS)))
    return sum(rounds), *await watch


def test_nothing_leaks_and_nothing_stalls(own_server):
    server = own_server("--queue", "64")
    asyncio.run(storm(server, SECONDS * 0.25))  # what is allocated once
    assert eventually(lambda: is_idle(server), 60)
    assert eventually(lambda: server.metric("millpower_http_connections") <= 2, 60)
    files, threads, resident = resources(server)

    rounds, worst, answers = asyncio.run(storm(server, SECONDS * 0.75))
    assert rounds > CLIENTS, rounds
    assert answers > 3 and worst < 30, (answers, worst)
    # All work stops soon after the last client left.
    assert eventually(lambda: is_idle(server), 20)
    assert eventually(lambda: server.metric("millpower_http_connections") <= 2, 60)
    assert cancelled_count(server) > 0
    tokens = server.metric("millpower_generated_tokens_total")
    time.sleep(0.3)
    assert server.metric("millpower_generated_tokens_total") == tokens

    files_now, threads_now, resident_now = resources(server)
    assert files_now <= files + 4
    assert threads_now == threads
    assert resident_now < resident * 1.25 + 32e6, (resident, resident_now)


def test_cancelled_work_stops_within_a_step(server):
    """Of many streams cut at once, none makes more than the step under way."""
    assert eventually(lambda: is_idle(server), 60)
    fields = {"model": "demo", "prompt": "The", "max_tokens": 1900, "ignore_eos": True, "stream": True}
    streams = []
    with httpx.Client(timeout=60, limits=httpx.Limits(max_connections=None)) as http:
        for _ in range(8):
            request = http.build_request("POST", server.url + "/v1/completions", json=fields)
            streams.append(http.send(request, stream=True))
            next(streams[-1].iter_lines())
        steps = server.metric("millpower_engine_steps_total")
        for stream in streams:
            stream.close()
    assert eventually(lambda: is_idle(server), 20)
    # A step takes milliseconds; the closing of eight sockets and the reading of metrics some more,
    # much more on a busy machine. Running on to the end would take some 1900.
    assert server.metric("millpower_engine_steps_total") - steps < 1000
