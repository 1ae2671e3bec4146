// Shapes and what only rearranges elements.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "import/tensorflow/call.h"

namespace millpower::import {
namespace {

Result<ir::Shape> ShapeOfOperand(Call& call, int operand) {
  TRY_ASSIGN(const Value* value, call.At(operand));
  if (const auto* view = value->As<PortView>()) return view->shape;
  TRY_ASSIGN(const Tensor x, call.In(operand));
  return call.b.shape(x);
}

std::vector<Size> SizesOf(const ir::Shape& shape) {
  std::vector<Size> sizes;
  for (const ir::Dim& dim : shape) sizes.push_back(ir::SizeOf(dim));
  return sizes;
}

// A view of an input in another shape stays one, so that it can still be looked up.
Result<Values> Reshaped(Call& call, const ir::Shape& shape) {
  TRY_ASSIGN(const Value* value, call.At(0));
  if (const auto* view = value->As<PortView>()) {
    const auto before = ir::ElementsOf(view->shape), after = ir::ElementsOf(shape);
    if (!before || !after || *before != *after)
      return Fail(ErrorCode::kInvalidArgument,
                  ir::ToString(view->shape) + " cannot become " + ir::ToString(shape));
    return Values{Value{PortView{view->port, shape, view->as_text}}};
  }
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const Tensor y, call.b.Reshape(x, shape));
  return One(y);
}

// With -1 replaced by what is left.
Result<ir::Shape> Completed(const ir::Shape& from, std::vector<Size> sizes) {
  const auto total = ir::ElementsOf(from);
  std::optional<Size> known = Size(1);
  size_t open = sizes.size();
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == Size(-1)) {
      if (open != sizes.size()) return Fail(ErrorCode::kInvalidArgument, "two open dimensions");
      open = i;
    } else if (known) {
      known = known->Times(sizes[i]);
    }
  }
  if (!total || !known) return Unsupported("a shape that is too large");
  if (open != sizes.size()) {
    std::optional<Size> rest = *known == *total ? Size(1) : total->DividedBy(*known);
    if (*known == Size(0) || !rest)
      return Unsupported(
          fmt::format("{} cannot be divided by {}", total->ToString(), known->ToString()));
    sizes[open] = *rest;
  }
  if (sizes.size() > ir::kMaxRank) return Unsupported("more than 8 dimensions");
  ir::Shape shape;
  for (const Size& size : sizes) {
    if (!size.IsMonotone() || size.Constant().value_or(1) < 0)
      return Unsupported("a dimension of " + size.ToString());
    shape.push_back(ir::DimOf(size));
  }
  return shape;
}

Result<Values> Reshape(Call& call) {
  TRY_ASSIGN(const ir::Shape from, ShapeOfOperand(call, 0));
  TRY_ASSIGN(std::vector<Size> sizes, call.Sizes(1, "shape"));
  TRY_ASSIGN(const ir::Shape shape, Completed(from, std::move(sizes)));
  return Reshaped(call, shape);
}

Result<Values> ExpandDims(Call& call) {
  TRY_ASSIGN(ir::Shape shape, ShapeOfOperand(call, 0));
  if (shape.size() == ir::kMaxRank) return Unsupported("more than 8 dimensions");
  TRY_ASSIGN(const int axis, call.Axis(1, static_cast<int>(shape.size()) + 1));
  shape.insert(shape.begin() + axis, ir::Constant(1));
  return Reshaped(call, shape);
}

Result<Values> Squeeze(Call& call) {
  TRY_ASSIGN(const ir::Shape shape, ShapeOfOperand(call, 0));
  std::vector<int64_t> listed = call.Ints("squeeze_dims");
  std::vector<bool> gone(shape.size(), false);
  for (const int64_t axis : listed) {
    TRY_ASSIGN(const int at, call.b.Axis(axis, static_cast<int>(shape.size())));
    if (shape[static_cast<size_t>(at)] != ir::Constant(1))
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("dimension {} of {} is not 1", at, ir::ToString(shape)));
    gone[static_cast<size_t>(at)] = true;
  }
  ir::Shape left;
  for (size_t i = 0; i < shape.size(); ++i)
    if (!(gone[i] || (listed.empty() && shape[i] == ir::Constant(1)))) left.push_back(shape[i]);
  return Reshaped(call, left);
}

// ---- shapes as values ----

Result<Tensor> Shape(Call& call) {
  TRY_ASSIGN(const ir::Shape shape, ShapeOfOperand(call, 0));
  return call.b.Sizes(SizesOf(shape), call.TypeOr("out_type", DType::kI32));
}

Result<Values> ShapeN(Call& call) {
  Values shapes;
  for (int i = 0; i < call.count(); ++i) {
    TRY_ASSIGN(const ir::Shape shape, ShapeOfOperand(call, i));
    shapes.push_back(Value{call.b.Sizes(SizesOf(shape), call.TypeOr("out_type", DType::kI32))});
  }
  return shapes;
}

Result<Tensor> SizeOfTensor(Call& call) {
  TRY_ASSIGN(const ir::Shape shape, ShapeOfOperand(call, 0));
  const auto elements = ir::ElementsOf(shape);
  if (!elements) return Unsupported("too many elements");
  return call.b.SizeScalar(*elements, call.TypeOr("out_type", DType::kI32));
}

Result<Tensor> Rank(Call& call) {
  TRY_ASSIGN(const ir::Shape shape, ShapeOfOperand(call, 0));
  return call.b.Scalar(DType::kI32, static_cast<double>(shape.size()));
}

Result<Tensor> BroadcastArgs(Call& call) {
  TRY_ASSIGN(const ir::Shape first, call.Shape(0, "first shape"));
  TRY_ASSIGN(const ir::Shape second, call.Shape(1, "second shape"));
  ir::Shape all = first.size() >= second.size() ? first : second;
  const ir::Shape& other = first.size() >= second.size() ? second : first;
  for (size_t i = 0; i < other.size(); ++i) {
    ir::Dim& dim = all[all.size() - 1 - i];
    const ir::Dim& with = other[other.size() - 1 - i];
    if (dim == ir::Constant(1)) dim = with;
    if (with != ir::Constant(1) && with != dim)
      return Fail(ErrorCode::kInvalidArgument, "shapes that do not broadcast");
  }
  return call.b.Sizes(SizesOf(all), call.TypeOr("T", DType::kI32));
}

Result<Tensor> InvertPermutation(Call& call) {
  TRY_ASSIGN(const std::vector<int64_t> perm, call.Integers(0, "permutation"));
  std::vector<Size> inverse(perm.size());
  for (size_t i = 0; i < perm.size(); ++i) {
    if (perm[i] < 0 || static_cast<size_t>(perm[i]) >= perm.size())
      return Fail(ErrorCode::kInvalidArgument, "it is no permutation");
    inverse[static_cast<size_t>(perm[i])] = Size(static_cast<int64_t>(i));
  }
  return call.b.Sizes(inverse, call.TypeOr("T", DType::kI32));
}

// ---- filling ----

Result<Tensor> Fill(Call& call) {
  TRY_ASSIGN(const ir::Shape shape, call.Shape(0, "shape"));
  TRY_ASSIGN(const Tensor value, call.In(1));
  const auto known = call.b.KnownReals(value);
  if (known && known->size() == 1 && std::abs(known->front()) < 0x1p53)
    return call.b.Fill(shape, call.b.dtype(value), known->front());
  return call.b.Expand(value, shape);
}

template <int value>
Result<Tensor> FillLike(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  return call.b.Fill(call.b.shape(x), call.b.dtype(x), value);
}

Result<Tensor> RealRange(Call& call, DType dtype, const std::vector<double>& bounds) {
  const double count = std::ceil((bounds[1] - bounds[0]) / bounds[2]);
  if (!(count >= 0 && count <= static_cast<double>(kMaxKnown)))
    return Unsupported("a range of reals that is too long");
  std::vector<double> values;
  for (int i = 0; i < static_cast<int>(count); ++i) values.push_back(bounds[0] + i * bounds[2]);
  return call.b.Constant(dtype, {static_cast<int64_t>(values.size())}, ToBytes(dtype, values));
}

// start, limit, delta
Result<Tensor> Range(Call& call) {
  TRY_ASSIGN(const std::vector<Tensor> operands, call.InRange(0, 3));
  const DType dtype = call.b.dtype(operands[0]);
  if (IsFloat(dtype)) {
    std::vector<double> bounds;
    for (const Tensor operand : operands) {
      const auto known = call.b.KnownReals(operand);
      if (!known || known->size() != 1) return Unsupported("its bounds are not known");
      bounds.push_back(known->front());
    }
    return RealRange(call, dtype, bounds);
  }
  TRY_ASSIGN(const std::vector<Size> start, call.Sizes(0, "start"));
  TRY_ASSIGN(const std::vector<Size> limit, call.Sizes(1, "limit"));
  TRY_ASSIGN(const int64_t step, call.Integer(2, "delta"));
  if (start.size() != 1 || limit.size() != 1)
    return Fail(ErrorCode::kInvalidArgument, "its bounds are not single numbers");
  const auto first = start[0].Constant();
  const auto length = limit[0].Minus(start[0]);
  if (!first || !length || step == 0) return Unsupported("its bounds are not known");
  std::optional<Size> count;
  if (const auto constant = length->Constant()) {
    const double exact = std::ceil(static_cast<double>(*constant) / static_cast<double>(step));
    if (std::abs(exact) > 0x1p31) return Unsupported("a range that is too long");
    count = Size(std::max<int64_t>(0, static_cast<int64_t>(exact)));
  } else {
    count = step > 0 ? length->DividedBy(Size(step)) : std::nullopt;
  }
  if (!count || !count->IsMonotone()) return Unsupported("its length cannot be told");
  if (*count == Size(0)) return call.b.Sizes({}, dtype);
  TRY_ASSIGN(const Tensor iota, call.b.Iota({ir::DimOf(*count)}, 0, *first, step));
  return call.b.Cast(iota, dtype);
}

// ---- slicing ----

struct SliceMasks {
  int64_t begin, end, ellipsis, new_axis, shrink;
};

// numpy's indexing, one entry a dimension: begin:end:step, an ellipsis, a new axis or one index.
// tensorflow/core/util/strided_slice_op.h says which mask goes before which.
class Slicer {
 public:
  Slicer(Call& call, Tensor x) : b_(call.b), x_(x) {
    masks_ = {call.IntOr("begin_mask", 0), call.IntOr("end_mask", 0),
              call.IntOr("ellipsis_mask", 0), call.IntOr("new_axis_mask", 0),
              call.IntOr("shrink_axis_mask", 0)};
  }

  Result<Tensor> Slice(const std::vector<Size>& begin, const std::vector<Size>& end,
                       const std::vector<int64_t>& steps) {
    const size_t entries = steps.size();
    if (begin.size() != entries || end.size() != entries || entries > 2 * ir::kMaxRank)
      return Fail(ErrorCode::kInvalidArgument, "begin, end and strides differ in length");
    int used = 0;  // dimensions that entries are about
    for (size_t i = 0; i < entries; ++i)
      used += Has(masks_.ellipsis, i) || Has(masks_.new_axis, i) ? 0 : 1;
    const int rank = b_.rank(x_);
    if (used > rank) return Fail(ErrorCode::kInvalidArgument, "more indices than dimensions");
    int axis = 0;
    for (size_t i = 0; i < entries; ++i) {
      if (Has(masks_.ellipsis, i)) {
        axis += rank - used;
        position_ += rank - used;
      } else if (Has(masks_.new_axis, i)) {
        new_axes_.push_back(position_++);
      } else {
        TRY(OneAxis(axis++, i, begin[i], end[i], steps[i]));
      }
    }
    TRY_ASSIGN(x_, b_.Squeeze(x_, shrunk_));
    for (const int at : new_axes_) {
      TRY_ASSIGN(x_, b_.Unsqueeze(x_, at));
    }
    return x_;
  }

 private:
  static bool Has(int64_t mask, size_t i) { return ((mask >> i) & 1) != 0; }

  Result<void> OneAxis(int axis, size_t i, const Size& begin, const Size& end, int64_t step) {
    if (Has(masks_.shrink, i)) {
      const auto next = begin.Plus(Size(1));
      const bool last = begin == Size(-1);
      TRY_ASSIGN(x_, b_.Slice(x_, axis, begin, last ? std::nullopt : next));
      if (b_.dim(x_, axis) != Size(1))
        return Fail(ErrorCode::kInvalidArgument, "an index that does not exist");
      shrunk_.push_back(axis);
      return {};
    }
    ++position_;
    const auto from = Has(masks_.begin, i) ? std::nullopt : std::optional(begin);
    const auto to = Has(masks_.end, i) ? std::nullopt : std::optional(end);
    TRY_ASSIGN(x_, b_.Slice(x_, axis, from, to, step));
    return {};
  }

  TensorBuilder& b_;
  Tensor x_;
  SliceMasks masks_;
  std::vector<int> shrunk_;
  std::vector<int> new_axes_;  // of the result
  int position_ = 0;           // in the result
};

Result<Tensor> StridedSlice(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const std::vector<Size> begin, call.Sizes(1, "begin"));
  TRY_ASSIGN(const std::vector<Size> end, call.Sizes(2, "end"));
  TRY_ASSIGN(const std::vector<int64_t> steps, call.Integers(3, "strides"));
  return Slicer(call, x).Slice(begin, end, steps);
}

Result<Tensor> Slice(Call& call) {
  TRY_ASSIGN(Tensor x, call.In(0));
  TRY_ASSIGN(const std::vector<Size> begin, call.Sizes(1, "begin"));
  TRY_ASSIGN(const std::vector<Size> size, call.Sizes(2, "size"));
  if (static_cast<int>(begin.size()) != call.b.rank(x) || size.size() != begin.size())
    return Fail(ErrorCode::kInvalidArgument, "begin and size do not have x's rank");
  for (size_t i = 0; i < begin.size(); ++i) {
    std::optional<Size> end;  // -1: all that is left
    if (size[i] != Size(-1)) {
      end = begin[i].Plus(size[i]);
      if (!end) return Unsupported("its end cannot be told");
    }
    TRY_ASSIGN(x, call.b.Slice(x, static_cast<int>(i), begin[i], end));
  }
  return x;
}

Values AsValues(const std::vector<Tensor>& tensors) {
  Values values;
  for (const Tensor tensor : tensors) values.push_back(Value{tensor});
  return values;
}

// axis, x
Result<Values> Split(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(1));
  TRY_ASSIGN(const int axis, call.Axis(0, call.b.rank(x)));
  const int64_t count = call.IntOr("num_split", 1);
  if (count < 1 || count > kMaxKnown) return Unsupported(fmt::format("{} parts", count));
  const auto part = call.b.dim(x, axis).DividedBy(Size(count));
  if (!part) return Unsupported("parts that are not alike");
  const std::vector<Size> sizes(static_cast<size_t>(count), *part);
  TRY_ASSIGN(const std::vector<Tensor> parts, call.b.Split(x, axis, sizes));
  return AsValues(parts);
}

// x, sizes, axis
Result<Values> SplitV(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const int axis, call.Axis(2, call.b.rank(x)));
  TRY_ASSIGN(std::vector<Size> sizes, call.Sizes(1, "list of sizes"));
  std::optional<Size> left = call.b.dim(x, axis);
  for (const Size& size : sizes)
    if (size != Size(-1) && left) left = left->Minus(size);
  if (!left) return Unsupported("its sizes are too large");
  for (Size& size : sizes)
    if (size == Size(-1)) size = *left;
  TRY_ASSIGN(const std::vector<Tensor> parts, call.b.Split(x, axis, sizes));
  return AsValues(parts);
}

Result<Tensor> Pack(Call& call) {
  TRY_ASSIGN(const std::vector<Tensor> parts, call.InRange(0, call.count()));
  if (parts.empty()) return Fail(ErrorCode::kInvalidArgument, "has no operands");
  TRY_ASSIGN(const int axis, call.b.Axis(call.IntOr("axis", 0), call.b.rank(parts[0]) + 1));
  return call.b.Stack(parts, axis);
}

Result<Values> Unpack(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const int axis, call.b.Axis(call.IntOr("axis", 0), call.b.rank(x)));
  const auto count = call.b.dim(x, axis).Constant();
  if (!count || *count > kMaxKnown || *count != call.IntOr("num", *count))
    return Unsupported("does not know how many parts there are");
  Values parts;
  for (int64_t i = 0; i < *count; ++i) {
    TRY_ASSIGN(const Tensor part, call.b.Pick(x, axis, i));
    parts.push_back(Value{part});
  }
  return parts;
}

// The axis comes last, or first in the older form.
template <bool axis_first>
Result<Tensor> Concat(Call& call) {
  const int begin = axis_first ? 1 : 0;
  TRY_ASSIGN(const std::vector<Tensor> parts,
             call.InRange(begin, call.count() - (axis_first ? 0 : 1)));
  if (parts.empty()) return Fail(ErrorCode::kInvalidArgument, "has no operands");
  TRY_ASSIGN(const int axis, call.Axis(axis_first ? 0 : call.count() - 1, call.b.rank(parts[0])));
  return call.b.Join(parts, axis);
}

// ---- rearranging ----

Result<Tensor> Transpose(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(std::vector<int64_t> perm, call.Integers(1, "permutation"));
  for (int64_t& axis : perm) {
    TRY_ASSIGN(axis, call.b.Axis(axis, call.b.rank(x)));
  }
  return call.b.Transpose(x, perm);
}

Result<Tensor> BroadcastTo(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const ir::Shape shape, call.Shape(1, "shape"));
  return call.b.Expand(x, shape);
}

Result<Tensor> Tile(Call& call) {
  TRY_ASSIGN(Tensor x, call.In(0));
  TRY_ASSIGN(const std::vector<Size> repeats, call.Sizes(1, "list of multiples"));
  if (static_cast<int>(repeats.size()) != call.b.rank(x))
    return Fail(ErrorCode::kInvalidArgument, "multiples do not have x's rank");
  std::vector<int64_t> known;
  ir::Shape expanded = call.b.shape(x);
  for (size_t i = 0; i < repeats.size(); ++i) {
    known.push_back(repeats[i].Constant().value_or(1));
    if (repeats[i].IsConstant()) continue;
    if (expanded[i] != ir::Constant(1) || !repeats[i].IsMonotone())
      return Unsupported("repeats a dimension as often as " + repeats[i].ToString());
    expanded[i] = ir::DimOf(repeats[i]);
  }
  TRY_ASSIGN(x, call.b.Expand(x, expanded));
  return call.b.Tile(x, known);
}

struct Paddings {
  std::vector<int64_t> before, after;
};

Result<Paddings> ReadPaddings(Call& call, int operand, int rank) {
  TRY_ASSIGN(const std::vector<int64_t> pairs, call.Integers(operand, "padding"));
  if (static_cast<int>(pairs.size()) != 2 * rank)
    return Fail(ErrorCode::kInvalidArgument, "padding does not have x's rank");
  Paddings paddings;
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (pairs[i] < 0 || pairs[i] > (int64_t{1} << 31))
      return Fail(ErrorCode::kInvalidArgument, fmt::format("padding of {}", pairs[i]));
    (i % 2 == 0 ? paddings.before : paddings.after).push_back(pairs[i]);
  }
  return paddings;
}

Result<Tensor> Pad(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const Paddings paddings, ReadPaddings(call, 1, call.b.rank(x)));
  double value = 0;
  if (call.count() > 2) {
    TRY_ASSIGN(const Tensor given, call.In(2));
    const auto known = call.b.KnownReals(given);
    if (!known || known->size() != 1) return Unsupported("its padding value is not known");
    value = known->front();
  }
  return call.b.Pad(x, paddings.before, paddings.after, value);
}

Result<Tensor> MirrorPad(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const Paddings paddings, ReadPaddings(call, 1, call.b.rank(x)));
  const bool reflects = call.StringOr("mode", "REFLECT") == "REFLECT";
  return call.b.PadBy(
      x, paddings.before, paddings.after,
      reflects ? TensorBuilder::PadMode::kReflect : TensorBuilder::PadMode::kSymmetric);
}

Result<Tensor> Reverse(Call& call) {
  TRY_ASSIGN(Tensor x, call.In(0));
  TRY_ASSIGN(const std::vector<int64_t> axes, call.Integers(1, "list of axes"));
  for (const int64_t listed : axes) {
    TRY_ASSIGN(const int axis, call.b.Axis(listed, call.b.rank(x)));
    TRY_ASSIGN(x, call.b.Slice(x, axis, std::nullopt, std::nullopt, -1));
  }
  return x;
}

Result<Tensor> Roll(Call& call) {
  TRY_ASSIGN(Tensor x, call.In(0));
  TRY_ASSIGN(const std::vector<int64_t> shifts, call.Integers(1, "shift"));
  TRY_ASSIGN(const std::vector<int64_t> axes, call.Integers(2, "axis"));
  if (shifts.size() != axes.size())
    return Fail(ErrorCode::kInvalidArgument, "shift and axis differ in length");
  for (size_t i = 0; i < axes.size(); ++i) {
    TRY_ASSIGN(const int axis, call.b.Axis(axes[i], call.b.rank(x)));
    const auto size = call.b.dim(x, axis).Constant();
    if (!size) return Unsupported("rolls a dimension that is not known");
    const int64_t by = ((shifts[i] % *size) + *size) % *size;
    if (by == 0) continue;
    TRY_ASSIGN(const Tensor end, call.b.Slice(x, axis, Size(*size - by), std::nullopt));
    TRY_ASSIGN(const Tensor front, call.b.Slice(x, axis, std::nullopt, Size(*size - by)));
    const Tensor parts[] = {end, front};
    TRY_ASSIGN(x, call.b.Join(parts, axis));
  }
  return x;
}

std::vector<int64_t> Iota(size_t begin, size_t end) {
  std::vector<int64_t> list(end - begin);
  std::iota(list.begin(), list.end(), static_cast<int64_t>(begin));
  return list;
}

// Blocks of the padded spatial dimensions go to the front of the batch.
Result<Tensor> SpaceToBatch(Call& call) {
  TRY_ASSIGN(Tensor x, call.In(0));
  TRY_ASSIGN(const std::vector<int64_t> blocks, call.Integers(1, "block shape"));
  const size_t m = blocks.size(), rank = static_cast<size_t>(call.b.rank(x));
  if (m == 0 || rank < m + 1 || rank + m > ir::kMaxRank) return Unsupported("its rank");
  TRY_ASSIGN(Paddings paddings, ReadPaddings(call, 2, static_cast<int>(m)));
  paddings.before.insert(paddings.before.begin(), 0);
  paddings.after.insert(paddings.after.begin(), 0);
  paddings.before.resize(rank, 0);
  paddings.after.resize(rank, 0);
  TRY_ASSIGN(x, call.b.Pad(x, paddings.before, paddings.after, 0));
  const ir::Shape padded = call.b.shape(x);
  ir::Shape cut = {padded[0]}, target;
  std::vector<int64_t> perm;
  std::optional<Size> batch = ir::SizeOf(padded[0]);
  for (size_t i = 0; i < m; ++i) {
    const auto in_blocks =
        blocks[i] < 1 ? std::nullopt : ir::SizeOf(padded[i + 1]).DividedBy(Size(blocks[i]));
    if (batch) batch = batch->Times(Size(blocks[i]));
    if (!in_blocks || !batch) return Unsupported("its blocks do not fit");
    cut.push_back(ir::DimOf(*in_blocks));
    cut.push_back(ir::Constant(blocks[i]));
    perm.push_back(static_cast<int64_t>(2 * i + 2));
    target.push_back(ir::DimOf(*in_blocks));
  }
  target.insert(target.begin(), ir::DimOf(*batch));
  perm.push_back(0);
  for (size_t i = 0; i < m; ++i) perm.push_back(static_cast<int64_t>(2 * i + 1));
  for (const int64_t axis : Iota(2 * m + 1, rank + m)) perm.push_back(axis);
  cut.insert(cut.end(), padded.begin() + static_cast<int64_t>(m) + 1, padded.end());
  target.insert(target.end(), padded.begin() + static_cast<int64_t>(m) + 1, padded.end());
  TRY_ASSIGN(x, call.b.Reshape(x, cut));
  TRY_ASSIGN(x, call.b.Transpose(x, perm));
  return call.b.Reshape(x, target);
}

// The inverse; crops where the other pads.
Result<Tensor> BatchToSpace(Call& call) {
  TRY_ASSIGN(Tensor x, call.In(0));
  TRY_ASSIGN(const std::vector<int64_t> blocks, call.Integers(1, "block shape"));
  const size_t m = blocks.size(), rank = static_cast<size_t>(call.b.rank(x));
  if (m == 0 || rank < m + 1 || rank + m > ir::kMaxRank) return Unsupported("its rank");
  TRY_ASSIGN(const Paddings crops, ReadPaddings(call, 2, static_cast<int>(m)));
  const ir::Shape shape = call.b.shape(x);
  ir::Shape cut, target;
  std::optional<Size> batch = ir::SizeOf(shape[0]);
  std::vector<int64_t> perm = {static_cast<int64_t>(m)};
  for (size_t i = 0; i < m; ++i) {
    batch = blocks[i] < 1 || !batch ? std::nullopt : batch->DividedBy(Size(blocks[i]));
    const auto whole = ir::SizeOf(shape[i + 1]).Times(Size(blocks[i]));
    if (!batch || !whole) return Unsupported("its blocks do not fit");
    cut.push_back(ir::Constant(blocks[i]));
    perm.push_back(static_cast<int64_t>(m + 1 + i));
    perm.push_back(static_cast<int64_t>(i));
    target.push_back(ir::DimOf(*whole));
  }
  for (const int64_t axis : Iota(2 * m + 1, rank + m)) perm.push_back(axis);
  cut.push_back(ir::DimOf(*batch));
  cut.insert(cut.end(), shape.begin() + 1, shape.end());
  target.insert(target.begin(), ir::DimOf(*batch));
  target.insert(target.end(), shape.begin() + static_cast<int64_t>(m) + 1, shape.end());
  TRY_ASSIGN(x, call.b.Reshape(x, cut));
  TRY_ASSIGN(x, call.b.Transpose(x, perm));
  TRY_ASSIGN(x, call.b.Reshape(x, target));
  for (size_t i = 0; i < m; ++i) {
    const int axis = static_cast<int>(i) + 1;
    const auto end = call.b.dim(x, axis).Minus(Size(crops.after[i]));
    TRY_ASSIGN(x, call.b.Slice(x, axis, Size(crops.before[i]), end));
  }
  return x;
}

// Keeps `lower` diagonals below the main one and `upper` above it; negative: all of them.
Result<Tensor> MatrixBandPart(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const int64_t lower, call.Integer(1, "num_lower"));
  TRY_ASSIGN(const int64_t upper, call.Integer(2, "num_upper"));
  const int rank = call.b.rank(x);
  if (rank < 2) return Fail(ErrorCode::kInvalidArgument, "of no matrix");
  const ir::Shape& shape = call.b.shape(x);
  const ir::Shape matrix(shape.end() - 2, shape.end());
  TRY_ASSIGN(const Tensor rows, call.b.Iota(matrix, 0));
  TRY_ASSIGN(const Tensor columns, call.b.Iota(matrix, 1));
  TRY_ASSIGN(const Tensor below, call.b.Binary(MapOp::kSub, rows, columns));
  TRY_ASSIGN(const Tensor above, call.b.Unary(MapOp::kNeg, below));
  Tensor kept = x;
  const auto zero = call.b.Scalar(call.b.dtype(x), 0);
  for (const auto& [distance, most] : {std::pair(below, lower), std::pair(above, upper)}) {
    if (most < 0) continue;
    TRY_ASSIGN(const Tensor limit,
               call.b.Binary(MapOp::kLessEqual, distance, static_cast<double>(most)));
    TRY_ASSIGN(kept, call.b.Select(limit, kept, zero));
  }
  return kept;
}

constexpr OpEntry kOps[] = {
    {"Reshape", nullptr, Reshape},
    {"ExpandDims", nullptr, ExpandDims},
    {"Squeeze", nullptr, Squeeze},
    {"Shape", Shape},
    {"ShapeN", nullptr, ShapeN},
    {"Size", SizeOfTensor},
    {"Rank", Rank},
    {"BroadcastArgs", BroadcastArgs},
    {"InvertPermutation", InvertPermutation},
    {"Fill", Fill},
    {"ZerosLike", FillLike<0>},
    {"OnesLike", FillLike<1>},
    {"Range", Range},
    {"StridedSlice", StridedSlice},
    {"Slice", Slice},
    {"Split", nullptr, Split},
    {"SplitV", nullptr, SplitV},
    {"Pack", Pack},
    {"Unpack", nullptr, Unpack},
    {"Concat", Concat<true>},
    {"ConcatV2", Concat<false>},
    {"Transpose", Transpose},
    {"BroadcastTo", BroadcastTo},
    {"Tile", Tile},
    {"Pad", Pad},
    {"PadV2", Pad},
    {"MirrorPad", MirrorPad},
    {"ReverseV2", Reverse},
    {"Roll", Roll},
    {"SpaceToBatchND", SpaceToBatch},
    {"BatchToSpaceND", BatchToSpace},
    {"MatrixBandPart", MatrixBandPart},
};

}  // namespace

std::span<const OpEntry> ShapeOps() { return kOps; }

}  // namespace millpower::import
