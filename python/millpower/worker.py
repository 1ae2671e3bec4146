"""A model in a process of its own, which does the work (`millpower worker`)."""

import json
import os
import shutil
import struct
import subprocess
import threading
import weakref

import numpy as np

_DTYPES = {"f32": np.float32, "f64": np.float64, "f16": np.float16, "i64": np.int64, "i32": np.int32,
           "i16": np.int16, "i8": np.int8, "u64": np.uint64, "u32": np.uint32, "u16": np.uint16, "u8": np.uint8,
           "bool": np.bool_, "bf16": np.uint16}


class LoadError(RuntimeError):
    """The model can't be loaded: its file is missing or damaged, memory is short, a flag is wrong."""


class UnsupportedModel(LoadError):
    """The model holds what Millpower can't run; the message names the operators."""


def binary():
    """The program `millpower`."""
    path = os.environ.get("MILLPOWER_BINARY") or shutil.which("millpower")
    if not path:
        raise FileNotFoundError("the program 'millpower' is not on PATH; set MILLPOWER_BINARY to it")
    return path


def _read(stream, size):
    data = stream.read(size)
    if len(data) != size:
        raise RuntimeError("millpower has ended; its last words are on standard error")
    return data


def _stop(process):
    process.stdin.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


class Model:
    """An .onnx or .pt2 file, a SavedModel folder, or a compiled file of one.

    Calling it with arrays by input name gives the outputs as a dictionary of arrays; bf16 arrays are
    uint16, their bits. Safe to use from several threads, one call at a time. `flags` are those of
    `millpower worker`.
    """

    def __init__(self, path, flags=()):
        self._lock = threading.Lock()
        self._process = subprocess.Popen([binary(), "worker", str(path), *flags], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE)
        self._finalizer = weakref.finalize(self, _stop, self._process)
        hello = self._receive_header()
        if "error" in hello:
            self.close()
            raise (UnsupportedModel if hello.get("unsupported") else LoadError)(hello["error"])
        self.inputs, self.outputs = hello["inputs"], hello["outputs"]

    def _receive_header(self):
        (length,) = struct.unpack("<I", _read(self._process.stdout, 4))
        return json.loads(_read(self._process.stdout, length))

    def __call__(self, **inputs):
        return self.run(inputs)

    def run(self, inputs):
        """`inputs`: arrays by name, of the input's type."""
        types = {port["name"]: _DTYPES.get(port["dtype"]) for port in self.inputs}
        entries, blocks = [], []
        for name, value in inputs.items():
            if types.get(name) is None:
                raise ValueError(f"the model has no input '{name}' that takes an array; it has: {', '.join(types)}")
            array = np.ascontiguousarray(value)
            if array.dtype != types[name]:
                raise TypeError(f"input '{name}' takes {np.dtype(types[name])}, not {array.dtype}")
            entries.append({"name": name, "shape": list(np.shape(value)), "bytes": array.nbytes})
            blocks.append(array.tobytes())
        header = json.dumps({"inputs": entries}).encode()
        with self._lock:
            if self._process.stdin.closed:
                raise RuntimeError("the model is closed")
            self._process.stdin.write(struct.pack("<I", len(header)) + header)
            for block in blocks:
                self._process.stdin.write(block)
            self._process.stdin.flush()
            answer = self._receive_header()
            if "error" in answer:
                raise ValueError(answer["error"])
            arrays = {}
            for entry in answer["outputs"]:
                data = _read(self._process.stdout, entry["bytes"])
                arrays[entry["name"]] = np.frombuffer(bytearray(data), _DTYPES[entry["dtype"]]).reshape(entry["shape"])
            return arrays

    def close(self):
        """Ends the process; it also ends with this object."""
        self._finalizer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
