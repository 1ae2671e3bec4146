#include "text/vocabulary.h"

#include <fmt/format.h>

#include <bit>
#include <functional>

#include "base/check.h"

namespace millpower::text {

Result<void> Vocabulary::Add(int32_t id, std::string_view bytes) {
  CHECK(id >= 0 && id < size()) << id;
  Slice& slice = slices_[static_cast<size_t>(id)];
  if (slice.offset != kAbsent)
    return Fail(ErrorCode::kCorrupt, fmt::format("two tokens have the id {}", id));
  slice = {static_cast<uint32_t>(arena_.size()), static_cast<uint32_t>(bytes.size())};
  arena_.append(bytes);
  return {};
}

Result<void> Vocabulary::BuildIndex() {
  index_.assign(std::bit_ceil(slices_.size() * 2 + 1), -1);
  for (int32_t id = 0; id < size(); ++id) {
    if (!Has(id)) continue;
    const size_t slot = SlotOf(Bytes(id));
    if (index_[slot] >= 0)
      return Fail(ErrorCode::kCorrupt,
                  fmt::format("tokens {} and {} are the same bytes", index_[slot], id));
    index_[slot] = id;
  }
  return {};
}

int32_t Vocabulary::Find(std::string_view bytes) const {
  return index_.empty() ? -1 : index_[SlotOf(bytes)];
}

size_t Vocabulary::SlotOf(std::string_view bytes) const {
  const size_t mask = index_.size() - 1;
  size_t slot = std::hash<std::string_view>{}(bytes)&mask;
  while (index_[slot] >= 0 && Bytes(index_[slot]) != bytes) slot = (slot + 1) & mask;
  return slot;
}

}  // namespace millpower::text
