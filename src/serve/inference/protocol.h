// What the inference APIs have in common: from a body to a request of the ranking engine, and from
// its answer to a response.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ranking/engine.h"
#include "serve/exchange.h"
#include "serve/inference/tensors.h"

namespace millpower::serve {

struct InferenceCall {
  ranking::Request request;
  int64_t timeout_us = 0;  // after which it need not begin; 0: none
  int64_t priority = 0;    // 1: above others; 2 and more: below; 0: as all
  std::function<HttpResponse(const ranking::Answer&)> reply;
};

// Which model a path is about: "name", "name/versions/3", "name/labels/stable", and what follows.
struct ModelPath {
  std::string name;
  int64_t version = 0;  // 0: not said
  std::string label;
  std::string verb;  // what comes last: "infer", "predict"; empty: nothing
};
// KServe's, "name[/versions/3][/verb]": of the verbs given. nullopt: a version that is no number.
std::optional<ModelPath> ReadModelPath(std::string_view path,
                                       std::span<const std::string_view> verbs);
// TensorFlow Serving's, "name[/versions/3|/labels/stable][:verb]".
std::optional<ModelPath> ReadColonPath(std::string_view path);

// An error in the form of both APIs, {"error": "..."}.
HttpResponse InferenceError(const Error& error, int retry_after_s = 1);
HttpResponse InferenceError(int status, const std::string& message);

}  // namespace millpower::serve
