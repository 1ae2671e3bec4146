// Pooling and resizing of images: static sizes only.
#include <algorithm>
#include <cmath>

#include "import/torch/call.h"

namespace millpower::import::torch {
namespace {

constexpr int64_t kMaxSide = 1 << 20;

// An image [n, c, spatial ...]; one without a batch gets it, and gives it back.
struct Image {
  Tensor x;
  bool is_single = false;
};
Result<Image> ImageOf(Call& call, std::string_view name, int spatial) {
  Image image;
  TRY_ASSIGN(image.x, call.TensorAt(name));
  image.is_single = call.b.rank(image.x) == spatial + 1;
  if (image.is_single) {
    TRY_ASSIGN(image.x, call.b.Unsqueeze(image.x, 0));
  }
  if (call.b.rank(image.x) != spatial + 2) return Invalid("has not the rank of an image");
  return image;
}
Result<Tensor> Finished(Call& call, const Image& image, Tensor y) {
  return image.is_single ? call.b.Squeeze(y, {0}) : Result<Tensor>(y);
}

Result<std::vector<int64_t>> PerAxis(Call& call, std::string_view name, int axes,
                                     std::optional<std::vector<int64_t>> fallback, int64_t min) {
  TRY_ASSIGN(std::vector<int64_t> values, call.Integers(name, fallback));
  if (values.empty() && fallback) values = *fallback;
  if (values.size() == 1) values.assign(static_cast<size_t>(axes), values[0]);
  if (values.size() != static_cast<size_t>(axes) ||
      std::ranges::any_of(values, [&](int64_t v) { return v < min || v > kMaxSide; }))
    return Invalid("'" + std::string(name) + "' does not fit the image");
  return values;
}

Result<TensorBuilder::Window> WindowOf(Call& call, int axes) {
  TensorBuilder::Window window;
  TRY_ASSIGN(window.kernel, PerAxis(call, "kernel_size", axes, {}, 1));
  TRY_ASSIGN(window.strides, PerAxis(call, "stride", axes, window.kernel, 1));
  TRY_ASSIGN(window.pads_begin, PerAxis(call, "padding", axes, std::vector<int64_t>{0}, 0));
  TRY_ASSIGN(window.dilations, PerAxis(call, "dilation", axes, std::vector<int64_t>{1}, 1));
  window.pads_end = window.pads_begin;
  return window;
}

template <int axes>
Result<Tensors> MaxPool(Call& call) {
  TRY_ASSIGN(const Image image, ImageOf(call, "self", axes));
  TRY_ASSIGN(const TensorBuilder::Window window, WindowOf(call, axes));
  TRY_ASSIGN(const bool ceil, call.Flag("ceil_mode", false));
  TRY_ASSIGN(const Tensor y, call.b.Pool(Pooling::kMax, image.x, window, ceil, false));
  return One(Finished(call, image, y));
}

// And where in its plane each one was.
template <int axes>
Result<Tensors> MaxPoolWithIndices(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(Tensors results, MaxPool<axes>(call));
  TRY_ASSIGN(const Image image, ImageOf(call, "self", axes));
  TRY_ASSIGN(const TensorBuilder::Window window, WindowOf(call, axes));
  TRY_ASSIGN(const bool ceil, call.Flag("ceil_mode", false));
  TRY_ASSIGN(Tensor places, b.Pool(Pooling::kArgMax, image.x, window, ceil, false));
  double plane = 1;
  for (int axis = 2; axis < axes + 2; ++axis)
    plane *= static_cast<double>(b.dim(image.x, axis).Constant().value_or(1));
  TRY_ASSIGN(places, b.Binary(MapOp::kMod, places, plane));
  TRY_ASSIGN(results.emplace_back(), Finished(call, image, places));
  return results;
}

template <int axes>
Result<Tensors> AveragePool(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Image image, ImageOf(call, "self", axes));
  TRY_ASSIGN(const TensorBuilder::Window window, WindowOf(call, axes));
  TRY_ASSIGN(const bool ceil, call.Flag("ceil_mode", false));
  TRY_ASSIGN(const bool counts, call.Flag("count_include_pad", true));
  if (call.Has("divisor_override")) {
    TRY_ASSIGN(const double divisor, call.Real("divisor_override"));
    TRY_ASSIGN(const Tensor sum, b.Pool(Pooling::kSum, image.x, window, ceil, false));
    TRY_ASSIGN(const Tensor y, b.Binary(MapOp::kDiv, sum, divisor));
    return One(Finished(call, image, y));
  }
  TRY_ASSIGN(const Tensor y, b.Pool(Pooling::kAverage, image.x, window, ceil, counts));
  return One(Finished(call, image, y));
}

// Element i of `out` takes elements floor(i in / out) up to ceil((i + 1) in / out).
template <int axes>
Result<Tensors> AdaptiveAveragePool(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Image image, ImageOf(call, "self", axes));
  TRY_ASSIGN(const std::vector<int64_t> out, PerAxis(call, "output_size", axes, {}, 1));
  Tensor x = image.x;
  for (int i = 0; i < axes; ++i) {
    const auto in = b.dim(x, i + 2).Constant();
    const int64_t size = out[static_cast<size_t>(i)];
    if (!in) return NotSupported("an axis that is not constant");
    if (*in == size) continue;
    if (size == 1) {
      TRY_ASSIGN(x, b.Reduce(Reduction::kMean, x, {i + 2}, true));
      continue;
    }
    if (*in > kMaxKnown || size > kMaxKnown) return NotSupported("an image of more than 4096");
    std::vector<double> matrix(static_cast<size_t>(size * *in), 0);
    for (int64_t at = 0; at < size; ++at) {
      const int64_t begin = at * *in / size;
      const int64_t end = ((at + 1) * *in + size - 1) / size;
      for (int64_t from = begin; from < end; ++from)
        matrix[static_cast<size_t>(at * *in + from)] = 1.0 / static_cast<double>(end - begin);
    }
    TRY_ASSIGN(x, b.TransformAxis(x, i + 2, matrix, size));
  }
  return One(Finished(call, image, x));
}

template <int axes>
Result<Tensors> AdaptiveMaxPool(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Image image, ImageOf(call, "self", axes));
  TRY_ASSIGN(const std::vector<int64_t> out, PerAxis(call, "output_size", axes, {}, 1));
  TensorBuilder::Window window;
  for (int i = 0; i < axes; ++i) {
    const auto in = b.dim(image.x, i + 2).Constant();
    const int64_t size = out[static_cast<size_t>(i)];
    if (!in || *in % size != 0) return NotSupported("an axis that is no multiple of its result");
    window.kernel.push_back(*in / size);
  }
  window.strides = window.kernel;
  window.pads_begin = window.pads_end = std::vector<int64_t>(axes, 0);
  window.dilations = std::vector<int64_t>(axes, 1);
  TRY_ASSIGN(const Tensor y, b.Pool(Pooling::kMax, image.x, window, false, false));
  return One(Finished(call, image, y));
}

// ---- resizing (aten/src/ATen/native/UpSample.h) ----

struct Resize {
  int64_t in = 1, out = 1;
  double scale = 1;  // source elements a result element
};

// Sizes and scales by spatial axis: of arguments output_size, and scales_h, scales_w ... or
// scale_factors.
Result<std::vector<Resize>> ResizesOf(Call& call, Tensor x, int axes) {
  static constexpr std::string_view kScales[] = {"scales_d", "scales_h", "scales_w"};
  std::vector<int64_t> sizes;
  if (call.Has("output_size")) {
    TRY_ASSIGN(sizes, PerAxis(call, "output_size", axes, {}, 1));
  }
  std::vector<double> factors;
  if (call.Has("scale_factors")) {
    TRY_ASSIGN(factors, call.Reals("scale_factors"));
    if (factors.size() != static_cast<size_t>(axes)) return Invalid("scale_factors do not fit");
  }
  std::vector<Resize> resizes;
  for (int i = 0; i < axes; ++i) {
    const auto at = static_cast<size_t>(i);
    const auto in = call.b.dim(x, i + 2).Constant();
    if (!in) return NotSupported("an axis that is not constant");
    std::optional<double> factor;
    const std::string_view name =
        axes == 1 ? "scales" : kScales[at + 3 - static_cast<size_t>(axes)];
    if (call.Has(name)) {
      TRY_ASSIGN(factor, call.Real(name));
    }
    if (!factors.empty()) factor = factors[at];
    Resize resize{*in, sizes.empty() ? 0 : sizes[at], 0};
    if (sizes.empty() && factor) {
      const double size = std::floor(static_cast<double>(*in) * *factor);
      if (!(size >= 1 && size <= kMaxKnown)) return NotSupported("an image of more than 4096");
      resize.out = static_cast<int64_t>(size);
    }
    if (resize.out < 1 || resize.out > kMaxKnown || *in > kMaxKnown)
      return NotSupported("an image of more than 4096");
    resize.scale = factor && *factor > 0
                       ? 1 / *factor
                       : static_cast<double>(*in) / static_cast<double>(resize.out);
    resizes.push_back(resize);
  }
  return resizes;
}

template <int axes, bool exact>
Result<Tensors> Nearest(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Image image, ImageOf(call, call.Has("input") ? "input" : "self", axes));
  TRY_ASSIGN(const std::vector<Resize> resizes, ResizesOf(call, image.x, axes));
  Tensor x = image.x;
  for (int i = 0; i < axes; ++i) {
    const Resize& resize = resizes[static_cast<size_t>(i)];
    std::vector<Size> places;
    for (int64_t at = 0; at < resize.out; ++at) {
      const auto from = std::floor((static_cast<float>(at) + (exact ? 0.5f : 0.0f)) *
                                   static_cast<float>(resize.scale));
      places.emplace_back(std::min(resize.in - 1, static_cast<int64_t>(from)));
    }
    TRY_ASSIGN(x, b.Take(x, b.Sizes(places), i + 2));
  }
  return One(Finished(call, image, x));
}

// Weights of the elements around `from`, clamped to the image.
void AddWeight(std::vector<double>& matrix, const Resize& resize, int64_t at, int64_t from,
               double weight) {
  from = std::clamp<int64_t>(from, 0, resize.in - 1);
  matrix[static_cast<size_t>(at * resize.in + from)] += weight;
}

void LinearWeights(std::vector<double>& matrix, const Resize& resize, int64_t at, double from) {
  from = std::max(from, 0.0);
  const auto left = static_cast<int64_t>(from);
  const double part = from - static_cast<double>(left);
  AddWeight(matrix, resize, at, left, 1 - part);
  AddWeight(matrix, resize, at, left + 1, part);
}

// Keys' cubic convolution with a = -0.75.
void CubicWeights(std::vector<double>& matrix, const Resize& resize, int64_t at, double from) {
  constexpr double a = -0.75;
  const auto near = [](double t) { return ((a + 2) * t - (a + 3)) * t * t + 1; };
  const auto far = [](double t) { return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a; };
  const double left = std::floor(from);
  const double part = from - left;
  const auto base = static_cast<int64_t>(left);
  AddWeight(matrix, resize, at, base - 1, far(part + 1));
  AddWeight(matrix, resize, at, base, near(part));
  AddWeight(matrix, resize, at, base + 1, near(1 - part));
  AddWeight(matrix, resize, at, base + 2, far(2 - part));
}

using Weights = void (*)(std::vector<double>&, const Resize&, int64_t, double);

template <int axes, Weights weights>
Result<Tensors> Interpolate(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Image image, ImageOf(call, call.Has("input") ? "input" : "self", axes));
  TRY_ASSIGN(const std::vector<Resize> resizes, ResizesOf(call, image.x, axes));
  TRY_ASSIGN(const bool aligned, call.Flag("align_corners", false));
  Tensor x = image.x;
  for (int i = 0; i < axes; ++i) {
    const Resize& resize = resizes[static_cast<size_t>(i)];
    std::vector<double> matrix(static_cast<size_t>(resize.out * resize.in), 0);
    for (int64_t at = 0; at < resize.out; ++at) {
      const auto place = static_cast<double>(at);
      double from = (place + 0.5) * resize.scale - 0.5;
      if (aligned)
        from = resize.out == 1 ? 0
                               : place * static_cast<double>(resize.in - 1) /
                                     static_cast<double>(resize.out - 1);
      weights(matrix, resize, at, from);
    }
    TRY_ASSIGN(x, b.TransformAxis(x, i + 2, matrix, resize.out));
  }
  return One(Finished(call, image, x));
}

constexpr Operator kOperators[] = {
    {"_adaptive_avg_pool2d", "default", AdaptiveAveragePool<2>},
    {"_adaptive_avg_pool3d", "default", AdaptiveAveragePool<3>},
    {"_upsample_nearest_exact1d", "default,vec", Nearest<1, true>},
    {"_upsample_nearest_exact2d", "default,vec", Nearest<2, true>},
    {"_upsample_nearest_exact3d", "default,vec", Nearest<3, true>},
    {"adaptive_avg_pool1d", "default", AdaptiveAveragePool<1>},
    {"adaptive_avg_pool2d", "default", AdaptiveAveragePool<2>},
    {"adaptive_avg_pool3d", "default", AdaptiveAveragePool<3>},
    {"adaptive_max_pool1d", "default", AdaptiveMaxPool<1>},
    {"adaptive_max_pool2d", "default", AdaptiveMaxPool<2>},
    {"adaptive_max_pool3d", "default", AdaptiveMaxPool<3>},
    {"avg_pool1d", "default", AveragePool<1>},
    {"avg_pool2d", "default", AveragePool<2>},
    {"avg_pool3d", "default", AveragePool<3>},
    {"max_pool1d", "default", MaxPool<1>},
    {"max_pool1d_with_indices", "default", MaxPoolWithIndices<1>},
    {"max_pool2d", "default", MaxPool<2>},
    {"max_pool2d_with_indices", "default", MaxPoolWithIndices<2>},
    {"max_pool3d", "default", MaxPool<3>},
    {"max_pool3d_with_indices", "default", MaxPoolWithIndices<3>},
    {"upsample_bicubic2d", "default,vec", Interpolate<2, CubicWeights>},
    {"upsample_bilinear2d", "default,vec", Interpolate<2, LinearWeights>},
    {"upsample_linear1d", "default,vec", Interpolate<1, LinearWeights>},
    {"upsample_nearest1d", "default,vec", Nearest<1, false>},
    {"upsample_nearest2d", "default,vec", Nearest<2, false>},
    {"upsample_nearest3d", "default,vec", Nearest<3, false>},
    {"upsample_trilinear3d", "default,vec", Interpolate<3, LinearWeights>},
};

}  // namespace

std::span<const Operator> ResamplingOperators() { return kOperators; }

}  // namespace millpower::import::torch
