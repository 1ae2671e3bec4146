// JSON at the edges: nlohmann::json behind a parser that never throws and bounds what it builds.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/result.h"

namespace millpower {

// Objects keep the order of their keys: tool definitions are rendered into prompts as they came.
using Json = nlohmann::ordered_json;

inline constexpr int kJsonMaxDepth = 128;
// Keeping keys in order costs a search of the whole object for each: objects are kept small.
inline constexpr int kJsonMaxKeys = 1024;

// Strict RFC 8259: valid UTF-8, no comments, no trailing text, at most kJsonMaxDepth levels
// and kJsonMaxKeys keys in an object; the last of two equal keys wins. Errors: kInvalidArgument
// with the byte offset of the fault.
Result<Json> ParseJson(std::string_view text);

// One line of JSON. Invalid UTF-8 in strings is replaced by U+FFFD rather than thrown about.
std::string DumpJson(const Json& value);

}  // namespace millpower
