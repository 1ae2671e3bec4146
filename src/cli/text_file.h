// Files of text that commands write where their user says.
#pragma once

#include <string>

#include "base/result.h"

namespace millpower::cli {

// Replaces what is there. Errors: kIo.
Result<void> WriteText(const std::string& path, const std::string& text);

}  // namespace millpower::cli
