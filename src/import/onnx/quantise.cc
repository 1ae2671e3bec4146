// Quantised values and products of them.
#include <fmt/format.h>

#include <limits>

#include "import/onnx/formula.h"
#include "import/onnx/window.h"

namespace millpower::import::onnx {
namespace {

struct Range {
  double min, max;
};
Result<Range> RangeOf(DType type) {
  switch (type) {
    case DType::kI8:
      return Range{-128, 127};
    case DType::kU8:
      return Range{0, 255};
    case DType::kI16:
      return Range{-32768, 32767};
    case DType::kU16:
      return Range{0, 65535};
    default:
      return Unsupported(fmt::format("quantised values of {}", Name(type)));
  }
}

// Scales or zero points as they broadcast to x: one for all, one for each place of an axis, or one
// for each `block` places of it.
Result<Tensor> Spread(Node& n, Tensor x, Tensor scale) {
  const int rank = n.b.rank(x);
  if (n.b.rank(scale) == 0 || !scale.present()) return scale;
  const int64_t block = n.Int("block_size", 0);
  if (n.b.rank(scale) == 1 && n.b.dim(scale, 0) == Size(1) && block == 0)
    return n.b.Reshape(scale, ir::Shape{});
  TRY_ASSIGN(const int axis, n.Axis("axis", 1, rank));
  if (n.b.rank(scale) == 1 && block == 0) {
    std::vector<Size> sizes(static_cast<size_t>(rank), Size(1));
    sizes[static_cast<size_t>(axis)] = n.b.dim(scale, 0);
    return n.b.Reshape(scale, sizes);
  }
  if (block < 1 || n.b.rank(scale) != rank) return Invalid("scales do not fit x");
  TRY_ASSIGN(const int64_t size, n.ConstantDim(x, axis));
  if (size > kMaxKnown) return Unsupported("an axis in blocks that is so long");
  std::vector<Size> places;
  for (int64_t i = 0; i < size; ++i) places.push_back(Size(i / block));
  return n.b.Take(scale, n.b.Sizes(places), axis);
}

// saturate(round(x / scale) + zero_point), in f32 (f64 for i32 and wider).
Result<Tensor> Quantised(Node& n, Tensor x, Tensor scale, Tensor zero, DType type) {
  TRY_ASSIGN(const Range range, RangeOf(type));
  const DType wide =
      n.b.dtype(x) == DType::kF32 || SizeBytes(n.b.dtype(x)) < 4 ? DType::kF32 : DType::kF64;
  TRY_ASSIGN(const Tensor value, n.b.Cast(x, wide));
  TRY_ASSIGN(const Tensor step, n.b.Cast(scale, wide));
  std::vector<Tensor> operands = {value, step};
  if (zero.present()) {
    TRY_ASSIGN(const Tensor offset, n.b.Cast(zero, wide));
    operands.push_back(offset);
  }
  Formula f(n.b, operands);
  auto y = f(MapOp::kRound, f(MapOp::kDiv, f.Load(0), f.Load(1)));
  if (zero.present()) y = f(MapOp::kAdd, y, f.Load(2));
  f.Cast(f.Clamp(y, range.min, range.max), type);
  return f.Done();
}

Result<Tensor> QuantizeLinear(Node& n) {
  const Tensor x = n.in(0);
  TRY_ASSIGN(DType type, n.TypeAttribute("output_dtype", DType::kU8));
  if (n.has(2)) type = n.b.dtype(n.in(2));
  TRY_ASSIGN(const Tensor scale, Spread(n, x, n.in(1)));
  Tensor zero;
  if (n.has(2)) {
    TRY_ASSIGN(zero, Spread(n, x, n.in(2)));
  }
  return Quantised(n, x, scale, zero, type);
}

// (x - zero) * scale, in f32 when the scale is not f64.
Result<Tensor> Dequantised(Node& n, Tensor x, Tensor scale, Tensor zero) {
  const DType type = n.b.dtype(scale);
  Tensor steps = x;
  TRY_ASSIGN(steps, n.b.Cast(steps, DType::kI32));
  if (zero.present()) {
    TRY_ASSIGN(const Tensor offset, n.b.Cast(zero, DType::kI32));
    TRY_ASSIGN(steps, n.b.Binary(MapOp::kSub, steps, offset));
  }
  TRY_ASSIGN(const Tensor real, n.b.Cast(steps, DType::kF32));
  TRY_ASSIGN(const Tensor factor, n.b.Cast(scale, DType::kF32));
  TRY_ASSIGN(const Tensor y, n.b.Binary(MapOp::kMul, real, factor));
  return n.b.Cast(y, type);
}

Result<Tensor> DequantizeLinear(Node& n) {
  const Tensor x = n.in(0);
  TRY_ASSIGN(const Tensor scale, Spread(n, x, n.in(1)));
  Tensor zero;
  if (n.has(2)) {
    TRY_ASSIGN(zero, Spread(n, x, n.in(2)));
  }
  TRY_ASSIGN(const Tensor y, Dequantised(n, x, scale, zero));
  TRY_ASSIGN(const DType type, n.TypeAttribute("output_dtype", n.b.dtype(y)));
  return n.b.Cast(y, type);
}

// To u8, by the range of all values, which is made to hold 0.
Result<Values> DynamicQuantizeLinear(Node& n) {
  const Tensor x = n.in(0);
  TRY_ASSIGN(const Tensor max, n.b.Reduce(Reduction::kMax, x, {}, false));
  TRY_ASSIGN(const Tensor min, n.b.Reduce(Reduction::kMin, x, {}, false));
  Formula by_range(n.b, {max, min});
  const auto top = by_range(MapOp::kMax, by_range.Load(0), by_range.Number(0));
  const auto bottom = by_range(MapOp::kMin, by_range.Load(1), by_range.Number(0));
  by_range(MapOp::kDiv, by_range(MapOp::kSub, top, bottom), by_range.Number(255));
  TRY_ASSIGN(const Tensor scale, by_range.Done());
  Formula by_scale(n.b, {min, scale});
  const auto low = by_scale(MapOp::kMin, by_scale.Load(0), by_scale.Number(0));
  const auto ratio = by_scale(MapOp::kDiv, by_scale(MapOp::kNeg, low), by_scale.Load(1));
  by_scale.Cast(by_scale(MapOp::kRound, by_scale.Clamp(ratio, 0, 255)), DType::kU8);
  TRY_ASSIGN(const Tensor zero, by_scale.Done());
  TRY_ASSIGN(const Tensor y, Quantised(n, x, scale, zero, DType::kU8));
  return Values{y, scale, zero};
}

// ---- products ----

// x - zero as i32; zeros of a matrix's rows or columns are lists.
Result<Tensor> Centred(Node& n, Tensor x, Tensor zero, bool by_row) {
  TRY_ASSIGN(const Tensor wide, n.b.Cast(x, DType::kI32));
  if (!zero.present()) return wide;
  TRY_ASSIGN(Tensor offset, n.b.Cast(zero, DType::kI32));
  if (by_row && n.b.rank(offset) == 1 && n.b.dim(offset, 0) != Size(1)) {
    TRY_ASSIGN(offset, n.b.Unsqueeze(offset, 1));
  }
  return n.b.Binary(MapOp::kSub, wide, offset);
}

Result<Tensor> MatMulInteger(Node& n) {
  TRY_ASSIGN(const Tensor a, Centred(n, n.in(0), n.in(2), true));
  TRY_ASSIGN(const Tensor b, Centred(n, n.in(1), n.in(3), false));
  return n.b.MatMul(a, b);
}

// x y scale_x scale_y / scale, rounded to type of the zero point.
Result<Tensor> Requantised(Node& n, Tensor product, Tensor x_scale, Tensor y_scale, Tensor scale,
                           Tensor zero) {
  TRY_ASSIGN(const Tensor a, n.b.Cast(x_scale, DType::kF32));
  TRY_ASSIGN(const Tensor b, n.b.Cast(y_scale, DType::kF32));
  TRY_ASSIGN(const Tensor real, n.b.Cast(product, DType::kF32));
  TRY_ASSIGN(const Tensor factor, n.b.Binary(MapOp::kMul, a, b));
  TRY_ASSIGN(const Tensor value, n.b.Binary(MapOp::kMul, real, factor));
  return Quantised(n, value, scale, zero, n.b.dtype(zero));
}

// a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero
Result<Tensor> QLinearMatMul(Node& n) {
  TRY_ASSIGN(const Tensor a, Centred(n, n.in(0), n.in(2), true));
  TRY_ASSIGN(const Tensor b, Centred(n, n.in(3), n.in(5), false));
  TRY_ASSIGN(const Tensor product, n.b.MatMul(a, b));
  return Requantised(n, product, n.in(1), n.in(4), n.in(6), n.in(7));
}

// Of a list by output channel, as it lies along `axis` of a tensor of this rank.
Result<Tensor> AlongAxis(Node& n, Tensor list, int axis, int rank) {
  if (!list.present() || n.b.rank(list) == 0 || n.b.dim(list, 0) == Size(1)) {
    return list.present() ? n.b.Reshape(list, ir::Shape{}) : Result<Tensor>(list);
  }
  std::vector<Size> sizes(static_cast<size_t>(rank), Size(1));
  sizes[static_cast<size_t>(axis)] = n.b.dim(list, 0);
  return n.b.Reshape(list, sizes);
}

Result<Tensor> IntegerConv(Node& n, Tensor x, Tensor w, Tensor x_zero, Tensor w_zero, Tensor bias) {
  TRY_ASSIGN(const std::vector<int64_t> kernel, KernelOfWeight(n, w));
  TRY_ASSIGN(const auto window, WindowOf(n, x, kernel));
  TRY_ASSIGN(const Tensor zero, AlongAxis(n, x_zero, 1, n.b.rank(x)));
  TRY_ASSIGN(const Tensor a, Centred(n, x, zero, false));
  TRY_ASSIGN(const Tensor by_channel, AlongAxis(n, w_zero, 0, n.b.rank(w)));
  TRY_ASSIGN(const Tensor b, Centred(n, w, by_channel, false));
  return n.b.Conv(a, b, bias, window, n.Int("group", 1));
}

Result<Tensor> ConvInteger(Node& n) {
  return IntegerConv(n, n.in(0), n.in(1), n.in(2), n.in(3), Tensor{});
}

// x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias
Result<Tensor> QLinearConv(Node& n) {
  TRY_ASSIGN(const Tensor product, IntegerConv(n, n.in(0), n.in(3), n.in(2), n.in(5), n.in(8)));
  TRY_ASSIGN(const Tensor scale, AlongAxis(n, n.in(4), 1, n.b.rank(product)));
  TRY_ASSIGN(const Tensor x_scale, AlongAxis(n, n.in(1), 1, n.b.rank(product)));
  return Requantised(n, product, x_scale, scale, n.in(6), n.in(7));
}

constexpr Operator kOperators[] = {
    {"", "QuantizeLinear", One<QuantizeLinear>, 2},
    {"", "DequantizeLinear", One<DequantizeLinear>, 2},
    {"", "DynamicQuantizeLinear", DynamicQuantizeLinear},
    {"", "MatMulInteger", One<MatMulInteger>, 2},
    {"", "ConvInteger", One<ConvInteger>, 2},
    {"", "QLinearMatMul", One<QLinearMatMul>, 8},
    {"", "QLinearConv", One<QLinearConv>, 8},
};

}  // namespace

std::span<const Operator> QuantiseOperators() { return kOperators; }

}  // namespace millpower::import::onnx
