// Embeddings, gathers and scatters.
#include <algorithm>
#include <numeric>

#include "import/torch/call.h"

namespace millpower::import::torch {
namespace {

// ---- embeddings ----

Result<Tensors> Embedding(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor table, call.TensorAt("weight"));
  TRY_ASSIGN(const Tensor index, call.TensorAt("indices"));
  const DType type = b.dtype(table);
  if (type == DType::kF32 || type == DType::kBf16 || type == DType::kF16) {
    Result<Tensor> rows = b.Embedding(table, index);
    if (rows) return One(b.Cast(*rows, type));
  }
  // A table that is computed, or of another type.
  return One(b.Take(table, index, 0, IndexPolicy::kError));
}

// Offsets 0, n, 2n ... of lists that end where the index does are bags of n: what
// torch.nn.functional.embedding_bag makes of an index of two dimensions. Absent for other offsets.
std::optional<Size> BagSize(Call& call, Tensor index, Tensor offsets) {
  TensorBuilder& b = call.b;
  std::optional<Facts::Range> range;
  if (const auto found = call.facts.ranges.find(offsets.id); found != call.facts.ranges.end())
    range = found->second;
  const auto known = b.KnownIntegers(offsets);
  constexpr int64_t kMax = int64_t{1} << 40;
  const bool is_sound = known && known->size() > 1 && std::ranges::all_of(*known, [](int64_t at) {
                          return at >= 0 && at <= kMax;
                        });
  if (!range && is_sound) {
    range = {Size((*known)[0]), (*known)[1] - (*known)[0]};
    for (size_t i = 1; i < known->size(); ++i)
      if ((*known)[i] - (*known)[i - 1] != range->step) return std::nullopt;
  }
  if (!range || range->begin != Size(0) || range->step < 1) return std::nullopt;
  const auto items = b.dim(offsets, 0).Times(Size(range->step));
  if (items != b.dim(index, 0)) return std::nullopt;
  return Size(range->step);
}

Result<Tensors> EmbeddingBag(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor table, call.TensorAt("weight"));
  TRY_ASSIGN(Tensor index, call.TensorAt("indices"));
  TRY_ASSIGN(Tensor offsets, call.OptionalTensor("offsets"));
  TRY_ASSIGN(Tensor weights, call.OptionalTensor("per_sample_weights"));
  TensorBuilder::BagOptions options;
  TRY_ASSIGN(const int64_t mode, call.Integer("mode", 0));
  if (mode < 0 || mode > 2) return NotSupported("mode " + std::to_string(mode));
  options.mode = std::array{Bag::kSum, Bag::kMean, Bag::kMax}[static_cast<size_t>(mode)];
  TRY_ASSIGN(options.ends, call.Flag("include_last_offset", false));
  TRY_ASSIGN(options.padding_row, call.Integer("padding_idx", -1));
  if (b.rank(table) != 2) return Invalid("the table has not two dimensions");
  const auto rows = b.dim(table, 0).Constant();
  if (options.padding_row < -1 && rows) options.padding_row += *rows;
  if (weights.present()) {
    TRY_ASSIGN(weights, b.Cast(weights, DType::kF32));
  }
  if (offsets.present() && b.rank(index) == 1 && !options.ends) {
    if (const auto size = BagSize(call, index, offsets)) {
      const ir::Shape bags = {b.shape(offsets)[0], ir::DimOf(*size)};
      TRY_ASSIGN(index, b.Reshape(index, bags));
      if (weights.present()) {
        TRY_ASSIGN(weights, b.Reshape(weights, bags));
      }
      offsets = {};
    }
  }
  TRY_ASSIGN(const Tensor bags, b.EmbeddingBag(table, index, offsets, weights, options));
  return One(b.Cast(bags, b.dtype(table)));
}

// ---- x[i, j, ...] ----

struct Indices {
  std::vector<int> axes;      // that are indexed
  std::vector<Tensor> index;  // of one shape, i64
  ir::Shape shape;            // theirs
  bool adjacent = true;       // the axes stand side by side
};

// Whole-number indices of a list in which axes that are not indexed are absent.
Result<Indices> IndicesOf(Call& call, Tensor x) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensors list, call.Tensors("indices"));
  if (list.size() > static_cast<size_t>(b.rank(x))) return Invalid("more indices than dimensions");
  Indices indices;
  for (size_t axis = 0; axis < list.size(); ++axis) {
    if (!list[axis].present()) continue;
    if (b.dtype(list[axis]) == DType::kBool || b.dtype(list[axis]) == DType::kU8)
      return NotSupported("a mask as index: how much it picks depends on the data");
    indices.adjacent = indices.adjacent &&
                       (indices.axes.empty() || indices.axes.back() + 1 == static_cast<int>(axis));
    indices.axes.push_back(static_cast<int>(axis));
    TRY_ASSIGN(indices.index.emplace_back(), b.Cast(list[axis], DType::kI64));
  }
  if (indices.axes.empty()) return NotSupported("without an index");
  TRY_ASSIGN(indices.shape, b.BroadcastShape(indices.index));
  return indices;
}

// When every index is known, the indexed axes are constant and side by side: where they point in
// the axes taken as one. Absent otherwise. Errors: an index out of range.
Result<std::optional<Tensor>> FlatIndex(TensorBuilder& b, Tensor x, const Indices& indices) {
  if (!indices.adjacent) return std::nullopt;
  TRY_ASSIGN(Tensor flat, b.Fill(indices.shape, DType::kI64, 0));
  for (size_t i = 0; i < indices.axes.size(); ++i) {
    const auto size = b.dim(x, indices.axes[i]).Constant();
    const auto known = b.KnownIntegers(indices.index[i]);
    if (!size || !known) return std::nullopt;
    for (const int64_t value : *known)
      if (value < -*size || value >= *size) return Invalid("an index is out of range");
    const Tensor own = indices.index[i];
    TRY_ASSIGN(const Tensor is_negative, b.Binary(MapOp::kLess, own, 0));
    TRY_ASSIGN(const Tensor wrapped, b.Binary(MapOp::kAdd, own, static_cast<double>(*size)));
    TRY_ASSIGN(const Tensor place, b.Select(is_negative, wrapped, own));
    TRY_ASSIGN(flat, b.Binary(MapOp::kMul, flat, static_cast<double>(*size)));
    TRY_ASSIGN(flat, b.Binary(MapOp::kAdd, flat, place));
  }
  if (!b.KnownIntegers(flat)) return std::nullopt;
  return flat;
}

// The indexed axes first, the others behind.
std::vector<int64_t> IndexedFirst(const Indices& indices, int rank) {
  std::vector<int64_t> perm(indices.axes.begin(), indices.axes.end());
  for (int axis = 0; axis < rank; ++axis)
    if (std::ranges::find(indices.axes, axis) == indices.axes.end()) perm.push_back(axis);
  return perm;
}

// [shape ..., indices]
Result<Tensor> Stacked(TensorBuilder& b, const Indices& indices) {
  Tensors expanded;
  for (const Tensor index : indices.index) {
    TRY_ASSIGN(expanded.emplace_back(), b.Expand(index, indices.shape));
  }
  return b.Stack(expanded, static_cast<int>(indices.shape.size()));
}

Result<Tensors> Index(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const Indices indices, IndicesOf(call, x));
  const int first = indices.axes.front();
  if (indices.axes.size() == 1) return One(b.Take(x, indices.index[0], first));
  TRY_ASSIGN(const std::optional<Tensor> flat, FlatIndex(b, x, indices));
  if (flat) {
    TRY_ASSIGN(const Tensor merged, b.Flatten(x, first, indices.axes.back() + 1));
    return One(b.Take(merged, *flat, first));
  }
  TRY_ASSIGN(const Tensor turned, b.Transpose(x, IndexedFirst(indices, b.rank(x))));
  TRY_ASSIGN(const Tensor stacked, Stacked(b, indices));
  TRY_ASSIGN(const Tensor picked, b.GatherNd(turned, stacked, 0));
  if (!indices.adjacent || first == 0) return Tensors{picked};
  // The indices' dimensions move to where the indexed axes were.
  const auto width = static_cast<int>(indices.shape.size());
  std::vector<int64_t> perm;
  for (int axis = 0; axis < first; ++axis) perm.push_back(width + axis);
  for (int axis = 0; axis < width; ++axis) perm.push_back(axis);
  for (int axis = width + first; axis < b.rank(picked); ++axis) perm.push_back(axis);
  return One(b.Transpose(picked, perm));
}

// x with `values` where a mask (of x's first dimensions) is true.
Result<Tensor> PutByMask(TensorBuilder& b, Tensor x, Tensor mask, Tensor values) {
  if (b.rank(values) != 0 && ir::ElementsOf(b.shape(values)) != Size(1))
    return NotSupported("several values under a mask: where they go depends on the data");
  TRY_ASSIGN(values, b.Reshape(values, ir::Shape{}));
  ir::Shape shape = b.shape(mask);
  if (shape.size() > b.shape(x).size()) return Invalid("a mask of more dimensions");
  shape.resize(b.shape(x).size(), ir::Constant(1));
  TRY_ASSIGN(mask, b.Reshape(mask, shape));
  return b.Select(mask, values, x);
}

Result<Tensors> IndexPut(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(Tensor values, call.TensorAt("values"));
  TRY_ASSIGN(values, b.Cast(values, b.dtype(x)));
  TRY_ASSIGN(const bool accumulate, call.Flag("accumulate", false));
  TRY_ASSIGN(const Tensors list, call.Tensors("indices"));
  if (list.size() == 1 && list[0].present() && b.dtype(list[0]) == DType::kBool && !accumulate)
    return One(PutByMask(b, x, list[0], values));
  TRY_ASSIGN(const Indices indices, IndicesOf(call, x));
  if (!indices.adjacent) return NotSupported("indices that do not stand side by side");
  const std::vector<int64_t> perm = IndexedFirst(indices, b.rank(x));
  TRY_ASSIGN(const Tensor turned, b.Transpose(x, perm));
  // Values have the shape that reading would have: the indices' in place of the indexed axes.
  const int first = indices.axes.front();
  const auto width = static_cast<int>(indices.shape.size());
  ir::Shape read = b.shape(x);
  const auto begin = read.erase(read.begin() + first, read.begin() + indices.axes.back() + 1);
  read.insert(begin, indices.shape.begin(), indices.shape.end());
  TRY_ASSIGN(values, b.Expand(values, read));
  std::vector<int64_t> to_front;
  for (int axis = 0; axis < width; ++axis) to_front.push_back(first + axis);
  for (int axis = 0; axis < static_cast<int>(read.size()); ++axis)
    if (axis < first || axis >= first + width) to_front.push_back(axis);
  TRY_ASSIGN(values, b.Transpose(values, to_front));
  TRY_ASSIGN(const Tensor stacked, Stacked(b, indices));
  TRY_ASSIGN(const Tensor put, b.ScatterNd(turned, stacked, values,
                                           accumulate ? Scattering::kAdd : Scattering::kSet));
  std::vector<int64_t> back(perm.size());
  for (size_t i = 0; i < perm.size(); ++i)
    back[static_cast<size_t>(perm[i])] = static_cast<int64_t>(i);
  return One(b.Transpose(put, back));
}

// ---- along an axis ----

Result<Tensors> IndexSelect(Call& call) {
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(Tensor index, call.TensorAt("index"));
  if (call.b.rank(x) == 0) return NotSupported("of a scalar");
  if (call.b.rank(index) == 0) {
    TRY_ASSIGN(index, call.b.Unsqueeze(index, 0));
  }
  TRY_ASSIGN(const int axis, call.Axis("dim", call.b.rank(x)));
  return One(call.b.Take(x, index, axis, IndexPolicy::kError));
}

Result<Tensors> Gather(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const Tensor index, call.TensorAt("index"));
  if (call.b.rank(x) == 0) return NotSupported("of a scalar");
  TRY_ASSIGN(const int axis, call.Axis("dim", call.b.rank(x)));
  return One(call.b.TakeAlong(x, index, axis, IndexPolicy::kError));
}

// The same place along all axes but one, as take_along_dim broadcasts them.
Result<Tensors> TakeAlongDim(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(Tensor index, call.TensorAt("indices"));
  if (!call.Has("dim") || b.rank(x) != b.rank(index)) return NotSupported("without dim");
  TRY_ASSIGN(const int axis, call.Axis("dim", b.rank(x)));
  ir::Shape own = b.shape(x), theirs = b.shape(index);
  for (size_t i = 0; i < own.size(); ++i) {
    if (static_cast<int>(i) == axis) continue;
    if (own[i] == ir::Constant(1)) own[i] = theirs[i];
    theirs[i] = own[i];
  }
  TRY_ASSIGN(x, b.Expand(x, own));
  TRY_ASSIGN(index, b.Expand(index, theirs));
  return One(b.TakeAlong(x, index, axis));
}

// `source` cut down to the index's shape, as scatters read it.
Result<Tensor> CutTo(TensorBuilder& b, Tensor source, const ir::Shape& shape) {
  if (b.shape(source).size() != shape.size()) return Invalid("index and src differ in rank");
  for (size_t i = 0; i < shape.size(); ++i) {
    if (b.shape(source)[i] == shape[i]) continue;
    TRY_ASSIGN(source, b.Slice(source, static_cast<int>(i), Size(0), ir::SizeOf(shape[i])));
  }
  return source;
}

Result<Scattering> ScatteringOf(const std::string& name) {
  if (name == "add" || name == "sum") return Scattering::kAdd;
  if (name == "multiply" || name == "prod") return Scattering::kMul;
  if (name == "amax") return Scattering::kMax;
  if (name == "amin") return Scattering::kMin;
  return NotSupported("reduction '" + name + "'");
}

Result<Tensors> ScatterBy(Call& call, Scattering reduction) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const Tensor index, call.TensorAt("index"));
  if (b.rank(x) == 0) return NotSupported("of a scalar");
  TRY_ASSIGN(const int axis, call.Axis("dim", b.rank(x)));
  Tensor source;
  if (call.Has("src")) {
    TRY_ASSIGN(source, call.TensorAt("src"));
    TRY_ASSIGN(source, CutTo(b, source, b.shape(index)));
  } else {
    TRY_ASSIGN(const Operand value, call.OperandAt("value"));
    TRY_ASSIGN(source, call.As(value, b.dtype(x)));
    TRY_ASSIGN(source, b.Expand(source, b.shape(index)));
  }
  return One(b.ScatterElements(x, index, source, axis, reduction));
}
Result<Tensors> Scatter(Call& call) {
  if (!call.Has("reduce")) return ScatterBy(call, Scattering::kSet);
  TRY_ASSIGN(const std::string name, call.Text("reduce"));
  TRY_ASSIGN(const bool includes_self, call.Flag("include_self", true));
  if (!includes_self) return NotSupported("include_self=False");
  TRY_ASSIGN(const Scattering reduction, ScatteringOf(name));
  return ScatterBy(call, reduction);
}
Result<Tensors> ScatterAdd(Call& call) { return ScatterBy(call, Scattering::kAdd); }

// Slices of `source` at the places `index` along an axis.
Result<Tensors> PutSlices(Call& call, Scattering reduction) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(Tensor index, call.TensorAt("index"));
  TRY_ASSIGN(Tensor source, call.TensorAt("source"));
  if (b.rank(x) == 0 || b.rank(index) != 1) return NotSupported("of scalars");
  TRY_ASSIGN(const int axis, call.Axis("dim", b.rank(x)));
  if (call.Has("alpha")) {
    TRY_ASSIGN(const double alpha, call.Real("alpha"));
    if (alpha != 1) {
      TRY_ASSIGN(source, b.Binary(MapOp::kMul, source, alpha));
    }
  }
  ir::Shape along(b.shape(x).size(), ir::Constant(1));
  along[static_cast<size_t>(axis)] = b.shape(index)[0];
  TRY_ASSIGN(index, b.Reshape(index, along));
  TRY_ASSIGN(index, b.Expand(index, b.shape(source)));
  return One(b.ScatterElements(x, index, source, axis, reduction));
}
Result<Tensors> IndexAdd(Call& call) { return PutSlices(call, Scattering::kAdd); }
Result<Tensors> IndexCopy(Call& call) { return PutSlices(call, Scattering::kSet); }

constexpr Operator kOperators[] = {
    {"_embedding_bag", "default", EmbeddingBag},
    {"_embedding_bag_forward_only", "default", EmbeddingBag},
    {"_index_put_impl", "default", IndexPut},
    {"_unsafe_index", "Tensor", Index},
    {"_unsafe_index_put", "default", IndexPut},
    {"embedding", "default", Embedding},
    {"embedding_bag", "default,padding_idx", EmbeddingBag},
    {"gather", "default", Gather},
    {"index", "Tensor", Index},
    {"index_add", "default", IndexAdd},
    {"index_copy", "default", IndexCopy},
    {"index_put", "default", IndexPut},
    {"index_select", "default", IndexSelect},
    {"scatter", "src,value,reduce,value_reduce", Scatter},
    {"scatter_add", "default", ScatterAdd},
    {"scatter_reduce", "two", Scatter},
    {"take_along_dim", "default", TakeAlongDim},
};

}  // namespace

std::span<const Operator> IndexedOperators() { return kOperators; }

}  // namespace millpower::import::torch
