// Matrix products and convolutions.
#include <numeric>

#include "import/onnx/window.h"

namespace millpower::import::onnx {
namespace {

Result<Tensor> Scaled(Node& n, Tensor x, double factor) {
  if (factor == 1) return x;
  if (IsFloat(n.b.dtype(x))) return n.b.Binary(MapOp::kMul, x, factor);
  TRY_ASSIGN(const Tensor wide, n.b.Cast(x, DType::kF64));
  TRY_ASSIGN(const Tensor scaled, n.b.Binary(MapOp::kMul, wide, factor));
  return n.b.Cast(scaled, n.b.dtype(x));
}

Result<Tensor> MatMul(Node& n) { return n.b.MatMul(n.in(0), n.in(1)); }

// alpha a b + beta c
Result<Tensor> Gemm(Node& n) {
  const bool transposes_a = n.Int("transA", 0) != 0, transposes_b = n.Int("transB", 0) != 0;
  const double alpha = n.Real("alpha", 1), beta = n.Real("beta", 1);
  if (n.b.rank(n.in(0)) != 2 || n.b.rank(n.in(1)) != 2) return Invalid("is of matrices");
  const bool is_linear = !transposes_a && transposes_b && alpha == 1 && beta == 1;
  if (is_linear && (!n.has(2) || n.b.rank(n.in(2)) == 1) &&
      (!n.has(2) || n.b.dim(n.in(2), 0) == n.b.dim(n.in(1), 0)))
    return n.b.Linear(n.in(0), n.in(1), n.in(2));
  TRY_ASSIGN(Tensor y, n.b.Contract(n.in(0), n.in(1), transposes_a, transposes_b));
  TRY_ASSIGN(y, Scaled(n, y, alpha));
  if (!n.has(2)) return y;
  TRY_ASSIGN(const Tensor c, Scaled(n, n.in(2), beta));
  return n.b.Binary(MapOp::kAdd, y, c);
}

Result<Tensor> Activated(Node& n, Tensor x, const std::string& activation) {
  if (activation.empty()) return x;
  if (activation == "Relu") return n.b.Unary(MapOp::kRelu, x);
  if (activation == "Tanh") return n.b.Unary(MapOp::kTanh, x);
  if (activation == "Sigmoid") return n.b.Unary(MapOp::kSigmoid, x);
  if (activation == "LeakyRelu") return n.b.LeakyRelu(x, n.Real("activation_alpha", 0.01));
  if (activation == "Gelu") return n.b.Gelu(x, false);
  return Unsupported("activation '" + activation + "'");
}

Result<Tensor> FusedGemm(Node& n) {
  TRY_ASSIGN(const Tensor y, Gemm(n));
  return Activated(n, y, n.Text("activation", ""));
}

// ONNX Runtime's: transposed and scaled.
Result<Tensor> FusedMatMul(Node& n) {
  if (n.Int("transBatchA", 0) != 0 || n.Int("transBatchB", 0) != 0)
    return Unsupported("transBatchA and transBatchB");
  Tensor a = n.in(0), b = n.in(1);
  const bool transposes_a = n.Int("transA", 0) != 0 && n.b.rank(a) > 1;
  const bool transposes_b = n.Int("transB", 0) != 0 && n.b.rank(b) > 1;
  Tensor y;
  if (n.b.rank(a) > 1 && n.b.rank(b) > 1) {
    TRY_ASSIGN(y, n.b.Contract(a, b, transposes_a, transposes_b));
  } else {
    if (transposes_a) {
      TRY_ASSIGN(a, n.b.SwapAxes(a, -1, -2));
    }
    if (transposes_b) {
      TRY_ASSIGN(b, n.b.SwapAxes(b, -1, -2));
    }
    TRY_ASSIGN(y, n.b.MatMul(a, b));
  }
  return Scaled(n, y, n.Real("alpha", 1));
}

Result<Tensor> Einsum(Node& n) {
  TRY_ASSIGN(const std::vector<Tensor> all, n.All());
  return n.b.Einsum(n.Text("equation", ""), all);
}

Result<Tensor> Conv(Node& n) {
  TRY_ASSIGN(const std::vector<int64_t> kernel, KernelOfWeight(n, n.in(1)));
  TRY_ASSIGN(const auto window, WindowOf(n, n.in(0), kernel));
  return n.b.Conv(n.in(0), n.in(1), n.in(2), window, n.Int("group", 1));
}

// Padding for which the result has `output_shape`, or a stride's multiple of x's size.
void FitTransposed(const std::vector<int64_t>& in, const std::vector<int64_t>& output_padding,
                   const std::vector<int64_t>& out, bool is_upper, TensorBuilder::Window& window) {
  for (size_t i = 0; i < in.size(); ++i) {
    const int64_t reach = (window.kernel[i] - 1) * window.dilations[i] + 1;
    const int64_t total = window.strides[i] * (in[i] - 1) + output_padding[i] + reach - out[i];
    const int64_t half = total >> 1;  // rounded down, also where it is zeros that are added
    window.pads_begin[i] = is_upper ? half : total - half;
    window.pads_end[i] = total - window.pads_begin[i];
  }
}

Result<Tensor> ConvTranspose(Node& n) {
  const Tensor x = n.in(0), w = n.in(1);
  TRY_ASSIGN(const std::vector<int64_t> kernel, KernelOfWeight(n, w));
  TRY_ASSIGN(const std::vector<int64_t> in, SpatialSizes(n, x));
  TRY_ASSIGN(auto window, WindowOf(n, x, kernel, false));
  std::vector<int64_t> output_padding = n.Ints("output_padding");
  if (output_padding.empty()) output_padding.assign(kernel.size(), 0);
  std::vector<int64_t> out = n.Ints("output_shape");
  const std::string mode = n.Text("auto_pad", "NOTSET");
  const bool is_same = mode == "SAME_UPPER" || mode == "SAME_LOWER";
  if (out.empty() && is_same)
    for (size_t i = 0; i < in.size(); ++i) out.push_back(in[i] * window.strides[i]);
  if (out.size() == in.size() + 2) out.erase(out.begin(), out.begin() + 2);
  if (output_padding.size() != in.size() || (!out.empty() && out.size() != in.size()))
    return Invalid("output_padding or output_shape is not one number for each axis");
  if (!out.empty()) FitTransposed(in, output_padding, out, mode == "SAME_UPPER", window);
  return n.b.ConvTranspose(x, w, n.in(2), window, n.Int("group", 1), output_padding);
}

// x [n, c * kernel, windows] -> the image whose windows they are, overlapping ones added up.
Result<Tensor> Col2Im(Node& n) {
  TRY_ASSIGN(const std::vector<int64_t> image, n.Integers(1, "image_shape"));
  TRY_ASSIGN(const std::vector<int64_t> block, n.Integers(2, "block_shape"));
  TRY_ASSIGN(const auto window, WindowOf(n, image, block, false));
  const Tensor x = n.in(0);
  const size_t rank = image.size();
  if (n.b.rank(x) != 3 || block.size() != rank) return Invalid("x is no list of columns");
  TRY_ASSIGN(const int64_t depth, n.ConstantDim(x, 1));
  int64_t block_size = 1;
  std::vector<int64_t> counts;
  std::vector<Size> windows = {n.b.dim(x, 0), depth};
  for (size_t i = 0; i < rank; ++i) {
    if (block[i] < 1 || block[i] > depth) return Invalid("block_shape does not fit x");
    block_size *= block[i];
    if (block_size > depth) return Invalid("block_shape does not fit x");
    const int64_t reach = (block[i] - 1) * window.dilations[i] + 1;
    const int64_t room = image[i] + window.pads_begin[i] + window.pads_end[i] - reach;
    if (room < 0) return Invalid("a block is larger than the image");
    windows.push_back(Size(room / window.strides[i] + 1));
  }
  if (depth % block_size != 0) return Invalid("block_shape does not fit x");
  // Each place of a block goes to its place of each window: a transposed convolution by a kernel
  // that is one-hot, one group for each channel.
  const int64_t channels = depth / block_size;
  std::vector<int64_t> shape = {depth, 1};
  shape.insert(shape.end(), block.begin(), block.end());
  if (depth * block_size > int64_t{1} << 24) return Unsupported("blocks of so many elements");
  std::vector<double> kernel(static_cast<size_t>(depth * block_size));
  for (int64_t i = 0; i < depth; ++i)
    kernel[static_cast<size_t>(i * block_size + i % block_size)] = 1;
  TRY_ASSIGN(const Tensor columns, n.b.Reshape(x, windows));
  const DType type = n.b.dtype(x);
  TRY_ASSIGN(const Tensor w, n.b.Constant(type, shape, ToBytes(type, kernel)));
  std::vector<int64_t> extra(rank, 0);
  for (size_t i = 0; i < rank; ++i) {
    const int64_t reach = (block[i] - 1) * window.dilations[i] + 1;
    extra[i] = (image[i] + window.pads_begin[i] + window.pads_end[i] - reach) % window.strides[i];
  }
  return n.b.ConvTranspose(columns, w, Tensor{}, window, channels, extra);
}

// Element [row, column] of the matrices in the last two axes.
Result<Tensor> ElementAt(Node& n, Tensor x, int64_t row, int64_t column) {
  TRY_ASSIGN(const Tensor line, n.b.Pick(x, n.b.rank(x) - 2, row));
  return n.b.Pick(line, n.b.rank(line) - 1, column);
}

// By Laplace's expansion along the first of `rows`, over the columns that are left.
Result<Tensor> Determinant(Node& n, Tensor x, int64_t row, const std::vector<int64_t>& columns) {
  if (columns.size() == 1) return ElementAt(n, x, row, columns[0]);
  Tensor sum;
  for (size_t i = 0; i < columns.size(); ++i) {
    std::vector<int64_t> left = columns;
    left.erase(left.begin() + static_cast<std::ptrdiff_t>(i));
    TRY_ASSIGN(const Tensor minor, Determinant(n, x, row + 1, left));
    TRY_ASSIGN(const Tensor factor, ElementAt(n, x, row, columns[i]));
    TRY_ASSIGN(const Tensor part, n.b.Binary(MapOp::kMul, factor, minor));
    if (!sum.present()) {
      sum = part;
      continue;
    }
    TRY_ASSIGN(sum, n.b.Binary(i % 2 == 0 ? MapOp::kAdd : MapOp::kSub, sum, part));
  }
  return sum;
}

Result<Tensor> Det(Node& n) {
  const Tensor x = n.in(0);
  const int rank = n.b.rank(x);
  if (rank < 2 || n.b.dim(x, rank - 1) != n.b.dim(x, rank - 2)) return Invalid("is of matrices");
  TRY_ASSIGN(const int64_t size, n.ConstantDim(x, rank - 1));
  if (size > 4) return Unsupported("matrices larger than 4 x 4");
  std::vector<int64_t> columns(static_cast<size_t>(size));
  std::iota(columns.begin(), columns.end(), 0);
  return Determinant(n, x, 0, columns);
}

constexpr Operator kOperators[] = {
    {"", "Det", One<Det>},
    {"", "MatMul", One<MatMul>, 2},
    {"", "Gemm", One<Gemm>, 2},
    {"", "Einsum", One<Einsum>},
    {"", "Conv", One<Conv>, 2},
    {"", "ConvTranspose", One<ConvTranspose>, 2},
    {"", "Col2Im", One<Col2Im>, 3},
    {"com.microsoft", "FusedMatMul", One<FusedMatMul>, 2},
    {"com.microsoft", "FusedGemm", One<FusedGemm>, 2},
};

}  // namespace

std::span<const Operator> NetworkOperators() { return kOperators; }

}  // namespace millpower::import::onnx
