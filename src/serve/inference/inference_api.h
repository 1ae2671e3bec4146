// Serves the models of the ranking engine: the Open Inference Protocol under /v2, and TensorFlow
// Serving's REST API under /v1/models. See docs/ranking.md.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "base/result.h"
#include "ranking/engine.h"
#include "serve/api.h"
#include "serve/meter.h"
#include "serve/metrics.h"

namespace millpower::serve {

// What can be loaded, and how. Functions may wait; they are called in a lane of their own, one at
// a time.
struct InferenceRepository {
  struct Entry {
    std::string name, version, state, reason;  // state: "READY", "LOADING", "UNAVAILABLE"
  };
  // Null: what the engine has.
  std::function<std::vector<Entry>()> list = nullptr;
  // Returns when it is ready. `parameters`: the request's object. Null: nothing can be loaded.
  std::function<Result<void>(const std::string& name, const Json& parameters)> load = nullptr;
  // Returns when its memory is free. Null: the engine's Unload.
  std::function<Result<void>(const std::string& name)> unload = nullptr;
};

struct InferenceConfig {
  size_t body_bytes_max = 64 << 20;  // once it is unpacked
  int lanes = 2;                     // threads that read requests and write answers
  int64_t unload_timeout_ns = 30'000'000'000;
  InferenceRepository repository = {};
};

class InferenceApi {
 public:
  // Adds its routes to `api`'s, before the first request; all that is referred to outlives it.
  // `meter` may be null: nothing is billed.
  InferenceApi(Api& api, ranking::Engine& engine, Metrics& metrics, const Clock& clock,
               Meter* meter, InferenceConfig config);
  // Waits until the work of all requests has ended; no more come.
  ~InferenceApi();

  // The routes of IsOperatorPath, for the operator's port, whose key has been seen to.
  void AddOperatorRoutes(Router& router);

  // New work is refused from now on.
  void StartDraining();

  // In Prometheus' form.
  std::string MetricsText() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What the operator's port takes with the admin key: the repository, the tables of a model, and new
// rows for them. Of the path as it came.
bool IsOperatorPath(std::string_view path);
// Of these, what takes bodies as large as those of inference.
bool IsRowUpdatePath(std::string_view path);

}  // namespace millpower::serve
