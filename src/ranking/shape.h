// Shapes of a model's ports, made ready to be looked at once a request. Internal to the engine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/size.h"
#include "isa/program.h"

namespace millpower::ranking {

// A dimension of a port. Those that requests are joined along are lines in one symbol,
// coefficient * symbol + constant; others may be any Size.
struct Dimension {
  bool is_line = true;  // also a constant
  int32_t symbol = -1;  // of a line: index of the register; -1: a constant
  int64_t coefficient = 0;
  int64_t constant = 0;
  Size size;

  // With the registers' values; -1 if it overflows.
  int64_t Evaluate(const isa::Program& program, std::span<const int64_t> registers) const;
};

// Whether a launch sets this register, rather than a formula or the device.
inline bool IsFree(const isa::Register& reg) { return reg.formula.empty() && !reg.at_load; }

// Errors: kInvalidArgument: a symbol that is no free register.
Result<Dimension> MakeDimension(const Size& size, const isa::Program& program);

// The rows of a buffer, in the names of free registers. Errors: kInvalidArgument.
Result<Size> RowsOf(const isa::Buffer& buffer, const isa::Program& program);

}  // namespace millpower::ranking
