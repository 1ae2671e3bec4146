#include "kernels/tensor/map.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace millpower::kernels {
namespace {

// Where tiles of scratch begin: at cache lines.
constexpr int64_t kLineBytes = 64;
// Every term a tile of 8 bytes, and tiles of halves for the operands and the result.
constexpr int64_t kScratchBytes = MapKernel::kTile * (kMaxTerms * 8 + (kMaxMapOperands + 2) * 2);

bool IsHalf(DType type) { return type == DType::kF16 || type == DType::kBf16; }

// f64 to a half by way of f32.
void CastRoundingToOdd(const std::byte* const* arguments, std::byte* y, int64_t count) {
  const auto* x = reinterpret_cast<const double*>(arguments[0]);
  for (int64_t i = 0; i < count; ++i) reinterpret_cast<float*>(y)[i] = RoundToOdd(x[i]);
}

// Whose result is a half when the arguments are.
bool IsExactOnHalves(MapOp op) {
  switch (op) {
    case MapOp::kNeg:
    case MapOp::kAbs:
    case MapOp::kMin:
    case MapOp::kMax:
    case MapOp::kRelu:
    case MapOp::kSelect:
      return true;
    default:
      return false;
  }
}

int64_t TermCost(const Term& term, DType argument) {
  const int64_t half = IsHalf(term.type) ? 4 : 0;
  switch (term.op) {
    case MapOp::kExp:
    case MapOp::kLog:
    case MapOp::kTanh:
    case MapOp::kErf:
    case MapOp::kSigmoid:
      return ComputeType(argument) == DType::kF32 ? 6 + half : 60;
    case MapOp::kDiv:
    case MapOp::kFmod:
    case MapOp::kMod:
    case MapOp::kFloorDiv:
      if (term.op != MapOp::kDiv && IsFloat(argument)) return 60;
      return IsFloat(argument) ? 2 + half : 8;
    case MapOp::kSqrt:
    case MapOp::kReciprocal:
      return 2 + half;
    case MapOp::kSin:
    case MapOp::kCos:
    case MapOp::kTan:
    case MapOp::kAsin:
    case MapOp::kAcos:
    case MapOp::kAtan:
    case MapOp::kSinh:
    case MapOp::kCosh:
    case MapOp::kAsinh:
    case MapOp::kAcosh:
    case MapOp::kAtanh:
    case MapOp::kSoftplus:
    case MapOp::kPow:
    case MapOp::kAtan2:
      return 60;
    default:
      return 1 + half;
  }
}

// ---- Constants ----

template <typename T>
void FillWith(T value, std::byte* tile, int64_t count) {
  std::fill_n(reinterpret_cast<T*>(tile), count, value);
}

float RoundedToHalf(const ElementKernels& set, DType type, float value) {
  const auto* x = reinterpret_cast<const std::byte*>(&value);
  float rounded = 0;
  (type == DType::kF16 ? set.round_f16 : set.round_bf16)(&x, reinterpret_cast<std::byte*>(&rounded),
                                                         1);
  return rounded;
}

void FillReal(const ElementKernels& set, DType type, double value, std::byte* tile, int64_t count) {
  if (type == DType::kF64) return FillWith(value, tile, count);
  if (type == DType::kF32) return FillWith(static_cast<float>(value), tile, count);
  FillWith(RoundedToHalf(set, type, RoundToOdd(value)), tile, count);
}

void FillInteger(DType type, int64_t value, std::byte* tile, int64_t count) {
  if (type == DType::kBool) return FillWith(static_cast<uint8_t>(value != 0), tile, count);
  switch (SizeBytes(type)) {  // the low bits, whatever the sign
    case 1:
      return FillWith(static_cast<uint8_t>(value), tile, count);
    case 2:
      return FillWith(static_cast<uint16_t>(value), tile, count);
    case 4:
      return FillWith(static_cast<uint32_t>(value), tile, count);
    default:
      return FillWith(static_cast<uint64_t>(value), tile, count);
  }
}

// ---- Strided elements ----

template <typename T>
void GatherAs(const Nest& nest, int tensor, const Place& place, int64_t count,
              const std::byte* from, std::byte* tile) {
  const int64_t stride = nest.inner_stride(tensor);
  ForRuns(nest, tensor, place, count, [&](int64_t offset, int64_t done, int64_t length) {
    const T* x = reinterpret_cast<const T*>(from) + offset;
    T* y = reinterpret_cast<T*>(tile) + done;
    if (stride == 1)
      std::memcpy(y, x, static_cast<size_t>(length) * sizeof(T));
    else if (stride == 0)
      std::fill_n(y, length, *x);
    else
      for (int64_t i = 0; i < length; ++i) y[i] = x[i * stride];
  });
}

template <typename T>
void ScatterAs(const Nest& nest, int tensor, const Place& place, int64_t count,
               const std::byte* tile, std::byte* to) {
  const int64_t stride = nest.inner_stride(tensor);
  ForRuns(nest, tensor, place, count, [&](int64_t offset, int64_t done, int64_t length) {
    const T* x = reinterpret_cast<const T*>(tile) + done;
    T* y = reinterpret_cast<T*>(to) + offset;
    if (stride == 1)
      std::memcpy(y, x, static_cast<size_t>(length) * sizeof(T));
    else
      for (int64_t i = 0; i < length; ++i) y[i * stride] = x[i];
  });
}

// move.template operator()<T>() with an integer of `size_bytes`.
template <class Move>
void BySize(int size_bytes, const Move& move) {
  switch (size_bytes) {
    case 1:
      return move.template operator()<uint8_t>();
    case 2:
      return move.template operator()<uint16_t>();
    case 4:
      return move.template operator()<uint32_t>();
    default:
      return move.template operator()<uint64_t>();
  }
}

void Gather(const Nest& nest, int tensor, const Place& place, int64_t count, int size_bytes,
            const std::byte* from, std::byte* tile) {
  BySize(size_bytes, [&]<typename T>() { GatherAs<T>(nest, tensor, place, count, from, tile); });
}

void Scatter(const Nest& nest, int tensor, const Place& place, int64_t count, int size_bytes,
             const std::byte* tile, std::byte* to) {
  BySize(size_bytes, [&]<typename T>() { ScatterAs<T>(nest, tensor, place, count, tile, to); });
}

// Coordinates: the nest walks a tensor whose element is its own offset.
void GatherIndex(const Nest& nest, int tensor, const Place& place, int64_t count, std::byte* tile) {
  const int64_t stride = nest.inner_stride(tensor);
  ForRuns(nest, tensor, place, count, [&](int64_t offset, int64_t done, int64_t length) {
    int64_t* y = reinterpret_cast<int64_t*>(tile) + done;
    for (int64_t i = 0; i < length; ++i) y[i] = offset + i * stride;
  });
}

}  // namespace

// ---- At load ----

MapKernel::MapKernel(const ElementKernels& set, const Expression& expression) : set_(set) {
  const std::vector<Term>& terms = expression.terms;
  std::vector<bool> is_needed(terms.size(), false);
  is_needed.back() = true;
  for (size_t i = terms.size(); i-- > 0;)
    for (int a = 0; is_needed[i] && a < Info(terms[i].op).arity; ++a)
      is_needed[static_cast<size_t>(terms[i].arguments[a])] = true;
  std::vector<int16_t> value_of(terms.size(), -1);
  element_cost_ = 1;
  for (size_t i = 0; i < terms.size(); ++i) {
    if (!is_needed[i]) continue;
    AddValue(set, expression, terms[i], value_of);
  }
  // Which operand or axis a source is, as tensors of the nest: the result is 0.
  for (Value& value : values_) {
    if (value.kind == Kind::kIndex) value.source += static_cast<int>(operands_.size());
  }
  PlaceTiles();
}

// value_of[i] becomes the value of term i.
void MapKernel::AddValue(const ElementKernels& set, const Expression& expression, const Term& term,
                         std::vector<int16_t>& value_of) {
  int16_t& number = value_of[static_cast<size_t>(&term - expression.terms.data())];
  Value value{.type = term.type, .immediate = term.immediate};
  // The number of `what` among sources of a kind.
  const auto place_in = [](std::vector<int>& sources, int64_t what) {
    const auto found = std::ranges::find(sources, static_cast<int>(what));
    const auto place = static_cast<int>(found - sources.begin());
    if (found == sources.end()) sources.push_back(static_cast<int>(what));
    return 1 + place;
  };
  switch (term.op) {
    case MapOp::kLoad:
      value.kind = Kind::kOperand;
      value.source = place_in(operands_, term.immediate);
      break;
    case MapOp::kIndex:
      value.kind = Kind::kIndex;
      value.source = place_in(axes_, term.immediate);
      break;
    case MapOp::kConstant:
      value.kind = Kind::kConstant;
      break;
    case MapOp::kSize:
      value.kind = Kind::kSize;
      break;
    default: {
      const int arity = Info(term.op).arity;
      for (int a = 0; a < arity; ++a)
        value.arguments[a] = value_of[static_cast<size_t>(term.arguments[a])];
      const DType argument = expression.terms[static_cast<size_t>(term.arguments[arity - 1])].type;
      value.function = set.find_term(term.op, ComputeType(term.type), ComputeType(argument));
      if (term.op == MapOp::kCast && argument == DType::kF64 && IsHalf(term.type))
        value.function = CastRoundingToOdd;
      CHECK(value.function != nullptr) << Info(term.op).name;
      if (IsHalf(term.type) && !IsExactOnHalves(term.op))
        value.round = term.type == DType::kF16 ? set.round_f16 : set.round_bf16;
      element_cost_ += TermCost(term, argument);
    }
  }
  if (value.kind != Kind::kComputed) {
    element_cost_ += value.kind == Kind::kOperand ? (IsHalf(value.type) ? 3 : 1) : 0;
    for (size_t i = 0; i < values_.size(); ++i)
      if (values_[i].kind == value.kind && values_[i].type == value.type &&
          values_[i].source == value.source && values_[i].immediate == value.immediate) {
        number = static_cast<int16_t>(i);
        // The result is the last value, whatever else has it.
        if (&term != &expression.terms.back()) return;
      }
  }
  number = static_cast<int16_t>(values_.size());
  values_.push_back(value);
}

int64_t MapKernel::Reserve(int64_t element_bytes) {
  const int64_t at = scratch_bytes_;
  const int64_t bytes = kTile * element_bytes;
  scratch_bytes_ += (bytes + kLineBytes - 1) / kLineBytes * kLineBytes;
  CHECK(scratch_bytes_ <= kScratchBytes) << scratch_bytes_;
  return at;
}

// Tiles of what is computed are used again once nobody needs them; those of sources keep what may
// serve the next tile too.
void MapKernel::PlaceTiles() {
  std::vector<size_t> last_use(values_.size(), values_.size());
  for (size_t i = 0; i < values_.size(); ++i)
    for (const int16_t argument : values_[i].arguments)
      if (argument >= 0) last_use[static_cast<size_t>(argument)] = i;
  struct Free {
    int64_t at, element_bytes;
  };
  std::vector<Free> free;
  for (size_t i = 0; i < values_.size(); ++i) {
    Value& value = values_[i];
    const int64_t element_bytes = SizeBytes(ComputeType(value.type));
    if (value.kind == Kind::kOperand && IsHalf(value.type)) value.stored_at = Reserve(2);
    const auto fits = std::ranges::find(free, element_bytes, &Free::element_bytes);
    if (value.kind == Kind::kComputed && fits != free.end()) {
      value.at = fits->at;
      free.erase(fits);
    } else {
      value.at = Reserve(element_bytes);
    }
    // Freed only now: a term's result never lies where its arguments do, whose types may differ.
    for (size_t a = 0; a < i; ++a)
      if (values_[a].kind == Kind::kComputed && last_use[a] == i)
        free.push_back({values_[a].at, SizeBytes(ComputeType(values_[a].type))});
  }
  if (IsHalf(values_.back().type)) values_.back().stored_at = Reserve(2);
}

// ---- At each launch ----

struct MapKernel::Tiles {
  const MapTensors& tensors;
  const Nest& nest;
  Place place;
  std::byte* const scratch;
  int64_t left;                                      // elements of the range, from `place`
  uint32_t linear = 0;                               // tensors that lie as the result is walked
  uint32_t constant = 0;                             // those of one element
  uint32_t by_row = 0;                               // those that are the same in each row
  std::array<const std::byte*, kMaxTerms> values{};  // of this tile
  std::array<int64_t, kMaxTerms> held{};             // elements that a source's tile holds

  bool Is(uint32_t set, int tensor) const { return (set >> tensor & 1) != 0; }
  // Whether the tile's elements lie one after the other in a tensor.
  bool IsDirect(int tensor, int64_t count) const {
    return Is(linear, tensor) ||
           (nest.inner_stride(tensor) == 1 && place.inner() + count <= nest.inner());
  }
  void Classify() {
    for (int t = 0; t < nest.tensors; ++t) {
      const AxisStrides& strides = nest.strides[static_cast<size_t>(t)];
      const auto outer = strides.begin() + nest.rank - 1;
      const bool repeats = std::all_of(strides.begin(), outer, [](int64_t s) { return s == 0; });
      const uint32_t bit = 1u << t;
      if (nest.IsLinear(t)) linear |= bit;
      if (repeats && *outer == 0) constant |= bit;
      if (repeats) by_row |= bit;
    }
  }
  // Whole rows when they are short, else equal parts of a row.
  int64_t Count() const {
    const int64_t inner = nest.inner(), at = place.inner();
    if (inner <= kTile) return std::min(left, at == 0 ? kTile / inner * inner : inner - at);
    const int64_t parts = (inner + kTile - 1) / kTile;
    const int64_t part = ((inner + parts - 1) / parts + 15) / 16 * 16;
    return std::min({left, part - at % part, inner - at});
  }
};

void MapKernel::Fill(const Value& value, std::span<const int64_t> sizes, int64_t count,
                     std::byte* tile) const {
  if (value.kind == Kind::kSize)
    FillInteger(DType::kI64, sizes[static_cast<size_t>(value.immediate)], tile, count);
  else if (IsFloat(value.type))
    FillReal(set_, value.type, std::bit_cast<double>(value.immediate), tile, count);
  else
    FillInteger(value.type, value.immediate, tile, count);
}

// The tile of an operand or index: in place, or gathered.
const std::byte* MapKernel::Load(const Value& value, Tiles& tiles, int64_t count) const {
  const int source = value.source;
  const auto number = static_cast<size_t>(&value - values_.data());
  std::byte* tile = tiles.scratch + value.at;
  const bool starts_row = tiles.place.inner() == 0;
  if (tiles.held[number] >= count && (starts_row || tiles.Is(tiles.constant, source))) return tile;
  // A constant serves all tiles to come, the longest of which is no longer than what is left.
  const int64_t wanted = tiles.Is(tiles.constant, source) ? std::min(kTile, tiles.left) : count;
  tiles.held[number] =
      tiles.Is(tiles.constant, source) || (tiles.Is(tiles.by_row, source) && starts_row) ? wanted
                                                                                         : 0;
  if (value.kind == Kind::kIndex) {
    GatherIndex(tiles.nest, source, tiles.place, wanted, tile);
    return tile;
  }
  const int size_bytes = SizeBytes(value.type);
  const std::byte* data =
      tiles.tensors.x[static_cast<size_t>(operands_[static_cast<size_t>(source - 1)])];
  const std::byte* stored = nullptr;
  if (tiles.IsDirect(source, count)) {
    stored = data + tiles.place.Offset(source) * size_bytes;
    tiles.held[number] = 0;
    if (!IsHalf(value.type)) return stored;
  } else {
    std::byte* gathered = IsHalf(value.type) ? tiles.scratch + value.stored_at : tile;
    Gather(tiles.nest, source, tiles.place, wanted, size_bytes, data, gathered);
    stored = gathered;
  }
  if (IsHalf(value.type))
    (value.type == DType::kF16 ? set_.widen_f16 : set_.widen_bf16)(
        reinterpret_cast<const uint16_t*>(stored), reinterpret_cast<float*>(tile),
        tiles.held[number] != 0 ? wanted : count);
  return tile;
}

void MapKernel::Compute(const Value& value, Tiles& tiles, std::byte* result, int64_t count) const {
  const std::byte* arguments[3] = {};
  for (int a = 0; a < 3 && value.arguments[a] >= 0; ++a)
    arguments[a] = tiles.values[static_cast<size_t>(value.arguments[a])];
  value.function(arguments, result, count);
  const std::byte* computed = result;
  if (value.round != nullptr) value.round(&computed, result, count);
}

void MapKernel::StoreResult(Tiles& tiles, const std::byte* result, int64_t count) const {
  const Value& value = values_.back();
  const int size_bytes = SizeBytes(value.type);
  const bool is_direct = tiles.IsDirect(0, count);
  std::byte* y = tiles.tensors.y + tiles.place.Offset(0) * size_bytes;
  if (IsHalf(value.type)) {
    std::byte* narrowed = is_direct ? y : tiles.scratch + value.stored_at;
    (value.type == DType::kF16 ? set_.narrow_f16 : set_.narrow_bf16)(
        reinterpret_cast<const float*>(result), reinterpret_cast<uint16_t*>(narrowed), count);
    result = narrowed;
  }
  if (!is_direct)
    Scatter(tiles.nest, 0, tiles.place, count, size_bytes, result, tiles.tensors.y);
  else if (result != y)
    std::memmove(y, result, static_cast<size_t>(count * size_bytes));
}

void MapKernel::Run(const MapTensors& tensors, std::span<const int64_t> sizes, int64_t begin,
                    int64_t end) const {
  std::array<AxisStrides, kNestTensors> strides{};
  size_t count_of_tensors = 0;
  strides[count_of_tensors++] = tensors.y_strides;
  for (const int operand : operands_)
    strides[count_of_tensors++] = tensors.x_strides[static_cast<size_t>(operand)];
  for (const int axis : axes_) strides[count_of_tensors++][static_cast<size_t>(axis)] = 1;
  const Nest nest =
      MakeNest(tensors.rank, tensors.dims, std::span(strides).first(count_of_tensors));

  alignas(kLineBytes) std::byte scratch[kScratchBytes];  // left as it is: nothing is touched
  Tiles tiles{.tensors = tensors,
              .nest = nest,
              .place = Place(nest, begin),
              .scratch = scratch,
              .left = end - begin};
  tiles.Classify();
  for (size_t i = 0; i < values_.size(); ++i) {
    if (values_[i].kind != Kind::kConstant && values_[i].kind != Kind::kSize) continue;
    Fill(values_[i], sizes, std::min(kTile, end - begin), scratch + values_[i].at);
    tiles.values[i] = scratch + values_[i].at;
  }

  const Value& last = values_.back();
  while (tiles.left > 0) {
    const int64_t count = tiles.Count();
    for (size_t i = 0; i < values_.size(); ++i) {
      const Value& value = values_[i];
      if (value.kind == Kind::kOperand || value.kind == Kind::kIndex) {
        tiles.values[i] = Load(value, tiles, count);
      } else if (value.kind == Kind::kComputed) {
        const bool into_y = &value == &last && !IsHalf(value.type) && tiles.IsDirect(0, count);
        std::byte* result =
            into_y ? tensors.y + tiles.place.Offset(0) * SizeBytes(value.type) : scratch + value.at;
        Compute(value, tiles, result, count);
        tiles.values[i] = result;
      }
    }
    StoreResult(tiles, tiles.values[values_.size() - 1], count);
    tiles.place.Advance(count);
    tiles.left -= count;
  }
}

}  // namespace millpower::kernels
