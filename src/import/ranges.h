// Checks of sizes and other numbers that come from model files.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace millpower::import {

// Errors: kInvalidArgument, naming the field. NaN is in no range.
Result<void> ExpectIn(const char* field, double value, double min, double max);
Result<void> ExpectIn(const char* field, int64_t value, int64_t min, int64_t max);

}  // namespace millpower::import
