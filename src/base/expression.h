// Element-wise expressions: what one element of a result is computed from, as a short list of typed
// terms. The graph's and the instruction set's `map` both hold one; docs/isa/map.md defines every
// term's arithmetic.
//
// A term may use the terms before it; the last term is the result. Operands are broadcast to the
// result's shape by numpy's rule before they are loaded.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"

namespace millpower {

// The table in expression.cc says of each: name, arity, which types it takes.
enum class MapOp : uint8_t {
  // Without arguments.
  kLoad,      // the element of operand `immediate`; type: the operand's
  kConstant,  // `immediate`: the bits of an f64 for floats (of NaNs 0x7ff8000000000000 only), of an
              // i64 in the type's range for integers and bool
  kIndex,     // i64: this element's coordinate along axis `immediate` of the result
  kSize,      // i64: entry `immediate` of the instruction's sizes (symbolic sizes as numbers)
  // One argument.
  kCast,  // to `type`: floats to integers truncate (out of range: saturate, NaN: 0); integers wrap;
          // to bool: != 0
  kNeg,
  kAbs,
  kSign,  // -1, 0, 1; NaN stays
  kFloor,
  kCeil,
  kRound,  // half to even
  kTrunc,
  kSqrt,
  kReciprocal,
  kExp,
  kLog,
  kSin,
  kCos,
  kTan,
  kAsin,
  kAcos,
  kAtan,
  kSinh,
  kCosh,
  kTanh,
  kAsinh,
  kAcosh,
  kAtanh,
  kErf,
  kSigmoid,
  kRelu,        // max(x, 0); NaN stays
  kSoftplus,    // log(1 + exp(x)), without overflow
  kLogicalNot,  // of bool
  kBitNot,
  kIsNan,       // bool
  kIsInfinite,  // bool
  kMix,         // integers: a fixed 64-bit mixing function (splitmix64's finaliser), for hashing
  // Two arguments of the term's type.
  kAdd,
  kSub,
  kMul,
  kDiv,       // integers: towards zero; by zero: 0
  kFloorDiv,  // towards minus infinity; integers by zero: 0
  kMod,       // result has the divisor's sign (Python's %); integers by zero: 0
  kFmod,      // result has the dividend's sign (C's); integers by zero: 0
  kPow,
  kMin,  // a NaN wins
  kMax,  // a NaN wins
  kAtan2,
  kBitAnd,
  kBitOr,
  kBitXor,
  kShiftLeft,   // by the type's width or more: 0
  kShiftRight,  // of unsigned types fills with zeros, of signed with the sign
  // Two arguments of one type, result bool.
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  // Two bools.
  kLogicalAnd,
  kLogicalOr,
  kLogicalXor,
  // Three arguments: a bool, then two of the term's type.
  kSelect,  // first ? second : third
};
inline constexpr int kMapOpCount = static_cast<int>(MapOp::kSelect) + 1;

struct MapOpInfo {
  MapOp op;
  const char* name;  // "add"
  int arity;
};
const MapOpInfo& Info(MapOp op);
std::optional<MapOp> MapOpFromName(std::string_view name);

struct Term {
  MapOp op = MapOp::kLoad;
  DType type = DType::kF32;             // of the result
  int16_t arguments[3] = {-1, -1, -1};  // earlier terms; -1 beyond the arity
  int64_t immediate = 0;                // of terms without arguments; else 0
  bool operator==(const Term&) const = default;

  double real() const { return std::bit_cast<double>(immediate); }
};

inline constexpr int kMaxMapOperands = 8;
inline constexpr int kMaxTerms = 64;

struct Expression {
  std::vector<Term> terms;
  bool operator==(const Expression&) const = default;

  // Appends a term and returns its number.
  int16_t Load(int operand, DType type);
  int16_t Constant(DType type, double value);   // floats
  int16_t Constant(DType type, int64_t value);  // integers, bool
  int16_t Index(int axis);
  int16_t Size(int entry);
  int16_t Apply(MapOp op, DType type, std::initializer_list<int16_t> arguments);

  DType type() const { return terms.back().type; }

  // As lists of integers, two a term, the form in which graphs and Programs keep them.
  std::vector<int64_t> Encode() const;
  // Checks form and types: terms, arguments, operators and immediates exist and fit; operands have
  // the given types (absent ones are not loaded); axes are below `rank`, sizes below `sizes`.
  // Errors: kCorrupt, naming the term.
  static Result<Expression> Decode(std::span<const int64_t> code, std::span<const DType> operands,
                                   int rank, int sizes);

  // One word, e.g. "t0=x0:f32;t1=const:f32(2);t2=mul:f32(t0,t1)".
  std::string ToString() const;
  static Result<Expression> Parse(std::string_view text);  // form only; Decode checks
};

}  // namespace millpower
