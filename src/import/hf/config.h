// config.json of a Qwen3 model, as transformers 4 writes it (rope_theta, rope_scaling,
// torch_dtype) or transformers 5 (rope_parameters, dtype).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "import/hf/rope.h"

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
  std::vector<int32_t> eos_token_ids;  // generation ends at any of them; may be empty
};

// Absent fields take transformers' defaults, except for sizes without a sensible one, which must be
// there. YaRN's factor is used as given (as by transformers 5 and vLLM; some 4.x releases put
// max_position_embeddings / original_max_position_embeddings in its place).
// Errors: kUnsupported, by name (another architecture, quantization_config, sliding windows, an
// activation other than silu, a rope type other than default and yarn); kInvalidArgument, naming
// the field; those of Validate.
Result<Qwen3Config> ParseQwen3Config(std::string_view config_json);

// That sizes are positive and fit each other and what kernels carry (head_dim even, at most 512).
// Errors: kInvalidArgument, naming the field of config.json.
Result<void> Validate(const Qwen3Config& config);

}  // namespace millpower::import
