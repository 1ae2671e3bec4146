#!/usr/bin/env python3
"""Runs the models that tools/goldens/ranking_models.py and keras_models.py make, and compares every
output with the framework's own: the largest difference is at most 1e-5 of the largest value.

  python3 tests/models/run.py build/release/millpower FOLDER...

A folder holds one folder a model: model.pt2, model.onnx or a SavedModel; and inputs and outputs, as
inputs.npz and outputs.npz, or as .npz files with entries in.NAME and out.NAME. Needs numpy.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

TOLERANCE = 1e-5


def cases(folder):
    """Name, inputs and expected outputs of each run."""
    if (folder / "inputs.npz").exists():
        yield "inputs", dict(np.load(folder / "inputs.npz")), dict(np.load(folder / "outputs.npz"))
        return
    for path in sorted(folder.glob("*.npz")):
        arrays = np.load(path)
        yield path.stem, *({key[len(prefix):]: arrays[key] for key in arrays.files if key.startswith(prefix)}
                           for prefix in ("in.", "out."))


def run(binary, model, inputs, outputs, scratch, flags):
    """What is wrong, or the largest difference relative to the largest value."""
    command = [binary, "infer", str(model), "--output", str(scratch / "out"), *flags]
    for name, array in inputs.items():
        path = scratch / f"{len(command)}.npy"
        np.save(path, array)
        command += ["--input", f"{name}={path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        return (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    worst = 0.0
    for name, want in outputs.items():
        path = scratch / "out" / (re.sub(r"[^A-Za-z0-9_.-]", "_", name) + ".npy")
        if not path.exists():
            return f"output '{name}' is missing"
        got = np.load(path)
        if got.shape != want.shape or got.dtype != want.dtype:
            return f"output '{name}' is {got.dtype} {list(got.shape)}, not {want.dtype} {list(want.shape)}"
        if not np.issubdtype(want.dtype, np.floating):
            if not np.array_equal(got, want):
                return f"output '{name}' differs"
            continue
        if not np.isfinite(got).all():
            return f"output '{name}' holds what is not finite"
        worst = max(worst, float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-30)))
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    flags, rest = parser.parse_known_args()
    failed = count = 0
    for folder in sorted(path for root in flags.folders for path in root.iterdir() if path.is_dir()):
        files = [folder / name for name in ("model.pt2", "model.onnx") if (folder / name).exists()]
        for model in files or [folder]:
            for case, inputs, outputs in cases(folder):
                with tempfile.TemporaryDirectory() as scratch:
                    result = run(flags.binary, model, inputs, outputs, pathlib.Path(scratch), rest)
                count += 1
                wrong = isinstance(result, str) or result > flags.tolerance
                failed += wrong
                kind = model.suffix[1:] or "saved_model"
                print(f"{'WRONG ' if wrong else 'ok    '} {folder.name:12} {kind:12} {case:8} "
                      f"{result if isinstance(result, str) else format(result, '.1e')}", flush=True)
    print(f"{count} runs, {failed} wrong")
    return 1 if failed or not count else 0


if __name__ == "__main__":
    sys.exit(main())
