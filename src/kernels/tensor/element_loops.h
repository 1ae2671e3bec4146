// The loops of the element kernels, compiled once for each instruction set: plain loops over
// straight-line arithmetic, which the compiler turns into vector code. That all sets compute the
// same is so by construction, since no operation may be reordered or contracted, and tested.
//
// The files of the sets are compiled for newer processors, so nothing of theirs may reach the
// linker under a name that other files also define (vector_kernels.h): hence everything is in an
// anonymous namespace, and of the standard library only types are used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels/tensor/element_math.h"
#include "kernels/tensor/elements.h"

namespace millpower::kernels {
namespace {

// ---- Terms ----

// Elements that a loop takes at a time, a vector of 32-bit ones. What is left over is computed in
// a copy of this size, so that it costs one more step, not one more loop of single elements.
constexpr int64_t kStep = 16;

template <typename T>
MP_ELEMENT const T* Elements(const std::byte* bytes) {
  return reinterpret_cast<const T*>(bytes);
}

// y[i] = Op::Of(a[i] ...). R is the result's type, As the arguments'.
template <class Op, typename R, typename... As>
struct Loop {
  // The loop alone; `count` is a multiple of kStep.
  MP_ELEMENT static void Whole(R* y, int64_t count, const As*... a) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) y[i] = Op::Of(a[i]...);
  }

  template <typename T>
  struct Rest {
    MP_ELEMENT Rest(const T* from, int64_t count) {
      __builtin_memcpy(values, from, static_cast<size_t>(count) * sizeof(T));
    }
    T values[kStep] = {};
  };

  MP_ELEMENT static void Do(R* y, int64_t count, const As*... a) {
    const int64_t whole = count / kStep * kStep;
    Whole(y, whole, a...);
    if (whole == count) return;
    R rest[kStep];
    Whole(rest, kStep, Rest<As>(a + whole, count - whole).values...);
    __builtin_memcpy(y + whole, rest, static_cast<size_t>(count - whole) * sizeof(R));
  }

  static void Run(const std::byte* const* arguments, std::byte* y, int64_t count) {
    auto* result = reinterpret_cast<R*>(y);
    if constexpr (sizeof...(As) == 1)
      Do(result, count, Elements<As>(arguments[0])...);
    else if constexpr (sizeof...(As) == 2)
      RunTwo<As...>(arguments, result, count);
    else
      RunThree<As...>(arguments, result, count);
  }

 private:
  template <typename A, typename B>
  MP_ELEMENT static void RunTwo(const std::byte* const* arguments, R* y, int64_t count) {
    Do(y, count, Elements<A>(arguments[0]), Elements<B>(arguments[1]));
  }
  template <typename A, typename B, typename C>
  MP_ELEMENT static void RunThree(const std::byte* const* arguments, R* y, int64_t count) {
    Do(y, count, Elements<A>(arguments[0]), Elements<B>(arguments[1]), Elements<C>(arguments[2]));
  }
};

using Bool = uint8_t;  // 0: false; any other: true
template <typename T>
constexpr bool kIsReal = std::is_floating_point_v<T>;
template <typename T>
constexpr bool kIsSigned = std::is_signed_v<T>;
// Unsigned integers wrap, those below 32 bits by the narrowing afterwards.
template <typename T>
using Wrapping = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

#define MP_UNARY(name, expression) \
  struct name {                    \
    template <typename T>          \
    MP_ELEMENT static T Of(T x) {  \
      return expression;           \
    }                              \
  }
#define MP_BINARY(name, expression)    \
  struct name {                        \
    template <typename T>              \
    MP_ELEMENT static T Of(T a, T b) { \
      return expression;               \
    }                                  \
  }
#define MP_PREDICATE(name, expression)    \
  struct name {                           \
    template <typename T>                 \
    MP_ELEMENT static Bool Of(T a, T b) { \
      return expression;                  \
    }                                     \
  }

template <class Op, typename T>
MP_ELEMENT T Wrapped(T a, T b) {
  if constexpr (kIsReal<T>)
    return Op::Apply(a, b);
  else
    return static_cast<T>(Op::Apply(static_cast<Wrapping<T>>(a), static_cast<Wrapping<T>>(b)));
}
struct Plus {
  template <typename T>
  MP_ELEMENT static T Apply(T a, T b) {
    return a + b;
  }
};
struct Minus {
  template <typename T>
  MP_ELEMENT static T Apply(T a, T b) {
    return a - b;
  }
};
struct Times {
  template <typename T>
  MP_ELEMENT static T Apply(T a, T b) {
    return a * b;
  }
};
template <typename T>
MP_ELEMENT bool IsNan(T x) {
  if constexpr (kIsReal<T>)
    return x != x;
  else
    return false;
}

MP_BINARY(Add, (Wrapped<Plus>(a, b)));
MP_BINARY(Sub, (Wrapped<Minus>(a, b)));
MP_BINARY(Mul, (Wrapped<Times>(a, b)));
MP_BINARY(RealDiv, a / b);
MP_BINARY(Maximum, ((a > b) | IsNan(a)) ? a : b);
MP_BINARY(Minimum, ((a < b) | IsNan(a)) ? a : b);
MP_PREDICATE(Equal, a == b);
MP_PREDICATE(NotEqual, a != b);
MP_PREDICATE(Less, a < b);
MP_PREDICATE(LessEqual, a <= b);
MP_PREDICATE(Greater, a > b);
MP_PREDICATE(GreaterEqual, a >= b);

struct Negate {
  template <typename T>
  MP_ELEMENT static T Of(T x) {
    if constexpr (kIsReal<T>)
      return -x;
    else
      return static_cast<T>(Wrapping<T>{0} - static_cast<Wrapping<T>>(x));
  }
};
struct Absolute {
  template <typename T>
  MP_ELEMENT static T Of(T x) {
    if constexpr (std::is_same_v<T, float>)
      return AbsOf(x);
    else if constexpr (std::is_same_v<T, double>)
      return __builtin_fabs(x);
    else
      return x < T{0} ? Negate::Of(x) : x;
  }
};
MP_UNARY(Sign, IsNan(x) ? x : static_cast<T>((x > T{0}) - (x < T{0})));
MP_UNARY(Relu, x < T{0} ? T{0} : x);
MP_UNARY(Reciprocal, T{1} / x);
struct Floor {
  MP_ELEMENT static float Of(float x) { return __builtin_floorf(x); }
  MP_ELEMENT static double Of(double x) { return __builtin_floor(x); }
};
struct Ceil {
  MP_ELEMENT static float Of(float x) { return __builtin_ceilf(x); }
  MP_ELEMENT static double Of(double x) { return __builtin_ceil(x); }
};
struct Trunc {
  MP_ELEMENT static float Of(float x) { return __builtin_truncf(x); }
  MP_ELEMENT static double Of(double x) { return __builtin_trunc(x); }
};
struct Round {
  MP_ELEMENT static float Of(float x) { return __builtin_nearbyintf(x); }
  MP_ELEMENT static double Of(double x) { return __builtin_nearbyint(x); }
};
struct Sqrt {
  MP_ELEMENT static float Of(float x) { return __builtin_sqrtf(x); }
  MP_ELEMENT static double Of(double x) { return __builtin_sqrt(x); }
};
MP_UNARY(Exponential, ElementExp(x));
MP_UNARY(Logarithm, ElementLog(x));
MP_UNARY(HyperbolicTangent, ElementTanh(x));
MP_UNARY(ErrorFunction, ElementErf(x));
MP_UNARY(Sigmoid, ElementSigmoid(x));
struct IsNanTerm {
  template <typename T>
  MP_ELEMENT static Bool Of(T x) {
    return x != x;
  }
};
struct IsInfinite {
  template <typename T>
  MP_ELEMENT static Bool Of(T x) {
    return Absolute::Of(x) == std::numeric_limits<T>::infinity();
  }
};
struct LogicalNot {
  MP_ELEMENT static Bool Of(Bool x) { return x == 0; }
};
struct LogicalAnd {
  MP_ELEMENT static Bool Of(Bool a, Bool b) { return (a != 0) & (b != 0); }
};
struct LogicalOr {
  MP_ELEMENT static Bool Of(Bool a, Bool b) { return (a | b) != 0; }
};
struct LogicalXor {
  MP_ELEMENT static Bool Of(Bool a, Bool b) { return (a != 0) ^ (b != 0); }
};
struct EqualBool {
  MP_ELEMENT static Bool Of(Bool a, Bool b) { return (a != 0) == (b != 0); }
};
struct Select {
  template <typename T>
  MP_ELEMENT static T Of(Bool condition, T yes, T no) {
    return condition != 0 ? yes : no;
  }
};

// Floats to integers: the value clamped to where the conversion is defined, then the ends put in.
template <typename To, typename From>
MP_ELEMENT To Saturated(From x) {
  constexpr auto kLowest = static_cast<From>(std::numeric_limits<To>::min());
  constexpr From kBeyond = static_cast<From>(std::numeric_limits<To>::max() / 2 + 1) * 2;
  From inside = x >= kLowest ? x : kLowest;  // a NaN is no more than anything
  inside = inside < kBeyond ? inside : kLowest;
  using Inner = std::conditional_t<sizeof(To) < 4, int32_t, To>;
  const To whole = static_cast<To>(static_cast<Inner>(inside));
  const To number = x >= kBeyond ? std::numeric_limits<To>::max() : whole;
  return x == x ? number : To{0};
}
template <typename To>
struct Cast {
  template <typename From>
  MP_ELEMENT static To Of(From x) {
    if constexpr (kIsReal<From> && !kIsReal<To>)
      return Saturated<To>(x);
    else
      return static_cast<To>(x);
  }
};
struct ToBool {
  template <typename From>
  MP_ELEMENT static Bool Of(From x) {
    return x != From{0};
  }
};
template <typename To>
struct FromBool {
  MP_ELEMENT static To Of(Bool x) { return static_cast<To>(x != 0); }
};

// Terms that every numeric type has, T's arguments and result being of one type.
template <typename T>
TermFunction FindPlain(MapOp op) {
  switch (op) {
    case MapOp::kNeg:
      return Loop<Negate, T, T>::Run;
    case MapOp::kAbs:
      return Loop<Absolute, T, T>::Run;
    case MapOp::kSign:
      return Loop<Sign, T, T>::Run;
    case MapOp::kRelu:
      return Loop<Relu, T, T>::Run;
    case MapOp::kAdd:
      return Loop<Add, T, T, T>::Run;
    case MapOp::kSub:
      return Loop<Sub, T, T, T>::Run;
    case MapOp::kMul:
      return Loop<Mul, T, T, T>::Run;
    case MapOp::kMin:
      return Loop<Minimum, T, T, T>::Run;
    case MapOp::kMax:
      return Loop<Maximum, T, T, T>::Run;
    case MapOp::kEqual:
      return Loop<Equal, Bool, T, T>::Run;
    case MapOp::kNotEqual:
      return Loop<NotEqual, Bool, T, T>::Run;
    case MapOp::kLess:
      return Loop<Less, Bool, T, T>::Run;
    case MapOp::kLessEqual:
      return Loop<LessEqual, Bool, T, T>::Run;
    case MapOp::kGreater:
      return Loop<Greater, Bool, T, T>::Run;
    case MapOp::kGreaterEqual:
      return Loop<GreaterEqual, Bool, T, T>::Run;
    case MapOp::kSelect:
      return Loop<Select, T, Bool, T, T>::Run;
    default:
      return nullptr;
  }
}

// What floats have besides, as one instruction each.
template <typename T>
TermFunction FindReal(MapOp op) {
  switch (op) {
    case MapOp::kDiv:
      return Loop<RealDiv, T, T, T>::Run;
    case MapOp::kReciprocal:
      return Loop<Reciprocal, T, T>::Run;
    case MapOp::kFloor:
      return Loop<Floor, T, T>::Run;
    case MapOp::kCeil:
      return Loop<Ceil, T, T>::Run;
    case MapOp::kTrunc:
      return Loop<Trunc, T, T>::Run;
    case MapOp::kRound:
      return Loop<Round, T, T>::Run;
    case MapOp::kSqrt:
      return Loop<Sqrt, T, T>::Run;
    case MapOp::kIsNan:
      return Loop<IsNanTerm, Bool, T>::Run;
    case MapOp::kIsInfinite:
      return Loop<IsInfinite, Bool, T>::Run;
    default:
      return nullptr;
  }
}

// The f32 functions of element_math.h.
[[maybe_unused]] TermFunction FindFunction(MapOp op) {
  switch (op) {
    case MapOp::kExp:
      return Loop<Exponential, float, float>::Run;
    case MapOp::kLog:
      return Loop<Logarithm, float, float>::Run;
    case MapOp::kTanh:
      return Loop<HyperbolicTangent, float, float>::Run;
    case MapOp::kErf:
      return Loop<ErrorFunction, float, float>::Run;
    case MapOp::kSigmoid:
      return Loop<Sigmoid, float, float>::Run;
    default:
      return nullptr;
  }
}

[[maybe_unused]] TermFunction FindBool(MapOp op) {
  switch (op) {
    case MapOp::kLogicalNot:
      return Loop<LogicalNot, Bool, Bool>::Run;
    case MapOp::kLogicalAnd:
      return Loop<LogicalAnd, Bool, Bool, Bool>::Run;
    case MapOp::kLogicalOr:
      return Loop<LogicalOr, Bool, Bool, Bool>::Run;
    case MapOp::kLogicalXor:
    case MapOp::kNotEqual:
      return Loop<LogicalXor, Bool, Bool, Bool>::Run;
    case MapOp::kEqual:
      return Loop<EqualBool, Bool, Bool, Bool>::Run;
    case MapOp::kSelect:
      return Loop<Select, Bool, Bool, Bool, Bool>::Run;
    default:
      return nullptr;
  }
}

// ---- Halves ----

#define MP_HALF(name, function, To, From)                   \
  struct name {                                             \
    MP_ELEMENT static To Of(From x) { return function(x); } \
  }
MP_HALF(WidenF16Op, WidenF16, float, uint16_t);
MP_HALF(WidenBf16Op, WidenBf16, float, uint16_t);
MP_HALF(NarrowF16Op, NarrowF16, uint16_t, float);
MP_HALF(NarrowBf16Op, NarrowBf16, uint16_t, float);
MP_UNARY(RoundF16Op, WidenF16(NarrowF16(x)));
MP_UNARY(RoundBf16Op, WidenBf16(NarrowBf16(x)));

template <class Op>
void Widen(const uint16_t* x, float* y, int64_t count) {
  Loop<Op, float, uint16_t>::Do(y, count, x);
}
template <class Op>
void Narrow(const float* x, uint16_t* y, int64_t count) {
  Loop<Op, uint16_t, float>::Do(y, count, x);
}

// ---- Reductions ----

// A kind has: Acc, what a lane holds; Start(); Take(acc, x); Join(acc, acc); Finish(acc, total).
template <typename T>
struct SumKind {
  using Result = T;
  using Acc = std::conditional_t<kIsReal<T>, double, uint64_t>;
  MP_ELEMENT static Acc Start() { return 0; }
  MP_ELEMENT static Acc Take(Acc acc, T x) { return acc + static_cast<Acc>(x); }
  MP_ELEMENT static Acc Join(Acc a, Acc b) { return a + b; }
  MP_ELEMENT static T Finish(Acc acc, int64_t) { return static_cast<T>(acc); }
};
template <typename T>
struct MeanKind : SumKind<T> {
  using Acc = typename SumKind<T>::Acc;
  MP_ELEMENT static T Finish(Acc acc, int64_t total) {
    using Quotient =
        std::conditional_t<kIsReal<T>, double, std::conditional_t<kIsSigned<T>, int64_t, uint64_t>>;
    if (!kIsReal<T> && total == 0) return 0;
    return static_cast<T>(static_cast<Quotient>(acc) / static_cast<Quotient>(total));
  }
};
template <typename T>
struct ProductKind : SumKind<T> {
  using Acc = typename SumKind<T>::Acc;
  MP_ELEMENT static Acc Start() { return 1; }
  MP_ELEMENT static Acc Take(Acc acc, T x) { return acc * static_cast<Acc>(x); }
  MP_ELEMENT static Acc Join(Acc a, Acc b) { return a * b; }
};
template <typename T>
struct MaxKind {
  using Result = T;
  using Acc = T;
  MP_ELEMENT static T Start() {
    constexpr T kLowest =
        kIsReal<T> ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::lowest();
    return kLowest;
  }
  MP_ELEMENT static T Take(T acc, T x) { return Maximum::Of(x, acc); }
  MP_ELEMENT static T Join(T a, T b) { return Maximum::Of(a, b); }
  MP_ELEMENT static T Finish(T acc, int64_t) { return acc; }
};
template <typename T>
struct MinKind : MaxKind<T> {
  MP_ELEMENT static T Start() {
    constexpr T kHighest =
        kIsReal<T> ? std::numeric_limits<T>::infinity() : std::numeric_limits<T>::max();
    return kHighest;
  }
  MP_ELEMENT static T Take(T acc, T x) { return Minimum::Of(x, acc); }
  MP_ELEMENT static T Join(T a, T b) { return Minimum::Of(a, b); }
};

// 16 lanes take 16 elements at a time; `count` is a multiple of 16.
template <class Kind, typename T>
struct LaneLoop {
  MP_ELEMENT static void Add(typename Kind::Acc* lanes, const T* x, int64_t count) {
    for (int64_t i = 0; i < count; i += kReductionLanes)
#pragma GCC unroll 16
      for (int64_t lane = 0; lane < kReductionLanes; ++lane)
        lanes[lane] = Kind::Take(lanes[lane], x[i + lane]);
  }
};
// Selections the compiler does not make vectors of by itself: two vectors of 8 lanes.
template <bool kLargest>
MP_ELEMENT void SelectLanes(float* lanes, const float* x, int64_t count) {
  typedef float Eight __attribute__((vector_size(32)));
  Eight held[2];
  __builtin_memcpy(held, lanes, sizeof held);
  for (int64_t i = 0; i < count; i += kReductionLanes)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      Eight next;
      __builtin_memcpy(&next, x + i + 8 * half, sizeof next);
      if constexpr (kLargest)
        held[half] = ((next > held[half]) | (next != next)) ? next : held[half];
      else
        held[half] = ((next < held[half]) | (next != next)) ? next : held[half];
    }
  __builtin_memcpy(lanes, held, sizeof held);
}
template <>
struct LaneLoop<MaxKind<float>, float> {
  MP_ELEMENT static void Add(float* lanes, const float* x, int64_t count) {
    SelectLanes<true>(lanes, x, count);
  }
};
template <>
struct LaneLoop<MinKind<float>, float> {
  MP_ELEMENT static void Add(float* lanes, const float* x, int64_t count) {
    SelectLanes<false>(lanes, x, count);
  }
};

template <class Kind, typename T>
struct Reducer {
  using Acc = typename Kind::Acc;
  using Result = typename Kind::Result;

  MP_ELEMENT static Acc* Accs(ReductionState& state) { return reinterpret_cast<Acc*>(state.bytes); }
  MP_ELEMENT static Acc* Lane(ReductionState& state, int64_t lane) {
    return Accs(state) + lane * kReductionCols;
  }

  MP_ELEMENT static void StartLanes(Acc* lanes) {
    for (int64_t lane = 0; lane < kReductionLanes; ++lane) lanes[lane] = Kind::Start();
  }
  // What is left over of 16 is filled up with the neutral element, which changes no lane.
  MP_ELEMENT static void AddLanes(Acc* lanes, const T* x, int64_t count) {
    const int64_t whole = count / kReductionLanes * kReductionLanes;
    LaneLoop<Kind, T>::Add(lanes, x, whole);
    if (whole == count) return;
    T rest[kReductionLanes];
    for (T& value : rest) value = static_cast<T>(Kind::Start());
    __builtin_memcpy(rest, x + whole, static_cast<size_t>(count - whole) * sizeof(T));
    LaneLoop<Kind, T>::Add(lanes, rest, kReductionLanes);
  }
  MP_ELEMENT static Result Total(Acc* lanes, int64_t total) {
#pragma GCC unroll 4
    for (int64_t h = kReductionLanes / 2; h >= 1; h /= 2)
#pragma GCC unroll 8
      for (int64_t lane = 0; lane < h; ++lane)
        lanes[lane] = Kind::Join(lanes[lane], lanes[lane + h]);
    return Kind::Finish(lanes[0], total);
  }
  // All of one list.
  MP_ELEMENT static Result Reduce(const T* x, int64_t n) {
    Acc lanes[kReductionLanes];
    StartLanes(lanes);
    AddLanes(lanes, x, n);
    return Total(lanes, n);
  }

  static void Lists(const std::byte* x, int64_t n, int64_t lists, int64_t x_stride, std::byte* y,
                    int64_t y_stride) {
    for (int64_t list = 0; list < lists; ++list)
      reinterpret_cast<Result*>(y)[list * y_stride] = Reduce(Elements<T>(x) + list * x_stride, n);
  }
  static void Start(ReductionState& state) { StartLanes(Accs(state)); }
  static void Add(ReductionState& state, const std::byte* x, int64_t count, int64_t) {
    Acc lanes[kReductionLanes];
    __builtin_memcpy(lanes, state.bytes, sizeof lanes);
    AddLanes(lanes, Elements<T>(x), count);
    __builtin_memcpy(state.bytes, lanes, sizeof lanes);
  }
  static void Finish(ReductionState& state, int64_t total, std::byte* y) {
    *reinterpret_cast<Result*>(y) = Total(Accs(state), total);
  }

  static void StartCols(ReductionState& state, int64_t cols) {
    for (int64_t lane = 0; lane < kReductionLanes; ++lane)
      for (int64_t c = 0; c < cols; ++c) Lane(state, lane)[c] = Kind::Start();
  }
  static void AddRows(ReductionState& state, const std::byte* bytes, int64_t cols, int64_t rows,
                      int64_t row_stride, int64_t first) {
    const T* x = Elements<T>(bytes);
    for (int64_t row = 0; row < rows; ++row, x += row_stride) {
      Acc* lane = Lane(state, (first + row) % kReductionLanes);
#pragma GCC ivdep
      for (int64_t c = 0; c < cols; ++c) lane[c] = Kind::Take(lane[c], x[c]);
    }
  }
  static void FinishCols(ReductionState& state, int64_t cols, int64_t total, std::byte* y) {
    // Lanes that nothing went to are neutral: joining them changes nothing.
    for (int64_t h = kReductionLanes / 2; h >= 1; h /= 2)
      for (int64_t lane = 0; lane < h && lane + h < total; ++lane) {
        Acc* a = Lane(state, lane);
        const Acc* b = Lane(state, lane + h);
#pragma GCC ivdep
        for (int64_t c = 0; c < cols; ++c) a[c] = Kind::Join(a[c], b[c]);
      }
    for (int64_t c = 0; c < cols; ++c)
      reinterpret_cast<Result*>(y)[c] = Kind::Finish(Accs(state)[c], total);
  }

  static constexpr ReductionFunctions kFunctions = {Lists,     Start,   Add,       Finish,
                                                    StartCols, AddRows, FinishCols};
};

template <typename T>
const ReductionFunctions* FindCommonReduction(Reduction kind) {
  switch (kind) {
    case Reduction::kSum:
      return &Reducer<SumKind<T>, T>::kFunctions;
    case Reduction::kMean:
      return &Reducer<MeanKind<T>, T>::kFunctions;
    case Reduction::kProduct:
      return &Reducer<ProductKind<T>, T>::kFunctions;
    case Reduction::kMax:
      return &Reducer<MaxKind<T>, T>::kFunctions;
    case Reduction::kMin:
      return &Reducer<MinKind<T>, T>::kFunctions;
    default:
      return nullptr;
  }
}

// ---- Rows ----

struct SquaredDistance {
  double from;
  MP_ELEMENT double Of(float x) const {
    const double d = static_cast<double>(x) - from;
    return d * d;
  }
};

// The sum of squared distances as Reducer<SumKind> sums.
MP_ELEMENT double SumOfSquares(const float* x, int64_t n, SquaredDistance distance) {
  double lanes[kReductionLanes] = {};
  int64_t i = 0;
  for (; i + kReductionLanes <= n; i += kReductionLanes)
#pragma GCC unroll 16
    for (int64_t lane = 0; lane < kReductionLanes; ++lane) lanes[lane] += distance.Of(x[i + lane]);
  for (int64_t lane = 0; i + lane < n; ++lane) lanes[lane] += distance.Of(x[i + lane]);
  using Sum = Reducer<SumKind<double>, double>;
  return Sum::Total(lanes, n);
}
MP_ELEMENT double SumOf(const float* x, int64_t n) {
  using Sum = Reducer<SumKind<float>, float>;
  double lanes[kReductionLanes];
  Sum::StartLanes(lanes);
  Sum::AddLanes(lanes, x, n);
  return Reducer<SumKind<double>, double>::Total(lanes, n);
}

// y[i] = map(x[i]), the rest as Loop does it.
template <class Map>
MP_ELEMENT void MapRow(const float* x, float* y, int64_t n, const Map& map) {
  const int64_t whole = n / kStep * kStep;
#pragma GCC ivdep
  for (int64_t i = 0; i < whole; ++i) y[i] = map(x[i]);
  if (whole == n) return;
  float rest[kStep] = {};
  __builtin_memcpy(rest, x + whole, static_cast<size_t>(n - whole) * sizeof(float));
  for (int64_t i = 0; i < kStep; ++i) rest[i] = map(rest[i]);
  __builtin_memcpy(y + whole, rest, static_cast<size_t>(n - whole) * sizeof(float));
}

void SoftmaxRow(const float* x, float* y, int64_t n) {
  const float max = Reducer<MaxKind<float>, float>::Reduce(x, n);
  MapRow(x, y, n, [max](float v) __attribute__((always_inline)) { return ElementExp(v - max); });
  const float inverse = 1.0f / static_cast<float>(SumOf(y, n));
  MapRow(y, y, n, [inverse](float v) __attribute__((always_inline)) { return v * inverse; });
}

void LogSoftmaxRow(const float* x, float* y, int64_t n) {
  constexpr int64_t kBlock = 256;
  const float max = Reducer<MaxKind<float>, float>::Reduce(x, n);
  // Blocks are whole lanes, so that partial sums go on where the last ended.
  using Sum = Reducer<SumKind<float>, float>;
  double lanes[kReductionLanes];
  Sum::StartLanes(lanes);
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t count = n - begin < kBlock ? n - begin : kBlock;
    float e[kBlock];
    MapRow(x + begin, e, count,
           [max](float v) __attribute__((always_inline)) { return ElementExp(v - max); });
    Sum::AddLanes(lanes, e, count);
  }
  const float log = ElementLog(Sum::Total(lanes, n));
  MapRow(x, y, n, [max, log](float v) __attribute__((always_inline)) { return (v - max) - log; });
}

void Softmax(const SoftmaxArgs& args, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* x = args.x + row * args.x_stride;
    float* y = args.y + row * args.y_stride;
    if (args.log)
      LogSoftmaxRow(x, y, args.n);
    else
      SoftmaxRow(x, y, args.n);
  }
}

void LayerNorm(const LayerNormArgs& args, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* x = args.x + row * args.x_stride;
    float* y = args.y + row * args.y_stride;
    const auto n = static_cast<double>(args.n);
    const double exact_mean = SumOf(x, args.n) / n;
    const double variance = SumOfSquares(x, args.n, SquaredDistance{exact_mean}) / n;
    const auto mean = static_cast<float>(exact_mean);
    const auto inverse = static_cast<float>(1.0 / __builtin_sqrt(variance + args.epsilon));
    MapRow(x, y, args.n,
           [=](float v) __attribute__((always_inline)) { return (v - mean) * inverse; });
    if (args.weight != nullptr) Loop<Mul, float, float, float>::Do(y, args.n, y, args.weight);
    if (args.bias != nullptr) Loop<Add, float, float, float>::Do(y, args.n, y, args.bias);
  }
}

// ---- The set ----

// The f32 (and a few integer) terms that models spend their time in.
template <typename T>
[[maybe_unused]] TermFunction FindHotCast(DType to) {
  switch (to) {
    case DType::kF32:
      return Loop<Cast<float>, float, T>::Run;
    case DType::kF64:
      return Loop<Cast<double>, double, T>::Run;
    case DType::kI32:
      return Loop<Cast<int32_t>, int32_t, T>::Run;
    case DType::kI64:
      return Loop<Cast<int64_t>, int64_t, T>::Run;
    case DType::kBool:
      return Loop<ToBool, Bool, T>::Run;
    default:
      return nullptr;
  }
}
[[maybe_unused]] TermFunction FindHotTerm(MapOp op, DType type, DType argument) {
  if (op == MapOp::kCast) {
    switch (argument) {
      case DType::kF32:
        return FindHotCast<float>(type);
      case DType::kI32:
        return FindHotCast<int32_t>(type);
      case DType::kI64:
        return FindHotCast<int64_t>(type);
      case DType::kBool:
        return type == DType::kF32 ? Loop<FromBool<float>, float, Bool>::Run : nullptr;
      default:
        return nullptr;
    }
  }
  switch (argument) {
    case DType::kF32:
      if (const TermFunction term = FindPlain<float>(op)) return term;
      if (const TermFunction term = FindReal<float>(op)) return term;
      return FindFunction(op);
    case DType::kI32:
      return FindPlain<int32_t>(op);
    case DType::kI64:
      return FindPlain<int64_t>(op);
    case DType::kBool:
      return FindBool(op);
    default:
      return nullptr;
  }
}
[[maybe_unused]] const ReductionFunctions* FindHotReduction(Reduction kind, DType type) {
  return type == DType::kF32 ? FindCommonReduction<float>(kind) : nullptr;
}

constexpr ElementKernels MakeElementKernels(const char* name,
                                            TermFunction (*find_term)(MapOp, DType, DType),
                                            const ReductionFunctions* (*find_reduction)(Reduction,
                                                                                        DType)) {
  return {.name = name,
          .find_term = find_term,
          .find_reduction = find_reduction,
          .softmax = Softmax,
          .layer_norm = LayerNorm,
          .widen_f16 = Widen<WidenF16Op>,
          .widen_bf16 = Widen<WidenBf16Op>,
          .narrow_f16 = Narrow<NarrowF16Op>,
          .narrow_bf16 = Narrow<NarrowBf16Op>,
          .round_f16 = Loop<RoundF16Op, float, float>::Run,
          .round_bf16 = Loop<RoundBf16Op, float, float>::Run};
}

}  // namespace
}  // namespace millpower::kernels
