// The sizes of a Program as polynomials in the registers that the host sets: what shape rules of
// tensors compare, so that they hold for every launch. Internal to this folder.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/size.h"
#include "isa/program.h"

namespace millpower::isa {

// The largest row count and dimension. Products of two stay far from overflow.
inline constexpr int64_t kMaxRows = int64_t{1} << 31;

class Sizes {
 public:
  // Of a Program that outlives them, whose registers' names and bounds are sound. Proves formulas
  // and that shapes are of sizes. Errors: kCorrupt, naming the register.
  static Result<Sizes> Make(const Program& program);

  const Program& program() const { return *program_; }

  Size OfDim(const Dim& dim) const {
    return dim.reg < 0 ? Size(dim.size) : registers_[static_cast<size_t>(dim.reg)];
  }
  // Of entry `index` of Program::shapes.
  std::span<const Size> OfShape(int64_t index) const { return shapes_[static_cast<size_t>(index)]; }
  // The product of them; absent when it overflows, or when they are more than a tensor has.
  const std::optional<Size>& ElementsOf(int64_t index) const {
    return elements_[static_cast<size_t>(index)];
  }

 private:
  Result<void> AddShape(const std::vector<Dim>& shape);

  const Program* program_ = nullptr;
  std::vector<Size> registers_;
  std::vector<std::vector<Size>> shapes_;
  std::vector<std::optional<Size>> elements_;
};

// Never negative, whatever the symbols, which are at least 1. May be false of some that never are.
bool IsNeverNegative(const std::optional<Size>& size);

}  // namespace millpower::isa
