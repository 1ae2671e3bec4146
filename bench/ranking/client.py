"""A small client of the Open Inference Protocol with binary tensors, for load: requests are made ahead, and a
connection sends one and reads its answer with little work in between."""

import json
import pathlib
import select
import socket
import subprocess
import time
import urllib.request

TYPES = {"float32": "FP32", "int64": "INT64", "int32": "INT32"}


def request_bytes(model, inputs):
    """The whole HTTP request that asks `model` about arrays by name."""
    tensors = [{"name": name, "shape": list(values.shape), "datatype": TYPES[str(values.dtype)],
                "parameters": {"binary_data_size": values.nbytes}} for name, values in inputs.items()]
    header = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    body = header + b"".join(values.tobytes() for values in inputs.values())
    head = (f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            f"Inference-Header-Content-Length: {len(header)}\r\n\r\n")
    return head.encode() + body


class Connection:
    """One connection that stays open. Not thread-safe."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=300)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self):
        return self.socket.fileno()

    def send(self, request):
        """Of one request at a time."""
        self.answer = b""
        self.socket.sendall(request)

    def receive(self):
        """Waits for a part of the answer. The body once it is whole, None before; any status but 200 is an error."""
        got = self.socket.recv(1 << 18)
        if not got:
            raise RuntimeError("the server closed the connection")
        self.answer += got
        end = self.answer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self.answer[:end].lower()
        size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self.answer) < end + 4 + size:
            return None
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(self.answer.decode(errors="replace"))
        return self.answer[end + 4:]

    def ask(self, request):
        """Sends it, and waits for the body of the answer."""
        self.send(request)
        while (body := self.receive()) is None:
            pass
        return body


def answered(connections, timeout):
    """Those of the connections whose answers are whole, after some seconds at most."""
    ready, _, _ = select.select(list(connections), [], [], max(0, timeout))
    return [line for line in ready if line.receive() is not None]


class Server:
    """`millpower serve` with these words, until it is closed. Ready when made: --model NAME=PATH."""

    def __init__(self, binary, port, *words, timeout=600):
        self.port = port
        self.process = subprocess.Popen([binary, "serve", "--port", str(port), "--log-level", "warn", *words])
        end = time.time() + timeout
        names = [word.split("=")[0] for word, before in zip(words[1:], words) if before == "--model"]
        while True:
            try:
                for name in names:
                    self.get(f"/v2/models/{name}/ready")
                return
            except OSError:
                if self.process.poll() is not None or time.time() > end:
                    self.close()
                    raise RuntimeError("the server did not become ready") from None
                time.sleep(0.1)

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return answer.read().decode()

    def post(self, path, port=None, key=None):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        ask = urllib.request.Request(f"http://127.0.0.1:{port or self.port}{path}", b"{}", headers, method="POST")
        with urllib.request.urlopen(ask, timeout=600) as answer:
            return answer.read().decode()

    def status(self):
        """Of /proc, in bytes: VmRSS, RssFile, RssAnon, VmHWM..."""
        lines = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        pairs = (line.split(":", 1) for line in lines)
        return {name: int(value.split()[0]) * 1024 for name, value in pairs if value.endswith(" kB")}

    def close(self):
        self.process.terminate()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def percentile(values, part):
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
