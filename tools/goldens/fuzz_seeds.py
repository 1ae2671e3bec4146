#!/usr/bin/env python3
"""Seeds of fuzz targets: small files of the formats that other programs write.

    fuzz_seeds.py onnx DIR                tests/fuzz_seeds/onnx; needs onnx
    fuzz_seeds.py torch_pickle DIR        needs torch
    fuzz_seeds.py saved_model DIR         needs tensorflow; beside the model of tests/saved_model_data
    fuzz_seeds.py tensorflow_bundle DIR   from tests/saved_model_data, as bundle_fuzz.cc takes it
"""

import pathlib
import struct
import sys

DATA = pathlib.Path(__file__).parents[2] / "tests" / "saved_model_data"


# ---- ONNX: a model for each kind of operator, many in one


def onnx_seeds():
    import numpy as np
    import onnx
    from onnx import TensorProto as T
    from onnx import helper as h
    from onnx import numpy_helper

    rng = np.random.default_rng(7)

    def weight(name, *shape, dtype=np.float32):
        values = rng.standard_normal(shape) if dtype != np.int64 else rng.integers(0, 4, shape)
        return numpy_helper.from_array(np.asarray(values).astype(dtype), name)

    def ints(name, *values):
        return numpy_helper.from_array(np.array(values, np.int64), name)

    def model(nodes, inputs, outputs, weights=(), functions=(), opset=21):
        value = lambda v: h.make_tensor_value_info(v[0], v[1], v[2])
        graph = h.make_graph(nodes, "g", list(map(value, inputs)), list(map(value, outputs)), weights)
        imports = [h.make_opsetid("", opset)] + [h.make_opsetid(f.domain, 1) for f in functions]
        return h.make_model(
            graph, opset_imports=imports, functions=functions, producer_name=""
        ).SerializeToString()

    def chain(ops, first="x", last="y"):
        """Nodes that follow each other, each given as (op, more inputs, attributes)."""
        nodes = []
        for i, (op, more, attributes) in enumerate(ops):
            result = last if i + 1 == len(ops) else f"t{i}"
            nodes.append(h.make_node(op, [first, *more], [result], **attributes))
            first = result
        return nodes

    n = h.make_node
    x = ("x", T.FLOAT, ["n", 8])
    y = ("y", T.FLOAT, None)
    yield "dense", model(
        chain(
            [
                ("Gemm", ["w", "b"], {"transB": 1, "alpha": 0.5}),
                ("LayerNormalization", ["b", "b"], {"axis": -1}),
                ("Gelu", [], {"approximate": "tanh"}),
                ("MatMul", ["w"], {}),
                ("Softmax", [], {"axis": 1}),
                ("Clip", ["low", "high"], {}),
            ]
        ),
        [x],
        [y],
        [
            weight("w", 8, 8),
            weight("b", 8),
            numpy_helper.from_array(np.float32(-1), "low"),
            numpy_helper.from_array(np.float32(1), "high"),
        ],
    )
    yield "image", model(
        chain(
            [
                ("Conv", ["k"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 1]}),
                ("BatchNormalization", ["c", "c", "c", "v"], {}),
                ("MaxPool", [], {"kernel_shape": [2, 2], "ceil_mode": 1}),
                ("ConvTranspose", ["k2"], {"group": 2, "output_padding": [1, 0], "strides": [2, 2]}),
                ("AveragePool", [], {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
                ("Resize", ["", "scales"], {"mode": "linear"}),
                ("InstanceNormalization", ["c", "c"], {}),
                ("GlobalAveragePool", [], {}),
                ("Flatten", [], {}),
            ]
        ),
        [("x", T.FLOAT, ["n", 2, 6, 7])],
        [y],
        [
            weight("k", 4, 2, 3, 3),
            weight("k2", 4, 2, 2, 2),
            weight("c", 4),
            numpy_helper.from_array(np.ones(4, np.float32), "v"),
            numpy_helper.from_array(np.array([1, 1, 2, 1.5], np.float32), "scales"),
        ],
    )
    yield "shapes", model(
        [
            n("Shape", ["x"], ["s"]),
            n("Gather", ["s", "zero"], ["rows"]),
            n("Concat", ["rows", "two", "minus"], ["target"], axis=0),
            n("Reshape", ["x", "target"], ["r"]),
            n("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
            n("Split", ["t", "parts"], ["a", "b"], axis=1),
            n("Slice", ["a", "zero", "two", "one"], ["c"]),
            n("Pad", ["c", "pads"], ["d"], mode="constant"),
            n("Tile", ["d", "repeats"], ["e"]),
            n("Unsqueeze", ["e", "one"], ["f"]),
            n("Squeeze", ["f", "one"], ["g"]),
            n("Expand", ["g", "three"], ["h"]),
            n("ReduceMean", ["h", "two"], ["i"], keepdims=1),
            n("CumSum", ["i", "one0"], ["j"]),
            n("TopK", ["j", "one"], ["k", "l"], axis=1),
            n("ArgMax", ["k"], ["m"], axis=1),
            n("Cast", ["m"], ["y"], to=T.FLOAT),
        ],
        [x],
        [y],
        [
            ints("zero", 0),
            ints("one", 1),
            ints("two", 2),
            ints("minus", -1),
            ints("parts", 1, 3),
            ints("pads", 0, 1, 0, 0, 1, 0),
            ints("repeats", 1, 2, 1),
            ints("three", 1, 1, 1),
            numpy_helper.from_array(np.array(1, np.int64), "one0"),
        ],
    )
    yield "lookups", model(
        [
            n("Gather", ["table", "ids"], ["a"]),
            n("GatherElements", ["table", "ids2"], ["b"], axis=1),
            n("GatherND", ["table", "ids3"], ["c"]),
            n("ScatterND", ["table", "ids3", "c"], ["d"], reduction="add"),
            n("ScatterElements", ["d", "ids2", "b"], ["e"], axis=1),
            n("OneHot", ["ids", "depth", "onoff"], ["f"]),
            n("Where", ["mask", "e", "table"], ["g"]),
            n("ReduceSum", ["a"], ["y"]),
        ],
        [("ids", T.INT64, ["n"]), ("ids2", T.INT64, [6, 2]), ("ids3", T.INT64, [2, 1])]
        + [("mask", T.BOOL, [6, 4])],
        [y, ("f", T.FLOAT, None), ("g", T.FLOAT, None)],
        [
            weight("table", 6, 4),
            numpy_helper.from_array(np.array(5, np.int64), "depth"),
            numpy_helper.from_array(np.array([0, 1], np.float32), "onoff"),
        ],
    )
    yield "quantised", model(
        [
            n("QuantizeLinear", ["x", "s", "z"], ["a"]),
            n("DequantizeLinear", ["a", "s", "z"], ["b"]),
            n("DynamicQuantizeLinear", ["b"], ["c", "d", "e"]),
            n("MatMulInteger", ["c", "w", "e"], ["f"]),
            n("QLinearMatMul", ["a", "s", "z", "w", "s", "z8", "s", "z"], ["g"]),
            n("Cast", ["f"], ["y"], to=T.FLOAT),
        ],
        [x],
        [y, ("g", T.UINT8, None)],
        [
            numpy_helper.from_array(np.float32(0.1), "s"),
            numpy_helper.from_array(np.uint8(3), "z"),
            numpy_helper.from_array(np.int8(0), "z8"),
            weight("w", 8, 4, dtype=np.int8),
        ],
    )
    body = h.make_graph(
        [n("Add", ["acc", "x"], ["next"]), n("Identity", ["go"], ["on"]), n("Mul", ["acc", "acc"], ["each"])],
        "body",
        [
            h.make_tensor_value_info("i", T.INT64, []),
            h.make_tensor_value_info("go", T.BOOL, []),
            h.make_tensor_value_info("acc", T.FLOAT, ["n", 8]),
        ],
        [h.make_tensor_value_info(v, t, None) for v, t in [("on", T.BOOL), ("next", T.FLOAT), ("each", T.FLOAT)]],
    )
    branch = lambda op, name: h.make_graph(
        [n(op, ["looped"], [name])], name + "g", [], [h.make_tensor_value_info(name, T.FLOAT, None)]
    )
    yield "control", model(
        [
            n("Loop", ["count", "", "x"], ["looped", "all"], body=body),
            n("If", ["yes"], ["z"], then_branch=branch("Relu", "p"), else_branch=branch("Neg", "q")),
            n("SequenceConstruct", ["z", "x"], ["seq"]),
            n("ConcatFromSequence", ["seq"], ["y"], axis=0),
        ],
        [x],
        [y],
        [
            numpy_helper.from_array(np.array(3, np.int64), "count"),
            numpy_helper.from_array(np.array(True), "yes"),
        ],
    )
    yield "recurrent", model(
        [
            n("LSTM", ["x3", "w", "r", "b"], ["a", "h", "c"], hidden_size=3, direction="bidirectional"),
            n("GRU", ["x3", "w2", "r2"], ["d"], hidden_size=2, linear_before_reset=1),
            n("ReduceMax", ["a"], ["y"], keepdims=0),
        ],
        [("x3", T.FLOAT, [4, "n", 5])],
        [y, ("d", T.FLOAT, None)],
        [
            weight("w", 2, 12, 5),
            weight("r", 2, 12, 3),
            weight("b", 2, 24),
            weight("w2", 1, 6, 5),
            weight("r2", 1, 6, 2),
        ],
    )
    unary = "Abs Exp Log Sqrt Sigmoid Tanh Erf Floor Round Sign Softplus Elu HardSigmoid Not".split()
    nodes = [n(op, ["x" if op != "Not" else "b"], [op]) for op in unary]
    nodes += [n("Greater", ["x", "Abs"], ["b"]), n("Einsum", ["x", "w"], ["y"], equation="nk,km->nm")]
    nodes.sort(key=lambda node: node.op_type == "Not")
    function = h.make_function(
        "own", "Twice", ["p"], ["q"], [n("Add", ["p", "p"], ["q"])], [h.make_opsetid("", 21)]
    )
    nodes.append(n("Twice", ["x"], ["twice"], domain="own"))
    yield "elementwise", model(
        nodes, [x], [y, ("Not", T.BOOL, None), ("twice", T.FLOAT, None)], [weight("w", 8, 2)], [function]
    )
    typed = [
        h.make_tensor("f", T.FLOAT, [2], [1, 2]),
        h.make_tensor("h", T.FLOAT16, [2], [1, 2]),
        h.make_tensor("bf", T.BFLOAT16, [2], [1, 2]),
        h.make_tensor("d", T.DOUBLE, [2], [1, 2]),
        h.make_tensor("i4", T.INT4, [2], [1, 2]),
        h.make_tensor("u8", T.UINT8, [2], [1, 2]),
        h.make_tensor("o", T.BOOL, [2], [1, 0]),
    ]
    yield "typed", model(
        [n("Cast", [t.name], [t.name + "c"], to=T.FLOAT) for t in typed]
        + [n("Sum", [t.name + "c" for t in typed] + ["x"], ["y"])],
        [("x", T.FLOAT, ["n", 2])],
        [y],
        typed,
    )


# ---- PyTorch


def torch_pickle_seeds():
    import io
    import zipfile

    import torch

    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.int64)}
    state["t"] = state["a"].t()
    state["p"] = torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    file = io.BytesIO()
    torch.save(state, file)
    yield "state.pt", file.getvalue()
    with zipfile.ZipFile(file) as archive:
        pickle = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        yield "data.pkl", archive.read(pickle)


# ---- TensorFlow


def saved_model_seeds():
    import tempfile

    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    x8 = tf.TensorSpec([None, 8], tf.float32, name="x")
    ids = tf.TensorSpec([None, 2], tf.int64, name="ids")
    image = tf.TensorSpec([None, 6, 6, 2], tf.float32, name="x")

    def shapes(x):
        y = tf.reshape(x, [tf.shape(x)[0], 2, -1])
        a, b = tf.split(tf.transpose(y, [0, 2, 1]), 2, axis=2)
        y = tf.pad(tf.concat([a, b[:, ::-1]], 1), [[0, 0], [1, 0], [0, 1]])
        y = tf.strided_slice(y, [0, 1], [0, 5], [1, 2], begin_mask=1, end_mask=1)
        y = tf.tile(tf.expand_dims(y, 1), [1, 2, 1, 1])
        return {"y": tf.squeeze(tf.reduce_max(y, 3, keepdims=True), 3), "k": tf.math.top_k(x, 2)[1]}

    def maths(x):
        w = tf.reshape(tf.range(24.0), [8, 3]) * 0.1
        y = tf.nn.bias_add(tf.matmul(x, w), [1.0, 2.0, 3.0])
        y = tf.nn.softmax(tf.nn.relu(y) + tf.sigmoid(y) * tf.tanh(y)) ** 2.0
        y = tf.where(y > 0.5, tf.exp(y), tf.math.log(tf.maximum(y, 1e-3)))
        return {"y": tf.einsum("nm,nk->nmk", y, x), "z": tf.cast(tf.argmax(y, 1), tf.float32)}

    def lookups(ids):
        table = tf.reshape(tf.range(40.0), [10, 4])
        rows = tf.gather(table, ids % 10)
        hot = tf.one_hot(ids[:, 0], 5)
        return {"y": tf.reduce_sum(rows, 1), "h": tf.cumsum(hot, 1), "n": tf.gather_nd(table, ids[:, :1] % 10)}

    def images(x):
        y = tf.nn.conv2d(x, tf.ones([3, 3, 2, 4]), [1, 2, 2, 1], "SAME")
        y = tf.nn.max_pool2d(y, 2, 1, "VALID") + tf.nn.avg_pool2d(y, 2, 1, "VALID")
        return {"y": tf.reduce_mean(y, [1, 2])}

    def control(x):
        y = tf.cond(tf.constant(True), lambda: x * 2.0, lambda: x)
        _, y = tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y + x), [tf.constant(0), y])
        return {"y": y}

    for function, spec in [(shapes, x8), (maths, x8), (lookups, ids), (images, image), (control, x8)]:
        module = tf.Module()
        module.f = tf.function(function, input_signature=[spec])
        with tempfile.TemporaryDirectory() as folder:
            tf.saved_model.save(module, folder, signatures=module.f)
            model = saved_model_pb2.SavedModel()
            model.ParseFromString((pathlib.Path(folder) / "saved_model.pb").read_bytes())
        for graph in model.meta_graphs:
            graph.meta_info_def.ClearField("stripped_op_list")
            for node in [n for f in graph.graph_def.library.function for n in f.node_def]:
                node.ClearField("experimental_debug_info")
                node.attr.pop("_output_shapes", None)
        yield function.__name__, model.SerializeToString()


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def block_entries(block):
    """Keys and values of a block of LevelDB's table, not compressed."""
    end = len(block) - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        rest, at = varint(block, at)
        size, at = varint(block, at)
        key = key[:shared] + block[at : at + rest]
        yield key, block[at + rest : at + rest + size]
        at += rest + size


def table_entries(table):
    def block_at(data, at):
        offset, at = varint(data, at)
        size, _ = varint(data, at)
        return table[offset : offset + size]

    footer = table[-48:]
    at = varint(footer, varint(footer, 0)[1])[1]
    for _, handle in block_entries(block_at(footer, at)):
        yield from block_entries(block_at(handle, 0))


def tensorflow_bundle_seeds():
    for name, prefix in [("partitioned", DATA / "partitioned"), ("tiny", DATA / "tiny/variables/variables")]:
        index = pathlib.Path(f"{prefix}.index").read_bytes()
        data = pathlib.Path(f"{prefix}.data-00000-of-00001").read_bytes()
        yield name + ".file", b"\0" + struct.pack(">H", len(index)) + index + data
        entries = b"".join(
            bytes([len(key)]) + key + struct.pack(">H", len(value)) + value
            for key, value in table_entries(index)
        )
        yield name + ".list", b"\1" + struct.pack(">H", len(entries)) + entries + data


def main():
    kind, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in globals()[kind + "_seeds"]():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
