// A Program of a few equal instructions, made to be timed: what the probe measures with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "device/chip/expand.h"
#include "device/device.h"

namespace millpower::device::probe {

// Memory that weights of such Programs are bound to, one after the other and round again: much
// larger than the caches, so that what has passed through it has left them. Every value in it is a
// harmless number, whatever type it is read as.
class Pool {
 public:
  // Errors: kNoCapacity.
  static Result<Pool> Make(int64_t bytes);
  std::span<std::byte> bytes() const { return {bytes_.get(), static_cast<size_t>(size_)}; }

 private:
  std::shared_ptr<std::byte> bytes_;
  int64_t size_ = 0;
};

class SmallProgram {
 public:
  // `text`: a sound Program (CHECK), as the probe writes it. `first_byte`: where in the pool its
  // first weight lies, a multiple of 64.
  static Result<SmallProgram> Load(Device& device, const std::string& text, const Pool& pool,
                                   int64_t kv_pages = 0, int64_t first_byte = 0);

  const isa::Program& program() const { return loaded_->program(); }
  void Set(const std::string& reg, int64_t value);
  // Words of an input; those that are not given are zeros of the right number.
  std::vector<int32_t>& Input(const std::string& buffer);

  // What the instructions' time depends on.
  struct Sizes {
    std::vector<int64_t> registers;
    std::vector<std::vector<chip::QueryRun>> runs;  // by work list
  };
  Sizes sizes() const;  // of the launch as it is set
  // How long `chip` says that the instructions take, one after the other.
  Result<double> Predict(const chip::Chip& chip, const Sizes& sizes) const;

  // One launch: the seconds that the device worked on it.
  Result<double> Run();
  // What it takes besides, from before Submit until after Complete.
  Result<double> RunBeside();

 private:
  // Instructions that expand alike.
  struct Kind {
    const isa::Instruction* example = nullptr;
    double count = 0;
  };

  void FillInputs();

  std::unique_ptr<LoadedProgram> loaded_;
  std::unique_ptr<Launch> launch_;
  std::vector<Kind> kinds_;
  std::vector<WorkList> lists_;
};

}  // namespace millpower::device::probe
