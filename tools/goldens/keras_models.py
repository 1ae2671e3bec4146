"""Makes small recommenders and other networks in Keras 3, exports them as TensorFlow SavedModels, and writes
what TensorFlow computes with them.

    python keras_models.py --out /tmp/keras                     # all of them, small: a minute
    python keras_models.py --out /tmp/keras --only dlrm,dcnv2   # some
    python keras_models.py --out /tmp/keras --rows 100000 --dim 64 --width 512 --batch 64

A folder per model: the SavedModel, with a batch dimension that is left open, `inputs.npz` with inputs by the names
of the signature (strings as fixed-width bytes) and `outputs.npz` with what TensorFlow made of them. All weights are
drawn from a seed, also those that training would leave at 0 or 1.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers, ops  # noqa: E402
from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402

SEED = 20260501


@dataclass(frozen=True)
class Sizes:
    rows: int  # of each embedding table
    dim: int  # of an embedding
    width: int  # of hidden layers
    features: int  # categorical ones of DLRM and DCNv2
    length: int  # of histories and texts
    batch: int  # of the reference


def ids(name: str, *shape: int, dtype: str = "int64") -> keras.KerasTensor:
    return keras.Input(shape=shape, dtype=dtype, name=name)


def mlp(x, widths: list[int], last=None):
    for width in widths[:-1]:
        x = layers.Dense(width, activation="relu")(x)
    return layers.Dense(widths[-1], activation=last)(x)


@keras.saving.register_keras_serializable("millpower")
class Pairs(layers.Layer):
    """Dot products of all pairs of the rows of [batch, n, dim], as DLRM has them: [batch, n * (n - 1) / 2]."""

    def call(self, x):
        n = x.shape[1]
        products = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
        below = [i * n + j for i in range(n) for j in range(i)]
        return ops.take(ops.reshape(products, (-1, n * n)), np.array(below, "int32"), axis=1)


@keras.saving.register_keras_serializable("millpower")
class Cross(layers.Layer):
    """x0 * (W x + b) + x: a cross layer of DCNv2."""

    def build(self, input_shape):
        self.dense = layers.Dense(input_shape[0][-1])
        self.dense.build(input_shape[0])

    def call(self, inputs):
        x0, x = inputs
        return x0 * self.dense(x) + x


def columns(x, count: int):
    """[batch, count] -> count times [batch]."""
    return [x[:, i] for i in range(count)]


def make_mlp(s: Sizes):
    dense = keras.Input((13,), name="numeric")
    x = layers.Normalization(mean=np.linspace(-1, 1, 13), variance=np.linspace(0.5, 2, 13))(dense)
    x = layers.BatchNormalization()(layers.Dense(s.width, activation="selu")(x))
    x = layers.Dense(s.width, activation="leaky_relu")(x)
    x = layers.PReLU()(layers.Dense(s.width)(x))
    x = layers.Dropout(0.5)(layers.Dense(s.width, activation="elu")(x))
    return keras.Model({"numeric": dense}, {"classes": layers.Dense(5, activation="softmax")(x)})


def make_dlrm(s: Sizes):
    dense, sparse = keras.Input((13,), name="numeric"), ids("sparse", s.features)
    bottom = mlp(dense, [s.width, s.width // 2, s.dim], "relu")
    rows = [layers.Embedding(s.rows, s.dim)(column) for column in columns(sparse, s.features)]
    stacked = layers.Lambda(lambda xs: ops.stack(xs, axis=1))([bottom] + rows)
    top = mlp(layers.Concatenate()([bottom, Pairs()(stacked)]), [s.width, s.width // 2, 1], "sigmoid")
    return keras.Model({"numeric": dense, "sparse": sparse}, {"click": top})


def make_dcnv2(s: Sizes):
    dense, sparse = keras.Input((13,), name="numeric"), ids("sparse", s.features, dtype="int32")
    rows = [layers.Embedding(s.rows, s.dim)(column) for column in columns(sparse, s.features)]
    x0 = layers.Concatenate()([ops.log1p(ops.relu(dense))] + rows)
    x = x0
    for _ in range(3):
        x = Cross()([x0, x])
    deep = mlp(x0, [s.width, s.width // 2], "relu")
    return keras.Model({"numeric": dense, "sparse": sparse}, {"click": mlp(layers.Concatenate()([x, deep]), [1], "sigmoid")})


def make_deepfm(s: Sizes):
    sparse, values = ids("ids", s.features), keras.Input((s.features,), name="values")
    factors = layers.Embedding(s.rows, s.dim)(sparse) * ops.expand_dims(values, -1)  # [batch, features, dim]
    first = ops.sum(layers.Embedding(s.rows, 1)(sparse)[:, :, 0] * values, axis=1, keepdims=True)
    second = 0.5 * ops.sum(ops.square(ops.sum(factors, axis=1)) - ops.sum(ops.square(factors), axis=1), axis=1, keepdims=True)
    deep = mlp(layers.Flatten()(factors), [s.width, s.width, 1])
    return keras.Model({"ids": sparse, "values": values}, {"click": ops.sigmoid(first + second + deep)})


def make_din(s: Sizes):
    history, candidate = ids("history", s.length), ids("candidate")
    items = layers.Embedding(s.rows, s.dim, mask_zero=True)
    keys, query = items(history), items(candidate)
    repeated = layers.RepeatVector(s.length)(query)
    scores = mlp(ops.concatenate([repeated, keys, repeated - keys, repeated * keys], -1), [s.width, 1], "linear")[:, :, 0]
    scores = ops.where(ops.not_equal(history, 0), scores, -1e9)
    interest = ops.einsum("bt,btd->bd", ops.softmax(scores / np.sqrt(s.dim)), keys)
    click = mlp(layers.Concatenate()([interest, query, interest * query]), [s.width, 1], "sigmoid")
    return keras.Model({"history": history, "candidate": candidate}, {"click": click})


class TwoTower(tf.Module):
    """A user tower and exact top-k over a table of items."""

    def __init__(self, s: Sizes):
        super().__init__()
        user, history = ids("user"), ids("history", s.length)
        mask = ops.cast(ops.not_equal(history, 0), "float32")[:, :, None]
        pooled = ops.sum(layers.Embedding(s.rows, s.dim)(history) * mask, 1) / ops.maximum(ops.sum(mask, 1), 1.0)
        x = mlp(layers.Concatenate()([layers.Embedding(s.rows, s.dim)(user), pooled]), [s.width, s.dim])
        self.tower = keras.Model([user, history], layers.UnitNormalization()(x))
        rng = np.random.default_rng(SEED)
        self.items = tf.Variable(rng.standard_normal((s.rows, s.dim)).astype("f4"), name="items")
        self.item_ids = tf.Variable(rng.permutation(s.rows).astype("i8"), name="item_ids")

    @tf.function
    def recommend(self, user, history):
        scores = tf.matmul(self.tower([user, history]), self.items, transpose_b=True)
        best, where = tf.math.top_k(scores, k=10)
        return {"scores": best, "items": tf.gather(self.item_ids, where)}


def make_mmoe(s: Sizes):
    dense, sparse = keras.Input((13,), name="numeric"), ids("sparse", 4)
    x = layers.Concatenate()([dense, layers.Flatten()(layers.Embedding(s.rows, s.dim)(sparse))])
    experts = ops.stack([mlp(x, [s.width, s.width // 2], "relu") for _ in range(4)], axis=1)
    outputs = {}
    for task in ("click", "buy"):
        gate = layers.Dense(4, activation="softmax")(x)
        mixed = ops.sum(experts * ops.expand_dims(gate, -1), axis=1)
        outputs[task] = layers.Dense(1, activation="sigmoid")(layers.Dense(s.width // 2, activation="gelu")(mixed))
    return keras.Model({"numeric": dense, "sparse": sparse}, outputs)


def make_bert(s: Sizes):
    tokens, mask = ids("tokens", s.length, dtype="int32"), ids("mask", s.length, dtype="int32")
    width, heads = 4 * s.dim, 4
    x = layers.Embedding(s.rows, width)(tokens) + layers.Embedding(s.length, width)(ops.arange(s.length))
    x = layers.LayerNormalization(epsilon=1e-12)(x)
    keep = ops.cast(mask, "bool")[:, None, :]
    for _ in range(2):
        y = layers.MultiHeadAttention(heads, width // heads)(x, x, attention_mask=keep)
        x = layers.LayerNormalization(epsilon=1e-12)(x + y)
        y = layers.Dense(width)(layers.Dense(4 * width, activation=lambda v: ops.gelu(v, approximate=False))(x))
        x = layers.LayerNormalization(epsilon=1e-12)(x + y)
    return keras.Model({"tokens": tokens, "mask": mask}, {"hidden": x, "pooled": layers.Dense(width, activation="tanh")(x[:, 0])})


def make_cnn(s: Sizes):
    image = keras.Input((24, 24, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = layers.ReLU(6)(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)))
    y = layers.DepthwiseConv2D(3, padding="same", activation="swish")(x)
    y = layers.Conv2D(8, 1)(y)
    x = layers.MaxPooling2D(2)(layers.ZeroPadding2D(1)(x + y))
    x = layers.Conv2D(12, 3, dilation_rate=2, activation="relu")(x)
    x = layers.AveragePooling2D(2, padding="same", strides=1)(x)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = layers.Conv2DTranspose(6, 3, strides=2, padding="same")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model({"image": image}, {"classes": layers.Dense(7, activation="softmax")(x)})


def make_lookup(s: Sizes):
    """Strings and integers that tables turn into rows."""
    port, code, tags = keras.Input((1,), dtype="string", name="port"), ids("code", 1), keras.Input((3,), dtype="string", name="tags")
    ports = layers.StringLookup(vocabulary=["Rotterdam", "Hamburg", "Santos", "Busan"])(port)
    codes = layers.IntegerLookup(vocabulary=[1006, 2601, 5201, 870323])(code)
    hashed = layers.Hashing(num_bins=50)(tags)
    parts = [layers.Flatten()(layers.Embedding(n, s.dim)(x)) for n, x in ((5, ports), (5, codes), (50, hashed))]
    return keras.Model({"port": port, "code": code, "tags": tags}, {"value": mlp(layers.Concatenate()(parts), [s.width, 1])})


class Bags(tf.Module):
    """Pooled lookups of ragged lists: values with the row of each, as sparse tensors have them."""

    def __init__(self, s: Sizes):
        super().__init__()
        rng = np.random.default_rng(SEED)
        self.table = tf.Variable(rng.standard_normal((s.rows, s.dim)).astype("f4"), name="table")

    @tf.function
    def pool(self, dense, values, rows):
        batch = tf.shape(dense)[0]
        total = tf.math.unsorted_segment_sum(tf.gather(self.table, values), rows, batch)
        return {"sum": total, "mean": total / tf.maximum(tf.math.unsorted_segment_sum(tf.ones_like(values, tf.float32)[:, None], rows, batch), 1.0)}


KERAS = {
    "mlp": make_mlp, "dlrm": make_dlrm, "dcnv2": make_dcnv2, "deepfm": make_deepfm, "din": make_din, "mmoe": make_mmoe,
    "bert": make_bert, "cnn": make_cnn, "lookup": make_lookup,
}  # fmt: skip
ALL = [*KERAS, "two_tower", "bags"]


def randomise(variables, rng: np.random.Generator) -> None:
    """Gives every variable values that show when it is mixed up with another: no zeros, no ones."""
    for variable in variables:
        if "float" not in str(variable.dtype):
            continue
        shape = tuple(variable.shape)
        scale = 1 / np.sqrt(max(1, np.prod(shape[:-1]) if len(shape) != 2 else shape[0]))
        values = rng.standard_normal(shape) * (scale if len(shape) > 1 else 0.2)
        name = variable.path if hasattr(variable, "path") else variable.name
        if "embedding" in name or "items" in name or "table" in name:
            values = rng.standard_normal(shape) * 0.5
        if "variance" in name or "gamma" in name:
            values = 0.5 + rng.random(shape)
        variable.assign(values.astype("float32"))


def draw(name: str, shape: tuple[int, ...], dtype: str, s: Sizes, rng: np.random.Generator) -> np.ndarray:
    words = {"port": [b"Rotterdam", b"Busan", b"Atlantis", b""], "tags": [b"grain", b"iron ore", b"x" * 40, b"a"]}
    if name in words:
        return rng.choice(np.array(words[name]), shape)
    if name == "code":
        return rng.choice(np.array([1006, 5201, 99, 870323], "int64"), shape)
    if name == "mask":
        return (np.arange(shape[1]) < rng.integers(1, shape[1] + 1, (shape[0], 1))).astype(dtype)
    if name == "image":
        return (rng.random(shape) * 255).astype("float32")
    if "int" in dtype:
        # Small ids are frequent, as in real traffic; 0 pads histories.
        return np.minimum((rng.random(shape) ** 3 * s.rows).astype(dtype), s.rows - 1)
    return rng.standard_normal(shape).astype("float32")


def save(folder: Path, inputs: dict[str, np.ndarray]) -> None:
    """Runs the saved signature, not the model it came from, and writes both sides down."""
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    outputs = signature(**{name: tf.constant(x) for name, x in inputs.items()})
    np.savez(folder / "inputs.npz", **inputs)
    np.savez(folder / "outputs.npz", **{name: x.numpy() for name, x in outputs.items()})


def make(name: str, folder: Path, s: Sizes) -> None:
    keras.utils.set_random_seed(SEED)
    rng = np.random.default_rng([SEED, ALL.index(name)])
    if name in KERAS:
        model = KERAS[name](s)
        randomise(model.weights, rng)
        model.export(str(folder), format="tf_saved_model", verbose=False)
        save(folder, {x.name: draw(x.name, (s.batch, *x.shape[1:]), x.dtype, s, rng) for x in model.inputs})
    elif name == "two_tower":
        module = TwoTower(s)
        randomise(module.tower.weights, rng)
        spec = dict(user=tf.TensorSpec([None], tf.int64, "user"), history=tf.TensorSpec([None, s.length], tf.int64, "history"))
        tf.saved_model.save(module, str(folder), signatures=module.recommend.get_concrete_function(**spec))
        save(folder, {key: draw(key, (s.batch, *x.shape[1:]), "int64", s, rng) for key, x in spec.items()})
    else:
        module = Bags(s)
        spec = dict(dense=tf.TensorSpec([None, 2], tf.float32, "dense"), values=tf.TensorSpec([None], tf.int64, "values"), rows=tf.TensorSpec([None], tf.int64, "rows"))
        tf.saved_model.save(module, str(folder), signatures=module.pool.get_concrete_function(**spec))
        count = 3 * s.batch
        save(folder, {
            "dense": draw("dense", (s.batch, 2), "float32", s, rng), "values": draw("values", (count,), "int64", s, rng),
            "rows": np.sort(rng.integers(0, s.batch, count)),
        })  # fmt: skip


class Tiny(tf.Module):
    """A table of strings from constants, one of integers from a file, a small embedding and a matrix."""

    def __init__(self, vocabulary: Path):
        super().__init__()
        init = tf.lookup.KeyValueTensorInitializer(["Rotterdam", "Santos"], tf.constant([1, 2], tf.int64))
        self.ports = tf.lookup.StaticHashTable(init, default_value=0)
        file = tf.lookup.TextFileInitializer(str(vocabulary), tf.int64, 0, tf.int64, 1, delimiter=",")
        self.codes = tf.lookup.StaticHashTable(file, default_value=3)
        self.rows = tf.Variable(np.arange(8, dtype="f4").reshape(4, 2), name="rows")
        self.weight = tf.Variable(np.linspace(-1, 1, 15, dtype="f4").reshape(5, 3), name="weight")

    @tf.function
    def score(self, port, code, x):
        parts = [tf.gather(self.rows, self.ports.lookup(port)), tf.gather(self.rows, self.codes.lookup(code)), x]
        return {"score": tf.nn.relu(tf.matmul(tf.concat(parts, 1), self.weight))}


def shrink(path: Path) -> None:
    """Leaves out what only debuggers read: half of a small model."""
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in model.meta_graphs:
        graph.meta_info_def.ClearField("stripped_op_list")
        graph.graph_def.ClearField("debug_info")
        for node in [*graph.graph_def.node, *(node for f in graph.graph_def.library.function for node in f.node_def)]:
            node.ClearField("experimental_debug_info")
            for name in [name for name in node.attr if name.startswith("_")]:
                del node.attr[name]
    path.write_bytes(model.SerializeToString(deterministic=True))


def make_fixtures(out: Path) -> None:
    """The files under tests/saved_model_data: a whole model of a few kilobytes, and a bundle of partitioned tensors."""
    (out / "codes.csv").write_text("1006,0\n2601,1\n5201,2\n")
    module = Tiny(out / "codes.csv")
    spec = dict(port=tf.TensorSpec([None], tf.string), code=tf.TensorSpec([None], tf.int64), x=tf.TensorSpec([None, 1]))
    tf.saved_model.save(module, str(out / "tiny"), signatures=module.score.get_concrete_function(**spec))
    shrink(out / "tiny" / "saved_model.pb")
    (out / "codes.csv").unlink()
    (out / "tiny" / "fingerprint.pb").unlink()
    whole = np.arange(24, dtype="f4").reshape(4, 6)
    parts = {"4 6 0,2:0,6": whole[:2], "4 6 2,2:0,6": whole[2:]}
    columns = {"4 6 0,4:0,4": whole[:, :4] + 100, "4 6 0,4:4,2": whole[:, 4:] + 100}
    far = {"300 1 0,70:-": np.arange(70, dtype="i4")[:, None], "300 1 70,230:-": np.arange(70, 300, dtype="i4")[:, None]}
    tf.raw_ops.SaveV2(
        prefix=str(out / "partitioned"), tensor_names=["rows"] * 2 + ["columns"] * 2 + ["far"] * 2 + ["plain"],
        shape_and_slices=[*parts, *columns, *far, ""],
        tensors=[*parts.values(), *columns.values(), *far.values(), np.float32(7)],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default=",".join(ALL), help="models, separated by commas")
    for name, default in dict(rows=64, dim=8, width=32, features=6, length=12, batch=5).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--fixtures", action="store_true", help="make the files under tests/saved_model_data instead")
    args = parser.parse_args()
    if args.fixtures:
        make_fixtures(args.out)
        return
    sizes = Sizes(args.rows, args.dim, args.width, args.features, args.length, args.batch)
    for name in args.only.split(","):
        make(name, args.out / name, sizes)
        print(args.out / name)


if __name__ == "__main__":
    main()
