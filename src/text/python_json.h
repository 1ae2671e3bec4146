// JSON text as Python's json.dumps(value, ensure_ascii=False) writes it, which is what the `tojson`
// filter of Hugging Face chat templates does: prompts must be the same to the byte.
#pragma once

#include <string>

#include "base/json.h"

namespace millpower::text {

// "repr" of a finite double: shortest digits that read back, "1e-07", "2.5", "1e+16", "-0.0".
std::string PythonFloat(double value);

// Separators ", " and ": ", keys in order, no HTML escaping. An integer beyond 64 bits has become a
// double when it was parsed, and is written as one.
std::string PythonJson(const Json& value);

}  // namespace millpower::text
