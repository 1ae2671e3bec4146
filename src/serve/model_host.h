// Loads and unloads the models of a registry while the others go on answering.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "serve/models.h"

namespace millpower::serve {

// What to load, as the operator says it.
struct ModelSpec {
  std::string name, path;
  std::string weights = "auto";  // as --weights
  std::string kv = {};           // as --kv; "": the default
  int64_t kv_memory_bytes = 0;   // 0: chosen by the loader
};

// `at_start`: while nobody is being served. One load at a time. The result's name is the spec's;
// destroying its owner frees everything.
using LoadProgress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;
using ModelLoader = std::function<Result<ServedModel>(const ModelSpec& spec, bool at_start,
                                                      const LoadProgress& progress)>;

enum class ModelState {
  kLoading,
  kReady,
  kUnloading,  // not found by new requests; running ones end
  kFailed,
};
const char* Name(ModelState state);  // "loading"

struct ModelStatus {
  ModelSpec spec;
  ModelState state = ModelState::kLoading;
  std::string error = {};  // kFailed
  int64_t done_bytes = 0, total_bytes = 0;
  std::shared_ptr<const ServedModel> model = nullptr;  // kReady, kUnloading
};

// Thread-safe.
class ModelHost {
 public:
  // `registry` outlives the host. `drain_timeout_ns`: how long an unloading model's requests may
  // run on.
  ModelHost(ModelRegistry& registry, ModelLoader loader, int64_t drain_timeout_ns);
  // Cancels what runs and frees all models. The requests' own holds on models must end, or it waits
  // for ever: the services that use the registry are gone before.
  ~ModelHost();

  // Loads all, one after the other, before it returns. Errors: kInvalidArgument (two of one name);
  // the loader's, after which the host is good for nothing but to be destroyed.
  Result<void> LoadAtStart(const std::vector<ModelSpec>& specs);

  // Loads in the background, after what is loading already. False: a model of that name is there; a
  // failed one gives way.
  bool Load(ModelSpec spec);

  // Takes the model away: new requests do not find it at once; memory is freed when the running
  // ones have ended. A model that is loading goes as soon as it is loaded, a failed one is
  // forgotten. False: there is none of that name, or it is going already.
  bool Unload(const std::string& name);

  // In the order in which they were asked for.
  std::vector<ModelStatus> List() const;
  std::optional<ModelStatus> Find(const std::string& name) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millpower::serve
