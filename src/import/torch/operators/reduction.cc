// Sums, means, extremes, norms, sorting.
#include <cmath>
#include <limits>
#include <numeric>

#include "import/torch/call.h"

namespace millpower::import::torch {
namespace {

// Whole numbers add up as i64.
Result<Tensor> Summable(Call& call, Tensor x) {
  TRY_ASSIGN(const std::optional<DType> type, call.DTypeAt());
  const DType own = call.b.dtype(x);
  return call.b.Cast(x, type.value_or(IsFloat(own) ? own : DType::kI64));
}

Result<Tensor> Truth(TensorBuilder& b, Tensor x) {
  return b.dtype(x) == DType::kBool ? Result<Tensor>(x) : b.Binary(MapOp::kNotEqual, x, 0);
}

Reduction OnType(Reduction kind, DType type) {
  if (type != DType::kBool) return kind;
  return kind == Reduction::kMax ? Reduction::kAny : Reduction::kAll;
}

template <Reduction kind>
Result<Tensors> Sum(Call& call) {
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(x, Summable(call, x));
  TRY_ASSIGN(const std::vector<int> axes, call.Axes("dim", call.b.rank(x)));
  TRY_ASSIGN(const bool keep, call.Flag("keepdim", false));
  return One(call.b.Reduce(kind, x, axes, keep));
}

template <Reduction kind>
Result<Tensors> Extreme(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const std::vector<int> axes, call.Axes("dim", call.b.rank(x)));
  TRY_ASSIGN(const bool keep, call.Flag("keepdim", false));
  return One(call.b.Reduce(OnType(kind, call.b.dtype(x)), x, axes, keep));
}

Result<Tensors> AMinMax(Call& call) {
  TRY_ASSIGN(const Tensors least, Extreme<Reduction::kMin>(call));
  TRY_ASSIGN(const Tensors most, Extreme<Reduction::kMax>(call));
  return Tensors{least[0], most[0]};
}

Result<Tensor> Place(TensorBuilder& b, Reduction kind, Tensor x, int axis, bool keep) {
  if (b.rank(x) == 0) return b.Scalar(DType::kI64, 0);
  return b.Reduce(kind, x, {axis}, keep);
}

// The extreme along one axis, and where it is.
template <Reduction value, Reduction place>
Result<Tensors> ExtremeAndPlace(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const int axis, call.Axis("dim", call.b.rank(x)));
  TRY_ASSIGN(const Tensors values, Extreme<value>(call));
  TRY_ASSIGN(const bool keep, call.Flag("keepdim", false));
  TRY_ASSIGN(const Tensor places, Place(call.b, place, x, axis, keep));
  return Tensors{values[0], places};
}

template <Reduction place>
Result<Tensors> PlaceOf(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const bool keep, call.Flag("keepdim", false));
  if (call.Has("dim")) {
    TRY_ASSIGN(const int axis, call.Axis("dim", b.rank(x)));
    return One(Place(b, place, x, axis, keep));
  }
  const ir::Shape ones(static_cast<size_t>(b.rank(x)), ir::Constant(1));
  TRY_ASSIGN(x, b.Flatten(x, 0, b.rank(x)));
  TRY_ASSIGN(const Tensor at, b.Reduce(place, x, {0}, false));
  if (!keep) return Tensors{at};
  return One(b.Reshape(at, ones));
}

template <Reduction kind>
Result<Tensors> Logical(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const Tensor truth, Truth(call.b, x));
  TRY_ASSIGN(const std::vector<int> axes, call.Axes("dim", call.b.rank(x)));
  TRY_ASSIGN(const bool keep, call.Flag("keepdim", false));
  return One(call.b.Reduce(kind, truth, axes, keep));
}

Result<Tensors> CountNonZero(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const Tensor truth, Truth(call.b, x));
  TRY_ASSIGN(const Tensor ones, call.b.Cast(truth, DType::kI64));
  TRY_ASSIGN(const std::vector<int> axes, call.Axes("dim", call.b.rank(x)));
  return One(call.b.Reduce(Reduction::kSum, ones, axes, false));
}

template <Reduction kind>
Result<Tensors> Running(Call& call) {
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(x, Summable(call, x));
  if (call.b.rank(x) == 0) return Tensors{x};
  TRY_ASSIGN(const int axis, call.Axis("dim", call.b.rank(x)));
  return One(call.b.Cumulate(kind, x, axis, false, false));
}

// ---- moments ----

// How many elements the axes (none: all) hold, as a scalar of x's type.
Result<Tensor> CountOf(TensorBuilder& b, Tensor x, std::vector<int> axes) {
  if (axes.empty()) {
    axes.resize(static_cast<size_t>(b.rank(x)));
    std::iota(axes.begin(), axes.end(), 0);
  }
  ir::Shape dims;
  for (const int axis : axes) dims.push_back(b.shape(x)[static_cast<size_t>(axis)]);
  const auto count = ir::ElementsOf(dims);
  if (!count) return NotSupported("so many elements");
  if (const auto constant = count->Constant())
    return b.Scalar(b.dtype(x), static_cast<double>(*constant));
  return b.Cast(b.SizeScalar(*count), b.dtype(x));
}

struct Moments {
  Tensor mean, variance;
};
// The variance is the sum of squared distances over max(0, n - correction).
Result<Moments> MomentsOf(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const std::vector<int> axes, call.Axes("dim", b.rank(x)));
  TRY_ASSIGN(const bool keep, call.Flag("keepdim", false));
  TRY_ASSIGN(const bool unbiased, call.Flag("unbiased", true));
  TRY_ASSIGN(const double correction, call.Real("correction", unbiased ? 1 : 0));
  Moments moments;
  TRY_ASSIGN(const Tensor center, b.Reduce(Reduction::kMean, x, axes, true));
  TRY_ASSIGN(moments.mean, b.Reduce(Reduction::kMean, x, axes, keep));
  TRY_ASSIGN(const Tensor distance, b.Binary(MapOp::kSub, x, center));
  TRY_ASSIGN(const Tensor square, b.Binary(MapOp::kMul, distance, distance));
  TRY_ASSIGN(const Tensor sum, b.Reduce(Reduction::kSum, square, axes, keep));
  TRY_ASSIGN(const Tensor count, CountOf(b, x, axes));
  TRY_ASSIGN(Tensor divisor, b.Binary(MapOp::kSub, count, correction));
  TRY_ASSIGN(divisor, b.Binary(MapOp::kMax, divisor, 0));
  TRY_ASSIGN(moments.variance, b.Binary(MapOp::kDiv, sum, divisor));
  return moments;
}

Result<Tensors> Variance(Call& call) {
  TRY_ASSIGN(const Moments moments, MomentsOf(call));
  return Tensors{moments.variance};
}
Result<Tensors> Deviation(Call& call) {
  TRY_ASSIGN(const Moments moments, MomentsOf(call));
  return One(call.b.Unary(MapOp::kSqrt, moments.variance));
}
Result<Tensors> VarianceAndMean(Call& call) {
  TRY_ASSIGN(const Moments moments, MomentsOf(call));
  return Tensors{moments.variance, moments.mean};
}
Result<Tensors> DeviationAndMean(Call& call) {
  TRY_ASSIGN(const Moments moments, MomentsOf(call));
  TRY_ASSIGN(const Tensor deviation, call.b.Unary(MapOp::kSqrt, moments.variance));
  return Tensors{deviation, moments.mean};
}

// ---- norms ----

Result<Tensor> NormOf(TensorBuilder& b, Tensor x, double order, const std::vector<int>& axes,
                      bool keep) {
  const double infinity = std::numeric_limits<double>::infinity();
  if (order == 2) {
    TRY_ASSIGN(const Tensor square, b.Binary(MapOp::kMul, x, x));
    TRY_ASSIGN(const Tensor sum, b.Reduce(Reduction::kSum, square, axes, keep));
    return b.Unary(MapOp::kSqrt, sum);
  }
  TRY_ASSIGN(const Tensor magnitude, b.Unary(MapOp::kAbs, x));
  if (order == infinity) return b.Reduce(Reduction::kMax, magnitude, axes, keep);
  if (order == -infinity) return b.Reduce(Reduction::kMin, magnitude, axes, keep);
  if (order == 1) return b.Reduce(Reduction::kSum, magnitude, axes, keep);
  if (order == 0) {
    TRY_ASSIGN(const Tensor is_there, b.Binary(MapOp::kNotEqual, x, 0));
    TRY_ASSIGN(const Tensor ones, b.Cast(is_there, b.dtype(x)));
    return b.Reduce(Reduction::kSum, ones, axes, keep);
  }
  TRY_ASSIGN(const Tensor power, b.Binary(MapOp::kPow, magnitude, order));
  TRY_ASSIGN(const Tensor sum, b.Reduce(Reduction::kSum, power, axes, keep));
  return b.Binary(MapOp::kPow, sum, 1 / order);
}

Result<Tensors> Norm(Call& call) {
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const std::optional<DType> type, call.DTypeAt());
  TRY_ASSIGN(x, call.b.Cast(x, type.value_or(call.b.dtype(x))));
  TRY_ASSIGN(const double order, call.Real(call.Has("p") ? "p" : "ord", 2));
  TRY_ASSIGN(const std::vector<int> axes, call.Axes("dim", call.b.rank(x)));
  TRY_ASSIGN(const bool keep, call.Flag("keepdim", false));
  return One(NormOf(call.b, x, order, axes, keep));
}

// x1 x2' / (max(|x1|, eps) max(|x2|, eps)) along an axis.
Result<Tensors> CosineSimilarity(Call& call) {
  TensorBuilder& b = call.b;
  Tensor x[2];
  TRY_ASSIGN(x[0], call.TensorAt("x1"));
  TRY_ASSIGN(x[1], call.TensorAt("x2"));
  TRY_ASSIGN(const ir::Shape shape, b.BroadcastShape(x));
  TRY_ASSIGN(const int axis, call.Axis("dim", static_cast<int>(shape.size()), 1));
  TRY_ASSIGN(const double epsilon, call.Real("eps", 1e-8));
  for (Tensor& side : x) {
    TRY_ASSIGN(side, b.Expand(side, shape));
    TRY_ASSIGN(Tensor length, NormOf(b, side, 2, {axis}, true));
    TRY_ASSIGN(length, b.Binary(MapOp::kMax, length, epsilon));
    TRY_ASSIGN(side, b.Binary(MapOp::kDiv, side, length));
  }
  TRY_ASSIGN(const Tensor product, b.Binary(MapOp::kMul, x[0], x[1]));
  return One(b.Reduce(Reduction::kSum, product, {axis}, false));
}

// log(sum(exp(x - m))) + m, with m the largest, or 0 where that is infinite.
Result<Tensors> LogSumExp(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  if (!IsFloat(b.dtype(x))) {
    TRY_ASSIGN(x, b.Cast(x, DType::kF32));
  }
  TRY_ASSIGN(const std::vector<int> axes, call.Axes("dim", b.rank(x)));
  TRY_ASSIGN(const bool keep, call.Flag("keepdim", false));
  TRY_ASSIGN(Tensor largest, b.Reduce(Reduction::kMax, x, axes, true));
  TRY_ASSIGN(const Tensor is_infinite, b.Unary(MapOp::kIsInfinite, largest));
  TRY_ASSIGN(largest, b.Select(is_infinite, b.Scalar(b.dtype(x), 0), largest));
  TRY_ASSIGN(const Tensor shifted, b.Binary(MapOp::kSub, x, largest));
  TRY_ASSIGN(const Tensor grown, b.Unary(MapOp::kExp, shifted));
  TRY_ASSIGN(const Tensor sum, b.Reduce(Reduction::kSum, grown, axes, true));
  TRY_ASSIGN(const Tensor log, b.Unary(MapOp::kLog, sum));
  TRY_ASSIGN(const Tensor result, b.Binary(MapOp::kAdd, log, largest));
  if (keep || b.rank(x) == 0) return Tensors{result};
  std::vector<int> dropped = axes;
  if (dropped.empty()) {
    dropped.resize(static_cast<size_t>(b.rank(x)));
    std::iota(dropped.begin(), dropped.end(), 0);
  }
  return One(b.Squeeze(result, dropped));
}

// ---- softmax ----

template <bool log>
Result<Tensors> Softmax(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const std::optional<DType> type, call.DTypeAt());
  TRY_ASSIGN(const bool half_to_float, call.Flag("half_to_float", false));
  TRY_ASSIGN(x, b.Cast(x, half_to_float ? DType::kF32 : type.value_or(b.dtype(x))));
  if (b.rank(x) == 0) return One(b.Fill({}, b.dtype(x), log ? 0 : 1));
  TRY_ASSIGN(const int axis, call.Axis("dim", b.rank(x)));
  return One(b.Softmax(x, axis, log));
}

// ---- order ----

Result<Tensors> TopK(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const int64_t k, call.Integer("k"));
  TRY_ASSIGN(const int axis, call.Axis("dim", b.rank(x), -1));
  TRY_ASSIGN(const bool largest, call.Flag("largest", true));
  if (b.rank(x) == 0) return NotSupported("of a scalar");
  TRY_ASSIGN(const auto result, b.TopK(x, axis, k, largest));
  return Tensors{result.values, result.indices};
}

Result<Tensors> Sort(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const bool descending, call.Flag("descending", false));
  if (b.rank(x) == 0) return Tensors{x, b.Scalar(DType::kI64, 0)};
  TRY_ASSIGN(const int axis, call.Axis("dim", b.rank(x), -1));
  const auto size = b.dim(x, axis).Constant();
  if (!size) return NotSupported("an axis that is not constant");
  TRY_ASSIGN(const auto result, b.TopK(x, axis, *size, descending));
  return Tensors{result.values, result.indices};
}
Result<Tensors> ArgSort(Call& call) {
  TRY_ASSIGN(const Tensors sorted, Sort(call));
  return Tensors{sorted[1]};
}

constexpr Operator kOperators[] = {
    {"_log_softmax", "default", Softmax<true>},
    {"_safe_softmax", "default", Softmax<false>},
    {"_softmax", "default", Softmax<false>},
    {"all", "default,dim,dims", Logical<Reduction::kAll>},
    {"amax", "default", Extreme<Reduction::kMax>},
    {"amin", "default", Extreme<Reduction::kMin>},
    {"aminmax", "default", AMinMax},
    {"any", "default,dim,dims", Logical<Reduction::kAny>},
    {"argmax", "default", PlaceOf<Reduction::kArgMax>},
    {"argmin", "default", PlaceOf<Reduction::kArgMin>},
    {"argsort", "default,stable", ArgSort},
    {"cosine_similarity", "default", CosineSimilarity},
    {"count_nonzero", "default,dim_IntList", CountNonZero},
    {"cumprod", "default", Running<Reduction::kProduct>},
    {"cumsum", "default", Running<Reduction::kSum>},
    {"linalg_vector_norm", "default", Norm},
    {"log_softmax", "int", Softmax<true>},
    {"logsumexp", "default", LogSumExp},
    {"max", "default", Extreme<Reduction::kMax>},
    {"max", "dim", ExtremeAndPlace<Reduction::kMax, Reduction::kArgMax>},
    {"mean", "default,dim", Sum<Reduction::kMean>},
    {"min", "default", Extreme<Reduction::kMin>},
    {"min", "dim", ExtremeAndPlace<Reduction::kMin, Reduction::kArgMin>},
    {"norm", "Scalar,ScalarOpt_dim,ScalarOpt_dtype,ScalarOpt_dim_dtype", Norm},
    {"prod", "default,dim_int", Sum<Reduction::kProduct>},
    {"softmax", "int", Softmax<false>},
    {"sort", "default,stable", Sort},
    {"std", "default,dim,correction", Deviation},
    {"std_mean", "default,dim,correction", DeviationAndMean},
    {"sum", "default,dim_IntList", Sum<Reduction::kSum>},
    {"topk", "default", TopK},
    {"var", "default,dim,correction", Variance},
    {"var_mean", "default,dim,correction", VarianceAndMean},
};

}  // namespace

std::span<const Operator> ReductionOperators() { return kOperators; }

}  // namespace millpower::import::torch
