// Models with random weights on the CPU device, and the launches that are timed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "device/chip/description.h"
#include "device/chip/expand.h"
#include "device/chip/timer.h"
#include "device/cpu/profile.h"
#include "device/device.h"

namespace millpower::truth {

// Steps of one kind.
struct StepCase {
  std::string name;  // "decode, batch 8 at 256"
  bool prefill = false;
  int64_t batch = 1;
  int64_t rows = 1;   // of each sequence
  int64_t first = 0;  // their first position
};

struct HostModelOptions {
  std::string name;                  // "qwen3-0.6b", "dlrm"
  std::optional<DType> weight_type;  // of matrices
  int threads = 1;
  int64_t max_batch = 32;
  int64_t max_rows = 512;
  int64_t max_positions = 512;
  bool profiled = false;  // whether profile() tells what each instruction took: a little slower
};

// A step, as it ran.
struct Measured {
  double seconds = 0;  // by the stopwatch, from before Submit until after Complete
  double device_s = 0;
};

class HostModel {
 public:
  static Result<std::unique_ptr<HostModel>> Load(const HostModelOptions& options);

  // What the next Run and Predict are of.
  void Set(const StepCase& step);
  Result<Measured> Run();
  // Seconds of the same step on `chip`, and what each opcode takes.
  Result<device::chip::LaunchTime> Predict(const device::chip::Chip& chip) const;
  device::cpu::Profile& profile() { return profile_; }

 private:
  Result<void> TouchPages();
  void SetLanguage(const StepCase& step);
  void SetTensors(const StepCase& step);

  HostModelOptions options_;
  bool language_ = false;
  std::shared_ptr<const isa::Program> program_;
  device::cpu::Profile profile_;  // outlives the device
  std::unique_ptr<device::Device> device_;
  std::unique_ptr<device::LoadedProgram> loaded_;
  std::unique_ptr<device::Launch> launch_;
  int64_t pages_ = 0;
  uint64_t seed_ = 1;
};

}  // namespace millpower::truth
