"""The models of models.py as tf.functions of the same weights, timed on request. compare.py starts it.

Run by a Python that has TensorFlow: tensorflow_peer.py MODEL WEIGHTS THREADS, WEIGHTS being a folder of
NAME.npy. For each line on standard input, "FOLDER REPEAT", it runs the inputs NAME.npy in the folder
so many times and answers with the median in microseconds; the result goes to FOLDER/tensorflow.npy.
"""

import pathlib
import statistics
import sys
import time

import numpy as np
import tensorflow as tf

TABLES = 26


class Weights:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.known = {}

    def __getitem__(self, name):
        if name not in self.known:
            # Variables, as in a saved model, not constants, which the graph would hold as text.
            self.known[name] = tf.Variable(np.load(self.folder / f"{name}.npy"), trainable=False)
        return self.known[name]


def mlp(weights, x, name, layers, last_relu):
    for i in range(layers):
        x = tf.matmul(x, weights[f"{name}.{i}.weight"], transpose_b=True) + weights[f"{name}.{i}.bias"]
        if last_relu or i + 1 < layers:
            x = tf.nn.relu(x)
    return x


def dlrm_kaggle(weights, inputs):
    dense = mlp(weights, inputs["dense"], "bottom", 4, True)
    rows = [tf.gather(weights[f"table.{i}"], inputs[f"ids_{i}"]) for i in range(TABLES)]
    features = tf.stack([dense, *rows], axis=1)
    dots = tf.reshape(tf.matmul(features, features, transpose_b=True), [-1, 27 * 27])
    below = tf.constant([i * 27 + j for i in range(27) for j in range(i)])
    top = tf.concat([dense, tf.gather(dots, below, axis=1)], axis=1)
    return tf.sigmoid(mlp(weights, top, "top", 3, False))


def dcnv2_mlperf(weights, inputs):
    dense = mlp(weights, inputs["dense"], "bottom", 3, True)
    bags = [tf.reduce_sum(tf.gather(weights[f"table.{i}"], inputs[f"ids_{i}"]), axis=1) for i in range(TABLES)]
    x0 = x = tf.concat([dense, *bags], axis=1)
    for i in range(3):
        v = tf.matmul(x, weights[f"cross.{i}.v"])
        x = x0 * (tf.matmul(v, weights[f"cross.{i}.w.weight"], transpose_b=True) + weights[f"cross.{i}.w.bias"]) + x
    return tf.sigmoid(mlp(weights, x, "top", 5, False))


MODELS = {"dlrm-kaggle": dlrm_kaggle, "dcnv2-mlperf": dcnv2_mlperf}


def main():
    model, weights, threads = MODELS[sys.argv[1]], Weights(sys.argv[2]), int(sys.argv[3])
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for file in weights.folder.glob("*.npy"):
        weights[file.stem]  # variables are made outside of the function
    function = tf.function(lambda inputs: model(weights, inputs), reduce_retracing=True)
    print(tf.__version__, flush=True)
    for line in sys.stdin:
        folder, repeat = line.rsplit(" ", 1)
        folder = pathlib.Path(folder)
        files = [folder / "dense.npy", *(folder / f"ids_{i}.npy" for i in range(TABLES))]
        inputs = {file.stem: tf.constant(np.load(file)) for file in files}
        result = function(inputs).numpy()
        times = []
        for _ in range(int(repeat)):
            start = time.perf_counter()
            result = function(inputs).numpy()
            times.append(time.perf_counter() - start)
        np.save(folder / "tensorflow.npy", result)
        print(statistics.median(times) * 1e6, flush=True)


if __name__ == "__main__":
    main()
