"""What 8-bit embedding tables cost a model of examples/ranking: AUC on offers it has not seen, by the binary."""

import os
import pathlib
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("MILLPOWER_BINARY", str(ROOT / "build" / "release" / "millpower"))
sys.path.insert(0, str(ROOT / "examples" / "ranking"))

import data  # noqa: E402

ROWS = 2048  # of a run; the binary's --max-batch


def scores(model, tables, features, scratch):
    """The model's output for all rows, its tables being of this type."""
    count, parts = len(features["buyer"]), []
    for begin in range(0, count, ROWS):
        words = []
        for name, values in features.items():
            np.save(scratch / f"{name}.npy", values[begin:begin + ROWS])
            words += ["--input", f"{name}={scratch / name}.npy"]
        subprocess.run([BINARY, "infer", str(model), *words, "--tables", tables, "--output", str(scratch / "out")],
                       check=True, capture_output=True, timeout=600)
        (output,) = (scratch / "out").iterdir()
        parts.append(np.load(output).reshape(-1))
    return np.concatenate(parts)


def assert_auc_holds(model, trade, scratch, offers=50_000):
    features, labels = trade.offers(offers, seed=2)
    exact = scores(model, "auto", features, scratch)
    rounded = scores(model, "int8", features, scratch)
    before, after = data.auc(labels, exact), data.auc(labels, rounded)
    print(f"AUC: f32 tables {before:.5f}, int8 tables {after:.5f}")
    assert before > 0.7, "the model has learnt nothing, and the comparison says nothing"
    assert not np.array_equal(exact, rounded)  # they are rounded indeed
    assert abs(before - after) < 0.001
