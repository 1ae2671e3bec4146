#!/usr/bin/env python3
"""Compares two OpenAI servers that run on this machine, by bench/serving, one run of each in turn.

    bench/compare_serving.py --ours http://127.0.0.1:8080 --peer http://127.0.0.1:8081 \
        --our-model qwen3-0.6b --peer-model any --runs 5 -- --requests 16 --concurrency 16

What follows "--" goes to bench/serving. Prints the medians of both, and the median of the ratios of
neighbouring runs: a machine that drifts moves both sides of a ratio alike. docs/performance.md says
what the figures are."""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

SERVING = pathlib.Path(__file__).resolve().parent.parent / "build/release/bench/serving"

# Name, path into bench/serving's JSON.
FIGURES = [
    ("output tok/s", ("output_tok_s",)),
    ("total tok/s", ("total_tok_s",)),
    ("TTFT median s", ("ttft_s", "median")),
    ("TTFT 99% s", ("ttft_s", "p99")),
    ("TPOT median s", ("tpot_s", "median")),
    ("latency median s", ("latency_s", "median")),
]


def measure(serving, url, model, key, seed, flags):
    """One run's figures. Each run has its own seed, the same for both servers: a prefix cache finds
    nothing of the runs before."""
    command = [serving, "--url", url, "--model", model, "--seed", str(seed), "--json", *flags]
    if key:
        command += ["--key", key]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{url}: {done.stderr.strip()}")
    result = json.loads(done.stdout)
    figures = {}
    for name, path in FIGURES:
        value = result
        for part in path:
            value = value[part]
        figures[name] = value
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True, help="URL of our server")
    parser.add_argument("--peer", required=True, help="URL of the other")
    parser.add_argument("--our-model", required=True)
    parser.add_argument("--peer-model", required=True)
    parser.add_argument("--our-key", default="")
    parser.add_argument("--peer-key", default="")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--serving", default=str(SERVING), help="the load generator")
    parser.add_argument("flags", nargs="*", help="flags of bench/serving, behind --")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs must be at least 1")

    ours, peer = [], []
    for run in range(options.runs):
        print(f"run {run + 1} of {options.runs}", file=sys.stderr)
        ours.append(measure(options.serving, options.ours, options.our_model, options.our_key,
                            run + 1, options.flags))
        peer.append(measure(options.serving, options.peer, options.peer_model, options.peer_key,
                            run + 1, options.flags))
    print(f"{'':18}{'ours':>10}{'peer':>10}{'ours / peer':>14}")
    for name, _ in FIGURES:
        pairs = [(a[name], b[name]) for a, b in zip(ours, peer) if a[name] and b[name]]
        if not pairs:
            continue
        mine, theirs = zip(*pairs)
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{name:18}{statistics.median(mine):10.3f}{statistics.median(theirs):10.3f}"
              f"{ratio:13.3f}x")


if __name__ == "__main__":
    main()
