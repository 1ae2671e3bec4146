"""Rows of tables change while requests are being answered: every answer is the old table's or the new
one's. The rows of a compiled file's table, which is mapped, change in memory only."""

import concurrent.futures
import re
import subprocess
import threading

import numpy as np
import onnx
import pytest
import requests
from conftest import ADMIN_KEY, BINARY, Server
from onnx import TensorProto, helper, numpy_helper

ROWS, WIDTH = 5000, 8
TYPES = {"f32": 0, "bf16": 1 / 128, "f16": 1 / 1024, "int8": 1 / 127, "int4": 1 / 7}


@pytest.fixture(scope="module")
def table():
    return np.random.default_rng(7).normal(size=(ROWS, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory, table):
    """Rows as they are: what is asked for is what the table holds."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "item"], ["rows"])],
        "lookup",
        [helper.make_tensor_value_info("item", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", WIDTH])],
        [numpy_helper.from_array(table, "table")],
    )
    path = tmp_path_factory.mktemp("lookup") / "lookup.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


class Host:
    """A server with an admin port, and what is asked of it."""

    def __init__(self, folder, path, *flags):
        folder.mkdir(exist_ok=True)
        self.key_file = folder / "admin.key"
        self.key_file.write_text(ADMIN_KEY + "\n")
        self.server = Server(folder / "log.txt", "--admin-port", "0", "--admin-key-file", str(self.key_file), *flags,
                             models=(f"lookup={path}",))
        self.port = re.search(r"admin API at http://127\.0\.0\.1:(\d+)/admin", self.server.log()).group(1)

    def ask(self, items, session=requests):
        answer = session.post(self.server.url + "/v1/models/lookup:predict", json={"instances": items.tolist()})
        assert answer.status_code == 200, answer.text
        return np.array(answer.json()["predictions"], np.float32)

    def admin(self, *words):
        return subprocess.run([BINARY, "admin", *map(str, words), "--port", self.port, "--key-file", self.key_file],
                              capture_output=True, text=True, timeout=60)

    def update(self, rows, values, table="table"):
        body = np.int64(len(rows)).tobytes() + rows.astype(np.int64).tobytes() + values.astype(np.float32).tobytes()
        return requests.post(f"http://127.0.0.1:{self.port}/v2/models/lookup/tables/{table}/rows", data=body,
                             headers={"authorization": f"Bearer {ADMIN_KEY}",
                                      "content-type": "application/octet-stream"})


@pytest.fixture
def host(tmp_path):
    started = []

    def start(path, *flags):
        started.append(Host(tmp_path / f"host{len(started)}", path, *flags))
        return started[-1]

    yield start
    for each in started:
        assert each.server.stop() == 0, each.server.log()


@pytest.mark.parametrize("compiled", [False, True])
def test_every_answer_is_of_the_old_table_or_of_the_new_one(tmp_path, host, model, compiled):
    path = model
    if compiled:
        path = tmp_path / "lookup.mill"
        subprocess.run([BINARY, "compile", model, "-o", path], check=True, capture_output=True)
    before = path.read_bytes()
    running = host(path, "--max-queue-delay-us", "200")
    rows = np.random.default_rng(1).choice(ROWS, 64, replace=False)
    stop = threading.Event()

    def version(v):
        return np.full((len(rows), WIDTH), v, np.float32)

    def keep_asking():
        seen = set()
        with requests.Session() as session:
            while not stop.is_set():
                got = running.ask(rows, session)
                assert (got == got[0, 0]).all(), got  # all of one version
                seen.add(float(got[0, 0]))
        return seen

    assert running.update(rows, version(0)).status_code == 200
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        askers = [pool.submit(keep_asking) for _ in range(4)]
        try:
            for v in range(1, 101):
                assert running.update(rows, version(v)).json()["rows"] == len(rows)
                # Who asks after the answer gets the new rows.
                assert (running.ask(rows) == v).all()
        finally:
            stop.set()
        assert len(set().union(*(each.result() for each in askers))) > 3
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", TYPES)
def test_rows_get_the_format_of_their_table(host, model, table, kind):
    running = host(model, "--tables", kind)
    values = np.random.default_rng(2).normal(size=(3, WIDTH)).astype(np.float32)
    rows = np.array([4, ROWS - 1, 0])
    assert running.update(rows, values).status_code == 200
    error = np.abs(running.ask(rows) - values).max(1)
    assert (error <= TYPES[kind] * np.abs(values).max(1)).all()
    others = np.array([1, 2, 3, 5])
    assert (np.abs(running.ask(others) - table[others]).max(1) <= TYPES[kind] * np.abs(table[others]).max(1)).all()


def test_updates_that_do_not_fit_change_nothing(host, model, table):
    running = host(model)
    good = np.zeros((2, WIDTH), np.float32)
    bad = good.copy()
    bad[1, 3] = np.nan
    for rows, values, name, what in (
        ([1, ROWS], good, "table", f"no row {ROWS}"),
        ([1, 1], good, "table", "row 1 is given twice"),
        ([1, 2], bad, "table", "row 2, column 3: nan"),
        ([1, 2], good[:, 1:], "table", "2 rows of table 'table'"),
        ([1, 2], good, "what", "no table 'what'"),
    ):
        answer = running.update(np.array(rows), values, name)
        assert answer.status_code in (400, 404) and what in answer.json()["error"], answer.text
    items = np.arange(10)
    np.testing.assert_array_equal(running.ask(items), table[items])
    metrics = requests.get(running.server.url + "/metrics").text
    assert 'millpower_ranking_row_updates_refused_total{model="lookup",version="1"} 3' in metrics
    # Not by clients.
    answer = requests.post(running.server.url + "/v2/models/lookup/tables/table/rows", json={"rows": [], "values": []})
    assert answer.status_code == 403 and "operator" in answer.json()["error"]


def test_the_command_line_updates_from_files(tmp_path, host, model, table):
    running = host(model)
    listed = running.admin("tables", "lookup")
    assert listed.returncode == 0, listed.stderr
    assert re.search(rf"table +{ROWS} rows of {WIDTH} f32", listed.stdout)
    rows = np.random.default_rng(3).permutation(ROWS)[:1000]
    values = np.random.default_rng(4).normal(size=(1000, WIDTH))
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "values.npy", values)
    files = ("--rows", tmp_path / "rows.npy", "--values", tmp_path / "values.npy")
    done = running.admin("update-rows", "lookup", "table", *files, "--chunk-rows", 300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1000 rows of 'table' of model 'lookup', version 1, changed\n"
    np.testing.assert_array_equal(running.ask(rows), values.astype(np.float32))
    np.save(tmp_path / "values.npy", values[:, 1:])
    done = running.admin("update-rows", "lookup", "table", *files)
    assert done.returncode == 1 and "rows of table 'table'" in done.stderr
    np.save(tmp_path / "values.npy", values[1:])
    done = running.admin("update-rows", "lookup", "table", *files)
    assert done.returncode == 1 and "has 1000 rows" in done.stderr


def test_policies_may_stand_in_the_config(tmp_path, host, model, table):
    config = tmp_path / "serve.toml"
    config.write_text('feature = ["lookup/item=clamp"]\n')
    running = host(model, "--config", str(config))
    items = np.array([-5, 3, ROWS + 7])
    np.testing.assert_array_equal(running.ask(items), table[[0, 3, ROWS - 1]])
