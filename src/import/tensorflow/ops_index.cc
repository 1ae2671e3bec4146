// Gathering, scattering, segments and choosing.
#include <fmt/format.h>

#include <limits>

#include "import/tensorflow/call.h"

namespace millpower::import {
namespace {

// x with dimension `axis` moved to `to`, to its left.
std::vector<int64_t> MoveLeft(int rank, int axis, int to) {
  std::vector<int64_t> perm;
  for (int i = 0; i < rank; ++i) {
    if (i == to) perm.push_back(axis);
    if (i != axis) perm.push_back(i);
  }
  return perm;
}

struct Indices {
  Tensor index;
  IndexPolicy policy = IndexPolicy::kError;
};

// Ids that Keras has made count from the end when they are negative, as they were before that: the
// device does the same, and fewer operations are left.
Indices Unwrapped(Call& call, Tensor index, const Size& rows) {
  const auto wrapped = call.state.wrapped.find(index.id);
  if (wrapped == call.state.wrapped.end() || Size(wrapped->second.by) != rows) return {index};
  return {Tensor{wrapped->second.source}, IndexPolicy::kWrap};
}

Result<Tensor> GatherRows(Call& call, Tensor params, Tensor index, int axis) {
  const Indices indices = Unwrapped(call, index, call.b.dim(params, axis));
  const bool is_table = call.state.IsWeight(params) && call.b.rank(params) == 2 && axis == 0 &&
                        IsFloat(call.b.dtype(params)) && call.b.rank(index) > 0;
  if (is_table) return call.b.Embedding(params, indices.index, indices.policy);
  return call.b.Take(params, indices.index, axis, indices.policy);
}

// The first `batch` dimensions of both go together: params.shape[:axis] +
// index.shape[batch:] + params.shape[axis + 1:].
Result<Tensor> BatchGather(Call& call, Tensor params, Tensor index, int axis, int batch) {
  const int rank = call.b.rank(params);
  TRY_ASSIGN(params, call.b.Transpose(params, MoveLeft(rank, axis, batch)));
  TRY_ASSIGN(const Tensor paths, call.b.Unsqueeze(index, call.b.rank(index)));
  TRY_ASSIGN(const Tensor rows, call.b.GatherNd(params, paths, batch, IndexPolicy::kError));
  // Now batch, index, params[batch:axis], params[axis + 1:].
  const int found = call.b.rank(index) - batch, between = axis - batch;
  if (between == 0) return rows;
  std::vector<int64_t> perm;
  for (int i = 0; i < batch; ++i) perm.push_back(i);
  for (int i = 0; i < between; ++i) perm.push_back(batch + found + i);
  for (int i = 0; i < found; ++i) perm.push_back(batch + i);
  for (int i = batch + found + between; i < call.b.rank(rows); ++i) perm.push_back(i);
  return call.b.Transpose(rows, perm);
}

Result<Tensor> GatherFrom(Call& call, Tensor params, Tensor index, int axis) {
  TRY_ASSIGN(const int batch, call.b.Axis(call.IntOr("batch_dims", 0), call.b.rank(index) + 1));
  if (batch > axis) return Fail(ErrorCode::kInvalidArgument, "more batch dimensions than axis");
  if (batch == 0) return GatherRows(call, params, index, axis);
  return BatchGather(call, params, index, axis, batch);
}

Result<Tensor> Gather(Call& call) {
  TRY_ASSIGN(const Tensor params, call.In(0));
  TRY_ASSIGN(const Tensor index, call.In(1));
  int axis = 0;
  if (call.count() > 2) {
    TRY_ASSIGN(axis, call.Axis(2, call.b.rank(params)));
  }
  if (call.b.rank(params) == 0) return Fail(ErrorCode::kInvalidArgument, "of a scalar");
  return GatherFrom(call, params, index, axis);
}

Result<Tensor> ResourceGather(Call& call) {
  TRY_ASSIGN(const Handle variable, call.Resource(0, false));
  TRY_ASSIGN(const Tensor params, call.state.Read(variable.resource));
  TRY_ASSIGN(const Tensor index, call.In(1));
  TRY_ASSIGN(const int axis, call.b.Axis(call.IntOr("batch_dims", 0), call.b.rank(params)));
  return GatherFrom(call, params, index, axis);
}

Result<Tensor> GatherNd(Call& call) {
  TRY_ASSIGN(const Tensor params, call.In(0));
  TRY_ASSIGN(const Tensor index, call.In(1));
  return call.b.GatherNd(params, index, 0, IndexPolicy::kError);
}

Result<Tensor> ResourceGatherNd(Call& call) {
  TRY_ASSIGN(const Handle variable, call.Resource(0, false));
  TRY_ASSIGN(const Tensor params, call.state.Read(variable.resource));
  TRY_ASSIGN(const Tensor index, call.In(1));
  return call.b.GatherNd(params, index, 0, IndexPolicy::kError);
}

// ---- scattering ----

template <Scattering reduction>
Result<Tensor> TensorScatter(Call& call) {
  TRY_ASSIGN(const std::vector<Tensor> x, call.InRange(0, 3));
  return call.b.ScatterNd(x[0], x[1], x[2], reduction);
}

Result<Tensor> TensorScatterSub(Call& call) {
  TRY_ASSIGN(std::vector<Tensor> x, call.InRange(0, 3));
  TRY_ASSIGN(x[2], call.b.Unary(MapOp::kNeg, x[2]));
  return call.b.ScatterNd(x[0], x[1], x[2], Scattering::kAdd);
}

// indices, updates, shape
Result<Tensor> ScatterNd(Call& call) {
  TRY_ASSIGN(const std::vector<Tensor> x, call.InRange(0, 2));
  TRY_ASSIGN(const ir::Shape shape, call.Shape(2, "shape"));
  TRY_ASSIGN(const Tensor zeros, call.b.Fill(shape, call.b.dtype(x[1]), 0));
  return call.b.ScatterNd(zeros, x[0], x[1], Scattering::kAdd);
}

// ---- segments: rows of x reduced by the segment that each belongs to ----

// What an empty segment holds: the neutral element.
double NeutralOf(Scattering reduction, DType dtype) {
  if (reduction == Scattering::kAdd) return 0;
  if (reduction == Scattering::kMul) return 1;
  const bool most = reduction == Scattering::kMin;
  switch (dtype) {
    case DType::kF64:
      return most ? std::numeric_limits<double>::max() : std::numeric_limits<double>::lowest();
    case DType::kF16:
      return most ? 65504 : -65504;
    case DType::kBf16:
      return static_cast<double>(Bf16ToF32(most ? 0x7f7f : 0xff7f));
    case DType::kI32:
      return most ? std::numeric_limits<int32_t>::max() : std::numeric_limits<int32_t>::min();
    default:
      return most ? static_cast<double>(std::numeric_limits<float>::max())
                  : static_cast<double>(std::numeric_limits<float>::lowest());
  }
}

struct Segments {
  Tensor x, ids;
  Size count = 0;
};

// Rows with a negative id take no part: they go to a row behind the last, which is cut off.
Result<Tensor> Pooled(Call& call, const Segments& segments, Scattering reduction) {
  const auto [x, ids, count] = segments;
  const DType dtype = call.b.dtype(x);
  if (reduction != Scattering::kAdd && reduction != Scattering::kMul && !IsFloat(dtype) &&
      dtype != DType::kI32)
    return Unsupported(fmt::format("extremes of {}", Name(dtype)));
  const auto rows = count.Plus(Size(1));
  if (!rows || !count.IsMonotone() || count == Size(0))
    return Unsupported("a number of segments of " + count.ToString());
  ir::Shape shape = {ir::DimOf(*rows)};
  const ir::Shape& given = call.b.shape(x);
  const auto leading = static_cast<size_t>(call.b.rank(ids));
  if (given.size() < leading)
    return Fail(ErrorCode::kInvalidArgument, "more dimensions of ids than of x");
  shape.insert(shape.end(), given.begin() + static_cast<int64_t>(leading), given.end());
  TRY_ASSIGN(const Tensor empty, call.b.Fill(shape, dtype, NeutralOf(reduction, dtype)));

  const Tensor last = call.b.SizeScalar(count);
  TRY_ASSIGN(Tensor index, call.b.Cast(ids, DType::kI64));
  TRY_ASSIGN(const Tensor negative, call.b.Binary(MapOp::kLess, index, 0));
  TRY_ASSIGN(index, call.b.Select(negative, last, index));
  TRY_ASSIGN(index, call.b.Unsqueeze(index, call.b.rank(index)));
  TRY_ASSIGN(const Tensor all, call.b.ScatterNd(empty, index, x, reduction));
  return call.b.Slice(all, 0, std::nullopt, count);
}

// x, ids and the number of segments at these operands. Ids say that a first dimension counts items
// of all rows together, and not rows.
Result<Segments> ReadSegments(Call& call, Tensor x, int ids_at, int count_at, uint64_t item_ports) {
  Segments segments{.x = x, .ids = {}};
  TRY_ASSIGN(segments.ids, call.In(ids_at));
  TRY_ASSIGN(const std::vector<Size> count, call.Sizes(count_at, "number of segments"));
  if (count.size() != 1) return Fail(ErrorCode::kInvalidArgument, "its number of segments");
  segments.count = count[0];
  const uint64_t row_ports = call.inputs[static_cast<size_t>(count_at)].ports;
  call.state.ragged_ports |=
      (item_ports | call.inputs[static_cast<size_t>(ids_at)].ports) & ~row_ports;
  return segments;
}

template <Scattering reduction>
Result<Tensor> UnsortedSegment(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const Segments segments, ReadSegments(call, x, 1, 2, call.inputs[0].ports));
  return Pooled(call, segments, reduction);
}

enum class Averaging { kNone, kMean, kSqrtN };

// data, indices, segment ids, number of segments: rows of data at the indices, pooled.
template <Averaging averaging>
Result<Tensor> SparseSegment(Call& call) {
  TRY_ASSIGN(const Tensor data, call.In(0));
  TRY_ASSIGN(const Tensor index, call.In(1));
  TRY_ASSIGN(const Tensor rows, GatherRows(call, data, index, 0));
  TRY_ASSIGN(Segments segments, ReadSegments(call, rows, 2, 3, call.inputs[1].ports));
  TRY_ASSIGN(const Tensor sum, Pooled(call, segments, Scattering::kAdd));
  if (averaging == Averaging::kNone) return sum;
  TRY_ASSIGN(segments.x, call.b.Fill(call.b.shape(segments.ids), call.b.dtype(data), 1));
  TRY_ASSIGN(Tensor count, Pooled(call, segments, Scattering::kAdd));
  TRY_ASSIGN(count, call.b.Binary(MapOp::kMax, count, 1));  // empty segments stay 0
  if (averaging == Averaging::kSqrtN) {
    TRY_ASSIGN(count, call.b.Unary(MapOp::kSqrt, count));
  }
  while (call.b.rank(count) < call.b.rank(sum)) {
    TRY_ASSIGN(count, call.b.Unsqueeze(count, call.b.rank(count)));
  }
  return call.b.Binary(MapOp::kDiv, sum, count);
}

Result<Tensor> DynamicSegments(Call&) {
  return Unsupported("has as many rows as the largest id says, which no shape tells");
}

// ---- choosing ----

Result<Values> TopK(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const int64_t k, call.Integer(1, "k"));
  if (call.b.rank(x) == 0 || k < 1) return Unsupported(fmt::format("the best {}", k));
  TRY_ASSIGN(const auto best, call.b.TopK(x, call.b.rank(x) - 1, k, true));
  TRY_ASSIGN(const Tensor indices,
             call.b.Cast(best.indices, call.TypeOr("index_type", DType::kI32)));
  return Values{Value{best.values}, Value{indices}};
}

// indices, depth, on, off
Result<Tensor> OneHot(Call& call) {
  TRY_ASSIGN(const std::vector<Tensor> x, call.InRange(0, 4));
  TRY_ASSIGN(const std::vector<Size> depth, call.Sizes(1, "depth"));
  if (depth.size() != 1 || !depth[0].IsMonotone() || depth[0].Constant().value_or(1) < 1)
    return Unsupported("its depth");
  TRY_ASSIGN(const int axis, call.b.Axis(call.IntOr("axis", -1), call.b.rank(x[0]) + 1));
  TRY_ASSIGN(Tensor index, call.b.Cast(x[0], DType::kI64));
  TRY_ASSIGN(index, call.b.Unsqueeze(index, axis));
  ir::Shape places(static_cast<size_t>(call.b.rank(index)), ir::Constant(1));
  places[static_cast<size_t>(axis)] = ir::DimOf(depth[0]);
  TRY_ASSIGN(const Tensor place, call.b.Iota(places, axis));
  TRY_ASSIGN(const Tensor is_here, call.b.Binary(MapOp::kEqual, index, place));
  return call.b.Select(is_here, x[2], x[3]);
}

// Where a constant is not zero; of anything else the number of results is not known.
Result<Tensor> Where(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  const auto known = call.b.KnownReals(x);
  if (!known) return Unsupported("has as many rows as there are true elements");
  std::vector<int64_t> sizes;
  for (const ir::Dim& dim : call.b.shape(x)) sizes.push_back(dim.size);
  std::vector<int64_t> places;
  for (size_t i = 0; i < known->size(); ++i) {
    if ((*known)[i] == 0) continue;
    std::vector<int64_t> place(sizes.size());
    auto rest = static_cast<int64_t>(i);
    for (size_t axis = sizes.size(); axis-- > 0; rest /= sizes[axis])
      place[axis] = rest % sizes[axis];
    places.insert(places.end(), place.begin(), place.end());
  }
  const auto rank = static_cast<int64_t>(sizes.size());
  if (rank == 0 || places.empty()) return Unsupported("finds nothing");
  const std::vector<int64_t> shape = {static_cast<int64_t>(places.size()) / rank, rank};
  return call.b.Constant(DType::kI64, shape,
                         ToBytes(DType::kI64, std::span<const int64_t>(places)));
}

constexpr OpEntry kOps[] = {
    {"Gather", Gather},
    {"GatherV2", Gather},
    {"ResourceGather", ResourceGather},
    {"GatherNd", GatherNd},
    {"ResourceGatherNd", ResourceGatherNd},
    {"TensorScatterUpdate", TensorScatter<Scattering::kSet>},
    {"TensorScatterAdd", TensorScatter<Scattering::kAdd>},
    {"TensorScatterMax", TensorScatter<Scattering::kMax>},
    {"TensorScatterMin", TensorScatter<Scattering::kMin>},
    {"TensorScatterSub", TensorScatterSub},
    {"ScatterNd", ScatterNd},
    {"UnsortedSegmentSum", UnsortedSegment<Scattering::kAdd>},
    {"UnsortedSegmentProd", UnsortedSegment<Scattering::kMul>},
    {"UnsortedSegmentMax", UnsortedSegment<Scattering::kMax>},
    {"UnsortedSegmentMin", UnsortedSegment<Scattering::kMin>},
    {"SegmentSumV2", UnsortedSegment<Scattering::kAdd>},
    {"SegmentProdV2", UnsortedSegment<Scattering::kMul>},
    {"SegmentMaxV2", UnsortedSegment<Scattering::kMax>},
    {"SegmentMinV2", UnsortedSegment<Scattering::kMin>},
    {"SparseSegmentSumWithNumSegments", SparseSegment<Averaging::kNone>},
    {"SparseSegmentMeanWithNumSegments", SparseSegment<Averaging::kMean>},
    {"SparseSegmentSqrtNWithNumSegments", SparseSegment<Averaging::kSqrtN>},
    {"SegmentSum", DynamicSegments},
    {"SegmentMean", DynamicSegments},
    {"SegmentProd", DynamicSegments},
    {"SegmentMax", DynamicSegments},
    {"SegmentMin", DynamicSegments},
    {"SparseSegmentSum", DynamicSegments},
    {"SparseSegmentMean", DynamicSegments},
    {"SparseSegmentSqrtN", DynamicSegments},
    {"TopKV2", nullptr, TopK},
    {"OneHot", OneHot},
    {"Where", Where},
};

}  // namespace

std::span<const OpEntry> IndexOps() { return kOps; }

}  // namespace millpower::import
