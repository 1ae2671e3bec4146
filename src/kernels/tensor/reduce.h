// Reductions and running sums over axes of tensors.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "base/tensor_ops.h"
#include "kernels/tensor/elements.h"
#include "kernels/tensor/nest.h"

namespace millpower::kernels {

// x and y as one launch sees them, both of rank `rank`; `dims` are x's. Along axes that are reduced
// y's stride does not count.
struct AxisTensors {
  int rank = 0;
  AxisSizes dims{};
  const std::byte* x = nullptr;
  AxisStrides x_strides{};
  std::byte* y = nullptr;
  AxisStrides y_strides{};
};

// The arithmetic is ReductionFunctions', elements counted in row-major order of the reduced axes;
// halves are widened to f32, and results rounded from f32 to them. So a result depends on the
// elements it is made from only. Immutable; any number of threads may run disjoint units. Nothing
// allocates. y overlaps x nowhere.
class ReduceKernel {
 public:
  // Bit i of `axes`: axis i is reduced. Kind and type fit (find_reduction), halves as f32 do.
  ReduceKernel(const ElementKernels& set, Reduction kind, DType type, uint32_t axes);

  int64_t Units(const AxisTensors& tensors) const;
  int64_t UnitCost(const AxisTensors& tensors) const;  // elements of x, roughly
  void Run(const AxisTensors& tensors, int64_t begin, int64_t end) const;

 private:
  struct Plan;  // reduce.cc
  int64_t ReduceLists(const Plan& plan, const AxisTensors& tensors, int64_t unit,
                      int64_t units) const;
  void ReduceList(const Plan& plan, const AxisTensors& tensors, int64_t unit) const;
  void ReduceCols(const Plan& plan, const AxisTensors& tensors, int64_t unit) const;
  void StoreResults(const std::byte* results, int64_t count, std::byte* y, int64_t stride) const;

  const ElementKernels& set_;
  const ReductionFunctions* functions_;
  DType type_;
  DType result_type_;
  uint32_t axes_;
};

// Running sums or products along one axis: y[i] = x[0] + ... + x[i], `exclusive`: up to x[i - 1],
// from 0 (1). `reverse`: from the other end. Floats accumulate in f64, each result rounded to the
// type; integers wrap. y may be x.
class CumulateKernel {
 public:
  CumulateKernel(Reduction kind, DType type, int axis, bool exclusive, bool reverse);

  int64_t Units(const AxisTensors& tensors) const;
  int64_t UnitCost(const AxisTensors& tensors) const;
  void Run(const AxisTensors& tensors, int64_t begin, int64_t end) const;

 private:
  // Lists side by side that one unit takes.
  static constexpr int64_t kCols = 64;
  struct Plan;

  DType type_;
  int axis_;
  bool is_product_, exclusive_, reverse_;
};

}  // namespace millpower::kernels
