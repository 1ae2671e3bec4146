#include "serve/fields.h"

#include <fmt/format.h>

#include <cmath>

namespace millpower::serve {
Result<Json> ParseBody(std::string_view body) {
  TRY_ASSIGN(Json json, ParseJson(body));
  if (!json.is_object())
    return Fail(ErrorCode::kInvalidArgument, "the request body must be a JSON object");
  return json;
}

const Json* FieldReader::Find(const char* name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void FieldReader::Refuse(const std::string& name, const std::string& what, ErrorCode code) {
  if (ok()) status_ = Fail(code, path_ + name + " " + what, path_ + name);
}

void FieldReader::Read(const char* name, bool& value) {
  const Json* field = Find(name);
  if (field == nullptr) return;
  if (field->is_boolean())
    value = field->get<bool>();
  else
    Refuse(name, "must be a boolean");
}

void FieldReader::Read(const char* name, std::string& value) {
  const Json* field = Find(name);
  if (field == nullptr) return;
  if (field->is_string())
    value = field->get_ref<const std::string&>();
  else
    Refuse(name, "must be a string");
}

bool FieldReader::ReadInteger(const char* name, const Json& field, int64_t& value, int64_t low,
                              int64_t high) {
  bool inside = false;
  if (field.is_number_unsigned()) {
    const auto number = field.get<uint64_t>();
    inside = number <= INT64_MAX && static_cast<int64_t>(number) >= low &&
             static_cast<int64_t>(number) <= high;
    if (inside) value = static_cast<int64_t>(number);
  } else if (field.is_number_integer()) {
    value = field.get<int64_t>();
    inside = value >= low && value <= high;
  } else if (field.is_number_float() && std::trunc(field.get<double>()) == field.get<double>()) {
    const double number = field.get<double>();
    // 2^63 is the first double past int64_t.
    inside = number >= static_cast<double>(low) && number < 0x1p63 &&
             static_cast<int64_t>(number) <= high;
    if (inside) value = static_cast<int64_t>(number);
  } else {
    Refuse(name, "must be an integer");
    return false;
  }
  if (!inside) Refuse(name, fmt::format("must be in {}..{}", low, high));
  return inside;
}

bool FieldReader::ReadNumber(const char* name, const Json& field, double& value, double low,
                             double high) {
  if (!field.is_number()) {
    Refuse(name, "must be a number");
    return false;
  }
  value = field.get<double>();
  if (value >= low && value <= high) return true;
  Refuse(name, fmt::format("must be in {}..{}", low, high));
  return false;
}

}  // namespace millpower::serve
