"""A model that ranks, asked by unmodified clients: Triton's, and plain HTTP as TensorFlow Serving has
it. The model is made here, by onnx: embedded items and dense features through one layer."""

import numpy as np
import onnx
import pytest
import requests
import tritonclient.http as triton
from conftest import Server
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException

ITEMS, WIDTH, FEATURES = 50, 4, 3


@pytest.fixture(scope="module")
def weights():
    random = np.random.default_rng(5)
    return {
        "table": random.normal(size=(ITEMS, WIDTH)).astype(np.float32),
        "w": random.normal(size=(WIDTH + FEATURES, 1)).astype(np.float32),
        "b": random.normal(size=(1,)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory, weights):
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "item"], ["embedded"]),
            helper.make_node("Concat", ["embedded", "dense"], ["x"], axis=1),
            helper.make_node("Gemm", ["x", "w", "b"], ["y"]),
            helper.make_node("Sigmoid", ["y"], ["score"]),
        ],
        "ranker",
        [
            helper.make_tensor_value_info("item", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["batch", FEATURES]),
        ],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path_factory.mktemp("ranker") / "ranker.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.fixture(scope="module")
def ranker(model):
    running = Server(model.parent / "log.txt", models=(f"ranker={model}",))
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture
def patient_ranker(model, tmp_path):
    """Requests that come within 100 ms share a launch, so that even a slow client's do."""
    running = Server(tmp_path / "log.txt", "--max-queue-delay-us", "100000", models=(f"ranker={model}",))
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture
def client(ranker):
    return triton.InferenceServerClient(ranker.url.removeprefix("http://"))


def batch(rows, seed=1):
    random = np.random.default_rng(seed)
    return {
        "item": random.integers(0, ITEMS, rows),
        "dense": random.normal(size=(rows, FEATURES)).astype(np.float32),
    }


def expected(weights, inputs):
    x = np.concatenate([weights["table"][inputs["item"]], inputs["dense"]], axis=1)
    return 1 / (1 + np.exp(-(x @ weights["w"] + weights["b"])))


def tensors(inputs, binary):
    made = []
    for name, array in inputs.items():
        one = triton.InferInput(name, array.shape, "INT64" if array.dtype == np.int64 else "FP32")
        one.set_data_from_numpy(array, binary_data=binary)
        made.append(one)
    return made


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


def test_tells_what_it_is(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("ranker")
    assert not client.is_model_ready("nothing")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("ranker")
    assert {(i["name"], i["datatype"], tuple(i["shape"])) for i in metadata["inputs"]} == {
        ("item", "INT64", (-1,)),
        ("dense", "FP32", (-1, FEATURES)),
    }
    assert client.get_model_config("ranker")["max_batch_size"] == 0  # "item" is one number a row
    assert [each["name"] for each in client.get_model_repository_index()] == ["ranker"]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_infers(client, weights, binary, compression):
    inputs = batch(400)
    answer = client.infer(
        "ranker",
        tensors(inputs, binary),
        outputs=[triton.InferRequestedOutput("score", binary_data=binary)],
        request_id="one",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    assert answer.get_response()["id"] == "one"
    close(answer.as_numpy("score"), expected(weights, inputs))


def test_many_at_once_are_answered_as_alone(patient_ranker, weights):
    client = triton.InferenceServerClient(patient_ranker.url.removeprefix("http://"), concurrency=8)
    asked = [batch(1 + i % 7, seed=i) for i in range(100)]
    before = client.get_inference_statistics("ranker")["model_stats"][0]
    pending = [client.async_infer("ranker", tensors(inputs, True)) for inputs in asked]
    for inputs, each in zip(asked, pending):
        close(each.get_result().as_numpy("score"), expected(weights, inputs))
    after = client.get_inference_statistics("ranker")["model_stats"][0]
    assert after["inference_stats"]["fail"]["count"] == before["inference_stats"]["fail"]["count"]
    answered = after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"]
    assert answered == len(asked)
    assert after["execution_count"] - before["execution_count"] < answered


def test_refuses_by_name(client):
    inputs = batch(2)
    with pytest.raises(InferenceServerException, match="'dense' is missing") as error:
        client.infer("ranker", tensors({"item": inputs["item"]}, True))
    assert error.value.status() == "400"
    inputs["item"][1] = ITEMS
    with pytest.raises(InferenceServerException, match=str(ITEMS)):
        client.infer("ranker", tensors(inputs, True))
    with pytest.raises(InferenceServerException, match="nothing"):
        client.infer("nothing", tensors(batch(2), True))
    with pytest.raises(InferenceServerException, match="operator"):
        client.unload_model("ranker")


def test_predicts_as_tensorflow_serving_does(ranker, weights):
    inputs = batch(3)
    url = ranker.url + "/v1/models/ranker"
    rows = [
        {"item": int(item), "dense": dense.tolist()}
        for item, dense in zip(inputs["item"], inputs["dense"])
    ]
    answer = requests.post(url + ":predict", json={"instances": rows}).json()
    close(np.array(answer["predictions"]), expected(weights, inputs))
    columns = {name: array.tolist() for name, array in inputs.items()}
    answer = requests.post(url + ":predict", json={"inputs": columns}).json()
    close(np.array(answer["outputs"]), expected(weights, inputs))
    answer = requests.post(url + ":regress", json={"examples": rows}).json()
    close(np.array(answer["results"]), expected(weights, inputs)[:, 0])
    status = requests.get(url).json()["model_version_status"]
    assert [(each["version"], each["state"]) for each in status] == [("1", "AVAILABLE")]
    metadata = requests.get(url + "/metadata").json()["metadata"]["signature_def"]
    assert metadata["signature_def"]["serving_default"]["inputs"]["item"]["dtype"] == "DT_INT64"
