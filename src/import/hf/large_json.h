// JSON files whose objects may have many keys: base/json.h keeps objects as lists, in which every
// insertion searches all keys, so that a hostile file of a few megabytes would take hours.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/result.h"

namespace millpower::import {

using SortedJson = nlohmann::json;

// An object. Errors: kCorrupt: malformed, not an object, more than 8 levels deep, or with a key
// twice at the top (which of the two is meant?).
Result<SortedJson> ParseLargeObject(std::string_view text);

}  // namespace millpower::import
