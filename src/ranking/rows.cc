#include "ranking/rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "isa/layout.h"

namespace millpower::ranking {
namespace {

void MakeScaledRow(std::span<const float> values, DType type, std::byte* row) {
  const float limit = type == DType::kI8 ? 127.0f : 7.0f;
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  const float scale = largest / limit;
  std::memcpy(row, &scale, sizeof scale);
  row += sizeof scale;
  for (size_t i = 0; i < values.size(); ++i) {
    // A scale that rounds to 0 (subnormal values) stands for zeros.
    const float q = scale > 0 ? std::clamp(std::nearbyint(values[i] / scale), -limit, limit) : 0;
    if (type == DType::kI8) {
      row[i] = static_cast<std::byte>(static_cast<int8_t>(q));
    } else {
      const auto nibble = static_cast<uint8_t>(static_cast<int>(q) + 8);
      row[i / 2] |= static_cast<std::byte>(i % 2 == 0 ? nibble : nibble << 4);
    }
  }
}

}  // namespace

Result<std::vector<std::byte>> MakeTableRows(std::span<const float> values,
                                             std::span<const int64_t> rows, int64_t cols,
                                             DType type) {
  const auto width = static_cast<size_t>(cols);
  const auto row_bytes = static_cast<size_t>(isa::TableRowBytes(cols, type));
  std::vector<std::byte> bytes(rows.size() * row_bytes);
  const auto fits = [&](float value) {
    if (type == DType::kF16) return std::isfinite(F16ToF32(F32ToF16(value)));
    if (type == DType::kBf16) return std::isfinite(Bf16ToF32(F32ToBf16(value)));
    return std::isfinite(value);
  };
  if (const auto bad = std::ranges::find_if_not(values, fits); bad != values.end()) {
    const auto at = static_cast<size_t>(bad - values.begin());
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("row {}, column {}: {} is not finite in {}", rows[at / width],
                            at % width, *bad, Name(type)),
                "values");
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::span<const float> from = values.subspan(i * width, width);
    std::byte* const to = bytes.data() + i * row_bytes;
    if (type == DType::kI8 || type == DType::kI4) {
      MakeScaledRow(from, type, to);
    } else if (type == DType::kF32) {
      std::memcpy(to, from.data(), from.size_bytes());
    } else {
      for (size_t j = 0; j < width; ++j) {
        const uint16_t half = type == DType::kF16 ? F32ToF16(from[j]) : F32ToBf16(from[j]);
        std::memcpy(to + 2 * j, &half, sizeof half);
      }
    }
  }
  return bytes;
}

}  // namespace millpower::ranking
