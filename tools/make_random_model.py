#!/usr/bin/env python3
"""Makes a Qwen3 model with random weights at the exact published shapes, with Qwen3's real vocabulary: for measuring
speed where real weights cannot be had. Its output is noise.

  tools/make_random_model.py qwen3-0.6b /tmp/qwen3-0.6b                  a Hugging Face folder, bf16
  tools/make_random_model.py qwen3-32b /tmp/32b.gguf --format gguf --type q4_k_m
  tools/make_random_model.py qwen3-235b-a22b /tmp/235b --layers 2        with layers cut

Needs numpy and little memory. Weights are normal with the standard deviation 0.02, or in GGUF's block types random
blocks of values as wide as that, made directly; norms are 1. q4_0, q8_0 and the other types are pure: every weight but
the norms and the routers has them; q4_k_m mixes Q4_K and Q6_K as llama.cpp's type of that name does.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import math
import pathlib

import numpy as np

import gguf_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
VOCAB = ROOT / "tests/text_data/qwen3_tokenizer.json.gz"
HEAD_DIM, VOCAB_SIZE, END_OF_TEXT, END_OF_TURN = 128, 151936, 151643, 151645
MAX_POSITIONS, ROPE_THETA, EPSILON = 40960, 1_000_000.0, 1e-6
SAMPLING = {"temperature": 0.6, "top_k": 20, "top_p": 0.95}


@dataclasses.dataclass(frozen=True)
class Shape:
    """As published on huggingface.co/Qwen."""

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    tied: bool = False
    experts: int = 0  # 0: a dense model
    choices: int = 0
    expert_ffn: int = 0


SHAPES = {
    "qwen3-0.6b": Shape(1024, 3072, 28, 16, 8, tied=True),
    "qwen3-1.7b": Shape(2048, 6144, 28, 16, 8, tied=True),
    "qwen3-4b": Shape(2560, 9728, 36, 32, 8, tied=True),
    "qwen3-8b": Shape(4096, 12288, 36, 32, 8),
    "qwen3-14b": Shape(5120, 17408, 40, 40, 8),
    "qwen3-32b": Shape(5120, 25600, 64, 64, 8),
    "qwen3-30b-a3b": Shape(2048, 6144, 48, 32, 4, experts=128, choices=8, expert_ffn=768),
    "qwen3-235b-a22b": Shape(4096, 12288, 94, 64, 4, experts=128, choices=8, expert_ffn=1536),
}
# Of GGUF: llama.cpp's number of the mix of types (general.file_type).
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "q4_k": 14, "q4_k_m": 15, "q6_k": 18, "bf16": 32}

Tensors = dict[str, tuple[int, ...]]


def hugging_face_tensors(shape: Shape) -> Tensors:
    result: Tensors = {"model.embed_tokens.weight": (VOCAB_SIZE, shape.hidden)}
    q, kv = shape.heads * HEAD_DIM, shape.kv_heads * HEAD_DIM
    for i in range(shape.layers):
        layer = f"model.layers.{i}."
        attention = layer + "self_attn."
        result |= {
            layer + "input_layernorm.weight": (shape.hidden,),
            attention + "q_proj.weight": (q, shape.hidden),
            attention + "k_proj.weight": (kv, shape.hidden),
            attention + "v_proj.weight": (kv, shape.hidden),
            attention + "q_norm.weight": (HEAD_DIM,),
            attention + "k_norm.weight": (HEAD_DIM,),
            attention + "o_proj.weight": (shape.hidden, q),
            layer + "post_attention_layernorm.weight": (shape.hidden,),
        }
        mlps = [(layer + "mlp.", shape.ffn)]
        if shape.experts:
            result[layer + "mlp.gate.weight"] = (shape.experts, shape.hidden)
            mlps = [(f"{layer}mlp.experts.{e}.", shape.expert_ffn) for e in range(shape.experts)]
        for mlp, ffn in mlps:
            result |= {
                mlp + "gate_proj.weight": (ffn, shape.hidden),
                mlp + "up_proj.weight": (ffn, shape.hidden),
                mlp + "down_proj.weight": (shape.hidden, ffn),
            }
    result["model.norm.weight"] = (shape.hidden,)
    if not shape.tied:
        result["lm_head.weight"] = (VOCAB_SIZE, shape.hidden)
    return result


def gguf_tensors(shape: Shape) -> Tensors:
    result: Tensors = {"token_embd.weight": (VOCAB_SIZE, shape.hidden)}
    q, kv = shape.heads * HEAD_DIM, shape.kv_heads * HEAD_DIM
    for i in range(shape.layers):
        layer = f"blk.{i}."
        result |= {
            layer + "attn_norm.weight": (shape.hidden,),
            layer + "attn_q.weight": (q, shape.hidden),
            layer + "attn_k.weight": (kv, shape.hidden),
            layer + "attn_v.weight": (kv, shape.hidden),
            layer + "attn_q_norm.weight": (HEAD_DIM,),
            layer + "attn_k_norm.weight": (HEAD_DIM,),
            layer + "attn_output.weight": (shape.hidden, q),
            layer + "ffn_norm.weight": (shape.hidden,),
        }
        suffix, ffn, experts = "", shape.ffn, ()
        if shape.experts:
            result[layer + "ffn_gate_inp.weight"] = (shape.experts, shape.hidden)
            suffix, ffn, experts = "_exps", shape.expert_ffn, (shape.experts,)
        result |= {
            f"{layer}ffn_gate{suffix}.weight": (*experts, ffn, shape.hidden),
            f"{layer}ffn_up{suffix}.weight": (*experts, ffn, shape.hidden),
            f"{layer}ffn_down{suffix}.weight": (*experts, shape.hidden, ffn),
        }
    result["output_norm.weight"] = (shape.hidden,)
    if not shape.tied:
        result["output.weight"] = (VOCAB_SIZE, shape.hidden)
    return result


def gguf_type(name: str, dims: tuple[int, ...], kind: str, shape: Shape) -> str:
    """Of one tensor in a file of type `kind`. The mix is llama.cpp's (llama-quant.cpp, Q4_K_M)."""
    if len(dims) == 1 or "ffn_gate_inp" in name:
        return "f32"
    if kind != "q4_k_m":
        return kind
    if name == "output.weight" or (name == "token_embd.weight" and shape.tied):
        return "q6_k"
    if "attn_v." in name or "ffn_down" in name:
        layer, eighth = int(name.split(".")[1]), shape.layers // 8
        if layer < eighth or layer >= 7 * shape.layers // 8 or (layer - eighth) % 3 == 2:
            return "q6_k"
    return "q4_k"


def vocabulary(tokenizer: dict) -> dict[str, object]:
    """tokenizer.ggml.*, as llama.cpp's converter writes them: ids beyond the tokenizer's are unused padding."""
    tokens = [f"[PAD{i}]" for i in range(VOCAB_SIZE)]
    types = [5] * VOCAB_SIZE  # unused
    for text, i in tokenizer["model"]["vocab"].items():
        tokens[i], types[i] = text, 1  # normal
    for added in tokenizer["added_tokens"]:
        looks_special = added["content"].startswith("<|") and added["content"].endswith("|>")
        tokens[added["id"]], types[added["id"]] = added["content"], 3 if added["special"] or looks_special else 4
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in tokenizer["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": END_OF_TEXT,
        "tokenizer.ggml.eos_token_id": END_OF_TURN,
        "tokenizer.ggml.padding_token_id": END_OF_TEXT,
        "tokenizer.ggml.add_bos_token": False,
        # The first line is what Millpower knows the format by; the rest is for engines that run templates.
        "tokenizer.chat_template": "{#- millpower: qwen3 chat format -#}\n"
        "{%- for message in messages -%}\n"
        "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' -}}\n"
        "{%- endfor -%}\n"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}\n",
    }


def write_gguf(path: pathlib.Path, name: str, shape: Shape, kind: str, seed: int) -> None:
    arch = "qwen3moe" if shape.experts else "qwen3"
    metadata: dict[str, object] = {
        "general.architecture": arch,
        "general.type": "model",
        "general.name": name,
        "general.file_type": FILE_TYPES[kind],
        "general.quantization_version": 2,
        "general.sampling.temp": SAMPLING["temperature"],
        "general.sampling.top_k": np.int32(SAMPLING["top_k"]),
        "general.sampling.top_p": SAMPLING["top_p"],
        f"{arch}.block_count": shape.layers,
        f"{arch}.context_length": MAX_POSITIONS,
        f"{arch}.embedding_length": shape.hidden,
        f"{arch}.feed_forward_length": shape.ffn,
        f"{arch}.attention.head_count": shape.heads,
        f"{arch}.attention.head_count_kv": shape.kv_heads,
        f"{arch}.attention.key_length": HEAD_DIM,
        f"{arch}.attention.value_length": HEAD_DIM,
        f"{arch}.attention.layer_norm_rms_epsilon": EPSILON,
        f"{arch}.rope.freq_base": ROPE_THETA,
    }
    if shape.experts:
        metadata |= {
            f"{arch}.expert_count": shape.experts,
            f"{arch}.expert_used_count": shape.choices,
            f"{arch}.expert_feed_forward_length": shape.expert_ffn,
        }
    metadata |= vocabulary(json.loads(gzip.decompress(VOCAB.read_bytes())))
    rng = np.random.Generator(np.random.SFC64(seed))
    tensors = {}
    for tensor, dims in gguf_tensors(shape).items():
        tensor_type = gguf_type(tensor, dims, kind, shape)
        tensors[tensor] = (tensor_type, dims, gguf_file.random_tensor(tensor_type, dims, rng))
    gguf_file.write(path, metadata, tensors)


def write_safetensors(path: pathlib.Path, shapes: Tensors, seed: int) -> None:
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for shape in shapes.values():
            for piece in gguf_file.random_tensor("bf16", shape, rng):
                file.write(piece)


def write_folder(folder: pathlib.Path, shape: Shape, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["Qwen3MoeForCausalLM" if shape.experts else "Qwen3ForCausalLM"],
        "model_type": "qwen3_moe" if shape.experts else "qwen3", "torch_dtype": "bfloat16",
        "hidden_size": shape.hidden, "intermediate_size": shape.ffn, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "head_dim": HEAD_DIM,
        "vocab_size": VOCAB_SIZE, "tie_word_embeddings": shape.tied, "max_position_embeddings": MAX_POSITIONS,
        "rope_theta": int(ROPE_THETA), "rope_scaling": None, "rms_norm_eps": EPSILON, "hidden_act": "silu",
        "attention_bias": False, "eos_token_id": END_OF_TURN,
    }  # fmt: skip
    if shape.experts:
        config |= {
            "num_experts": shape.experts, "num_experts_per_tok": shape.choices,
            "moe_intermediate_size": shape.expert_ffn, "norm_topk_prob": True, "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }  # fmt: skip
    generation = {"do_sample": True, **SAMPLING, "eos_token_id": [END_OF_TURN, END_OF_TEXT]}
    template = {"chat_template": "{#- millpower: qwen3 chat format -#}"}
    for name, content in (
        ("config.json", config), ("generation_config.json", generation), ("tokenizer_config.json", template)
    ):  # fmt: skip
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    (folder / "tokenizer.json").write_bytes(gzip.decompress(VOCAB.read_bytes()))
    write_safetensors(folder / "model.safetensors", hugging_face_tensors(shape), seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument("path", type=pathlib.Path, help="the folder, or the GGUF file")
    parser.add_argument("--format", choices=("hf", "gguf"), default="hf")
    parser.add_argument("--type", choices=FILE_TYPES, default="bf16", help="of GGUF's weights")
    parser.add_argument("--layers", type=int, help="fewer layers than published")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    shape = SHAPES[args.model]
    if args.layers:
        shape = dataclasses.replace(shape, layers=min(args.layers, shape.layers))
    if args.format == "gguf":
        write_gguf(args.path, args.model, shape, args.type, args.seed)
    elif args.type != "bf16":
        parser.error("--type is of --format gguf")
    else:
        write_folder(args.path, shape, args.seed)


if __name__ == "__main__":
    main()
