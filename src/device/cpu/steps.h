// Instructions made ready to run: buffers are pointers, attributes are numbers. Internal.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "device/cpu/expert_counts.h"
#include "device/cpu/group.h"
#include "device/cpu/sampler.h"
#include "device/host_sharing.h"
#include "device/launch.h"
#include "isa/program.h"
#include "kernels/kernels.h"

namespace millpower::device::cpu {

// A few consecutive rows of one sequence.
struct RowRun {
  int64_t row = 0;
  int64_t count = 0;
  int64_t first_position = 0;
  const int32_t* pages = nullptr;  // of the sequence, from position 0
};

// A work list of the current launch, cut into runs short enough to share out.
struct WorkRuns {
  WorkList list;
  std::vector<RowRun> runs;
};

// What steps read of the launch that is running.
struct Frame {
  std::vector<int64_t> registers;
  std::vector<WorkRuns> work;  // in the order of FindWorkLists
  int64_t Rows(const isa::Dim& dim) const { return RowsOf(registers, dim); }
};

// The first thing that went wrong in a launch: an index outside its range where the instruction has
// it fail. Steps go on with an index that is inside; the launch then ends in an error.
class Faults {
 public:
  // Of any thread; the first one counts. `instruction` outlives the launch.
  void Raise(const char* instruction, int64_t index, int64_t bound) {
    if (raised_.exchange(true, std::memory_order_relaxed)) return;
    instruction_ = instruction;
    index_ = index;
    bound_ = bound;
  }
  // Between launches.
  void Clear() { raised_ = false; }
  Result<void> Check() const;  // kInvalidArgument, saying what was raised

 private:
  std::atomic<bool> raised_ = false;
  const char* instruction_ = nullptr;
  int64_t index_ = 0, bound_ = 0;
};

// What steps are made from.
struct StepContext {
  const isa::Program& program;
  const kernels::KernelSet& kernels;
  std::span<std::byte* const> buffers;  // by buffer
  std::span<const WorkList> work_lists;
  std::span<std::unique_ptr<Sampler>> samplers;  // by thread
  Faults& faults;
  int threads = 1;
  bool weights_stay_cached = false;  // host_sharing.h
  Group* group = nullptr;            // of the ranks that run the Program; only collectives need it
  int rank = 0;
  ExpertCounts* expert_counts = nullptr;  // null: nobody counts
  // isa::BoundWeights::before_read; null or empty when nobody wants to know.
  const std::function<void(std::span<const std::byte* const>, int64_t)>* before_read = nullptr;
};

// One instruction of a loaded Program. Its work is a number of independent units, which threads
// take in ranges; results do not depend on how.
class Step {
 public:
  virtual ~Step() = default;
  virtual int64_t Units(const Frame& frame) const = 0;
  // Units [begin, end), on thread `member`.
  virtual void Run(const Frame& frame, int64_t begin, int64_t end, int member) const = 0;
  // The least units worth handing to a thread at a time.
  virtual int64_t Grain() const { return 1; }
  // Ranges that a thread's share is cut into (shares.h), so that one thread that is slow, or has
  // more to do, does not hold up all.
  virtual int RangesPerThread() const { return 8; }
  // Floats touched per unit, roughly: steps with little to do stay on one thread.
  virtual int64_t UnitCost(const Frame& frame) const = 0;
};

// `instruction` is not wait, post or end.
std::unique_ptr<Step> MakeStep(const StepContext& context, const isa::Instruction& instruction);

}  // namespace millpower::device::cpu
