// Reading the fields of JSON bodies, with errors that name the field.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>

#include "base/json.h"
#include "base/result.h"

namespace millpower::serve {

// A body that must be a JSON object. Errors: kInvalidArgument.
Result<Json> ParseBody(std::string_view body);

// Reads typed fields of one object. Absent and null fields leave `value` as it is. The first fault
// is kept, and what follows it is skipped, so that callers check once, at the end.
class FieldReader {
 public:
  // `path` precedes names in messages: "stream_options." makes "stream_options.include_usage".
  explicit FieldReader(const Json& object, std::string path = "")
      : object_(object), path_(std::move(path)) {}

  // The field unless it is absent or null.
  const Json* Find(const char* name) const;

  void Read(const char* name, bool& value);
  void Read(const char* name, std::string& value);
  // Numbers in low..high. Whole numbers may be written as 1.0.
  template <typename T>
    requires std::is_arithmetic_v<T> && (!std::is_same_v<T, bool>)
  void Read(const char* name, T& value, T low, T high) {
    const Json* field = Find(name);
    if (field == nullptr || !ok()) return;
    if constexpr (std::is_integral_v<T>) {
      int64_t number = value;
      if (ReadInteger(name, *field, number, low, high)) value = static_cast<T>(number);
    } else {
      double number = value;
      if (ReadNumber(name, *field, number, low, high)) value = static_cast<T>(number);
    }
  }

  // Keeps "`name` `what`" as the fault: Refuse("stop", "must be a string").
  void Refuse(const std::string& name, const std::string& what,
              ErrorCode code = ErrorCode::kInvalidArgument);

  // Takes over the fault of a reader of an inner object, if it has one.
  void Adopt(const FieldReader& inner) {
    if (ok()) status_ = inner.status_;
  }

  bool ok() const { return status_.has_value(); }
  const Result<void>& status() const { return status_; }

 private:
  bool ReadInteger(const char* name, const Json& field, int64_t& value, int64_t low, int64_t high);
  bool ReadNumber(const char* name, const Json& field, double& value, double low, double high);

  const Json& object_;
  const std::string path_;
  Result<void> status_;
};

}  // namespace millpower::serve
