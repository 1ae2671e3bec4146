#include "engine/adjustments.h"

#include <algorithm>
#include <limits>

namespace millpower::engine {

Adjustments::Adjustments(const Request& request, std::span<const int32_t> ends, int32_t vocab_size)
    : frequency_(request.sampling.frequency_penalty),
      presence_(request.sampling.presence_penalty),
      repetition_(request.sampling.repetition_penalty),
      penalises_(frequency_ != 0 || presence_ != 0 || repetition_ != 1),
      min_tokens_(request.sampling.min_tokens) {
  for (const TokenBias& bias : request.sampling.logit_bias) EntryOf(bias.token).bias = bias.bias;
  if (min_tokens_ > 0)
    for (const int32_t token : ends)
      if (token >= 0 && token < vocab_size) EntryOf(token).ends = true;
  if (repetition_ != 1)
    for (const int32_t token : request.prompt) EntryOf(token).seen = true;
}

int64_t Adjustments::CountAfter(int64_t generated, int32_t vocab_size) const {
  return std::min<int64_t>(vocab_size, count() + (penalises_ ? generated : 0));
}

void Adjustments::Add(int32_t token) {
  if (!penalises_) return;
  Entry& entry = EntryOf(token);
  ++entry.generated;
  entry.seen = true;
}

void Adjustments::AppendTo(int32_t generated, std::vector<int32_t>& tokens,
                           std::vector<int32_t>& rows) const {
  for (const Entry& entry : entries_) {
    const float divide = entry.seen ? repetition_ : 1.0f;
    float add = entry.bias - frequency_ * static_cast<float>(entry.generated);
    if (entry.generated > 0) add -= presence_;
    if (entry.ends && generated < min_tokens_) add = -std::numeric_limits<float>::infinity();
    if (divide == 1 && add == 0) continue;
    tokens.push_back(entry.token);
    rows.push_back(isa::WordOf(divide));
    rows.push_back(isa::WordOf(add));
  }
}

Adjustments::Entry& Adjustments::EntryOf(int32_t token) {
  const auto [found, is_new] = index_.try_emplace(token, entries_.size());
  if (is_new)
    entries_.push_back({.token = token, .generated = 0, .bias = 0, .ends = false, .seen = false});
  return entries_[found->second];
}

}  // namespace millpower::engine
