// The models of tensors that `serve` serves: which there are, their versions, loading and
// unloading.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/page_keeper.h"
#include "cli/tensor_loader.h"
#include "device/device.h"
#include "ranking/engine.h"
#include "serve/inference/inference_api.h"

namespace millpower::cli {

// A version of a model: number and path.
using ModelVersion = std::pair<int64_t, std::filesystem::path>;

// What is at a path that a person calls a model: one version, 1, when it is a model of tensors;
// or, as TensorFlow Serving and Triton lay them out, folders with numbers for names that hold a
// SavedModel, or a file called model.onnx, model.pt2 or model.mill. None: something else.
// Ascending.
std::vector<ModelVersion> VersionsAt(const std::filesystem::path& path);

struct RankingOptions {
  TensorLoadOptions load;
  ranking::ModelConfig config;
  std::shared_ptr<PageKeeper> table_keeper = nullptr;  // of tables that are read from files
};

// Thread-safe.
class RankingHost {
 public:
  struct Spec {
    std::string name;
    std::filesystem::path path;
  };

  // `clock` outlives it.
  RankingHost(std::shared_ptr<device::Device> device, const Clock& clock, RankingOptions options,
              std::vector<Spec> specs);

  ranking::Engine& engine() { return *engine_; }
  bool empty() const { return specs_.empty(); }

  // Loads all, one after the other. Errors: the loader's, with the path.
  Result<void> LoadAtStart();

  // For the API: what may be loaded is what was named at the start.
  serve::InferenceRepository Repository();

 private:
  struct Entry {
    Spec spec;
    std::string state = "UNAVAILABLE", reason = {};
    std::vector<int64_t> versions = {};
  };

  // In the background: what is being answered goes first.
  Result<void> Load(const Spec& spec, bool in_background);
  Result<void> LoadVersion(const std::string& name, const ModelVersion& version,
                           bool in_background);
  Result<void> Unload(const std::string& name);
  std::vector<serve::InferenceRepository::Entry> List() const;
  void SetState(const std::string& name, std::string state, std::string reason,
                std::vector<int64_t> versions = {});

  const std::shared_ptr<device::Device> device_;
  const RankingOptions options_;
  const std::unique_ptr<ranking::Engine> engine_;
  mutable std::mutex mutex_;  // of what follows
  std::vector<Entry> specs_;
};

}  // namespace millpower::cli
