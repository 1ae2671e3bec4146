#!/usr/bin/env python3
"""Times of products by the model of docs/chip.md, worked out a second time, from chips/*.toml.

Prints the rows of kGoldens in src/device/chip/cost_matmul_test.cc. Python 3.11, nothing else.
"""
import math
import pathlib
import tomllib

CHIPS = pathlib.Path(__file__).resolve().parents[2] / "chips"
SPLITS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)
WEIGHT_BYTES = {"kBf16": 2, "kF8E4M3": 1, "kQ8_0": 34 / 32, "kQ4_0": 18 / 32}

# Chip, table of constants, engine, menu, weights, bytes of a value of x; rows, channels, steps.
KINDS = {
    "bf16": ("gemm_bf16", "bf16", "tiles", "kBf16", 2),
    "fp8": ("gemm_fp8", "fp8_e4m3", "tiles", "kF8E4M3", 1),
    "int8": ("gemm_int8", "int8", "tiles", "kQ8_0", 1),
    "int8 weights": ("gemm_weight_only", "bf16", "narrow_tiles", "kQ8_0", 2),
    "int4 weights": ("gemm_weight_only", "bf16", "narrow_tiles", "kQ4_0", 2),
}
CASES = [
    ("h100", "bf16", 1, 4096, 4096),
    ("h100", "bf16", 16, 64, 16384),  # a split reduction
    ("h100", "bf16", 257, 16384, 7168),
    ("h100", "bf16", 4096, 12288, 12288),  # the power limit
    ("h100", "bf16", 4096, 32, 4096),  # x stays in the cache
    ("h100", "bf16", 129, 1281, 1000),
    ("h100", "fp8", 7, 65536, 8192),
    ("h100", "fp8", 100, 5120, 5120),
    ("h100", "fp8", 8192, 51200, 64),
    ("h100", "fp8", 16384, 8192, 16384),
    ("a100", "bf16", 1, 2048, 512),  # a tile of one row
    ("a100", "bf16", 2, 1024, 12288),
    ("a100", "bf16", 8192, 16384, 32),
    ("a100", "bf16", 512, 7168, 4096),
    ("a100", "int8", 4, 1024, 7168),
    ("a100", "int8", 2048, 5120, 3072),
    ("a100", "int8 weights", 48, 128, 65536),
    ("a100", "int8 weights", 768, 7168, 4096),
    ("a100", "int4 weights", 8, 65536, 16384),
]


def value(table, key, otherwise=None):
    found = table.get(key, otherwise)
    return found["value"] if isinstance(found, dict) else found


def seconds(chip, kind, m, n, k, quantises):
    constants, engine, menu, weights, x_bytes = KINDS[kind]
    c = chip["fitted"][constants]
    w_bytes = WEIGHT_BYTES[weights]
    cores = value(chip, "cores")
    memory = value(chip["memory"], "bytes_per_s") * c["memory_efficiency"]
    latency = value(chip["memory"], "latency_s")
    half = value(chip["cache"], "bytes") / 2
    core_rate = c.get("core_bytes_per_s") or value(chip["scratchpad"], "bytes_per_s")
    peak = value(chip["matrix"][engine], "ops_per_s")
    rate = peak * c["matrix_efficiency"]

    def missed(size):
        return min(1, max(0, size / half - 1))

    x, w, y = m * k * x_bytes, n * k * w_bytes, m * n * 2
    read = (x + y) * missed(x + w + y) + w * missed(x + y + 6 * w)
    best = math.inf
    for tile in chip["matrix"][engine][menu]:
        bm, bn, bk, stages, per_core, least, most = tile + [0] * (7 - len(tile))
        if m < least or (most and m > most):
            continue
        if not least and not most and bm > 64 and bm >= 2 * m:
            continue
        for splits in SPLITS:
            tiles = math.ceil(m / bm) * math.ceil(n / bn) * splits
            if splits > 1:
                if math.ceil(k / bk) < 2 * splits or tiles > 4 * cores * per_core:
                    break
            transfers = math.ceil(math.ceil(k / bk) / splits)
            loaded = (bm * x_bytes + bn * w_bytes) * bk

            def wave(count):
                busiest = math.ceil(count / cores)
                step = max(
                    2 * bm * bn * bk / (rate / cores) * busiest,
                    loaded * busiest / core_rate,
                    loaded * count / c["cache_bytes_per_s"],
                    c.get("transfer_s", 0) / stages,
                )
                stored = bm * bn * (4 if splits > 1 else 2) * count
                return transfers * step + stored / c["store_bytes_per_s"] + c["tile_s"]

            full, last = divmod(tiles, cores * per_core)
            core_s = full * wave(cores * per_core) + (wave(last) if last else 0)
            under_way = min(tiles, cores * per_core) * stages * loaded
            memory_s = read / min(memory, under_way / latency)
            power = c["overlap_power"]
            longer, shorter = max(core_s, memory_s), min(core_s, memory_s)
            both = longer * (1 + (shorter / longer) ** power) ** (1 / power)
            if splits > 1:
                both += c["split_s"] + m * n * 4 * splits / c["cache_bytes_per_s"]
            best = min(best, both)
    total = c["start_s"] + best
    sustained = c.get("sustained_efficiency", c["matrix_efficiency"])
    over = max(0, 2 * m * n * k / rate - c.get("boost_s", 0))
    total += over * (c["matrix_efficiency"] / sustained - 1)
    if quantises:
        row = k * 3
        on_cores = math.ceil(m / cores) * (
            c["quantise_row_s"] + row / c["quantise_core_bytes_per_s"]
        )
        total += value(chip["overheads"], "issue_s") + max(
            on_cores, m * row * missed(m * row) / memory
        )
    return total


for name, kind, m, n, k in CASES:
    description = tomllib.loads((CHIPS / f"{name}.toml").read_text())
    quantised = "true" if kind in ("fp8", "int8") else "false"
    time = seconds(description, kind, m, n, k, kind == "fp8")
    weights = KINDS[kind][3]
    print(f'    {{"{name}", DType::{weights}, {quantised}, {m}, {n}, {k}, {time * 1e6:.4f}}},')
