#!/usr/bin/env python3
"""Runs the ONNX package's own backend node tests (release 1.22) through `millpower infer`.

Every test's model is imported, compiled to a Program and run by the CPU device on the test's
inputs; its outputs are compared with the test's own by the test's tolerances. Prints how many
passed, how many were refused by name, and how many were wrong, which must be none; then ONNX
Runtime's counts, when it is installed. Needs the Python packages onnx and numpy.

Many tests give shapes, axes or scales as inputs. Those that are refused for that are run once more
with these inputs as constants of the model, and counted apart.

  python3 tests/onnx_node_tests/run.py build/release/millpower [--jobs 2] [--filter text]
      [--refusals docs/onnx-refusals.md] [--least 1260] [--no-onnxruntime]
"""

import argparse
import collections
import concurrent.futures
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

TIMEOUT_S = 120
# Tests whose expected values are float32 noise where the exact result is 0, so that only that very
# library's order of additions gives them: they are compared within 1e-6 of the largest value.
# numpy.fft made these.
NOISY = ("test_dft_inverse",)
# Errors of importing, which name what is not supported; anything else is a fault.
REFUSAL = re.compile(r"\.onnx: ")
TRAINING = "ai.onnx.preview.training"


def file_name(name):
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name) + ".npy"


def read_values(folder, kind, infos):
    """The tensors of a test's data set by name; None where one is no tensor."""
    values = {}
    for i, info in enumerate(infos):
        path = folder / f"{kind}_{i}.pb"
        if not path.exists():
            continue
        if not info.type.HasField("tensor_type"):
            return None
        tensor = onnx.TensorProto()
        tensor.ParseFromString(path.read_bytes())
        values[info.name] = (numpy_helper.to_array(tensor), tensor.data_type)
    return values


def as_npy(array, data_type):
    """bf16 has no type in .npy files: its bits."""
    if data_type == onnx.TensorProto.BFLOAT16:
        return np.ascontiguousarray(array).view(np.uint16).reshape(array.shape)
    if data_type == onnx.TensorProto.STRING:
        return np.array([str(s) for s in array.ravel()]).reshape(array.shape)
    return array


def as_numbers(array, data_type):
    if data_type == onnx.TensorProto.BFLOAT16:
        bits = array.view(np.uint16) if array.dtype != np.uint16 else array
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return array


def difference(got, want, data_type, rtol, atol):
    """What is wrong with an output, or None."""
    got, want = as_numbers(got, data_type), as_numbers(want, data_type)
    if got.shape != want.shape:
        return f"shape {list(got.shape)}, not {list(want.shape)}"
    if got.dtype != want.dtype:
        return f"type {got.dtype}, not {want.dtype}"
    if np.issubdtype(want.dtype, np.floating):
        wide = np.longdouble if want.dtype == np.float64 else np.float64
        if np.allclose(got.astype(wide), want.astype(wide), rtol=rtol, atol=atol, equal_nan=True):
            return None
    elif np.array_equal(got, want):
        return None
    with np.errstate(all="ignore"):
        gap = np.nanmax(np.abs(got.astype(np.float64) - want.astype(np.float64)), initial=0)
    return f"differs by up to {gap:.3g}"


AT_RUN_TIME = re.compile(r"known only when the model runs|dimension of 0 elements")


def with_constants(model, inputs):
    """The model with its inputs of at most one dimension as constants, and the other inputs."""
    fixed = {name for name, (array, _) in inputs.items() if array.ndim <= 1}
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.input[:]
    for info in model.graph.input:
        if info.name in fixed:
            array, data_type = inputs[info.name]
            tensor = changed.graph.initializer.add()
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(array), info.name))
            tensor.data_type = data_type
        else:
            changed.graph.input.add().CopyFrom(info)
    return changed, {name: value for name, value in inputs.items() if name not in fixed}


def run_ours(binary, test, path, inputs, outputs, scratch):
    """'passed', or 'refused' or 'wrong' with why."""
    command = [binary, "infer", str(path), "--output", str(scratch / "out"), "--threads", "1"]
    if inputs is not None:
        for i, (name, (array, data_type)) in enumerate(inputs.items()):
            file = scratch / f"in{i}.npy"
            np.save(file, as_npy(array, data_type))
            command += ["--input", f"{name}={file}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return "wrong", "takes too long"
    if done.returncode != 0:
        message = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message"
        message = message.removeprefix("millpower: error: ")
        refused = done.returncode == 1 and REFUSAL.search(message)
        return ("refused" if refused else "wrong"), message.split("model.onnx: ")[-1]
    if outputs is None:
        return "wrong", "an output that is no tensor was not refused"
    for name, (want, data_type) in outputs.items():
        file = scratch / "out" / file_name(name)
        if not file.exists():
            return "wrong", f"output '{name}' is missing"
        atol = test.atol
        if test.name.startswith(NOISY):
            atol = max(atol, 1e-6 * float(np.abs(want).max()))
        gap = difference(np.load(file), want, data_type, test.rtol, atol)
        if gap:
            return "wrong", f"output '{name}': {gap}"
    return "passed", ""


def run_onnxruntime(test, model, folder):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(f"{test.model_dir}/model.onnx", options,
                                               providers=["CPUExecutionProvider"])
        inputs = read_values(folder, "input", model.graph.input)
        outputs = read_values(folder, "output", model.graph.output)
        if inputs is None or outputs is None:
            return "refused"
        got = session.run(list(outputs), {name: array for name, (array, _) in inputs.items()})
    except Exception:  # its own exceptions have no common base
        return "refused"
    for array, (want, data_type) in zip(got, outputs.values()):
        if data_type == onnx.TensorProto.STRING:
            if not np.array_equal(array, want):
                return "wrong"
        elif difference(np.asarray(array), want, data_type, test.rtol, test.atol):
            return "wrong"
    return "passed"


def run_test(arguments, test):
    path = pathlib.Path(test.model_dir) / "model.onnx"
    model = onnx.load(path)
    folder = path.parent / "test_data_set_0"
    inputs = read_values(folder, "input", model.graph.input)
    outputs = read_values(folder, "output", model.graph.output)
    again = None
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        try:
            ours = run_ours(arguments.binary, test, path, inputs, outputs, scratch)
            if inputs and ours[0] == "refused" and AT_RUN_TIME.search(ours[1]):
                changed, left = with_constants(model, inputs)
                onnx.save(changed, scratch / "model.onnx")
                again = run_ours(arguments.binary, test, scratch / "model.onnx", left, outputs,
                                 scratch)
        except Exception as error:
            ours = "wrong", f"{type(error).__name__}: {error}"
    theirs = "" if arguments.no_onnxruntime else run_onnxruntime(test, model, folder)
    training = any(s.domain == TRAINING for s in model.opset_import)
    return test.name, ours, again, theirs, training


def write_refusals(path, refused):
    lines = ["# ONNX node tests that are refused", "",
             "Written by `tests/onnx_node_tests/run.py --refusals`: of the ONNX package's backend",
             "node tests, those whose model Millpower refuses at load, and what it says.", "",
             "| Test | Why |", "|---|---|"]
    for name, why in sorted(refused):
        lines.append(f"| {name} | {why.replace('|', '/')} |")
    pathlib.Path(path).write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--filter", default="", help="only tests whose name holds this")
    parser.add_argument("--refusals", help="write the list of refusals here")
    parser.add_argument("--least", type=int, default=1260, help="fail when fewer pass")
    parser.add_argument("--no-onnxruntime", action="store_true")
    arguments = parser.parse_args()
    tests = [t for t in load_model_tests(kind="node") if arguments.filter in t.name]

    counts, again_counts = collections.Counter(), collections.Counter()
    theirs_counts = collections.Counter()
    refused, training_tests = [], 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for name, (ours, why), again, theirs, training in pool.map(
                lambda test: run_test(arguments, test), tests):
            counts[ours] += 1
            theirs_counts[theirs] += 1
            if again:
                again_counts[again[0]] += 1
                if again[0] == "wrong":
                    print(f"wrong: {name} with constants: {again[1]}", flush=True)
            training_tests += training
            if ours == "wrong":
                print(f"wrong: {name}: {why}", flush=True)
            if ours == "refused":
                refused.append((name, why))
    if arguments.refusals:
        write_refusals(arguments.refusals, refused)
    print(f"{len(tests)} node tests of onnx {onnx.__version__}, {training_tests} of training")
    print(f"Millpower: {counts['passed']} passed, {counts['refused']} refused by name, "
          f"{counts['wrong']} wrong")
    print(f"  of those refused, with small inputs as constants: {again_counts['passed']} passed, "
          f"{again_counts['refused']} refused, {again_counts['wrong']} wrong")
    if not arguments.no_onnxruntime:
        import onnxruntime
        print(f"ONNX Runtime {onnxruntime.__version__}: {theirs_counts['passed']} passed, "
              f"{theirs_counts['refused']} refused, {theirs_counts['wrong']} wrong")
    least = arguments.least if not arguments.filter else 0
    return 1 if counts["wrong"] or again_counts["wrong"] or counts["passed"] < least else 0


if __name__ == "__main__":
    sys.exit(main())
