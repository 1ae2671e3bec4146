// Typed access to the fields of a JSON object that is not trusted. Internal to this folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "import/ranges.h"

namespace millpower::import {

// A null field counts as absent, as Python writes what is not set. Fields that are absent take the
// fallback, or are an error without one. Errors: kInvalidArgument, naming the field.
// The object must outlive this.
class JsonFields {
 public:
  explicit JsonFields(const Json& object) : object_(object) {}

  const Json* Find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  Result<int64_t> Integer(const char* key, std::optional<int64_t> fallback = {}) const {
    return Get<int64_t>(key, fallback, "a whole number", [](const Json& value) {
      return value.is_number_unsigned() ? value.get<uint64_t>() <= INT64_MAX
                                        : value.is_number_integer();
    });
  }
  Result<double> Real(const char* key, std::optional<double> fallback = {}) const {
    return Get<double>(key, fallback, "a number",
                       [](const Json& value) { return value.is_number(); });
  }
  Result<bool> Bool(const char* key, std::optional<bool> fallback = {}) const {
    return Get<bool>(key, fallback, "true or false",
                     [](const Json& value) { return value.is_boolean(); });
  }
  Result<std::string> String(const char* key, std::optional<std::string> fallback = {}) const {
    return Get<std::string>(key, std::move(fallback), "a string",
                            [](const Json& value) { return value.is_string(); });
  }

 private:
  template <typename T, typename Accepts>
  Result<T> Get(const char* key, std::optional<T> fallback, const char* expected,
                Accepts accepts) const {
    const Json* value = Find(key);
    if (value == nullptr && fallback) return *std::move(fallback);
    if (value == nullptr)
      return Fail(ErrorCode::kInvalidArgument, std::string(key) + " is missing", key);
    if (!accepts(*value))
      return Fail(ErrorCode::kInvalidArgument, std::string(key) + " is not " + expected, key);
    return value->get<T>();
  }

  const Json& object_;
};

// Text whose top level is an object of few fields; large_json.h is for many.
Result<Json> ParseJsonObject(std::string_view text);

// One id or a list of ids, each in [0, vocab_size); empty when absent.
Result<std::vector<int32_t>> TokenIds(const JsonFields& fields, const char* key,
                                      int64_t vocab_size);

}  // namespace millpower::import
