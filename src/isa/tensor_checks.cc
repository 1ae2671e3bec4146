#include "isa/tensor_checks.h"

#include <algorithm>
#include <array>
#include <bit>
#include <initializer_list>
#include <string>
#include <vector>

#include "base/expression.h"
#include "base/tensor_ops.h"

namespace millpower::isa {
namespace {

using Dims = std::vector<Size>;
using List = std::vector<int64_t>;

std::unexpected<Error> Misfit(std::string message) {
  return Fail(ErrorCode::kCorrupt, std::move(message));
}

Result<void> Expect(bool condition, const char* message) {
  if (condition) return {};
  return Misfit(message);
}

// An instruction's operands as tensors, and its attributes.
class Use {
 public:
  // Proves that all operands are rows, but `table`.
  static Result<Use> Make(const Sizes& sizes, const Instruction& instruction, int table = -1) {
    Use use(sizes, instruction);
    for (int i = 0; i < use.operand_count(); ++i) {
      if (!use.has(i)) continue;
      if (i != table && use.buffer(i).form != Form::kRows)
        return Misfit(use.Describe(i) + " is " + Name(use.buffer(i).form) + ", not rows");
      use.dims_[static_cast<size_t>(i)] = use.DimsOf(instruction.operand(i));
    }
    return use;
  }

  int operand_count() const { return static_cast<int>(Info(instruction_.op).operands.size()); }
  bool has(int operand) const { return instruction_.operand(operand).present(); }
  const Buffer& buffer(int operand) const {
    return sizes_.program().buffer(instruction_.operand(operand));
  }
  DType type(int operand) const { return buffer(operand).dtype; }
  const Dims& dims(int operand) const { return dims_[static_cast<size_t>(operand)]; }
  size_t rank(int operand) const { return dims(operand).size(); }

  int64_t integer(int attribute) const { return instruction_.integer(attribute); }
  double real(int attribute) const { return instruction_.real(attribute); }
  const List& list(int attribute) const {
    return sizes_.program().lists[static_cast<size_t>(integer(attribute))];
  }
  std::span<const Size> sizes(int attribute) const { return sizes_.OfShape(integer(attribute)); }

  // "x (h)"
  std::string Describe(int operand) const {
    return std::string(Info(instruction_.op).operands[static_cast<size_t>(operand)].name) + " (" +
           buffer(operand).name + ")";
  }
  const char* AttributeName(int attribute) const {
    return Info(instruction_.op).attributes[static_cast<size_t>(attribute)].name;
  }

  // An attribute that is one of `count` values.
  Result<int64_t> Choice(int attribute, int64_t count) const {
    const int64_t value = integer(attribute);
    if (value >= 0 && value < count) return value;
    return Misfit(std::string(AttributeName(attribute)) + " " + std::to_string(value) +
                  " does not exist");
  }

  Result<size_t> Axis(int attribute, int operand) const {
    const int64_t axis = integer(attribute);
    if (axis >= 0 && axis < static_cast<int64_t>(rank(operand))) return static_cast<size_t>(axis);
    return Misfit("axis " + std::to_string(axis) + " is not one of " + Describe(operand));
  }

  // A list of `size` integers from `min` to 2^31.
  Result<void> ExpectList(int attribute, size_t size, int64_t min) const {
    if (list(attribute).size() == size && std::ranges::all_of(list(attribute), [&](int64_t value) {
          return value >= min && value <= kMaxRows;
        }))
      return {};
    return Misfit(std::string(AttributeName(attribute)) + " is not " + std::to_string(size) +
                  " integers from " + std::to_string(min) + " to 2^31");
  }

  Result<void> ExpectDims(int operand, const Dims& expected) const {
    if (dims(operand) == expected) return {};
    std::string text;
    for (const Size& size : expected) text += (text.empty() ? "" : ",") + size.ToString();
    return Misfit(Describe(operand) + " is not of shape [" + text + "]");
  }

  Result<void> ExpectType(int operand, DType expected) const {
    if (type(operand) == expected) return {};
    return Misfit(Describe(operand) + " is " + Name(type(operand)) + ", not " + Name(expected));
  }

  Result<void> ExpectIndex(int operand) const {
    if (type(operand) == DType::kI32 || type(operand) == DType::kI64) return {};
    return Misfit(Describe(operand) + " is " + Name(type(operand)) +
                  ", and indices are i32 or i64");
  }

  // No other operand lies where y does, but those of `in_place`, which may be exactly y.
  Result<void> ExpectApart(int y, std::initializer_list<int> in_place = {}) const {
    const Operand& written = instruction_.operand(y);
    for (int i = 0; i < operand_count(); ++i) {
      const Operand& other = instruction_.operand(i);
      if (i == y || other.buffer != written.buffer) continue;
      if (other.begin >= written.begin + written.cols || written.begin >= other.begin + other.cols)
        continue;
      if (other == written && std::ranges::find(in_place, i) != in_place.end()) continue;
      return Misfit(Describe(y) + " overwrites " + Describe(i));
    }
    return {};
  }

 private:
  Use(const Sizes& sizes, const Instruction& instruction)
      : sizes_(sizes), instruction_(instruction) {}

  Dims DimsOf(const Operand& operand) const {
    if (operand.shape < 0)
      return {sizes_.OfDim(sizes_.program().buffer(operand).rows), Size(operand.cols)};
    const std::span<const Size> shape = sizes_.OfShape(operand.shape);
    return {shape.begin(), shape.end()};
  }

  const Sizes& sizes_;
  const Instruction& instruction_;
  std::array<Dims, kMaxOperands> dims_;
};

// Whether `dims` broadcast to `target` without changing it.
bool BroadcastsTo(const Dims& dims, const Dims& target) {
  if (dims.size() > target.size()) return false;
  for (size_t i = 0; i < dims.size(); ++i) {
    const Size& dim = dims[dims.size() - 1 - i];
    if (dim != Size(1) && dim != target[target.size() - 1 - i]) return false;
  }
  return true;
}

// The dimensions that both broadcast to.
std::optional<Dims> Broadcast(const Dims& a, const Dims& b) {
  Dims dims = a.size() >= b.size() ? a : b;
  const Dims& other = a.size() >= b.size() ? b : a;
  for (size_t i = 0; i < other.size(); ++i) {
    Size& dim = dims[dims.size() - 1 - i];
    const Size& second = other[other.size() - 1 - i];
    if (dim == Size(1)) dim = second;
    if (second != Size(1) && second != dim) return std::nullopt;
  }
  return dims;
}

// a <= b at every launch.
bool IsAtMost(const std::optional<Size>& a, const Size& b) {
  return a && IsNeverNegative(b.Minus(*a));
}

Result<void> ExpectNoBool(const Use& use, int operand) {
  return Expect(use.type(operand) != DType::kBool, "does not compute with bools");
}

Result<void> ExpectFloat(const Use& use, int operand) {
  if (IsFloat(use.type(operand))) return {};
  return Misfit(use.Describe(operand) + " is " + Name(use.type(operand)) + ", no float");
}

// The dimensions of an image after the first two, which are constant.
Result<List> SpatialOf(const Use& use, int operand) {
  List spatial;
  for (size_t i = 2; i < use.rank(operand); ++i) {
    const auto size = use.dims(operand)[i].Constant();
    if (!size)
      return Misfit(use.Describe(operand) + " has a spatial dimension that is not constant");
    spatial.push_back(*size);
  }
  if (spatial.empty()) return Misfit(use.Describe(operand) + " has no spatial dimension");
  return spatial;
}

// Policies of what has no default row.
Result<void> ExpectPolicy(const Use& use, int attribute) {
  TRY(use.Choice(attribute, static_cast<int64_t>(IndexPolicy::kDefault)));
  return {};
}

// Places that lie `step` apart, `count` >= 1 of them, the first at `first`: all in [0, size).
bool AreInside(const Size& first, int64_t step, const Size& count, const Size& size) {
  std::optional<Size> last = count.Minus(1);
  if (last) last = last->Times(step);
  if (last) last = last->Plus(first);
  const std::optional<Size> end = size.Minus(1);
  if (!last || !end) return false;
  return step >= 0 ? IsNeverNegative(first) && IsAtMost(last, *end)
                   : IsNeverNegative(last) && IsAtMost(first, *end);
}

// The depth of tuples of indices, index's last dimension: 0 to the axes from `batch` on.
Result<size_t> DepthOf(const Use& use, int index, size_t batch, size_t rank) {
  const Dims& dims = use.dims(index);
  const std::optional<int64_t> depth = dims.size() > batch ? dims.back().Constant() : std::nullopt;
  if (depth && batch <= rank && *depth <= static_cast<int64_t>(rank - batch))
    return static_cast<size_t>(*depth);
  return Misfit(use.Describe(index) + " does not name places");
}

// dims, then those of `rest` from `begin` on.
Dims Append(Dims dims, const Dims& rest, size_t begin) {
  dims.insert(dims.end(), rest.begin() + static_cast<std::ptrdiff_t>(begin), rest.end());
  return dims;
}

// No axis of index but `axis` is larger than x's.
Result<void> ExpectIndexWithin(const Use& use, int index, int x, size_t axis) {
  TRY(Expect(use.rank(index) == use.rank(x), "index has another rank than what it names"));
  for (size_t i = 0; i < use.rank(x); ++i)
    if (i != axis && !IsAtMost(use.dims(index)[i], use.dims(x)[i]))
      return Misfit(use.Describe(index) + " may be larger than " + use.Describe(x));
  return {};
}

}  // namespace

Result<void> CheckMap(const Sizes& sizes, const Instruction& instruction) {
  TRY_ASSIGN(const Use use, Use::Make(sizes, instruction));
  std::vector<DType> types;
  for (int i = map::kX0; i < map::kY; ++i) {
    if (!use.has(i)) continue;
    TRY(Expect(static_cast<size_t>(i) == types.size(), "operands are left out before others"));
    if (!BroadcastsTo(use.dims(i), use.dims(map::kY)))
      return Misfit(use.Describe(i) + " does not broadcast to y");
    types.push_back(use.type(i));
  }
  const auto expression =
      Expression::Decode(use.list(map::kCode), types, static_cast<int>(use.rank(map::kY)),
                         static_cast<int>(use.sizes(map::kSizes).size()));
  if (!expression) return FailAt("code", expression.error());
  TRY(use.ExpectType(map::kY, expression->type()));
  return use.ExpectApart(map::kY, {0, 1, 2, 3, 4, 5, 6, 7});
}

Result<void> CheckReduce(const Sizes& sizes, const Instruction& instruction) {
  TRY_ASSIGN(const Use use, Use::Make(sizes, instruction));
  TRY_ASSIGN(const int64_t kind, use.Choice(reduce::kKind, kReductionCount));
  const auto reduction = static_cast<Reduction>(kind);
  const List& axes = use.list(reduce::kAxes);
  const bool logical = reduction == Reduction::kAny || reduction == Reduction::kAll;
  TRY(Expect(logical == (use.type(reduce::kX) == DType::kBool),
             "bools are reduced by any and all, and nothing else is"));
  const bool is_place = reduction >= Reduction::kArgMax && reduction <= Reduction::kLastArgMin;
  TRY(Expect(!is_place || axes.size() == 1, "a place is along one axis"));
  Dims dims = use.dims(reduce::kX);
  TRY(Expect(std::ranges::adjacent_find(axes, std::ranges::greater_equal()) == axes.end(),
             "axes are not in ascending order"));
  for (const int64_t axis : axes) {
    if (axis < 0 || axis >= static_cast<int64_t>(dims.size()))
      return Misfit("axis " + std::to_string(axis) + " is not one of " + use.Describe(reduce::kX));
    dims[static_cast<size_t>(axis)] = Size(1);
  }
  TRY(use.ExpectDims(reduce::kY, dims));
  TRY(use.ExpectType(reduce::kY, is_place ? DType::kI64 : use.type(reduce::kX)));
  return use.ExpectApart(reduce::kY);
}

Result<void> CheckCopy(const Sizes& sizes, const Instruction& instruction) {
  TRY_ASSIGN(const Use use, Use::Make(sizes, instruction));
  const size_t rank = use.rank(copy::kX);
  TRY(use.ExpectType(copy::kY, use.type(copy::kX)));
  const List &perm = use.list(copy::kPerm), &step = use.list(copy::kStep),
             &gap = use.list(copy::kGap);
  const auto begin = use.sizes(copy::kBegin), window = use.sizes(copy::kWindow),
             at = use.sizes(copy::kAt);
  TRY(Expect(use.rank(copy::kY) == rank && perm.size() == rank && step.size() == rank &&
                 gap.size() == rank && begin.size() == rank && window.size() == rank &&
                 at.size() == rank,
             "x, y and the lists differ in rank"));
  TRY(use.ExpectList(copy::kGap, rank, 1));
  std::vector<bool> taken(rank, false);
  for (size_t d = 0; d < rank; ++d) {
    TRY(Expect(perm[d] >= 0 && perm[d] < static_cast<int64_t>(rank) &&
                   !taken[static_cast<size_t>(perm[d])],
               "perm is no permutation of the axes"));
    const auto axis = static_cast<size_t>(perm[d]);
    taken[axis] = true;
    TRY(Expect(step[axis] >= -kMaxRows && step[axis] <= kMaxRows, "a step is beyond 2^31"));
    TRY(Expect(window[d] != Size(0), "the window is empty"));
    if (!AreInside(begin[axis], step[axis], window[d], use.dims(copy::kX)[axis]))
      return Misfit("the window may leave axis " + std::to_string(axis) + " of " +
                    use.Describe(copy::kX));
    if (!AreInside(at[d], gap[d], window[d], use.dims(copy::kY)[d]))
      return Misfit("the window may leave axis " + std::to_string(d) + " of " +
                    use.Describe(copy::kY));
  }
  return use.ExpectApart(copy::kY);
}

Result<void> CheckContract(const Sizes& sizes, const Instruction& instruction) {
  TRY_ASSIGN(const Use use, Use::Make(sizes, instruction));
  TRY_ASSIGN(const int64_t transpose_a, use.Choice(contract::kTransposeA, 2));
  TRY_ASSIGN(const int64_t transpose_b, use.Choice(contract::kTransposeB, 2));
  TRY(use.ExpectType(contract::kB, use.type(contract::kA)));
  TRY(use.ExpectType(contract::kY, use.type(contract::kA)));
  TRY(ExpectNoBool(use, contract::kA));
  Dims a = use.dims(contract::kA), b = use.dims(contract::kB);
  TRY(Expect(a.size() >= 2 && b.size() >= 2, "a and b are not both matrices"));
  if (transpose_a == 1) std::swap(a[a.size() - 1], a[a.size() - 2]);
  if (transpose_b == 1) std::swap(b[b.size() - 1], b[b.size() - 2]);
  const Size m = a[a.size() - 2], n = b.back();
  TRY(Expect(a.back() == b[b.size() - 2], "a and b differ in what is summed over"));
  a.resize(a.size() - 2);
  b.resize(b.size() - 2);
  std::optional<Dims> dims = Broadcast(a, b);
  if (!dims) return Misfit("the leading dimensions of a and b do not broadcast");
  dims->push_back(m);
  dims->push_back(n);
  TRY(use.ExpectDims(contract::kY, *dims));
  return use.ExpectApart(contract::kY);
}

Result<void> CheckConv(const Sizes& sizes, const Instruction& instruction) {
  TRY_ASSIGN(const Use use, Use::Make(sizes, instruction));
  TRY_ASSIGN(const List in, SpatialOf(use, conv::kX));
  TRY_ASSIGN(const List kernel, SpatialOf(use, conv::kW));
  const size_t rank = in.size();
  TRY(Expect(kernel.size() == rank, "x and w differ in rank"));
  for (const int operand : {conv::kW, conv::kBias, conv::kY})
    if (use.has(operand)) TRY(use.ExpectType(operand, use.type(conv::kX)));
  TRY(ExpectNoBool(use, conv::kX));
  for (const int list : {conv::kStrides, conv::kDilations}) TRY(use.ExpectList(list, rank, 1));
  for (const int list : {conv::kPadsBegin, conv::kPadsEnd}) TRY(use.ExpectList(list, rank, 0));
  const auto channels = use.dims(conv::kX)[1].Constant();
  const auto out = use.dims(conv::kW)[0].Constant();
  const auto depth = use.dims(conv::kW)[1].Constant();
  const int64_t groups = use.integer(conv::kGroups);
  TRY(Expect(channels && out && depth, "channels are not constant"));
  TRY(Expect(groups >= 1 && groups <= *channels && *out % groups == 0 && *channels % groups == 0 &&
                 *depth == *channels / groups,
             "groups and channels do not fit"));
  if (use.has(conv::kBias)) TRY(use.ExpectDims(conv::kBias, {Size(*out)}));
  Dims dims = {use.dims(conv::kX)[0], Size(*out)};
  for (size_t i = 0; i < rank; ++i) {
    // Each factor is at most 2^31, so that nothing here overflows.
    const int64_t reach = (kernel[i] - 1) * use.list(conv::kDilations)[i] + 1;
    const int64_t room =
        in[i] + use.list(conv::kPadsBegin)[i] + use.list(conv::kPadsEnd)[i] - reach;
    TRY(Expect(room >= 0, "the kernel is larger than the padded x"));
    dims.emplace_back(room / use.list(conv::kStrides)[i] + 1);
  }
  TRY(use.ExpectDims(conv::kY, dims));
  return use.ExpectApart(conv::kY);
}

Result<void> CheckPool(const Sizes& sizes, const Instruction& instruction) {
  TRY_ASSIGN(const Use use, Use::Make(sizes, instruction));
  TRY_ASSIGN(const int64_t kind, use.Choice(pool::kKind, kPoolingCount));
  TRY(use.Choice(pool::kCountPadding, 2));
  TRY_ASSIGN(const List in, SpatialOf(use, pool::kX));
  TRY_ASSIGN(const List out, SpatialOf(use, pool::kY));
  const size_t rank = in.size();
  TRY(ExpectNoBool(use, pool::kX));
  const bool is_place = static_cast<Pooling>(kind) == Pooling::kArgMax;
  TRY(use.ExpectType(pool::kY, is_place ? DType::kI64 : use.type(pool::kX)));
  TRY(Expect(out.size() == rank && use.dims(pool::kX)[0] == use.dims(pool::kY)[0] &&
                 use.dims(pool::kX)[1] == use.dims(pool::kY)[1],
             "x and y differ in rank, images or channels"));
  for (const int list : {pool::kKernel, pool::kStrides, pool::kDilations})
    TRY(use.ExpectList(list, rank, 1));
  for (const int list : {pool::kPadsBegin, pool::kPadsEnd}) TRY(use.ExpectList(list, rank, 0));
  for (size_t i = 0; i < rank; ++i) {
    const int64_t before = use.list(pool::kPadsBegin)[i];
    const int64_t reach = (use.list(pool::kKernel)[i] - 1) * use.list(pool::kDilations)[i] + 1;
    // Every window begins before the end of x, and reaches past its beginning.
    TRY(Expect((out[i] - 1) * use.list(pool::kStrides)[i] < in[i] + before && before < reach,
               "a window lies outside of x"));
  }
  return use.ExpectApart(pool::kY);
}

Result<void> CheckTake(const Sizes& sizes, const Instruction& instruction) {
  TRY_ASSIGN(const Use use, Use::Make(sizes, instruction));
  TRY_ASSIGN(const size_t axis, use.Axis(take::kAxis, take::kX));
  TRY(ExpectPolicy(use, take::kPolicy));
  TRY(use.ExpectIndex(take::kIndex));
  TRY(use.ExpectType(take::kY, use.type(take::kX)));
  const Dims& x = use.dims(take::kX);
  Dims dims(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(axis));
  dims = Append(Append(std::move(dims), use.dims(take::kIndex), 0), x, axis + 1);
  TRY(use.ExpectDims(take::kY, dims));
  return use.ExpectApart(take::kY);
}

Result<void> CheckTakeAlong(const Sizes& sizes, const Instruction& instruction) {
  TRY_ASSIGN(const Use use, Use::Make(sizes, instruction));
  TRY_ASSIGN(const size_t axis, use.Axis(take_along::kAxis, take_along::kX));
  TRY(ExpectPolicy(use, take_along::kPolicy));
  TRY(use.ExpectIndex(take_along::kIndex));
  TRY(use.ExpectType(take_along::kY, use.type(take_along::kX)));
  TRY(ExpectIndexWithin(use, take_along::kIndex, take_along::kX, axis));
  TRY(use.ExpectDims(take_along::kY, use.dims(take_along::kIndex)));
  return use.ExpectApart(take_along::kY);
}

Result<void> CheckGatherNd(const Sizes& sizes, const Instruction& instruction) {
  TRY_ASSIGN(const Use use, Use::Make(sizes, instruction));
  TRY(ExpectPolicy(use, gather_nd::kPolicy));
  TRY(use.ExpectIndex(gather_nd::kIndex));
  TRY(use.ExpectType(gather_nd::kY, use.type(gather_nd::kX)));
  const Dims &x = use.dims(gather_nd::kX), &index = use.dims(gather_nd::kIndex);
  TRY_ASSIGN(const int64_t batch_dims,
             use.Choice(gather_nd::kBatchDims, static_cast<int64_t>(x.size()) + 1));
  const auto batch = static_cast<size_t>(batch_dims);
  TRY_ASSIGN(const size_t depth, DepthOf(use, gather_nd::kIndex, batch, x.size()));
  for (size_t i = 0; i < batch; ++i)
    TRY(Expect(x[i] == index[i], "x and index differ in a batch dimension"));
  TRY(use.ExpectDims(gather_nd::kY, Append({index.begin(), index.end() - 1}, x, batch + depth)));
  return use.ExpectApart(gather_nd::kY);
}

Result<void> CheckScatter(const Sizes& sizes, const Instruction& instruction) {
  TRY_ASSIGN(const Use use, Use::Make(sizes, instruction));
  TRY_ASSIGN(const int64_t mode, use.Choice(scatter::kMode, 2));
  TRY_ASSIGN(const int64_t reduction, use.Choice(scatter::kReduction, kScatteringCount));
  TRY(ExpectPolicy(use, scatter::kPolicy));
  TRY(use.ExpectIndex(scatter::kIndex));
  TRY(use.ExpectType(scatter::kUpdates, use.type(scatter::kY)));
  if (static_cast<Scattering>(reduction) != Scattering::kSet) TRY(ExpectNoBool(use, scatter::kY));
  const Dims &y = use.dims(scatter::kY), &index = use.dims(scatter::kIndex);
  if (static_cast<ScatterMode>(mode) == ScatterMode::kElements) {
    TRY_ASSIGN(const size_t axis, use.Axis(scatter::kAxis, scatter::kY));
    TRY(ExpectIndexWithin(use, scatter::kIndex, scatter::kY, axis));
    TRY(use.ExpectDims(scatter::kUpdates, index));
  } else {
    TRY_ASSIGN(const size_t depth, DepthOf(use, scatter::kIndex, 0, y.size()));
    TRY(use.ExpectDims(scatter::kUpdates, Append({index.begin(), index.end() - 1}, y, depth)));
  }
  return use.ExpectApart(scatter::kY);
}

Result<void> CheckEmbeddingBag(const Sizes& sizes, const Instruction& instruction) {
  namespace bag = embedding_bag;
  TRY_ASSIGN(const Use use, Use::Make(sizes, instruction, bag::kTable));
  TRY(use.Choice(bag::kMode, kBagCount));
  TRY_ASSIGN(const int64_t ends, use.Choice(bag::kEnds, 2));
  TRY(use.Choice(bag::kPolicy, kIndexPolicyCount));
  const Buffer& table = use.buffer(bag::kTable);
  TRY(Expect(table.form == Form::kTable, "table is not an embedding table"));
  for (const int row : {bag::kDefaultRow, bag::kPaddingRow})
    TRY(Expect(use.integer(row) >= -1 && use.integer(row) < table.rows.size,
               "default_row or padding_row is no row of the table"));
  TRY(use.ExpectIndex(bag::kIndex));
  TRY(use.ExpectType(bag::kY, DType::kF32));
  const Dims& index = use.dims(bag::kIndex);
  if (use.has(bag::kWeights)) {
    TRY(use.ExpectType(bag::kWeights, DType::kF32));
    TRY(use.ExpectDims(bag::kWeights, index));
  }
  Dims bags;
  if (use.has(bag::kOffsets)) {
    TRY(use.ExpectIndex(bag::kOffsets));
    TRY(Expect(index.size() == 1 && use.rank(bag::kOffsets) == 1,
               "index and offsets are not lists"));
    const std::optional<Size> count = use.dims(bag::kOffsets)[0].Minus(ends);
    TRY(Expect(count && *count != Size(0), "offsets name no bag"));
    bags.push_back(*count);
  } else {
    TRY(Expect(!index.empty(), "index is a scalar"));
    bags.assign(index.begin(), index.end() - 1);
  }
  bags.emplace_back(table.cols);
  TRY(use.ExpectDims(bag::kY, bags));
  return use.ExpectApart(bag::kY);
}

Result<void> CheckSoftmax(const Sizes& sizes, const Instruction& instruction) {
  TRY_ASSIGN(const Use use, Use::Make(sizes, instruction));
  TRY(use.Choice(softmax::kLog, 2));
  TRY(ExpectFloat(use, softmax::kX));
  TRY(Expect(use.rank(softmax::kX) > 0, "x is a scalar"));
  TRY(use.ExpectType(softmax::kY, use.type(softmax::kX)));
  TRY(use.ExpectDims(softmax::kY, use.dims(softmax::kX)));
  return use.ExpectApart(softmax::kY, {softmax::kX});
}

Result<void> CheckLayerNorm(const Sizes& sizes, const Instruction& instruction) {
  TRY_ASSIGN(const Use use, Use::Make(sizes, instruction));
  TRY(ExpectFloat(use, layer_norm::kX));
  TRY(Expect(use.rank(layer_norm::kX) > 0, "x is a scalar"));
  const Dims& x = use.dims(layer_norm::kX);
  for (const int operand : {layer_norm::kWeight, layer_norm::kBias}) {
    if (!use.has(operand)) continue;
    TRY(use.ExpectType(operand, use.type(layer_norm::kX)));
    TRY(use.ExpectDims(operand, {x.back()}));
  }
  const double epsilon = use.real(layer_norm::kEpsilon);
  TRY(Expect(epsilon >= 0 && epsilon < 1e6, "epsilon is not in [0, 10^6)"));
  TRY(use.ExpectType(layer_norm::kY, use.type(layer_norm::kX)));
  TRY(use.ExpectDims(layer_norm::kY, x));
  return use.ExpectApart(layer_norm::kY, {layer_norm::kX});
}

Result<void> CheckTopK(const Sizes& sizes, const Instruction& instruction) {
  TRY_ASSIGN(const Use use, Use::Make(sizes, instruction));
  TRY(use.Choice(top_k::kLargest, 2));
  TRY(Expect(use.rank(top_k::kX) > 0 && use.rank(top_k::kY) == use.rank(top_k::kX),
             "x is a scalar, or y has another rank"));
  const Size& k = use.dims(top_k::kY).back();
  TRY(Expect(k.IsConstant(), "k is not constant"));
  TRY(Expect(IsAtMost(k, use.dims(top_k::kX).back()), "k may be larger than x's last axis"));
  Dims dims = use.dims(top_k::kX);
  dims.back() = k;
  TRY(use.ExpectType(top_k::kY, DType::kI64));
  TRY(use.ExpectDims(top_k::kY, dims));
  return use.ExpectApart(top_k::kY);
}

Result<void> CheckCumulate(const Sizes& sizes, const Instruction& instruction) {
  TRY_ASSIGN(const Use use, Use::Make(sizes, instruction));
  TRY_ASSIGN(const int64_t kind, use.Choice(cumulate::kKind, kReductionCount));
  const auto reduction = static_cast<Reduction>(kind);
  TRY(Expect(reduction == Reduction::kSum || reduction == Reduction::kProduct,
             "kind is neither sum nor product"));
  TRY(use.Choice(cumulate::kExclusive, 2));
  TRY(use.Choice(cumulate::kReverse, 2));
  TRY(use.Axis(cumulate::kAxis, cumulate::kX));
  TRY(ExpectNoBool(use, cumulate::kX));
  TRY(use.ExpectType(cumulate::kY, use.type(cumulate::kX)));
  TRY(use.ExpectDims(cumulate::kY, use.dims(cumulate::kX)));
  return use.ExpectApart(cumulate::kY);
}

}  // namespace millpower::isa
