#include "ir/tensor_shapes.h"

#include <algorithm>
#include <set>

#include "base/expression.h"

namespace millpower::ir {
namespace {

// Each error names the operand; the caller puts the operator in front.
std::unexpected<Error> Misfit(std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message));
}

Result<void> Expect(bool condition, const char* message) {
  if (condition) return {};
  return Misfit(message);
}

std::string Describe(const Use& use, size_t operand) {
  return "'" + use.value(operand).name + "' " + ToString(use.value(operand).shape);
}

const Shape& ShapeOf(const Use& use, size_t operand) { return use.value(operand).shape; }
DType TypeOf(const Use& use, size_t operand) { return use.value(operand).dtype; }

Result<size_t> AxisOf(const Use& use, size_t operand) {
  const int64_t axis = use.integer("axis");
  if (axis >= 0 && axis < static_cast<int64_t>(ShapeOf(use, operand).size()))
    return static_cast<size_t>(axis);
  return Misfit("axis " + std::to_string(axis) + " is not one of " + Describe(use, operand));
}

// An attribute that is one of `count` values of an enumeration, or a flag of two.
Result<int64_t> ChoiceOf(const Use& use, const char* name, int64_t count) {
  const int64_t value = use.integer(name);
  if (value >= 0 && value < count) return value;
  return Misfit(std::string(name) + " " + std::to_string(value) + " does not exist");
}

Result<void> ExpectListOf(const Use& use, const char* name, size_t size, int64_t min) {
  const std::vector<int64_t>& list = use.list(name);
  constexpr int64_t kMax = int64_t{1} << 31;
  if (list.size() == size &&
      std::ranges::all_of(list, [min](int64_t value) { return value >= min && value <= kMax; }))
    return {};
  return Misfit(std::string(name) + " is not " + std::to_string(size) + " integers of at least " +
                std::to_string(min));
}

// Whether `shape` broadcasts to `target` without changing it.
bool BroadcastsTo(const Shape& shape, const Shape& target) {
  if (shape.size() > target.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i) {
    const Dim& dim = shape[shape.size() - 1 - i];
    if (dim != Constant(1) && dim != target[target.size() - 1 - i]) return false;
  }
  return true;
}

Result<void> ExpectBroadcast(const Use& use, size_t operand, const Shape& target) {
  if (BroadcastsTo(ShapeOf(use, operand), target)) return {};
  return Misfit(Describe(use, operand) + " does not broadcast to " + ToString(target));
}

// The shape that both broadcast to.
std::optional<Shape> Broadcast(const Shape& a, const Shape& b) {
  Shape shape = a.size() >= b.size() ? a : b;
  const Shape& other = a.size() >= b.size() ? b : a;
  for (size_t i = 0; i < other.size(); ++i) {
    Dim& dim = shape[shape.size() - 1 - i];
    const Dim& second = other[other.size() - 1 - i];
    if (dim == Constant(1)) dim = second;
    if (second != Constant(1) && second != dim) return std::nullopt;
  }
  return shape;
}

// Never negative, whatever the symbols, which are at least 1.
bool IsNeverNegative(const std::optional<Size>& size) {
  return size && size->IsMonotone() &&
         size->Evaluate([](const std::string&) { return 1; }).value_or(-1) >= 0;
}

Result<void> ExpectIndex(const Use& use, size_t operand) {
  if (TypeOf(use, operand) == DType::kI32 || TypeOf(use, operand) == DType::kI64) return {};
  return Misfit(Describe(use, operand) + " is " + Name(TypeOf(use, operand)) +
                ", and indices are i32 or i64");
}

Result<void> ExpectFloat(const Use& use, size_t operand) {
  if (IsFloat(TypeOf(use, operand))) return {};
  return Misfit(Describe(use, operand) + " is " + Name(TypeOf(use, operand)) + ", no float");
}

Result<void> ExpectSameType(const Use& use, size_t a, size_t b) {
  if (TypeOf(use, a) == TypeOf(use, b)) return {};
  return Misfit(Describe(use, a) + " and " + Describe(use, b) + " differ in type");
}

Result<Dim> DimSum(const Dim& a, const Dim& b) {
  const std::optional<Size> sum = SizeOf(a).Plus(SizeOf(b));
  if (!sum) return Misfit("a dimension is too large");
  return DimOf(*sum);
}

// Spatial dimensions of an image, constants.
Result<std::vector<int64_t>> SpatialOf(const Use& use, size_t operand) {
  const Shape& shape = ShapeOf(use, operand);
  std::vector<int64_t> spatial;
  for (size_t i = 2; i < shape.size(); ++i) {
    if (!shape[i].symbol.empty())
      return Misfit(Describe(use, operand) + " has a spatial dimension that is not constant");
    // So that products with strides and dilations, which are no larger, fit their arithmetic.
    if (shape[i].size < 1 || shape[i].size > int64_t{1} << 31)
      return Misfit(Describe(use, operand) + " has a spatial dimension that is not in 1..2^31");
    spatial.push_back(shape[i].size);
  }
  if (spatial.empty()) return Misfit(Describe(use, operand) + " has no spatial dimension");
  return spatial;
}

Result<void> ExpectPolicy(const Use& use, int64_t count) {
  TRY(ChoiceOf(use, "policy", count));
  return {};
}

}  // namespace

Result<DType> FirstType(const Use& use) { return TypeOf(use, 0); }
Result<DType> IndexType(const Use&) { return DType::kI64; }

Result<DType> MapType(const Use& use) {
  if (use.inputs.size() > kMaxMapOperands) return Misfit("takes at most 8 operands");
  std::vector<DType> types;
  for (size_t i = 0; i < use.inputs.size(); ++i) {
    if (!use.has(i)) return Misfit("operand x is missing");
    types.push_back(TypeOf(use, i));
  }
  TRY_ASSIGN(
      const Expression expression,
      Expression::Decode(use.list("code"), types, static_cast<int>(use.shape("shape").size()),
                         static_cast<int>(use.shape("sizes").size())));
  return expression.type();
}

Result<Shape> MapShape(const Use& use) {
  const Shape& shape = use.shape("shape");
  for (size_t i = 0; i < use.inputs.size(); ++i) TRY(ExpectBroadcast(use, i, shape));
  return shape;
}

Result<DType> ReduceType(const Use& use) {
  TRY_ASSIGN(const int64_t kind, ChoiceOf(use, "kind", kReductionCount));
  const auto reduction = static_cast<Reduction>(kind);
  const DType type = TypeOf(use, 0);
  const bool logical = reduction == Reduction::kAny || reduction == Reduction::kAll;
  if (logical != (type == DType::kBool))
    return Misfit(Describe(use, 0) + " is " + Name(type) + ", which it does not reduce");
  const bool is_index = reduction >= Reduction::kArgMax && reduction <= Reduction::kLastArgMin;
  if (is_index && use.list("axes").size() != 1) return Misfit("takes the place along one axis");
  return is_index ? DType::kI64 : type;
}

Result<Shape> ReduceShape(const Use& use) {
  Shape shape = ShapeOf(use, 0);
  const std::vector<int64_t>& axes = use.list("axes");
  if (std::ranges::adjacent_find(axes, std::ranges::greater_equal()) != axes.end())
    return Misfit("axes are not in order");
  for (const int64_t axis : axes) {
    if (axis < 0 || axis >= static_cast<int64_t>(shape.size()))
      return Misfit("axis " + std::to_string(axis) + " is not one of " + Describe(use, 0));
    shape[static_cast<size_t>(axis)] = Constant(1);
  }
  return shape;
}

Result<Shape> ReshapeShape(const Use& use) {
  const Shape& shape = use.shape("shape");
  const std::optional<Size> before = ElementsOf(ShapeOf(use, 0));
  if (before && before == ElementsOf(shape)) return shape;
  return Misfit(Describe(use, 0) + " does not have the elements of " + ToString(shape));
}

Result<Shape> TransposeShape(const Use& use) {
  const Shape& x = ShapeOf(use, 0);
  const std::vector<int64_t>& perm = use.list("perm");
  Shape shape;
  for (const int64_t axis : perm)
    if (axis >= 0 && axis < static_cast<int64_t>(x.size()))
      shape.push_back(x[static_cast<size_t>(axis)]);
  if (perm.size() != x.size() || shape.size() != x.size() ||
      std::set(perm.begin(), perm.end()).size() != x.size())
    return Misfit("perm is no permutation of the axes of " + Describe(use, 0));
  return shape;
}

Result<Shape> StridedSliceShape(const Use& use) {
  const Shape& x = ShapeOf(use, 0);
  const Shape& begin = use.shape("begin");
  const Shape& shape = use.shape("shape");
  const std::vector<int64_t>& step = use.list("step");
  if (begin.size() != x.size() || shape.size() != x.size() || step.size() != x.size())
    return Misfit("begin, step and shape do not have the rank of " + Describe(use, 0));
  for (size_t i = 0; i < x.size(); ++i) {
    // The last element's place: begin + (shape - 1) * step, between 0 and x's last.
    const Size first = SizeOf(begin[i]);
    std::optional<Size> last = SizeOf(shape[i]).Minus(1);
    if (last) last = last->Times(step[i]);
    if (last) last = last->Plus(first);
    const std::optional<Size> end = SizeOf(x[i]).Minus(1);
    // There is an element, as every dimension is at least 1: forwards the first lies before the
    // last, backwards behind it.
    const std::optional<Size> lowest = step[i] > 0 ? first : last;
    const std::optional<Size> highest = step[i] > 0 ? last : first;
    const bool inside = step[i] != 0 && last && end && IsNeverNegative(lowest) &&
                        IsNeverNegative(end->Minus(*highest));
    if (!inside)
      return Misfit("axis " + std::to_string(i) + " leaves " + Describe(use, 0) + " (begin " +
                    ToString({begin[i]}) + ", step " + std::to_string(step[i]) + ", shape " +
                    ToString({shape[i]}) + ")");
  }
  return shape;
}

Result<Shape> ExpandShape(const Use& use) {
  const Shape& shape = use.shape("shape");
  TRY(ExpectBroadcast(use, 0, shape));
  return shape;
}

Result<Shape> JoinShape(const Use& use) {
  TRY_ASSIGN(const size_t axis, AxisOf(use, 0));
  Shape all = ShapeOf(use, 0);
  for (size_t i = 1; i < use.inputs.size(); ++i) {
    Shape shape = ShapeOf(use, i);
    TRY(ExpectSameType(use, 0, i));
    if (shape.size() != all.size())
      return Misfit(Describe(use, i) + " does not have the rank of " + Describe(use, 0));
    TRY_ASSIGN(shape[axis], DimSum(all[axis], shape[axis]));
    all[axis] = shape[axis];
    if (shape != all)
      return Misfit(Describe(use, i) + " does not fit " + Describe(use, 0) + " along axis " +
                    std::to_string(axis));
  }
  return all;
}

Result<Shape> PadShape(const Use& use) {
  Shape shape = ShapeOf(use, 0);
  for (const char* name : {"before", "after", "interior"})
    TRY(ExpectListOf(use, name, shape.size(), 0));
  for (size_t i = 0; i < shape.size(); ++i) {
    const int64_t interior = use.list("interior")[i];
    const int64_t edges = use.list("before")[i] + use.list("after")[i];
    std::optional<Size> size = SizeOf(shape[i]).Times(1 + interior);
    if (size) size = size->Plus(edges - interior);
    if (!size) return Misfit("a dimension is too large");
    shape[i] = DimOf(*size);
  }
  return shape;
}

Result<Shape> ContractShape(const Use& use) {
  TRY_ASSIGN(const int64_t transpose_a, ChoiceOf(use, "transpose_a", 2));
  TRY_ASSIGN(const int64_t transpose_b, ChoiceOf(use, "transpose_b", 2));
  TRY(ExpectSameType(use, 0, 1));
  TRY(Expect(TypeOf(use, 0) != DType::kBool, "does not multiply bools"));
  Shape a = ShapeOf(use, 0), b = ShapeOf(use, 1);
  if (a.size() < 2 || b.size() < 2)
    return Misfit(Describe(use, 0) + " and " + Describe(use, 1) + " are not both matrices");
  if (transpose_a == 1) std::swap(a[a.size() - 1], a[a.size() - 2]);
  if (transpose_b == 1) std::swap(b[b.size() - 1], b[b.size() - 2]);
  const Dim m = a[a.size() - 2], k = a.back(), n = b.back();
  if (b[b.size() - 2] != k)
    return Misfit(Describe(use, 0) + " and " + Describe(use, 1) + " differ in what is summed over");
  a.resize(a.size() - 2);
  b.resize(b.size() - 2);
  std::optional<Shape> shape = Broadcast(a, b);
  if (!shape)
    return Misfit(Describe(use, 0) + " and " + Describe(use, 1) +
                  " have leading dimensions that do not broadcast");
  shape->push_back(m);
  shape->push_back(n);
  return *std::move(shape);
}

Result<Shape> ConvShape(const Use& use) {
  const Shape& x = ShapeOf(use, 0);
  const Shape& w = ShapeOf(use, 1);
  const int64_t groups = use.integer("groups");
  TRY_ASSIGN(const std::vector<int64_t> in, SpatialOf(use, 0));
  TRY_ASSIGN(const std::vector<int64_t> kernel, SpatialOf(use, 1));
  TRY(ExpectSameType(use, 0, 1));
  TRY(Expect(TypeOf(use, 0) != DType::kBool, "does not multiply bools"));
  const size_t rank = in.size();
  TRY(Expect(kernel.size() == rank, "x and w differ in rank"));
  for (const char* name : {"strides", "dilations"}) TRY(ExpectListOf(use, name, rank, 1));
  for (const char* name : {"pads_begin", "pads_end"}) TRY(ExpectListOf(use, name, rank, 0));
  TRY(Expect(x[1].symbol.empty() && w[0].symbol.empty() && w[1].symbol.empty(),
             "channels are not constant"));
  TRY(Expect(groups >= 1 && w[0].size % groups == 0 && w[1].size * groups == x[1].size,
             "groups and channels do not fit"));
  if (use.has(2)) {
    TRY(ExpectSameType(use, 0, 2));
    TRY(Expect(ShapeOf(use, 2) == Shape{w[0]}, "bias does not have w's output channels"));
  }
  Shape shape = {x[0], w[0]};
  for (size_t i = 0; i < rank; ++i) {
    const int64_t reach = (kernel[i] - 1) * use.list("dilations")[i] + 1;
    const int64_t room = in[i] + use.list("pads_begin")[i] + use.list("pads_end")[i] - reach;
    TRY(Expect(room >= 0, "the kernel is larger than the padded input"));
    shape.push_back(Constant(room / use.list("strides")[i] + 1));
  }
  return shape;
}

Result<DType> PoolType(const Use& use) {
  TRY_ASSIGN(const int64_t kind, ChoiceOf(use, "kind", kPoolingCount));
  TRY(Expect(TypeOf(use, 0) != DType::kBool, "does not pool bools"));
  return static_cast<Pooling>(kind) == Pooling::kArgMax ? DType::kI64 : TypeOf(use, 0);
}

Result<Shape> PoolShape(const Use& use) {
  TRY_ASSIGN(const std::vector<int64_t> in, SpatialOf(use, 0));
  const size_t rank = in.size();
  for (const char* name : {"kernel", "strides", "dilations", "out"})
    TRY(ExpectListOf(use, name, rank, 1));
  for (const char* name : {"pads_begin", "pads_end"}) TRY(ExpectListOf(use, name, rank, 0));
  TRY(ChoiceOf(use, "count_padding", 2));
  Shape shape = {ShapeOf(use, 0)[0], ShapeOf(use, 0)[1]};
  for (size_t i = 0; i < rank; ++i) {
    const int64_t out = use.list("out")[i];
    const int64_t begin = use.list("pads_begin")[i];
    const int64_t reach = (use.list("kernel")[i] - 1) * use.list("dilations")[i] + 1;
    // The last window begins inside of x, and one that begins in front of it reaches into it
    // without stepping over it: so each holds an element.
    TRY(Expect((out - 1) * use.list("strides")[i] < in[i] + begin && begin < reach &&
                   (begin == 0 || use.list("dilations")[i] <= in[i]),
               "a window lies outside of x"));
    shape.push_back(Constant(out));
  }
  return shape;
}

Result<Shape> TakeShape(const Use& use) {
  TRY_ASSIGN(const size_t axis, AxisOf(use, 0));
  TRY(ExpectPolicy(use, kIndexPolicyCount - 1));
  TRY(ExpectIndex(use, 1));
  Shape shape = ShapeOf(use, 0);
  const Shape& index = ShapeOf(use, 1);
  const auto at = shape.begin() + static_cast<std::ptrdiff_t>(axis);
  shape.insert(shape.erase(at), index.begin(), index.end());
  return shape;
}

Result<Shape> TakeAlongShape(const Use& use) {
  TRY_ASSIGN(const size_t axis, AxisOf(use, 0));
  TRY(ExpectPolicy(use, kIndexPolicyCount - 1));
  TRY(ExpectIndex(use, 1));
  const Shape& x = ShapeOf(use, 0);
  const Shape& index = ShapeOf(use, 1);
  TRY(Expect(x.size() == index.size(), "x and index differ in rank"));
  for (size_t i = 0; i < x.size(); ++i)
    if (i != axis && !IsNeverNegative(SizeOf(x[i]).Minus(SizeOf(index[i]))))
      return Misfit(Describe(use, 1) + " is larger than " + Describe(use, 0));
  return index;
}

Result<Shape> GatherNdShape(const Use& use) {
  TRY(ExpectPolicy(use, kIndexPolicyCount - 1));
  TRY(ExpectIndex(use, 1));
  const Shape& x = ShapeOf(use, 0);
  const Shape& index = ShapeOf(use, 1);
  const auto batch = static_cast<size_t>(use.integer("batch_dims"));
  if (index.empty() || !index.back().symbol.empty() || batch >= index.size() ||
      batch + static_cast<size_t>(index.back().size) > x.size())
    return Misfit(Describe(use, 1) + " does not name places in " + Describe(use, 0));
  for (size_t i = 0; i < batch; ++i)
    TRY(Expect(x[i] == index[i], "x and index differ in a batch dimension"));
  Shape shape(index.begin(), index.end() - 1);
  shape.insert(shape.end(), x.begin() + static_cast<std::ptrdiff_t>(batch) + index.back().size,
               x.end());
  return shape;
}

Result<Shape> ScatterShape(const Use& use) {
  TRY_ASSIGN(const int64_t mode, ChoiceOf(use, "mode", 2));
  TRY_ASSIGN(const int64_t reduction, ChoiceOf(use, "reduction", kScatteringCount));
  TRY(ExpectPolicy(use, kIndexPolicyCount - 1));
  TRY(ExpectIndex(use, 1));
  TRY(ExpectSameType(use, 0, 2));
  TRY(Expect(reduction == 0 || TypeOf(use, 0) != DType::kBool, "does not reduce bools"));
  const Shape& x = ShapeOf(use, 0);
  const Shape& index = ShapeOf(use, 1);
  const Shape& updates = ShapeOf(use, 2);
  if (static_cast<ScatterMode>(mode) == ScatterMode::kElements) {
    TRY_ASSIGN(const size_t axis, AxisOf(use, 0));
    TRY(Expect(index == updates && index.size() == x.size(), "index and updates do not fit x"));
    for (size_t i = 0; i < x.size(); ++i)
      if (i != axis && !IsNeverNegative(SizeOf(x[i]).Minus(SizeOf(index[i]))))
        return Misfit(Describe(use, 1) + " is larger than " + Describe(use, 0));
    return x;
  }
  if (index.empty() || !index.back().symbol.empty() ||
      static_cast<size_t>(index.back().size) > x.size())
    return Misfit(Describe(use, 1) + " does not name places in " + Describe(use, 0));
  Shape expected(index.begin(), index.end() - 1);
  expected.insert(expected.end(), x.begin() + index.back().size, x.end());
  if (updates != expected) return Misfit(Describe(use, 2) + " is not " + ToString(expected));
  return x;
}

Result<DType> EmbeddingBagType(const Use& use) {
  const DType type = TypeOf(use, 0);
  if (type == DType::kF32 || type == DType::kBf16 || type == DType::kF16) return DType::kF32;
  return Misfit(Describe(use, 0) + " is no table of f32, bf16 or f16");
}

Result<Shape> EmbeddingBagShape(const Use& use) {
  TRY(ChoiceOf(use, "mode", kBagCount));
  TRY(ChoiceOf(use, "ends", 2));
  TRY(ExpectPolicy(use, kIndexPolicyCount));
  TRY(ExpectIndex(use, 1));
  const Value& table = use.value(0);
  if (table.kind != ValueKind::kWeight || table.shape.size() != 2 ||
      !table.shape[0].symbol.empty() || !table.shape[1].symbol.empty())
    return Misfit(Describe(use, 0) + " is no weight of rows and columns");
  const int64_t rows = table.shape[0].size;
  for (const char* name : {"default_row", "padding_row"})
    TRY(Expect(use.integer(name) >= -1 && use.integer(name) < rows,
               "default_row or padding_row is no row of the table"));
  const Shape& index = ShapeOf(use, 1);
  if (use.has(3)) {
    TRY(Expect(ShapeOf(use, 3) == index, "weights do not have index's shape"));
    TRY(Expect(TypeOf(use, 3) == DType::kF32, "weights are not f32"));
  }
  if (!use.has(2)) {
    TRY(Expect(!index.empty(), "index is a scalar"));
    Shape shape(index.begin(), index.end() - 1);
    shape.push_back(table.shape[1]);
    return shape;
  }
  TRY(ExpectIndex(use, 2));
  const Shape& offsets = ShapeOf(use, 2);
  TRY(Expect(index.size() == 1 && offsets.size() == 1, "index and offsets are not lists"));
  const std::optional<Size> bags = SizeOf(offsets[0]).Minus(use.integer("ends"));
  TRY(Expect(bags.has_value() && *bags != Size(0), "offsets name no bag"));
  return Shape{DimOf(*bags), table.shape[1]};
}

Result<Shape> SoftmaxShape(const Use& use) {
  TRY(ChoiceOf(use, "log", 2));
  TRY(ExpectFloat(use, 0));
  TRY(Expect(!ShapeOf(use, 0).empty(), "x is a scalar"));
  return ShapeOf(use, 0);
}

Result<Shape> LayerNormShape(const Use& use) {
  TRY(ExpectFloat(use, 0));
  const Shape& x = ShapeOf(use, 0);
  TRY(Expect(!x.empty(), "x is a scalar"));
  for (const size_t operand : {1, 2}) {
    if (!use.has(operand)) continue;
    TRY(ExpectSameType(use, 0, operand));
    TRY(Expect(ShapeOf(use, operand) == Shape{x.back()}, "weight or bias is not one row of x"));
  }
  const double epsilon = use.real("epsilon");
  TRY(Expect(epsilon >= 0 && epsilon < 1e6, "epsilon is negative or too large"));
  return x;
}

Result<Shape> TopKShape(const Use& use) {
  TRY(ChoiceOf(use, "largest", 2));
  Shape shape = ShapeOf(use, 0);
  const int64_t k = use.integer("k");
  TRY(Expect(!shape.empty() && k >= 1, "x is a scalar, or k is not positive"));
  TRY(Expect(IsNeverNegative(SizeOf(shape.back()).Minus(k)), "k is larger than x's last axis"));
  shape.back() = Constant(k);
  return shape;
}

Result<Shape> CumulateShape(const Use& use) {
  TRY_ASSIGN(const int64_t kind, ChoiceOf(use, "kind", kReductionCount));
  TRY(ChoiceOf(use, "exclusive", 2));
  TRY(ChoiceOf(use, "reverse", 2));
  TRY(AxisOf(use, 0));
  const auto reduction = static_cast<Reduction>(kind);
  TRY(Expect(reduction == Reduction::kSum || reduction == Reduction::kProduct,
             "kind is neither sum nor product"));
  TRY(Expect(TypeOf(use, 0) != DType::kBool, "does not add up bools"));
  return ShapeOf(use, 0);
}

Result<Shape> DenseShape(const Use& use) {
  TRY_ASSIGN(const int64_t transposed, ChoiceOf(use, "transposed", 2));
  TRY_ASSIGN(const int64_t relu, ChoiceOf(use, "relu", 2));
  TRY(Expect(TypeOf(use, 0) == DType::kF32, "x is not f32"));
  TRY(ExpectFloat(use, 1));
  const Value& weight = use.value(1);
  if (weight.kind != ValueKind::kWeight || weight.shape.size() != 2)
    return Misfit(Describe(use, 1) + " is no weight of rows and columns");
  const Dim n = weight.shape[transposed == 1 ? 1 : 0], k = weight.shape[transposed == 1 ? 0 : 1];
  Shape shape = ShapeOf(use, 0);
  if (shape.empty() || shape.back() != k)
    return Misfit(Describe(use, 0) + " and " + Describe(use, 1) + " differ in what is summed over");
  shape.back() = n;
  if (use.has(2)) {
    const Value& bias = use.value(2);
    if (bias.kind != ValueKind::kWeight || bias.dtype != DType::kF32 ||
        ElementsOf(bias.shape) != SizeOf(n))
      return Misfit(Describe(use, 2) + " is not one f32 weight for each channel");
  }
  if (use.has(3)) {
    TRY(ExpectSameType(use, 0, 3));
    if (ShapeOf(use, 3) != shape) return Misfit(Describe(use, 3) + " is not " + ToString(shape));
  }
  TRY(Expect(!use.has(3) || relu == 0, "a residual goes without relu"));
  return shape;
}

}  // namespace millpower::ir
