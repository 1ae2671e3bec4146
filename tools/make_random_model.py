#!/usr/bin/env python3
"""Makes a Qwen3 model folder with random bf16 weights at the exact published shapes, with Qwen3's
real vocabulary: for measuring speed where real weights cannot be had. Its output is noise.

  tools/make_random_model.py qwen3-0.6b /tmp/qwen3-0.6b

Needs numpy. Weights are normal with the standard deviation 0.02; norms are 1.
"""

import argparse
import gzip
import json
import pathlib

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
VOCAB = ROOT / "tests/text_data/qwen3_tokenizer.json.gz"

# Published on huggingface.co/Qwen: hidden, FFN, layers, heads, KV heads, tied embeddings.
SHAPES = {
    "qwen3-0.6b": (1024, 3072, 28, 16, 8, True),
    "qwen3-1.7b": (2048, 6144, 28, 16, 8, True),
    "qwen3-4b": (2560, 9728, 36, 32, 8, True),
    "qwen3-8b": (4096, 12288, 36, 32, 8, False),
}
HEAD_DIM, VOCAB_SIZE, END_OF_TEXT, END_OF_TURN = 128, 151936, 151643, 151645
BLOCK = 1 << 22  # random values made at a time


def tensors(shape: tuple[int, int, int, int, int, bool]) -> dict[str, tuple[int, ...]]:
    """Names and shapes, as the Hugging Face folder has them."""
    hidden, ffn, layers, heads, kv_heads, tied = shape
    result: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB_SIZE, hidden)}
    for i in range(layers):
        layer = f"model.layers.{i}."
        attention = layer + "self_attn."
        result |= {
            layer + "input_layernorm.weight": (hidden,),
            attention + "q_proj.weight": (heads * HEAD_DIM, hidden),
            attention + "k_proj.weight": (kv_heads * HEAD_DIM, hidden),
            attention + "v_proj.weight": (kv_heads * HEAD_DIM, hidden),
            attention + "q_norm.weight": (HEAD_DIM,),
            attention + "k_norm.weight": (HEAD_DIM,),
            attention + "o_proj.weight": (hidden, heads * HEAD_DIM),
            layer + "post_attention_layernorm.weight": (hidden,),
            layer + "mlp.gate_proj.weight": (ffn, hidden),
            layer + "mlp.up_proj.weight": (ffn, hidden),
            layer + "mlp.down_proj.weight": (hidden, ffn),
        }
    result["model.norm.weight"] = (hidden,)
    if not tied:
        result["lm_head.weight"] = (VOCAB_SIZE, hidden)
    return result


def write_weights(path: pathlib.Path, shapes: dict[str, tuple[int, ...]], seed: int) -> None:
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for shape in shapes.values():
            left = int(np.prod(shape))
            while left > 0:
                count = min(left, BLOCK)
                values = np.ones(count, np.float32)
                if len(shape) == 2:
                    values = rng.standard_normal(count, np.float32) * np.float32(0.02)
                file.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())
                left -= count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    hidden, ffn, layers, heads, kv_heads, tied = SHAPES[args.model]
    args.folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "torch_dtype": "bfloat16",
        "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": HEAD_DIM,
        "vocab_size": VOCAB_SIZE, "tie_word_embeddings": tied, "max_position_embeddings": 40960,
        "rope_theta": 1000000, "rope_scaling": None, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "attention_bias": False, "eos_token_id": END_OF_TURN,
    }
    generation = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95,
                  "eos_token_id": [END_OF_TURN, END_OF_TEXT]}
    template = {"chat_template": "{#- millpower: qwen3 chat format -#}"}
    for name, content in (("config.json", config), ("generation_config.json", generation),
                          ("tokenizer_config.json", template)):
        (args.folder / name).write_text(json.dumps(content, indent=2) + "\n")
    (args.folder / "tokenizer.json").write_bytes(gzip.decompress(VOCAB.read_bytes()))
    write_weights(args.folder / "model.safetensors", tensors(SHAPES[args.model]), args.seed)


if __name__ == "__main__":
    main()
