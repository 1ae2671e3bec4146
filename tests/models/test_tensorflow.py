"""`millpower.tf.function_wrapper`: the same answers as TensorFlow's, and loud where it isn't used."""

import os
import pathlib
import sys
import warnings

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("MILLPOWER_BINARY", str(ROOT / "build" / "release" / "millpower"))
sys.path.insert(0, str(ROOT / "python"))

import millpower.tf  # noqa: E402


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


def test_a_function_with_variables_gives_tensorflows_answers():
    weight = tf.Variable(np.random.default_rng(1).normal(size=(5, 3)).astype("f4"))

    @tf.function(input_signature=[tf.TensorSpec([None, 5], tf.float32)])
    def layer(x):
        return tf.nn.relu(tf.matmul(x, weight))

    with warnings.catch_warnings():
        warnings.simplefilter("error", millpower.tf.FallbackWarning)
        fast = millpower.tf.function_wrapper(layer)
    for rows in (1, 4):
        x = np.random.default_rng(rows).normal(size=(rows, 5)).astype("f4")
        close(fast(x).numpy(), layer(x).numpy())


def test_a_keras_model_runs():
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(8, "tanh"), tf.keras.layers.Dense(2)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", millpower.tf.FallbackWarning)
        fast = millpower.tf.function_wrapper(model, input_signature=[tf.TensorSpec([None, 4], tf.float32)])
    x = np.ones((3, 4), "f4")
    close(fast(x).numpy(), model(x).numpy())


def test_what_it_cannot_run_falls_back_and_names_the_operator():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def refused(x):
        return tf.unique(x)[0]

    with pytest.warns(millpower.tf.FallbackWarning, match="Unique"):
        fast = millpower.tf.function_wrapper(refused)
    np.testing.assert_array_equal(fast(tf.constant([1.0, 1.0])), [1.0])


def test_int8_tables_hold_auc(tmp_path):
    import int8_tables
    import train_keras  # of examples/ranking, which int8_tables finds

    trade = int8_tables.data.Trade()
    train_keras.train(trade).export(tmp_path / "offers")
    int8_tables.assert_auc_holds(tmp_path / "offers", trade, tmp_path)
