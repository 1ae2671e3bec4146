#include "device/cpu/tensor/tensor_steps.h"

#include <string>

namespace millpower::device::cpu {

Result<void> Faults::Check() const {
  if (!raised_) return {};
  return Fail(ErrorCode::kInvalidArgument, std::string(instruction_) + ": index " +
                                               std::to_string(index_) + " is not in [0, " +
                                               std::to_string(bound_) + ")");
}

int64_t TensorView::Elements() const {
  int64_t elements = 1;
  for (int i = 0; i < rank; ++i) elements *= dims[static_cast<size_t>(i)];
  return elements;
}

bool TensorView::IsContiguous() const {
  int64_t expected = 1;
  for (int i = rank - 1; i >= 0; --i) {
    const auto axis = static_cast<size_t>(i);
    if (dims[axis] != 1 && strides[axis] != expected) return false;
    expected *= dims[axis];
  }
  return true;
}

TensorOperand::TensorOperand(const StepContext& context, const isa::Operand& operand) {
  if (!operand.present()) return;
  const isa::Buffer& buffer = context.program.buffer(operand);
  dtype_ = buffer.dtype;
  data_ = context.buffers[static_cast<size_t>(operand.buffer)];
  if (operand.shape >= 0) {
    for (const isa::Dim& dim : context.program.shapes[static_cast<size_t>(operand.shape)])
      dims_[static_cast<size_t>(rank_++)] = dim;
    return;
  }
  data_ += operand.begin * SizeBytes(dtype_);
  rank_ = 2;
  dims_[0] = buffer.rows;
  dims_[1] = {-1, operand.cols};
  row_stride_ = buffer.cols;
}

TensorView TensorOperand::View(const Frame& frame) const {
  TensorView view{.data = data_, .dtype = dtype_, .rank = rank_};
  int64_t stride = 1;
  for (int i = rank_ - 1; i >= 0; --i) {
    const auto axis = static_cast<size_t>(i);
    view.dims[axis] = frame.Rows(dims_[axis]);
    view.strides[axis] = stride;
    stride *= view.dims[axis];
  }
  if (row_stride_ > 0) view.strides[0] = row_stride_;
  return view;
}

}  // namespace millpower::device::cpu
