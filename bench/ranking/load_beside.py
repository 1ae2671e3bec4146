"""p99 of a served DLRM at half load, while another model is loaded and unloaded beside it and without.

    python bench/ranking/load_beside.py

Finds how many requests a second one model answers when it is never idle, then sends half as many at random
times (Poisson) whatever is still running, in rounds of --seconds by turns: alone, while another model is
loaded and unloaded by the repository API without a pause, and, to compare, beside a process of the lowest
priority that computes without a pause and shares nothing with the server: what that costs is the machine's. A
request's time runs from when it was due. Prints p50 and p99 of each round, and the ratios of the medians of
p99. Needs numpy and onnx.

On a machine that others use run it with a high priority (nice -n -10), which the server inherits.
"""

import argparse
import gc
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

import client
import models

ADMIN_KEY = "mpa_" + "0" * 40


def closed_loop(flags, server, pool):
    """Requests a second when each of --connections asks again as soon as it is answered."""
    lines = [client.Connection(server.port) for _ in range(flags.connections)]
    answered, end = 0, time.perf_counter() + flags.seconds
    for number, line in enumerate(lines):
        line.send(pool[number])
    while time.perf_counter() < end:
        for line in client.answered(lines, end - time.perf_counter()):
            answered += 1
            line.send(pool[answered % len(pool)])
    return answered / flags.seconds


def open_loop(flags, server, pool, rate, seconds, random):
    """Requests at random times on --connections, each sent when it is due and one is free; their times.
    All by one thread: threads of Python would wait for each other, up to 5 ms each time."""
    free = [client.Connection(server.port) for _ in range(flags.connections)]
    due = np.cumsum(random.exponential(1 / rate, int(rate * seconds))) + time.perf_counter()
    asked, times, next_one = {}, [], 0
    end = due[-1] + 300
    while len(times) < len(due):
        now = time.perf_counter()
        if now > end:
            raise RuntimeError(f"{len(due) - len(times)} requests have no answer")
        while free and next_one < len(due) and due[next_one] <= now:
            line = free.pop()
            line.send(pool[next_one % len(pool)])
            asked[line] = due[next_one]
            next_one += 1
        wait = due[next_one] - now if free and next_one < len(due) else end - now
        for line in client.answered(asked, wait):
            times.append(time.perf_counter() - asked.pop(line))
            free.append(line)
    return times


class Loader:
    """Loads and unloads the other model until it is closed."""

    def __init__(self, server, admin_port):
        self.server, self.port, self.stop, self.loads, self.seconds = server, admin_port, threading.Event(), 0, 0.0
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def post(self, what):
        self.server.post(f"/v2/repository/models/other/{what}", self.port, ADMIN_KEY)

    def work(self):
        while not self.stop.is_set():
            began = time.perf_counter()
            self.post("load")
            self.seconds += time.perf_counter() - began
            self.loads += 1
            self.post("unload")

    def close(self):
        self.stop.set()
        self.thread.join()
        return f", {self.loads} loads of {self.seconds / self.loads:.1f} s"


class Spinner:
    """A process that keeps a processor busy, at the lowest priority, until it is closed."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=lambda: os.nice(39))

    def close(self):
        self.process.kill()
        self.process.wait()
        return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the served model's tables at most")
    parser.add_argument("--other-rows", type=int, default=200_000, help="of the other model's, a DCNv2")
    parser.add_argument("--tables", default="int8", help="type of tables; they are converted at every load")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7, help="of each kind")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--port", type=int, default=8098)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()))
    parser.add_argument("--binary", default="build/release/millpower")
    flags = parser.parse_args()
    served, other = (flags.folder / f"{name}-{rows}.onnx" for name, rows in
                     (("dlrm-kaggle", flags.rows), ("dcnv2-mlperf", flags.other_rows)))
    for path, make, rows in ((served, models.dlrm_kaggle, flags.rows), (other, models.dcnv2_mlperf, flags.other_rows)):
        if not path.exists():
            make(path, rows)
    pool = [client.request_bytes("dlrm", models.request("dlrm-kaggle", flags.rows, flags.batch, seed))
            for seed in range(256)]
    with tempfile.NamedTemporaryFile("w") as key:
        key.write(ADMIN_KEY)
        key.flush()
        words = ["--model", f"dlrm={served}", "--model", f"other={other}", "--tables", flags.tables, "--threads",
                 str(flags.threads), "--admin-port", str(flags.port + 1), "--admin-key-file", key.name]
        server = client.Server(flags.binary, flags.port, *words)
    with server:
        server.post("/v2/repository/models/other/unload", flags.port + 1, ADMIN_KEY)
        random = np.random.default_rng(1)
        gc.freeze()
        gc.disable()
        most = closed_loop(flags, server, pool)
        print(f"batch {flags.batch}, {flags.threads} threads: at most {most:.0f} requests/s; asked {most / 2:.0f}/s",
              flush=True)
        beside = {"alone": lambda: None, "load": lambda: Loader(server, flags.port + 1), "spin": Spinner}
        p99 = {kind: [] for kind in beside}
        open_loop(flags, server, pool, most / 2, 2, random)
        for number in range(flags.rounds):
            for kind in list(beside)[::1 if number % 2 == 0 else -1]:
                neighbour = beside[kind]()
                try:
                    times = open_loop(flags, server, pool, most / 2, flags.seconds, random)
                finally:
                    told = neighbour.close() if neighbour else ""
                p99[kind].append(client.percentile(times, 0.99) * 1e3)
                print(f"{kind:5}: p50 {client.percentile(times, 0.5) * 1e3:6.2f} ms, p99 {p99[kind][-1]:6.2f} ms"
                      f"{told}", flush=True)
    median = {kind: statistics.median(values) for kind, values in p99.items()}
    print(f"p99, medians of {flags.rounds} rounds: " + ", ".join(
        f"{kind} {ms:.2f} ms ({ms / median['alone']:.2f})" for kind, ms in median.items()))


if __name__ == "__main__":
    main()
