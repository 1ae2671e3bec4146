#include "ranking/lookup.h"

#include <farmhash.h>
#include <fmt/format.h>

#include <charconv>
#include <cstring>

#include "base/check.h"
#include "ranking/elements.h"

namespace millpower::ranking {

LookupTable::LookupTable(const Lookup& lookup, bool is_string, DType key_type, DType value_type)
    : otherwise_(lookup.otherwise),
      buckets_(lookup.buckets),
      bucket_base_(lookup.bucket_base),
      key_type_(key_type),
      value_type_(value_type) {
  for (size_t i = 0; i < lookup.keys.size(); ++i) {
    const std::string& key = lookup.keys[i];
    int64_t integer = 0;
    if (is_string) {
      by_string_[key] = lookup.values[i];
    } else {
      std::from_chars(key.data(), key.data() + key.size(), integer);
      by_integer_[integer] = lookup.values[i];
    }
  }
}

int64_t LookupTable::Missing(std::string_view key) const {
  if (buckets_ == 0) return otherwise_;
  const uint64_t bucket =
      util::Fingerprint64(key.data(), key.size()) % static_cast<uint64_t>(buckets_);
  return static_cast<int64_t>(static_cast<uint64_t>(bucket_base_) + bucket);
}

Result<void> LookupTable::Append(int64_t value, std::vector<std::byte>& values) const {
  const auto add = [&](const auto& number) {
    const auto* const bytes = reinterpret_cast<const std::byte*>(&number);
    values.insert(values.end(), bytes, bytes + sizeof number);
  };
  if (value_type_ == DType::kI64) {
    add(value);
    return {};
  }
  const auto narrow = static_cast<int32_t>(value);
  if (narrow != value)
    return Fail(ErrorCode::kInvalidArgument, "a looked-up value does not fit 32 bits");
  add(narrow);
  return {};
}

Result<void> LookupTable::Find(std::span<const std::string_view> keys,
                               std::vector<std::byte>& values) const {
  for (const std::string_view key : keys) {
    const auto found = by_string_.find(key);
    TRY(Append(found != by_string_.end() ? found->second : Missing(key), values));
  }
  return {};
}

Result<void> LookupTable::Find(std::span<const std::byte> integers,
                               std::vector<std::byte>& values) const {
  const auto size = static_cast<size_t>(SizeBytes(key_type_));
  for (size_t at = 0; at + size <= integers.size(); at += size) {
    const int64_t key = IntegerAt(integers.data() + at, key_type_);
    const auto found = by_integer_.find(key);
    const int64_t value = found != by_integer_.end() ? found->second
                          : buckets_ == 0            ? otherwise_
                                                     : Missing(fmt::format_int(key).c_str());
    TRY(Append(value, values));
  }
  return {};
}

}  // namespace millpower::ranking
