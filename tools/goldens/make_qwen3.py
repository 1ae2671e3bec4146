"""Makes small Qwen3 models with random weights and odd shapes, and what Hugging Face transformers computes with them.

    python make_qwen3.py --out tests/golden

One folder per model: a Hugging Face model folder with a small byte-level tokenizer, and reference.safetensors with
prompts, logits, greedy tokens and how clear each greedy choice was. See README.md for the tensors and tolerances.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

SHORT_TOKENS, LONG_TOKENS, NEW_TOKENS_MAX = 5, 72, 200
MIN_GAP = 0.004  # smallest allowed distance between the best two logits of a greedy step
MIN_ROUTER_GAP = 2e-4  # and between the router logits of the last expert chosen and the first one not
# Added tokens of the chat format, in Qwen's order; the flag is "special".
ADDED_TOKENS = (
    ("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True), ("<tool_call>", False), ("</tool_call>", False),
    ("<tool_response>", False), ("</tool_response>", False), ("<think>", False), ("</think>", False),
)  # fmt: skip
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Enough text for the few dozen merges that fit in these vocabularies.
MERGE_TEXT = (
    "the port and the ship and the sea and the grain that the ship brings to the port in the morning",
    "there is a trade in iron and in cotton and in coffee, and it flows from the mine and the farm to the mill",
)


@dataclass(frozen=True)
class Golden:
    name: str
    style: int  # 4 or 5: which transformers generation wrote config.json
    dtype: torch.dtype  # of the stored weights; the reference always computes in float32
    shape: dict[str, object]  # arguments of Qwen3Config, or of Qwen3MoeConfig when it has num_experts
    shard_kb: int | None = None  # split the weights into files of about this size
    store_tied_head: bool = False  # store lm_head.weight beside a tied embedding, as some published files do
    fused: bool = False  # store experts as the model holds them, all in one tensor, and not as files published so far
    rope: dict[str, object] = field(default_factory=lambda: {"rope_type": "default", "rope_theta": 10_000.0})

    @property
    def model(self) -> type:
        return Qwen3MoeForCausalLM if "num_experts" in self.shape else Qwen3ForCausalLM


GOLDENS = (
    Golden(  # heads x head_dim (96) is not the hidden size (48)
        "tiny-tied", 4, torch.float32,
        dict(hidden_size=48, num_attention_heads=3, num_key_value_heads=1, head_dim=32, num_hidden_layers=2, intermediate_size=80, vocab_size=320, tie_word_embeddings=True),
    ),
    Golden(
        "tiny-untied-bf16", 5, torch.bfloat16,
        dict(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=24, num_hidden_layers=3, intermediate_size=112, vocab_size=300, tie_word_embeddings=False),
        shard_kb=120, rope={"rope_type": "default", "rope_theta": 1_000_000.0},
    ),
    Golden(
        "tiny-yarn", 4, torch.float32,
        dict(hidden_size=40, num_attention_heads=2, num_key_value_heads=2, head_dim=32, num_hidden_layers=2, intermediate_size=72, vocab_size=290, tie_word_embeddings=True),
        rope={"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64},
    ),
    Golden(
        "tiny-f16", 5, torch.float16,
        dict(hidden_size=56, num_attention_heads=6, num_key_value_heads=3, head_dim=16, num_hidden_layers=2, intermediate_size=96, vocab_size=311, tie_word_embeddings=True),
        store_tied_head=True, rope={"rope_type": "default", "rope_theta": 1_000_000.0},
    ),
    Golden(
        "tiny-bias", 4, torch.float32,
        dict(hidden_size=36, num_attention_heads=4, num_key_value_heads=2, head_dim=16, num_hidden_layers=2, intermediate_size=60, vocab_size=277, tie_word_embeddings=False, attention_bias=True, rms_norm_eps=1e-5),
    ),
    Golden(
        "tiny-moe", 4, torch.bfloat16,
        dict(hidden_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=16, num_hidden_layers=2, intermediate_size=72, vocab_size=290, tie_word_embeddings=True,
             num_experts=6, num_experts_per_tok=2, moe_intermediate_size=20, norm_topk_prob=True),
    ),
    Golden(  # layers 0 and 3 are dense
        "tiny-moe-fused", 5, torch.float32,
        dict(hidden_size=36, num_attention_heads=2, num_key_value_heads=1, head_dim=24, num_hidden_layers=4, intermediate_size=52, vocab_size=281, tie_word_embeddings=False,
             num_experts=5, num_experts_per_tok=3, moe_intermediate_size=28, norm_topk_prob=False, mlp_only_layers=[0, 3]),
        fused=True,
    ),
    Golden(  # every second layer has experts, from layer 1 on
        "tiny-moe-sparse", 5, torch.float16,
        dict(hidden_size=48, num_attention_heads=3, num_key_value_heads=3, head_dim=16, num_hidden_layers=3, intermediate_size=64, vocab_size=300, tie_word_embeddings=True,
             num_experts=8, num_experts_per_tok=8, moe_intermediate_size=16, norm_topk_prob=True, decoder_sparse_step=2),
        rope={"rope_type": "default", "rope_theta": 1_000_000.0},
    ),
)  # fmt: skip


def make_tokenizer(vocab_size: int) -> Tokenizer:
    """256 bytes, a few merges, and the chat format's tokens at the end; Qwen's pipeline."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(ADDED_TOKENS), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(MERGE_TEXT, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=special) for text, special in ADDED_TOKENS])
    assert tokenizer.get_vocab_size() == vocab_size, (tokenizer.get_vocab_size(), vocab_size)
    return tokenizer


def make_config(golden: Golden) -> Qwen3Config | Qwen3MoeConfig:
    ids = {text: golden.shape["vocab_size"] - len(ADDED_TOKENS) + i for i, (text, _) in enumerate(ADDED_TOKENS)}
    return golden.model.config_class(
        **golden.shape, rope_parameters=dict(golden.rope), max_position_embeddings=256 if golden.rope["rope_type"] == "yarn" else 512,
        bos_token_id=None, eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"], attn_implementation="eager",
        **({"experts_implementation": "eager"} if "num_experts" in golden.shape else {}),
    )  # fmt: skip


def randomise(model: Qwen3ForCausalLM, seed: int, dtype: torch.dtype) -> None:
    """Weights so wide that logits are spread, and embeddings narrower, or a token's best successor would be itself.
    Rounded to `dtype` but kept in float32; `model.to(dtype)` would round the rotary frequencies as well."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        value = 1.0 + 0.3 * noise if "norm" in name else 0.3 * noise if "embed_tokens" in name else 0.4 * noise
        parameter.copy_(value.to(dtype))


def greedy(model: Qwen3ForCausalLM, prompt: list[int], count: int) -> dict[str, torch.Tensor] | None:
    """`count` greedy tokens by recomputing the whole sequence each time, and how clear each choice was.
    None as soon as a choice is not clear."""
    ids, gaps, largest = list(prompt), [], []
    for _ in range(count):
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        best, second = logits.topk(2).values.tolist()
        if best - second < MIN_GAP:
            return None
        gaps.append(best - second)
        largest.append(logits.abs().max().item())
        ids.append(int(logits.argmax()))
    return {
        "greedy_ids": torch.tensor(ids[len(prompt) :], dtype=torch.int32),
        "top2_gap": torch.tensor(gaps, dtype=torch.float32),
        "max_abs_logit": torch.tensor(largest, dtype=torch.float32),
    }


def min_router_gap(model: Qwen3ForCausalLM, ids: list[int]) -> float:
    """How clear the choice of experts is, at its least clear; infinite where there is none."""
    choices = getattr(model.config, "num_experts_per_tok", 0)
    if choices == 0 or choices == model.config.num_experts:
        return float("inf")
    routers = model(input_ids=torch.tensor([ids]), use_cache=False, output_router_logits=True).router_logits
    best = torch.cat(routers).sort(descending=True).values
    return (best[:, choices - 1] - best[:, choices]).min().item()


def is_lively(ids: torch.Tensor) -> bool:
    """Many different tokens, and the second half is not a short loop."""
    tail = ids[len(ids) // 2 :].tolist()
    loops = any(tail[:-period] == tail[period:] for period in range(1, 40))
    return len(set(ids.tolist())) >= 40 and not loops


def reference(model: Qwen3ForCausalLM, seed: int) -> tuple[dict[str, torch.Tensor], dict[str, object]] | None:
    """The tensors of reference.safetensors, or None if a greedy choice is too close or the text is dull."""
    vocab, limit = model.config.vocab_size, model.config.max_position_embeddings
    generator = torch.Generator().manual_seed(1000 + seed)
    tensors: dict[str, torch.Tensor] = {}
    for label, length in (("short", SHORT_TOKENS), ("long", LONG_TOKENS)):
        prompt = torch.randint(0, vocab - len(ADDED_TOKENS), (length,), generator=generator)
        found = greedy(model, prompt.tolist(), min(NEW_TOKENS_MAX, limit - length))
        if found is None or not is_lively(found["greedy_ids"]):
            return None
        output = model(input_ids=prompt[None], use_cache=False, output_hidden_states=True)
        if min_router_gap(model, [*prompt.tolist(), *found["greedy_ids"].tolist()]) < MIN_ROUTER_GAP:
            return None
        tensors[f"{label}.prompt_ids"] = prompt.to(torch.int32)
        tensors |= {f"{label}.{name}": value for name, value in found.items()}
        if label == "short":
            tensors["short.logits"] = output.logits[0].contiguous()
            tensors["short.hidden"] = torch.stack([h[0] for h in output.hidden_states]).contiguous()
        else:
            tensors["long.last_logits"] = output.logits[0, -1].contiguous()
    exact = model.double()(input_ids=tensors["short.prompt_ids"][None].long(), use_cache=False).logits[0]
    model.float()
    notes = {
        "seed": seed,
        "min_top2_gap": min(tensors["short.top2_gap"].min().item(), tensors["long.top2_gap"].min().item()),
        "max_abs_logit": max(tensors["short.max_abs_logit"].max().item(), tensors["long.max_abs_logit"].max().item()),
        "max_error_f32_against_f64": (exact - tensors["short.logits"].double()).abs().max().item(),
    }
    return tensors, notes


def transformers4_config(golden: Golden, config: Qwen3Config | Qwen3MoeConfig) -> dict[str, object]:
    """config.json as transformers 4 wrote it: rope_theta, rope_scaling and torch_dtype at the top level."""
    rope = dict(golden.rope)
    theta, kind = rope.pop("rope_theta"), rope["rope_type"]
    experts = {} if "num_experts" not in golden.shape else {
        "decoder_sparse_step": config.decoder_sparse_step, "mlp_only_layers": config.mlp_only_layers,
        "moe_intermediate_size": config.moe_intermediate_size, "norm_topk_prob": config.norm_topk_prob,
        "num_experts": config.num_experts, "num_experts_per_tok": config.num_experts_per_tok, "output_router_logits": False,
    }  # fmt: skip
    return experts | {
        "architectures": [golden.model.__name__], "attention_bias": config.attention_bias, "attention_dropout": 0.0,
        "eos_token_id": config.eos_token_id, "head_dim": config.head_dim, "hidden_act": "silu", "hidden_size": config.hidden_size,
        "initializer_range": 0.02, "intermediate_size": config.intermediate_size, "max_position_embeddings": config.max_position_embeddings,
        "max_window_layers": config.num_hidden_layers, "model_type": config.model_type, "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers, "num_key_value_heads": config.num_key_value_heads, "pad_token_id": config.pad_token_id,
        "rms_norm_eps": config.rms_norm_eps, "rope_scaling": None if kind == "default" else rope, "rope_theta": theta,
        "sliding_window": None, "tie_word_embeddings": config.tie_word_embeddings, "torch_dtype": str(golden.dtype).removeprefix("torch."),
        "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False, "vocab_size": config.vocab_size,
    }  # fmt: skip


def write(golden: Golden, out: Path, chat_template: str) -> dict[str, object]:
    folder = out / golden.name
    shutil.rmtree(folder, ignore_errors=True)
    config = make_config(golden)
    for seed in range(1, 400):
        model = golden.model(config).eval()
        randomise(model, seed, golden.dtype)
        if made := reference(model, seed):
            break
    else:
        raise SystemExit(f"{golden.name}: no seed gives clear and lively greedy text")
    tensors, notes = made

    model.to(golden.dtype)
    config.dtype = golden.dtype
    model.save_pretrained(folder, max_shard_size=f"{golden.shard_kb}KB" if golden.shard_kb else "1GB")
    if golden.fused:
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    if golden.store_tied_head:
        stored = load_file(folder / "model.safetensors")
        save_file(stored | {"lm_head.weight": stored["model.embed_tokens.weight"].clone()}, folder / "model.safetensors", {"format": "pt"})
    if golden.style == 4:
        (folder / "config.json").write_text(json.dumps(transformers4_config(golden, config), indent=2) + "\n")
    settings = {"add_bos_token": False, "bos_token": None, "chat_template": chat_template, "eos_token": "<|im_end|>",
                "model_max_length": config.max_position_embeddings, "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    make_tokenizer(config.vocab_size).save(str(folder / "tokenizer.json"))
    save_file(tensors, folder / "reference.safetensors")
    notes |= {"transformers": transformers.__version__, "torch": torch.__version__}
    (folder / "reference.json").write_text(json.dumps(notes, indent=2) + "\n")

    # The folder on disk, loaded by transformers as a user would, gives the same logits.
    loaded = golden.model.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    again = loaded(input_ids=tensors["short.prompt_ids"][None].long(), use_cache=False).logits[0]
    assert torch.allclose(again, tensors["short.logits"], rtol=0, atol=1e-5), golden.name
    return notes


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="make this model alone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    chat_template = (Path(__file__).parent.parent / "demo_model" / "chat_template.jinja").read_text()
    for golden in GOLDENS:
        if args.only in (None, golden.name):
            print(golden.name, write(golden, args.out, chat_template), flush=True)


if __name__ == "__main__":
    main()
