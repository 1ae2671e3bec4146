// Steps that read and write where indices say.
#include <algorithm>
#include <cstring>

#include "device/cpu/tensor/places.h"
#include "device/cpu/tensor/tensor_steps.h"
#include "kernels/tensor/scatter.h"

namespace millpower::device::cpu {
namespace {

using isa::Instruction;

// `count` elements from element `from` of x to element `to` of y; y is zeros where from < 0, since
// x has no element there.
void CopyElements(const Places& x, int64_t from, const Places& y, int64_t to, int64_t count,
                  int64_t bytes) {
  while (count > 0) {
    int64_t run = y.RunFrom(to, count);
    if (from >= 0) run = x.RunFrom(from, run);
    if (from < 0)
      std::memset(y.At(to), 0, static_cast<size_t>(run * bytes));
    else if (run == 1 && bytes == 4)
      std::memcpy(y.At(to), x.At(from), 4);
    else
      std::memcpy(y.At(to), x.At(from), static_cast<size_t>(run * bytes));
    if (from >= 0) from += run;
    to += run;
    count -= run;
  }
}

// x and index, and y made of them.
class TakingStep : public Step {
 public:
  TakingStep(const StepContext& context, const Instruction& in, int policy_attribute)
      : x_(context, in.operand(isa::take::kX)),
        index_(context, in.operand(isa::take::kIndex)),
        y_(context, in.operand(isa::take::kY)),
        rule_(context, in, policy_attribute, in.operand(isa::take::kY)) {}

 protected:
  const TensorOperand x_, index_, y_;
  const IndexRule rule_;
};

// x [outer, n, inner], index [count] -> y [outer, count, inner]. Units are y's runs of `inner`.
class TakeStep final : public TakingStep {
 public:
  TakeStep(const StepContext& context, const Instruction& in)
      : TakingStep(context, in, isa::take::kPolicy),
        axis_(static_cast<int>(in.integer(isa::take::kAxis))) {}
  int64_t Units(const Frame& frame) const override {
    const TensorView x = x_.View(frame);
    if (ElementsOf(x, axis_ + 1, x.rank) == 0) return 0;
    return ElementsOf(x, 0, axis_) * index_.View(frame).Elements();
  }
  int64_t UnitCost(const Frame& frame) const override {
    const TensorView x = x_.View(frame);
    return ElementsOf(x, axis_ + 1, x.rank);
  }
  void Run(const Frame& frame, int64_t begin, int64_t end, int) const override {
    const TensorView x = x_.View(frame), index = index_.View(frame), y = y_.View(frame);
    const Places from(x), indices(index), to(y);
    const int64_t n = x.dims[static_cast<size_t>(axis_)];
    const int64_t inner = ElementsOf(x, axis_ + 1, x.rank);
    const int64_t count = index.Elements();
    const int64_t bytes = SizeBytes(y.dtype);
    if (inner == 1 && index.IsContiguous()) {
      const auto single = [&]<typename T>(T) {
        if (index.dtype == DType::kI32)
          TakeSingles<T, int32_t>(from, index.data, count, n, to, begin, end);
        else
          TakeSingles<T, int64_t>(from, index.data, count, n, to, begin, end);
      };
      switch (bytes) {
        case 1:
          return single(uint8_t{});
        case 2:
          return single(uint16_t{});
        case 4:
          return single(uint32_t{});
        default:
          return single(uint64_t{});
      }
    }
    int64_t outer = begin / count, i = begin % count;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t at = rule_.Resolve(LoadIndex(indices.At(i), index.dtype), n);
      CopyElements(from, at < 0 ? -1 : (outer * n + at) * inner, to, unit * inner, inner, bytes);
      if (++i < count) continue;
      i = 0;
      ++outer;
    }
  }

 private:
  // Units of one element.
  template <typename T, typename Index>
  void TakeSingles(const Places& from, const std::byte* indices, int64_t count, int64_t n,
                   const Places& to, int64_t begin, int64_t end) const {
    const auto* index = reinterpret_cast<const Index*>(indices);
    while (begin < end) {
      const int64_t first = begin % count, row = begin / count * n;
      const int64_t run = to.RunFrom(begin, std::min(count - first, end - begin));
      auto* y = reinterpret_cast<T*>(to.At(begin));
      const auto* x = reinterpret_cast<const T*>(from.At(row));
      const bool consecutive = from.RunFrom(row, n) == n;
      for (int64_t i = 0; i < run; ++i) {
        const int64_t at = rule_.Resolve(index[first + i], n);
        if (at < 0)
          y[i] = 0;
        else
          y[i] = consecutive ? x[at] : *reinterpret_cast<const T*>(from.At(row + at));
      }
      begin += run;
    }
  }

  const int axis_;
};

// The coordinates of row `row` of a view: of all axes but the last, which is at 0.
std::array<int64_t, kMaxRank> RowPlace(const TensorView& view, int64_t row) {
  std::array<int64_t, kMaxRank> place{};
  for (int d = view.rank - 2; d >= 0; --d) {
    const auto axis = static_cast<size_t>(d);
    place[axis] = row % view.dims[axis];
    row /= view.dims[axis];
  }
  return place;
}

// The offset in elements of a place in a view.
int64_t OffsetOf(const TensorView& view, const std::array<int64_t, kMaxRank>& place) {
  int64_t offset = 0;
  for (int d = 0; d < view.rank; ++d)
    offset += place[static_cast<size_t>(d)] * view.strides[static_cast<size_t>(d)];
  return offset;
}

// Units are rows of y, along its last axis.
class TakeAlongStep final : public TakingStep {
 public:
  TakeAlongStep(const StepContext& context, const Instruction& in)
      : TakingStep(context, in, isa::take_along::kPolicy),
        axis_(static_cast<size_t>(in.integer(isa::take_along::kAxis))) {}
  int64_t Units(const Frame& frame) const override {
    const TensorView y = y_.View(frame);
    return y.Elements() == 0 ? 0 : ElementsOf(y, 0, y.rank - 1);
  }
  int64_t UnitCost(const Frame& frame) const override {
    const TensorView y = y_.View(frame);
    return y.dims[static_cast<size_t>(y.rank - 1)];
  }
  void Run(const Frame& frame, int64_t begin, int64_t end, int) const override {
    const TensorView x = x_.View(frame), index = index_.View(frame), y = y_.View(frame);
    const auto last = static_cast<size_t>(y.rank - 1);
    const int64_t cols = y.dims[last], n = x.dims[axis_];
    const int64_t bytes = SizeBytes(y.dtype), index_bytes = SizeBytes(index.dtype);
    const int64_t step = axis_ == last ? 0 : x.strides[last];
    for (int64_t row = begin; row < end; ++row) {
      std::array<int64_t, kMaxRank> place = RowPlace(y, row);
      const std::byte* indices = index.data + OffsetOf(index, place) * index_bytes;
      std::byte* to = y.data + OffsetOf(y, place) * bytes;
      place[axis_] = 0;
      const std::byte* from = x.data + OffsetOf(x, place) * bytes;
      for (int64_t i = 0; i < cols; ++i) {
        const int64_t at = rule_.Resolve(LoadIndex(indices + i * index_bytes, index.dtype), n);
        if (at < 0)
          std::memset(to + i * bytes, 0, static_cast<size_t>(bytes));
        else
          std::memcpy(to + i * bytes, from + (at * x.strides[axis_] + i * step) * bytes,
                      static_cast<size_t>(bytes));
      }
    }
  }

 private:
  const size_t axis_;
};

// The place that a tuple of `depth` indices names among axes first, first + 1 ... of x, counted
// row-major; -1 when there is none.
int64_t PlaceOfTuple(const IndexRule& rule, const TensorView& x, int first, const Places& indices,
                     int64_t at, int64_t depth, DType type) {
  int64_t place = 0;
  for (int64_t i = 0; i < depth; ++i) {
    const int64_t n = x.dims[static_cast<size_t>(first + i)];
    const int64_t index = rule.Resolve(LoadIndex(indices.At(at + i), type), n);
    if (index < 0) return -1;
    place = place * n + index;
  }
  return place;
}

// Units are the slices that index's tuples name.
class GatherNdStep final : public TakingStep {
 public:
  GatherNdStep(const StepContext& context, const Instruction& in)
      : TakingStep(context, in, isa::gather_nd::kPolicy),
        batch_dims_(static_cast<int>(in.integer(isa::gather_nd::kBatchDims))) {}
  int64_t Units(const Frame& frame) const override {
    const TensorView index = index_.View(frame);
    return y_.View(frame).Elements() == 0 ? 0 : ElementsOf(index, 0, index.rank - 1);
  }
  int64_t UnitCost(const Frame& frame) const override {
    const TensorView x = x_.View(frame), index = index_.View(frame);
    return ElementsOf(x, batch_dims_ + static_cast<int>(Depth(index)), x.rank);
  }
  void Run(const Frame& frame, int64_t begin, int64_t end, int) const override {
    const TensorView x = x_.View(frame), index = index_.View(frame), y = y_.View(frame);
    const Places from(x), indices(index), to(y);
    const int64_t depth = Depth(index);
    const int named = batch_dims_ + static_cast<int>(depth);
    const int64_t slice = ElementsOf(x, named, x.rank);
    const int64_t slices = ElementsOf(x, batch_dims_, named);  // of a batch
    const int64_t tuples = ElementsOf(index, batch_dims_, index.rank - 1);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t place =
          PlaceOfTuple(rule_, x, batch_dims_, indices, unit * depth, depth, index.dtype);
      CopyElements(from, place < 0 ? -1 : (unit / tuples * slices + place) * slice, to,
                   unit * slice, slice, SizeBytes(y.dtype));
    }
  }

 private:
  static int64_t Depth(const TensorView& index) {
    return index.dims[static_cast<size_t>(index.rank - 1)];
  }
  const int batch_dims_;
};

class ScatteringStep : public Step {
 public:
  ScatteringStep(const StepContext& context, const Instruction& in)
      : index_(context, in.operand(isa::scatter::kIndex)),
        updates_(context, in.operand(isa::scatter::kUpdates)),
        y_(context, in.operand(isa::scatter::kY)),
        rule_(context, in, isa::scatter::kPolicy, in.operand(isa::scatter::kY)),
        change_(kernels::ScatterFunctionOf(
            y_.dtype(), static_cast<Scattering>(in.integer(isa::scatter::kReduction)))) {}

 protected:
  const TensorOperand index_, updates_, y_;
  const IndexRule rule_;
  const kernels::ScatterFunction change_;
};

// Index and updates [outer, along, inner]; units are the (outer, inner), in each of which the
// updates follow each other in order.
class ScatterElementsStep final : public ScatteringStep {
 public:
  ScatterElementsStep(const StepContext& context, const Instruction& in)
      : ScatteringStep(context, in), axis_(static_cast<int>(in.integer(isa::scatter::kAxis))) {}
  int64_t Units(const Frame& frame) const override {
    const TensorView index = index_.View(frame);
    return ElementsOf(index, 0, axis_) * ElementsOf(index, axis_ + 1, index.rank);
  }
  int64_t UnitCost(const Frame& frame) const override {
    return 4 * index_.View(frame).dims[static_cast<size_t>(axis_)];
  }
  void Run(const Frame& frame, int64_t begin, int64_t end, int) const override {
    const TensorView index = index_.View(frame), updates = updates_.View(frame);
    const TensorView y = y_.View(frame);
    const auto along = static_cast<size_t>(axis_);
    const int64_t inner = ElementsOf(index, axis_ + 1, index.rank);
    const int64_t bytes = SizeBytes(y.dtype);
    while (begin < end) {
      const int64_t first = begin % inner;
      const int64_t count = std::min(inner - first, end - begin);
      for (int64_t i = 0; i < index.dims[along]; ++i)
        for (int64_t j = first; j < first + count; ++j) {
          std::array<int64_t, kMaxRank> place = PlaceOf(index, begin / inner, i, j);
          const std::byte* update = updates.data + OffsetOf(updates, place) * bytes;
          const std::byte* at = index.data + OffsetOf(index, place) * SizeBytes(index.dtype);
          place[along] = rule_.Resolve(LoadIndex(at, index.dtype), y.dims[along]);
          if (place[along] >= 0) change_(y.data + OffsetOf(y, place) * bytes, update, 1);
        }
      begin += count;
    }
  }

 private:
  std::array<int64_t, kMaxRank> PlaceOf(const TensorView& index, int64_t outer, int64_t i,
                                        int64_t inner) const {
    std::array<int64_t, kMaxRank> place{};
    const auto take = [&](int d, int64_t& rest) {
      const auto axis = static_cast<size_t>(d);
      place[axis] = rest % index.dims[axis];
      rest /= index.dims[axis];
    };
    for (int d = index.rank - 1; d > axis_; --d) take(d, inner);
    for (int d = axis_ - 1; d >= 0; --d) take(d, outer);
    place[static_cast<size_t>(axis_)] = i;
    return place;
  }
  const int axis_;
};

// Units are pieces of the slices that index's tuples name; the tuples follow each other in order.
class ScatterNdStep final : public ScatteringStep {
 public:
  using ScatteringStep::ScatteringStep;
  int64_t Units(const Frame& frame) const override {
    if (updates_.View(frame).Elements() == 0) return 0;
    return (SliceOf(frame) + kPiece - 1) / kPiece;
  }
  int64_t UnitCost(const Frame& frame) const override {
    return updates_.View(frame).Elements() / std::max<int64_t>(1, SliceOf(frame) / kPiece);
  }
  void Run(const Frame& frame, int64_t begin, int64_t end, int) const override {
    const TensorView index = index_.View(frame), updates = updates_.View(frame);
    const TensorView y = y_.View(frame);
    const Places indices(index), from(updates), to(y);
    const int64_t depth = index.dims[static_cast<size_t>(index.rank - 1)];
    const int64_t tuples = ElementsOf(index, 0, index.rank - 1);
    const int64_t slice = SliceOf(frame);
    const int64_t first = begin * kPiece, last = std::min(slice, end * kPiece);
    for (int64_t tuple = 0; tuple < tuples; ++tuple) {
      const int64_t place = PlaceOfTuple(rule_, y, 0, indices, tuple * depth, depth, index.dtype);
      if (place < 0) continue;
      for (int64_t i = first; i < last;) {
        const int64_t source = tuple * slice + i, target = place * slice + i;
        const int64_t run = from.RunFrom(source, to.RunFrom(target, last - i));
        change_(to.At(target), from.At(source), run);
        i += run;
      }
    }
  }

 private:
  static constexpr int64_t kPiece = 64;  // elements

  int64_t SliceOf(const Frame& frame) const {
    const TensorView index = index_.View(frame), y = y_.View(frame);
    return ElementsOf(y, static_cast<int>(index.dims[static_cast<size_t>(index.rank - 1)]), y.rank);
  }
};

}  // namespace

std::unique_ptr<Step> MakeTakeStep(const StepContext& context, const Instruction& in) {
  return std::make_unique<TakeStep>(context, in);
}
std::unique_ptr<Step> MakeTakeAlongStep(const StepContext& context, const Instruction& in) {
  return std::make_unique<TakeAlongStep>(context, in);
}
std::unique_ptr<Step> MakeGatherNdStep(const StepContext& context, const Instruction& in) {
  return std::make_unique<GatherNdStep>(context, in);
}
std::unique_ptr<Step> MakeScatterStep(const StepContext& context, const Instruction& in) {
  if (static_cast<ScatterMode>(in.integer(isa::scatter::kMode)) == ScatterMode::kNd)
    return std::make_unique<ScatterNdStep>(context, in);
  return std::make_unique<ScatterElementsStep>(context, in);
}

}  // namespace millpower::device::cpu
