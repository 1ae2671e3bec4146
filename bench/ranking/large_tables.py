"""Serves DCNv2 at MLPerf's row counts, 27 GB of int8 tables, within a bound of memory for its tables.

    python bench/ranking/large_tables.py --folder /var/tmp --table-memory 8GiB

Makes the compiled model (some 55 GB are written, 27 GB stay), serves it, asks in a closed loop with ids
that follow a power law over all rows, and prints once a second what of the process is resident (/proc) and
what the server says of its tables; then the largest of these, p50 and p99 of a request, and rows a second.
The model is deleted at the end unless --keep. Needs numpy and onnx.

The source of the compiled model is an ONNX file whose tables are holes of a sparse file, as f32 tables of
204 million rows would take 105 GB; rows of random numbers are then written over the zeros in the compiled
file, where docs/isa/package.md says tables lie.
"""

import argparse
import pathlib
import struct
import subprocess
import threading
import time

import numpy as np
import onnx
from onnx import TensorProto, helper

import client
import models

COLUMNS = 128
ROW_BYTES = 4 + COLUMNS  # a scale, f32, and the values, i8


class SparseGraph(models.Graph):
    """A graph whose tables are holes of the file beside it, and other weights lie in the file as usual."""

    def __init__(self, seed):
        super().__init__(seed)
        self.pieces, self.end = [], 0

    def place(self, name, shape, values):
        size = 4 * int(np.prod(shape))
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", "$"), ("offset", self.end), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        self.weights.append(tensor)
        self.pieces.append((self.end, values))
        self.end += (size + 4095) // 4096 * 4096
        return name

    def weight(self, name, *shape, scale=None):
        if name.startswith("table."):
            return self.place(name, shape, None)
        values = self.random.standard_normal(shape, dtype=np.float32) * np.float32(scale or 1 / np.sqrt(shape[-1]))
        return self.place(name, shape, values)

    def save(self, path, output):
        data = path.with_name(path.name + ".data")
        with open(data, "wb") as file:
            for offset, values in self.pieces:
                if values is not None:
                    file.seek(offset)
                    values.tofile(file)
            file.truncate(self.end)
        for tensor in self.weights:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = data.name
        self.nodes.append(helper.make_node("Sigmoid", [output], ["prediction"]))
        out = helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["batch", 1])
        graph = helper.make_graph(self.nodes, path.stem, self.inputs, [out], self.weights)
        onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def table_places(file):
    """Offset and size of each weight of a compiled file that is as large as one of MLPerf's tables."""
    header = file.read(24)
    assert header[:8] == b"MILLPOWR"
    sections = {}
    for _ in range(struct.unpack_from("<I", header, 12)[0]):
        name, offset, size, _ = struct.unpack("<16sQQQ", file.read(40))
        sections[name.rstrip(b"\0").decode()] = (offset, size)
    offset, size = sections["weights.index"]
    file.seek(offset)
    index = file.read(size)
    for at in range(0, size, 28):
        _, begin, bytes_of, _ = struct.unpack_from("<iQQQ", index, at)
        yield sections["weights"][0] + begin, bytes_of


def write_rows(path, rows):
    """Random rows instead of the zeros of all tables."""
    random = np.random.default_rng(1)
    sizes = {min(count, rows) * ROW_BYTES for count in models.MLPERF_ROWS}
    block = np.empty((1 << 20, ROW_BYTES), np.uint8)
    block[:, 4:] = random.integers(0, 255, (len(block), COLUMNS), np.uint8)
    block[:, :4] = np.full(len(block), 1e-3, np.float32).view(np.uint8).reshape(-1, 4)
    view, tables = memoryview(block.reshape(-1)), 0
    with open(path, "r+b") as file:
        for offset, size in list(table_places(file)):
            if size not in sizes:
                continue
            tables += 1
            file.seek(offset)
            for begin in range(0, size, len(view)):
                file.write(view[:min(len(view), size - begin)])
    assert tables == len(models.MLPERF_ROWS), tables


def make(flags, compiled):
    source = compiled.with_suffix(".onnx")
    models.Graph = SparseGraph
    start = time.time()
    models.dcnv2_mlperf(source, flags.rows)
    subprocess.run([flags.binary, "compile", str(source), "-o", str(compiled), "--tables", "int8", "--max-batch",
                    str(flags.max_batch)], check=True)
    source.unlink()
    source.with_name(source.name + ".data").unlink()
    write_rows(compiled, flags.rows)
    print(f"{compiled}: {compiled.stat().st_size / 1e9:.2f} GB, made in {time.time() - start:.0f} s", flush=True)


class Watch(threading.Thread):
    """Samples what is resident, every few milliseconds."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.most, self.now, self.on = server, {}, {}, True

    def run(self):
        while self.on:
            try:
                self.now = self.server.status()
            except (OSError, ValueError):
                return
            for name in ("VmRSS", "RssFile", "RssAnon"):
                self.most[name] = max(self.most.get(name, 0), self.now[name])
            time.sleep(0.005)


def table_metrics(server):
    lines = (line.split() for line in server.get("/metrics").splitlines() if line.startswith("millpower_table_"))
    return {words[0].removeprefix("millpower_table_"): float(words[1]) for words in lines}


def requests(flags, seed):
    """Requests without end, each with ids of its own."""
    random = np.random.default_rng(seed)
    counts = [min(count, flags.rows) for count in models.MLPERF_ROWS]
    while True:
        inputs = {"dense": random.standard_normal((flags.batch, 13), dtype=np.float32)}
        for i, (count, hots) in enumerate(zip(counts, models.MLPERF_HOTS)):
            shape = (flags.batch, hots)
            inputs[f"ids_{i}"] = (random.integers(0, count, shape) if flags.trace == "uniform" else
                                  models.zipf(random, count, shape, flags.exponent))
        yield client.request_bytes("dcnv2", inputs)


def drive(flags, server, watch):
    """A closed loop of --clients. Prints what is resident now and then; returns the times of the requests."""
    stop, times, failed = threading.Event(), [[] for _ in range(flags.clients)], []

    def ask(number):
        try:
            connection = client.Connection(server.port)
            for request in requests(flags, number):
                if stop.is_set():
                    return
                began = time.perf_counter()
                connection.ask(request)
                times[number].append(time.perf_counter() - began)
        except (OSError, RuntimeError) as error:
            failed.append(error)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(flags.clients)]
    for thread in threads:
        thread.start()
    began = time.time()
    while time.time() - began < flags.seconds and not failed:
        time.sleep(flags.seconds / 12)
        told = table_metrics(server)
        print(f"{time.time() - began:6.0f} s  VmRSS {watch.now['VmRSS'] / 2**30:6.2f} GiB, RssFile "
              f"{watch.now['RssFile'] / 2**30:6.2f}, tables resident {told.get('resident_bytes', 0) / 2**30:6.2f}, "
              f"given back {told.get('given_back_bytes_total', 0) / 2**30:7.1f}; "
              f"{flags.batch * sum(map(len, times)) / (time.time() - began):8.0f} rows/s", flush=True)
    stop.set()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return [taken for each in times for taken in each]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("/var/tmp"), help="for the model's file")
    parser.add_argument("--rows", type=int, default=max(models.MLPERF_ROWS), help="rows of a table at most")
    parser.add_argument("--table-memory", default="8GiB")
    parser.add_argument("--trace", choices=["zipf", "uniform"], default="zipf")
    parser.add_argument("--exponent", type=float, default=1.05, help="of the power law")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--max-batch", type=int, default=2048)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--port", type=int, default=8097)
    parser.add_argument("--keep", action="store_true", help="keep the model's file, for other runs")
    parser.add_argument("--binary", default="build/release/millpower")
    flags = parser.parse_args()
    compiled = flags.folder / f"dcnv2-mlperf-{flags.rows}.mill"
    if not compiled.exists():
        make(flags, compiled)
    words = ["--model", f"dcnv2={compiled}", "--table-memory", flags.table_memory, "--threads", str(flags.threads)]
    with client.Server(flags.binary, flags.port, *words) as server:
        watch = Watch(server)
        watch.start()
        times = drive(flags, server, watch)
        watch.on = False
        watch.join()
        told = table_metrics(server)
    print(f"{flags.trace} ids, batch {flags.batch}, {flags.clients} clients, {flags.threads} threads, --table-memory "
          f"{flags.table_memory}, tables of {told.get('mapped_bytes', 0) / 1e9:.1f} GB")
    print("most resident: " + ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in watch.most.items()))
    print(f"p50 {client.percentile(times, 0.5) * 1e3:.1f} ms, p99 {client.percentile(times, 0.99) * 1e3:.1f} ms, "
          f"{flags.batch * len(times) / flags.seconds:.0f} rows/s")
    if not flags.keep:
        compiled.unlink()


if __name__ == "__main__":
    main()
