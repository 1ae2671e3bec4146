// GridSample: an image read at places that another operand says, between its elements.
#include <cmath>

#include "import/onnx/formula.h"
#include "import/onnx/node.h"

namespace millpower::import::onnx {
namespace {

enum class Mode { kNearest, kLinear, kCubic };
enum class Padding { kZeros, kBorder, kReflection };

struct Sampling {
  Mode mode = Mode::kLinear;
  Padding padding = Padding::kZeros;
  bool aligns_corners = false;
};

Result<Sampling> ReadSampling(Node& n) {
  Sampling s;
  const std::string mode = n.Text("mode", "linear");
  if (mode == "nearest")
    s.mode = Mode::kNearest;
  else if (mode == "cubic" || mode == "bicubic")
    s.mode = Mode::kCubic;
  else if (mode != "linear" && mode != "bilinear")
    return Unsupported("mode '" + mode + "'");
  const std::string padding = n.Text("padding_mode", "zeros");
  if (padding == "border")
    s.padding = Padding::kBorder;
  else if (padding == "reflection")
    s.padding = Padding::kReflection;
  else if (padding != "zeros")
    return Unsupported("padding_mode '" + padding + "'");
  s.aligns_corners = n.Int("align_corners", 0) != 0;
  return s;
}

// One spatial axis: its size, and where along it each place is, in elements.
struct Axis {
  double size = 1;
  Tensor place;  // [n, places], f32
};

// What lies outside is thrown back in at the edges, as often as it takes: a zigzag.
Formula::Id Reflected(Formula& f, const Sampling& s, double size, Formula::Id x) {
  const double low = s.aligns_corners ? 0 : -0.5;
  const double range = s.aligns_corners ? size - 1 : size;
  if (range == 0) return f(MapOp::kMul, x, f.Number(0));
  const auto from_low = f(MapOp::kAbs, f(MapOp::kSub, x, f.Number(low)));
  const auto turns = f(MapOp::kFloor, f(MapOp::kDiv, from_low, f.Number(range)));
  const auto rest = f(MapOp::kSub, from_low, f(MapOp::kMul, turns, f.Number(range)));
  const auto is_odd = f.Is(MapOp::kNotEqual, f(MapOp::kMod, turns, f.Number(2)), f.Number(0));
  return f.Select(is_odd, f(MapOp::kSub, f.Number(low + range), rest),
                  f(MapOp::kAdd, f.Number(low), rest));
}

// From [-1, 1] to elements, with what the padding makes of places outside.
Result<Tensor> PlaceOf(Node& n, const Sampling& s, double size, Tensor grid) {
  Formula f(n.b, {grid});
  const auto unit = f(MapOp::kAdd, f.Load(), f.Number(1));
  auto x = s.aligns_corners
               ? f(MapOp::kMul, unit, f.Number((size - 1) / 2))
               : f(MapOp::kDiv, f(MapOp::kSub, f(MapOp::kMul, unit, f.Number(size)), f.Number(1)),
                   f.Number(2));
  if (s.mode == Mode::kNearest) x = f(MapOp::kRound, x);
  if (s.padding == Padding::kBorder) f.Clamp(x, 0, size - 1);
  if (s.padding == Padding::kReflection) Reflected(f, s, size, x);
  return f.Done();
}

// The weight of the neighbour `offset` from the element in front of a place; Keys' cubic
// convolution kernel with a = -3/4.
Formula::Id Weight(Formula& f, Mode mode, Formula::Id fraction, int offset) {
  const auto distance =
      f(MapOp::kAbs, f(MapOp::kSub, fraction, f.Number(static_cast<double>(offset))));
  if (mode == Mode::kLinear) return f(MapOp::kSub, f.Number(1), distance);
  constexpr double a = -0.75;
  const auto horner = [&](std::initializer_list<double> coefficients) {
    Formula::Id sum = f.Number(*coefficients.begin());
    for (const double* c = coefficients.begin() + 1; c != coefficients.end(); ++c)
      sum = f(MapOp::kAdd, f(MapOp::kMul, sum, distance), f.Number(*c));
    return sum;
  };
  const bool is_near = offset == 0 || offset == 1;
  return is_near ? horner({a + 2, -(a + 3), 0, 1}) : horner({a, -5 * a, 8 * a, -4 * a});
}

struct Neighbour {
  Tensor index;   // [n, places], i64, inside the axis
  Tensor weight;  // [n, places]; 0 where the padding is zeros and the neighbour outside
};

Result<Neighbour> NeighbourOf(Node& n, const Sampling& s, const Axis& axis, int offset) {
  Neighbour neighbour;
  Formula at(n.b, {axis.place});
  auto index = at(MapOp::kAdd, at(MapOp::kFloor, at.Load()), at.Number(offset));
  if (s.padding == Padding::kReflection) index = Reflected(at, s, axis.size, index);
  at.Cast(at.Clamp(index, 0, axis.size - 1), DType::kI64);
  TRY_ASSIGN(neighbour.index, at.Done());
  Formula f(n.b, {axis.place});
  const auto x = f.Load(), base = f(MapOp::kFloor, x);
  const auto weight =
      s.mode == Mode::kNearest ? f.Number(1) : Weight(f, s.mode, f(MapOp::kSub, x, base), offset);
  const auto place = f(MapOp::kAdd, base, f.Number(offset));
  if (s.padding == Padding::kZeros) {
    const auto is_behind = f.Is(MapOp::kGreaterEqual, place, f.Number(0));
    const auto is_before = f.Is(MapOp::kLess, place, f.Number(axis.size));
    const auto is_inside = f.Select(is_behind, is_before, f.NumberOf(DType::kBool, 0));
    f.Select(is_inside, weight, f.Number(0));
  } else {
    f(MapOp::kMul, weight, f.Number(1));
  }
  TRY_ASSIGN(neighbour.weight, f.Done());
  return neighbour;
}

// The weighted sum over all neighbours of the axes from `first` on, of which those before are
// chosen: `flat` is their index into rows [n, elements, c], `weight` their product.
Result<Tensor> SumNeighbours(Node& n, const Sampling& s, const std::vector<Axis>& axes,
                             size_t first, Tensor rows, Tensor flat, Tensor weight) {
  if (first == axes.size()) {
    TRY_ASSIGN(const Tensor index, n.b.Unsqueeze(flat, 2));
    TRY_ASSIGN(const Tensor taken, n.b.GatherNd(rows, index, 1));
    TRY_ASSIGN(const Tensor factor, n.b.Unsqueeze(weight, 2));
    TRY_ASSIGN(const Tensor cast, n.b.Cast(factor, n.b.dtype(taken)));
    return n.b.Binary(MapOp::kMul, taken, cast);
  }
  const int begin = s.mode == Mode::kCubic ? -1 : 0;
  const int end = s.mode == Mode::kCubic ? 3 : s.mode == Mode::kLinear ? 2 : 1;
  Tensor sum;
  for (int offset = begin; offset < end; ++offset) {
    TRY_ASSIGN(const Neighbour neighbour, NeighbourOf(n, s, axes[first], offset));
    Tensor index = neighbour.index, product = neighbour.weight;
    if (flat.present()) {
      TRY_ASSIGN(const Tensor outer, n.b.Binary(MapOp::kMul, flat, axes[first].size));
      TRY_ASSIGN(index, n.b.Binary(MapOp::kAdd, outer, index));
      TRY_ASSIGN(product, n.b.Binary(MapOp::kMul, weight, product));
    }
    TRY_ASSIGN(const Tensor part, SumNeighbours(n, s, axes, first + 1, rows, index, product));
    if (sum.present()) {
      TRY_ASSIGN(sum, n.b.Binary(MapOp::kAdd, sum, part));
    } else {
      sum = part;
    }
  }
  return sum;
}

// x [n, c, spatial ...], grid [n, places ..., axes], the last axis first -> [n, c, places ...]
Result<Tensor> GridSample(Node& n) {
  TRY_ASSIGN(const Sampling sampling, ReadSampling(n));
  const Tensor x = n.in(0);
  const int dims = n.b.rank(x) - 2;
  if (dims < 1 || dims > 3 || n.b.rank(n.in(1)) != dims + 2 ||
      n.b.dim(n.in(1), dims + 1) != Size(dims))
    return Invalid("x and grid do not fit");
  if (!IsFloat(n.b.dtype(x))) return Unsupported("an image of integers");
  TRY_ASSIGN(const Tensor grid, n.b.Cast(n.in(1), DType::kF32));
  TRY_ASSIGN(const Tensor list, n.b.Flatten(grid, 1, dims + 1));  // [n, places, axes]
  std::vector<Axis> axes;
  for (int i = 0; i < dims; ++i) {
    TRY_ASSIGN(const int64_t size, n.ConstantDim(x, 2 + i));
    TRY_ASSIGN(const Tensor unit, n.b.Pick(list, 2, dims - 1 - i));
    Axis axis{static_cast<double>(size), {}};
    TRY_ASSIGN(axis.place, PlaceOf(n, sampling, axis.size, unit));
    axes.push_back(axis);
  }
  TRY_ASSIGN(const Tensor flat, n.b.Flatten(x, 2, n.b.rank(x)));
  TRY_ASSIGN(const Tensor rows, n.b.Transpose(flat, {0, 2, 1}));
  TRY_ASSIGN(const Tensor sum, SumNeighbours(n, sampling, axes, 0, rows, {}, {}));
  TRY_ASSIGN(const Tensor y, n.b.Transpose(sum, {0, 2, 1}));
  ir::Shape shape = {n.b.shape(x)[0], n.b.shape(x)[1]};
  shape.insert(shape.end(), n.b.shape(grid).begin() + 1, n.b.shape(grid).end() - 1);
  return n.b.Reshape(y, shape);
}

constexpr Operator kOperators[] = {
    {"", "GridSample", One<GridSample>, 2},
};

}  // namespace

std::span<const Operator> GridOperators() { return kOperators; }

}  // namespace millpower::import::onnx
