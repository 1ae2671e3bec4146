// Fourier transforms as products with constant matrices, and windows.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "import/onnx/formula.h"
#include "import/onnx/node.h"

namespace millpower::import::onnx {
namespace {

constexpr int64_t kMaxTransform = 2048;

// cos and sin of 2 pi i j / size, [out, size]
struct Waves {
  std::vector<double> cos, sin;
};
Waves WavesOf(int64_t size, int64_t out) {
  Waves waves;
  for (int64_t i = 0; i < out; ++i) {
    for (int64_t j = 0; j < size; ++j) {
      const double angle =
          2 * std::numbers::pi * static_cast<double>(i * j % size) / static_cast<double>(size);
      waves.cos.push_back(std::cos(angle));
      waves.sin.push_back(std::sin(angle));
    }
  }
  return waves;
}

Result<Tensor> Combined(Node& n, MapOp op, Tensor a, Tensor b, double factor) {
  Formula f(n.b, {a, b});
  const auto sum = f(op, f.Load(0), f.Load(1));
  if (factor != 1) f(MapOp::kMul, sum, f.Number(factor));
  return f.Done();
}

// x [..., 1 or 2] along `axis`, of `size` elements, -> [..., 2], `out` of them. Forwards
// re cos + im sin, im cos - re sin; inverse with the other sign, divided by size.
Result<Tensor> Transform(Node& n, Tensor x, int axis, int64_t size, int64_t out, bool inverse) {
  if (size < 1 || size > kMaxTransform) return Unsupported("a transform of so many elements");
  const int last = n.b.rank(x) - 1;
  const Waves waves = WavesOf(size, out);
  const double factor = inverse ? 1 / static_cast<double>(size) : 1;
  // In f64: sums of waves cancel, and what is left of them is small.
  const DType type = n.b.dtype(x);
  TRY_ASSIGN(x, n.b.Cast(x, DType::kF64));
  TRY_ASSIGN(const Tensor re, n.b.Pick(x, last, 0));
  TRY_ASSIGN(const Tensor re_cos, n.b.TransformAxis(re, axis, waves.cos, out));
  TRY_ASSIGN(const Tensor re_sin, n.b.TransformAxis(re, axis, waves.sin, out));
  Tensor real, imaginary;
  if (n.b.dim(x, last) == Size(1)) {
    TRY_ASSIGN(real, n.b.Binary(MapOp::kMul, re_cos, factor));
    TRY_ASSIGN(imaginary, n.b.Binary(MapOp::kMul, re_sin, inverse ? factor : -factor));
  } else {
    TRY_ASSIGN(const Tensor im, n.b.Pick(x, last, 1));
    TRY_ASSIGN(const Tensor im_cos, n.b.TransformAxis(im, axis, waves.cos, out));
    TRY_ASSIGN(const Tensor im_sin, n.b.TransformAxis(im, axis, waves.sin, out));
    TRY_ASSIGN(real, Combined(n, inverse ? MapOp::kSub : MapOp::kAdd, re_cos, im_sin, factor));
    TRY_ASSIGN(imaginary, Combined(n, inverse ? MapOp::kAdd : MapOp::kSub, im_cos, re_sin, factor));
  }
  TRY_ASSIGN(const Tensor both, n.b.Stack(std::vector<Tensor>{real, imaginary}, last));
  return n.b.Cast(both, type);
}

// x with `size` elements along an axis: cut off, or filled up with zeros.
Result<Tensor> Resized(Node& n, Tensor x, int axis, int64_t size) {
  TRY_ASSIGN(const int64_t now, n.ConstantDim(x, axis));
  if (now == size) return x;
  std::vector<int64_t> before(static_cast<size_t>(n.b.rank(x))), after(before);
  after[static_cast<size_t>(axis)] = size - now;
  return n.b.Pad(x, before, after, 0);
}

Result<Tensor> Dft(Node& n) {
  Tensor x = n.in(0);
  const int rank = n.b.rank(x);
  if (rank < 2) return Invalid("x is not [..., 1 or 2]");
  int64_t given = n.version() >= 20 ? -2 : n.Int("axis", 1);
  if (n.version() >= 20 && n.has(2)) {
    TRY_ASSIGN(given, n.Integer(2, "the axis"));
  }
  TRY_ASSIGN(const int axis, n.b.Axis(given, rank));
  if (axis == rank - 1) return Invalid("axis is that of real and imaginary parts");
  TRY_ASSIGN(int64_t size, n.ConstantDim(x, axis));
  if (n.has(1)) {
    TRY_ASSIGN(size, n.Integer(1, "dft_length"));
  }
  if (size < 1 || size > kMaxTransform) return Unsupported("a transform of so many elements");
  const bool inverse = n.Int("inverse", 0) != 0, onesided = n.Int("onesided", 0) != 0;
  if (inverse && onesided) return Unsupported("an inverse transform of one side");
  TRY_ASSIGN(x, Resized(n, x, axis, size));
  return Transform(n, x, axis, size, onesided ? size / 2 + 1 : size, inverse);
}

// Frames of the signal [batch, length, 1 or 2], windowed and transformed.
Result<Tensor> Stft(Node& n) {
  const Tensor x = n.in(0);
  if (n.b.rank(x) != 3) return Invalid("the signal is not [batch, length, 1 or 2]");
  TRY_ASSIGN(const int64_t step, n.Integer(1, "frame_step"));
  TRY_ASSIGN(const int64_t length, n.ConstantDim(x, 1));
  int64_t size = 0;
  if (n.has(3)) {
    TRY_ASSIGN(size, n.Integer(3, "frame_length"));
  } else if (n.has(2)) {
    TRY_ASSIGN(size, n.ConstantDim(n.in(2), 0));
  }
  if (step < 1 || size < 1 || size > length || size > kMaxTransform)
    return Invalid("frames do not fit the signal");
  const int64_t frames = (length - size) / step + 1;
  const ir::Shape grid = {ir::Constant(frames), ir::Constant(size)};
  TRY_ASSIGN(const Tensor begins, n.b.Iota(grid, 0, 0, step));
  TRY_ASSIGN(const Tensor along, n.b.Iota(grid, 1));
  TRY_ASSIGN(const Tensor index, n.b.Binary(MapOp::kAdd, begins, along));
  TRY_ASSIGN(Tensor cut, n.b.Take(x, index, 1));  // [batch, frames, size, 1 or 2]
  if (n.has(2)) {
    TRY_ASSIGN(const Tensor window, n.b.Unsqueeze(n.in(2), 1));
    TRY_ASSIGN(cut, n.b.Binary(MapOp::kMul, cut, window));
  }
  const bool onesided = n.Int("onesided", 1) != 0;
  return Transform(n, cut, 2, size, onesided ? size / 2 + 1 : size, false);
}

// a0 - a1 cos(2 pi i / N) + a2 cos(4 pi i / N); N is the size, or one less when not periodic.
Result<Tensor> Window(Node& n, double a0, double a1, double a2) {
  int64_t size = 0;
  if (auto known = n.Integer(0, "the size")) {
    size = *known;
  } else {
    const auto declared = n.DeclaredShape(0);
    if (!declared || declared->size() != 1) return std::unexpected(known.error());
    size = (*declared)[0].size;
    n.NoteDeclared("a size");
  }
  if (size < 1 || size > int64_t{1} << 20) return Unsupported("a window of such a size");
  const auto period = static_cast<double>(n.Int("periodic", 1) != 0 ? size : size - 1);
  std::vector<double> values;
  for (int64_t i = 0; i < size; ++i) {
    const double angle = 2 * std::numbers::pi * static_cast<double>(i) / std::max(period, 1.0);
    values.push_back(a0 - a1 * std::cos(angle) + a2 * std::cos(2 * angle));
  }
  TRY_ASSIGN(const DType type, n.TypeAttribute("output_datatype", DType::kF32));
  return n.b.Constant(type, {size}, ToBytes(type, values));
}

Result<Tensor> HannWindow(Node& n) { return Window(n, 0.5, 0.5, 0); }
Result<Tensor> HammingWindow(Node& n) { return Window(n, 25.0 / 46, 21.0 / 46, 0); }
Result<Tensor> BlackmanWindow(Node& n) { return Window(n, 0.42, 0.5, 0.08); }

constexpr Operator kOperators[] = {
    {"", "DFT", One<Dft>},
    {"", "STFT", One<Stft>, 2},
    {"", "HannWindow", One<HannWindow>},
    {"", "HammingWindow", One<HammingWindow>},
    {"", "BlackmanWindow", One<BlackmanWindow>},
};

}  // namespace

std::span<const Operator> SignalOperators() { return kOperators; }

}  // namespace millpower::import::onnx
