// Where elements of operands lie, and what their indices may do. Internal to the CPU device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/dtype.h"
#include "base/tensor_ops.h"
#include "device/cpu/steps.h"
#include "device/cpu/tensor/tensor_steps.h"
#include "isa/program.h"

namespace millpower::device::cpu {

// A view's elements counted row-major. Every operand is consecutive but for matrices that are
// columns of a wider buffer.
class Places {
 public:
  explicit Places(const TensorView& view)
      : data_(view.data),
        bytes_(SizeBytes(view.dtype)),
        consecutive_(view.IsContiguous()),
        cols_(view.rank > 0 ? view.dims[static_cast<size_t>(view.rank - 1)] : 1),
        stride_(view.rank > 1 ? view.strides[static_cast<size_t>(view.rank - 2)] : cols_) {}

  // The address of element `index`; further ones follow up to the end of a row.
  std::byte* At(int64_t index) const {
    if (!consecutive_) index = index / cols_ * stride_ + index % cols_;
    return data_ + index * bytes_;
  }
  // Elements from `index` on that lie one after the other, at most `count`.
  int64_t RunFrom(int64_t index, int64_t count) const {
    return consecutive_ ? count : std::min(count, cols_ - index % cols_);
  }

 private:
  std::byte* data_;
  int64_t bytes_;
  bool consecutive_;
  int64_t cols_, stride_;
};

// Product of dims [begin, end) of a view.
inline int64_t ElementsOf(const TensorView& view, int begin, int end) {
  int64_t elements = 1;
  for (int d = begin; d < end; ++d) elements *= view.dims[static_cast<size_t>(d)];
  return elements;
}

// An index of either type.
inline int64_t LoadIndex(const std::byte* at, DType type) {
  if (type == DType::kI32) return *reinterpret_cast<const int32_t*>(at);
  return *reinterpret_cast<const int64_t*>(at);
}

// What indices outside their range do, for one instruction.
class IndexRule {
 public:
  // `target`: the operand that the instruction is told apart by.
  IndexRule(const StepContext& context, const isa::Instruction& in, int policy_attribute,
            const isa::Operand& target)
      : policy_(static_cast<IndexPolicy>(in.integer(policy_attribute))),
        name_(std::string(isa::Info(in.op).name) + " " + context.program.buffer(target).name),
        faults_(context.faults) {}

  // An index in [0, n) for `index`; -1 when there is none, or (kDefault) when it is outside.
  int64_t Resolve(int64_t index, int64_t n) const {
    if (index >= 0 && index < n) [[likely]]
      return index;
    return Outside(index, n);
  }
  void Raise(int64_t index, int64_t bound) const { faults_.Raise(name_.c_str(), index, bound); }

 private:
  int64_t Outside(int64_t index, int64_t n) const;

  const IndexPolicy policy_;
  const std::string name_;
  Faults& faults_;
};

}  // namespace millpower::device::cpu
