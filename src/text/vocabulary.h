// Token id <-> bytes. Filled once, then read by any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millpower::text {

// Ids are below this: the largest published vocabularies have 2^18, and a pair of ids and a merge's
// rank fit one 64-bit word (bpe.cc). A hostile id therefore cannot make us allocate gigabytes.
inline constexpr int32_t kMaxVocabSize = 1 << 21;

class Vocabulary {
 public:
  // Makes room for ids below `size` <= kMaxVocabSize.
  explicit Vocabulary(int32_t size) : slices_(static_cast<size_t>(size)) {}

  // `id` in [0, size). Errors: kCorrupt when the id has a token already.
  Result<void> Add(int32_t id, std::string_view bytes);

  // Makes the tokens added so far findable. Errors: kCorrupt when two have the same bytes.
  Result<void> BuildIndex();

  // Highest id + 1.
  int32_t size() const { return static_cast<int32_t>(slices_.size()); }
  bool Has(int32_t id) const {
    return id >= 0 && id < size() && slices_[static_cast<size_t>(id)].offset != kAbsent;
  }
  // Empty for ids without a token.
  std::string_view Bytes(int32_t id) const {
    if (!Has(id)) return {};
    const Slice slice = slices_[static_cast<size_t>(id)];
    return std::string_view(arena_).substr(slice.offset, slice.size_bytes);
  }
  // -1 when no indexed token has these bytes.
  int32_t Find(std::string_view bytes) const;

 private:
  static constexpr uint32_t kAbsent = UINT32_MAX;
  struct Slice {
    uint32_t offset = kAbsent;
    uint32_t size_bytes = 0;
  };

  size_t SlotOf(std::string_view bytes) const;  // where it is, or the free slot where it would go

  std::string arena_;
  std::vector<Slice> slices_;   // [id]
  std::vector<int32_t> index_;  // open addressing; a power of two; -1 is free
};

}  // namespace millpower::text
