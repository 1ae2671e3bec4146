// What a request changes about the logits of single tokens before one is drawn: penalties, biases,
// and the ends that min_tokens forbids. Kept up to date token by token, so that a step only writes
// it down. Not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"
#include "isa/sampling.h"

namespace millpower::engine {

class Adjustments {
 public:
  Adjustments() = default;
  // `ends`: ids that end the output. Those not below `vocab_size` never come up and are left out.
  Adjustments(const Request& request, std::span<const int32_t> ends, int32_t vocab_size);

  // Tokens spoken of: AppendTo writes no more rows than that.
  int32_t count() const { return static_cast<int32_t>(entries_.size()); }

  // The most that count() comes to when `generated` tokens have been added.
  int64_t CountAfter(int64_t generated, int32_t vocab_size) const;

  // A token was generated.
  void Add(int32_t token);

  // The rows (isa/sampling.h) for drawing the token after `generated` of the output; `tokens` holds
  // a token for each. With n = how often the token was generated, in float32:
  //   divide = repetition_penalty if the token is in the prompt or n > 0, else 1
  //   add = (bias - frequency_penalty * n) - (n > 0 ? presence_penalty : 0); or -infinity
  // Tokens that this would not change are left out.
  void AppendTo(int32_t generated, std::vector<int32_t>& tokens, std::vector<int32_t>& rows) const;

 private:
  struct Entry {
    int32_t token = 0;
    int32_t generated = 0;
    float bias = 0;
    bool ends = false;  // forbidden while less than min_tokens are generated
    bool seen = false;  // in the prompt or generated
  };

  Entry& EntryOf(int32_t token);

  float frequency_ = 0, presence_ = 0, repetition_ = 1;
  bool penalises_ = false;  // generated tokens matter
  int32_t min_tokens_ = 0;
  std::vector<Entry> entries_;
  std::unordered_map<int32_t, size_t> index_;  // into entries_, by token
};

}  // namespace millpower::engine
