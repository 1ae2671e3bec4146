// Operators that read or write where another operand says.
#include <algorithm>
#include <numeric>

#include "import/onnx/formula.h"
#include "import/onnx/node.h"

namespace millpower::import::onnx {
namespace {

// Rows of a large table are gathered as an embedding, so that the table stays in its file.
Result<Tensor> Gather(Node& n) {
  const Tensor x = n.in(0);
  TRY_ASSIGN(const int axis, n.Axis("axis", 0, n.b.rank(x)));
  const DType type = n.b.dtype(x);
  const bool is_row_type = type == DType::kF32 || type == DType::kBf16 || type == DType::kF16;
  if (axis != 0 || !n.IsTable(x) || !is_row_type) return n.b.Take(x, n.in(1), axis);
  TRY_ASSIGN(const Tensor rows, n.b.Embedding(x, n.in(1), IndexPolicy::kWrap));
  return n.b.dtype(rows) == type ? Result<Tensor>(rows) : n.b.Cast(rows, type);
}

Result<Tensor> GatherElements(Node& n) {
  TRY_ASSIGN(const int axis, n.Axis("axis", 0, n.b.rank(n.in(0))));
  return n.b.TakeAlong(n.in(0), n.in(1), axis);
}

Result<Tensor> GatherNd(Node& n) {
  const int64_t batch_dims = n.Int("batch_dims", 0);
  if (batch_dims < 0 || batch_dims > n.b.rank(n.in(0))) return Invalid("batch_dims is no rank");
  return n.b.GatherNd(n.in(0), n.in(1), static_cast<int>(batch_dims));
}

Result<Scattering> ReductionOf(const Node& n) {
  const std::string name = n.Text("reduction", "none");
  if (name == "none") return Scattering::kSet;
  if (name == "add") return Scattering::kAdd;
  if (name == "mul") return Scattering::kMul;
  if (name == "max") return Scattering::kMax;
  if (name == "min") return Scattering::kMin;
  return Unsupported("reduction '" + name + "'");
}

Result<Tensor> ScatterElements(Node& n) {
  TRY_ASSIGN(const int axis, n.Axis("axis", 0, n.b.rank(n.in(0))));
  TRY_ASSIGN(const Scattering reduction, ReductionOf(n));
  return n.b.ScatterElements(n.in(0), n.in(1), n.in(2), axis, reduction);
}

Result<Tensor> ScatterNd(Node& n) {
  TRY_ASSIGN(const Scattering reduction, ReductionOf(n));
  return n.b.ScatterNd(n.in(0), n.in(1), n.in(2), reduction);
}

// Coordinate along `axis` of a shape, as i64, for comparing with indices of the other axes.
Result<Tensor> Along(Node& n, int rank, int axis, const ir::Dim& size) {
  ir::Shape shape(static_cast<size_t>(rank), ir::Constant(1));
  shape[static_cast<size_t>(axis)] = size;
  return n.b.Iota(shape, axis);
}

Result<Tensor> OneHot(Node& n) {
  const int rank = n.b.rank(n.in(0)) + 1;
  TRY_ASSIGN(const int axis, n.Axis("axis", -1, rank));
  ir::Dim depth;
  if (auto known = n.Sizes(1, "the depth")) {
    if (known->size() != 1) return Invalid("the depth is not one number");
    depth = ir::DimOf((*known)[0]);
  } else if (const auto real = n.b.KnownReals(n.in(1)); real && real->size() == 1) {
    if (!((*real)[0] >= 1 && (*real)[0] < 1e9)) return Invalid("the depth is out of range");
    depth = ir::Constant(static_cast<int64_t>((*real)[0]));
  } else {
    const auto declared = n.DeclaredShape(0);
    if (!declared || static_cast<int>(declared->size()) != rank)
      return std::unexpected(known.error());
    depth = (*declared)[static_cast<size_t>(axis)];
    n.NoteDeclared("a depth");
  }
  TRY_ASSIGN(const Tensor cast, n.b.Cast(n.in(0), DType::kI64));
  TRY_ASSIGN(const Tensor index, n.b.Unsqueeze(cast, axis));
  TRY_ASSIGN(const Tensor along, Along(n, rank, axis, depth));
  TRY_ASSIGN(const Tensor size, n.b.Reshape(n.b.SizeScalar(ir::SizeOf(depth)), ir::Shape{}));
  TRY_ASSIGN(const Tensor off, n.b.Pick(n.in(2), 0, 0));
  TRY_ASSIGN(const Tensor on, n.b.Pick(n.in(2), 0, 1));
  Formula f(n.b, {index, along, size, on, off});
  const auto i = f.Load(0), j = f.Load(1);
  const auto wrapped =
      f.Select(f.Is(MapOp::kLess, i, f.Number(0)), f(MapOp::kAdd, i, f.Load(2)), i);
  const auto hit = f.Is(MapOp::kEqual, wrapped, j);
  f.Select(hit, f.Load(3), f.Load(4));
  return f.Done();
}

// Of each batch entry, the first so many of the sequence in reverse, the others in place.
Result<Tensor> ReverseSequence(Node& n) {
  const Tensor x = n.in(0);
  const int rank = n.b.rank(x);
  if (rank < 2) return Invalid("x has fewer than two dimensions");
  TRY_ASSIGN(const int batch, n.Axis("batch_axis", 1, rank));
  TRY_ASSIGN(const int time, n.Axis("time_axis", 0, rank));
  if (batch == time || batch > 1 || time > 1) return Invalid("axes are 0 and 1");
  TRY_ASSIGN(const Tensor cast, n.b.Cast(n.in(1), DType::kI64));
  ir::Shape by_batch(static_cast<size_t>(rank), ir::Constant(1));
  by_batch[static_cast<size_t>(batch)] = ir::DimOf(n.b.dim(x, batch));
  TRY_ASSIGN(const Tensor lengths, n.b.Reshape(cast, by_batch));
  TRY_ASSIGN(const Tensor along, Along(n, rank, time, ir::DimOf(n.b.dim(x, time))));
  Formula f(n.b, {along, lengths});
  const auto t = f.Load(0), length = f.Load(1);
  const auto last = f(MapOp::kSub, length, f.Number(1));
  f.Select(f.Is(MapOp::kLess, t, length), f(MapOp::kSub, last, t), t);
  TRY_ASSIGN(const Tensor from, f.Done());
  TRY_ASSIGN(const Tensor index, n.b.Expand(from, n.b.shape(x)));
  return n.b.TakeAlong(x, index, time);
}

// Writes `update` into `cache` along `axis` from write_indices[batch] on; "circular" wraps.
Result<Tensor> TensorScatter(Node& n) {
  const Tensor cache = n.in(0), update = n.in(1);
  const int rank = n.b.rank(cache);
  TRY_ASSIGN(const int axis, n.Axis("axis", -2, rank));
  if (axis == 0) return Invalid("axis is the batch");
  TRY_ASSIGN(const Tensor along, Along(n, rank, axis, ir::DimOf(n.b.dim(update, axis))));
  Tensor at = along;
  if (n.has(2)) {
    ir::Shape by_batch(static_cast<size_t>(rank), ir::Constant(1));
    by_batch[0] = ir::DimOf(n.b.dim(cache, 0));
    TRY_ASSIGN(const Tensor cast, n.b.Cast(n.in(2), DType::kI64));
    TRY_ASSIGN(const Tensor begins, n.b.Reshape(cast, by_batch));
    TRY_ASSIGN(at, n.b.Binary(MapOp::kAdd, along, begins));
  }
  if (n.Text("mode", "linear") == "circular") {
    TRY_ASSIGN(at, n.b.Binary(MapOp::kMod, at, n.b.SizeScalar(n.b.dim(cache, axis))));
  }
  TRY_ASSIGN(const Tensor index, n.b.Expand(at, n.b.shape(update)));
  return n.b.ScatterElements(cache, index, update, axis, Scattering::kSet);
}

// The columns of x that y names.
Result<Tensor> ArrayFeatureExtractor(Node& n) {
  const int rank = n.b.rank(n.in(0));
  TRY_ASSIGN(const Tensor index, n.b.Flatten(n.in(1), 0, n.b.rank(n.in(1))));
  TRY_ASSIGN(const Tensor taken, n.b.Take(n.in(0), index, rank - 1));
  return rank == 1 ? n.b.Unsqueeze(taken, 0) : Result<Tensor>(taken);
}

constexpr Operator kOperators[] = {
    {"", "Gather", One<Gather>, 2},
    {"", "GatherElements", One<GatherElements>, 2},
    {"", "GatherND", One<GatherNd>, 2},
    {"", "Scatter", One<ScatterElements>, 3},
    {"", "ScatterElements", One<ScatterElements>, 3},
    {"", "ScatterND", One<ScatterNd>, 3},
    {"", "OneHot", One<OneHot>, 3},
    {"", "ReverseSequence", One<ReverseSequence>, 2},
    {"", "TensorScatter", One<TensorScatter>, 2},
    {"ai.onnx.ml", "ArrayFeatureExtractor", One<ArrayFeatureExtractor>, 2},
};

}  // namespace

std::span<const Operator> IndexOperators() { return kOperators; }

}  // namespace millpower::import::onnx
