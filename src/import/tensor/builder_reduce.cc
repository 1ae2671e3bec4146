// Reductions, normalisations, linear algebra and windows.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "import/tensor/builder.h"
#include "import/tensor/known.h"

namespace millpower::import {
namespace {

std::unexpected<Error> Misfit(std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message));
}
std::unexpected<Error> Unsupported(std::string message) {
  return Fail(ErrorCode::kUnsupported, std::move(message));
}

std::optional<MapOp> FoldOf(Reduction kind) {
  switch (kind) {
    case Reduction::kSum:
      return MapOp::kAdd;
    case Reduction::kProduct:
      return MapOp::kMul;
    case Reduction::kMax:
      return MapOp::kMax;
    case Reduction::kMin:
      return MapOp::kMin;
    case Reduction::kAll:
      return MapOp::kLogicalAnd;
    case Reduction::kAny:
      return MapOp::kLogicalOr;
    default:
      return std::nullopt;
  }
}

ir::Shape WithoutAxes(ir::Shape shape, const std::vector<int64_t>& axes) {
  for (size_t i = axes.size(); i-- > 0;) shape.erase(shape.begin() + axes[i]);
  return shape;
}

}  // namespace

// Of a known value: all of it, one operation after the other.
std::optional<Tensor> TensorBuilder::FoldReduce(Reduction kind, Tensor x) {
  const Entry known = entry(x);
  const auto op = FoldOf(kind);
  if (!op || (!known.sizes && !known.reals)) return std::nullopt;
  const size_t count = known.sizes ? known.sizes->size() : known.reals->size();
  if (count == 0 && kind != Reduction::kProduct && kind != Reduction::kSum) return std::nullopt;
  Expression expression;
  expression.Apply(*op, known.dtype,
                   {expression.Load(0, known.dtype), expression.Load(1, known.dtype)});
  const auto at = [&](size_t i) {
    return known.sizes ? Known((*known.sizes)[i]) : Known((*known.reals)[i]);
  };
  const int64_t empty = kind == Reduction::kProduct ? 1 : 0;
  Known sum =
      count > 0 ? at(0) : (known.sizes ? Known(Size(empty)) : Known(static_cast<double>(empty)));
  for (size_t i = 1; i < count; ++i) {
    const Known pair[] = {sum, at(i)};
    const auto next = Evaluate(expression, pair, {});
    if (!next) return std::nullopt;
    sum = *next;
  }
  if (known.sizes) return AddKnown(known.dtype, {}, std::vector{std::get<Size>(sum)});
  return AddKnown(known.dtype, {}, std::vector{std::get<double>(sum)});
}

Result<Tensor> TensorBuilder::Reduce(Reduction kind, Tensor x, std::vector<int> axes,
                                     bool keep_dims) {
  if (axes.empty()) {
    axes.resize(static_cast<size_t>(rank(x)));
    std::iota(axes.begin(), axes.end(), 0);
  }
  std::ranges::sort(axes);
  const std::vector<int64_t> sorted(axes.begin(), axes.end());
  for (const int64_t axis : sorted)
    if (axis < 0 || axis >= rank(x))
      return Misfit("axis " + std::to_string(axis) + " is not there");
  if (std::ranges::adjacent_find(sorted) != sorted.end()) return Misfit("an axis is reduced twice");
  ir::Shape kept = shape(x);
  for (const int64_t axis : sorted) kept[static_cast<size_t>(axis)] = ir::Constant(1);
  const ir::Shape target = keep_dims ? kept : WithoutAxes(kept, sorted);
  if (static_cast<int>(sorted.size()) == rank(x)) {
    if (const auto folded = FoldReduce(kind, x)) return Reshape(*folded, target);
  }
  const bool is_place = kind >= Reduction::kArgMax && kind <= Reduction::kLastArgMin;
  const bool nothing = !is_place && std::ranges::all_of(sorted, [&](int64_t axis) {
    return shape(x)[static_cast<size_t>(axis)] == ir::Constant(1);
  });
  if (nothing) return Reshape(x, target);
  TRY_ASSIGN(const Tensor reduced, Node(ir::Op::kReduce, std::span(&x, 1),
                                        {{"kind", static_cast<int64_t>(kind)}, {"axes", sorted}}));
  return Reshape(reduced, target);
}

Result<Tensor> TensorBuilder::Cumulate(Reduction kind, Tensor x, int axis, bool exclusive,
                                       bool reverse) {
  return Node(ir::Op::kCumulate, std::span(&x, 1),
              {{"kind", static_cast<int64_t>(kind)},
               {"axis", int64_t{axis}},
               {"exclusive", int64_t{exclusive}},
               {"reverse", int64_t{reverse}}});
}

Result<Tensor> TensorBuilder::Softmax(Tensor x, int axis, bool log) {
  const int last = rank(x) - 1;
  TRY_ASSIGN(const Tensor turned, SwapAxes(x, axis, last));
  TRY_ASSIGN(const Tensor y,
             Node(ir::Op::kSoftmax, std::span(&turned, 1), {{"log", int64_t{log}}}));
  return SwapAxes(y, axis, last);
}

Result<Tensor> TensorBuilder::LayerNorm(Tensor x, int first_axis, Tensor scale, Tensor bias,
                                        double epsilon) {
  const ir::Shape whole = shape(x);
  const ir::Shape inner(whole.begin() + first_axis, whole.end());
  TRY_ASSIGN(const Tensor rows, Flatten(x, first_axis, rank(x)));
  // Scale and bias of exactly the normalised shape are part of the operator, others come after.
  const auto fits = [&](Tensor t) { return t.present() && shape(t) == inner; };
  const ir::Shape one_row = {shape(rows).back()};
  Tensor operands[] = {rows, {}, {}};
  const bool scale_fits = fits(scale);
  if (scale_fits) {
    TRY_ASSIGN(operands[1], Reshape(scale, one_row));
  }
  const bool bias_fits = fits(bias) && (scale_fits || !scale.present());
  if (bias_fits) {
    TRY_ASSIGN(operands[2], Reshape(bias, one_row));
  }
  TRY_ASSIGN(Tensor y, Node(ir::Op::kLayerNorm, operands, {{"epsilon", epsilon}}));
  TRY_ASSIGN(y, Reshape(y, whole));
  if (scale.present() && !scale_fits) {
    TRY_ASSIGN(y, Binary(MapOp::kMul, y, scale));
  }
  if (bias.present() && !bias_fits) {
    TRY_ASSIGN(y, Binary(MapOp::kAdd, y, bias));
  }
  return y;
}

// As one scale and one shift by channel, which are computed on the few channels.
Result<Tensor> TensorBuilder::BatchNorm(Tensor x, Tensor scale, Tensor bias, Tensor mean,
                                        Tensor variance, double epsilon) {
  const DType type = dtype(variance);
  TRY_ASSIGN(const Tensor shifted, Binary(MapOp::kAdd, variance, epsilon));
  TRY_ASSIGN(const Tensor deviation, Unary(MapOp::kSqrt, shifted));
  TRY_ASSIGN(Tensor factor, Unary(MapOp::kReciprocal, deviation));
  if (scale.present()) {
    TRY_ASSIGN(const Tensor typed, Cast(scale, type));
    TRY_ASSIGN(factor, Binary(MapOp::kMul, factor, typed));
  }
  TRY_ASSIGN(const Tensor typed_mean, Cast(mean, type));
  TRY_ASSIGN(const Tensor moved, Binary(MapOp::kMul, typed_mean, factor));
  TRY_ASSIGN(Tensor shift, Unary(MapOp::kNeg, moved));
  if (bias.present()) {
    TRY_ASSIGN(const Tensor typed, Cast(bias, type));
    TRY_ASSIGN(shift, Binary(MapOp::kAdd, typed, shift));
  }
  ir::Shape by_channel(static_cast<size_t>(rank(x)), ir::Constant(1));
  if (by_channel.size() > 1) by_channel[1] = shape(factor)[0];
  TRY_ASSIGN(factor, Reshape(factor, by_channel));
  TRY_ASSIGN(shift, Reshape(shift, by_channel));
  TRY_ASSIGN(factor, Cast(factor, dtype(x)));
  TRY_ASSIGN(shift, Cast(shift, dtype(x)));
  TRY_ASSIGN(const Tensor scaled, Binary(MapOp::kMul, x, factor));
  return Binary(MapOp::kAdd, scaled, shift);
}

Result<TensorBuilder::TopKResult> TensorBuilder::TopK(Tensor x, int axis, int64_t k, bool largest) {
  const int last = rank(x) - 1;
  TRY_ASSIGN(const Tensor turned, SwapAxes(x, axis, last));
  TRY_ASSIGN(const Tensor places,
             Node(ir::Op::kTopK, std::span(&turned, 1), {{"k", k}, {"largest", int64_t{largest}}}));
  TRY_ASSIGN(const Tensor values, TakeAlong(turned, places, last, IndexPolicy::kError));
  TopKResult result;
  TRY_ASSIGN(result.values, SwapAxes(values, axis, last));
  TRY_ASSIGN(result.indices, SwapAxes(places, axis, last));
  return result;
}

// ---- linear algebra ----

Result<Tensor> TensorBuilder::Contract(Tensor a, Tensor b, bool transpose_a, bool transpose_b) {
  const Tensor operands[] = {a, b};
  return Node(ir::Op::kContract, operands,
              {{"transpose_a", int64_t{transpose_a}}, {"transpose_b", int64_t{transpose_b}}});
}

Result<Tensor> TensorBuilder::MatMul(Tensor a, Tensor b) {
  if (rank(a) == 0 || rank(b) == 0) return Misfit("a matrix product with a scalar");
  const bool row = rank(a) == 1, column = rank(b) == 1;
  if (row) {
    TRY_ASSIGN(a, Unsqueeze(a, 0));
  }
  if (column) {
    TRY_ASSIGN(b, Unsqueeze(b, 1));
  }
  TRY_ASSIGN(Tensor y, Contract(a, b, false, false));
  if (column) {
    TRY_ASSIGN(y, Squeeze(y, {rank(y) - 1}));
  }
  if (row) {
    TRY_ASSIGN(y, Squeeze(y, {rank(y) - (column ? 1 : 2)}));
  }
  return y;
}

Result<Tensor> TensorBuilder::Linear(Tensor x, Tensor weight, Tensor bias) {
  const bool is_row = rank(x) == 1;
  if (is_row) {
    TRY_ASSIGN(x, Unsqueeze(x, 0));
  }
  TRY_ASSIGN(Tensor y, Contract(x, weight, false, true));
  if (bias.present()) {
    TRY_ASSIGN(y, Binary(MapOp::kAdd, y, bias));
  }
  if (!is_row) return y;
  return Squeeze(y, {0});
}

Result<Tensor> TensorBuilder::Conv(Tensor x, Tensor w, Tensor bias, const Window& window,
                                   int64_t groups) {
  const Tensor operands[] = {x, w, bias};
  return Node(ir::Op::kConv, operands,
              {{"strides", window.strides},
               {"pads_begin", window.pads_begin},
               {"pads_end", window.pads_end},
               {"dilations", window.dilations},
               {"groups", groups}});
}

// The gradient of a convolution: x with zeros between its elements, under the mirrored kernel.
Result<Tensor> TensorBuilder::ConvTranspose(Tensor x, Tensor w, Tensor bias, const Window& window,
                                            int64_t groups,
                                            const std::vector<int64_t>& output_padding) {
  const auto axes = static_cast<size_t>(rank(x));
  const size_t spatial = window.strides.size();
  const auto w_shape = ConstantShape(w);
  if (axes != spatial + 2 || !w_shape || w_shape->size() != axes || groups < 1 ||
      (*w_shape)[0] % groups != 0)
    return Misfit("weight, strides and groups of a transposed convolution do not fit x");
  std::vector<int64_t> before(axes, 0), after(axes, 0), interior(axes, 0);
  for (size_t i = 0; i < spatial; ++i) {
    const int64_t reach = window.dilations[i] * ((*w_shape)[i + 2] - 1);
    interior[i + 2] = window.strides[i] - 1;
    before[i + 2] = reach - window.pads_begin[i];
    after[i + 2] = reach - window.pads_end[i] + (output_padding.empty() ? 0 : output_padding[i]);
    TRY_ASSIGN(w, Slice(w, static_cast<int>(i + 2), std::nullopt, std::nullopt, -1));
  }
  TRY_ASSIGN(x, Pad(x, before, after, 0, interior));
  // [c, out / groups, ...] -> [groups, c / groups, out / groups, ...] -> [out, c / groups, ...]
  ir::Shape by_group = {ir::Constant(groups), ir::Constant((*w_shape)[0] / groups),
                        ir::Constant((*w_shape)[1])};
  for (size_t i = 2; i < axes; ++i) by_group.push_back(ir::Constant((*w_shape)[i]));
  TRY_ASSIGN(w, Reshape(w, by_group));
  TRY_ASSIGN(w, SwapAxes(w, 1, 2));
  TRY_ASSIGN(w, Flatten(w, 0, 2));
  const std::vector<int64_t> ones(spatial, 1), zeros(spatial, 0);
  return Conv(x, w, bias,
              {.kernel = {},
               .strides = ones,
               .pads_begin = zeros,
               .pads_end = zeros,
               .dilations = window.dilations},
              groups);
}

Result<Tensor> TensorBuilder::Pool(Pooling kind, Tensor x, const Window& window, bool ceil,
                                   bool count_padding) {
  const size_t spatial = window.kernel.size();
  if (static_cast<size_t>(rank(x)) != spatial + 2 || window.strides.size() != spatial ||
      window.pads_begin.size() != spatial || window.pads_end.size() != spatial ||
      window.dilations.size() != spatial)
    return Misfit("the windows of a pooling do not have x's rank");
  std::vector<int64_t> out;
  for (size_t i = 0; i < spatial; ++i) {
    const auto in = dim(x, static_cast<int>(i) + 2).Constant();
    if (!in) return Unsupported("pooling over a symbolic dimension");
    const int64_t stride = window.strides[i];
    const int64_t reach = window.dilations[i] * (window.kernel[i] - 1) + 1;
    const int64_t room = *in + window.pads_begin[i] + window.pads_end[i] - reach;
    if (stride < 1 || room < 0) return Misfit("a window is larger than what it pools");
    int64_t count = (room + (ceil ? stride - 1 : 0)) / stride + 1;
    if (ceil && (count - 1) * stride >= *in + window.pads_begin[i]) --count;
    out.push_back(count);
  }
  return Node(ir::Op::kPool, std::span(&x, 1),
              {{"kind", static_cast<int64_t>(kind)},
               {"kernel", window.kernel},
               {"strides", window.strides},
               {"pads_begin", window.pads_begin},
               {"pads_end", window.pads_end},
               {"dilations", window.dilations},
               {"out", out},
               {"count_padding", int64_t{count_padding}}});
}

Result<Tensor> TensorBuilder::TransformAxis(Tensor x, int axis, const std::vector<double>& matrix,
                                            int64_t out) {
  const auto in = dim(x, axis).Constant();
  if (!in || static_cast<int64_t>(matrix.size()) != *in * out)
    return Unsupported("a transform along a symbolic dimension");
  TRY_ASSIGN(const Tensor m, Constant(dtype(x), {out, *in}, ToBytes(dtype(x), matrix)));
  const int last = rank(x) - 1;
  TRY_ASSIGN(Tensor turned, SwapAxes(x, axis, last));
  const bool is_row = rank(x) == 1;
  if (is_row) {
    TRY_ASSIGN(turned, Unsqueeze(turned, 0));
  }
  TRY_ASSIGN(Tensor y, Contract(turned, m, false, true));
  if (is_row) return Squeeze(y, {0});
  return SwapAxes(y, axis, last);
}

Result<Tensor> TensorBuilder::ScaledDotProductAttention(Tensor q, Tensor k, Tensor v, Tensor mask,
                                                        bool causal, std::optional<double> scale) {
  const DType type = dtype(q);
  const auto width = dim(q, -1).Constant();
  if (!scale && !width) return Unsupported("attention over heads of symbolic width");
  const double factor = scale.value_or(1 / std::sqrt(static_cast<double>(width.value_or(1))));
  TRY_ASSIGN(const Tensor scaled, Binary(MapOp::kMul, q, factor));
  TRY_ASSIGN(Tensor scores, Contract(scaled, k, false, true));
  const double lowest = -std::numeric_limits<double>::infinity();
  if (causal) {
    Expression e;
    const int16_t score = e.Load(0, type);
    const int axes = rank(scores);
    const int16_t is_seen =
        e.Apply(MapOp::kLessEqual, DType::kBool, {e.Index(axes - 1), e.Index(axes - 2)});
    e.Apply(MapOp::kSelect, type, {is_seen, score, e.Constant(type, lowest)});
    TRY_ASSIGN(scores, Map(e, std::span(&scores, 1)));
  }
  if (mask.present() && dtype(mask) == DType::kBool) {
    TRY_ASSIGN(scores, Select(mask, scores, Scalar(type, lowest)));
  } else if (mask.present()) {
    TRY_ASSIGN(const Tensor typed, Cast(mask, type));
    TRY_ASSIGN(scores, Binary(MapOp::kAdd, scores, typed));
  }
  TRY_ASSIGN(const Tensor shares, Softmax(scores, rank(scores) - 1, false));
  return Contract(shares, v, false, false);
}

}  // namespace millpower::import
