// Operators along axes: reductions, running sums, softmax, the largest.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "import/onnx/formula.h"
#include "import/onnx/node.h"

namespace millpower::import::onnx {
namespace {

struct Reduced {
  std::vector<int> axes;  // empty: none is left to reduce
  bool keeps = true;
};

// Axes known only at run time, from the declared shape of the result, where it says which they are.
std::optional<std::vector<int>> DeclaredAxes(Node& n, Tensor x, bool keeps) {
  const auto declared = n.DeclaredShape(0);
  if (!declared) return std::nullopt;
  const ir::Shape& shape = n.b.shape(x);
  std::vector<int> axes;
  if (keeps && declared->size() == shape.size()) {
    for (size_t i = 0; i < shape.size(); ++i)
      if ((*declared)[i] != shape[i]) axes.push_back(static_cast<int>(i));
    return axes;
  }
  if (keeps || declared->size() > shape.size()) return std::nullopt;
  // All subsets of axes that leave the declared dimensions; there must be one only.
  std::optional<std::vector<int>> found;
  for (uint32_t set = 0; set < uint32_t{1} << shape.size(); ++set) {
    ir::Shape left;
    axes.clear();
    for (size_t i = 0; i < shape.size(); ++i) {
      if ((set >> i & 1) != 0)
        axes.push_back(static_cast<int>(i));
      else
        left.push_back(shape[i]);
    }
    if (left != *declared) continue;
    if (found) return std::nullopt;
    found = axes;
  }
  return found;
}

// Axes became an operand in operator set `since`.
Result<Reduced> AxesOf(Node& n, int64_t since) {
  Reduced reduced;
  const int rank = n.b.rank(n.in(0));
  reduced.keeps = n.Int("keepdims", 1) != 0;
  std::vector<int64_t> axes;
  if (auto given = n.IntegersSince(since, 1, "axes")) {
    if (*given) axes = **given;
  } else {
    const auto declared = DeclaredAxes(n, n.in(0), reduced.keeps);
    if (!declared) return std::unexpected(given.error());
    n.NoteDeclared("axes");
    reduced.axes = *declared;
    return reduced;
  }
  TRY_ASSIGN(reduced.axes, n.CheckedAxes(axes, rank));
  std::ranges::sort(reduced.axes);
  if (axes.empty() && n.Int("noop_with_empty_axes", 0) == 0) {
    reduced.axes.resize(static_cast<size_t>(rank));
    std::iota(reduced.axes.begin(), reduced.axes.end(), 0);
  }
  return reduced;
}

Result<Tensor> ReduceBy(Node& n, Reduction kind, Tensor x, const Reduced& reduced) {
  if (reduced.axes.empty()) return x;
  if (n.b.dtype(x) == DType::kBool && kind == Reduction::kMax) kind = Reduction::kAny;
  if (n.b.dtype(x) == DType::kBool && kind == Reduction::kMin) kind = Reduction::kAll;
  return n.b.Reduce(kind, x, reduced.axes, reduced.keeps);
}

template <Reduction kind, int64_t since = 18>
Result<Tensor> Reduce(Node& n) {
  TRY_ASSIGN(const Reduced reduced, AxesOf(n, since));
  return ReduceBy(n, kind, n.in(0), reduced);
}

Result<Tensor> ReduceL1(Node& n) {
  TRY_ASSIGN(const Reduced reduced, AxesOf(n, 18));
  TRY_ASSIGN(const Tensor x, n.b.Unary(MapOp::kAbs, n.in(0)));
  return ReduceBy(n, Reduction::kSum, x, reduced);
}

Result<Tensor> ReduceSumSquare(Node& n) {
  TRY_ASSIGN(const Reduced reduced, AxesOf(n, 18));
  TRY_ASSIGN(const Tensor x, n.b.Binary(MapOp::kMul, n.in(0), n.in(0)));
  return ReduceBy(n, Reduction::kSum, x, reduced);
}

Result<Tensor> ReduceL2(Node& n) {
  TRY_ASSIGN(const Tensor sum, ReduceSumSquare(n));
  if (IsFloat(n.b.dtype(sum))) return n.b.Unary(MapOp::kSqrt, sum);
  TRY_ASSIGN(const Tensor wide, n.b.Cast(sum, DType::kF64));
  TRY_ASSIGN(const Tensor root, n.b.Unary(MapOp::kSqrt, wide));
  return n.b.Cast(root, n.b.dtype(sum));
}

Result<Tensor> ReduceLogSum(Node& n) {
  TRY_ASSIGN(const Reduced reduced, AxesOf(n, 18));
  TRY_ASSIGN(const Tensor sum, ReduceBy(n, Reduction::kSum, n.in(0), reduced));
  return n.b.Unary(MapOp::kLog, sum);
}

// log(sum(exp(x - max))) + max; a maximum that is infinite is taken as 0.
Result<Tensor> ReduceLogSumExp(Node& n) {
  TRY_ASSIGN(Reduced reduced, AxesOf(n, 18));
  const bool keeps = std::exchange(reduced.keeps, true);
  TRY_ASSIGN(const Tensor max, ReduceBy(n, Reduction::kMax, n.in(0), reduced));
  Formula finite(n.b, {max});
  const auto m = finite.Load();
  finite.Select(finite.Is(MapOp::kIsInfinite, m), finite.Number(0), m);
  TRY_ASSIGN(const Tensor base, finite.Done());
  Formula grown(n.b, {n.in(0), base});
  grown(MapOp::kExp, grown(MapOp::kSub, grown.Load(0), grown.Load(1)));
  TRY_ASSIGN(const Tensor exponentials, grown.Done());
  TRY_ASSIGN(const Tensor sum, ReduceBy(n, Reduction::kSum, exponentials, reduced));
  Formula f(n.b, {sum, base});
  f(MapOp::kAdd, f(MapOp::kLog, f.Load(0)), f.Load(1));
  TRY_ASSIGN(const Tensor y, f.Done());
  return keeps || reduced.axes.empty() ? Result<Tensor>(y) : n.b.Squeeze(y, reduced.axes);
}

template <bool largest>
Result<Tensor> ArgOf(Node& n) {
  TRY_ASSIGN(const int axis, n.Axis("axis", 0, n.b.rank(n.in(0))));
  const bool last = n.Int("select_last_index", 0) != 0;
  const Reduction kind = largest ? (last ? Reduction::kLastArgMax : Reduction::kArgMax)
                                 : (last ? Reduction::kLastArgMin : Reduction::kArgMin);
  return n.b.Reduce(kind, n.in(0), {axis}, n.Int("keepdims", 1) != 0);
}

template <Reduction kind>
Result<Tensor> Cumulate(Node& n) {
  auto axis = n.Integer(1, "the axis");
  if (!axis && n.b.rank(n.in(0)) == 1) axis = 0;
  if (!axis) return std::unexpected(axis.error());
  TRY_ASSIGN(const int checked, n.b.Axis(*axis, n.b.rank(n.in(0))));
  return n.b.Cumulate(kind, n.in(0), checked, n.Int("exclusive", 0) != 0, n.Int("reverse", 0) != 0);
}

// Before operator set 13, all axes from `axis` on were one.
template <typename Along>
Result<Tensor> OnLastAxes(Node& n, Along along) {
  const Tensor x = n.in(0);
  const int rank = n.b.rank(x);
  TRY_ASSIGN(const int axis, n.Axis("axis", n.version() >= 13 ? -1 : 1, std::max(rank, 1)));
  if (rank == 0) return Invalid("x is a scalar");
  if (n.version() >= 13 || axis == rank - 1) return along(x, axis);
  TRY_ASSIGN(const Tensor flat, n.b.Flatten(x, axis, rank));
  TRY_ASSIGN(const Tensor y, along(flat, axis));
  return n.b.Reshape(y, n.b.shape(x));
}

template <bool log>
Result<Tensor> Softmax(Node& n) {
  return OnLastAxes(n, [&n](Tensor x, int axis) { return n.b.Softmax(x, axis, log); });
}

Result<Tensor> Hardmax(Node& n) {
  return OnLastAxes(n, [&n](Tensor x, int axis) -> Result<Tensor> {
    TRY_ASSIGN(const Tensor best, n.b.Reduce(Reduction::kArgMax, x, {axis}, true));
    ir::Shape shape(static_cast<size_t>(n.b.rank(x)), ir::Constant(1));
    shape[static_cast<size_t>(axis)] = ir::DimOf(n.b.dim(x, axis));
    TRY_ASSIGN(const Tensor along, n.b.Iota(shape, axis));
    TRY_ASSIGN(const Tensor hit, n.b.Binary(MapOp::kEqual, best, along));
    return n.b.Cast(hit, n.b.dtype(x));
  });
}

Result<Values> TopK(Node& n) {
  const Tensor x = n.in(0);
  TRY_ASSIGN(const int axis, n.Axis("axis", -1, n.b.rank(x)));
  int64_t k = n.Int("k", 0);
  if (n.version() >= 10) {
    auto known = n.Integer(1, "k");
    const auto declared = n.DeclaredShape(0);
    if (known) {
      k = *known;
    } else if (declared && static_cast<int>(declared->size()) == n.b.rank(x)) {
      k = (*declared)[static_cast<size_t>(axis)].size;
      n.NoteDeclared("k");
    } else {
      return std::unexpected(known.error());
    }
  }
  TRY_ASSIGN(const auto top, n.b.TopK(x, axis, k, n.Int("largest", 1) != 0));
  return Values{top.values, top.indices};
}

constexpr Operator kOperators[] = {
    {"", "ReduceSum", One<Reduce<Reduction::kSum, 13>>},
    {"", "ReduceMean", One<Reduce<Reduction::kMean>>},
    {"", "ReduceProd", One<Reduce<Reduction::kProduct>>},
    {"", "ReduceMax", One<Reduce<Reduction::kMax>>},
    {"", "ReduceMin", One<Reduce<Reduction::kMin>>},
    {"", "ReduceL1", One<ReduceL1>},
    {"", "ReduceL2", One<ReduceL2>},
    {"", "ReduceSumSquare", One<ReduceSumSquare>},
    {"", "ReduceLogSum", One<ReduceLogSum>},
    {"", "ReduceLogSumExp", One<ReduceLogSumExp>},
    {"", "ArgMax", One<ArgOf<true>>},
    {"", "ArgMin", One<ArgOf<false>>},
    {"", "CumSum", One<Cumulate<Reduction::kSum>>, 2},
    {"", "CumProd", One<Cumulate<Reduction::kProduct>>, 2},
    {"", "Softmax", One<Softmax<false>>},
    {"", "LogSoftmax", One<Softmax<true>>},
    {"", "Hardmax", One<Hardmax>},
    {"", "TopK", TopK},
};

}  // namespace

std::span<const Operator> ReduceOperators() { return kOperators; }

}  // namespace millpower::import::onnx
