// Operators that move elements: views, joins, parts, padding.
#include <algorithm>
#include <numeric>

#include "import/torch/call.h"

namespace millpower::import::torch {
namespace {

// ---- views ----

Result<Tensors> View(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const std::vector<Size> sizes, call.Sizes(call.Has("shape") ? "shape" : "size"));
  return One(call.b.Reshape(x, sizes));
}
Result<Tensors> ViewAs(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const Tensor other, call.TensorAt("other"));
  return One(call.b.Reshape(x, call.b.shape(other)));
}
Result<Tensors> Flatten(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  const int rank = call.b.rank(x);
  if (rank == 0) return One(call.b.Unsqueeze(x, 0));
  TRY_ASSIGN(const int first, call.Axis("start_dim", rank, 0));
  TRY_ASSIGN(const int last, call.Axis("end_dim", rank, -1));
  if (first > last) return Invalid("start_dim comes after end_dim");
  return One(call.b.Flatten(x, first, last + 1));
}
Result<Tensors> Unflatten(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const int axis, call.Axis("dim", b.rank(x)));
  TRY_ASSIGN(std::vector<Size> sizes, call.Sizes("sizes"));
  std::optional<Size> rest = b.dim(x, axis);
  for (const Size& size : sizes)
    if (rest && size != Size(-1) && size != Size(0)) rest = rest->DividedBy(size);
  for (Size& size : sizes) {
    if (size != Size(-1)) continue;
    if (!rest) return NotSupported("the open size cannot be told");
    size = *rest;
  }
  ir::Shape shape = b.shape(x);
  ir::Shape parts;
  for (const Size& size : sizes) parts.push_back(ir::DimOf(size));
  const auto at = shape.begin() + axis;
  shape.insert(shape.erase(at), parts.begin(), parts.end());
  return One(b.Reshape(x, shape));
}

Result<Tensors> Permute(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const std::vector<int> axes, call.Axes("dims", call.b.rank(x)));
  return One(call.b.Transpose(x, {axes.begin(), axes.end()}));
}
Result<Tensors> Transpose(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  if (call.b.rank(x) == 0) return Tensors{x};
  const bool has_dims = call.Has("dim0");
  TRY_ASSIGN(const int a, call.Axis(has_dims ? "dim0" : "axis0", call.b.rank(x)));
  TRY_ASSIGN(const int b, call.Axis(has_dims ? "dim1" : "axis1", call.b.rank(x)));
  return One(call.b.SwapAxes(x, a, b));
}
// The last two axes; a list or a scalar stays.
Result<Tensors> TransposeMatrix(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  const int rank = call.b.rank(x);
  return rank < 2 ? Result<Tensors>(Tensors{x}) : One(call.b.SwapAxes(x, rank - 2, rank - 1));
}
Result<Tensors> ReverseAxes(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  std::vector<int64_t> perm(static_cast<size_t>(call.b.rank(x)));
  std::iota(perm.rbegin(), perm.rend(), 0);
  return One(call.b.Transpose(x, perm));
}
Result<Tensors> MoveDim(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  const int rank = call.b.rank(x);
  TRY_ASSIGN(const std::vector<int> from, call.Axes("source", rank));
  TRY_ASSIGN(const std::vector<int> to, call.Axes("destination", rank));
  if (from.size() != to.size()) return Invalid("source and destination differ in length");
  std::vector<int64_t> perm(static_cast<size_t>(rank), -1);
  for (size_t i = 0; i < from.size(); ++i) perm[static_cast<size_t>(to[i])] = from[i];
  int64_t next = 0;
  for (int64_t& place : perm) {
    if (place >= 0) continue;
    while (std::ranges::find(from, next) != from.end()) ++next;
    place = next++;
  }
  return One(call.b.Transpose(x, perm));
}

// Axes that are not 1 are left as they are.
Result<Tensors> Squeeze(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  std::vector<int> axes(static_cast<size_t>(b.rank(x)));
  std::iota(axes.begin(), axes.end(), 0);
  if (call.Has("dim")) {
    TRY_ASSIGN(axes, call.Axes("dim", b.rank(x)));
  }
  std::erase_if(axes, [&](int axis) { return b.dim(x, axis) != Size(1); });
  return One(b.Squeeze(x, axes));
}
Result<Tensors> Unsqueeze(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const int axis, call.Axis("dim", call.b.rank(x) + 1));
  return One(call.b.Unsqueeze(x, axis));
}

// ---- repeating ----

Result<Tensors> Expand(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const std::vector<Size> sizes, call.Sizes("size"));
  const size_t rank = b.shape(x).size();
  if (sizes.size() < rank) return Invalid("expands to fewer dimensions");
  ir::Shape shape;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const bool keeps = sizes[i] == Size(-1) && i + rank >= sizes.size();
    shape.push_back(keeps ? b.shape(x)[i + rank - sizes.size()] : ir::DimOf(sizes[i]));
  }
  return One(b.Expand(x, shape));
}
Result<Tensors> ExpandAs(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const Tensor other, call.TensorAt("other"));
  return One(call.b.Expand(x, call.b.shape(other)));
}
Result<Tensors> BroadcastTensors(Call& call) {
  TRY_ASSIGN(Tensors tensors, call.Tensors("tensors"));
  TRY_ASSIGN(const ir::Shape shape, call.b.BroadcastShape(tensors));
  for (Tensor& tensor : tensors) {
    TRY_ASSIGN(tensor, call.b.Expand(tensor, shape));
  }
  return tensors;
}

// Axis `axis`, of d elements, `times` over: as a new axis before it (a b a b), or behind it
// (a a b b), that both become one.
Result<Tensor> RepeatAxis(TensorBuilder& b, Tensor x, int axis, const Size& times, bool behind) {
  if (times == Size(1)) return x;
  TRY_ASSIGN(x, b.Unsqueeze(x, axis + (behind ? 1 : 0)));
  ir::Shape shape = b.shape(x);
  shape[static_cast<size_t>(axis + (behind ? 1 : 0))] = ir::DimOf(times);
  TRY_ASSIGN(x, b.Expand(x, shape));
  return b.Flatten(x, axis, axis + 2);
}

Result<Tensors> Repeat(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(std::vector<Size> repeats, call.Sizes(call.Has("repeats") ? "repeats" : "dims"));
  const auto rank = static_cast<size_t>(b.rank(x));
  if (repeats.size() < rank) repeats.insert(repeats.begin(), rank - repeats.size(), Size(1));
  if (repeats.size() > ir::kMaxRank) return NotSupported("more than 8 dimensions");
  for (size_t i = rank; i < repeats.size(); ++i) {
    TRY_ASSIGN(x, b.Unsqueeze(x, 0));
  }
  for (size_t i = 0; i < repeats.size(); ++i) {
    if (repeats[i] == Size(0)) return NotSupported("a result without elements");
    TRY_ASSIGN(x, RepeatAxis(b, x, static_cast<int>(i), repeats[i], false));
  }
  return Tensors{x};
}
Result<Tensors> RepeatInterleave(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const Size repeats, call.SizeAt("repeats"));
  if (!call.Has("dim")) {
    TRY_ASSIGN(x, b.Flatten(x, 0, b.rank(x)));
  }
  TRY_ASSIGN(const int axis, call.Axis("dim", b.rank(x), 0));
  return One(RepeatAxis(b, x, axis, repeats, true));
}

// ---- joining ----

Result<Tensors> SameType(Call& call, Tensors tensors) {
  std::vector<Operand> operands;
  for (const Tensor tensor : tensors) operands.push_back({tensor, call.b.dtype(tensor)});
  TRY_ASSIGN(const DType type, ResultType(call.b, operands));
  for (Tensor& tensor : tensors) {
    TRY_ASSIGN(tensor, call.b.Cast(tensor, type));
  }
  return tensors;
}

Result<Tensors> Cat(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(Tensors tensors, call.Tensors("tensors"));
  // A list of no elements takes no part, whatever the others' rank.
  if (tensors.size() > 1)
    std::erase_if(tensors, [&](Tensor t) { return b.rank(t) == 1 && b.dim(t, 0) == Size(0); });
  if (tensors.empty()) return NotSupported("a result without elements");
  TRY_ASSIGN(tensors, SameType(call, std::move(tensors)));
  TRY_ASSIGN(const int axis, call.Axis("dim", b.rank(tensors[0]), 0));
  return One(b.Join(tensors, axis));
}
Result<Tensors> Stack(Call& call) {
  TRY_ASSIGN(Tensors tensors, call.Tensors("tensors"));
  if (tensors.empty()) return Invalid("stacks nothing");
  TRY_ASSIGN(tensors, SameType(call, std::move(tensors)));
  TRY_ASSIGN(const int axis, call.Axis("dim", call.b.rank(tensors[0]) + 1, 0));
  return One(call.b.Stack(tensors, axis));
}
// Lists along their axis, others along the second.
Result<Tensors> HStack(Call& call) {
  TRY_ASSIGN(Tensors tensors, call.Tensors("tensors"));
  TRY_ASSIGN(tensors, SameType(call, std::move(tensors)));
  if (tensors.empty() || call.b.rank(tensors[0]) == 0) return NotSupported("stacking of scalars");
  return One(call.b.Join(tensors, call.b.rank(tensors[0]) == 1 ? 0 : 1));
}
// Lists as rows, others along the first axis.
Result<Tensors> VStack(Call& call) {
  TRY_ASSIGN(Tensors tensors, call.Tensors("tensors"));
  TRY_ASSIGN(tensors, SameType(call, std::move(tensors)));
  if (tensors.empty() || call.b.rank(tensors[0]) == 0) return NotSupported("stacking of scalars");
  if (call.b.rank(tensors[0]) == 1) return One(call.b.Stack(tensors, 0));
  return One(call.b.Join(tensors, 0));
}

Result<Tensors> MeshGrid(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(Tensors tensors, call.Tensors("tensors"));
  TRY(call.Choice("indexing", {"ij"}));
  if (tensors.size() > ir::kMaxRank) return NotSupported("more than 8 dimensions");
  ir::Shape shape;
  for (const Tensor tensor : tensors) {
    if (b.rank(tensor) != 1) return NotSupported("a grid of what is no list");
    shape.push_back(b.shape(tensor)[0]);
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    ir::Shape own(tensors.size(), ir::Constant(1));
    own[i] = shape[i];
    TRY_ASSIGN(tensors[i], b.Reshape(tensors[i], own));
    TRY_ASSIGN(tensors[i], b.Expand(tensors[i], shape));
  }
  return tensors;
}

// ---- parts ----

Result<Tensors> SplitBySizes(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const int axis, call.Axis("dim", call.b.rank(x), 0));
  const bool has_sizes = call.Has("split_sizes");
  TRY_ASSIGN(const std::vector<Size> sizes, call.Sizes(has_sizes ? "split_sizes" : "split_size"));
  return call.b.Split(x, axis, sizes);
}

// Parts of `size`, the last of what is left; as many as the file says that there are.
Result<Tensors> SplitEvenly(Call& call, Tensor x, int axis, const Size& size) {
  const auto count = static_cast<int64_t>(call.output_count());
  const auto before = size.Times(count - 1);
  const auto last = before ? call.b.dim(x, axis).Minus(*before) : std::nullopt;
  if (count < 1 || !last) return NotSupported("parts whose sizes cannot be told");
  std::vector<Size> sizes(static_cast<size_t>(count), size);
  sizes.back() = *last;
  return call.b.Split(x, axis, sizes);
}
Result<Tensors> Split(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const int axis, call.Axis("dim", call.b.rank(x), 0));
  TRY_ASSIGN(const Size size, call.SizeAt("split_size"));
  return SplitEvenly(call, x, axis, size);
}
Result<Tensors> Chunk(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const int axis, call.Axis("dim", call.b.rank(x), 0));
  TRY_ASSIGN(const int64_t chunks, call.Integer("chunks"));
  if (chunks < 1) return Invalid("chunks is not positive");
  const Size whole = call.b.dim(x, axis);
  if (const auto constant = whole.Constant())
    return SplitEvenly(call, x, axis, Size((*constant - 1) / chunks + 1));
  const auto part = whole.DividedBy(chunks);
  if (!part) return NotSupported("parts whose sizes cannot be told");
  return SplitEvenly(call, x, axis, *part);
}
Result<Tensors> Unbind(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const int axis, call.Axis("dim", call.b.rank(x), 0));
  const auto count = call.b.dim(x, axis).Constant();
  if (!count || *count != static_cast<int64_t>(call.output_count()))
    return NotSupported("an axis that is not constant");
  Tensors parts;
  for (int64_t i = 0; i < *count; ++i) {
    TRY_ASSIGN(parts.emplace_back(), call.b.Pick(x, axis, i));
  }
  return parts;
}

Result<Tensors> Slice(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const int axis, call.Axis("dim", call.b.rank(x), 0));
  TRY_ASSIGN(const Size start, call.SizeAt("start", Size(0)));
  TRY_ASSIGN(const Size end, call.SizeAt("end", Size(INT64_MAX)));
  TRY_ASSIGN(const int64_t step, call.Integer("step", 1));
  if (step < 1) return Invalid("step is not positive");
  return One(call.b.Slice(x, axis, start, end, step));
}
Result<Tensors> Narrow(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const int axis, call.Axis("dim", call.b.rank(x)));
  TRY_ASSIGN(const Size start, call.SizeAt("start"));
  TRY_ASSIGN(const Size length, call.SizeAt("length"));
  const auto end = start.Plus(length);
  if (!end || start.Constant().value_or(0) < 0) return NotSupported("a part that cannot be told");
  return One(call.b.Slice(x, axis, start, *end));
}
Result<Tensors> Select(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  if (call.b.rank(x) == 0) return Invalid("selects from a scalar");
  TRY_ASSIGN(const int axis, call.Axis("dim", call.b.rank(x)));
  TRY_ASSIGN(const Size index, call.SizeAt("index"));
  if (const auto constant = index.Constant()) return One(call.b.Pick(x, axis, *constant));
  const auto end = index.Plus(1);
  if (!end) return NotSupported("an index that is too large");
  TRY_ASSIGN(const Tensor part, call.b.Slice(x, axis, index, *end));
  return One(call.b.Squeeze(part, {axis}));
}

// src in the place of self[start:end:step] along an axis; step 1.
Result<Tensor> Placed(TensorBuilder& b, Tensor x, Tensor source, int axis, const Size& start) {
  const auto end = start.Plus(b.dim(source, axis));
  if (!end) return NotSupported("a place that cannot be told");
  Tensors parts;
  if (start != Size(0)) {
    TRY_ASSIGN(parts.emplace_back(), b.Slice(x, axis, Size(0), start));
  }
  parts.push_back(source);
  if (*end != b.dim(x, axis)) {
    TRY_ASSIGN(parts.emplace_back(), b.Slice(x, axis, *end, std::nullopt));
  }
  return b.Join(parts, axis);
}
Result<Tensors> SliceScatter(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(Tensor source, call.TensorAt("src"));
  TRY_ASSIGN(source, call.b.Cast(source, call.b.dtype(x)));
  TRY_ASSIGN(const int axis, call.Axis("dim", call.b.rank(x), 0));
  TRY_ASSIGN(const Size start, call.SizeAt("start", Size(0)));
  TRY_ASSIGN(const int64_t step, call.Integer("step", 1));
  if (step != 1 || start.Constant().value_or(0) < 0)
    return NotSupported("a step, or a start from the end");
  return One(Placed(call.b, x, source, axis, start));
}
Result<Tensors> SelectScatter(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(Tensor source, call.TensorAt("src"));
  TRY_ASSIGN(source, call.b.Cast(source, call.b.dtype(x)));
  TRY_ASSIGN(const int axis, call.Axis("dim", call.b.rank(x)));
  TRY_ASSIGN(Size index, call.SizeAt("index"));
  if (index.Constant().value_or(0) < 0) index = call.b.dim(x, axis).Plus(index).value_or(Size(0));
  TRY_ASSIGN(const Tensor raised, call.b.Unsqueeze(source, axis));
  return One(Placed(call.b, x, raised, axis, index));
}

Result<Tensors> Flip(Call& call) {
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const std::vector<int> axes, call.Axes("dims", call.b.rank(x)));
  for (const int axis : axes) {
    TRY_ASSIGN(x, call.b.Slice(x, axis, std::nullopt, std::nullopt, -1));
  }
  return Tensors{x};
}
Result<Tensors> Roll(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const std::vector<int64_t> shifts, call.Integers("shifts"));
  TRY_ASSIGN(const std::vector<int> axes, call.Axes("dims", b.rank(x)));
  if (axes.size() != shifts.size()) return NotSupported("without dims");
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto size = b.dim(x, axes[i]).Constant();
    if (!size) return NotSupported("an axis that is not constant");
    const int64_t cut = ((-shifts[i] % *size) + *size) % *size;
    if (cut == 0) continue;
    Tensor parts[2];
    TRY_ASSIGN(parts[0], b.Slice(x, axes[i], Size(cut), std::nullopt));
    TRY_ASSIGN(parts[1], b.Slice(x, axes[i], Size(0), Size(cut)));
    TRY_ASSIGN(x, b.Join(parts, axes[i]));
  }
  return Tensors{x};
}

// The lower (upper) triangle of the last two axes, zeros elsewhere.
template <MapOp keeps>  // column against row + diagonal
Result<Tensors> Triangle(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const int64_t diagonal, call.Integer("diagonal", 0));
  const int rank = call.b.rank(x);
  if (rank < 2) return Invalid("not a matrix");
  const DType type = call.b.dtype(x);
  Expression e;
  const int16_t in = e.Load(0, type);
  const int16_t edge =
      e.Apply(MapOp::kAdd, DType::kI64, {e.Index(rank - 2), e.Constant(DType::kI64, diagonal)});
  const int16_t is_kept = e.Apply(keeps, DType::kBool, {e.Index(rank - 1), edge});
  const int16_t zero = IsFloat(type) ? e.Constant(type, 0.0) : e.Constant(type, int64_t{0});
  e.Apply(MapOp::kSelect, type, {is_kept, in, zero});
  return One(call.b.Map(e, std::span(&x, 1)));
}

Result<Tensors> Diagonal(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  const int rank = b.rank(x);
  TRY_ASSIGN(const int64_t offset, call.Integer("offset", 0));
  TRY_ASSIGN(const int first, call.Axis("dim1", rank, 0));
  TRY_ASSIGN(const int second, call.Axis("dim2", rank, 1));
  const auto rows = b.dim(x, first).Constant(), cols = b.dim(x, second).Constant();
  if (!rows || !cols || first == second) return NotSupported("axes that are not constant");
  std::vector<int64_t> perm;
  for (int axis = 0; axis < rank; ++axis)
    if (axis != first && axis != second) perm.push_back(axis);
  perm.insert(perm.end(), {first, second});
  TRY_ASSIGN(x, b.Transpose(x, perm));
  TRY_ASSIGN(x, b.Flatten(x, rank - 2, rank));
  std::vector<Size> places;
  for (int64_t row = std::max<int64_t>(0, -offset); row < *rows && row + offset < *cols; ++row) {
    if (static_cast<int64_t>(places.size()) >= kMaxKnown) return NotSupported("so long a diagonal");
    places.emplace_back(row * *cols + row + offset);
  }
  if (places.empty()) return NotSupported("a result without elements");
  return One(b.Take(x, b.Sizes(places), rank - 2));
}

// ---- padding ----

struct Amounts {
  std::vector<int64_t> before, after;
};
// torch's list has pairs, the last axis first.
Result<Amounts> AmountsOf(Call& call, int rank, std::string_view name) {
  TRY_ASSIGN(const std::vector<int64_t> pad, call.Integers(name));
  const auto axes = static_cast<size_t>(rank);
  if (pad.size() % 2 != 0 || pad.size() / 2 > axes) return Invalid("padding does not fit");
  Amounts amounts{std::vector<int64_t>(axes, 0), std::vector<int64_t>(axes, 0)};
  for (size_t i = 0; i < pad.size() / 2; ++i) {
    amounts.before[axes - 1 - i] = pad[2 * i];
    amounts.after[axes - 1 - i] = pad[2 * i + 1];
  }
  return amounts;
}

enum class Padding { kConstant, kReflect, kReplicate, kCircular };

Result<Tensors> PadWith(Call& call, Padding mode) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const Amounts amounts,
             AmountsOf(call, call.b.rank(x), call.Has("padding") ? "padding" : "pad"));
  if (mode == Padding::kConstant) {
    TRY_ASSIGN(const double value, call.Real("value", 0));
    return One(call.b.Pad(x, amounts.before, amounts.after, value));
  }
  using Mode = TensorBuilder::PadMode;
  const Mode by = mode == Padding::kReflect     ? Mode::kReflect
                  : mode == Padding::kReplicate ? Mode::kEdge
                                                : Mode::kWrap;
  return One(call.b.PadBy(x, amounts.before, amounts.after, by));
}
Result<Tensors> Pad(Call& call) {
  TRY_ASSIGN(const int mode, call.Choice("mode", {"constant", "reflect", "replicate", "circular"}));
  return PadWith(call, static_cast<Padding>(mode));
}
template <Padding mode>
Result<Tensors> PadAs(Call& call) {
  return PadWith(call, mode);
}

// [.., c r r, h, w] -> [.., c, h r, w r]
Result<Tensors> PixelShuffle(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const int64_t factor, call.Integer("upscale_factor"));
  const int rank = b.rank(x);
  const auto channels = rank >= 3 ? b.dim(x, rank - 3).Constant() : std::nullopt;
  if (rank != 4 || !channels || factor < 1 || factor > 1024 || *channels % (factor * factor) != 0)
    return NotSupported("of this shape");
  const ir::Dim r = ir::Constant(factor), n = b.shape(x)[0], h = b.shape(x)[2], w = b.shape(x)[3];
  const ir::Dim c = ir::Constant(*channels / (factor * factor));
  TRY_ASSIGN(x, b.Reshape(x, ir::Shape{n, c, r, r, h, w}));
  TRY_ASSIGN(x, b.Transpose(x, {0, 1, 4, 2, 5, 3}));
  TRY_ASSIGN(x, b.Flatten(x, 4, 6));
  return One(b.Flatten(x, 2, 4));
}

constexpr Operator kOperators[] = {
    {"_reshape_copy", "default", View},
    {"_unsafe_view", "default", View},
    {"broadcast_tensors", "default", BroadcastTensors},
    {"broadcast_to", "default", Expand},
    {"cat", "default", Cat},
    {"chunk", "default", Chunk},
    {"concat", "default", Cat},
    {"concatenate", "default", Cat},
    {"constant_pad_nd", "default", PadAs<Padding::kConstant>},
    {"diagonal", "default", Diagonal},
    {"diagonal_copy", "default", Diagonal},
    {"expand", "default", Expand},
    {"expand_as", "default", ExpandAs},
    {"expand_copy", "default", Expand},
    {"flatten", "using_ints", Flatten},
    {"flip", "default", Flip},
    {"hstack", "default", HStack},
    {"mT", "default", TransposeMatrix},
    {"meshgrid", "default,indexing", MeshGrid},
    {"movedim", "int,intlist", MoveDim},
    {"narrow", "default", Narrow},
    {"narrow_copy", "default", Narrow},
    {"numpy_T", "default", ReverseAxes},
    {"pad", "default", Pad},
    {"permute", "default", Permute},
    {"permute_copy", "default", Permute},
    {"pixel_shuffle", "default", PixelShuffle},
    {"reflection_pad1d", "default", PadAs<Padding::kReflect>},
    {"reflection_pad2d", "default", PadAs<Padding::kReflect>},
    {"reflection_pad3d", "default", PadAs<Padding::kReflect>},
    {"repeat", "default", Repeat},
    {"repeat_interleave", "self_int", RepeatInterleave},
    {"replication_pad1d", "default", PadAs<Padding::kReplicate>},
    {"replication_pad2d", "default", PadAs<Padding::kReplicate>},
    {"replication_pad3d", "default", PadAs<Padding::kReplicate>},
    {"reshape", "default", View},
    {"reshape_as", "default", ViewAs},
    {"roll", "default", Roll},
    {"row_stack", "default", VStack},
    {"select", "int", Select},
    {"select_copy", "int", Select},
    {"select_scatter", "default", SelectScatter},
    {"slice", "Tensor", Slice},
    {"slice_copy", "Tensor", Slice},
    {"slice_scatter", "default", SliceScatter},
    {"split", "Tensor", Split},
    {"split", "sizes", SplitBySizes},
    {"split_copy", "Tensor", Split},
    {"split_with_sizes", "default", SplitBySizes},
    {"split_with_sizes_copy", "default", SplitBySizes},
    {"squeeze", "default,dim,dims", Squeeze},
    {"squeeze_copy", "default,dim,dims", Squeeze},
    {"stack", "default", Stack},
    {"swapaxes", "default", Transpose},
    {"swapdims", "default", Transpose},
    {"t", "default", TransposeMatrix},
    {"t_copy", "default", TransposeMatrix},
    {"tile", "default", Repeat},
    {"transpose", "int", Transpose},
    {"transpose_copy", "int", Transpose},
    {"tril", "default", Triangle<MapOp::kLessEqual>},
    {"triu", "default", Triangle<MapOp::kGreaterEqual>},
    {"unbind", "int", Unbind},
    {"unbind_copy", "int", Unbind},
    {"unflatten", "int", Unflatten},
    {"unsafe_chunk", "default", Chunk},
    {"unsafe_split", "Tensor", Split},
    {"unsafe_split_with_sizes", "default", SplitBySizes},
    {"unsqueeze", "default", Unsqueeze},
    {"unsqueeze_copy", "default", Unsqueeze},
    {"view", "default", View},
    {"view_as", "default", ViewAs},
    {"view_copy", "default", View},
    {"vstack", "default", VStack},
};

}  // namespace

std::span<const Operator> ShapeOperators() { return kOperators; }

}  // namespace millpower::import::torch
