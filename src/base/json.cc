#include "base/json.h"

#include <algorithm>
#include <array>
#include <string>

namespace millpower {
namespace {

// Nesting and keys are counted before the parser builds anything, outside of strings.
Result<void> CheckLimits(std::string_view text) {
  std::array<int, kJsonMaxDepth + 1> keys{};  // of the object open at each depth
  int depth = 0;
  bool in_string = false;
  auto too = [](const std::string& what, int limit, size_t at) {
    return Fail(ErrorCode::kInvalidArgument,
                "JSON " + what + " " + std::to_string(limit) + " at byte " + std::to_string(at));
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kJsonMaxDepth) return too("nests deeper than", kJsonMaxDepth, i);
      keys[static_cast<size_t>(depth)] = 0;
    } else if (c == '}' || c == ']') {
      depth = std::max(depth - 1, 0);
    } else if (c == ':' && ++keys[static_cast<size_t>(depth)] > kJsonMaxKeys) {
      return too("object has more keys than", kJsonMaxKeys, i);
    }
  }
  return {};
}

}  // namespace

Result<Json> ParseJson(std::string_view text) {
  TRY(CheckLimits(text));
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
