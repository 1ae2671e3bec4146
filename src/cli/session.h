// A loaded model on the CPU device with its engine running: what subcommands that generate share.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "cli/loader.h"
#include "device/chip/description.h"
#include "device/cpu/profile.h"
#include "device/device.h"
#include "device/trace.h"
#include "engine/engine.h"

namespace millpower::cli {

struct SessionOptions {
  LoadOptions load;
  std::string kernels = "auto";
  int32_t max_model_len = 0;     // 0: the model's, or less if memory is short (logged)
  int32_t max_num_seqs = 0;      // 0: the Program's
  int32_t max_batch_tokens = 0;  // 0: the Program's
  int32_t max_queue = 256;
  bool prefix_cache = true;
  int64_t kv_memory_bytes = 0;  // 0: chosen from what memory is left
  int sharers = 1;              // models that share the memory that is left
  // Loads on threads of the lowest priority, so that what runs already is not held up.
  bool in_background = false;
  // All may be null, and outlive the session.
  device::cpu::Profile* profile = nullptr;
  device::TraceFile* trace = nullptr;
  std::shared_ptr<const device::chip::Chip> chip = nullptr;  // this machine's, for modelled energy
  engine::Observer* observer = nullptr;
  engine::Hooks* hooks = nullptr;
};

struct Session {
  Session() = default;
  Session(Session&&) = default;
  Session& operator=(Session&& other) noexcept;  // the engine that was there ends first

  LoadedModel model;
  std::shared_ptr<device::Device> device;  // of several sessions, perhaps
  int64_t weights_bytes = 0;
  int64_t kv_bytes = 0;
  std::unique_ptr<engine::Engine> engine;  // uses all that is above; destroyed first
};

// The device that `options` describe. Errors: kUnsupported (kernels this machine lacks).
Result<std::shared_ptr<device::Device>> MakeDevice(const SessionOptions& options);

// Errors: those of LoadModel and StartLlmEngine; kNoCapacity with the arithmetic when memory does
// not hold the context asked for.
Result<Session> StartSession(std::shared_ptr<device::Device> device, const std::string& path,
                             const SessionOptions& options);
// On a device of its own.
Result<Session> StartSession(const std::string& path, const SessionOptions& options);

}  // namespace millpower::cli
