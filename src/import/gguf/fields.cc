#include "import/gguf/fields.h"

#include <array>
#include <charconv>
#include <cstring>

namespace millpower::import {
namespace {

std::unexpected<Error> Misfit(const std::string& key, const char* what) {
  return Fail(ErrorCode::kInvalidArgument, key + " is " + what, key);
}

template <typename T>
T Read(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

// One whole number; absent for other types and what does not fit.
std::optional<int64_t> IntegerAt(GgufType type, const std::byte* at) {
  switch (type) {
    case GgufType::kU8:
      return Read<uint8_t>(at);
    case GgufType::kI8:
      return Read<int8_t>(at);
    case GgufType::kU16:
      return Read<uint16_t>(at);
    case GgufType::kI16:
      return Read<int16_t>(at);
    case GgufType::kU32:
      return Read<uint32_t>(at);
    case GgufType::kI32:
      return Read<int32_t>(at);
    case GgufType::kI64:
      return Read<int64_t>(at);
    case GgufType::kU64:
      if (const auto value = Read<uint64_t>(at); value <= INT64_MAX)
        return static_cast<int64_t>(value);
      return std::nullopt;
    default:
      return std::nullopt;
  }
}

// The double nearest to the shortest decimal that is this float: 0.6f was a 0.6.
double Decimal(float value) {
  std::array<char, 32> text;
  const auto end = std::to_chars(text.begin(), text.end(), value).ptr;
  double decimal = value;
  std::from_chars(text.begin(), end, decimal);
  return decimal;
}

std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

const GgufValue* GgufFields::Find(const std::string& key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

Result<int64_t> GgufFields::Integer(const std::string& key, std::optional<int64_t> fallback) const {
  const GgufValue* value = Find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr) return Misfit(key, "missing");
  const auto number = IntegerAt(value->type, value->bytes.data());
  if (!number) return Misfit(key, "not a whole number");
  return *number;
}

Result<double> GgufFields::Real(const std::string& key, std::optional<double> fallback) const {
  const GgufValue* value = Find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr) return Misfit(key, "missing");
  if (value->type == GgufType::kF32) return Decimal(Read<float>(value->bytes.data()));
  if (value->type == GgufType::kF64) return Read<double>(value->bytes.data());
  const auto number = IntegerAt(value->type, value->bytes.data());
  if (!number) return Misfit(key, "not a number");
  return static_cast<double>(*number);
}

Result<bool> GgufFields::Bool(const std::string& key, std::optional<bool> fallback) const {
  const GgufValue* value = Find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr) return Misfit(key, "missing");
  if (value->type != GgufType::kBool) return Misfit(key, "not true or false");
  return Read<uint8_t>(value->bytes.data()) != 0;
}

Result<std::string_view> GgufFields::String(const std::string& key,
                                            std::optional<std::string_view> fallback) const {
  const GgufValue* value = Find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr) return Misfit(key, "missing");
  if (value->type != GgufType::kString) return Misfit(key, "not a string");
  return Text(value->bytes);
}

Result<std::vector<std::string_view>> GgufFields::Strings(const std::string& key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Misfit(key, "missing");
  if (value->type != GgufType::kArray || value->item_type != GgufType::kString)
    return Misfit(key, "not an array of strings");
  std::vector<std::string_view> strings;
  strings.reserve(value->items);
  for (auto left = value->bytes; !left.empty();) {
    const auto size = Read<uint64_t>(left.data());
    strings.push_back(Text(left.subspan(sizeof(size), size)));
    left = left.subspan(sizeof(size) + size);
  }
  return strings;
}

Result<std::vector<int64_t>> GgufFields::Integers(const std::string& key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Misfit(key, "missing");
  if (value->type != GgufType::kArray) return Misfit(key, "not an array of whole numbers");
  std::vector<int64_t> numbers;
  numbers.reserve(value->items);
  const size_t size = value->items == 0 ? 0 : value->bytes.size() / value->items;
  for (uint64_t i = 0; i < value->items; ++i) {
    const auto number = IntegerAt(value->item_type, value->bytes.data() + i * size);
    if (!number) return Misfit(key, "not an array of whole numbers");
    numbers.push_back(*number);
  }
  return numbers;
}

}  // namespace millpower::import
