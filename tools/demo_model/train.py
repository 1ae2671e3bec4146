"""Trains the demo model on the CPU and saves it as a Hugging Face folder.

    python train.py --data /tmp/demo --out models/demo         # about half an hour on two free cores

A conversation is rendered with our own chat template. The loss covers its answers only: the last one follows an empty
prefilled reasoning block (enable_thinking=false) or starts with a short one (thinking on). Earlier answers carry no
block in Qwen3's format, so their first token has no loss: that is where the model decides whether to reason.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

HERE = Path(__file__).parent
# Qwen's added tokens that the chat format needs, in Qwen's order; the flag is "special" (hidden when decoding).
ADDED_TOKENS = (
    ("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True), ("<tool_call>", False), ("</tool_call>", False),
    ("<tool_response>", False), ("</tool_response>", False), ("<think>", False), ("</think>", False),
)  # fmt: skip
# Qwen's split: contractions, words with one leading mark, single digits, marks, line ends, spaces.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
IGNORED = -100
LENGTHS = (32, 48, 64, 80, 96, 128, 192, 256, 384, 768)  # sequence lengths of batches; longer conversations are dropped

Example = tuple[array, list[tuple[int, int]]]  # token ids (16 bit), and the spans [begin, end) that carry a loss


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE with the same pipeline as Qwen's; added tokens come after the learned ones."""
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
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=special) for text, special in ADDED_TOKENS])
    return tokenizer


class ChatFormat:
    """Our chat template, rendered as transformers renders it."""

    def __init__(self) -> None:
        self.text = (HERE / "chat_template.jinja").read_text()
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        self.template = environment.from_string(self.text)

    def prompt(self, messages: list[dict[str, str]], thinking: bool) -> str:
        return self.template.render(messages=messages, tools=None, add_generation_prompt=True, enable_thinking=thinking)


def encode_examples(rows: list[dict], tokenizer: Tokenizer, chat: ChatFormat, longest: int) -> list[Example]:
    """Prompts and last answers are encoded apart; both sides of that border are whole tokens."""
    prompts, targets = [], []
    for row in rows:
        messages, thought = row["messages"], row["thought"]
        prompts.append(chat.prompt(messages[:-1], thinking=bool(thought)))
        block = f"<think>\n{thought}\n</think>\n\n" if thought else ""
        targets.append(f"{block}{messages[-1]['content']}<|im_end|>")
    end = tokenizer.token_to_id("<|im_end|>")
    opening = tokenizer.encode("<|im_start|>assistant\n").ids
    examples = []
    for prompt, target in zip(tokenizer.encode_batch(prompts), tokenizer.encode_batch(targets), strict=True):
        ids, spans = prompt.ids + target.ids, [(len(prompt.ids), len(prompt.ids) + len(target.ids))]
        if len(ids) > longest:
            continue
        for i in range(len(prompt.ids) - len(opening)):
            if ids[i] == opening[0] and ids[i : i + len(opening)] == opening and end in prompt.ids[i:]:
                spans.append((i + len(opening) + 1, ids.index(end, i) + 1))
        examples.append((array("H", ids), spans))
    return examples


def make_batches(examples: list[Example], tokens: int, rng: random.Random) -> list[tuple[int, list[Example]]]:
    """(length, conversations) of few different shapes: the CPU's matrix library builds its code anew for each shape.
    Right padding needs no attention mask under causality."""
    buckets: dict[int, list[Example]] = {length: [] for length in LENGTHS}
    for example in examples:
        buckets[next(length for length in LENGTHS if len(example[0]) <= length)].append(example)
    batches = []
    for length, bucket in buckets.items():
        size = tokens // length
        rng.shuffle(bucket)
        for start in range(0, len(bucket), size):
            batch = bucket[start : start + size]
            batches.append((length, batch + rng.choices(bucket, k=size - len(batch))))
    rng.shuffle(batches)
    return batches


def to_tensors(length: int, batch: list[Example], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids [batch, length]; flat positions that carry a loss, padded to a multiple of 512; what each should predict."""
    inputs = torch.full((len(batch), length), pad)
    positions: list[int] = []
    targets: list[int] = []
    for row, (ids, spans) in enumerate(batch):
        inputs[row, : len(ids)] = torch.tensor(ids.tolist())
        for begin, end in spans:
            positions += range(row * length + begin - 1, row * length + end - 1)
            targets += ids[begin:end]
    short = -len(positions) % 512
    return inputs, torch.tensor(positions + [0] * short), torch.tensor(targets + [IGNORED] * short)


def save(model: Qwen3ForCausalLM, tokenizer: Tokenizer, chat: ChatFormat, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    end, text_end = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    half = Qwen3ForCausalLM(model.config).to(torch.bfloat16)
    half.load_state_dict({name: value.to(torch.bfloat16) for name, value in model.state_dict().items()})
    half.generation_config = GenerationConfig(
        do_sample=True, temperature=0.4, top_p=0.9, top_k=20, eos_token_id=[end, text_end], pad_token_id=text_end, max_new_tokens=256
    )
    half.config.use_cache = True
    half.save_pretrained(out)
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        "add_bos_token": False, "add_prefix_space": False, "bos_token": None, "chat_template": chat.text,
        "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
        "model_max_length": model.config.max_position_embeddings, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    }  # fmt: skip
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder written by generate.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vocab", type=int, default=3072)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--start", type=Path, help="continue from this model folder: its tokenizer and weights")
    parser.add_argument("--minutes", type=float, default=math.inf, help="let the rate decay to its end in this time at the latest")
    parser.add_argument("--save-every-s", type=float, default=300)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)

    rows = [json.loads(line) for line in (args.data / "train.jsonl").open()]
    if args.start:
        tokenizer = Tokenizer.from_file(str(args.start / "tokenizer.json"))
    else:
        texts = (text for row in rows[:40_000] for text in (row["thought"], *(m["content"] for m in row["messages"])))
        tokenizer = train_tokenizer(texts, args.vocab)
    chat = ChatFormat()
    examples = encode_examples(rows, tokenizer, chat, LENGTHS[-1])
    del rows
    batches = make_batches(examples, args.batch_tokens, random.Random(args.seed))
    total = sum(len(ids) for ids, _ in examples)
    print(f"{len(examples)} conversations, {total / 1e6:.1f} M tokens, {len(batches)} steps", flush=True)

    end, pad = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    config = Qwen3Config(
        vocab_size=args.vocab, hidden_size=192, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=2, head_dim=32,
        intermediate_size=576, max_position_embeddings=2048, rope_theta=10_000.0, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=end, pad_token_id=pad, use_cache=False,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    model = Qwen3ForCausalLM(config)
    if args.start:
        model.load_state_dict(Qwen3ForCausalLM.from_pretrained(args.start, dtype=torch.float32).state_dict())
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)

    # Muon for the matrices inside the layers learns from fewer tokens than AdamW; AdamW for the rest.
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    outer = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(inner, lr=args.rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=args.rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    warmup = max(1, len(batches) // 40)
    body = torch.compile(model.model, dynamic=True)
    started = saved = time.monotonic()
    seen, mean_loss = 0, 0.0
    for step, (length, batch) in enumerate(batches):
        minutes = (time.monotonic() - started) / 60
        if minutes >= args.minutes:
            break
        progress = max(0.0, (step - warmup) / max(1, len(batches) - warmup), minutes / args.minutes)
        rate = args.rate * min((step + 1) / warmup, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        inputs, positions, targets = to_tensors(length, batch, pad)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = body(input_ids=inputs, use_cache=False).last_hidden_state
            logits = model.lm_head(hidden.flatten(0, 1)[positions])  # only where there is a loss
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        seen += inputs.numel()
        mean_loss += (loss.item() - mean_loss) * (0.02 if step else 1.0)
        now = time.monotonic()
        if step % 25 == 0 or step + 1 == len(batches):
            left_min = (now - started) / (step + 1) * (len(batches) - step - 1) / 60
            print(f"step {step}/{len(batches)} loss {mean_loss:.4f} rate {rate:.2e} {seen / (now - started):.0f} tok/s, {left_min:.0f} min left", flush=True)
        if now - saved > args.save_every_s:
            save(model, tokenizer, chat, args.out)
            saved = now
    save(model, tokenizer, chat, args.out)
    print(f"{step + 1} steps, {seen / 1e6:.1f} M tokens, {(time.monotonic() - started) / 60:.1f} min", flush=True)


if __name__ == "__main__":
    main()
