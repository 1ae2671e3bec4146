// generation_config.json: how a model's makers want it sampled unless a request says otherwise.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millpower::import {

// Fields that the file leaves out keep these neutral values, as vLLM and the OpenAI API have them
// (transformers itself would take top_k 50, and would not sample unless do_sample is there).
struct GenerationDefaults {
  double temperature = 1;  // 0: the most likely token; do_sample false makes it 0
  double top_p = 1;
  double min_p = 0;
  int64_t top_k = 0;  // 0: all tokens
  std::vector<int32_t> eos_token_ids;
  std::optional<int64_t> max_new_tokens;
  // What the file asks for and we do not do, one line each: "repetition_penalty 1.05 is not
  // applied".
  std::vector<std::string> notes;
};

// Errors: kInvalidArgument, naming the field: not a number, outside of its range, or a token id
// outside of the vocabulary.
Result<GenerationDefaults> ParseGenerationConfig(std::string_view generation_config_json,
                                                 int64_t vocab_size);

}  // namespace millpower::import
