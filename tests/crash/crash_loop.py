#!/usr/bin/env python3
"""Kills the real server again and again while clients use it, and audits its books after each time.

    tests/crash/crash_loop.py --rounds 1000

Each round starts the server on the same ledger, lets clients stream, ask for whole answers, ask for
several choices and go away early, and sends SIGKILL at a random moment: during start and recovery
too. After every round, of what the clients saw and what the ledger's file says:

- what was delivered to the end is billed, once for each choice, with the very counts that the client
  was told and the amount that they cost;
- the books balance (every tenth round, `millpower admin verify` on the file and, another time, the
  running server's own);
- nothing is held any more once the server has started again.

Exits with 1 and the seed when anything is wrong."""

import argparse
import http.client
import json
import pathlib
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
ADMIN_KEY = "crash-loop-admin-key"
PROMPTS = ["Why do freight rates rise?", "What is a bill of lading?", "Name a port. " * 20]


class Server:
    def __init__(self, binary, model, folder, log_path):
        self.log_path = log_path
        self.log = open(log_path, "w")
        self.process = subprocess.Popen(
            [binary, "serve", "--model", f"demo={model}", "--port", "0", "--ledger", folder / "ledger",
             "--admin-port", "0", "--admin-key-file", folder / "admin.key", "--threads", "1",
             "--kv-memory", "4MiB", "--max-model-len", "512"],
            stdout=self.log, stderr=subprocess.STDOUT)
        self.port = None

    def wait_until_ready(self, timeout=60):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = re.search(r"serving .* at http://[\d.]+:(\d+)/v1", self.log_path.read_text())
            if found:
                self.port = int(found.group(1))
                return
            if self.process.poll() is not None:
                raise RuntimeError("the server ended:\n" + self.log_path.read_text())
            time.sleep(0.005)
        raise RuntimeError("not ready:\n" + self.log_path.read_text())

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)
        self.log.close()


class Client(threading.Thread):
    """Asks until the server is gone. `delivered`: api request id -> the usage it was told, of what
    came whole."""

    def __init__(self, port, key, seed):
        super().__init__(daemon=True)
        self.port, self.key, self.rng = port, key, random.Random(seed)
        self.delivered, self.refused = {}, []

    def run(self):
        while True:
            try:
                self.ask()
            except (OSError, http.client.HTTPException, ValueError):
                return  # the server was killed

    def ask(self):
        rng = self.rng
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = {"model": "demo", "prompt": rng.choice(PROMPTS), "max_tokens": rng.randint(1, 150),
                "ignore_eos": rng.random() < 0.7, "n": rng.choice((1, 1, 1, 3)),
                "stream": rng.random() < 0.6}
        if rng.random() < 0.2:
            body["stop"] = ["the", "."]
        if rng.random() < 0.05:
            body["max_tokens"] = 450  # two slices and more
        if body["stream"]:
            body["stream_options"] = {"include_usage": True}
        connection.request("POST", "/v1/completions", json.dumps(body),
                           {"Content-Type": "application/json", "Authorization": "Bearer " + self.key})
        answer = connection.getresponse()
        if answer.status != 200:
            self.refused.append((answer.status, answer.read().decode()))
            connection.close()
            return
        if not body["stream"]:
            whole = json.loads(answer.read())
            self.delivered[whole["id"]] = whole["usage"] | {"n": body["n"]}
        else:
            self.read_stream(answer, rng.randint(1, 60) if rng.random() < 0.2 else None, body["n"])
        connection.close()

    def read_stream(self, answer, cut_after, n):
        api_id = usage = None
        events = 0
        while line := answer.readline():
            if not line.startswith(b"data: "):
                continue
            events += 1
            if events == cut_after:
                return
            data = line[6:].strip()
            if data == b"[DONE]":
                self.delivered[api_id] = usage | {"n": n}
                return
            event = json.loads(data)
            if "error" in event:
                raise ValueError(event)
            api_id = event["id"]
            usage = event.get("usage") or usage


# Micro-units for a million tokens: fractions of a micro-unit for one, so that rounding shows.
RATES = {"input": 150_000, "cached": 50_000, "output": 600_000}


def cost(tokens, kind):
    return -(-tokens * RATES[kind] // 1_000_000)  # rounded up, in whole numbers


def set_prices(binary, folder, log):
    """Real prices, and a credit that has an end: else nothing would be posted at all."""
    port = re.search(r"admin API at http://127.0.0.1:(\d+)", log).group(1)
    for command in (["price", "set", "demo", "--input", "0.15", "--cached", "0.05", "--output", "0.60"],
                    ["tenant", "credit", "developer", "1000", "--reference", "crash loop"],
                    ["tenant", "update", "developer", "--credit-line", "0"]):
        subprocess.run([binary, "admin", "--port", port, "--key-file", folder / "admin.key", *command],
                       check=True, capture_output=True, timeout=60)


def verify_live(folder, log):
    """What the running server says of its books."""
    port = int(re.search(r"admin API at http://127.0.0.1:(\d+)", log).group(1))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("POST", "/admin/v1/verify", headers={"Authorization": "Bearer " + ADMIN_KEY})
    return json.loads(connection.getresponse().read())["faults"]


def billed(ledger_file):
    """api request id -> [usage rows, amount, input, cached, output], and how many holds are open, of
    the file as it lies."""
    database = sqlite3.connect(f"file:{ledger_file}?mode=ro", uri=True)
    rows = database.execute(
        "SELECT api_request_id, COUNT(*), SUM(amount), SUM(input_tokens),"
        " SUM(cached_tokens), SUM(output_tokens) FROM usage GROUP BY api_request_id").fetchall()
    holds = database.execute("SELECT COUNT(*) FROM holds").fetchone()[0]
    database.close()
    return {row[0]: row[1:] for row in rows}, holds


def check(delivered, rows):
    faults = []
    for api_id, usage in delivered.items():
        if api_id not in rows:
            faults.append(f"{api_id} was delivered and is not billed")
            continue
        count, amount, computed, cached, output = rows[api_id]
        told = (usage["prompt_tokens"], usage["completion_tokens"])
        if (computed + cached, output) != told:
            faults.append(f"{api_id}: the client was told {told}, billed are {(computed + cached, output)}")
        if count != usage["n"]:
            faults.append(f"{api_id}: {usage['n']} choices were asked for, {count} are billed")
        prompt = cost(computed, "input") + cost(cached, "cached")
        least = prompt + cost(output, "output")  # of several choices each is rounded up
        if not least <= amount <= least + usage["n"] - 1:
            faults.append(f"{api_id}: {amount} is charged for what costs {least}")
    return faults


def verify(binary, folder):
    done = subprocess.run([binary, "admin", "verify", "--ledger", folder / "ledger"],
                          capture_output=True, text=True, timeout=300)
    # Holds of a server that was killed are open until the next start voids them.
    faults = [line for line in (done.stdout + done.stderr).splitlines()
              if done.returncode != 0 and "orphan" not in line and "fault" not in line]
    return faults


def crash_loop(binary, model, rounds, seed, folder, clients=8, say=print):
    """Returns what was wrong, and what was seen."""
    rng = random.Random(seed)
    (folder / "admin.key").write_text(ADMIN_KEY)
    database = folder / "ledger" / "ledger.db"
    all_delivered, faults, early_kills, recovered, priced = {}, [], 0, 0, False
    for number in range(rounds):
        server = Server(binary, model, folder, folder / "log.txt")
        if priced and rng.random() < 0.1:
            time.sleep(rng.random() * 0.3)  # perhaps before it is ready
            server.kill()
            early_kills += 1
        else:
            server.wait_until_ready()
            held = billed(database)[1]
            if held:
                faults.append(f"round {number}: {held} holds are left after the start")
            if not priced:
                set_prices(binary, folder, server.log_path.read_text())
                priced = True
            if number % 10 == 5:
                faults += [f"round {number}: {fault}" for fault in
                           verify_live(folder, server.log_path.read_text())]
            key = (folder / "ledger" / "developer.key").read_text().strip()
            threads = [Client(server.port, key, rng.getrandbits(32)) for _ in range(clients)]
            for thread in threads:
                thread.start()
            time.sleep(rng.random() ** 2 * 0.8)
            server.kill()
            for thread in threads:
                thread.join(timeout=60)
                all_delivered |= thread.delivered
                faults += [f"round {number}: refused with {refused}" for refused in thread.refused]
            recovered += billed(database)[1]
        rows, _ = billed(database)
        faults += [f"round {number}: {fault}" for fault in check(all_delivered, rows)]
        if number % 10 == 9 or number == rounds - 1:
            faults += [f"round {number}: {fault}" for fault in verify(binary, folder)]
        if faults:
            break
        if number % 50 == 49:
            say(f"{number + 1} kills, {len(all_delivered)} answers delivered, {len(rows)} billed, "
                f"{recovered} holds to recover")
    server = Server(binary, model, folder, folder / "log.txt")
    server.wait_until_ready()
    rows, held = billed(database)
    server.stop()
    if held:
        faults.append(f"{held} holds are left at the end")
    faults += verify(binary, folder)
    return faults, {"kills": rounds, "before ready": early_kills, "delivered": len(all_delivered),
                    "billed": len(rows), "holds to recover": recovered}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "build/release/millpower")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models/demo")
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        faults, seen = crash_loop(options.binary, options.model, options.rounds, options.seed,
                                  pathlib.Path(folder))
    print(", ".join(f"{count} {what}" for what, count in seen.items()),
          f"in {time.monotonic() - start:.0f} s, seed {options.seed}")
    if faults:
        sys.exit("\n".join(faults[:20]))
    print("the books balance; nothing billed twice; all that was delivered is billed")


if __name__ == "__main__":
    main()
