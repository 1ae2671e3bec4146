// Mapped files whose bytes may outlive the source that opened them. Internal to the importers.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/mapped_file.h"
#include "ir/weights.h"

namespace millpower::import {

// Opened by OpenCopyOnWrite. Shared by the source and by whoever was given some of their bytes.
using SharedFiles = std::shared_ptr<std::vector<MappedFile>>;

// `bytes`, where one of the files holds them. Aligned for tables only: as they lie in the file.
inline std::optional<ir::WeightSource::Shared> ShareOf(const SharedFiles& files,
                                                       std::span<const std::byte> bytes) {
  for (const MappedFile& file : *files) {
    const std::span<std::byte> all = file.writable_bytes();
    const std::less_equal<const std::byte*> not_after;
    if (all.empty() || bytes.empty() || !not_after(all.data(), bytes.data()) ||
        !not_after(bytes.data() + bytes.size(), all.data() + all.size()))
      continue;
    const auto offset = static_cast<size_t>(bytes.data() - all.data());
    return ir::WeightSource::Shared{all.subspan(offset, bytes.size()), files};
  }
  return std::nullopt;
}

}  // namespace millpower::import
