#include "import/tensor/known.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "import/tensor/builder.h"

namespace millpower::import {
namespace {

template <typename T>
T ReadAt(std::span<const std::byte> bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at * sizeof value, sizeof value);
  return value;
}

// An integer as its type holds it: wrapped.
int64_t WrapTo(DType dtype, int64_t value) {
  switch (dtype) {
    case DType::kI8:
      return static_cast<int8_t>(value);
    case DType::kI16:
      return static_cast<int16_t>(value);
    case DType::kI32:
      return static_cast<int32_t>(value);
    case DType::kU8:
      return static_cast<uint8_t>(value);
    case DType::kU16:
      return static_cast<uint16_t>(value);
    case DType::kU32:
      return static_cast<uint32_t>(value);
    case DType::kBool:
      return value != 0;
    default:
      return value;
  }
}

std::optional<Size> FloorDivide(const Size& a, const Size& b, bool floor) {
  const auto x = a.Constant(), y = b.Constant();
  if (!x || !y) return a.DividedBy(b);
  if (*y == 0 || *y == -1) return *y == 0 ? Size(0) : Size(0).Minus(a);
  int64_t quotient = *x / *y;
  if (floor && *x % *y != 0 && (*x < 0) != (*y < 0)) --quotient;
  return quotient;
}

std::optional<Size> Modulo(const Size& a, const Size& b, bool floor) {
  if (b.Constant() && a.DividedBy(b)) return Size(0);
  const auto x = a.Constant(), y = b.Constant();
  if (!x || !y || *y == 0 || *y == -1) return std::nullopt;
  int64_t rest = *x % *y;
  if (floor && rest != 0 && (rest < 0) != (*y < 0)) rest += *y;
  return rest;
}

// -1, 0, 1: whether a is less than, equal to, or greater than b; absent when it depends.
std::optional<int> Compare(const Size& a, const Size& b) {
  if (a == b) return 0;
  const auto above = a.Minus(b), below = b.Minus(a);
  if (above && IsAtLeast(*above, 1)) return 1;
  if (below && IsAtLeast(*below, 1)) return -1;
  return std::nullopt;
}

std::optional<bool> CompareBy(MapOp op, int order) {
  switch (op) {
    case MapOp::kEqual:
      return order == 0;
    case MapOp::kNotEqual:
      return order != 0;
    case MapOp::kLess:
      return order < 0;
    case MapOp::kLessEqual:
      return order <= 0;
    case MapOp::kGreater:
      return order > 0;
    case MapOp::kGreaterEqual:
      return order >= 0;
    default:
      return std::nullopt;
  }
}

std::optional<Size> SizeBinary(MapOp op, const Size& a, const Size& b) {
  switch (op) {
    case MapOp::kAdd:
      return a.Plus(b);
    case MapOp::kSub:
      return a.Minus(b);
    case MapOp::kMul:
      return a.Times(b);
    case MapOp::kDiv:
      return FloorDivide(a, b, false);
    case MapOp::kFloorDiv:
      return FloorDivide(a, b, true);
    case MapOp::kMod:
      return Modulo(a, b, true);
    case MapOp::kFmod:
      return Modulo(a, b, false);
    case MapOp::kMin:
    case MapOp::kMax: {
      const auto order = Compare(a, b);
      if (!order) return std::nullopt;
      return (*order < 0) == (op == MapOp::kMin) ? a : b;
    }
    default:
      break;
  }
  const auto x = a.Constant(), y = b.Constant();
  if (!x || !y) return std::nullopt;
  switch (op) {
    case MapOp::kBitAnd:
    case MapOp::kLogicalAnd:
      return *x & *y;
    case MapOp::kBitOr:
    case MapOp::kLogicalOr:
      return *x | *y;
    case MapOp::kBitXor:
    case MapOp::kLogicalXor:
      return *x ^ *y;
    case MapOp::kPow: {
      std::optional<Size> power = Size(1);
      if (*y < 0 || *y > 63) return std::nullopt;
      for (int64_t i = 0; i < *y && power; ++i) power = power->Times(a);
      return power;
    }
    default:
      return std::nullopt;
  }
}

std::optional<Size> SizeUnary(MapOp op, const Size& a) {
  const auto x = a.Constant();
  switch (op) {
    case MapOp::kNeg:
      return Size(0).Minus(a);
    case MapOp::kAbs:
      if (IsAtLeast(a, 0)) return a;
      return x && *x < 0 ? Size(0).Minus(a) : std::nullopt;
    case MapOp::kSign:
      if (IsAtLeast(a, 1)) return Size(1);
      return x ? std::optional<Size>(*x < 0 ? -1 : 0) : std::nullopt;
    case MapOp::kRelu:
      if (IsAtLeast(a, 0)) return a;
      return x ? std::optional<Size>(0) : std::nullopt;
    case MapOp::kLogicalNot:
      return x ? std::optional<Size>(*x == 0) : std::nullopt;
    default:
      return std::nullopt;
  }
}

std::optional<double> RealUnary(MapOp op, double x) {
  switch (op) {
    case MapOp::kNeg:
      return -x;
    case MapOp::kAbs:
      return std::abs(x);
    case MapOp::kSign:
      return std::isnan(x) ? x : (x > 0) - (x < 0);
    case MapOp::kFloor:
      return std::floor(x);
    case MapOp::kCeil:
      return std::ceil(x);
    case MapOp::kRound:
      return std::nearbyint(x);
    case MapOp::kTrunc:
      return std::trunc(x);
    case MapOp::kSqrt:
      return std::sqrt(x);
    case MapOp::kReciprocal:
      return 1 / x;
    case MapOp::kExp:
      return std::exp(x);
    case MapOp::kLog:
      return std::log(x);
    case MapOp::kSin:
      return std::sin(x);
    case MapOp::kCos:
      return std::cos(x);
    case MapOp::kTanh:
      return std::tanh(x);
    case MapOp::kSigmoid:
      return 1 / (1 + std::exp(-x));
    case MapOp::kRelu:
      return x < 0 ? 0 : x;
    default:
      return std::nullopt;
  }
}

std::optional<double> RealBinary(MapOp op, double x, double y) {
  switch (op) {
    case MapOp::kAdd:
      return x + y;
    case MapOp::kSub:
      return x - y;
    case MapOp::kMul:
      return x * y;
    case MapOp::kDiv:
      return x / y;
    case MapOp::kFloorDiv:
      return std::floor(x / y);
    case MapOp::kPow:
      return std::pow(x, y);
    case MapOp::kMin:
      return std::isnan(x) || x < y ? x : y;
    case MapOp::kMax:
      return std::isnan(x) || x > y ? x : y;
    default:
      return std::nullopt;
  }
}

std::optional<Known> Cast(const Known& from, DType to) {
  if (const double* real = std::get_if<double>(&from)) {
    if (IsFloat(to)) return RoundTo(to, *real);
    return Size(ToInteger(to, *real));
  }
  const Size& size = std::get<Size>(from);
  const auto constant = size.Constant();
  if (IsFloat(to)) {
    if (!constant) return std::nullopt;
    return RoundTo(to, static_cast<double>(*constant));
  }
  if (constant) return Size(WrapTo(to, *constant));
  if (to == DType::kBool) return IsAtLeast(size, 1) ? std::optional<Known>(Size(1)) : std::nullopt;
  // A symbolic size is far from overflowing anything it is kept in.
  return to == DType::kI64 || to == DType::kI32 || to == DType::kU64 ? std::optional(from)
                                                                     : std::nullopt;
}

class Evaluator {
 public:
  Evaluator(std::span<const Known> operands, std::span<const int64_t> coordinates)
      : operands_(operands), coordinates_(coordinates) {}

  std::optional<Known> Run(const Expression& expression) {
    for (const Term& term : expression.terms) {
      std::optional<Known> value = One(term);
      if (!value) return std::nullopt;
      if (auto* real = std::get_if<double>(&*value)) {
        *real = RoundTo(term.type, *real);
      } else if (const auto constant = std::get<Size>(*value).Constant()) {
        value = Size(WrapTo(term.type, *constant));
      }
      values_.push_back(*std::move(value));
    }
    return values_.back();
  }

 private:
  const Known& Argument(const Term& term, int i) const {
    return values_[static_cast<size_t>(term.arguments[i])];
  }

  std::optional<Known> One(const Term& term) const {
    switch (term.op) {
      case MapOp::kLoad:
        return operands_[static_cast<size_t>(term.immediate)];
      case MapOp::kConstant:
        if (IsFloat(term.type)) return term.real();
        return Size(term.immediate);
      case MapOp::kIndex:
        return Size(coordinates_[static_cast<size_t>(term.immediate)]);
      case MapOp::kSize:
        return std::nullopt;
      case MapOp::kCast:
        return Cast(Argument(term, 0), term.type);
      case MapOp::kSelect: {
        const auto chosen = std::get<Size>(Argument(term, 0)).Constant();
        if (!chosen) return std::nullopt;
        return Argument(term, *chosen != 0 ? 1 : 2);
      }
      default:
        break;
    }
    const Known& a = Argument(term, 0);
    const bool is_real = std::holds_alternative<double>(a);
    if (Info(term.op).arity == 1) {
      if (is_real) return RealUnary(term.op, std::get<double>(a));
      return SizeUnary(term.op, std::get<Size>(a));
    }
    const Known& b = Argument(term, 1);
    if (term.op >= MapOp::kEqual && term.op <= MapOp::kGreaterEqual)
      return Comparison(term.op, a, b);
    if (is_real) return RealBinary(term.op, std::get<double>(a), std::get<double>(b));
    return SizeBinary(term.op, std::get<Size>(a), std::get<Size>(b));
  }

  static std::optional<Known> Comparison(MapOp op, const Known& a, const Known& b) {
    std::optional<bool> holds;
    if (const double* x = std::get_if<double>(&a)) {
      const double y = std::get<double>(b);
      if (std::isnan(*x) || std::isnan(y)) return Size(op == MapOp::kNotEqual);
      holds = CompareBy(op, (*x > y) - (*x < y));
    } else if (const auto order = Compare(std::get<Size>(a), std::get<Size>(b))) {
      holds = CompareBy(op, *order);
    }
    if (!holds) return std::nullopt;
    return Size(*holds);
  }

  std::span<const Known> operands_;
  std::span<const int64_t> coordinates_;
  std::vector<Known> values_;
};

template <typename T, typename V>
void Append(std::vector<std::byte>& bytes, V value) {
  const T element = static_cast<T>(value);
  const auto* begin = reinterpret_cast<const std::byte*>(&element);
  bytes.insert(bytes.end(), begin, begin + sizeof element);
}

}  // namespace

std::vector<double> RealsOf(DType dtype, std::span<const std::byte> bytes) {
  std::vector<double> values;
  for (size_t i = 0; i < bytes.size() / static_cast<size_t>(SizeBytes(dtype)); ++i) {
    switch (dtype) {
      case DType::kF32:
        values.push_back(ReadAt<float>(bytes, i));
        break;
      case DType::kF64:
        values.push_back(ReadAt<double>(bytes, i));
        break;
      case DType::kF16:
        values.push_back(F16ToF32(ReadAt<uint16_t>(bytes, i)));
        break;
      default:
        values.push_back(Bf16ToF32(ReadAt<uint16_t>(bytes, i)));
    }
  }
  return values;
}

std::vector<int64_t> IntegersOf(DType dtype, std::span<const std::byte> bytes) {
  std::vector<int64_t> values;
  for (size_t i = 0; i < bytes.size() / static_cast<size_t>(SizeBytes(dtype)); ++i) {
    switch (SizeBytes(dtype)) {
      case 1:
        values.push_back(WrapTo(dtype, ReadAt<int8_t>(bytes, i)));
        break;
      case 2:
        values.push_back(WrapTo(dtype, ReadAt<int16_t>(bytes, i)));
        break;
      case 4:
        values.push_back(WrapTo(dtype, ReadAt<int32_t>(bytes, i)));
        break;
      default:
        values.push_back(ReadAt<int64_t>(bytes, i));
    }
  }
  return values;
}

int64_t ToInteger(DType dtype, double value) {
  if (std::isnan(value)) return 0;
  if (dtype == DType::kBool) return value != 0;
  value = std::trunc(value);
  const int bits = SizeBytes(dtype) * 8;
  if (!IsSignedInteger(dtype)) {
    if (value <= 0) return 0;
    if (value >= std::ldexp(1.0, bits)) return static_cast<int64_t>(~uint64_t{0} >> (64 - bits));
    return static_cast<int64_t>(static_cast<uint64_t>(value));
  }
  const int64_t highest = std::numeric_limits<int64_t>::max() >> (64 - bits);
  const double top = std::ldexp(1.0, bits - 1);
  if (value >= top) return highest;
  if (value <= -top) return -highest - 1;
  return static_cast<int64_t>(value);
}

double RoundTo(DType dtype, double value) {
  switch (dtype) {
    case DType::kF32:
      return static_cast<float>(value);
    case DType::kF16:
      return F16ToF32(F32ToF16(static_cast<float>(value)));
    case DType::kBf16:
      return Bf16ToF32(F32ToBf16(static_cast<float>(value)));
    default:
      return value;
  }
}

bool IsAtLeast(const Size& size, int64_t least) {
  const auto at_ones = size.Evaluate([](const std::string&) { return 1; });
  return size.IsMonotone() && at_ones && *at_ones >= least;
}

std::optional<Known> Evaluate(const Expression& expression, std::span<const Known> operands,
                              std::span<const int64_t> coordinates) {
  return Evaluator(operands, coordinates).Run(expression);
}

std::vector<std::byte> ToBytes(DType dtype, std::span<const double> values) {
  std::vector<std::byte> bytes;
  for (const double value : values) {
    switch (dtype) {
      case DType::kF32:
        Append<float>(bytes, value);
        break;
      case DType::kF64:
        Append<double>(bytes, value);
        break;
      case DType::kF16:
        Append<uint16_t>(bytes, F32ToF16(static_cast<float>(value)));
        break;
      case DType::kBf16:
        Append<uint16_t>(bytes, F32ToBf16(static_cast<float>(value)));
        break;
      default: {
        const int64_t integer = ToInteger(dtype, value);
        const auto one = ToBytes(dtype, std::span(&integer, 1));
        bytes.insert(bytes.end(), one.begin(), one.end());
      }
    }
  }
  return bytes;
}

std::vector<std::byte> ToBytes(DType dtype, std::span<const int64_t> values) {
  std::vector<std::byte> bytes;
  for (const int64_t value : values) {
    CHECK(!IsFloat(dtype)) << Name(dtype);
    switch (SizeBytes(dtype)) {
      case 1:
        Append<int8_t>(bytes, value);
        break;
      case 2:
        Append<int16_t>(bytes, value);
        break;
      case 4:
        Append<int32_t>(bytes, value);
        break;
      default:
        Append<int64_t>(bytes, value);
    }
  }
  return bytes;
}

}  // namespace millpower::import
