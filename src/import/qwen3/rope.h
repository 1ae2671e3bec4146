// Rotary position embedding: the frequencies by which heads are rotated.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace millpower::import {

// Peng et al., "YaRN: Efficient Context Window Extension of Large Language Models", 2023: slow
// frequencies are divided by `factor`, fast ones kept, those between blended.
struct Yarn {
  double factor = 1;
  int64_t original_max_positions = 0;  // of the training before the extension
  double attention_factor = 1;         // multiplies cosines and sines
  double beta_fast = 32;               // rotations over the original context, from which on kept
  double beta_slow = 1;                // and up to which divided
  bool truncate = true;                // blend between whole dimensions
};

struct RopeConfig {
  double theta = 10000;
  std::optional<Yarn> yarn;
};

// What YaRN scales cosines and sines by, unless a config says otherwise.
double DefaultYarnAttentionFactor(double factor, double mscale = 1);

// [head_dim / 2], in float32 arithmetic step by step as transformers 5 has it
// (modeling_rope_utils.py, _compute_yarn_parameters; modeling_qwen3.py,
// compute_default_rope_parameters), so that angles at far positions agree. Powers are rounded from
// double, which torch's own float32 power may miss by one unit in the last place.
std::vector<float> InverseFrequencies(const RopeConfig& rope, int64_t head_dim);

}  // namespace millpower::import
