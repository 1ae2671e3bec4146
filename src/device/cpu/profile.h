// Where launches' time goes, instruction by instruction.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "isa/opcodes.h"

namespace millpower::device::cpu {

// Filled by the Programs of a device that was told to (CpuOptions::profile). Safe for concurrent
// use.
class Profile {
 public:
  struct Line {
    isa::Opcode op = isa::Opcode::kEnd;
    std::string writes;  // what it writes: "scratch.3 [batch, 512]"
    int64_t runs = 0;
    // On the first thread, from when it begins to when that thread begins the next one: what it
    // does of it, and the wait for the others' parts where the next one needs them.
    int64_t ns = 0;
  };

  // The number of the first of the lines, which Add goes on from.
  size_t Declare(std::vector<Line> lines);
  // Once a launch: what each of the lines from `first` on took; 0 where it had nothing to do.
  void Add(size_t first, std::span<const int64_t> ns);

  std::vector<Line> Lines() const;  // by Program, each in the order of its instructions

 private:
  mutable std::mutex mutex_;
  std::vector<Line> lines_;
};

}  // namespace millpower::device::cpu
