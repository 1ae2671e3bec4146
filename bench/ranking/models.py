"""Recommenders at their published shapes, with random weights, as ONNX files.

dlrm-kaggle   DLRM (Naumov et al., 2019) as facebookresearch/dlrm runs it on Criteo Kaggle:
              bottom MLP 13-512-256-64-16, 26 tables of 16 columns, dot interaction,
              top MLP 512-256-1
dcnv2-mlperf  DCNv2 (Wang et al., 2020) as MLPerf Training's dlrm_dcnv2 runs it: bottom MLP
              13-512-256-128, 26 tables of 128 columns with several ids each, three cross layers
              of rank 512, top MLP 1024-1024-512-256-1

The row counts of the tables are those of the data sets, capped at --rows so that the file fits.
"""

import argparse
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper

# Distinct values of the 26 categorical features of Criteo Kaggle, as facebookresearch/dlrm counts them.
KAGGLE_ROWS = [1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992,
               5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572]
# mlcommons/training, recommendation_v2/torchrec_dlrm: num_embeddings_per_feature, multi_hot_sizes.
MLPERF_ROWS = [40000000, 39060, 17295, 7424, 20265, 3, 7122, 1543, 63, 40000000, 3067956, 405282, 10, 2209,
               11938, 155, 4, 976, 14, 40000000, 40000000, 40000000, 590152, 12973, 108, 36]
MLPERF_HOTS = [3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1]


class Graph:
    """Nodes and weights of a model in the making."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights, self.inputs = [], [], []

    def weight(self, name, *shape, scale=None):
        scale = scale or 1 / np.sqrt(shape[-1])
        values = self.random.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        self.weights.append(onnx.numpy_helper.from_array(values, name))
        return name

    def constant(self, name, values):
        self.weights.append(onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, op, *inputs, **attributes):
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def input(self, name, kind, *shape):
        self.inputs.append(helper.make_tensor_value_info(name, kind, ["batch", *shape]))
        return name

    def linear(self, x, name, n, k):
        return self.node("Gemm", x, self.weight(f"{name}.weight", n, k), self.weight(f"{name}.bias", n, scale=0.1),
                         transB=1)

    def mlp(self, x, name, sizes, last_relu):
        for i in range(1, len(sizes)):
            x = self.linear(x, f"{name}.{i - 1}", sizes[i], sizes[i - 1])
            if last_relu or i + 1 < len(sizes):
                x = self.node("Relu", x)
        return x

    def save(self, path, output):
        self.nodes.append(helper.make_node("Sigmoid", [output], ["prediction"]))
        out = helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["batch", 1])
        graph = helper.make_graph(self.nodes, path.stem, self.inputs, [out], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save_model(model, path, save_as_external_data=True, location=path.name + ".data", size_threshold=4096)


def dlrm_kaggle(path, rows, seed=1):
    g = Graph(seed)
    dense = g.mlp(g.input("dense", TensorProto.FLOAT, 13), "bottom", [13, 512, 256, 64, 16], True)
    one = g.constant("one", np.array([1], np.int64))
    features = [g.node("Unsqueeze", dense, one)]
    for i, count in enumerate(min(r, rows) for r in KAGGLE_ROWS):
        ids = g.input(f"ids_{i}", TensorProto.INT64)
        features.append(g.node("Unsqueeze", g.node("Gather", g.weight(f"table.{i}", count, 16), ids, axis=0), one))
    all_of = g.node("Concat", *features, axis=1)
    dots = g.node("MatMul", all_of, g.node("Transpose", all_of, perm=[0, 2, 1]))
    flat = g.node("Reshape", dots, g.constant("flat", np.array([-1, 27 * 27], np.int64)))
    below = np.array([i * 27 + j for i in range(27) for j in range(i)], np.int64)
    pairs = g.node("Gather", flat, g.constant("below", below), axis=1)
    top = g.mlp(g.node("Concat", dense, pairs, axis=1), "top", [16 + 351, 512, 256, 1], False)
    g.save(path, top)


def dcnv2_mlperf(path, rows, seed=2):
    g = Graph(seed)
    dense = g.mlp(g.input("dense", TensorProto.FLOAT, 13), "bottom", [13, 512, 256, 128], True)
    one = g.constant("one", np.array([1], np.int64))
    features = [dense]
    for i, (count, hots) in enumerate(zip((min(r, rows) for r in MLPERF_ROWS), MLPERF_HOTS)):
        ids = g.input(f"ids_{i}", TensorProto.INT64, hots)
        bag = g.node("Gather", g.weight(f"table.{i}", count, 128), ids, axis=0)
        features.append(g.node("ReduceSum", bag, one, keepdims=0))
    x0 = x = g.node("Concat", *features, axis=1)
    width = 27 * 128
    for i in range(3):
        v = g.node("MatMul", x, g.weight(f"cross.{i}.v", width, 512, scale=1 / np.sqrt(width)))
        w = g.linear(v, f"cross.{i}.w", width, 512)
        x = g.node("Add", g.node("Mul", x0, w), x)
    g.save(path, g.mlp(x, "top", [width, 1024, 1024, 512, 256, 1], False))


MODELS = {"dlrm-kaggle": (dlrm_kaggle, KAGGLE_ROWS, [None] * 26),
          "dcnv2-mlperf": (dcnv2_mlperf, MLPERF_ROWS, MLPERF_HOTS)}


def zipf(random, rows, size, exponent=1.05):
    """Ids whose ranks follow a power law; the ranks are spread over the table by a fixed permutation."""
    u = random.random(size)
    # Inverse of the continuous distribution with density x^-exponent on [1, rows + 1].
    power = 1 - exponent
    rank = ((rows + 1) ** power * u + (1 - u)) ** (1 / power)
    rank = np.minimum(rank.astype(np.int64), rows) - 1
    return rank * 2654435761 % rows


def request(name, rows, batch, seed):
    """Inputs of one request, by name."""
    _, counts, hots = MODELS[name]
    random = np.random.default_rng(seed)
    inputs = {"dense": random.standard_normal((batch, 13), dtype=np.float32)}
    for i, (count, hot) in enumerate(zip((min(r, rows) for r in counts), hots)):
        inputs[f"ids_{i}"] = zipf(random, count, (batch,) if hot is None else (batch, hot))
    return inputs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("output", type=pathlib.Path, help="file to write, e.g. dlrm.onnx")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of a table at most")
    flags = parser.parse_args()
    MODELS[flags.model][0](flags.output, flags.rows)


if __name__ == "__main__":
    main()
