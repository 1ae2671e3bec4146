#include "serve/inference/protocol.h"

#include <algorithm>
#include <charconv>

#include "base/json.h"
#include "serve/errors.h"

namespace millpower::serve {
namespace {

// The last two parts of a path, "…/versions/3": takes them off. False: another word stands there.
bool TakePair(std::string_view& path, std::string_view word, std::string_view& value) {
  const size_t last = path.rfind('/');
  if (last == std::string_view::npos) return false;
  const std::string_view before = path.substr(0, last);
  const size_t middle = before.rfind('/');
  if (middle == std::string_view::npos || before.substr(middle + 1) != word) return false;
  value = path.substr(last + 1);
  path = before.substr(0, middle);
  return true;
}

// False: a version that is no positive number.
bool TakeVersion(std::string_view& path, int64_t& version) {
  std::string_view digits;
  if (!TakePair(path, "versions", digits)) return true;
  const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), version);
  return read.ec == std::errc() && read.ptr == digits.data() + digits.size() && version > 0;
}

}  // namespace

std::optional<ModelPath> ReadModelPath(std::string_view path,
                                       std::span<const std::string_view> verbs) {
  ModelPath model;
  if (const size_t last = path.rfind('/'); last != std::string_view::npos) {
    const std::string_view verb = path.substr(last + 1);
    if (std::ranges::find(verbs, verb) != verbs.end()) {
      model.verb = verb;
      path = path.substr(0, last);
    }
  }
  if (!TakeVersion(path, model.version)) return std::nullopt;
  model.name = path;
  return model;
}

std::optional<ModelPath> ReadColonPath(std::string_view path) {
  ModelPath model;
  const size_t colon = path.rfind(':');
  if (colon != std::string_view::npos && path.find('/', colon) == std::string_view::npos) {
    model.verb = path.substr(colon + 1);
    path = path.substr(0, colon);
  }
  constexpr std::string_view kMetadata = "/metadata";
  if (model.verb.empty() && path.ends_with(kMetadata) && path.size() > kMetadata.size()) {
    model.verb = "metadata";
    path.remove_suffix(kMetadata.size());
  }
  std::string_view label;
  if (TakePair(path, "labels", label))
    model.label = label;
  else if (!TakeVersion(path, model.version))
    return std::nullopt;
  model.name = path;
  return model;
}

HttpResponse InferenceError(const Error& error, int retry_after_s) {
  HttpResponse response = ErrorResponse(error, retry_after_s);
  response.body = DumpJson({{"error", error.message}});
  return response;
}

HttpResponse InferenceError(int status, const std::string& message) {
  return {.status = status, .body = DumpJson({{"error", message}})};
}

}  // namespace millpower::serve
