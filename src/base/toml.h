// TOML files: toml++ behind a parser that never throws, and without what files could break in it.
#pragma once

// Some faults of a file that its errors would name (a table "[#a]", in 3.3) break its assertions
// first: builds that check them would end, and builds of clang that take them for granted could do
// anything.
#pragma push_macro("NDEBUG")
#undef NDEBUG
#define TOML_ASSERT(expression) static_cast<void>(0)
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")

#include <string>
#include <string_view>

#include "base/result.h"

namespace millpower {

// Errors: kInvalidArgument, as "FILE:LINE: what is wrong".
Result<toml::table> ParseToml(std::string_view text, const std::string& file_name);

}  // namespace millpower
