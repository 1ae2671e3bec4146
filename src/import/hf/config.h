// config.json of a Qwen3 model, dense (qwen3) or with experts (qwen3_moe), as transformers 4 writes
// it (rope_theta, rope_scaling, torch_dtype) or transformers 5 (rope_parameters, dtype).
#pragma once

#include <string_view>

#include "base/result.h"
#include "import/qwen3/config.h"

namespace millpower::import {

// Absent fields take transformers' defaults, except for sizes without a sensible one, which must be
// there. YaRN's factor is used as given (as by transformers 5 and vLLM; some 4.x releases put
// max_position_embeddings / original_max_position_embeddings in its place).
// Errors: kUnsupported, by name (another architecture, quantization_config, sliding windows, an
// activation other than silu, a rope type other than default and yarn); kInvalidArgument, naming
// the field; those of Validate.
Result<Qwen3Config> ParseQwen3Config(std::string_view config_json);

}  // namespace millpower::import
