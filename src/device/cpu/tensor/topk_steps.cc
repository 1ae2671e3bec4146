#include "device/cpu/tensor/places.h"
#include "device/cpu/tensor/scratch.h"
#include "device/cpu/tensor/tensor_steps.h"
#include "kernels/tensor/topk.h"

namespace millpower::device::cpu {
namespace {

using isa::Instruction;

// Candidates for the longest rows that the Program allows.
int64_t CapacityOf(const StepContext& context, const Instruction& in) {
  const auto last = [&](const isa::Operand& operand) {
    if (operand.shape < 0) return operand.cols;
    return context.program.Max(context.program.shapes[static_cast<size_t>(operand.shape)].back());
  };
  return kernels::TopKCapacity(last(in.operand(isa::top_k::kX)), last(in.operand(isa::top_k::kY)));
}

// Units are rows, along the last axis.
class TopKStep final : public Step {
 public:
  TopKStep(const StepContext& context, const Instruction& in)
      : x_(context, in.operand(isa::top_k::kX)),
        y_(context, in.operand(isa::top_k::kY)),
        largest_(in.integer(isa::top_k::kLargest) != 0),
        capacity_(CapacityOf(context, in)),
        scratch_(context.threads, capacity_) {}
  int64_t Units(const Frame& frame) const override {
    const TensorView y = y_.View(frame);
    return y.Elements() == 0 ? 0 : ElementsOf(y, 0, y.rank - 1);
  }
  int64_t UnitCost(const Frame& frame) const override {
    const TensorView x = x_.View(frame);
    return 4 * x.dims[static_cast<size_t>(x.rank - 1)];
  }
  void Run(const Frame& frame, int64_t begin, int64_t end, int member) const override {
    const TensorView x = x_.View(frame), y = y_.View(frame);
    const Places from(x), to(y);
    const int64_t n = x.dims[static_cast<size_t>(x.rank - 1)];
    const int64_t k = y.dims[static_cast<size_t>(y.rank - 1)];
    for (int64_t row = begin; row < end; ++row)
      kernels::TopK(x.dtype, from.At(row * n), n, k, largest_,
                    reinterpret_cast<int64_t*>(to.At(row * k)),
                    {scratch_.Of(member), static_cast<size_t>(capacity_)});
  }

 private:
  const TensorOperand x_, y_;
  const bool largest_;
  const int64_t capacity_;
  const ThreadScratch<kernels::RankedItem> scratch_;
};

}  // namespace

std::unique_ptr<Step> MakeTopKStep(const StepContext& context, const Instruction& in) {
  return std::make_unique<TopKStep>(context, in);
}

}  // namespace millpower::device::cpu
