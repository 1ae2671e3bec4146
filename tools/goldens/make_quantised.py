"""Makes tests/golden/quantised/reference.safetensors: what transformers computes in float32 with the weights that
Millpower packs as int8 (Q8_0) and int4 (Q4_0), so that all that may differ is how activations are rounded; and with
the weights as they are drawn.

    python make_quantised.py --out tests/golden/quantised

The model is too large to commit. Its weights are drawn by a generator that tests/quantised_test.cc has as well, from
integers alone, so that both give the same bits. Prints what rounding activations to int8 in groups of 32 costs here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, quants
from safetensors.torch import save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB, POSITIONS = 1024, 3072, 3, 16, 8, 64, 512, 12
DEVIATION, NORM_DEVIATION = 0.02, 0.1
GOLDEN_RATIO = 0x9E3779B97F4A7C15
# 6 of 1024 channels; of the FFN's 3072, as many of each 1024.
OUTLIERS, OUTLIER_PERIOD, OUTLIER_FACTOR = (7, 130, 311, 512, 700, 1001), 1024, 16


def fnv1a(name: str) -> int:
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def random_bits(name: str, count: int) -> np.ndarray:
    """splitmix64 (Vigna) of a counter that begins at the name's hash."""
    with np.errstate(over="ignore"):
        x = np.uint64(fnv1a(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN_RATIO)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def random_normal(name: str, count: int, deviation: float) -> np.ndarray:
    """Nearly normal: the sum of four uniform 16-bit numbers, whose deviation is sqrt(4 (2^32 - 1) / 12)."""
    bits = random_bits(name, count)
    total = sum((bits >> np.uint64(shift) & np.uint64(0xFFFF)).astype(np.int64) for shift in (0, 16, 32, 48))
    return (total - 131070).astype(np.float32) * np.float32(deviation / 37837.2)


def weights(outliers: bool) -> dict[str, np.ndarray]:
    """By Hugging Face name, before any rounding."""
    result: dict[str, np.ndarray] = {}

    def matrix(name: str, rows: int, columns: int) -> None:
        result[name] = random_normal(name, rows * columns, DEVIATION).reshape(rows, columns)

    def norm(name: str, size: int) -> None:
        result[name] = np.float32(1) + random_normal(name, size, NORM_DEVIATION)

    matrix("model.embed_tokens.weight", VOCAB, HIDDEN)
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        norm(layer + "input_layernorm.weight", HIDDEN)
        matrix(layer + "self_attn.q_proj.weight", HEADS * HEAD_DIM, HIDDEN)
        matrix(layer + "self_attn.k_proj.weight", KV_HEADS * HEAD_DIM, HIDDEN)
        matrix(layer + "self_attn.v_proj.weight", KV_HEADS * HEAD_DIM, HIDDEN)
        norm(layer + "self_attn.q_norm.weight", HEAD_DIM)
        norm(layer + "self_attn.k_norm.weight", HEAD_DIM)
        matrix(layer + "self_attn.o_proj.weight", HIDDEN, HEADS * HEAD_DIM)
        norm(layer + "post_attention_layernorm.weight", HIDDEN)
        matrix(layer + "mlp.gate_proj.weight", FFN, HIDDEN)
        matrix(layer + "mlp.up_proj.weight", FFN, HIDDEN)
        matrix(layer + "mlp.down_proj.weight", HIDDEN, FFN)
    norm("model.norm.weight", HIDDEN)
    matrix("lm_head.weight", VOCAB, HIDDEN)
    if outliers:
        for name, value in result.items():
            add_outliers(name, value)
    return result


def add_outliers(name: str, value: np.ndarray) -> None:
    """Some channels of each norm and of up_proj larger, what reads them smaller: the same function."""
    if value.ndim == 1:
        if len(value) != HEAD_DIM:  # q_norm and k_norm are not read by a matrix
            value[list(OUTLIERS)] *= OUTLIER_FACTOR
        return
    channels = [base + i for base in range(0, FFN, OUTLIER_PERIOD) for i in OUTLIERS]
    if name.endswith("up_proj.weight"):
        value[channels] *= OUTLIER_FACTOR
    if name.endswith("down_proj.weight"):
        value[:, channels] /= OUTLIER_FACTOR
    elif "o_proj" not in name and "embed_tokens" not in name:
        value[:, list(OUTLIERS)] /= OUTLIER_FACTOR


def packed(value: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    return value if value.ndim == 1 else quants.dequantize(quants.quantize(value, kind), kind)


def round_activations(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    x = inputs[0]
    groups = x.reshape(*x.shape[:-1], -1, 32)
    scale = groups.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return ((groups / scale).round() * scale).reshape(x.shape)  # fmt: skip


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = Qwen3Config(
        hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM, vocab_size=VOCAB, tie_word_embeddings=False,
        max_position_embeddings=64, rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        attn_implementation="eager", pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).eval()
    prompt = torch.from_numpy((random_bits("prompt", POSITIONS) % np.uint64(VOCAB)).astype(np.int32))
    tensors = {"prompt_ids": prompt}
    for outliers in (False, True):
        original = weights(outliers)
        if not outliers:
            model.load_state_dict({name: torch.from_numpy(value) for name, value in original.items()})
            tensors["f32.logits"] = model(input_ids=prompt[None].long(), use_cache=False).logits[0].contiguous()
        for label, kind in (("int8", GGMLQuantizationType.Q8_0), ("int4", GGMLQuantizationType.Q4_0)):
            state = {name: torch.from_numpy(packed(value, kind)) for name, value in original.items()}
            model.load_state_dict(state)
            logits = model(input_ids=prompt[None].long(), use_cache=False).logits[0]
            key = label + (".outliers" if outliers else "")
            tensors[key + ".logits"] = logits.contiguous()
            hooks = [m.register_forward_pre_hook(round_activations) for m in model.modules() if isinstance(m, torch.nn.Linear)]
            rounded = model(input_ids=prompt[None].long(), use_cache=False).logits[0]
            for hook in hooks:
                hook.remove()
            cosine = torch.nn.functional.cosine_similarity(rounded, logits, dim=-1)
            print(f"{key}: cosine {cosine.min():.6f} at the least, {cosine.mean():.6f} on average; "
                  f"largest logit {logits.abs().max():.2f}", flush=True)  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out / "reference.safetensors")


if __name__ == "__main__":
    main()
