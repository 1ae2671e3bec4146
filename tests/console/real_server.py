"""Starts the real binary with a fresh ledger and an admin port."""

import os
import pathlib
import re
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / os.environ.get("MILLPOWER_BINARY", "build/release/millpower")
MODEL = ROOT / os.environ.get("MILLPOWER_MODEL", "models/demo")
ADMIN_KEY = "an-admin-key-for-tests-only"
START_SECONDS = 120


class RealServer:
    """`url` is the public port's, `admin_url` the admin port's; `developer_key` a tenant's key."""

    def __init__(self, folder):
        self.log_path = folder / "log"
        self.ledger = folder / "ledger"
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(
                [BINARY, "serve", "--model", f"demo={MODEL}", "--port", "0", "--admin-port", "0",
                 "--ledger", self.ledger],
                stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, "MILLPOWER_ADMIN_KEY": ADMIN_KEY})
        try:
            self.url = self._wait_for(r"serving .* at (http://[\d.]+:\d+)/v1")
            self.admin_url = self._wait_for(r"admin API at (http://127\.0\.0\.1:\d+)")
            self.developer_key = (self.ledger / "developer.key").read_text().strip()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _wait_for(self, pattern):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            found = re.search(pattern, self.log())
            if found:
                return found.group(1)
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended:\n{self.log()}")
            time.sleep(0.05)
        raise RuntimeError(f"not ready after {START_SECONDS} s:\n{self.log()}")

    def log(self):
        return self.log_path.read_text(errors="replace")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode
