"""Times Millpower and ONNX Runtime on one model, in turns, on the same inputs and threads.

    python bench/ranking/compare.py dlrm-kaggle --batch 1 64 2048

Prints for each batch size the median time of a request in either, and ONNX Runtime's over ours (above 1:
Millpower is faster), of several rounds of both; and the largest difference of the outputs.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnxruntime

import models


def time_onnxruntime(session, inputs, repeat):
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        session.run(None, inputs)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def time_millpower(binary, model, folder, inputs, threads, repeat, batch):
    words = []
    for name, values in inputs.items():
        path = folder / f"{name}.npy"
        np.save(path, values)
        words += ["--input", f"{name}={path}"]
    command = [binary, "infer", str(model), *words, "--output", str(folder / "out"), "--threads", str(threads),
               "--repeat", str(repeat), "--max-batch", str(batch), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["median_us"], np.load(folder / "out" / "prediction.npy")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=models.MODELS)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64, 2048])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each turn, roughly")
    parser.add_argument("--file", type=pathlib.Path, help="the .onnx file; made when it is not there")
    parser.add_argument("--binary", default="build/release/millpower")
    flags = parser.parse_args()
    file = flags.file or pathlib.Path(tempfile.gettempdir()) / f"{flags.model}-{flags.rows}.onnx"
    if not file.exists():
        models.MODELS[flags.model][0](file, flags.rows)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = flags.threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    print(f"{flags.model}, tables of at most {flags.rows} rows, {flags.threads} threads, ONNX Runtime "
          f"{onnxruntime.__version__}, median of {flags.rounds} rounds")
    for batch in flags.batch:
        inputs = models.request(flags.model, flags.rows, batch, seed=batch)
        expected = session.run(None, inputs)[0]
        repeat = max(5, int(flags.seconds * 1e6 / time_onnxruntime(session, inputs, 5)))
        ours, theirs, difference = [], [], 0.0
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(flags.rounds):
                theirs.append(time_onnxruntime(session, inputs, repeat))
                median, got = time_millpower(flags.binary, file, pathlib.Path(folder), inputs, flags.threads, repeat,
                                             batch)
                ours.append(median)
                assert np.isfinite(got).all()
                difference = max(difference, float(np.abs(got - expected).max() / np.abs(expected).max()))
        ratios = sorted(t / o for t, o in zip(theirs, ours))
        print(f"batch {batch:5}: millpower {statistics.median(ours):10.1f} us, onnxruntime "
              f"{statistics.median(theirs):10.1f} us, ratio {statistics.median(ratios):.2f} "
              f"({ratios[0]:.2f} to {ratios[-1]:.2f}), largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
