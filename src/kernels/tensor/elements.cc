// The element kernels of the baseline: the loops that every set has, and all that comes once.
#include "kernels/tensor/elements.h"

#include <cmath>
#include <limits>
#include <string_view>

#include "base/rng.h"
#include "kernels/tensor/element_loops.h"
#include "kernels/tensor/element_sets.h"

namespace millpower::kernels {
namespace {

// ---- Integers ----

template <typename T>
constexpr bool IsMinusOne(T x) {
  return kIsSigned<T> && x == static_cast<T>(-1);
}
// The remainder of a / b towards zero; b is neither 0 nor -1, or a is not the least integer.
struct IntDiv {
  template <typename T>
  static T Of(T a, T b) {
    if (b == 0) return 0;
    return IsMinusOne(b) ? Negate::Of(a) : static_cast<T>(a / b);
  }
};
struct IntFmod {
  template <typename T>
  static T Of(T a, T b) {
    return b == 0 || IsMinusOne(b) ? T{0} : static_cast<T>(a % b);
  }
};
struct IntFloorDiv {
  template <typename T>
  static T Of(T a, T b) {
    const T quotient = IntDiv::Of(a, b);
    const bool inexact = IntFmod::Of(a, b) != 0;
    return static_cast<T>(quotient - (inexact && (a < 0) != (b < 0) ? 1 : 0));
  }
};
struct IntMod {
  template <typename T>
  static T Of(T a, T b) {
    const T r = IntFmod::Of(a, b);
    return static_cast<T>(r != 0 && (r < 0) != (b < 0) ? r + b : r);
  }
};
struct IntPow {
  template <typename T>
  static T Of(T base, T exponent) {
    if (exponent < 0) {
      if (base == 1) return 1;
      if (!IsMinusOne(base)) return 0;
      return static_cast<T>(exponent % 2 == 0 ? 1 : -1);
    }
    T result = 1;
    for (; exponent > 0; exponent = static_cast<T>(exponent / 2)) {
      if (exponent % 2 == 1) result = Mul::Of(result, base);
      base = Mul::Of(base, base);
    }
    return result;
  }
};
struct Mix {
  template <typename T>
  static T Of(T x) {
    return static_cast<T>(Mix64(static_cast<uint64_t>(x)));
  }
};
MP_UNARY(BitNot, static_cast<T>(~x));
MP_BINARY(BitAnd, static_cast<T>(a& b));
MP_BINARY(BitOr, static_cast<T>(a | b));
MP_BINARY(BitXor, static_cast<T>(a ^ b));
// A count that is negative is as one beyond the width.
template <typename T>
constexpr bool IsBeyondWidth(T count) {
  return static_cast<uint64_t>(static_cast<int64_t>(count)) >= sizeof(T) * 8;
}
MP_BINARY(ShiftLeft, IsBeyondWidth(b) ? T{0} : static_cast<T>(static_cast<Wrapping<T>>(a) << b));
MP_BINARY(ShiftRight,
          static_cast<T>(IsBeyondWidth(b) ? (a < 0 ? T(-1) : T(0)) : static_cast<T>(a >> b)));

template <typename T>
TermFunction FindInteger(MapOp op) {
  switch (op) {
    case MapOp::kDiv:
      return Loop<IntDiv, T, T, T>::Run;
    case MapOp::kFloorDiv:
      return Loop<IntFloorDiv, T, T, T>::Run;
    case MapOp::kMod:
      return Loop<IntMod, T, T, T>::Run;
    case MapOp::kFmod:
      return Loop<IntFmod, T, T, T>::Run;
    case MapOp::kPow:
      return Loop<IntPow, T, T, T>::Run;
    case MapOp::kMix:
      return Loop<Mix, T, T>::Run;
    case MapOp::kBitNot:
      return Loop<BitNot, T, T>::Run;
    case MapOp::kBitAnd:
      return Loop<BitAnd, T, T, T>::Run;
    case MapOp::kBitOr:
      return Loop<BitOr, T, T, T>::Run;
    case MapOp::kBitXor:
      return Loop<BitXor, T, T, T>::Run;
    case MapOp::kShiftLeft:
      return Loop<ShiftLeft, T, T, T>::Run;
    case MapOp::kShiftRight:
      return Loop<ShiftRight, T, T, T>::Run;
    default:
      return FindPlain<T>(op);
  }
}

// ---- Floats ----

MP_UNARY(Sine, std::sin(x));
MP_UNARY(Cosine, std::cos(x));
MP_UNARY(Tangent, std::tan(x));
MP_UNARY(ArcSine, std::asin(x));
MP_UNARY(ArcCosine, std::acos(x));
MP_UNARY(ArcTangent, std::atan(x));
MP_UNARY(HyperbolicSine, std::sinh(x));
MP_UNARY(HyperbolicCosine, std::cosh(x));
MP_UNARY(ArcHyperbolicSine, std::asinh(x));
MP_UNARY(ArcHyperbolicCosine, std::acosh(x));
MP_UNARY(ArcHyperbolicTangent, std::atanh(x));
MP_UNARY(Softplus, (x < 0 ? T{0} : x) + std::log1p(std::exp(-std::abs(x))));
MP_BINARY(RealFmod, std::fmod(a, b));
MP_BINARY(Power, std::pow(a, b));
MP_BINARY(ArcTangent2, std::atan2(a, b));
struct RealMod {
  template <typename T>
  static T Of(T a, T b) {
    const T r = std::fmod(a, b);
    if (r == 0) return std::copysign(r, b);
    return (r < 0) != (b < 0) ? r + b : r;
  }
};
struct RealFloorDiv {
  template <typename T>
  static T Of(T a, T b) {
    if (b == 0) return a / b;
    const T quotient = (a - RealMod::Of(a, b)) / b;
    const T whole = std::floor(quotient);
    return quotient - whole > T{0.5} ? whole + 1 : whole;
  }
};
// What f32 has of its own (FindFunction).
MP_UNARY(DoubleExp, std::exp(x));
MP_UNARY(DoubleLog, std::log(x));
MP_UNARY(DoubleTanh, std::tanh(x));
MP_UNARY(DoubleErf, std::erf(x));
MP_UNARY(DoubleSigmoid, 1 / (1 + std::exp(-x)));

TermFunction FindDoubleFunction(MapOp op) {
  switch (op) {
    case MapOp::kExp:
      return Loop<DoubleExp, double, double>::Run;
    case MapOp::kLog:
      return Loop<DoubleLog, double, double>::Run;
    case MapOp::kTanh:
      return Loop<DoubleTanh, double, double>::Run;
    case MapOp::kErf:
      return Loop<DoubleErf, double, double>::Run;
    case MapOp::kSigmoid:
      return Loop<DoubleSigmoid, double, double>::Run;
    default:
      return nullptr;
  }
}

template <typename T>
TermFunction FindLibraryFunction(MapOp op) {
  switch (op) {
    case MapOp::kSin:
      return Loop<Sine, T, T>::Run;
    case MapOp::kCos:
      return Loop<Cosine, T, T>::Run;
    case MapOp::kTan:
      return Loop<Tangent, T, T>::Run;
    case MapOp::kAsin:
      return Loop<ArcSine, T, T>::Run;
    case MapOp::kAcos:
      return Loop<ArcCosine, T, T>::Run;
    case MapOp::kAtan:
      return Loop<ArcTangent, T, T>::Run;
    case MapOp::kSinh:
      return Loop<HyperbolicSine, T, T>::Run;
    case MapOp::kCosh:
      return Loop<HyperbolicCosine, T, T>::Run;
    case MapOp::kAsinh:
      return Loop<ArcHyperbolicSine, T, T>::Run;
    case MapOp::kAcosh:
      return Loop<ArcHyperbolicCosine, T, T>::Run;
    case MapOp::kAtanh:
      return Loop<ArcHyperbolicTangent, T, T>::Run;
    case MapOp::kSoftplus:
      return Loop<Softplus, T, T>::Run;
    case MapOp::kFmod:
      return Loop<RealFmod, T, T, T>::Run;
    case MapOp::kMod:
      return Loop<RealMod, T, T, T>::Run;
    case MapOp::kFloorDiv:
      return Loop<RealFloorDiv, T, T, T>::Run;
    case MapOp::kPow:
      return Loop<Power, T, T, T>::Run;
    case MapOp::kAtan2:
      return Loop<ArcTangent2, T, T, T>::Run;
    default:
      return nullptr;
  }
}

template <typename T>
TermFunction FindFloat(MapOp op) {
  if (const TermFunction term = FindPlain<T>(op)) return term;
  if (const TermFunction term = FindReal<T>(op)) return term;
  if (const TermFunction term = FindLibraryFunction<T>(op)) return term;
  return std::is_same_v<T, float> ? FindFunction(op) : FindDoubleFunction(op);
}

// ---- All types ----

// find.template operator()<T>() for the C++ type of a numeric compute type; null for others.
template <class Find>
auto ForNumeric(DType type, const Find& find) -> decltype(find.template operator()<float>()) {
  switch (type) {
    case DType::kF32:
      return find.template operator()<float>();
    case DType::kF64:
      return find.template operator()<double>();
    case DType::kI8:
      return find.template operator()<int8_t>();
    case DType::kI16:
      return find.template operator()<int16_t>();
    case DType::kI32:
      return find.template operator()<int32_t>();
    case DType::kI64:
      return find.template operator()<int64_t>();
    case DType::kU8:
      return find.template operator()<uint8_t>();
    case DType::kU16:
      return find.template operator()<uint16_t>();
    case DType::kU32:
      return find.template operator()<uint32_t>();
    case DType::kU64:
      return find.template operator()<uint64_t>();
    default:
      return nullptr;
  }
}

TermFunction FindCast(DType to, DType from) {
  if (from == DType::kBool) {
    if (to == DType::kBool) return Loop<FromBool<Bool>, Bool, Bool>::Run;
    return ForNumeric(
        to, []<typename To>() -> TermFunction { return Loop<FromBool<To>, To, Bool>::Run; });
  }
  return ForNumeric(from, [to]<typename From>() -> TermFunction {
    if (to == DType::kBool) return Loop<ToBool, Bool, From>::Run;
    return ForNumeric(to,
                      []<typename To>() -> TermFunction { return Loop<Cast<To>, To, From>::Run; });
  });
}

TermFunction FindTerm(MapOp op, DType type, DType argument) {
  if (op == MapOp::kCast) return FindCast(type, argument);
  if (argument == DType::kBool) return FindBool(op);
  return ForNumeric(argument, [op]<typename T>() -> TermFunction {
    if constexpr (kIsReal<T>)
      return FindFloat<T>(op);
    else
      return FindInteger<T>(op);
  });
}

// ---- Reductions ----

struct AnyKind {
  using Result = Bool;
  using Acc = Bool;
  static Bool Start() { return 0; }
  static Bool Take(Bool acc, Bool x) { return acc | static_cast<Bool>(x != 0); }
  static Bool Join(Bool a, Bool b) { return a | b; }
  static Bool Finish(Bool acc, int64_t) { return acc; }
};
struct AllKind : AnyKind {
  static Bool Start() { return 1; }
  static Bool Take(Bool acc, Bool x) { return acc & static_cast<Bool>(x != 0); }
  static Bool Join(Bool a, Bool b) { return a & b; }
};

// Where the best element is; of equals the first, or the last.
template <typename T, bool kLargest, bool kLast>
struct PlaceReducer {
  struct Best {
    T value[kReductionCols];
    int64_t at[kReductionCols];
  };
  static_assert(sizeof(Best) <= sizeof(ReductionState));
  static Best& Of(ReductionState& state) { return *reinterpret_cast<Best*>(state.bytes); }

  static bool IsBetter(T x, T best) {
    if (IsNan(best)) return kLast && IsNan(x);
    if (IsNan(x)) return true;
    if (kLast && x == best) return true;
    return kLargest ? x > best : x < best;
  }
  static void Take(T& value, int64_t& place, T x, int64_t at) {
    if (at != 0 && !IsBetter(x, value)) return;
    value = x;
    place = at;
  }

  static void Lists(const std::byte* x, int64_t n, int64_t lists, int64_t x_stride, std::byte* y,
                    int64_t y_stride) {
    for (int64_t list = 0; list < lists; ++list) {
      T value{};
      int64_t place = 0;
      for (int64_t i = 0; i < n; ++i) Take(value, place, Elements<T>(x)[list * x_stride + i], i);
      reinterpret_cast<int64_t*>(y)[list * y_stride] = place;
    }
  }
  static void Start(ReductionState& state) { StartCols(state, 1); }
  static void Add(ReductionState& state, const std::byte* x, int64_t count, int64_t first) {
    AddRows(state, x, 1, count, 1, first);
  }
  static void Finish(ReductionState& state, int64_t total, std::byte* y) {
    FinishCols(state, 1, total, y);
  }
  static void StartCols(ReductionState& state, int64_t cols) {
    for (int64_t c = 0; c < cols; ++c) Of(state).at[c] = 0;
  }
  static void AddRows(ReductionState& state, const std::byte* bytes, int64_t cols, int64_t rows,
                      int64_t row_stride, int64_t first) {
    const T* x = Elements<T>(bytes);
    for (int64_t row = 0; row < rows; ++row, x += row_stride)
      for (int64_t c = 0; c < cols; ++c)
        Take(Of(state).value[c], Of(state).at[c], x[c], first + row);
  }
  static void FinishCols(ReductionState& state, int64_t cols, int64_t, std::byte* y) {
    for (int64_t c = 0; c < cols; ++c) reinterpret_cast<int64_t*>(y)[c] = Of(state).at[c];
  }

  static constexpr ReductionFunctions kFunctions = {Lists,     Start,   Add,       Finish,
                                                    StartCols, AddRows, FinishCols};
};

const ReductionFunctions* FindReduction(Reduction kind, DType type) {
  if (type == DType::kBool) {
    if (kind == Reduction::kAny) return &Reducer<AnyKind, Bool>::kFunctions;
    return kind == Reduction::kAll ? &Reducer<AllKind, Bool>::kFunctions : nullptr;
  }
  return ForNumeric(type, [kind]<typename T>() -> const ReductionFunctions* {
    switch (kind) {
      case Reduction::kArgMax:
        return &PlaceReducer<T, true, false>::kFunctions;
      case Reduction::kArgMin:
        return &PlaceReducer<T, false, false>::kFunctions;
      case Reduction::kLastArgMax:
        return &PlaceReducer<T, true, true>::kFunctions;
      case Reduction::kLastArgMin:
        return &PlaceReducer<T, false, true>::kFunctions;
      default:
        return FindCommonReduction<T>(kind);
    }
  });
}

constexpr ElementKernels kScalarElements = MakeElementKernels("scalar", FindTerm, FindReduction);

// A set with the baseline's functions where it has none of its own.
template <const ElementKernels* const& kSet>
const ElementKernels* Filled() {
  static const ElementKernels kFilled = [] {
    ElementKernels filled = *kSet;
    filled.find_term = [](MapOp op, DType type, DType argument) {
      const TermFunction own = kSet->find_term(op, type, argument);
      return own != nullptr ? own : FindTerm(op, type, argument);
    };
    filled.find_reduction = [](Reduction kind, DType type) {
      const ReductionFunctions* own = kSet->find_reduction(kind, type);
      return own != nullptr ? own : FindReduction(kind, type);
    };
    return filled;
  }();
  return &kFilled;
}

}  // namespace

const ElementKernels& ElementKernelsOf(const KernelSet& set) {
  const std::string_view name = set.name;
  if (name.starts_with("avx512") && kAvx512Elements != nullptr) return *Filled<kAvx512Elements>();
  if (name == "avx2" && kAvx2Elements != nullptr) return *Filled<kAvx2Elements>();
  return kScalarElements;
}

float RoundToOdd(double value) {
  const auto rounded = static_cast<float>(value);
  if (static_cast<double>(rounded) == value || value != value) return rounded;
  const uint32_t bits = BitsAs<uint32_t>(rounded);
  if (bits % 2 == 1) return rounded;
  // The odd neighbour on the other side of `value`.
  const bool is_beyond = std::abs(static_cast<double>(rounded)) > std::abs(value);
  return BitsAs<float>(is_beyond ? bits - 1 : bits + 1);
}

}  // namespace millpower::kernels
