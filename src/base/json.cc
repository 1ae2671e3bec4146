#include "base/json.h"

#include <string>

namespace millpower {
namespace {

// Depth is counted before the parser builds anything, outside of strings.
Result<void> CheckDepth(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      else if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kJsonMaxDepth)
        return Fail(ErrorCode::kInvalidArgument,
                    "JSON nests deeper than " + std::to_string(kJsonMaxDepth) +
                        " levels at byte " + std::to_string(i));
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return {};
}

}  // namespace

Result<Json> ParseJson(std::string_view text) {
  TRY(CheckDepth(text));
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const Json::parse_error& error) {
    // Its message begins with "[json.exception.parse_error.101] parse error at line 1, column 2: ".
    std::string what = error.what();
    if (const size_t end = what.find("] "); end != std::string::npos) what.erase(0, end + 2);
    return Fail(ErrorCode::kInvalidArgument, "malformed JSON: " + what);
  } catch (const Json::exception& error) {
    return Fail(ErrorCode::kInvalidArgument, std::string("malformed JSON: ") + error.what());
  }
}

std::string DumpJson(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace millpower
