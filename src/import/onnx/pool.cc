// Pools, and the windows that they share with convolutions.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "import/onnx/formula.h"
#include "import/onnx/window.h"

namespace millpower::import::onnx {
namespace {

constexpr int64_t kMaxWindow = int64_t{1} << 24;  // of kernels, strides, pads and dilations

bool AreIn(const std::vector<int64_t>& list, size_t size, int64_t min) {
  return list.size() == size && std::ranges::all_of(list, [min](int64_t value) {
           return value >= min && value <= kMaxWindow;
         });
}

// As many outputs as strides fit into x, padding on both sides, the odd one behind or in front.
void FitSame(const std::vector<int64_t>& in, bool is_upper, TensorBuilder::Window& window) {
  for (size_t i = 0; i < in.size(); ++i) {
    const int64_t out = (in[i] + window.strides[i] - 1) / window.strides[i];
    const int64_t reach = (window.kernel[i] - 1) * window.dilations[i] + 1;
    const int64_t total = std::max<int64_t>((out - 1) * window.strides[i] + reach - in[i], 0);
    window.pads_begin[i] = is_upper ? total / 2 : total - total / 2;
    window.pads_end[i] = total - window.pads_begin[i];
  }
}

}  // namespace

Result<std::vector<int64_t>> SpatialSizes(Node& n, Tensor x) {
  if (n.b.rank(x) < 3) return Invalid("x is not [n, c, spatial ...]");
  std::vector<int64_t> sizes;
  for (int i = 2; i < n.b.rank(x); ++i) {
    TRY_ASSIGN(const int64_t size, n.ConstantDim(x, i));
    sizes.push_back(size);
  }
  return sizes;
}

Result<std::vector<int64_t>> KernelOfWeight(Node& n, Tensor weight) {
  TRY_ASSIGN(std::vector<int64_t> kernel, SpatialSizes(n, weight));
  return n.Ints("kernel_shape", kernel) == kernel ? Result<std::vector<int64_t>>(kernel)
                                                  : Invalid("kernel_shape is not the weight's");
}

Result<TensorBuilder::Window> WindowOf(Node& n, const std::vector<int64_t>& in,
                                       const std::vector<int64_t>& kernel, bool fits) {
  const size_t rank = kernel.size();
  TensorBuilder::Window window;
  window.kernel = kernel;
  window.strides = n.Ints("strides", std::vector<int64_t>(rank, 1));
  window.dilations = n.Ints("dilations", std::vector<int64_t>(rank, 1));
  const std::vector<int64_t> pads = n.Ints("pads", std::vector<int64_t>(2 * rank, 0));
  if (in.size() != rank || !AreIn(kernel, rank, 1) || !AreIn(in, rank, 1) ||
      !AreIn(window.strides, rank, 1) || !AreIn(window.dilations, rank, 1) ||
      !AreIn(pads, 2 * rank, 0))
    return Invalid("kernel, strides, dilations or pads do not fit");
  window.pads_begin.assign(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(rank));
  window.pads_end.assign(pads.begin() + static_cast<std::ptrdiff_t>(rank), pads.end());
  const std::string mode = n.Text("auto_pad", "NOTSET");
  if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
    if (fits) FitSame(in, mode == "SAME_UPPER", window);
  } else if (mode == "VALID") {
    window.pads_begin.assign(rank, 0);
    window.pads_end.assign(rank, 0);
  } else if (mode != "NOTSET" && !mode.empty()) {
    return Unsupported("auto_pad '" + mode + "'");
  }
  return window;
}

Result<TensorBuilder::Window> WindowOf(Node& n, Tensor x, const std::vector<int64_t>& kernel,
                                       bool fits) {
  TRY_ASSIGN(const std::vector<int64_t> in, SpatialSizes(n, x));
  return WindowOf(n, in, kernel, fits);
}

namespace {

Result<TensorBuilder::Window> PoolWindow(Node& n) {
  return WindowOf(n, n.in(0), n.Ints("kernel_shape"));
}

Result<Tensor> AveragePool(Node& n) {
  TRY_ASSIGN(const auto window, PoolWindow(n));
  return n.b.Pool(Pooling::kAverage, n.in(0), window, n.Int("ceil_mode", 0) != 0,
                  n.Int("count_include_pad", 0) != 0);
}

// Indices count elements of x row by row; by columns of the image when storage_order is 1.
Result<Tensor> ByColumns(Node& n, Tensor indices) {
  TRY_ASSIGN(const std::vector<int64_t> in, SpatialSizes(n, n.in(0)));
  if (in.size() == 1) return indices;
  if (in.size() != 2) return Unsupported("storage_order 1 of other than images");
  const auto rows = static_cast<double>(in[0]), cols = static_cast<double>(in[1]);
  Formula f(n.b, {indices});
  const auto at = f.Load(), height = f.Number(rows), width = f.Number(cols);
  const auto area = f.Number(rows * cols);
  const auto inside = f(MapOp::kMod, at, area);
  const auto row = f(MapOp::kDiv, inside, width), col = f(MapOp::kMod, inside, width);
  const auto turned = f(MapOp::kAdd, row, f(MapOp::kMul, col, height));
  f(MapOp::kAdd, f(MapOp::kSub, at, inside), turned);
  return f.Done();
}

Result<Values> MaxPool(Node& n) {
  TRY_ASSIGN(const auto window, PoolWindow(n));
  const bool ceil = n.Int("ceil_mode", 0) != 0;
  TRY_ASSIGN(const Tensor y, n.b.Pool(Pooling::kMax, n.in(0), window, ceil, false));
  Values outputs = {y};
  if (n.wants(1)) {
    TRY_ASSIGN(Tensor indices, n.b.Pool(Pooling::kArgMax, n.in(0), window, ceil, false));
    if (n.Int("storage_order", 0) != 0) {
      TRY_ASSIGN(indices, ByColumns(n, indices));
    }
    outputs.push_back(indices);
  }
  return outputs;
}

// Each value goes back to where the pool that gave `indices` took it from; all else is 0.
Result<Tensor> MaxUnpool(Node& n) {
  const Tensor x = n.in(0);
  TRY_ASSIGN(const std::vector<int64_t> in, SpatialSizes(n, x));
  TRY_ASSIGN(const auto window, WindowOf(n, x, n.Ints("kernel_shape"), false));
  TRY_ASSIGN(const std::vector<int64_t> whole, n.ConstantShape(x));
  std::vector<int64_t> shape = {whole[0], whole[1]};
  for (size_t i = 0; i < in.size(); ++i)
    shape.push_back((in[i] - 1) * window.strides[i] + window.kernel[i] - window.pads_begin[i] -
                    window.pads_end[i]);
  if (n.has(2)) {
    auto known = n.Integers(2, "output_shape");
    if (!known) return std::unexpected(known.error());
    if (*known != shape) return Unsupported("an output_shape that is not the pool's");
  }
  const auto elements = ElementsOf(shape);
  if (!elements || *elements == 0) return Invalid("pads leave nothing");
  TRY_ASSIGN(const Tensor zeros, n.b.Fill({ir::Constant(*elements)}, n.b.dtype(x), 0));
  TRY_ASSIGN(const Tensor values, n.b.Flatten(x, 0, n.b.rank(x)));
  TRY_ASSIGN(const Tensor indices, n.b.Flatten(n.in(1), 0, n.b.rank(n.in(1))));
  TRY_ASSIGN(const Tensor y, n.b.ScatterElements(zeros, indices, values, 0, Scattering::kSet));
  return n.b.Reshape(y, std::vector<Size>(shape.begin(), shape.end()));
}

// |x|^p
Result<Tensor> Powered(Node& n, double p) {
  TRY_ASSIGN(const Tensor magnitude, n.b.Unary(MapOp::kAbs, n.in(0)));
  return p == 1 ? Result<Tensor>(magnitude) : n.b.Binary(MapOp::kPow, magnitude, p);
}

double NormOrder(Node& n) {
  return n.version() < 2 ? n.Real("p", 2) : static_cast<double>(n.Int("p", 2));
}

Result<Tensor> LpPool(Node& n) {
  const double p = NormOrder(n);
  TRY_ASSIGN(const auto window, PoolWindow(n));
  TRY_ASSIGN(const Tensor x, Powered(n, p));
  TRY_ASSIGN(const Tensor sum,
             n.b.Pool(Pooling::kSum, x, window, n.Int("ceil_mode", 0) != 0, false));
  return n.b.Binary(MapOp::kPow, sum, 1 / p);
}

Result<Tensor> OverSpace(Node& n, Reduction kind, Tensor x) {
  if (n.b.rank(x) < 3) return Invalid("x is not [n, c, spatial ...]");
  std::vector<int> axes(static_cast<size_t>(n.b.rank(x) - 2));
  std::iota(axes.begin(), axes.end(), 2);
  return n.b.Reduce(kind, x, axes, true);
}

template <Reduction kind>
Result<Tensor> GlobalPool(Node& n) {
  return OverSpace(n, kind, n.in(0));
}

Result<Tensor> GlobalLpPool(Node& n) {
  const double p = NormOrder(n);
  TRY_ASSIGN(const Tensor x, Powered(n, p));
  TRY_ASSIGN(const Tensor sum, OverSpace(n, Reduction::kSum, x));
  return n.b.Binary(MapOp::kPow, sum, 1 / p);
}

constexpr Operator kOperators[] = {
    {"", "AveragePool", One<AveragePool>},
    {"", "MaxPool", MaxPool},
    {"", "MaxUnpool", One<MaxUnpool>, 2},
    {"", "LpPool", One<LpPool>},
    {"", "GlobalAveragePool", One<GlobalPool<Reduction::kMean>>},
    {"", "GlobalMaxPool", One<GlobalPool<Reduction::kMax>>},
    {"", "GlobalLpPool", One<GlobalLpPool>},
};

}  // namespace

std::span<const Operator> PoolOperators() { return kOperators; }

}  // namespace millpower::import::onnx
