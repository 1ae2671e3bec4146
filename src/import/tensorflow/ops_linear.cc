// Matrix products, convolutions, pooling, normalisation by channel and resizing. TensorFlow has
// channels last, the graph has them second: x is transposed before and after.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "import/tensorflow/call.h"

namespace millpower::import {
namespace {

// "MatMul" says transpose_a, "BatchMatMul" adj_x; the same for real numbers.
Result<Tensor> MatMul(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const Tensor y, call.In(1));
  if (call.b.rank(x) < 2 || call.b.rank(y) < 2)
    return Fail(ErrorCode::kInvalidArgument, "operands that are no matrices");
  const bool turn_x = call.BoolOr("transpose_a", false) || call.BoolOr("adj_x", false);
  const bool turn_y = call.BoolOr("transpose_b", false) || call.BoolOr("adj_y", false);
  TRY_ASSIGN(const Tensor product, call.b.Contract(x, y, turn_x, turn_y));
  return call.b.Cast(product, call.TypeOr("Tout", call.b.dtype(product)));
}

Result<Tensor> Einsum(Call& call) {
  TRY_ASSIGN(const std::vector<Tensor> operands, call.InRange(0, call.count()));
  std::string equation = call.StringOr("equation", "");
  std::erase(equation, ' ');
  return call.b.Einsum(equation, operands);
}

// A vector over channels, as it broadcasts against x.
Result<Tensor> ByChannel(Call& call, Tensor vector, int rank, bool channels_first) {
  if (!channels_first || rank < 2) return vector;
  ir::Shape shape(static_cast<size_t>(rank - 1), ir::Constant(1));
  if (call.b.rank(vector) != 1) return Fail(ErrorCode::kInvalidArgument, "is no vector");
  shape[0] = call.b.shape(vector)[0];
  return call.b.Reshape(vector, shape);
}

bool ChannelsFirst(const Call& call) {
  return call.StringOr("data_format", "NHWC").starts_with("NC");
}

Result<Tensor> BiasAdd(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const Tensor given, call.In(1));
  TRY_ASSIGN(const Tensor bias, ByChannel(call, given, call.b.rank(x), ChannelsFirst(call)));
  return call.b.Binary(MapOp::kAdd, x, bias);
}

// x * k + (offset - mean * k), k = scale / sqrt(variance + epsilon): so that only what depends on
// x is computed for each element.
Result<Values> FusedBatchNorm(Call& call) {
  if (call.BoolOr("is_training", true)) return Unsupported("computes statistics, as in training");
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const std::vector<Tensor> operands, call.InRange(1, 5));  // scale offset mean variance
  const double epsilon = call.FloatOr("epsilon", 1e-4);
  TRY_ASSIGN(const Tensor raised, call.b.Binary(MapOp::kAdd, operands[3], epsilon));
  TRY_ASSIGN(const Tensor deviation, call.b.Unary(MapOp::kSqrt, raised));
  TRY_ASSIGN(Tensor factor, call.b.Binary(MapOp::kDiv, operands[0], deviation));
  TRY_ASSIGN(const Tensor moved, call.b.Binary(MapOp::kMul, operands[2], factor));
  TRY_ASSIGN(Tensor shift, call.b.Binary(MapOp::kSub, operands[1], moved));
  const int rank = call.b.rank(x);
  TRY_ASSIGN(factor, ByChannel(call, factor, rank, ChannelsFirst(call)));
  TRY_ASSIGN(shift, ByChannel(call, shift, rank, ChannelsFirst(call)));
  TRY_ASSIGN(const Tensor wide, call.b.Cast(x, call.b.dtype(factor)));
  TRY_ASSIGN(const Tensor scaled, call.b.Binary(MapOp::kMul, wide, factor));
  TRY_ASSIGN(const Tensor y, call.b.Binary(MapOp::kAdd, scaled, shift));
  TRY_ASSIGN(const Tensor narrow, call.b.Cast(y, call.b.dtype(x)));
  // The others are for training; nobody reads them.
  return Values{Value{narrow},      Value{operands[2]}, Value{operands[3]},
                Value{operands[2]}, Value{operands[3]}, Value{operands[3]}};
}

// ---- windows ----

std::vector<int64_t> ChannelsSecond(int rank) {
  std::vector<int64_t> perm = {0, rank - 1};
  for (int i = 1; i < rank - 1; ++i) perm.push_back(i);
  return perm;
}

std::vector<int64_t> ChannelsLast(int rank) {
  std::vector<int64_t> perm = {0};
  for (int i = 2; i < rank; ++i) perm.push_back(i);
  perm.push_back(1);
  return perm;
}

// An operator on x [n, c, spatial ...], told in whichever order the file has.
class Windowed {
 public:
  explicit Windowed(Call& call) : call_(call), channels_first_(ChannelsFirst(call)) {}

  Result<Tensor> In(int operand) {
    TRY_ASSIGN(const Tensor x, call_.In(operand));
    if (call_.b.rank(x) < 3 || call_.b.rank(x) > 5)
      return Fail(ErrorCode::kInvalidArgument, "x has no spatial dimensions");
    if (channels_first_) return x;
    return call_.b.Transpose(x, ChannelsSecond(call_.b.rank(x)));
  }

  Result<Tensor> Out(Tensor y) {
    if (channels_first_) return y;
    return call_.b.Transpose(y, ChannelsLast(call_.b.rank(y)));
  }

  // The spatial entries of a list that has one for each dimension of x; empty: all `otherwise`.
  Result<std::vector<int64_t>> Spatial(const std::vector<int64_t>& list, size_t spatial) const {
    if (list.empty()) return std::vector<int64_t>(spatial, 1);
    if (list.size() != spatial + 2)
      return Fail(ErrorCode::kInvalidArgument, "a list of wrong size");
    const size_t channel = channels_first_ ? 1 : spatial + 1;
    if (list[0] != 1 || list[channel] != 1) return Unsupported("windows over batch or channels");
    const auto first = list.begin() + (channels_first_ ? 2 : 1);
    std::vector<int64_t> entries(first, first + static_cast<int64_t>(spatial));
    for (const int64_t entry : entries)
      if (entry < 1 || entry > (1 << 20)) return Fail(ErrorCode::kInvalidArgument, "a size of 0");
    return entries;
  }

  // Fills in the pads of `window` for spatial dimensions of `sizes`.
  Result<void> SetPads(TensorBuilder::Window& window, const std::vector<Size>& sizes) const {
    const size_t spatial = window.kernel.size();
    const std::string padding = call_.StringOr("padding", "VALID");
    window.pads_begin.assign(spatial, 0);
    window.pads_end.assign(spatial, 0);
    if (padding == "VALID") return {};
    if (padding == "EXPLICIT") return Explicit(window);
    if (padding != "SAME") return Unsupported("padding '" + padding + "'");
    for (size_t i = 0; i < spatial; ++i) {
      TRY_ASSIGN(const int64_t total, SamePadding(window, sizes[i], i));
      window.pads_begin[i] = total / 2;
      window.pads_end[i] = total - total / 2;
    }
    return {};
  }

  static int64_t Reach(const TensorBuilder::Window& window, size_t i) {
    return (window.kernel[i] - 1) * window.dilations[i] + 1;
  }

 private:
  Result<void> Explicit(TensorBuilder::Window& window) const {
    const std::vector<int64_t> pads = call_.Ints("explicit_paddings");
    const size_t spatial = window.kernel.size(), first = channels_first_ ? 2 : 1;
    if (pads.size() != 2 * (spatial + 2))
      return Fail(ErrorCode::kInvalidArgument, "explicit paddings of wrong size");
    for (size_t i = 0; i < spatial; ++i) {
      window.pads_begin[i] = pads[2 * (first + i)];
      window.pads_end[i] = pads[2 * (first + i) + 1];
      if (window.pads_begin[i] < 0 || window.pads_end[i] < 0)
        return Fail(ErrorCode::kInvalidArgument, "negative paddings");
    }
    return {};
  }

  // As many outputs as x has elements, divided by the stride and rounded up.
  static Result<int64_t> SamePadding(const TensorBuilder::Window& window, const Size& size,
                                     size_t i) {
    if (window.strides[i] == 1) return Reach(window, i) - 1;
    const auto in = size.Constant();
    if (!in) return Unsupported("padding that depends on " + size.ToString());
    const int64_t out = (*in + window.strides[i] - 1) / window.strides[i];
    return std::max<int64_t>(0, (out - 1) * window.strides[i] + Reach(window, i) - *in);
  }

  Call& call_;
  bool channels_first_;
};

std::vector<Size> SpatialSizes(const TensorBuilder& b, Tensor x) {
  std::vector<Size> sizes;
  for (int i = 2; i < b.rank(x); ++i) sizes.push_back(b.dim(x, i));
  return sizes;
}

// A filter [kernel ..., in, out] as [out, in, kernel ...], or with the last two the other way
// round.
Result<Tensor> TurnFilter(Call& call, Tensor filter, bool swapped) {
  const int rank = call.b.rank(filter);
  std::vector<int64_t> perm = {rank - 1, rank - 2};
  if (swapped) std::swap(perm[0], perm[1]);
  for (int i = 0; i < rank - 2; ++i) perm.push_back(i);
  return call.b.Transpose(filter, perm);
}

Result<TensorBuilder::Window> ConvWindow(Call& call, const Windowed& windowed, Tensor filter) {
  const auto spatial = static_cast<size_t>(call.b.rank(filter)) - 2;
  TensorBuilder::Window window;
  for (size_t i = 0; i < spatial; ++i) {
    const auto size = call.b.dim(filter, static_cast<int>(i)).Constant();
    if (!size) return Unsupported("a kernel of symbolic size");
    window.kernel.push_back(*size);
  }
  TRY_ASSIGN(window.strides, windowed.Spatial(call.Ints("strides"), spatial));
  TRY_ASSIGN(window.dilations, windowed.Spatial(call.Ints("dilations"), spatial));
  return window;
}

template <bool depthwise>
Result<Tensor> Conv(Call& call) {
  Windowed windowed(call);
  TRY_ASSIGN(const Tensor x, windowed.In(0));
  TRY_ASSIGN(const Tensor filter, call.In(1));
  if (call.b.rank(filter) != call.b.rank(x))
    return Fail(ErrorCode::kInvalidArgument, "the filter does not have x's rank");
  TRY_ASSIGN(TensorBuilder::Window window, ConvWindow(call, windowed, filter));
  TRY(windowed.SetPads(window, SpatialSizes(call.b, x)));
  const auto channels = call.b.dim(x, 1).Constant();
  const auto filter_channels = call.b.dim(filter, -2).Constant();
  if (!channels || !filter_channels || *filter_channels < 1 || *channels % *filter_channels != 0)
    return Fail(ErrorCode::kInvalidArgument, "the filter does not fit x's channels");
  int64_t groups = *channels / *filter_channels;
  Tensor w;
  if (depthwise) {
    if (groups != 1) return Fail(ErrorCode::kInvalidArgument, "the filter does not fit x");
    groups = *channels;
    // [kernel ..., c, multiplier] -> [c, multiplier, kernel ...] -> [c * multiplier, 1, kernel ...]
    TRY_ASSIGN(w, TurnFilter(call, filter, true));
    TRY_ASSIGN(w, call.b.Flatten(w, 0, 2));
    TRY_ASSIGN(w, call.b.Unsqueeze(w, 1));
  } else {
    TRY_ASSIGN(w, TurnFilter(call, filter, false));
  }
  TRY_ASSIGN(const Tensor y, call.b.Conv(x, w, Tensor{}, window, groups));
  return windowed.Out(y);
}

// The gradient of a convolution by its input, which is how transposed convolutions are saved:
// sizes of the result, filter, x.
Result<Tensor> ConvTranspose(Call& call) {
  Windowed windowed(call);
  TRY_ASSIGN(const Tensor x, windowed.In(2));
  TRY_ASSIGN(const Tensor filter, call.In(1));
  if (call.b.rank(filter) != call.b.rank(x))
    return Fail(ErrorCode::kInvalidArgument, "the filter does not have x's rank");
  TRY_ASSIGN(TensorBuilder::Window window, ConvWindow(call, windowed, filter));
  TRY_ASSIGN(const std::vector<Size> result, call.Sizes(0, "shape"));
  const size_t spatial = window.kernel.size();
  const size_t first = ChannelsFirst(call) ? 2 : 1;
  std::vector<Size> sizes;
  if (result.size() == spatial + 2)
    sizes.assign(result.begin() + static_cast<int64_t>(first),
                 result.begin() + static_cast<int64_t>(first + spatial));
  else if (result.size() == spatial)
    sizes = result;
  else
    return Fail(ErrorCode::kInvalidArgument, "its shape does not have x's rank");
  TRY(windowed.SetPads(window, sizes));
  std::vector<int64_t> more(spatial, 0);
  for (size_t i = 0; i < spatial; ++i) {
    const auto size = sizes[i].Constant();
    const auto in = call.b.dim(x, static_cast<int>(i) + 2).Constant();
    if (!size || !in) return Unsupported("a spatial dimension that is not known");
    more[i] = *size - ((*in - 1) * window.strides[i] + Windowed::Reach(window, i) -
                       window.pads_begin[i] - window.pads_end[i]);
    if (more[i] < 0 || more[i] >= window.strides[i] + window.dilations[i])
      return Fail(ErrorCode::kInvalidArgument, "its shape does not fit x");
  }
  // [kernel ..., out, c] -> [c, out, kernel ...]
  TRY_ASSIGN(const Tensor w, TurnFilter(call, filter, false));
  TRY_ASSIGN(const Tensor y, call.b.ConvTranspose(x, w, Tensor{}, window, 1, more));
  return windowed.Out(y);
}

template <Pooling kind>
Result<Tensor> Pool(Call& call) {
  Windowed windowed(call);
  TRY_ASSIGN(const Tensor x, windowed.In(0));
  const auto spatial = static_cast<size_t>(call.b.rank(x)) - 2;
  std::vector<int64_t> kernel = call.Ints("ksize"), strides = call.Ints("strides");
  if (call.count() == 3) {  // MaxPoolV2
    TRY_ASSIGN(kernel, call.Integers(1, "ksize"));
    TRY_ASSIGN(strides, call.Integers(2, "strides"));
  }
  TensorBuilder::Window window;
  TRY_ASSIGN(window.kernel, windowed.Spatial(kernel, spatial));
  TRY_ASSIGN(window.strides, windowed.Spatial(strides, spatial));
  window.dilations.assign(spatial, 1);
  TRY(windowed.SetPads(window, SpatialSizes(call.b, x)));
  TRY_ASSIGN(const Tensor y, call.b.Pool(kind, x, window, false, false));
  return windowed.Out(y);
}

// ---- resizing ----

// Where output i's centre lies in the input, in input pixels.
double SourceOf(int64_t i, int64_t in, int64_t out, bool align_corners, bool half_pixel) {
  const auto at = static_cast<double>(i);
  if (align_corners && out > 1)
    return at * static_cast<double>(in - 1) / static_cast<double>(out - 1);
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  return half_pixel ? (at + 0.5) * scale - 0.5 : at * scale;
}

// [out, in]: weights of the two nearest inputs.
std::vector<double> LinearMatrix(int64_t in, int64_t out, bool align_corners, bool half_pixel) {
  std::vector<double> matrix(static_cast<size_t>(in * out), 0);
  for (int64_t i = 0; i < out; ++i) {
    const double at = SourceOf(i, in, out, align_corners, half_pixel);
    const double low = std::floor(at);
    const auto first = std::clamp<int64_t>(static_cast<int64_t>(low), 0, in - 1);
    const auto second = std::clamp<int64_t>(static_cast<int64_t>(low) + 1, 0, in - 1);
    matrix[static_cast<size_t>(i * in + first)] += 1 - (at - low);
    matrix[static_cast<size_t>(i * in + second)] += at - low;
  }
  return matrix;
}

std::vector<Size> NearestInputs(int64_t in, int64_t out, bool align_corners, bool half_pixel) {
  std::vector<Size> places;
  for (int64_t i = 0; i < out; ++i) {
    // Rounding differs: with half pixels the pixel that holds the centre, with corners the nearest.
    double at = SourceOf(i, in, out, align_corners, half_pixel) + (half_pixel ? 0.5 : 0);
    at = align_corners ? std::round(at) : std::floor(at);
    places.push_back(Size(std::clamp<int64_t>(static_cast<int64_t>(at), 0, in - 1)));
  }
  return places;
}

// images [n, height, width, c], size [2]
template <bool linear>
Result<Tensor> Resize(Call& call) {
  TRY_ASSIGN(Tensor x, call.In(0));
  TRY_ASSIGN(const std::vector<int64_t> size, call.Integers(1, "size"));
  if (call.b.rank(x) != 4 || size.size() != 2)
    return Fail(ErrorCode::kInvalidArgument, "is no image");
  const bool corners = call.BoolOr("align_corners", false);
  const bool half = call.BoolOr("half_pixel_centers", false);
  if (linear) {
    TRY_ASSIGN(x, call.b.Cast(x, DType::kF32));
  }
  for (int i = 0; i < 2; ++i) {
    const auto in = call.b.dim(x, i + 1).Constant();
    const int64_t out = size[static_cast<size_t>(i)];
    if (!in) return Unsupported("a picture of symbolic size");
    if (out < 1 || out > kMaxKnown || *in > kMaxKnown)
      return Unsupported(fmt::format("resizes {} pixels to {}", *in, out));
    if (linear) {
      TRY_ASSIGN(x, call.b.TransformAxis(x, i + 1, LinearMatrix(*in, out, corners, half), out));
    } else {
      TRY_ASSIGN(x, call.b.Take(x, call.b.Sizes(NearestInputs(*in, out, corners, half)), i + 1));
    }
  }
  return x;
}

constexpr OpEntry kOps[] = {
    {"MatMul", MatMul},
    {"BatchMatMul", MatMul},
    {"BatchMatMulV2", MatMul},
    {"BatchMatMulV3", MatMul},
    {"Einsum", Einsum},
    {"BiasAdd", BiasAdd},
    {"FusedBatchNorm", nullptr, FusedBatchNorm},
    {"FusedBatchNormV2", nullptr, FusedBatchNorm},
    {"FusedBatchNormV3", nullptr, FusedBatchNorm},
    {"Conv2D", Conv<false>},
    {"Conv3D", Conv<false>},
    {"DepthwiseConv2dNative", Conv<true>},
    {"Conv2DBackpropInput", ConvTranspose},
    {"Conv3DBackpropInputV2", ConvTranspose},
    {"MaxPool", Pool<Pooling::kMax>},
    {"MaxPoolV2", Pool<Pooling::kMax>},
    {"MaxPool3D", Pool<Pooling::kMax>},
    {"AvgPool", Pool<Pooling::kAverage>},
    {"AvgPool3D", Pool<Pooling::kAverage>},
    {"ResizeBilinear", Resize<true>},
    {"ResizeNearestNeighbor", Resize<false>},
};

}  // namespace

std::span<const OpEntry> LinearOps() { return kOps; }

}  // namespace millpower::import
