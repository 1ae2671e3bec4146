#include "import/hf/json_fields.h"

namespace millpower::import {
Result<Json> ParseJsonObject(std::string_view text) {
  TRY_ASSIGN(Json json, ParseJson(text));
  if (!json.is_object()) return Fail(ErrorCode::kInvalidArgument, "JSON is not an object");
  return json;
}

Result<std::vector<int32_t>> TokenIds(const JsonFields& fields, const char* key,
                                      int64_t vocab_size) {
  std::vector<int32_t> ids;
  const Json* value = fields.Find(key);
  if (value == nullptr) return ids;
  for (const Json& id : value->is_array() ? *value : Json::array({*value})) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(vocab_size))
      return Fail(ErrorCode::kInvalidArgument,
                  std::string(key) + " has " + DumpJson(id) + ", which is no token id below " +
                      std::to_string(vocab_size),
                  key);
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

}  // namespace millpower::import
