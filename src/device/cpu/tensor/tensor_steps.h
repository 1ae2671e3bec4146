// Steps of the instructions on tensors of any rank. Internal to the CPU device.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/dtype.h"
#include "device/cpu/steps.h"
#include "isa/program.h"

namespace millpower::device::cpu {

inline constexpr int kMaxRank = 8;

// A tensor in memory, as one launch sees it: element (i0, i1, ...) lies at data + sum(i * stride).
struct TensorView {
  std::byte* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  std::array<int64_t, kMaxRank> dims{};
  std::array<int64_t, kMaxRank> strides{};  // in elements

  int64_t Elements() const;
  bool IsContiguous() const;
};

// An operand of a tensor instruction, resolved at load but for the sizes of a launch: with a shape
// the whole buffer in that shape, else the matrix of its columns [rows, cols].
class TensorOperand {
 public:
  TensorOperand() = default;  // an absent operand
  TensorOperand(const StepContext& context, const isa::Operand& operand);

  bool present() const { return data_ != nullptr; }
  DType dtype() const { return dtype_; }
  TensorView View(const Frame& frame) const;  // allocates nothing

 private:
  std::byte* data_ = nullptr;
  DType dtype_ = DType::kF32;
  int rank_ = 0;
  std::array<isa::Dim, kMaxRank> dims_{};
  int64_t row_stride_ = 0;  // of a matrix that is columns of a wider buffer; 0: contiguous
};

// One for each opcode.
std::unique_ptr<Step> MakeMapStep(const StepContext&, const isa::Instruction&);
std::unique_ptr<Step> MakeReduceStep(const StepContext&, const isa::Instruction&);
std::unique_ptr<Step> MakeCumulateStep(const StepContext&, const isa::Instruction&);
std::unique_ptr<Step> MakeSoftmaxStep(const StepContext&, const isa::Instruction&);
std::unique_ptr<Step> MakeLayerNormStep(const StepContext&, const isa::Instruction&);
std::unique_ptr<Step> MakeCopyStep(const StepContext&, const isa::Instruction&);
std::unique_ptr<Step> MakeContractStep(const StepContext&, const isa::Instruction&);
std::unique_ptr<Step> MakeConvStep(const StepContext&, const isa::Instruction&);
std::unique_ptr<Step> MakePoolStep(const StepContext&, const isa::Instruction&);
std::unique_ptr<Step> MakeTakeStep(const StepContext&, const isa::Instruction&);
std::unique_ptr<Step> MakeTakeAlongStep(const StepContext&, const isa::Instruction&);
std::unique_ptr<Step> MakeGatherNdStep(const StepContext&, const isa::Instruction&);
std::unique_ptr<Step> MakeScatterStep(const StepContext&, const isa::Instruction&);
std::unique_ptr<Step> MakeEmbeddingBagStep(const StepContext&, const isa::Instruction&);
std::unique_ptr<Step> MakeTopKStep(const StepContext&, const isa::Instruction&);

}  // namespace millpower::device::cpu
