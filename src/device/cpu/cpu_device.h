// Runs Programs on this machine's processors: its streams in one proven order, each instruction
// spread over a team of threads by the kernels' own blocking.
//
// The device has no thread of its own beside the team's: those that wait in Complete lend theirs.
// Whoever finds the device idle runs what the arbiter (device/arbiter.h) says is next, its own
// launch or another's, until its own is done. So the launch of a Program that is alone changes no
// threads.
#pragma once

#include <cstdint>
#include <memory>

#include "device/chip/description.h"
#include "device/cpu/expert_counts.h"
#include "device/cpu/group.h"
#include "device/cpu/profile.h"
#include "device/device.h"
#include "device/host_sharing.h"
#include "device/trace.h"
#include "kernels/kernels.h"

namespace millpower::device::cpu {

struct CpuOptions {
  int threads = 1;                              // >= 1, the calling thread included
  const kernels::KernelSet* kernels = nullptr;  // null: the fastest this machine has
  // Not 0: runs the streams in another order that their semaphores allow, picked at random by this
  // seed. Results are the same; tests use it to show that.
  uint64_t order_seed = 0;
  // Floats that an instruction must touch before it is shared. Results are the same; tests set it
  // to 0 so that small models use all threads.
  int64_t serial_cost = kSerialFloats;
  // What this machine is as a chip, with figures settled (chip::Chip::At): launches then tell their
  // modelled energy, the chip's idle power for as long as they took and what their instructions
  // take beyond it. Null: they tell none.
  std::shared_ptr<const chip::Chip> chip = nullptr;
  // Issues every instruction and computes nothing, whatever `kernels` says: to measure what issuing
  // costs. Outputs are meaningless.
  bool empty_kernels = false;
  Profile* profile = nullptr;             // null: time is not taken; outlives the device
  ExpertCounts* expert_counts = nullptr;  // null: choices are not counted; outlives the device
  // Where every launch writes when each thread worked on which instruction; times from the device's
  // start. Written when a launch is completed, so that its own time has no part of it. Null: not
  // wanted; outlives the device.
  TraceFile* trace = nullptr;
  // The devices that run Programs of several ranks with this one, and which of them this is. Null:
  // the only one. Their launches must be given to all of them, each by a thread of its own: a
  // device waits for the others at every collective.
  std::shared_ptr<Group> group = nullptr;
  int rank = 0;
};

std::unique_ptr<Device> MakeCpuDevice(const CpuOptions& options);

}  // namespace millpower::device::cpu
