// A loaded model on the CPU device with its engine running: what `serve` and `run` share.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "cli/loader.h"
#include "device/device.h"
#include "engine/engine.h"

namespace millpower::cli {

struct SessionOptions {
  LoadOptions load;
  std::string kernels = "auto";
  int32_t max_model_len = 0;     // 0: the model's, or less if memory is short (logged)
  int32_t max_num_seqs = 0;      // 0: the Program's
  int32_t max_batch_tokens = 0;  // 0: the Program's
  int32_t max_queue = 256;
  int64_t kv_memory_bytes = 0;  // 0: chosen from what memory is left
};

struct Session {
  Session() = default;
  Session(Session&&) = default;
  // What is replaced ends in the order of destruction, the engine before its device.
  Session& operator=(Session&& other) noexcept {
    if (this == &other) return *this;
    std::destroy_at(this);
    return *std::construct_at(this, std::move(other));
  }

  LoadedModel model;
  std::unique_ptr<device::Device> device;
  std::unique_ptr<engine::Engine> engine;  // uses the device; destroyed first
};

// Errors: those of LoadModel and StartLlmEngine; kNoCapacity with the arithmetic when memory does
// not hold the context asked for.
Result<Session> StartSession(const std::string& path, const SessionOptions& options);

}  // namespace millpower::cli
