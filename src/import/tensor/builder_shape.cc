// Operations that move elements without changing them.
#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "import/tensor/builder.h"
#include "import/tensor/known.h"

namespace millpower::import {
namespace {

std::unexpected<Error> Misfit(std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message));
}
std::unexpected<Error> Unsupported(std::string message) {
  return Fail(ErrorCode::kUnsupported, std::move(message));
}

constexpr int64_t kFar = int64_t{1} << 40;  // beyond any dimension

using Coordinates = std::vector<int64_t>;

// A slice bound as numpy takes it: negative counts from the end of `size`, beyond is clamped to
// [low, size + high].
std::optional<Size> Bound(const Size& size, const Size& bound, int64_t low, int64_t high) {
  std::optional<Size> at = bound;
  if (const auto constant = bound.Constant()) {
    if (*constant >= kFar) return size.Plus(high);
    if (*constant <= -kFar) return Size(low);
    if (*constant < 0) at = size.Plus(bound);
  }
  if (!at) return std::nullopt;
  const auto top = size.Plus(high);
  const auto over = top ? at->Minus(*top) : std::nullopt;
  if (over && IsAtLeast(*over, 0)) return top;
  const auto constant = at->Constant();
  if (constant && *constant < low) return Size(low);
  return at;
}

// ceil(length / step).
std::optional<Size> Steps(const Size& length, int64_t step) {
  if (const auto constant = length.Constant())
    return Size(std::max<int64_t>(0, (*constant + step - 1) / step));
  return length.DividedBy(step);
}

}  // namespace

// A known value's elements in a new place: element at coordinates c of `shape` is x's at
// source_of(c).
template <typename SourceOf>
std::optional<Tensor> TensorBuilder::Rearranged(Tensor x, const ir::Shape& shape,
                                                SourceOf source_of) {
  const Entry known = entry(x);
  if (!known.sizes && !known.reals) return std::nullopt;
  int64_t elements = 1;
  for (const ir::Dim& dim : shape) {
    if (!dim.symbol.empty()) return std::nullopt;
    elements *= dim.size;
    if (elements > kMaxKnown) return std::nullopt;
  }
  std::vector<Size> sizes;
  std::vector<double> reals;
  Coordinates at(shape.size(), 0);
  for (int64_t i = 0; i < elements; ++i) {
    int64_t rest = i;
    for (size_t axis = shape.size(); axis-- > 0; rest /= shape[axis].size)
      at[axis] = rest % shape[axis].size;
    const Coordinates source = source_of(at);
    size_t index = 0;
    for (size_t axis = 0; axis < source.size(); ++axis)
      index =
          index * static_cast<size_t>(known.shape[axis].size) + static_cast<size_t>(source[axis]);
    if (known.sizes) {
      sizes.push_back((*known.sizes)[index]);
    } else {
      reals.push_back((*known.reals)[index]);
    }
  }
  if (known.sizes) return AddKnown(known.dtype, shape, std::move(sizes));
  return AddKnown(known.dtype, shape, std::move(reals));
}

Result<Tensor> TensorBuilder::Reshape(Tensor x, const ir::Shape& target) {
  if (shape(x) == target) return x;
  if (ir::ElementsOf(shape(x)) != ir::ElementsOf(target))
    return Misfit(ir::ToString(shape(x)) + " does not have the elements of " +
                  ir::ToString(target));
  if (target.size() > ir::kMaxRank) return Unsupported("a shape of more than 8 dimensions");
  const Entry known = entry(x);
  if (known.sizes && known.value == ir::kNoValue)
    return AddKnown(known.dtype, target, *known.sizes);
  if (known.reals && known.value == ir::kNoValue)
    return AddKnown(known.dtype, target, *known.reals);
  return Node(ir::Op::kReshape, std::span(&x, 1), {{"shape", target}});
}

Result<Tensor> TensorBuilder::Reshape(Tensor x, std::span<const Size> sizes) {
  ir::Shape target;
  std::optional<Size> rest = ir::ElementsOf(shape(x));
  std::optional<size_t> open;
  for (size_t i = 0; i < sizes.size(); ++i) {
    target.push_back(ir::DimOf(sizes[i]));
    if (sizes[i] == Size(-1)) {
      if (open) return Misfit("a shape leaves two dimensions open");
      open = i;
    } else if (rest && sizes[i] != Size(0)) {
      std::optional<Size> divided = rest->DividedBy(sizes[i]);
      // A sum such as batch+1 divides only itself.
      if (!divided && *rest == sizes[i]) divided = Size(1);
      rest = divided;
    }
  }
  if (open) {
    if (!rest)
      return Unsupported("the open dimension of " + ir::ToString(target) + " from " +
                         ir::ToString(shape(x)) + " can't be told");
    target[*open] = ir::DimOf(*rest);
  }
  return Reshape(x, target);
}

Result<Tensor> TensorBuilder::Flatten(Tensor x, int first, int last) {
  const ir::Shape& before = shape(x);
  ir::Shape target(before.begin(), before.begin() + first);
  const auto product = ir::ElementsOf({before.begin() + first, before.begin() + last});
  if (!product) return Unsupported("a dimension is too large");
  target.push_back(ir::DimOf(*product));
  target.insert(target.end(), before.begin() + last, before.end());
  return Reshape(x, target);
}

Result<Tensor> TensorBuilder::Unsqueeze(Tensor x, int axis) {
  ir::Shape target = shape(x);
  if (axis < 0 || axis > rank(x))
    return Misfit("axis " + std::to_string(axis) + " is out of range");
  target.insert(target.begin() + axis, ir::Constant(1));
  return Reshape(x, target);
}

Result<Tensor> TensorBuilder::Squeeze(Tensor x, std::vector<int> axes) {
  std::ranges::sort(axes, std::greater());
  ir::Shape target = shape(x);
  for (const int axis : axes) {
    if (axis < 0 || axis >= static_cast<int>(target.size()) ||
        target[static_cast<size_t>(axis)] != ir::Constant(1))
      return Misfit("axis " + std::to_string(axis) + " of " + ir::ToString(shape(x)) +
                    " is not 1 and can't be squeezed");
    target.erase(target.begin() + axis);
  }
  return Reshape(x, target);
}

Result<Tensor> TensorBuilder::Transpose(Tensor x, const std::vector<int64_t>& perm) {
  if (static_cast<int>(perm.size()) != rank(x)) return Misfit("perm has not x's rank");
  ir::Shape target;
  bool is_identity = true;
  for (size_t i = 0; i < perm.size(); ++i) {
    if (perm[i] < 0 || perm[i] >= rank(x)) return Misfit("perm names an axis that is not there");
    target.push_back(shape(x)[static_cast<size_t>(perm[i])]);
    is_identity = is_identity && perm[i] == static_cast<int64_t>(i);
  }
  if (is_identity) return x;
  const auto folded = Rearranged(x, target, [&](const Coordinates& at) {
    Coordinates source(at.size(), 0);
    for (size_t i = 0; i < perm.size(); ++i) source[static_cast<size_t>(perm[i])] = at[i];
    return source;
  });
  if (folded) return *folded;
  return Node(ir::Op::kTranspose, std::span(&x, 1), {{"perm", perm}});
}

Result<Tensor> TensorBuilder::SwapAxes(Tensor x, int a, int b) {
  std::vector<int64_t> perm(static_cast<size_t>(rank(x)));
  std::iota(perm.begin(), perm.end(), 0);
  std::swap(perm[static_cast<size_t>(a)], perm[static_cast<size_t>(b)]);
  return Transpose(x, perm);
}

Result<Tensor> TensorBuilder::Slice(Tensor x, int axis, std::optional<Size> begin,
                                    std::optional<Size> end, int64_t step) {
  if (step == 0 || step == std::numeric_limits<int64_t>::min())
    return Misfit("a slice with step 0");
  const auto at_axis = static_cast<size_t>(axis);
  const Size size = dim(x, axis);
  const bool forward = step > 0;
  const auto first =
      Bound(size, begin.value_or(forward ? Size(0) : Size(kFar)), 0, forward ? 0 : -1);
  const auto past = end || forward
                        ? Bound(size, end.value_or(Size(kFar)), forward ? 0 : -1, forward ? 0 : -1)
                        : std::optional<Size>(-1);
  const auto length =
      first && past ? (forward ? past->Minus(*first) : first->Minus(*past)) : std::nullopt;
  const auto count = length ? Steps(*length, std::abs(step)) : std::nullopt;
  if (!count)
    return Unsupported("the length of a slice of " + ir::ToString(shape(x)) + " can't be told");
  ir::Shape target = shape(x);
  target[at_axis] = ir::DimOf(*count);
  if (step == 1 && *first == Size(0) && *count == size) return x;
  const int64_t start = first->Constant().value_or(0);
  const auto folded = Rearranged(x, target, [&](Coordinates at) {
    at[at_axis] = start + step * at[at_axis];
    return at;
  });
  if (folded) return *folded;
  if (count->Constant().value_or(1) < 1)
    return Unsupported("a slice of " + ir::ToString(shape(x)) + " is empty");
  ir::Shape starts(target.size(), ir::Constant(0));
  std::vector<int64_t> steps(target.size(), 1);
  starts[at_axis] = ir::DimOf(*first);
  steps[at_axis] = step;
  return Node(ir::Op::kStridedSlice, std::span(&x, 1),
              {{"begin", starts}, {"step", steps}, {"shape", target}});
}

Result<Tensor> TensorBuilder::Pick(Tensor x, int axis, int64_t index) {
  TRY_ASSIGN(
      const Tensor one,
      Slice(x, axis, Size(index), index == -1 ? std::nullopt : std::optional<Size>(index + 1), 1));
  return Squeeze(one, {axis});
}

Result<std::vector<Tensor>> TensorBuilder::Split(Tensor x, int axis,
                                                 const std::vector<Size>& sizes) {
  std::vector<Tensor> parts;
  Size at = 0;
  for (const Size& size : sizes) {
    const auto end = at.Plus(size);
    if (!end) return Unsupported("a split has sizes that are too large");
    TRY_ASSIGN(parts.emplace_back(), Slice(x, axis, at, *end));
    at = *end;
  }
  if (at == dim(x, axis)) return parts;
  return Misfit("the parts of a split of " + ir::ToString(shape(x)) + " do not add up");
}

Result<Tensor> TensorBuilder::Expand(Tensor x, const ir::Shape& target) {
  if (shape(x) == target) return x;
  const size_t skipped = target.size() - shape(x).size();
  if (shape(x).size() > target.size() || target.size() > ir::kMaxRank)
    return Misfit(ir::ToString(shape(x)) + " does not expand to " + ir::ToString(target));
  const ir::Shape before = shape(x);
  const auto folded = Rearranged(x, target, [&](const Coordinates& at) {
    Coordinates source;
    for (size_t i = 0; i < before.size(); ++i)
      source.push_back(before[i].size == 1 ? 0 : at[skipped + i]);
    return source;
  });
  if (folded) return *folded;
  return Node(ir::Op::kExpand, std::span(&x, 1), {{"shape", target}});
}

Result<Tensor> TensorBuilder::Join(std::span<const Tensor> parts, int axis) {
  std::vector<Tensor> filled;  // parts without elements take no part
  for (const Tensor part : parts)
    if (rank(part) == 0 || dim(part, std::min(axis, rank(part) - 1)) != Size(0) ||
        (rank(part) == 1 && parts.size() == 1))
      filled.push_back(part);
  if (filled.empty() && !parts.empty()) return parts.front();
  if (filled.size() == 1) return filled.front();
  if (filled.empty()) return Misfit("nothing to join");
  const bool all_known = axis == 0 && std::ranges::all_of(filled, [&](Tensor part) {
                           return entry(part).sizes.has_value() && rank(part) >= 1;
                         });
  if (all_known) {
    std::vector<Size> sizes;
    ir::Shape target = shape(filled.front());
    Size total = 0;
    for (const Tensor part : filled) {
      sizes.insert(sizes.end(), entry(part).sizes->begin(), entry(part).sizes->end());
      total = total.Plus(dim(part, 0)).value_or(total);
    }
    target[0] = ir::DimOf(total);
    if (static_cast<int64_t>(sizes.size()) <= kMaxKnown)
      return AddKnown(dtype(filled.front()), target, std::move(sizes));
  }
  return Node(ir::Op::kJoin, filled, {{"axis", int64_t{axis}}});
}

Result<Tensor> TensorBuilder::Stack(std::span<const Tensor> parts, int axis) {
  std::vector<Tensor> raised;
  for (const Tensor part : parts) {
    TRY_ASSIGN(raised.emplace_back(), Unsqueeze(part, axis));
  }
  return Join(raised, axis);
}

Result<Tensor> TensorBuilder::Tile(Tensor x, const std::vector<int64_t>& repeats) {
  for (size_t axis = 0; axis < repeats.size(); ++axis) {
    if (repeats[axis] < 1) return Unsupported("a tensor is repeated less than once");
    if (repeats[axis] == 1) continue;
    // [.., d, ..] -> [.., 1, d, ..] -> [.., r, d, ..] -> [.., r * d, ..]
    TRY_ASSIGN(x, Unsqueeze(x, static_cast<int>(axis)));
    ir::Shape target = shape(x);
    target[axis] = ir::Constant(repeats[axis]);
    TRY_ASSIGN(x, Expand(x, target));
    TRY_ASSIGN(x, Flatten(x, static_cast<int>(axis), static_cast<int>(axis) + 2));
  }
  return x;
}

Result<Tensor> TensorBuilder::Pad(Tensor x, const std::vector<int64_t>& before,
                                  const std::vector<int64_t>& after, double value,
                                  const std::vector<int64_t>& interior) {
  const auto axes = static_cast<size_t>(rank(x));
  if (before.size() != axes || after.size() != axes ||
      (!interior.empty() && interior.size() != axes))
    return Misfit("padding has not x's rank");
  std::vector<int64_t> front(axes, 0), behind(axes, 0);
  std::vector<int64_t> between = interior.empty() ? std::vector<int64_t>(axes, 0) : interior;
  bool pads = false;
  for (size_t i = 0; i < axes; ++i) {
    front[i] = std::max<int64_t>(0, before[i]);
    behind[i] = std::max<int64_t>(0, after[i]);
    pads = pads || front[i] > 0 || behind[i] > 0 || between[i] > 0;
  }
  if (pads) {
    TRY_ASSIGN(
        x, Node(ir::Op::kPad, std::span(&x, 1),
                {{"before", front}, {"after", behind}, {"interior", between}, {"value", value}}));
  }
  for (size_t i = 0; i < axes; ++i) {
    if (before[i] >= 0 && after[i] >= 0) continue;
    const int64_t cut_front = std::max<int64_t>(0, -before[i]);
    const int64_t cut_behind = std::max<int64_t>(0, -after[i]);
    const auto end = dim(x, static_cast<int>(i)).Minus(cut_behind);
    TRY_ASSIGN(x, Slice(x, static_cast<int>(i), Size(cut_front), end));
  }
  return x;
}

Result<Tensor> TensorBuilder::PadBy(Tensor x, const std::vector<int64_t>& before,
                                    const std::vector<int64_t>& after, PadMode mode) {
  const auto axes = static_cast<size_t>(rank(x));
  if (before.size() != axes || after.size() != axes) return Misfit("padding has not x's rank");
  for (size_t axis = 0; axis < axes; ++axis) {
    if (before[axis] == 0 && after[axis] == 0) continue;
    const auto size = dim(x, static_cast<int>(axis)).Constant();
    if (!size) return Unsupported("padding by reflection of a symbolic dimension");
    std::vector<Size> places;
    if (before[axis] > kMaxKnown || after[axis] > kMaxKnown)
      return Unsupported("padding of more than 4096 elements");
    for (int64_t at = -before[axis]; at < *size + after[axis]; ++at) {
      int64_t place = at;
      if (mode == PadMode::kEdge) place = std::clamp<int64_t>(at, 0, *size - 1);
      if (mode == PadMode::kWrap) place = ((at % *size) + *size) % *size;
      if (mode == PadMode::kReflect && *size == 1) place = 0;
      if ((mode == PadMode::kReflect && *size > 1) || mode == PadMode::kSymmetric) {
        const int64_t period = mode == PadMode::kReflect ? 2 * (*size - 1) : 2 * *size;
        place = ((at % period) + period) % period;
        if (place >= *size) place = period - place - (mode == PadMode::kSymmetric ? 1 : 0);
      }
      places.emplace_back(place);
    }
    TRY_ASSIGN(x, Take(x, Sizes(places), static_cast<int>(axis)));
  }
  return x;
}

Result<Tensor> TensorBuilder::Take(Tensor x, Tensor index, int axis, IndexPolicy policy) {
  const auto at_axis = static_cast<size_t>(axis);
  const auto places = KnownIntegers(index);
  const auto size = dim(x, axis).Constant();
  const bool wraps = policy == IndexPolicy::kWrap;
  if (places && places->size() == 1 && policy != IndexPolicy::kClamp &&
      ((size && places->front() < *size && places->front() >= (wraps ? -*size : 0)) ||
       (!size && wraps && (places->front() == -1 || places->front() == 0)))) {
    TRY_ASSIGN(const Tensor one, Pick(x, axis, places->front()));
    ir::Shape target = shape(one);
    target.insert(target.begin() + axis, shape(index).begin(), shape(index).end());
    return Reshape(one, target);
  }
  if (places && size) {
    const ir::Shape& inserted = shape(index);
    ir::Shape target = shape(x);
    const auto where = target.begin() + axis;
    target.insert(target.erase(where), inserted.begin(), inserted.end());
    bool inside = true;
    for (const int64_t place : *places)
      inside = inside && place < *size && place >= (wraps ? -*size : 0);
    const auto folded = !inside ? std::nullopt : Rearranged(x, target, [&](const Coordinates& at) {
      Coordinates source(at.begin(), at.begin() + axis);
      size_t flat = 0;
      for (size_t i = 0; i < inserted.size(); ++i)
        flat = flat * static_cast<size_t>(inserted[i].size) + static_cast<size_t>(at[at_axis + i]);
      const int64_t place = (*places)[flat];
      source.push_back(place < 0 ? place + *size : place);
      source.insert(source.end(), at.begin() + axis + static_cast<int64_t>(inserted.size()),
                    at.end());
      return source;
    });
    if (folded) return *folded;
  }
  const Tensor operands[] = {x, index};
  return Node(ir::Op::kTake, operands,
              {{"axis", int64_t{axis}}, {"policy", static_cast<int64_t>(policy)}});
}

Result<Tensor> TensorBuilder::TakeAlong(Tensor x, Tensor index, int axis, IndexPolicy policy) {
  const Tensor operands[] = {x, index};
  return Node(ir::Op::kTakeAlong, operands,
              {{"axis", int64_t{axis}}, {"policy", static_cast<int64_t>(policy)}});
}

Result<Tensor> TensorBuilder::GatherNd(Tensor x, Tensor index, int batch_dims, IndexPolicy policy) {
  const Tensor operands[] = {x, index};
  return Node(ir::Op::kGatherNd, operands,
              {{"batch_dims", int64_t{batch_dims}}, {"policy", static_cast<int64_t>(policy)}});
}

Result<Tensor> TensorBuilder::Scatter(ScatterMode mode, Tensor x, Tensor index, Tensor updates,
                                      int axis, Scattering reduction) {
  const Tensor operands[] = {x, index, updates};
  return Node(ir::Op::kScatter, operands,
              {{"mode", static_cast<int64_t>(mode)},
               {"axis", int64_t{axis}},
               {"reduction", static_cast<int64_t>(reduction)},
               {"policy", static_cast<int64_t>(IndexPolicy::kWrap)}});
}

Result<Tensor> TensorBuilder::ScatterElements(Tensor x, Tensor index, Tensor updates, int axis,
                                              Scattering reduction) {
  return Scatter(ScatterMode::kElements, x, index, updates, axis, reduction);
}

Result<Tensor> TensorBuilder::ScatterNd(Tensor x, Tensor index, Tensor updates,
                                        Scattering reduction) {
  return Scatter(ScatterMode::kNd, x, index, updates, 0, reduction);
}

Result<Tensor> TensorBuilder::EmbeddingBag(Tensor table, Tensor index, Tensor offsets,
                                           Tensor weights, const BagOptions& options) {
  const Tensor operands[] = {table, index, offsets, weights};
  return Node(ir::Op::kEmbeddingBag, operands,
              {{"mode", static_cast<int64_t>(options.mode)},
               {"ends", int64_t{options.ends}},
               {"policy", static_cast<int64_t>(options.policy)},
               {"default_row", options.default_row},
               {"padding_row", options.padding_row}});
}

Result<Tensor> TensorBuilder::Embedding(Tensor table, Tensor index, IndexPolicy policy) {
  TRY_ASSIGN(const Tensor bags, Unsqueeze(index, rank(index)));
  return EmbeddingBag(table, bags, {}, {}, {.policy = policy});
}

}  // namespace millpower::import
