// Expressions (base/expression.h) over tensors. Work goes tile by tile: each term is one loop over
// a tile, from tile to tile in scratch memory that stays in the first-level cache.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/expression.h"
#include "kernels/tensor/elements.h"
#include "kernels/tensor/nest.h"

namespace millpower::kernels {

// The tensors of one map, as one launch sees them: all of the result's rank and shape, an operand's
// strides 0 along the axes it is broadcast over.
struct MapTensors {
  int rank = 0;
  AxisSizes dims{};
  std::byte* y = nullptr;
  AxisStrides y_strides{};
  std::array<const std::byte*, kMaxMapOperands> x{};
  std::array<AxisStrides, kMaxMapOperands> x_strides{};
};

// An expression made ready. An element's value depends on its operands' elements and coordinates
// only, never on where tiles or ranges begin. Immutable; Run may be called by any number of threads
// for disjoint ranges. y may lie where an operand does that is not broadcast, has the same strides
// and elements of the same size; it must not overlap others.
class MapKernel {
 public:
  // Elements of a tile: 2 KiB of f32.
  static constexpr int64_t kTile = 512;

  // `expression` has passed Expression::Decode, with operands of the terms' types.
  MapKernel(const ElementKernels& set, const Expression& expression);

  // Elements [begin, end) of the result in row-major order. `sizes`: entry i is what kSize i gives.
  // Allocates nothing; takes up to 300 KB of stack, of which only what the terms need is touched.
  void Run(const MapTensors& tensors, std::span<const int64_t> sizes, int64_t begin,
           int64_t end) const;

  // About how long an element takes, in loads of a float from near memory.
  int64_t ElementCost() const { return element_cost_; }

 private:
  enum class Kind : uint8_t { kOperand, kIndex, kConstant, kSize, kComputed };

  struct Value {
    Kind kind = Kind::kComputed;
    DType type = DType::kF32;             // as the graph has it
    TermFunction function = nullptr;      // of kComputed
    TermFunction round = nullptr;         // afterwards, in place
    int16_t arguments[3] = {-1, -1, -1};  // values
    int source = -1;                      // of kOperand, kIndex: tensor of the nest
    int64_t immediate = 0;                // of kConstant, kSize
    int64_t at = 0;                       // of its tile in the scratch
    int64_t stored_at = 0;                // of operands in halves: of the tile as stored
  };
  struct Tiles;  // map.cc: the state of a Run

  void AddValue(const ElementKernels& set, const Expression& expression, const Term& term,
                std::vector<int16_t>& value_of);
  void PlaceTiles();
  int64_t Reserve(int64_t element_bytes);
  void Fill(const Value& value, std::span<const int64_t> sizes, int64_t count,
            std::byte* tile) const;
  const std::byte* Load(const Value& value, Tiles& tiles, int64_t count) const;
  void Compute(const Value& value, Tiles& tiles, std::byte* result, int64_t count) const;
  void StoreResult(Tiles& tiles, const std::byte* result, int64_t count) const;

  const ElementKernels& set_;
  std::vector<Value> values_;  // in order; the last is the result
  std::vector<int> operands_;  // source 1 + i of the nest is this operand
  std::vector<int> axes_;      // and these indices come after them
  int64_t scratch_bytes_ = 0;
  int64_t element_cost_ = 0;
};

}  // namespace millpower::kernels
