// Whole rows of a language model's logits, one sequence at a time: what measuring a model needs and
// serving does not. Drives the Program itself; no engine runs beside it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "device/device.h"
#include "isa/package.h"

namespace millpower::cli {

// Not thread-safe. Holds KV pages for one sequence; starting again at position 0 begins another.
// The device must outlive it.
class LogitsRunner {
 public:
  // `positions`: the longest sequence, in tokens, >= 1.
  // Errors: kUnsupported (the Program is no language model); kOutOfRange (`positions` is more than
  // it takes); those of Device::Load.
  static Result<LogitsRunner> Load(device::Device& device,
                                   std::shared_ptr<const isa::Program> program,
                                   isa::BoundWeights weights, int64_t positions);

  int64_t vocab_size() const { return vocab_size_; }
  int64_t positions() const { return positions_; }
  // The most tokens, and rows of logits, of one Run.
  int64_t max_rows() const { return max_rows_; }
  int64_t max_picked() const { return max_picked_; }

  // Computes `tokens` as positions [first_position, first_position + tokens.size()) of the
  // sequence; those before have been computed by earlier calls. Returns the logits of the last
  // `picked` of them, [picked, vocab_size], valid until the next Run. 0 <= picked <= max_picked;
  // 1 .. max_rows tokens. Errors: those of Submit (a token that is none of the vocabulary).
  Result<std::span<const float>> Run(std::span<const int32_t> tokens, int64_t first_position,
                                     int64_t picked);

 private:
  LogitsRunner(std::unique_ptr<device::LoadedProgram> loaded, int64_t positions);

  std::vector<int32_t>& Input(const char* name);
  void SetRegister(const char* name, int64_t value);

  std::unique_ptr<device::LoadedProgram> loaded_;
  int64_t vocab_size_ = 0;
  int64_t positions_ = 0;
  int64_t max_rows_ = 0;
  int64_t max_picked_ = 0;
  device::Launch launch_;
};

}  // namespace millpower::cli
