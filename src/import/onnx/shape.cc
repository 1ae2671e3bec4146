// Operators on shapes: where elements lie, and how many there are.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "import/onnx/formula.h"
#include "import/onnx/node.h"

namespace millpower::import::onnx {
namespace {

std::vector<Size> SizesOf(const ir::Shape& shape) {
  std::vector<Size> sizes;
  for (const ir::Dim& dim : shape) sizes.push_back(ir::SizeOf(dim));
  return sizes;
}

Result<ir::Shape> ShapeOf(const std::vector<Size>& sizes) {
  ir::Shape shape;
  for (const Size& size : sizes) {
    if (const auto constant = size.Constant(); constant && *constant < 0)
      return Invalid("a dimension is negative");
    shape.push_back(ir::DimOf(size));
  }
  return shape;
}

Result<Tensor> Identity(Node& n) { return n.in(0); }
Result<Values> IdentityOfAny(Node& n) { return Values{n.value(0)}; }

Result<Tensor> ConstantNode(Node& n) {
  if (const TensorProto* value = n.TensorAttribute("value"))
    return n.Constant(*value, n.proto().output_size() > 0 ? n.proto().output(0) : "");
  if (n.HasAttribute("value_int")) return n.b.SizeScalar(Size(n.Int("value_int", 0)));
  if (n.HasAttribute("value_float")) return n.b.Scalar(DType::kF32, n.Real("value_float", 0));
  if (n.HasAttribute("value_ints")) {
    const std::vector<int64_t> list = n.Ints("value_ints");
    return n.b.Sizes({list.begin(), list.end()});
  }
  if (n.HasAttribute("value_floats")) {
    const std::vector<double> list = n.Reals("value_floats");
    return n.b.Constant(DType::kF32, {static_cast<int64_t>(list.size())},
                        ToBytes(DType::kF32, list));
  }
  return Unsupported("a constant that is sparse or a string");
}

Result<Tensor> ShapeNode(Node& n) {
  std::vector<Size> sizes = SizesOf(n.b.shape(n.in(0)));
  const auto rank = static_cast<int64_t>(sizes.size());
  const auto clamped = [rank](int64_t at) {
    return std::clamp<int64_t>(at < 0 ? at + rank : at, 0, rank);
  };
  const int64_t begin = clamped(n.Int("start", 0));
  const int64_t end = std::max(clamped(n.Int("end", rank)), begin);
  return n.b.Sizes({sizes.begin() + begin, sizes.begin() + end});
}

Result<Tensor> SizeNode(Node& n) {
  const auto elements = ir::ElementsOf(n.b.shape(n.in(0)));
  if (!elements) return Unsupported("too many elements");
  return n.b.SizeScalar(*elements);
}

// A shape operand, or the declared shape of the result when it is known only at run time.
Result<std::vector<Size>> TargetShape(Node& n, size_t operand, bool* is_declared = nullptr) {
  auto sizes = n.Sizes(operand, "the shape");
  if (sizes) return sizes;
  const auto declared = n.DeclaredShape(0);
  if (!declared) return sizes;
  n.NoteDeclared("a shape");
  if (is_declared != nullptr) *is_declared = true;
  return SizesOf(*declared);
}

Result<Tensor> Reshape(Node& n) {
  std::vector<Size> sizes;
  if (n.version() < 5) {
    const std::vector<int64_t> list = n.Ints("shape");
    sizes.assign(list.begin(), list.end());
  } else {
    TRY_ASSIGN(sizes, TargetShape(n, 1));
  }
  const bool zero_is_zero = n.Int("allowzero", 0) != 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] != Size(0) || zero_is_zero) continue;
    if (static_cast<int>(i) >= n.b.rank(n.in(0))) return Invalid("0 stands for no dimension");
    sizes[i] = n.b.dim(n.in(0), static_cast<int>(i));
  }
  return n.b.Reshape(n.in(0), sizes);
}

Result<Tensor> Flatten(Node& n) {
  const int rank = n.b.rank(n.in(0));
  int64_t axis = n.Int("axis", 1);
  if (axis < 0) axis += rank;
  if (axis < 0 || axis > rank) return Invalid(fmt::format("axis {} of {}", axis, rank));
  ir::Shape first(n.b.shape(n.in(0)).begin(), n.b.shape(n.in(0)).begin() + axis);
  ir::Shape second(n.b.shape(n.in(0)).begin() + axis, n.b.shape(n.in(0)).end());
  const auto rows = ir::ElementsOf(first), cols = ir::ElementsOf(second);
  if (!rows || !cols) return Unsupported("too many elements");
  return n.b.Reshape(n.in(0), {ir::DimOf(*rows), ir::DimOf(*cols)});
}

Result<Tensor> Squeeze(Node& n) {
  const Tensor x = n.in(0);
  auto given = n.IntegersSince(13, 1, "axes");
  if (!given) {
    const auto declared = n.DeclaredShape(0);
    if (!declared) return std::unexpected(given.error());
    n.NoteDeclared("axes");
    return n.b.Reshape(x, *declared);
  }
  std::vector<int> axes;
  if (*given) {
    TRY_ASSIGN(axes, n.CheckedAxes(**given, n.b.rank(x)));
  } else {
    for (int i = 0; i < n.b.rank(x); ++i)
      if (n.b.dim(x, i) == Size(1)) axes.push_back(i);
  }
  std::ranges::sort(axes);
  if (axes.empty()) return x;
  return n.b.Squeeze(x, axes);
}

Result<Tensor> Unsqueeze(Node& n) {
  Tensor x = n.in(0);
  auto given = n.IntegersSince(13, 1, "axes");
  if (!given) {
    const auto declared = n.DeclaredShape(0);
    if (!declared) return std::unexpected(given.error());
    n.NoteDeclared("axes");
    return n.b.Reshape(x, *declared);
  }
  if (!*given) return Invalid("axes are missing");
  const int rank = n.b.rank(x) + static_cast<int>(std::min<size_t>((*given)->size(), 64));
  TRY_ASSIGN(std::vector<int> axes, n.CheckedAxes(**given, rank));
  std::ranges::sort(axes);
  for (const int axis : axes) {
    TRY_ASSIGN(x, n.b.Unsqueeze(x, axis));
  }
  return x;
}

Result<Tensor> Transpose(Node& n) {
  std::vector<int64_t> perm = n.Ints("perm");
  if (perm.empty()) {
    perm.resize(static_cast<size_t>(n.b.rank(n.in(0))));
    std::iota(perm.rbegin(), perm.rend(), 0);
  }
  for (int64_t& axis : perm) {
    TRY_ASSIGN(axis, n.b.Axis(axis, n.b.rank(n.in(0))));
  }
  return n.b.Transpose(n.in(0), perm);
}

bool IsKnownEmpty(Node& n, Tensor x) {
  const auto known = n.b.KnownSizes(x);
  return known && known->empty();
}

Result<Tensor> Concat(Node& n) {
  std::vector<Tensor> parts;
  for (size_t i = 0; i < n.input_count(); ++i) {
    if (n.value(i).kind == Value::Kind::kEmpty) continue;
    if (!n.has(i)) return Invalid("an operand is missing, or no tensor");
    parts.push_back(n.in(i));
  }
  if (parts.empty()) return Unsupported("tensors without elements");
  TRY_ASSIGN(const int axis, n.Axis("axis", 1, n.b.rank(parts[0])));
  const Tensor first = parts[0];
  std::erase_if(parts, [&](Tensor x) { return IsKnownEmpty(n, x); });
  if (parts.empty()) return first;
  if (parts.size() == 1) return parts[0];
  return n.b.Join(parts, axis);
}

// The sizes of Split's parts, whose number is that of the outputs.
Result<std::vector<Size>> SplitSizes(Node& n, const Size& whole) {
  const auto count = static_cast<int64_t>(n.output_count());
  if (n.version() >= 13 && n.has(1)) return n.Sizes(1, "the parts' sizes");
  if (n.HasAttribute("split")) {
    const std::vector<int64_t> list = n.Ints("split");
    return std::vector<Size>(list.begin(), list.end());
  }
  const int64_t parts = n.Int("num_outputs", count);
  if (parts < 1 || parts != count) return Invalid("num_outputs is not the number of outputs");
  if (const auto constant = whole.Constant()) {
    const int64_t each = (*constant + parts - 1) / parts;
    std::vector<Size> sizes(static_cast<size_t>(parts), Size(each));
    if (*constant <= each * (parts - 1)) return Unsupported("parts without elements");
    sizes.back() = Size(*constant - each * (parts - 1));
    return sizes;
  }
  const auto each = whole.DividedBy(parts);
  if (!each) return Unsupported("'" + whole.ToString() + "' does not split evenly");
  return std::vector<Size>(static_cast<size_t>(parts), *each);
}

Result<Values> Split(Node& n) {
  const Tensor x = n.in(0);
  TRY_ASSIGN(const int axis, n.Axis("axis", 0, n.b.rank(x)));
  TRY_ASSIGN(const std::vector<Size> sizes, SplitSizes(n, n.b.dim(x, axis)));
  if (sizes.size() != n.output_count()) return Invalid("sizes and outputs differ in number");
  std::vector<Size> present = sizes;
  std::erase(present, Size(0));
  TRY_ASSIGN(const std::vector<Tensor> parts, n.b.Split(x, axis, present));
  Values outputs;
  size_t next = 0;
  for (const Size& size : sizes)
    outputs.push_back(size == Size(0) ? Value::Empty() : Value(parts[next++]));
  return outputs;
}

// ---- slices ----

// What is far beyond any dimension means "to the end".
std::optional<Size> Bound(const Size& at) {
  constexpr int64_t kFar = int64_t{1} << 30;
  const auto constant = at.Constant();
  if (constant && (*constant >= kFar || *constant <= -kFar)) return std::nullopt;
  return at;
}

struct SliceOperands {
  std::vector<Size> begins, ends;
  std::vector<int> axes;
  std::vector<int64_t> steps;
};

Result<SliceOperands> ReadSlice(Node& n, int rank) {
  SliceOperands slice;
  std::vector<int64_t> axes;
  if (n.version() < 10) {
    const std::vector<int64_t> begins = n.Ints("starts"), ends = n.Ints("ends");
    slice.begins.assign(begins.begin(), begins.end());
    slice.ends.assign(ends.begin(), ends.end());
    axes = n.Ints("axes");
  } else {
    TRY_ASSIGN(slice.begins, n.Sizes(1, "starts"));
    TRY_ASSIGN(slice.ends, n.Sizes(2, "ends"));
    if (n.has(3)) {
      TRY_ASSIGN(axes, n.Integers(3, "axes"));
    }
    if (n.has(4)) {
      TRY_ASSIGN(slice.steps, n.Integers(4, "steps"));
    }
  }
  if (axes.empty()) {
    axes.resize(std::min<size_t>(slice.begins.size(), 64));
    std::iota(axes.begin(), axes.end(), 0);
  }
  TRY_ASSIGN(slice.axes, n.CheckedAxes(axes, rank));
  if (slice.steps.empty()) slice.steps.assign(slice.begins.size(), 1);
  const size_t count = slice.begins.size();
  if (slice.ends.size() != count || slice.axes.size() != count || slice.steps.size() != count)
    return Invalid("starts, ends, axes and steps differ in number");
  return slice;
}

// Starts known only at run time, of a result whose shape is declared: rows are taken by index.
Result<Tensor> SliceByIndex(Node& n, const ir::Shape& declared) {
  Tensor x = n.in(0);
  const int rank = n.b.rank(x);
  if (static_cast<int>(declared.size()) != rank) return Invalid("declared with another rank");
  std::vector<int64_t> axes(static_cast<size_t>(rank));
  std::iota(axes.begin(), axes.end(), 0);
  if (n.has(3)) {
    TRY_ASSIGN(axes, n.Integers(3, "axes"));
  } else {
    TRY_ASSIGN(const int64_t count, n.ConstantDim(n.in(1), 0));
    axes.resize(static_cast<size_t>(std::clamp<int64_t>(count, 0, rank)));
  }
  TRY_ASSIGN(const std::vector<int> checked, n.CheckedAxes(axes, rank));
  std::vector<int64_t> steps(checked.size(), 1);
  if (n.has(4)) {
    TRY_ASSIGN(steps, n.Integers(4, "steps"));
  }
  TRY_ASSIGN(const Tensor starts, n.b.Cast(n.in(1), DType::kI64));
  for (size_t i = 0; i < checked.size() && i < steps.size(); ++i) {
    const int axis = checked[i];
    TRY_ASSIGN(const int64_t size, n.ConstantDim(x, axis));
    TRY_ASSIGN(const Tensor start, n.b.Pick(starts, 0, static_cast<int64_t>(i)));
    const ir::Shape list = {declared[static_cast<size_t>(axis)]};
    TRY_ASSIGN(const Tensor along, n.b.Iota(list, 0, 0, steps[i]));
    Formula f(n.b, {along, start});
    const auto at = f.Load(1);
    const auto wrapped = f.Select(f.Is(MapOp::kLess, at, f.Number(0)),
                                  f(MapOp::kAdd, at, f.Number(static_cast<double>(size))), at);
    const auto begin = f.Clamp(wrapped, 0, static_cast<double>(steps[i] < 0 ? size - 1 : size));
    f(MapOp::kAdd, begin, f.Load(0));
    TRY_ASSIGN(const Tensor index, f.Done());
    TRY_ASSIGN(x, n.b.Take(x, index, axis));
  }
  n.NoteDeclared("an end");
  return x;
}

// As many elements as a symbol says, of an axis that is a constant: position tables cut to the
// length at hand. Nothing proves that they are there, so they are taken by index, and a launch that
// asks for more fails.
Result<Tensor> SliceBySymbol(Node& n, Tensor x, int axis, const Size& begin, const Size& end) {
  const auto count = end.Minus(begin);
  const bool fits = n.b.dim(x, axis).IsConstant() && begin.Constant().value_or(-1) >= 0 && count &&
                    !count->IsConstant() && count->IsMonotone();
  if (!fits) return Unsupported("a slice that may leave the tensor");
  TRY_ASSIGN(const Tensor index, n.b.Iota({ir::DimOf(*count)}, 0, *begin.Constant()));
  return n.b.Take(x, index, axis, IndexPolicy::kError);
}

Result<Tensor> Slice(Node& n) {
  Tensor x = n.in(0);
  auto slice = ReadSlice(n, n.b.rank(x));
  if (!slice) {
    const auto declared = n.DeclaredShape(0);
    if (!declared || slice.error().code != ErrorCode::kUnsupported || !n.has(1))
      return std::unexpected(slice.error());
    return SliceByIndex(n, *declared);
  }
  for (size_t i = 0; i < slice->axes.size(); ++i) {
    if (slice->steps[i] == 0) return Invalid("a step is 0");
    auto part = n.b.Slice(x, slice->axes[i], Bound(slice->begins[i]), Bound(slice->ends[i]),
                          slice->steps[i]);
    if (!part && slice->steps[i] == 1) {
      auto taken = SliceBySymbol(n, x, slice->axes[i], slice->begins[i], slice->ends[i]);
      if (taken) part = *taken;
    }
    if (!part) return part;
    x = *part;
  }
  return x;
}

// ---- growing ----

Result<Tensor> Expand(Node& n) {
  TRY_ASSIGN(const std::vector<Size> sizes, TargetShape(n, 1));
  // Both ways: a 1 in the shape leaves x's dimension.
  TRY_ASSIGN(const ir::Shape wanted, ShapeOf(sizes));
  ir::Shape shape = n.b.shape(n.in(0));
  if (shape.size() < wanted.size())
    shape.insert(shape.begin(), wanted.size() - shape.size(), ir::Constant(1));
  for (size_t i = 0; i < wanted.size(); ++i) {
    ir::Dim& dim = shape[shape.size() - wanted.size() + i];
    if (dim == ir::Constant(1)) dim = wanted[i];
  }
  return n.b.Expand(n.in(0), shape);
}

Result<Tensor> Tile(Node& n) {
  if (n.version() < 6) return Unsupported("is read from operator set 6 on");
  auto repeats = n.Integers(1, "repeats");
  if (repeats) return n.b.Tile(n.in(0), *repeats);
  const auto declared = n.DeclaredShape(0);
  if (!declared || static_cast<int>(declared->size()) != n.b.rank(n.in(0)))
    return std::unexpected(repeats.error());
  std::vector<int64_t> ratios;
  for (int i = 0; i < n.b.rank(n.in(0)); ++i) {
    const auto ratio =
        ir::SizeOf((*declared)[static_cast<size_t>(i)]).DividedBy(n.b.dim(n.in(0), i));
    if (!ratio || !ratio->IsConstant()) return std::unexpected(repeats.error());
    ratios.push_back(*ratio->Constant());
  }
  n.NoteDeclared("a repetition");
  return n.b.Tile(n.in(0), ratios);
}

// [before ..., after ...] for the named axes, as two lists over all axes.
Result<std::pair<std::vector<int64_t>, std::vector<int64_t>>> ReadPads(Node& n, int rank) {
  std::vector<int64_t> pads, axes(static_cast<size_t>(rank));
  std::iota(axes.begin(), axes.end(), 0);
  if (n.version() < 11) {
    pads = n.HasAttribute("pads") ? n.Ints("pads") : n.Ints("paddings");
  } else {
    TRY_ASSIGN(pads, n.Integers(1, "pads"));
  }
  if (n.has(3)) {
    TRY_ASSIGN(axes, n.Integers(3, "axes"));
  }
  TRY_ASSIGN(const std::vector<int> checked, n.CheckedAxes(axes, rank));
  if (pads.size() != 2 * checked.size()) return Invalid("pads are not two for each axis");
  std::vector<int64_t> before(static_cast<size_t>(rank)), after(before);
  for (size_t i = 0; i < checked.size(); ++i) {
    before[static_cast<size_t>(checked[i])] = pads[i];
    after[static_cast<size_t>(checked[i])] = pads[i + checked.size()];
  }
  return std::pair(before, after);
}

Result<Tensor> Pad(Node& n) {
  TRY_ASSIGN(const auto pads, ReadPads(n, n.b.rank(n.in(0))));
  const std::string mode = n.Text("mode", "constant");
  using Mode = TensorBuilder::PadMode;
  if (mode == "reflect") return n.b.PadBy(n.in(0), pads.first, pads.second, Mode::kReflect);
  if (mode == "edge") return n.b.PadBy(n.in(0), pads.first, pads.second, Mode::kEdge);
  if (mode == "wrap") return n.b.PadBy(n.in(0), pads.first, pads.second, Mode::kWrap);
  if (mode != "constant") return Unsupported("mode '" + mode + "'");
  double value = n.version() < 11 ? n.Real("value", 0) : 0;
  if (n.has(2)) {
    TRY_ASSIGN(const std::vector<double> known, n.Reals(2, "the padding's value"));
    if (known.size() != 1) return Invalid("the padding's value is not one number");
    value = known[0];
  }
  return n.b.Pad(n.in(0), pads.first, pads.second, value);
}

// Centred: what is too long is cut, what is too short is padded with zeros.
Result<Tensor> CenterCropPad(Node& n) {
  Tensor x = n.in(0);
  const int rank = n.b.rank(x);
  std::vector<int64_t> axes(static_cast<size_t>(rank));
  std::iota(axes.begin(), axes.end(), 0);
  TRY_ASSIGN(const std::vector<int> checked, n.CheckedAxes(n.Ints("axes", axes), rank));
  std::vector<int64_t> target;
  if (auto known = n.Integers(1, "the shape")) {
    target = *std::move(known);
  } else {
    const auto declared = n.DeclaredShape(0);
    if (!declared || static_cast<int>(declared->size()) != rank)
      return std::unexpected(known.error());
    for (const int axis : checked) target.push_back((*declared)[static_cast<size_t>(axis)].size);
    n.NoteDeclared("a shape");
  }
  if (target.size() != checked.size()) return Invalid("the shape is not one size for each axis");
  std::vector<int64_t> before(static_cast<size_t>(rank)), after(before);
  for (size_t i = 0; i < checked.size(); ++i) {
    TRY_ASSIGN(const int64_t size, n.ConstantDim(x, checked[i]));
    const auto at = static_cast<size_t>(checked[i]);
    if (target[i] < 1 || target[i] > (int64_t{1} << 31)) return Invalid("a size is out of range");
    const int64_t less = size - target[i];
    before[at] = less > 0 ? -(less / 2) : -less / 2;
    after[at] = -less - before[at];
  }
  return n.b.Pad(x, before, after, 0);
}

// ---- generators ----

Result<Tensor> ConstantOfShape(Node& n) {
  TRY_ASSIGN(const std::vector<Size> sizes, TargetShape(n, 0));
  TRY_ASSIGN(const ir::Shape shape, ShapeOf(sizes));
  const TensorProto* value = n.TensorAttribute("value");
  if (value == nullptr) return n.b.Fill(shape, DType::kF32, 0);
  TRY_ASSIGN(const Tensor one, n.Constant(*value, "value"));
  TRY_ASSIGN(const Tensor scalar, n.b.Reshape(one, ir::Shape{}));
  return n.b.Expand(scalar, shape);
}

Result<Tensor> RangeOfIntegers(Node& n, const std::vector<Size>& ends) {
  const auto step = ends[2].Constant();
  const auto span = ends[1].Minus(ends[0]);
  if (!step || *step == 0 || !span) return Unsupported("a step that is no constant, or is 0");
  const DType type = n.b.dtype(n.in(0));
  std::optional<Size> count;
  if (const auto constant = span->Constant()) {
    const int64_t whole = *constant / *step;
    count = Size(std::max<int64_t>(whole + (whole * *step != *constant), 0));
    if (*constant != 0 && (*constant < 0) != (*step < 0)) count = Size(0);
  } else {
    count = span->DividedBy(*step);
  }
  const auto begin = ends[0].Constant();
  if (!count || !begin) return Unsupported("a range that is not a whole number of steps");
  if (*count == Size(0)) return n.b.Sizes({}, type);
  TRY_ASSIGN(const Tensor list, n.b.Iota({ir::DimOf(*count)}, 0, *begin, *step));
  return n.b.Cast(list, type);
}

// begin + i step, where only the number of elements is known, from what is declared.
Result<Tensor> RangeOfDeclared(Node& n) {
  const auto declared = n.DeclaredShape(0);
  if (!declared || declared->size() != 1)
    return Unsupported("the ends are known only when the model runs");
  n.NoteDeclared("a limit");
  TRY_ASSIGN(const Tensor list, n.b.Iota(*declared, 0));
  TRY_ASSIGN(const Tensor along, n.b.Cast(list, n.b.dtype(n.in(0))));
  TRY_ASSIGN(const Tensor grown, n.b.Binary(MapOp::kMul, along, n.in(2)));
  return n.b.Binary(MapOp::kAdd, grown, n.in(0));
}

Result<Tensor> Range(Node& n) {
  std::vector<Size> ends;
  std::vector<double> reals;
  for (size_t i = 0; i < 3; ++i) {
    if (const auto size = n.b.KnownSizes(n.in(i)); size && size->size() == 1)
      ends.push_back((*size)[0]);
    if (const auto real = n.b.KnownReals(n.in(i)); real && real->size() == 1)
      reals.push_back((*real)[0]);
  }
  if (ends.size() == 3) return RangeOfIntegers(n, ends);
  if (reals.size() != 3) return RangeOfDeclared(n);
  const double count = std::ceil((reals[1] - reals[0]) / reals[2]);
  if (!(count >= 1 && count <= 1e9)) return Unsupported("a range without elements, or too long");
  Formula f(n.b, {n.in(0)});
  TRY_ASSIGN(const Tensor list, n.b.Iota({ir::Constant(static_cast<int64_t>(count))}, 0));
  TRY_ASSIGN(const Tensor along, n.b.Cast(list, n.b.dtype(n.in(0))));
  TRY_ASSIGN(const Tensor grown, n.b.Binary(MapOp::kMul, along, reals[2]));
  return n.b.Binary(MapOp::kAdd, grown, reals[0]);
}

// j - i of every place of the last two axes.
Result<Tensor> Diagonals(Node& n, const ir::Shape& matrix) {
  TRY_ASSIGN(const Tensor i, n.b.Iota(matrix, 0));
  TRY_ASSIGN(const Tensor j, n.b.Iota(matrix, 1));
  return n.b.Binary(MapOp::kSub, j, i);
}

Result<Tensor> EyeLike(Node& n) {
  const Tensor x = n.in(0);
  if (n.b.rank(x) != 2) return Invalid("is of matrices");
  TRY_ASSIGN(const DType type, n.TypeAttribute("dtype", n.b.dtype(x)));
  TRY_ASSIGN(const Tensor diagonals, Diagonals(n, n.b.shape(x)));
  TRY_ASSIGN(const Tensor k, n.b.Binary(MapOp::kEqual, diagonals, n.b.SizeScalar(n.Int("k", 0))));
  return n.b.Cast(k, type);
}

Result<Tensor> Trilu(Node& n) {
  const Tensor x = n.in(0);
  if (n.b.rank(x) < 2) return Invalid("is of matrices");
  const ir::Shape matrix(n.b.shape(x).end() - 2, n.b.shape(x).end());
  TRY_ASSIGN(const Tensor diagonals, Diagonals(n, matrix));
  Tensor k = n.b.SizeScalar(Size(0));
  if (n.has(1)) {
    TRY_ASSIGN(k, n.b.Reshape(n.in(1), ir::Shape{}));
  }
  const MapOp keeps = n.Int("upper", 1) != 0 ? MapOp::kGreaterEqual : MapOp::kLessEqual;
  TRY_ASSIGN(const Tensor kept, n.b.Binary(keeps, diagonals, k));
  return n.b.Select(kept, x, n.b.Scalar(n.b.dtype(x), 0));
}

// ---- blocks ----

// [n, c, h, w] with its spatial axes in blocks of b x b.
Result<Tensor> SpaceToDepth(Node& n) {
  const Tensor x = n.in(0);
  const int64_t block = n.Int("blocksize", 0);
  if (n.b.rank(x) != 4 || block < 1) return Invalid("is of [n, c, h, w] and blocks of 1 or more");
  const auto rows = n.b.dim(x, 2).DividedBy(block), cols = n.b.dim(x, 3).DividedBy(block);
  const auto channels = n.b.dim(x, 1).Times(block * block);
  if (!rows || !cols || !channels) return Invalid("blocks do not fill the image");
  const std::vector<Size> cut = {n.b.dim(x, 0), n.b.dim(x, 1), *rows, block, *cols, block};
  TRY_ASSIGN(Tensor y, n.b.Reshape(x, cut));
  TRY_ASSIGN(y, n.b.Transpose(y, {0, 3, 5, 1, 2, 4}));
  return n.b.Reshape(y, std::vector<Size>{n.b.dim(x, 0), *channels, *rows, *cols});
}

Result<Tensor> DepthToSpace(Node& n) {
  const Tensor x = n.in(0);
  const int64_t block = n.Int("blocksize", 0);
  if (n.b.rank(x) != 4 || block < 1 || block > 1 << 15)
    return Invalid("is of [n, c, h, w] and blocks of 1 or more");
  const auto channels = n.b.dim(x, 1).DividedBy(block * block);
  const auto rows = n.b.dim(x, 2).Times(block), cols = n.b.dim(x, 3).Times(block);
  if (!channels || !rows || !cols) return Invalid("channels do not fill the blocks");
  const bool is_dcr = n.Text("mode", "DCR") == "DCR";
  const std::vector<Size> cut =
      is_dcr
          ? std::vector<Size>{n.b.dim(x, 0), block, block, *channels, n.b.dim(x, 2), n.b.dim(x, 3)}
          : std::vector<Size>{n.b.dim(x, 0), *channels, block, block, n.b.dim(x, 2), n.b.dim(x, 3)};
  TRY_ASSIGN(Tensor y, n.b.Reshape(x, cut));
  TRY_ASSIGN(y, n.b.Transpose(y, is_dcr ? std::vector<int64_t>{0, 3, 4, 1, 5, 2}
                                        : std::vector<int64_t>{0, 1, 4, 2, 5, 3}));
  return n.b.Reshape(y, std::vector<Size>{n.b.dim(x, 0), *channels, *rows, *cols});
}

// Inference: everything passes. The mask keeps all.
Result<Values> Dropout(Node& n) {
  const bool is_training =
      n.version() < 7 ? n.HasAttribute("is_test") && n.Int("is_test", 0) == 0 : n.has(2);
  if (is_training) {
    double ratio = 0.5;
    if (n.version() >= 12 && n.has(1)) {
      TRY_ASSIGN(const std::vector<double> known, n.Reals(1, "the ratio"));
      if (known.size() == 1) ratio = known[0];
    }
    TRY_ASSIGN(const int64_t trains,
               n.version() < 7 ? Result<int64_t>(1) : n.Integer(2, "training_mode"));
    if (trains != 0 && ratio != 0) return Unsupported("dropout while training");
  }
  Values outputs = {n.in(0)};
  if (n.wants(1)) {
    const DType type = n.version() < 10 ? n.b.dtype(n.in(0)) : DType::kBool;
    TRY_ASSIGN(const Tensor mask, n.b.Fill(n.b.shape(n.in(0)), type, 1));
    outputs.push_back(mask);
  }
  return outputs;
}

constexpr Operator kOperators[] = {
    {"", "Identity", IdentityOfAny, 1, true},
    {"", "Constant", One<ConstantNode>, 0},
    {"", "Shape", One<ShapeNode>},
    {"", "Size", One<SizeNode>},
    {"", "Reshape", One<Reshape>},
    {"", "Flatten", One<Flatten>},
    {"", "Squeeze", One<Squeeze>},
    {"", "Unsqueeze", One<Unsqueeze>},
    {"", "Transpose", One<Transpose>},
    {"", "Concat", One<Concat>, 1, true},
    {"", "Split", Split},
    {"", "Slice", One<Slice>},
    {"", "Expand", One<Expand>, 2},
    {"", "Tile", One<Tile>, 2},
    {"", "Pad", One<Pad>},
    {"", "CenterCropPad", One<CenterCropPad>, 2},
    {"", "ConstantOfShape", One<ConstantOfShape>},
    {"", "Range", One<Range>, 3},
    {"", "EyeLike", One<EyeLike>},
    {"", "Trilu", One<Trilu>},
    {"", "SpaceToDepth", One<SpaceToDepth>},
    {"", "DepthToSpace", One<DepthToSpace>},
    {"", "Dropout", Dropout},
    {"com.microsoft", "Identity", One<Identity>},
};

}  // namespace

std::span<const Operator> ShapeOperators() { return kOperators; }

}  // namespace millpower::import::onnx
