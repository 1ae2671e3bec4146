// Sizes in bytes, as people write and read them.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace millpower::cli {

// "512MiB", "2GB", "1048576" -> bytes. Errors: kInvalidArgument.
Result<int64_t> ParseSize(const std::string& text);

// "6.4 MB", "1.19 GB": decimal units, three digits.
std::string FormatSize(int64_t bytes);

}  // namespace millpower::cli
