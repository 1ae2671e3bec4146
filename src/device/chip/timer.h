// How long launches of one Program take on a described chip, or on each chip of a group that runs
// it together.
//
// Every instruction is expanded into work (expand.h) for the sizes of the launch, and the work is
// played (machine.h). Instructions that are alike in all that their expansion looks at - the same
// layer again and again - are expanded once a launch, and those whose work depends on few registers
// once for each of their values: that changes no result, because expansion is a pure function.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "device/chip/description.h"
#include "device/chip/expand.h"
#include "device/chip/machine.h"
#include "device/device.h"
#include "device/launch.h"
#include "isa/program.h"

namespace millpower::device::chip {

// What an opcode's instructions took in a launch, together.
struct OpcodeTime {
  int64_t instructions = 0;
  double seconds = 0;  // from when their stream came to them until they were over
  double joules = 0;   // without what the chip takes when idle
};

struct LaunchTime {
  double seconds = 0;                       // of the chip; hosts' time is not part of it
  std::array<double, kUnitCount> busy_s{};  // of each unit
  Traffic traffic;                          // of all instructions, on one chip
  double idle_joules = 0;
  std::array<double, kUnitCount> unit_joules{};  // beyond idle
  std::array<OpcodeTime, isa::kOpcodeCount> by_opcode{};

  double Joules() const;  // of one chip
};

// Not thread-safe.
class Timer {
 public:
  // The Program is verified. `chip`: with figures settled (Chip::At).
  Timer(std::shared_ptr<const isa::Program> program, Chip chip, ExpandOptions options);

  // `registers`: all, those with a formula too (LaunchChecker). `launch`: its work lists are read,
  // and nothing else. `spans`: null, or where to append when each instruction ran.
  // Errors: kUnsupported, naming an instruction with numbers that the chip cannot compute;
  // kCorrupt, as Machine::Play.
  Result<LaunchTime> Time(std::span<const int64_t> registers, const Launch& launch,
                          std::vector<Span>* spans = nullptr);

  const isa::Program& program() const { return *program_; }
  const Chip& chip() const { return chip_; }
  // What an instruction of the last launch asked for; null for wait, post and end.
  const Work* WorkOf(isa::Stream stream, int32_t index) const;
  // Joules of one instruction beyond idle, by unit.
  std::array<double, kUnitCount> JoulesOf(const Work& work) const;

 private:
  // Instructions that expand alike.
  struct Kind {
    const isa::Instruction* example = nullptr;
    bool joins = false;                          // see ExpandOptions
    std::vector<int32_t> registers;              // what it depends on, besides work lists
    bool follows_work = false;                   // depends on work lists, too
    std::map<std::vector<int64_t>, Work> known;  // by the registers' values
    const Work* work = nullptr;                  // of this launch
    Work own;                                    // of this launch, where it is not kept
    std::array<double, kUnitCount> joules{};     // of each such instruction of this launch
  };

  void FindKinds();
  Result<void> ExpandAll(std::span<const int64_t> registers, const Launch& launch);

  std::shared_ptr<const isa::Program> program_;
  Chip chip_;
  ExpandOptions options_;
  Machine machine_;
  std::vector<Kind> kinds_;
  std::array<std::vector<int32_t>, isa::kStreamCount> kind_of_;  // -1: wait, post, end
  std::array<std::vector<const Work*>, isa::kStreamCount> works_;
  std::vector<WorkList> work_lists_;
  LaunchView view_;
  std::vector<int64_t> key_;
  std::vector<Span> own_spans_;
};

}  // namespace millpower::device::chip
