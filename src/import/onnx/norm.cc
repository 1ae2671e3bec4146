// Normalisations.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "import/onnx/formula.h"
#include "import/onnx/node.h"

namespace millpower::import::onnx {
namespace {

std::vector<int> AxesFrom(int first, int rank) {
  std::vector<int> axes(static_cast<size_t>(std::max(rank - first, 0)));
  std::iota(axes.begin(), axes.end(), first);
  return axes;
}

Result<Tensor> Squared(Node& n, Tensor x) { return n.b.Binary(MapOp::kMul, x, x); }

// 1 / sqrt(variance + epsilon)
Result<Tensor> InverseDeviation(Node& n, Tensor variance, double epsilon) {
  Formula f(n.b, {variance});
  const auto sum = f(MapOp::kAdd, f.Load(), f.Number(epsilon));
  f(MapOp::kReciprocal, f(MapOp::kSqrt, sum));
  return f.Done();
}

struct Moments {
  Tensor centred, mean, variance;  // the latter two with axes of size 1
};
Result<Moments> MomentsOf(Node& n, Tensor x, const std::vector<int>& axes) {
  Moments moments;
  TRY_ASSIGN(moments.mean, n.b.Reduce(Reduction::kMean, x, axes, true));
  TRY_ASSIGN(moments.centred, n.b.Binary(MapOp::kSub, x, moments.mean));
  TRY_ASSIGN(const Tensor squares, Squared(n, moments.centred));
  TRY_ASSIGN(moments.variance, n.b.Reduce(Reduction::kMean, squares, axes, true));
  return moments;
}

// a [c] as [1, c, 1 ...]
Result<Tensor> ByChannel(Node& n, Tensor a, int rank) {
  std::vector<Size> sizes(static_cast<size_t>(rank), Size(1));
  sizes[1] = n.b.dim(a, 0);
  return n.b.Reshape(a, sizes);
}

Result<Tensor> ScaledBy(Node& n, Tensor x, Tensor scale, Tensor bias) {
  TRY_ASSIGN(Tensor y, n.b.Binary(MapOp::kMul, x, scale));
  return bias.present() ? n.b.Binary(MapOp::kAdd, y, bias) : Result<Tensor>(y);
}

// With the statistics of this batch, and those kept for later.
Result<Values> TrainingBatchNorm(Node& n, double epsilon) {
  const Tensor x = n.in(0);
  const int rank = n.b.rank(x);
  std::vector<int> axes = AxesFrom(2, rank);
  axes.insert(axes.begin(), 0);
  TRY_ASSIGN(const Moments moments, MomentsOf(n, x, axes));
  TRY_ASSIGN(const Tensor mean, n.b.Reshape(moments.mean, n.b.shape(n.in(3))));
  TRY_ASSIGN(const Tensor variance, n.b.Reshape(moments.variance, n.b.shape(n.in(4))));
  TRY_ASSIGN(const Tensor y, n.b.BatchNorm(x, n.in(1), n.in(2), mean, variance, epsilon));
  const double momentum = n.Real("momentum", 0.9);
  const auto running = [&](Tensor before, Tensor now) {
    Formula f(n.b, {before, now});
    const auto kept = f(MapOp::kMul, f.Load(0), f.Number(momentum));
    f(MapOp::kAdd, kept, f(MapOp::kMul, f.Load(1), f.Number(1 - momentum)));
    return f.Done();
  };
  TRY_ASSIGN(const Tensor running_mean, running(n.in(3), mean));
  TRY_ASSIGN(const Tensor running_variance, running(n.in(4), variance));
  return Values{y, running_mean, running_variance};
}

Result<Values> BatchNormalization(Node& n) {
  const double epsilon = n.Real("epsilon", 1e-5);
  if (n.version() >= 14 && n.Int("training_mode", 0) != 0) return TrainingBatchNorm(n, epsilon);
  if (n.version() < 7 && n.Int("is_test", 0) == 0) return Unsupported("while training");
  if (n.Int("spatial", 1) == 0) return Unsupported("statistics by place");
  TRY_ASSIGN(const Tensor y, n.b.BatchNorm(n.in(0), n.in(1), n.in(2), n.in(3), n.in(4), epsilon));
  return Values{y};
}

Result<Values> LayerNormOf(Node& n, Tensor x, Tensor scale, Tensor bias, size_t first_statistic) {
  TRY_ASSIGN(const int axis, n.Axis("axis", -1, n.b.rank(x)));
  const double epsilon = n.Real("epsilon", 1e-5);
  TRY_ASSIGN(const Tensor y, n.b.LayerNorm(x, axis, scale, bias, epsilon));
  Values outputs = {y};
  if (!n.wants(first_statistic) && !n.wants(first_statistic + 1)) return outputs;
  TRY_ASSIGN(const Tensor wide, n.b.Cast(x, DType::kF32));
  TRY_ASSIGN(const Moments moments, MomentsOf(n, wide, AxesFrom(axis, n.b.rank(x))));
  TRY_ASSIGN(const Tensor inverse, InverseDeviation(n, moments.variance, epsilon));
  outputs.push_back(moments.mean);
  outputs.push_back(inverse);
  return outputs;
}

Result<Values> LayerNormalization(Node& n) { return LayerNormOf(n, n.in(0), n.in(1), n.in(2), 1); }

// x / sqrt(mean(x^2) + epsilon) * scale, the statistics in f32 when x is narrower.
struct RmsNormed {
  Tensor y, inverse;
};
Result<RmsNormed> RmsNorm(Node& n, Tensor x, Tensor scale) {
  TRY_ASSIGN(const int axis, n.Axis("axis", -1, n.b.rank(x)));
  const DType type = n.b.dtype(x);
  const DType wide = type == DType::kF64 ? type : DType::kF32;
  TRY_ASSIGN(const Tensor in, n.b.Cast(x, wide));
  TRY_ASSIGN(const Tensor squares, Squared(n, in));
  TRY_ASSIGN(const Tensor mean,
             n.b.Reduce(Reduction::kMean, squares, AxesFrom(axis, n.b.rank(x)), true));
  RmsNormed normed;
  TRY_ASSIGN(normed.inverse, InverseDeviation(n, mean, n.Real("epsilon", 1e-5)));
  TRY_ASSIGN(const Tensor scaled, n.b.Binary(MapOp::kMul, in, normed.inverse));
  TRY_ASSIGN(const Tensor weight, n.b.Cast(scale, wide));
  TRY_ASSIGN(const Tensor y, n.b.Binary(MapOp::kMul, scaled, weight));
  TRY_ASSIGN(normed.y, n.b.Cast(y, n.b.dtype(scale)));
  return normed;
}

Result<Values> RmsNormalization(Node& n) {
  TRY_ASSIGN(const RmsNormed normed, RmsNorm(n, n.in(0), n.in(1)));
  Values outputs = {normed.y};
  if (n.wants(1)) outputs.push_back(normed.inverse);
  return outputs;
}

// ONNX Runtime's: what is normalised is x + skip + bias, which is an output as well.
Result<Tensor> SkipSum(Node& n, Tensor bias) {
  TRY_ASSIGN(const Tensor sum, n.b.Binary(MapOp::kAdd, n.in(0), n.in(1)));
  return bias.present() ? n.b.Binary(MapOp::kAdd, sum, bias) : Result<Tensor>(sum);
}

Result<Values> SkipOutputs(Node& n, Tensor y, Tensor sum) {
  if (n.wants(1) || n.wants(2)) return Unsupported("mean and inverse deviation as outputs");
  return Values{y, Value(), Value(), sum};
}

Result<Values> SkipSimplified(Node& n) {
  TRY_ASSIGN(const Tensor sum, SkipSum(n, n.in(3)));
  TRY_ASSIGN(const RmsNormed normed, RmsNorm(n, sum, n.in(2)));
  return SkipOutputs(n, normed.y, sum);
}

Result<Values> SkipLayerNormalization(Node& n) {
  TRY_ASSIGN(const Tensor sum, SkipSum(n, n.in(4)));
  TRY_ASSIGN(const Tensor y,
             n.b.LayerNorm(sum, n.b.rank(sum) - 1, n.in(2), n.in(3), n.Real("epsilon", 1e-12)));
  return SkipOutputs(n, y, sum);
}

Result<Tensor> InstanceNormalization(Node& n) {
  const Tensor x = n.in(0);
  const int rank = n.b.rank(x);
  if (rank < 3) return Invalid("x is not [n, c, spatial ...]");
  TRY_ASSIGN(const Moments moments, MomentsOf(n, x, AxesFrom(2, rank)));
  TRY_ASSIGN(const Tensor inverse, InverseDeviation(n, moments.variance, n.Real("epsilon", 1e-5)));
  TRY_ASSIGN(const Tensor y, n.b.Binary(MapOp::kMul, moments.centred, inverse));
  TRY_ASSIGN(const Tensor scale, ByChannel(n, n.in(1), rank));
  TRY_ASSIGN(const Tensor bias, ByChannel(n, n.in(2), rank));
  return ScaledBy(n, y, scale, bias);
}

// x as [n, groups, the rest], normalised along the rest.
Result<Tensor> GroupNormalization(Node& n) {
  const Tensor x = n.in(0);
  const int rank = n.b.rank(x);
  const int64_t groups = n.Int("num_groups", 0);
  if (rank < 2) return Invalid("x is not [n, c, spatial ...]");
  TRY_ASSIGN(const int64_t channels, n.ConstantDim(x, 1));
  if (groups < 1 || channels % groups != 0) return Invalid("groups do not divide the channels");
  const std::vector<Size> grouped = {n.b.dim(x, 0), groups, -1};
  TRY_ASSIGN(const Tensor rows, n.b.Reshape(x, grouped));
  TRY_ASSIGN(const Moments moments, MomentsOf(n, rows, {2}));
  TRY_ASSIGN(const Tensor inverse, InverseDeviation(n, moments.variance, n.Real("epsilon", 1e-5)));
  TRY_ASSIGN(Tensor y, n.b.Binary(MapOp::kMul, moments.centred, inverse));
  // Before operator set 21, scale and bias are by group.
  const bool by_group = n.version() < 21 && n.b.dim(n.in(1), 0) == Size(groups);
  if (!by_group) {
    TRY_ASSIGN(y, n.b.Reshape(y, n.b.shape(x)));
  }
  TRY_ASSIGN(const Tensor scale, ByChannel(n, n.in(1), n.b.rank(y)));
  TRY_ASSIGN(const Tensor bias, ByChannel(n, n.in(2), n.b.rank(y)));
  TRY_ASSIGN(const Tensor scaled, ScaledBy(n, y, scale, bias));
  return n.b.Reshape(scaled, n.b.shape(x));
}

Result<Tensor> LpNormalization(Node& n) {
  const Tensor x = n.in(0);
  TRY_ASSIGN(const int axis, n.Axis("axis", -1, n.b.rank(x)));
  const int64_t p = n.Int("p", 2);
  if (p != 1 && p != 2) return Unsupported("norms other than 1 and 2");
  TRY_ASSIGN(const Tensor powers, p == 1 ? n.b.Unary(MapOp::kAbs, x) : Squared(n, x));
  TRY_ASSIGN(Tensor norm, n.b.Reduce(Reduction::kSum, powers, {axis}, true));
  if (p == 2) {
    TRY_ASSIGN(norm, n.b.Unary(MapOp::kSqrt, norm));
  }
  Formula f(n.b, {x, norm});
  const auto a = f.Load(0), length = f.Load(1), zero = f.Number(0);
  f.Select(f.Is(MapOp::kEqual, length, zero), zero, f(MapOp::kDiv, a, length));
  return f.Done();
}

// x / (bias + alpha / size * sum of squares of the `size` channels around)^beta
Result<Tensor> Lrn(Node& n) {
  const Tensor x = n.in(0);
  if (n.b.rank(x) < 2) return Invalid("x is not [n, c, spatial ...]");
  TRY_ASSIGN(const int64_t channels, n.ConstantDim(x, 1));
  const int64_t size = n.Int("size", 0);
  if (size < 1 || size > 1 << 20) return Invalid("size is out of range");
  if (channels > 4096) return Unsupported("more than 4096 channels");
  std::vector<double> band(static_cast<size_t>(channels * channels));
  for (int64_t i = 0; i < channels; ++i)
    for (int64_t j = std::max<int64_t>(i - (size - 1) / 2, 0);
         j <= std::min(i + size / 2, channels - 1); ++j)
      band[static_cast<size_t>(i * channels + j)] = 1;
  TRY_ASSIGN(const Tensor squares, Squared(n, x));
  TRY_ASSIGN(const Tensor sums, n.b.TransformAxis(squares, 1, band, channels));
  Formula f(n.b, {x, sums});
  const double weight = n.Real("alpha", 1e-4) / static_cast<double>(size);
  const auto grown = f(MapOp::kMul, f.Load(1), f.Number(weight));
  const auto base = f(MapOp::kAdd, grown, f.Number(n.Real("bias", 1)));
  f(MapOp::kDiv, f.Load(0), f(MapOp::kPow, base, f.Number(n.Real("beta", 0.75))));
  return f.Done();
}

Result<Tensor> MeanVarianceNormalization(Node& n) {
  TRY_ASSIGN(std::vector<int> axes, n.CheckedAxes(n.Ints("axes", {0, 2, 3}), n.b.rank(n.in(0))));
  std::ranges::sort(axes);
  TRY_ASSIGN(const Moments moments, MomentsOf(n, n.in(0), axes));
  Formula f(n.b, {moments.centred, moments.variance});
  const auto deviation = f(MapOp::kAdd, f(MapOp::kSqrt, f.Load(1)), f.Number(1e-9));
  f(MapOp::kDiv, f.Load(0), deviation);
  return f.Done();
}

constexpr const char* kMicrosoft = "com.microsoft";

constexpr Operator kOperators[] = {
    {"", "BatchNormalization", BatchNormalization, 5},
    {"", "LayerNormalization", LayerNormalization, 2},
    {"", "RMSNormalization", RmsNormalization, 2},
    {"", "SimplifiedLayerNormalization", RmsNormalization, 2},
    {"", "InstanceNormalization", One<InstanceNormalization>, 3},
    {"", "GroupNormalization", One<GroupNormalization>, 3},
    {"", "LpNormalization", One<LpNormalization>},
    {"", "LRN", One<Lrn>},
    {"", "MeanVarianceNormalization", One<MeanVarianceNormalization>},
    {kMicrosoft, "SimplifiedLayerNormalization", RmsNormalization, 2},
    {kMicrosoft, "SkipSimplifiedLayerNormalization", SkipSimplified, 3},
    {kMicrosoft, "SkipLayerNormalization", SkipLayerNormalization, 3},
};

}  // namespace

std::span<const Operator> NormOperators() { return kOperators; }

}  // namespace millpower::import::onnx
