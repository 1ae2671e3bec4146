"""Writes GGUF files (github.com/ggml-org/ggml, docs/gguf.md), version 3, tensor by tensor, so that a file may be far
larger than memory. Needs numpy."""

from __future__ import annotations

import math
import pathlib
import struct
from collections.abc import Iterable

import numpy as np

ALIGNMENT = 32
# Name: number in the file, values of a block, bytes of a block.
TYPES = {
    "f32": (0, 1, 4), "f16": (1, 1, 2), "q4_0": (2, 32, 18), "q8_0": (8, 32, 34), "q4_k": (12, 256, 144),
    "q6_k": (14, 256, 210), "bf16": (30, 1, 2),
}  # fmt: skip
BLOCKS = 1 << 16  # made at a time
# Normal weights of this standard deviation, or blocks whose values have it.
DEVIATION = 0.02


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


# Metadata types by Python type; an int is a uint32, as all sizes of models are.
def _value(value: object) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if isinstance(value, list) and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_string, value))
    if isinstance(value, list):  # int32
        return struct.pack("<IIQ", 9, 5, len(value)) + np.asarray(value, "<i4").tobytes()
    if isinstance(value, np.uint16):
        return struct.pack("<IH", 2, value)
    if isinstance(value, np.int32):
        return struct.pack("<Ii", 5, value)
    raise TypeError(f"no metadata type for {value!r}")


def size_bytes(kind: str, shape: tuple[int, ...]) -> int:
    _, values, size = TYPES[kind]
    if shape[-1] % values:
        raise SystemExit(f"rows of {shape[-1]} values are not whole blocks of {kind} ({values} values)")
    return math.prod(shape) // values * size


def _f16(values: np.ndarray) -> np.ndarray:
    return values.astype("<f2").view(np.uint8).reshape(len(values), 2)


def random_blocks(kind: str, blocks: int, rng: np.random.Generator) -> bytes:
    """Blocks whose quants are random and whose scales give values around 0 with the deviation of weights."""
    _, _, size = TYPES[kind]
    raw = rng.bit_generator.random_raw((blocks * size + 7) // 8).view(np.uint8)[: blocks * size]
    block = raw.reshape(blocks, size)
    spread = rng.uniform(0.7, 1.3, blocks).astype(np.float32) * np.float32(DEVIATION)
    if kind == "q8_0":
        block[:, 0:2] = _f16(spread / np.float32(73.3))  # the deviation of -127..127
        quants = block[:, 2:]
        quants[quants == 0x80] = 0x81
    elif kind == "q4_0":
        sign = np.where(rng.integers(0, 2, blocks), np.float32(1), np.float32(-1))
        block[:, 0:2] = _f16(spread / np.float32(4.61) * sign)  # the deviation of 0..15
    elif kind == "q4_k":
        d = spread / np.float32(4.61 * 36.5)  # scales of 0..63
        block[:, 0:2], block[:, 2:4] = _f16(d), _f16(d * np.float32(7.5))
        block[:, 8:12] = block[:, 4:8]  # minima as the scales: the mean is 0
        low = block[:, 12:16] & 15
        block[:, 12:16] = low | low << 4
    elif kind == "q6_k":
        block[:, 208:210] = _f16(spread / np.float32(18.5 * 73.9))
    return block.tobytes()


def random_floats(kind: str, count: int, rng: np.random.Generator) -> bytes:
    values = rng.standard_normal(count, np.float32) * np.float32(DEVIATION)
    return as_floats(kind, values)


def as_floats(kind: str, values: np.ndarray) -> bytes:
    if kind == "bf16":
        return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype("<f2" if kind == "f16" else "<f4").tobytes()


def random_tensor(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Iterable[bytes]:
    """The bytes of a weight in pieces; a norm's weight (one dimension) is 1."""
    left = math.prod(shape)
    if len(shape) == 1:
        yield as_floats(kind, np.ones(left, np.float32))
        return
    _, values, _ = TYPES[kind]
    while left > 0:
        count = min(left, BLOCKS * 256)
        yield random_blocks(kind, count // values, rng) if values > 1 else random_floats(kind, count, rng)
        left -= count


def write(
    path: pathlib.Path, metadata: dict[str, object], tensors: dict[str, tuple[str, tuple[int, ...], Iterable[bytes]]]
) -> None:
    """`tensors`: name to type, shape (outermost first, as numpy has it) and the pieces of its bytes."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += _string(key) + _value(value)
    offset = 0
    for name, (kind, shape, _) in tensors.items():
        head += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), TYPES[kind][0], offset)
        offset += -(-size_bytes(kind, shape) // ALIGNMENT) * ALIGNMENT
    with path.open("wb") as file:
        file.write(head + bytes(-len(head) % ALIGNMENT))
        for kind, shape, pieces in tensors.values():
            written = sum(file.write(piece) for piece in pieces)
            assert written == size_bytes(kind, shape), (written, kind, shape)
            file.write(bytes(-written % ALIGNMENT))
