#!/usr/bin/env python3
"""Predictions of LLMCompass beside ours, for the same measured products on an A100.

LLMCompass (Zhang et al., ISCA 2024) is a public simulator that searches mappings of matrix products
to a described GPU. It knows the A100 in 16-bit types. Its prediction is the time on the device,
without the launch overhead that it adds as a constant (its measurements had one; the rows here are
the kernels' own time). A sample of the rows is taken, evenly over the file, as one product takes it
up to minutes.

    python3 bench/chip_truth/beside_llmcompass.py --llmcompass DIR --rows a100_gemm.csv

DIR: a checkout of LLMCompass, whose needs (pandas, scalesim, torch) this Python has.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time


def predict_peer(directory, rows):
    """Seconds of each row (m, n, k), and how long the predictions took."""
    os.chdir(directory)
    sys.path.insert(0, directory)
    os.makedirs("systolic_array_model/temp", exist_ok=True)
    from hardware_model.device import device_dict
    from software_model.matmul import Matmul
    from software_model.utils import Tensor, data_type_dict

    device = device_dict["A100_80GB_fp16"]
    predicted, began = [], time.perf_counter()
    for m, n, k in rows:
        operator = Matmul(data_type=data_type_dict["fp16"])
        operator(Tensor([m, k]), Tensor([k, n]))
        predicted.append(operator.compile_and_simulate(device, compile_mode="heuristic-GPU"))
        print(f"\r{len(predicted)} of {len(rows)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return predicted, time.perf_counter() - began


def predict_ours(chip_truth, header, rows):
    with tempfile.TemporaryDirectory() as folder:
        sample, dump = os.path.join(folder, "rows.csv"), os.path.join(folder, "dump.csv")
        with open(sample, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, header)
            writer.writeheader()
            writer.writerows(rows)
        began = time.perf_counter()
        subprocess.run([chip_truth, "--chip", "a100", "--rows", sample, "--dump", dump], check=True,
                       stdout=subprocess.DEVNULL)
        took = time.perf_counter() - began
        with open(dump, encoding="utf-8") as file:
            return [float(row["predicted_ms"]) * 1e-3 for row in csv.DictReader(file)], took


def show(name, predicted, measured, took):
    errors = sorted(100 * abs(p / m - 1) for p, m in zip(predicted, measured))
    print(f"{name:<12} mean {statistics.mean(errors):6.1f}%  median {statistics.median(errors):6.1f}%  "
          f"p90 {errors[int(0.9 * len(errors))]:6.1f}%  {1e3 * took / len(errors):8.1f} ms a product")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llmcompass", required=True, help="a checkout of it")
    parser.add_argument("--rows", required=True, help="CSV of products measured on an A100")
    parser.add_argument("--chip-truth", default="build/release/bench/chip_truth")
    parser.add_argument("--sample", type=int, default=60, help="how many rows")
    flags = parser.parse_args()
    chip_truth = os.path.abspath(flags.chip_truth)
    with open(flags.rows, encoding="utf-8") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames
        rows = [row for i, row in enumerate(reader)
                if i % 10 != 0 and row["gemm_dtype"] in ("bfloat16", "float16")]
    rows = rows[:: max(1, len(rows) // flags.sample)][: flags.sample]
    measured = [float(row["latency"]) * 1e-3 for row in rows]
    ours, our_time = predict_ours(chip_truth, header, rows)
    shapes = [(int(row["m"]), int(row["n"]), int(row["k"])) for row in rows]
    theirs, their_time = predict_peer(os.path.abspath(flags.llmcompass), shapes)
    print(f"{len(rows)} products in 16 bits on an A100, on none of which a constant was fitted")
    show("millpower", ours, measured, our_time)
    show("LLMCompass", theirs, measured, their_time)


if __name__ == "__main__":
    main()
