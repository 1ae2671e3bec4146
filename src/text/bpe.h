// Byte-pair encoding: the merges of a vocabulary, applied to one word at a time. Immutable after
// construction, thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millpower::text {

inline constexpr size_t kMaxMerges = (size_t{1} << 22) - 1;  // as kMaxVocabSize: one word per pair

class Bpe {
 public:
  struct Merge {
    int32_t left, right, merged;  // token ids below kMaxVocabSize
  };

  // byte_tokens[b] is the token of byte b. Earlier merges go first; of two with the same pair the
  // later one counts. At most kMaxMerges.
  Bpe(const std::array<int32_t, 256>& byte_tokens, const std::vector<Merge>& merges);

  // Appends the tokens of `word`: starting from bytes, the earliest merge that applies anywhere is
  // applied, leftmost first, until none does. O(n log n) for a word of n bytes.
  void Encode(std::string_view word, std::vector<int32_t>& tokens) const;

 private:
  static constexpr uint32_t kNoRank = UINT32_MAX;

  uint32_t Rank(int32_t left, int32_t right) const;
  void EncodeShort(std::string_view word, std::vector<int32_t>& tokens) const;
  void EncodeLong(std::string_view word, std::vector<int32_t>& tokens) const;

  std::array<int32_t, 256> byte_tokens_;
  std::vector<uint32_t> byte_pair_ranks_;  // [256 * 256]: what every word asks first, in L2
  std::vector<uint64_t> pair_slots_;       // open addressing: left, right, rank
  int slot_shift_ = 0;                     // a hash's upper bits are its slot
  std::vector<uint64_t> filter_;  // a bit per hash: most pairs that are asked for are absent
  int filter_shift_ = 0;
  std::vector<int32_t> merged_;  // [rank]
};

}  // namespace millpower::text
