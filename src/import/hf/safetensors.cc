#include "import/hf/safetensors.h"

#include <algorithm>
#include <string_view>

#include "import/hf/large_json.h"

namespace millpower::import {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr const char* kMetadataKey = "__metadata__";

std::unexpected<Error> Corrupt(std::string message) {
  return Fail(ErrorCode::kCorrupt, std::move(message));
}

std::optional<DType> DTypeOf(std::string_view name) {
  if (name == "F32") return DType::kF32;
  if (name == "F16") return DType::kF16;
  if (name == "BF16") return DType::kBf16;
  return std::nullopt;
}

// A list of whole numbers >= 0.
std::optional<std::vector<int64_t>> NaturalsOf(const SortedJson& object, const char* key) {
  const auto list = object.find(key);
  if (list == object.end() || !list->is_array()) return std::nullopt;
  std::vector<int64_t> naturals;
  for (const SortedJson& item : *list) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() > INT64_MAX) return std::nullopt;
    naturals.push_back(item.get<int64_t>());
  }
  return naturals;
}

// Bytes of a tensor; absent when they do not fit in 63 bits.
std::optional<int64_t> SizeOf(const std::vector<int64_t>& shape, DType dtype) {
  int64_t size = SizeBytes(dtype);
  for (const int64_t dim : shape)
    if (__builtin_mul_overflow(size, dim, &size)) return std::nullopt;
  return size;
}

Result<SafetensorsEntry> ParseEntry(const SortedJson& json, std::span<const std::byte> data) {
  if (!json.is_object()) return Corrupt("is not an object");
  const auto dtype = json.find("dtype");
  if (dtype == json.end() || !dtype->is_string()) return Corrupt("has no dtype");
  const auto shape = NaturalsOf(json, "shape");
  if (!shape) return Corrupt("has no shape of whole numbers");
  const auto offsets = NaturalsOf(json, "data_offsets");
  if (!offsets || offsets->size() != 2) return Corrupt("has no two data_offsets");
  const auto begin = static_cast<size_t>((*offsets)[0]);
  const auto end = static_cast<size_t>((*offsets)[1]);
  if (begin > end || end > data.size())
    return Corrupt("has data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) +
                   "] in " + std::to_string(data.size()) + " bytes of data");
  SafetensorsEntry entry{dtype->get<std::string>(), DTypeOf(dtype->get<std::string>()), *shape,
                         data.subspan(begin, end - begin)};
  if (entry.dtype && SizeOf(entry.shape, *entry.dtype) != static_cast<int64_t>(end - begin))
    return Corrupt("has " + std::to_string(end - begin) + " bytes, not what its shape and " +
                   entry.dtype_name + " give");
  return entry;
}

// No byte is part of two tensors or of none, so that nothing can hide in a file.
Result<void> CheckCover(const SafetensorsTable& table, std::span<const std::byte> data) {
  std::vector<const SafetensorsTable::value_type*> in_order;
  for (const auto& item : table) in_order.push_back(&item);
  std::ranges::sort(in_order, [](const auto* a, const auto* b) {
    return std::pair(a->second.bytes.data(), a->second.bytes.size()) <
           std::pair(b->second.bytes.data(), b->second.bytes.size());
  });
  const std::byte* at = data.data();
  for (const auto* item : in_order) {
    const std::byte* begin = item->second.bytes.data();
    if (begin < at) return Corrupt("'" + item->first + "' overlaps another tensor");
    if (begin > at) return Corrupt("bytes before '" + item->first + "' belong to no tensor");
    at += item->second.bytes.size();
  }
  if (at != data.data() + data.size()) return Corrupt("bytes at the end belong to no tensor");
  return {};
}

}  // namespace

Result<SafetensorsTable> ParseSafetensors(std::span<const std::byte> file) {
  if (file.size() < kLengthBytes) return Corrupt("file is shorter than a safetensors header");
  uint64_t header_size = 0;
  for (size_t i = 0; i < kLengthBytes; ++i)
    header_size |= static_cast<uint64_t>(file[i]) << (8 * i);
  if (header_size > kMaxSafetensorsHeaderBytes)
    return Corrupt("header of " + std::to_string(header_size) +
                   " bytes is too long; is this a safetensors file?");
  if (header_size > file.size() - kLengthBytes) return Corrupt("header is truncated");
  const auto header = file.subspan(kLengthBytes, static_cast<size_t>(header_size));
  const auto data = file.subspan(kLengthBytes + header.size());
  auto json = ParseLargeObject({reinterpret_cast<const char*>(header.data()), header.size()});
  if (!json) return FailAt("header", std::move(json).error());
  SafetensorsTable table;
  for (const auto& [name, value] : json->items()) {
    if (name == kMetadataKey) continue;
    auto entry = ParseEntry(value, data);
    if (!entry) return Corrupt("tensor '" + name + "' " + entry.error().message);
    table.emplace(name, *std::move(entry));
  }
  TRY(CheckCover(table, data));
  return table;
}

}  // namespace millpower::import
