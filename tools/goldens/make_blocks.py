"""Makes tests/gguf_data/blocks.gguf: blocks of every type that Millpower reads, what the `gguf` package's reference
makes of them, and what it makes of floats.

    python make_blocks.py --out tests/gguf_data/blocks.gguf

For a type such as q4_k: tensor "q4_k" has the blocks, "q4_k.values" their values in f32. "x" has floats, and
"x.q8_0" and "x.q4_0" are their blocks. Scales include zero, negative, subnormal and large ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, quants

ROWS = 6
HALF_SCALES = np.array([0x0001, 0x83FF, 0x0000, 0x1234, 0x9ABC, 0x3C00, 0x7BFF, 0xFBFF], np.uint16)
# Type: where its f16 fields begin in a block.
BLOCK_TYPES = {"Q8_0": (0,), "Q4_0": (0,), "Q4_K": (0, 2), "Q6_K": (208,)}


def random_blocks(name: str, rng: np.random.Generator) -> np.ndarray:
    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    blocks = rng.integers(0, 256, (ROWS, 512 // values, size), dtype=np.uint8)
    for at in BLOCK_TYPES[name]:
        sane = (rng.standard_normal((ROWS, 512 // values)) * 0.01).astype(np.float16).view(np.uint16)
        sane.reshape(-1)[: len(HALF_SCALES)] = rng.permutation(HALF_SCALES)
        blocks[:, :, at : at + 2] = sane[..., None].view(np.uint8)
    return blocks.reshape(ROWS, -1)


def floats(rng: np.random.Generator) -> np.ndarray:
    """Rows of weights, with blocks that are all zeros, all one value, tiny, huge, and ties between signs."""
    x = (rng.standard_normal((ROWS, 512)) * 0.05).astype(np.float32)
    x[0, :32] = 0
    x[0, 32:64] = 1.5
    x[0, 64:96] *= 1e-30
    x[0, 96:128] *= 1e5
    x[0, 128:160] = np.where(np.arange(32) % 2, 3.0, -3.0)
    x[0, 160:192] = np.arange(-16, 16) / 8  # halves
    return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rng = np.random.default_rng(4)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(args.out, "blocks")
    for name in BLOCK_TYPES:
        kind = GGMLQuantizationType[name]
        blocks = random_blocks(name, rng)
        writer.add_tensor(name.lower(), blocks, raw_dtype=kind)
        writer.add_tensor(name.lower() + ".values", quants.dequantize(blocks, kind))
    x = floats(rng)
    for name in ("F16", "BF16"):
        kind = GGMLQuantizationType[name]
        stored = quants.quantize(x, kind)
        writer.add_tensor(name.lower(), stored, raw_dtype=kind)
        writer.add_tensor(name.lower() + ".values", quants.dequantize(stored, kind))
    writer.add_tensor("x", x)
    for name in ("Q8_0", "Q4_0"):
        kind = GGMLQuantizationType[name]
        writer.add_tensor("x." + name.lower(), quants.quantize(x, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
