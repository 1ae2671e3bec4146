#include "serve/batch/batch_input.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace millpower::serve {
namespace {

std::unexpected<BatchError> Wrong(std::string code, std::string_view message, std::string param,
                                  const InputLine& line) {
  return std::unexpected(BatchError{std::move(code), Shortened(message, kErrorBytesMax),
                                    std::move(param), line.number});
}

// A string of a line's object. nullptr: it is not there, or something else.
const std::string* FindString(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() ? nullptr : found->get_ptr<const std::string*>();
}

}  // namespace

std::vector<InputLine> SplitLines(std::string_view file) {
  std::vector<InputLine> lines;
  for (int64_t number = 1; !file.empty(); ++number) {
    const std::string_view text = file.substr(0, file.find('\n'));
    file.remove_prefix(std::min(text.size() + 1, file.size()));
    if (text.find_first_not_of(" \t\r") != std::string_view::npos) lines.push_back({number, text});
  }
  return lines;
}

std::expected<LineRequest, BatchError> ReadLine(const InputLine& line, std::string_view endpoint) {
  const auto json = ParseJson(line.text);
  if (!json) return Wrong("invalid_json_line", json.error().message, "", line);
  if (!json->is_object())
    return Wrong("invalid_json_line", "a line must be a JSON object", "", line);
  LineRequest request;
  const std::string* custom_id = FindString(*json, "custom_id");
  if (custom_id == nullptr || custom_id->empty() || custom_id->size() > kCustomIdBytesMax)
    return Wrong(
        "invalid_custom_id",
        "`custom_id` must be a string of 1 to " + std::to_string(kCustomIdBytesMax) + " bytes",
        "custom_id", line);
  const std::string* method = FindString(*json, "method");
  if (method == nullptr || *method != "POST")
    return Wrong("invalid_method", "`method` must be \"POST\"", "method", line);
  const std::string* url = FindString(*json, "url");
  if (url == nullptr || *url != endpoint)
    return Wrong("mismatched_url",
                 "`url` must be the endpoint of the batch, \"" + std::string(endpoint) + "\"",
                 "url", line);
  const auto body = json->find("body");
  if (body == json->end() || !body->is_object())
    return Wrong("invalid_body", "`body` must be a JSON object", "body", line);
  const std::string* model = FindString(*body, "model");
  if (model == nullptr || model->empty())
    return Wrong("missing_model", "`body.model` must name a model", "body.model", line);
  if (model->size() > kModelBytesMax)
    return Wrong("model_not_found",
                 "`body.model` has over " + std::to_string(kModelBytesMax) + " bytes: no model's",
                 "body.model", line);
  const auto stream = body->find("stream");
  if (stream != body->end() && !stream->is_null() && *stream != false)
    return Wrong("stream_not_supported", "the lines of a batch can't be streamed", "body.stream",
                 line);
  return LineRequest{*custom_id, *model, DumpJson(*body)};
}

std::string Shortened(std::string_view text, size_t bytes_max) {
  size_t size = std::min(text.size(), bytes_max);
  const auto continues = [&] { return (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80; };
  // A character has at most three further bytes; what has more is no UTF-8.
  for (int i = 0; i < 3 && size > 0 && size < text.size() && continues(); ++i) --size;
  return std::string(text.substr(0, size));
}

std::vector<BatchError> CheckInput(std::string_view file, std::string_view endpoint,
                                   const ModelCheck& check_model) {
  const std::vector<InputLine> lines = SplitLines(file);
  if (lines.empty()) return {{"empty_file", "the file has no lines", "", 0}};
  if (lines.size() > kBatchLinesMax)
    return {{"too_many_lines",
             "the file has " + std::to_string(lines.size()) + " lines, and a batch at most " +
                 std::to_string(kBatchLinesMax),
             "", 0}};
  std::vector<BatchError> errors;
  std::unordered_map<std::string, int64_t> line_of;  // by custom_id
  std::unordered_map<std::string, Result<void>> models;
  for (const InputLine& line : lines) {
    if (errors.size() == kBatchErrorsMax) break;
    auto request = ReadLine(line, endpoint);
    if (!request) {
      errors.push_back(std::move(request.error()));
      continue;
    }
    const auto [first, is_new] = line_of.emplace(request->custom_id, line.number);
    if (!is_new)
      errors.push_back({"duplicate_custom_id",
                        "`custom_id` is that of line " + std::to_string(first->second) + " as well",
                        "custom_id", line.number});
    auto known = models.find(request->model);
    if (known == models.end())
      known = models.emplace(request->model, check_model(request->model)).first;
    if (!known->second)
      errors.push_back({known->second.error().code == ErrorCode::kNotFound ? "model_not_found"
                                                                           : "model_unavailable",
                        Shortened(known->second.error().message, kErrorBytesMax), "body.model",
                        line.number});
  }
  if (errors.size() > kBatchErrorsMax) errors.resize(kBatchErrorsMax);
  return errors;
}

}  // namespace millpower::serve
