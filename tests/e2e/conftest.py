"""Starts the real binary on a free port for the tests, and stops it by its pid.

MILLPOWER_BINARY  the program              (build/release/millpower)
MILLPOWER_MODEL   what --model gets        (models/demo)
"""

import os
import pathlib
import re
import signal
import subprocess
import time

import httpx
import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / os.environ.get("MILLPOWER_BINARY", "build/release/millpower")
MODEL = ROOT / os.environ.get("MILLPOWER_MODEL", "models/demo")
START_SECONDS = 120


class Server:
    """One running `millpower serve`; its log is a file. It serves `models`: NAME=PATH."""

    def __init__(self, log_path, *flags, models=(f"demo={MODEL}",)):
        self.log_path = log_path
        named = [argument for model in models for argument in ("--model", model)]
        with open(log_path, "w") as log:
            self.process = subprocess.Popen(
                [BINARY, "serve", *named, "--port", "0", *flags],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.url = self._wait_until_ready()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _wait_until_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            found = re.search(r"serving .* at (http://[\d.]+:\d+)/v1", self.log())
            if found:
                return found.group(1)
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended:\n{self.log()}")
            time.sleep(0.05)
        raise RuntimeError(f"not ready after {START_SECONDS} s:\n{self.log()}")

    def log(self):
        return self.log_path.read_text(errors="replace")

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        if self.process.poll() is None:
            self.terminate()
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def metrics(self):
        return httpx.get(self.url + "/metrics").text

    def metric(self, name, **labels):
        """The sum of a metric's series that have these labels."""
        total = 0.0
        for line in self.metrics().splitlines():
            found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if not found or found.group(1) != name:
                continue
            series = dict(re.findall(r'(\w+)="([^"]*)"', found.group(2) or ""))
            if labels.items() <= series.items():
                total += float(found.group(3))
        return total


ADMIN_KEY = "a key that is long enough"


class RentedServer(Server):
    """A server with a ledger in `folder`, which may have been there before, and an admin port."""

    def __init__(self, log_path, folder, *flags, **options):
        key_file = folder.parent / "admin.key"
        key_file.write_text(ADMIN_KEY + "\n")
        super().__init__(log_path, "--ledger", str(folder), "--admin-port", "0", "--admin-key-file",
                         str(key_file), *flags, **options)
        self.folder = folder
        port = re.search(r"admin API at http://127\.0\.0\.1:(\d+)/admin/v1", self.log()).group(1)
        self.admin = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60,
                                  headers={"authorization": f"Bearer {ADMIN_KEY}"})

    def metrics(self):
        return self.admin.get("/metrics").text

    def make(self, kind, **fields):
        """A tenant, key, price, ... as the admin API answers."""
        answer = self.admin.post(f"/admin/v1/{kind}", json=fields)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def developer_key(self):
        return (self.folder / "developer.key").read_text().strip()

    def openai(self, key):
        return openai.OpenAI(base_url=self.url + "/v1", api_key=key, max_retries=0, timeout=120)

    def http(self, key):
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {key}"},
                            timeout=120)

    def stop(self):
        self.admin.close()
        return super().stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the end of the server's log with a failure."""
    report = yield
    server = getattr(item, "funcargs", {}).get("server")
    if report.failed and server is not None:
        report.sections.append(("server log", server.log()[-8000:]))
    return report


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    if not BINARY.exists() or not (MODEL / "config.json").exists():
        pytest.fail(f"needs {BINARY} and {MODEL}")
    running = Server(tmp_path_factory.mktemp("server") / "log.txt")
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture
def own_server(tmp_path):
    """Starts servers that a test may stop or give flags."""
    if not BINARY.exists() or not (MODEL / "config.json").exists():
        pytest.fail(f"needs {BINARY} and {MODEL}")
    started = []

    def start(*flags, **options):
        started.append(Server(tmp_path / f"log{len(started)}.txt", *flags, **options))
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture(scope="session")
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=120)


@pytest.fixture(scope="session")
def http(server):
    with httpx.Client(base_url=server.url, timeout=120) as http:
        yield http
