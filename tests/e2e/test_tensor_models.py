"""Models of tensors on the command line and in Python: inspect, infer, compile, the worker."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import pytest
from conftest import BINARY, ROOT
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(ROOT / "python"))
ROWS, WIDTH, HOTS = 40, 8, 3


@pytest.fixture(scope="module")
def weights():
    random = np.random.default_rng(3)
    return {"table": random.normal(size=(ROWS, WIDTH)).astype(np.float32),
            "w": random.normal(size=(WIDTH, 2)).astype(np.float32)}


@pytest.fixture(scope="module")
def model(tmp_path_factory, weights):
    """Sums of a few rows of a table, through one layer; weights in a file beside it."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["rows"]),
         helper.make_node("ReduceSum", ["rows", "axis"], ["bag"], keepdims=0),
         helper.make_node("MatMul", ["bag", "w"], ["y"]),
         helper.make_node("Relu", ["y"], ["score"])],
        "bags",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", HOTS])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch", 2])],
        [*(numpy_helper.from_array(array, name) for name, array in weights.items()),
         numpy_helper.from_array(np.array([1], np.int64), "axis")])
    path = tmp_path_factory.mktemp("bags") / "bags.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path,
                    save_as_external_data=True, location="bags.data", size_threshold=0)
    return path


def run(*words):
    return subprocess.run([BINARY, *map(str, words)], capture_output=True, text=True, timeout=60)


def infer(tmp_path, model, ids, *flags):
    np.save(tmp_path / "ids.npy", ids)
    done = run("infer", model, "--input", f"ids={tmp_path / 'ids.npy'}", "--output", tmp_path / "out", *flags)
    assert done.returncode == 0, done.stderr
    return np.load(tmp_path / "out" / "score.npy")


def expected(weights, ids):
    return np.maximum(weights["table"][ids].sum(1) @ weights["w"], 0)


def ids_of(rows):
    return np.random.default_rng(rows).integers(0, ROWS, (rows, HOTS))


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_infer_computes_what_numpy_does(tmp_path, model, weights, rows):
    ids = ids_of(rows)
    np.testing.assert_allclose(infer(tmp_path, model, ids), expected(weights, ids), rtol=0, atol=1e-5)


def test_a_compiled_model_gives_the_same_bits(tmp_path, model):
    compiled = tmp_path / "bags.mill"
    done = run("compile", model, "-o", compiled)
    assert done.returncode == 0, done.stderr
    ids = ids_of(5)
    np.testing.assert_array_equal(infer(tmp_path, compiled, ids), infer(tmp_path, model, ids))


@pytest.mark.parametrize(("tables", "tolerance"), [("int8", 0.05), ("int4", 0.8), ("bf16", 0.05), ("f16", 0.01)])
def test_tables_of_fewer_bits_are_near(tmp_path, model, weights, tables, tolerance):
    ids = ids_of(64)
    got = infer(tmp_path, model, ids, "--tables", tables)
    want = expected(weights, ids)
    assert 0 < np.abs(got - want).max() / np.abs(want).max() < tolerance


def test_inspect_shows_what_goes_in_and_comes_out(model):
    done = run("inspect", model)
    assert done.returncode == 0, done.stderr
    for line in ("input        ids i64 [batch, 3]", "output       score f32 [batch, 2]", "requests share launches",
                 "parameters   336"):
        assert line in done.stdout
    assert "embedding_bag" in run("inspect", model, "--disassemble").stdout
    assert "symbol batch <= 2048" in run("inspect", model, "--graph").stdout


def test_an_id_out_of_range_is_told(tmp_path, model):
    np.save(tmp_path / "ids.npy", np.full((2, HOTS), ROWS))
    done = run("infer", model, "--input", f"ids={tmp_path / 'ids.npy'}")
    assert done.returncode == 1
    assert str(ROWS) in done.stderr


def test_mistakes_of_the_command_line_are_told(tmp_path, model):
    np.save(tmp_path / "ids.npy", np.zeros((2, HOTS), np.float32))
    assert "takes i64" in run("infer", model, "--input", f"ids={tmp_path / 'ids.npy'}").stderr
    assert "'ids' is missing" in run("infer", model).stderr
    assert "it has: ids" in run("infer", model, "--input", f"x={tmp_path / 'ids.npy'}").stderr
    assert "is not NAME=" in run("infer", model, "--input", "ids").stderr
    assert run("infer", tmp_path / "none.onnx").returncode == 1


def test_all_that_is_not_supported_is_listed_at_once(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["places"], name="where"),
         helper.make_node("Unique", ["x"], ["values"], name="which")], "refused",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("places", TensorProto.INT64, [1, "n"]),
         helper.make_tensor_value_info("values", TensorProto.FLOAT, ["m"])])
    onnx.save(helper.make_model(graph), tmp_path / "refused.onnx")
    done = run("inspect", tmp_path / "refused.onnx")
    assert done.returncode == 1
    for word in ("2 things", "NonZero 'where'", "Unique 'which'"):
        assert word in done.stderr


def test_weights_outside_of_the_folder_are_refused(tmp_path, model):
    escaping = onnx.load(model, load_external_data=False)
    for tensor in escaping.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../bags.data"
    (tmp_path / "inner").mkdir()
    path = tmp_path / "inner" / "escaping.onnx"
    path.write_bytes(escaping.SerializeToString())
    (tmp_path / "bags.data").write_bytes((model.parent / "bags.data").read_bytes())
    done = run("inspect", path)
    assert done.returncode == 1 and "bags.data" in done.stderr


def test_the_python_package_runs_any_file(model, weights):
    os.environ["MILLPOWER_BINARY"] = str(BINARY)
    import millpower

    with millpower.Model(model) as loaded:
        assert loaded.inputs == [{"name": "ids", "dtype": "i64", "shape": ["batch", HOTS]}]
        for rows in (1, 9):
            ids = ids_of(rows)
            np.testing.assert_allclose(loaded(ids=ids)["score"], expected(weights, ids), rtol=0, atol=1e-5)
        with pytest.raises(ValueError, match=str(ROWS)):
            loaded(ids=np.full((1, HOTS), ROWS))
        assert loaded(ids=ids_of(2))["score"].shape == (2, 2)  # it goes on
        with pytest.raises(TypeError, match="int64"):
            loaded(ids=np.zeros((1, HOTS), np.float32))
        with pytest.raises(ValueError, match="no input 'x'"):
            loaded(x=ids_of(1))
    with pytest.raises(millpower.UnsupportedModel, match="neither"):
        millpower.Model(pathlib.Path(__file__))


def test_the_python_package_tells_what_it_cannot_run_from_what_is_broken(tmp_path):
    os.environ["MILLPOWER_BINARY"] = str(BINARY)
    import millpower

    (tmp_path / "broken.onnx").write_bytes(b"this is no protobuf")
    with pytest.raises(millpower.LoadError) as error:
        millpower.Model(tmp_path / "broken.onnx")
    assert not isinstance(error.value, millpower.UnsupportedModel)


# ---- What ids that are no row's number do


def hashed(ids, rows):
    """docs/isa/README.md's Mix of 64 bits, modulo the rows."""
    z = ids.astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) % np.uint64(rows)).astype(np.int64)


WILD_IDS = np.array([[0, ROWS - 1, ROWS], [-1, -ROWS, -ROWS - 1], [1 << 40, -(1 << 62), 5]])
POLICIES = {
    "clamp": lambda ids: np.clip(ids, 0, ROWS - 1),
    "default:7": lambda ids: np.where((ids >= 0) & (ids < ROWS), ids, 7),
    "hash": lambda ids: hashed(ids, ROWS),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_feature_has_the_policy_it_is_given(tmp_path, model, weights, policy):
    want = expected(weights, POLICIES[policy](WILD_IDS))
    flag = ("--feature", f"ids={policy}")
    np.testing.assert_allclose(infer(tmp_path, model, WILD_IDS, *flag), want, rtol=0, atol=1e-5)
    compiled = tmp_path / "bags.mill"
    assert run("compile", model, "-o", compiled, *flag).returncode == 0
    np.testing.assert_allclose(infer(tmp_path, compiled, WILD_IDS), want, rtol=0, atol=1e-5)
    for path, flags in ((model, flag), (compiled, ())):
        assert f"feature      ids names rows of tables; out of range: {policy}" in run("inspect", path, *flags).stdout


def test_error_refuses_negative_ids_too(tmp_path, model, weights):
    ids = np.full((2, HOTS), -1)
    np.testing.assert_allclose(infer(tmp_path, model, ids), expected(weights, ids), rtol=0, atol=1e-5)
    np.save(tmp_path / "ids.npy", ids)
    done = run("infer", model, "--input", f"ids={tmp_path / 'ids.npy'}", "--feature", "ids=error")
    assert done.returncode == 1
    assert f"index -1 is not in [0, {ROWS})" in done.stderr


def test_policies_that_do_not_fit_are_told(tmp_path, model):
    for flag, what in (("ids=maybe", "none of error, clamp"), ("what=clamp", "'what' is none of the model's"),
                       (f"ids=default:{ROWS}", f"cannot default to row {ROWS}"), ("ids", "is not NAME=VALUE")):
        done = run("inspect", model, "--feature", flag)
        assert done.returncode == 1 and what in done.stderr, done.stderr
    compiled = tmp_path / "bags.mill"
    assert run("compile", model, "-o", compiled).returncode == 0
    np.save(tmp_path / "ids.npy", ids_of(1))
    done = run("infer", compiled, "--input", f"ids={tmp_path / 'ids.npy'}", "--feature", "ids=hash")
    assert done.returncode == 1 and "is compiled" in done.stderr


def test_models_of_pytorch_and_tensorflow_are_read(tmp_path):
    """The fixtures that these frameworks saved."""
    for path in [*sorted((ROOT / "tests" / "torch_data").glob("*.pt2")), ROOT / "tests" / "saved_model_data" / "tiny"]:
        done = run("inspect", path)
        assert done.returncode == 0, f"{path}: {done.stderr}"
        assert "output " in done.stdout
