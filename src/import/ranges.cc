#include "import/ranges.h"

#include <string>

#include "base/json.h"

namespace millpower::import {
namespace {

Result<void> CheckIn(bool is_in, const char* field, const Json& value, const Json& min,
                     const Json& max) {
  if (is_in) return {};
  return Fail(ErrorCode::kInvalidArgument,
              std::string(field) + " is " + DumpJson(value) + ", not in " + DumpJson(min) + " to " +
                  DumpJson(max),
              field);
}

}  // namespace

Result<void> ExpectIn(const char* field, double value, double min, double max) {
  return CheckIn(value >= min && value <= max, field, value, min, max);
}

Result<void> ExpectIn(const char* field, int64_t value, int64_t min, int64_t max) {
  return CheckIn(value >= min && value <= max, field, value, min, max);
}

}  // namespace millpower::import
