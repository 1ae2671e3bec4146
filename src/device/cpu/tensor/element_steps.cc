// Steps of map, reduce, cumulate, softmax and layer_norm: operands become pointers and strides,
// kernels/tensor does the rest.
#include <algorithm>
#include <array>
#include <optional>

#include "base/check.h"
#include "base/expression.h"
#include "device/cpu/tensor/scratch.h"
#include "device/cpu/tensor/tensor_steps.h"
#include "kernels/tensor/map.h"
#include "kernels/tensor/reduce.h"
#include "kernels/tensor/rows.h"

namespace millpower::device::cpu {
namespace {

using isa::Instruction;
using kernels::AxisStrides;
using kernels::AxisTensors;
using kernels::ElementKernels;
using kernels::MapTensors;

static_assert(kMaxRank == kernels::kNestAxes);

size_t At(int i) { return static_cast<size_t>(i); }

AxisStrides RowMajor(int rank, const std::array<int64_t, kMaxRank>& dims) {
  AxisStrides strides{};
  int64_t stride = 1;
  for (int axis = rank - 1; axis >= 0; --axis) {
    strides[At(axis)] = stride;
    stride *= dims[At(axis)];
  }
  return strides;
}

// The strides of `view` when it is walked as a tensor of `rank` axes `dims` that it broadcasts to.
// One of more axes has the same elements, in order: only matrices are not contiguous.
AxisStrides StridesAs(const TensorView& view, int rank, const std::array<int64_t, kMaxRank>& dims) {
  const int missing = rank - view.rank;
  if (missing < 0) return RowMajor(rank, dims);
  AxisStrides strides{};
  for (int axis = 0; axis < view.rank; ++axis)
    strides[At(missing + axis)] = view.dims[At(axis)] == 1 ? 0 : view.strides[At(axis)];
  return strides;
}

const std::vector<int64_t>& ListOf(const StepContext& context, int64_t index) {
  return context.program.lists[static_cast<size_t>(index)];
}

class MapStep final : public Step {
 public:
  MapStep(const StepContext& context, const Instruction& in)
      : y_(context, in.operand(isa::map::kY)), kernel_(MakeKernel(context, in)) {
    for (int i = 0; i < kMaxMapOperands; ++i)
      x_[At(i)] = TensorOperand(context, in.operand(isa::map::kX0 + i));
  }
  int64_t Units(const Frame& frame) const override {
    return (y_.View(frame).Elements() + kUnit - 1) / kUnit;
  }
  int64_t UnitCost(const Frame&) const override { return kUnit * kernel_.ElementCost(); }
  void Run(const Frame& frame, int64_t begin, int64_t end, int) const override {
    const TensorView y = y_.View(frame);
    MapTensors tensors{.rank = y.rank, .dims = y.dims, .y = y.data, .y_strides = y.strides};
    for (int i = 0; i < kMaxMapOperands; ++i) {
      if (!x_[At(i)].present()) continue;
      const TensorView x = x_[At(i)].View(frame);
      tensors.x[At(i)] = x.data;
      tensors.x_strides[At(i)] = StridesAs(x, y.rank, y.dims);
    }
    std::array<int64_t, kMaxTerms> sizes{};
    for (size_t i = 0; i < sizes_.size(); ++i) sizes[i] = frame.Rows(sizes_[i]);
    kernel_.Run(tensors, sizes, begin * kUnit, std::min(end * kUnit, y.Elements()));
  }

 private:
  // Elements of a unit: a tile. Threads take many at a time.
  static constexpr int64_t kUnit = kernels::MapKernel::kTile;

  // The expression, its sizes numbered as the terms name them, so that sizes_ has no more.
  kernels::MapKernel MakeKernel(const StepContext& context, const Instruction& in) {
    std::vector<DType> types;
    for (int i = 0; i < kMaxMapOperands && in.operand(isa::map::kX0 + i).present(); ++i)
      types.push_back(context.program.buffer(in.operand(isa::map::kX0 + i)).dtype);
    const auto& sizes =
        in.integer(isa::map::kSizes) < 0
            ? std::vector<isa::Dim>()
            : context.program.shapes[static_cast<size_t>(in.integer(isa::map::kSizes))];
    auto expression = Expression::Decode(ListOf(context, in.integer(isa::map::kCode)), types,
                                         kMaxRank, static_cast<int>(sizes.size()));
    CHECK(expression) << expression.error().message;  // Verify has decoded it
    for (Term& term : expression->terms) {
      if (term.op != MapOp::kSize) continue;
      sizes_.push_back(sizes[static_cast<size_t>(term.immediate)]);
      term.immediate = static_cast<int64_t>(sizes_.size()) - 1;
    }
    return {kernels::ElementKernelsOf(context.kernels), *expression};
  }

  const TensorOperand y_;
  std::vector<isa::Dim> sizes_;  // filled by MakeKernel
  const kernels::MapKernel kernel_;
  std::array<TensorOperand, kMaxMapOperands> x_;
};

// x and y, the axes being x's.
class AxisStep : public Step {
 public:
  AxisStep(const StepContext& context, const isa::Operand& x, const isa::Operand& y)
      : x_(context, x), y_(context, y) {}

 protected:
  AxisTensors Tensors(const Frame& frame, uint32_t reduced = 0) const {
    const TensorView x = x_.View(frame), y = y_.View(frame);
    std::array<int64_t, kMaxRank> y_dims = x.dims;
    for (int axis = 0; axis < x.rank; ++axis)
      if ((reduced >> axis & 1) != 0) y_dims[At(axis)] = 1;
    AxisTensors tensors{
        .rank = x.rank, .dims = x.dims, .x = x.data, .x_strides = x.strides, .y = y.data};
    // A result may be declared without the axes of 1 that reducing leaves; it is contiguous then.
    tensors.y_strides = y.rank == x.rank ? y.strides : RowMajor(x.rank, y_dims);
    return tensors;
  }
  DType type() const { return x_.dtype(); }

 private:
  const TensorOperand x_, y_;
};

class ReduceStep final : public AxisStep {
 public:
  ReduceStep(const StepContext& context, const Instruction& in)
      : AxisStep(context, in.operand(isa::reduce::kX), in.operand(isa::reduce::kY)),
        axes_(AxesOf(context, in)),
        kernel_(kernels::ElementKernelsOf(context.kernels),
                static_cast<Reduction>(in.integer(isa::reduce::kKind)), type(), axes_) {}
  int64_t Units(const Frame& frame) const override { return kernel_.Units(Tensors(frame, axes_)); }
  int64_t UnitCost(const Frame& frame) const override {
    return kernel_.UnitCost(Tensors(frame, axes_));
  }
  void Run(const Frame& frame, int64_t begin, int64_t end, int) const override {
    kernel_.Run(Tensors(frame, axes_), begin, end);
  }

 private:
  static uint32_t AxesOf(const StepContext& context, const Instruction& in) {
    uint32_t axes = 0;
    for (const int64_t axis : ListOf(context, in.integer(isa::reduce::kAxes))) axes |= 1u << axis;
    return axes;
  }

  const uint32_t axes_;
  const kernels::ReduceKernel kernel_;
};

class CumulateStep final : public AxisStep {
 public:
  CumulateStep(const StepContext& context, const Instruction& in)
      : AxisStep(context, in.operand(isa::cumulate::kX), in.operand(isa::cumulate::kY)),
        kernel_(static_cast<Reduction>(in.integer(isa::cumulate::kKind)), type(),
                static_cast<int>(in.integer(isa::cumulate::kAxis)),
                in.integer(isa::cumulate::kExclusive) != 0,
                in.integer(isa::cumulate::kReverse) != 0) {}
  int64_t Units(const Frame& frame) const override { return kernel_.Units(Tensors(frame)); }
  int64_t UnitCost(const Frame& frame) const override { return kernel_.UnitCost(Tensors(frame)); }
  void Run(const Frame& frame, int64_t begin, int64_t end, int) const override {
    kernel_.Run(Tensors(frame), begin, end);
  }

 private:
  const kernels::CumulateKernel kernel_;
};

// What goes row by row along the last axis: units are rows.
class LastAxisStep : public Step {
 public:
  // `row_floats`: rows of floats that a thread needs as scratch, when the type is a half.
  LastAxisStep(const StepContext& context, const isa::Operand& x, const isa::Operand& y,
               int64_t row_floats)
      : set_(kernels::ElementKernelsOf(context.kernels)), x_(context, x), y_(context, y) {
    if (x_.dtype() != DType::kF16 && x_.dtype() != DType::kBf16) return;
    const int64_t n =
        x.shape < 0
            ? x.cols
            : context.program.Max(context.program.shapes[static_cast<size_t>(x.shape)].back());
    scratch_.emplace(context.threads, row_floats * n);
  }
  int64_t Units(const Frame& frame) const override {
    const TensorView x = x_.View(frame);
    const int64_t n = x.dims[At(x.rank - 1)];
    return n == 0 ? 0 : x.Elements() / n;
  }
  // Some ten operations an element, an exponential among them.
  int64_t UnitCost(const Frame& frame) const override {
    const TensorView x = x_.View(frame);
    return 10 * x.dims[At(x.rank - 1)] + 32;
  }

 protected:
  kernels::RowTensors Rows(const Frame& frame) const {
    const TensorView x = x_.View(frame), y = y_.View(frame);
    return {.type = x.dtype,
            .x = x.data,
            .y = y.data,
            .n = x.dims[At(x.rank - 1)],
            .x_stride = RowStride(x),
            .y_stride = RowStride(y)};
  }
  // One thread's. Written by that thread only, while it runs.
  float* Scratch(int member) const { return scratch_ ? scratch_->Of(member) : nullptr; }

  const ElementKernels& set_;

 private:
  // Only a matrix has rows that do not follow each other.
  static int64_t RowStride(const TensorView& view) {
    return view.rank == 2 ? view.strides[0] : view.dims[At(view.rank - 1)];
  }

  const TensorOperand x_, y_;
  std::optional<ThreadScratch<float>> scratch_;
};

class SoftmaxStep final : public LastAxisStep {
 public:
  SoftmaxStep(const StepContext& context, const Instruction& in)
      : LastAxisStep(context, in.operand(isa::softmax::kX), in.operand(isa::softmax::kY), 1),
        log_(in.integer(isa::softmax::kLog) != 0) {}
  void Run(const Frame& frame, int64_t begin, int64_t end, int member) const override {
    kernels::SoftmaxRows(set_, Rows(frame), log_, Scratch(member), begin, end);
  }

 private:
  const bool log_;
};

class LayerNormStep final : public LastAxisStep {
 public:
  LayerNormStep(const StepContext& context, const Instruction& in)
      : LastAxisStep(context, in.operand(isa::layer_norm::kX), in.operand(isa::layer_norm::kY), 3),
        weight_(context, in.operand(isa::layer_norm::kWeight)),
        bias_(context, in.operand(isa::layer_norm::kBias)),
        epsilon_(in.real(isa::layer_norm::kEpsilon)) {}
  void Run(const Frame& frame, int64_t begin, int64_t end, int member) const override {
    const auto data = [&](const TensorOperand& operand) {
      return operand.present() ? operand.View(frame).data : nullptr;
    };
    kernels::LayerNormRows(set_, Rows(frame), data(weight_), data(bias_), epsilon_, Scratch(member),
                           begin, end);
  }

 private:
  const TensorOperand weight_, bias_;
  const double epsilon_;
};

}  // namespace

std::unique_ptr<Step> MakeMapStep(const StepContext& context, const Instruction& in) {
  return std::make_unique<MapStep>(context, in);
}
std::unique_ptr<Step> MakeReduceStep(const StepContext& context, const Instruction& in) {
  return std::make_unique<ReduceStep>(context, in);
}
std::unique_ptr<Step> MakeCumulateStep(const StepContext& context, const Instruction& in) {
  return std::make_unique<CumulateStep>(context, in);
}
std::unique_ptr<Step> MakeSoftmaxStep(const StepContext& context, const Instruction& in) {
  return std::make_unique<SoftmaxStep>(context, in);
}
std::unique_ptr<Step> MakeLayerNormStep(const StepContext& context, const Instruction& in) {
  return std::make_unique<LayerNormStep>(context, in);
}

}  // namespace millpower::device::cpu
