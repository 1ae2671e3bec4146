// What runs a Program. The CPU device (cpu/) computes it; a timing device will tell how long it
// takes. Engines see only this.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "isa/package.h"
#include "isa/program.h"

namespace millpower::device {

// For whom a launch is, in part: one of the callers that share the device.
struct Claim {
  uint64_t caller = 0;    // the same number: the same caller, whatever the Program
  double share = 1;       // > 0, of the device's time; with is_split, of all who claim it so
  bool is_split = false;  // shared equally with all other callers whose claims are split
};

// The sizes and inputs of one launch. Reused from launch to launch, so that a step allocates
// nothing once its vectors have grown. An input's elements, [rows, cols] of the buffer's type, lie
// one after the other in 32-bit words, the last of which is filled up with zeros.
struct Launch {
  explicit Launch(const isa::Program& program)
      : registers(program.registers.size(), 0), inputs(program.buffers.size()) {}
  std::vector<int64_t> registers;  // by register; those set at load or by a formula are ignored
  std::vector<std::vector<int32_t>> inputs;  // by buffer; words of each input buffer
  std::vector<Claim> claims;                 // a caller once; none: those of a caller of its own
};

// A launch that has been checked and accepted.
using Ticket = int64_t;

struct Completion {
  int64_t device_ns = 0;  // how long the device worked on it
  // What it is modelled to have taken, in microjoules, by the description of the chip; 0 without
  // one. Idle time between launches is nobody's.
  int64_t energy_uj = 0;
};

// Whose launch goes first when several Programs want the device: the one of the lower class; within
// a class, the Program that has had the least time so far, by what its launches' callers may claim;
// a time in which it asked for nothing counts as if it had had its share. A launch that has waited
// for kAgingNs goes before all that have not.
using LaunchClass = int;
inline constexpr int kLaunchClasses = 3;
inline constexpr int64_t kAgingNs = 1'000'000'000;

// A Program with its weights, its KV pages and its scratch memory. One launch at a time may be
// between Submit and Complete; calls come from one thread at a time. Several LoadedPrograms of one
// Device may be used from several threads: their launches are all in flight, and the device's
// arbiter runs them one after the other.
class LoadedProgram {
 public:
  virtual ~LoadedProgram() = default;

  virtual const isa::Program& program() const = 0;

  // Value of a register that was set at load ("pages").
  virtual int64_t LoadRegister(int32_t reg) const = 0;

  // Checks the launch's sizes, indices and work lists against the Program's bounds (LaunchChecker),
  // copies its inputs, and hands it to the device; does not wait for it.
  // Errors: kInvalidArgument, naming the input; nothing runs then.
  virtual Result<Ticket> Submit(const Launch& launch, LaunchClass launch_class = 0) = 0;

  // Waits for a submitted launch. A device may use the waiting thread to run it, or others'.
  // Errors: kInvalidArgument, naming instruction and index, when one that was computed in the
  // launch lay outside what it indexes, and the instruction's policy is to fail; outputs mean
  // nothing then.
  virtual Result<Completion> Complete(Ticket ticket) = 0;

  // An output of the last completed launch, until the next Submit: [rows, cols] elements.
  virtual std::span<const std::byte> Output(int32_t buffer) const = 0;

  // Replaces rows of an embedding table (Form::kTable) by `bytes`: one row after the other, each as
  // the table has it (isa/layout.h); of a row named twice the last counts. Between launches, so
  // that each sees either none or all of them. All or nothing. The bytes bound to the table change:
  // who binds them to several Programs sees to it that none of these runs meanwhile. Errors:
  // kInvalidArgument (no such table, a row it has not, other than whole rows); kUnsupported when
  // the device, or the memory that was bound, cannot be written.
  virtual Result<void> UpdateRows(int32_t buffer, std::span<const int64_t> rows,
                                  std::span<const std::byte> bytes);
};

struct LoadOptions {
  int64_t kv_pages = 0;  // pages of every KV cache; >= 1 when the Program has one
  // Whether what launches work in, but for KV caches, is committed before the first one, so that
  // none waits for the system to find it memory.
  bool touch = false;
};

// Outlives what it has loaded. Load may be called, and what is loaded destroyed, at any time, from
// any thread, while other Programs go on.
class Device {
 public:
  virtual ~Device() = default;
  // The Program has been verified, and the weights have the sizes it declares.
  // Errors: kNoCapacity, with the bytes that could not be had; kInvalidArgument.
  virtual Result<std::unique_ptr<LoadedProgram>> Load(std::shared_ptr<const isa::Program> program,
                                                      isa::BoundWeights weights,
                                                      const LoadOptions& options) = 0;
};

// Bytes of one page in all KV caches of a Program together.
int64_t KvPageBytes(const isa::Program& program);

}  // namespace millpower::device
