// The `sample` instruction on the CPU: one row of logits to one record (isa/sampling.h).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "isa/sampling.h"
#include "kernels/kernels.h"

namespace millpower::device::cpu {

// What requests change about single tokens (isa/sampling.h): rows of all sequences, of which each
// takes the part that its params name.
struct Adjustments {
  std::span<const int32_t> tokens;
  const int32_t* rows = nullptr;  // [tokens.size(), kSampleAdjustmentWords]
  int64_t stride = isa::kSampleAdjustmentWords;
};

// Keeps scratch memory for rows of up to `vocab_size_max` logits; one per thread.
class Sampler {
 public:
  Sampler(const kernels::KernelSet& kernels, int64_t vocab_size_max);

  // Temperature divides the logits; then top_k, top_p (of what top_k left) and min_p each keep a
  // beginning of the tokens sorted by likelihood (ties: the lower id first), and one of those that
  // all three keep is drawn with probability proportional to its own. Uses exactly one draw,
  // (seed, counter). Any parameter and any logits are safe; NaN logits are never drawn unless all
  // are NaN. Adjusted logits are drawn from, but a token that they forbid never is, unless all are
  // forbidden, which counts as no adjustment; logprobs are told of the logits as they were.
  void Run(std::span<const float> logits, const int32_t* params, const Adjustments& adjustments,
           int32_t* record);

 private:
  struct Candidate {
    float logit;
    int32_t token;
  };
  // The logits to draw from: `logits` themselves where nothing is adjusted.
  std::span<const float> Adjust(std::span<const float> logits, const int32_t* params,
                                const Adjustments& adjustments);
  // Fills candidates_ with the `count` most likely tokens, most likely first.
  void TakeTop(std::span<const float> logits, int64_t count);
  int32_t Draw(std::span<const float> logits, const int32_t* params, float max);
  int32_t DrawFromAll(std::span<const float> logits, float max, float inverse_temperature,
                      float uniform);
  // How many of the sorted candidates top_p and min_p keep, and their weights_. `all_mass`: of all
  // that top_p refers to, when that is more than the candidates. 0 when it takes more candidates
  // to tell, unless they are `complete`.
  size_t KeptCount(const int32_t* params, float max, float inverse_temperature,
                   std::optional<double> all_mass, bool complete);
  void WriteLogprobs(std::span<const float> logits, int alternatives, float max, int32_t* record);

  const kernels::KernelSet& kernels_;
  std::vector<Candidate> candidates_;
  std::vector<float> adjusted_;
  std::vector<double> weights_;  // of the candidates, relative to the most likely token
};

}  // namespace millpower::device::cpu
