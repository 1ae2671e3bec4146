// What there is to know about a Qwen3 model, dense or with experts, whatever file it comes from.
#pragma once

#include <cstdint>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "import/qwen3/rope.h"

namespace millpower::import {

struct Qwen3Config {
  int64_t vocab_size = 0;  // rows of the embedding; the tokenizer may have fewer ids
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  // The usable context. Without YaRN: max_position_embeddings. With it: the original context times
  // the factor, as vLLM has it (transformers sets no limit): what config.json says beside YaRN may
  // be either the original or the extended context, depending on who edited the file.
  int64_t max_positions = 0;
  double rms_norm_epsilon = 1e-6;
  bool attention_bias = false;       // q, k, v and o have one
  bool tie_word_embeddings = false;  // the head is the embedding
  DType dtype = DType::kBf16;        // declared; the weight files have the last word
  RopeConfig rope;
  // Mixture of experts (qwen3_moe); experts == 0: every layer is dense.
  int64_t experts = 0;
  int64_t experts_per_token = 0;
  int64_t expert_intermediate_size = 0;
  bool normalise_experts = false;  // weights of the chosen experts are made to sum to 1
  // Layers with a plain MLP of intermediate_size among them, ascending.
  std::vector<int64_t> dense_layers;
  std::vector<int32_t> eos_token_ids;  // generation ends at any of them; may be empty
};

Result<void> Validate(const Yarn& yarn);

// With YaRN, sets max_positions to what it extends the context to. Errors: those of Validate.
Result<void> ExtendContext(Qwen3Config& config);

// That sizes are positive and fit each other and what kernels carry (head_dim even, at most 512; at
// most 1024 experts and 32 of them chosen).
// Errors: kInvalidArgument, naming the field of config.json.
Result<void> Validate(const Qwen3Config& config);

}  // namespace millpower::import
