// Proof that a Program is sound: after it, execution needs no checks.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "isa/program.h"

namespace millpower::isa {

// One instruction of a stream, as it stands in a linear order of all streams.
struct Step {
  Stream stream = Stream::kCompute;
  int32_t index = 0;
  bool operator==(const Step&) const = default;
};

// Proves that
//   - every declaration is within limits and every size fits its arithmetic;
//   - every operand exists, lies inside its buffer, may be accessed as its opcode does, and fits
//     the opcode's shape rule;
//   - every index an instruction follows is an input that launches check against its bound;
//   - the streams end, cannot deadlock, and use up every count they post;
//   - no two accesses of one buffer, of which one writes, are unordered (a race, which is what a
//     missing wait leaves behind), and nothing is read from scratch before it is written.
// Errors: kCorrupt, naming the declaration or instruction and what is wrong with it.
Result<void> Verify(const Program& program);

// An order in which one processor may run all streams, found by running the semaphores: waits,
// posts and ends are left out of it. Seed 0 runs each stream as far as it gets, in turn; another
// seed picks the next stream at random among those that can go on.
// Errors: kCorrupt (deadlock, stray counts), naming the instruction.
Result<std::vector<Step>> Linearise(const Program& program, uint64_t seed = 0);

}  // namespace millpower::isa
