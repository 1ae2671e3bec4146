// One lookup of a model's prologue, ready for use. Immutable; thread-safe. Internal to the engine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ranking/signature.h"

namespace millpower::ranking {

class LookupTable {
 public:
  // CheckSignature has passed the lookup; `key_type` is of its port, unless that is of strings;
  // values are given as `value_type`, i32 or i64.
  LookupTable(const Lookup& lookup, bool is_string, DType key_type, DType value_type);

  // Appends a value for each element. Errors: kInvalidArgument (a value that does not fit i32).
  Result<void> Find(std::span<const std::string_view> keys, std::vector<std::byte>& values) const;
  Result<void> Find(std::span<const std::byte> integers, std::vector<std::byte>& values) const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const { return std::hash<std::string_view>()(key); }
  };
  int64_t Missing(std::string_view key) const;
  Result<void> Append(int64_t value, std::vector<std::byte>& values) const;

  const int64_t otherwise_, buckets_, bucket_base_;
  const DType key_type_, value_type_;
  std::unordered_map<std::string, int64_t, Hash, std::equal_to<>> by_string_;
  std::unordered_map<int64_t, int64_t> by_integer_;
};

}  // namespace millpower::ranking
