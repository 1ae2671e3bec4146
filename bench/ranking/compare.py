"""Times Millpower and ONNX Runtime on one model, in turns, on the same inputs and threads.

    python bench/ranking/compare.py dlrm-kaggle --batch 1 64 2048
    python bench/ranking/compare.py dlrm-kaggle --tensorflow /path/to/python

Prints for each batch size the median time of a request in either, and ONNX Runtime's over ours (above 1:
Millpower is faster), of several rounds of both; and the largest difference of the outputs. The same for
TensorFlow with the path of a Python that has it; this one needs onnx and onnxruntime.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnx
import onnxruntime

import models


class OnnxRuntime:
    def __init__(self, file, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.name = f"onnxruntime {onnxruntime.__version__}"

    def time(self, folder, inputs, repeat):
        times = []
        for _ in range(repeat):
            start = time.perf_counter()
            result = self.session.run(None, inputs)[0]
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e6, result


class TensorFlow:
    def __init__(self, python, model, file, threads):
        peer = pathlib.Path(__file__).with_name("tensorflow_peer.py")
        command = [python, str(peer), model, str(self.weights(file)), str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        self.name = "tensorflow " + self.answer()

    @staticmethod
    def weights(file):
        """A folder of the model's weights, made when it is not there."""
        folder = file.with_suffix(".weights")
        if not folder.exists():
            folder.mkdir()
            for weight in onnx.load(file).graph.initializer:
                np.save(folder / f"{weight.name}.npy", onnx.numpy_helper.to_array(weight))
        return folder

    def answer(self):
        line = self.process.stdout.readline().strip()
        assert line, "the TensorFlow process has ended"
        return line

    def time(self, folder, inputs, repeat):
        self.process.stdin.write(f"{folder} {repeat}\n")
        self.process.stdin.flush()
        return float(self.answer()), np.load(folder / "tensorflow.npy")


class Millpower:
    def __init__(self, binary, file, threads):
        self.command = [binary, "infer", str(file), "--threads", str(threads), "--json"]
        self.name = "millpower"

    def time(self, folder, inputs, repeat):
        words = [word for name in inputs for word in ("--input", f"{name}={folder / name}.npy")]
        command = self.command + words + ["--output", str(folder / "out"), "--repeat", str(repeat), "--max-batch",
                                          str(len(inputs["dense"]))]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)["median_us"], np.load(folder / "out" / "prediction.npy")


def compare(ours, peers, inputs, flags):
    """Prints a line for each peer."""
    times, results = {engine: [] for engine in [ours, *peers]}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for key, values in inputs.items():
            np.save(folder / f"{key}.npy", values)
        repeat = max(5, int(flags.seconds * 1e6 / peers[0].time(folder, inputs, 5)[0]))
        for _ in range(flags.rounds):
            for engine in [*peers, ours]:
                median, results[engine] = engine.time(folder, inputs, repeat)
                times[engine].append(median)
    assert np.isfinite(results[ours]).all()
    for peer in peers:
        ratios = sorted(theirs / own for theirs, own in zip(times[peer], times[ours]))
        difference = np.abs(results[ours] - results[peer]).max() / np.abs(results[peer]).max()
        print(f"batch {len(inputs['dense']):5}: millpower {statistics.median(times[ours]):10.1f} us, {peer.name} "
              f"{statistics.median(times[peer]):10.1f} us, ratio {statistics.median(ratios):.2f} "
              f"({ratios[0]:.2f} to {ratios[-1]:.2f}), largest difference {difference:.1e}", flush=True)


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
    parser.add_argument("--tensorflow", metavar="PYTHON", help="a Python that has TensorFlow: compare with it, too")
    flags = parser.parse_args()
    file = flags.file or pathlib.Path(tempfile.gettempdir()) / f"{flags.model}-{flags.rows}.onnx"
    if not file.exists():
        models.MODELS[flags.model][0](file, flags.rows)

    ours = Millpower(flags.binary, file, flags.threads)
    peers = [OnnxRuntime(file, flags.threads)]
    if flags.tensorflow:
        peers.append(TensorFlow(flags.tensorflow, flags.model, file, flags.threads))
    print(f"{flags.model}, tables of at most {flags.rows} rows, {flags.threads} threads, median of {flags.rounds} "
          "rounds", flush=True)
    for batch in flags.batch:
        compare(ours, peers, models.request(flags.model, flags.rows, batch, seed=batch), flags)


if __name__ == "__main__":
    main()
