// Single elements of tensors that are held as bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "base/dtype.h"

namespace millpower::ranking {

template <typename T>
T ReadAs(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// Of an integer type; u64 beyond INT64_MAX wraps.
inline int64_t IntegerAt(const std::byte* bytes, DType type) {
  switch (type) {
    case DType::kI8:
      return ReadAs<int8_t>(bytes);
    case DType::kI16:
      return ReadAs<int16_t>(bytes);
    case DType::kI32:
      return ReadAs<int32_t>(bytes);
    case DType::kI64:
      return ReadAs<int64_t>(bytes);
    case DType::kU8:
      return ReadAs<uint8_t>(bytes);
    case DType::kU16:
      return ReadAs<uint16_t>(bytes);
    case DType::kU32:
      return ReadAs<uint32_t>(bytes);
    case DType::kU64:
      return static_cast<int64_t>(ReadAs<uint64_t>(bytes));
    default:
      break;
  }
  CHECK(false) << Name(type) << " is no integer";
  return 0;
}

}  // namespace millpower::ranking
