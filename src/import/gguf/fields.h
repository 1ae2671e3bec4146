// Typed access to the metadata of a GGUF file. Internal to this folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "import/gguf/format.h"

namespace millpower::import {

// Keys that are absent take the fallback, or are an error without one. Errors: kInvalidArgument,
// naming the key: missing, of another type, or a number that does not fit. The metadata, and the
// file that it points into, must outlive this and what it returns.
class GgufFields {
 public:
  explicit GgufFields(const GgufMetadata& metadata) : metadata_(metadata) {}

  bool Has(const std::string& key) const { return metadata_.contains(key); }

  // Of any integer type.
  Result<int64_t> Integer(const std::string& key, std::optional<int64_t> fallback = {}) const;
  // Of any type of number; an f32 gives the decimal that its author wrote, if it was a short one.
  Result<double> Real(const std::string& key, std::optional<double> fallback = {}) const;
  Result<bool> Bool(const std::string& key, std::optional<bool> fallback = {}) const;
  Result<std::string_view> String(const std::string& key,
                                  std::optional<std::string_view> fallback = {}) const;
  // Arrays.
  Result<std::vector<std::string_view>> Strings(const std::string& key) const;
  Result<std::vector<int64_t>> Integers(const std::string& key) const;

 private:
  // Null when absent.
  const GgufValue* Find(const std::string& key) const;

  const GgufMetadata& metadata_;
};

}  // namespace millpower::import
