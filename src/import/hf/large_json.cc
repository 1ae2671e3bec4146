#include "import/hf/large_json.h"

#include <set>
#include <string>

namespace millpower::import {
namespace {

constexpr int kMaxDepth = 8;

}  // namespace

Result<SortedJson> ParseLargeObject(std::string_view text) {
  std::set<std::string> keys;
  std::string duplicate;
  bool too_deep = false;
  const auto inspect = [&](int depth, SortedJson::parse_event_t event, SortedJson& parsed) {
    too_deep = too_deep || depth > kMaxDepth;
    if (event == SortedJson::parse_event_t::key && depth == 1 &&
        !keys.insert(parsed.get_ref<const std::string&>()).second)
      duplicate = parsed.get_ref<const std::string&>();
    return !too_deep;  // what is too deep is not kept
  };
  try {
    SortedJson object = SortedJson::parse(text.begin(), text.end(), inspect);
    if (too_deep) return Fail(ErrorCode::kCorrupt, "JSON nests too deep");
    if (!object.is_object()) return Fail(ErrorCode::kCorrupt, "JSON is not an object");
    if (!duplicate.empty()) return Fail(ErrorCode::kCorrupt, "'" + duplicate + "' is listed twice");
    return object;
  } catch (const SortedJson::exception& error) {
    return Fail(ErrorCode::kCorrupt, std::string("malformed JSON: ") + error.what());
  }
}

}  // namespace millpower::import
