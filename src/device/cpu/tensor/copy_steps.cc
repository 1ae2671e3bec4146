#include <span>
#include <vector>

#include "device/cpu/tensor/tensor_steps.h"
#include "kernels/tensor/copy.h"

namespace millpower::device::cpu {
namespace {

using isa::Instruction;
using kernels::CopyPlan;

static_assert(kMaxRank == CopyPlan::kMaxAxes);

// Units are rows of the plan that the sizes of a launch give.
class CopyStep final : public Step {
 public:
  CopyStep(const StepContext& context, const Instruction& in)
      : x_(context, in.operand(isa::copy::kX)),
        y_(context, in.operand(isa::copy::kY)),
        perm_(List(context, in, isa::copy::kPerm)),
        step_(List(context, in, isa::copy::kStep)),
        gap_(List(context, in, isa::copy::kGap)),
        begin_(Sizes(context, in, isa::copy::kBegin)),
        window_(Sizes(context, in, isa::copy::kWindow)),
        at_(Sizes(context, in, isa::copy::kAt)) {}
  int64_t Units(const Frame& frame) const override { return Open(frame).plan.rows(); }
  int64_t Grain() const override { return CopyPlan::kBlock; }
  int64_t UnitCost(const Frame& frame) const override { return Open(frame).plan.row_elements(); }
  void Run(const Frame& frame, int64_t begin, int64_t end, int) const override {
    const Copy copy = Open(frame);
    copy.plan.Run(copy.from, copy.to, begin, end);
  }

 private:
  struct Copy {
    CopyPlan plan;
    const std::byte* from;
    std::byte* to;
  };

  static std::span<const int64_t> List(const StepContext& context, const Instruction& in,
                                       int attribute) {
    return context.program.lists[static_cast<size_t>(in.integer(attribute))];
  }
  static std::span<const isa::Dim> Sizes(const StepContext& context, const Instruction& in,
                                         int attribute) {
    return context.program.shapes[static_cast<size_t>(in.integer(attribute))];
  }

  Copy Open(const Frame& frame) const {
    const TensorView x = x_.View(frame);
    const TensorView y = y_.View(frame);
    CopyPlan::Sizes sizes{}, from_strides{}, to_strides{};
    int64_t from = 0, to = 0;
    for (size_t d = 0; d < window_.size(); ++d) {
      const auto axis = static_cast<size_t>(perm_[d]);  // of x
      sizes[d] = frame.Rows(window_[d]);
      from_strides[d] = x.strides[axis] * step_[axis];
      to_strides[d] = y.strides[d] * gap_[d];
      from += x.strides[axis] * frame.Rows(begin_[axis]);
      to += y.strides[d] * frame.Rows(at_[d]);
    }
    const int64_t bytes = SizeBytes(y.dtype);
    return {CopyPlan(bytes, static_cast<int>(window_.size()), sizes, from_strides, to_strides),
            x.data + from * bytes, y.data + to * bytes};
  }

  const TensorOperand x_, y_;
  const std::span<const int64_t> perm_, step_, gap_;
  const std::span<const isa::Dim> begin_, window_, at_;
};

}  // namespace

std::unique_ptr<Step> MakeCopyStep(const StepContext& context, const Instruction& in) {
  return std::make_unique<CopyStep>(context, in);
}

}  // namespace millpower::device::cpu
