// The metadata of a GGUF file (llama.cpp's gguf-py/gguf/constants.py names the keys) as the config
// of a Qwen3 model.
#pragma once

#include "base/result.h"
#include "import/gguf/fields.h"
#include "import/qwen3/config.h"
#include "ir/weights.h"

namespace millpower::import {

// Architectures qwen3 and qwen3moe. What the metadata leaves out takes llama.cpp's defaults
// (llama-model.cpp); the vocabulary is as large as the embedding, whether the head is tied and
// whether attention has biases is seen from the tensors, and the chosen experts' weights are
// normalised, as llama.cpp does for qwen3moe. eos_token_ids stay empty: gguf/tokenizer.h.
// Errors: kUnsupported, by name (another architecture, a RoPE scaling other than none and yarn,
// keys and values of different sizes); kInvalidArgument, naming the key; those of Validate;
// kNotFound without token_embd.weight.
Result<Qwen3Config> ParseGgufConfig(const GgufFields& metadata, const ir::WeightSource& weights);

}  // namespace millpower::import
