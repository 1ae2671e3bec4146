#include "base/expression.h"

#include <array>
#include <charconv>
#include <cmath>

#include "base/check.h"

namespace millpower {
namespace {

constexpr std::array<MapOpInfo, kMapOpCount> kTable = {{
    {MapOp::kLoad, "x", 0},
    {MapOp::kConstant, "const", 0},
    {MapOp::kIndex, "index", 0},
    {MapOp::kSize, "size", 0},
    {MapOp::kCast, "cast", 1},
    {MapOp::kNeg, "neg", 1},
    {MapOp::kAbs, "abs", 1},
    {MapOp::kSign, "sign", 1},
    {MapOp::kFloor, "floor", 1},
    {MapOp::kCeil, "ceil", 1},
    {MapOp::kRound, "round", 1},
    {MapOp::kTrunc, "trunc", 1},
    {MapOp::kSqrt, "sqrt", 1},
    {MapOp::kReciprocal, "reciprocal", 1},
    {MapOp::kExp, "exp", 1},
    {MapOp::kLog, "log", 1},
    {MapOp::kSin, "sin", 1},
    {MapOp::kCos, "cos", 1},
    {MapOp::kTan, "tan", 1},
    {MapOp::kAsin, "asin", 1},
    {MapOp::kAcos, "acos", 1},
    {MapOp::kAtan, "atan", 1},
    {MapOp::kSinh, "sinh", 1},
    {MapOp::kCosh, "cosh", 1},
    {MapOp::kTanh, "tanh", 1},
    {MapOp::kAsinh, "asinh", 1},
    {MapOp::kAcosh, "acosh", 1},
    {MapOp::kAtanh, "atanh", 1},
    {MapOp::kErf, "erf", 1},
    {MapOp::kSigmoid, "sigmoid", 1},
    {MapOp::kRelu, "relu", 1},
    {MapOp::kSoftplus, "softplus", 1},
    {MapOp::kLogicalNot, "not", 1},
    {MapOp::kBitNot, "bit_not", 1},
    {MapOp::kIsNan, "is_nan", 1},
    {MapOp::kIsInfinite, "is_infinite", 1},
    {MapOp::kMix, "mix", 1},
    {MapOp::kAdd, "add", 2},
    {MapOp::kSub, "sub", 2},
    {MapOp::kMul, "mul", 2},
    {MapOp::kDiv, "div", 2},
    {MapOp::kFloorDiv, "floor_div", 2},
    {MapOp::kMod, "mod", 2},
    {MapOp::kFmod, "fmod", 2},
    {MapOp::kPow, "pow", 2},
    {MapOp::kMin, "min", 2},
    {MapOp::kMax, "max", 2},
    {MapOp::kAtan2, "atan2", 2},
    {MapOp::kBitAnd, "bit_and", 2},
    {MapOp::kBitOr, "bit_or", 2},
    {MapOp::kBitXor, "bit_xor", 2},
    {MapOp::kShiftLeft, "shift_left", 2},
    {MapOp::kShiftRight, "shift_right", 2},
    {MapOp::kEqual, "equal", 2},
    {MapOp::kNotEqual, "not_equal", 2},
    {MapOp::kLess, "less", 2},
    {MapOp::kLessEqual, "less_equal", 2},
    {MapOp::kGreater, "greater", 2},
    {MapOp::kGreaterEqual, "greater_equal", 2},
    {MapOp::kLogicalAnd, "and", 2},
    {MapOp::kLogicalOr, "or", 2},
    {MapOp::kLogicalXor, "xor", 2},
    {MapOp::kSelect, "select", 3},
}};

static_assert([] {
  for (size_t i = 0; i < kTable.size(); ++i)
    if (static_cast<size_t>(kTable[i].op) != i) return false;
  return true;
}());

std::unexpected<Error> Corrupt(size_t term, const std::string& message) {
  return Fail(ErrorCode::kCorrupt, "term " + std::to_string(term) + " " + message);
}

bool IsBetween(MapOp op, MapOp first, MapOp last) { return op >= first && op <= last; }

// Whether `op` can give a result of `type` (comparisons: take arguments of it).
bool TakesType(MapOp op, DType type) {
  if (!IsElementType(type)) return false;
  switch (op) {
    case MapOp::kFloor:
    case MapOp::kCeil:
    case MapOp::kRound:
    case MapOp::kTrunc:
    case MapOp::kSqrt:
    case MapOp::kReciprocal:
    case MapOp::kAtan2:
    case MapOp::kIsNan:
    case MapOp::kIsInfinite:
    case MapOp::kSigmoid:
    case MapOp::kSoftplus:
      return IsFloat(type);
    case MapOp::kBitNot:
    case MapOp::kMix:
    case MapOp::kBitAnd:
    case MapOp::kBitOr:
    case MapOp::kBitXor:
    case MapOp::kShiftLeft:
    case MapOp::kShiftRight:
      return IsInteger(type);
    case MapOp::kEqual:
    case MapOp::kNotEqual:
    case MapOp::kCast:
    case MapOp::kLoad:
    case MapOp::kConstant:
    case MapOp::kSelect:
      return true;
    case MapOp::kIndex:
    case MapOp::kSize:
      return type == DType::kI64;
    case MapOp::kLogicalNot:
    case MapOp::kLogicalAnd:
    case MapOp::kLogicalOr:
    case MapOp::kLogicalXor:
      return type == DType::kBool;
    default:
      if (IsBetween(op, MapOp::kExp, MapOp::kErf)) return IsFloat(type);
      return type != DType::kBool;
  }
}

bool IsComparison(MapOp op) { return IsBetween(op, MapOp::kEqual, MapOp::kGreaterEqual); }
bool IsPredicate(MapOp op) { return op == MapOp::kIsNan || op == MapOp::kIsInfinite; }

// Types of a term and of its arguments fit.
bool FitsTypes(const Term& term, std::span<const Term> before) {
  const auto argument = [&](int i) { return before[static_cast<size_t>(term.arguments[i])].type; };
  const int arity = Info(term.op).arity;
  if (term.op == MapOp::kCast) return IsElementType(term.type);
  if (IsComparison(term.op) || IsPredicate(term.op))
    return term.type == DType::kBool && TakesType(term.op, argument(0)) &&
           (arity == 1 || argument(0) == argument(1));
  if (!TakesType(term.op, term.type)) return false;
  if (term.op == MapOp::kSelect)
    return argument(0) == DType::kBool && argument(1) == term.type && argument(2) == term.type;
  for (int i = 0; i < arity; ++i)
    if (argument(i) != term.type) return false;
  return true;
}

// Texts know one NaN.
constexpr int64_t kNanBits = 0x7ff8'0000'0000'0000;

// Whether `value`, of a constant of `type`, is one that it can have.
bool IsValueOf(DType type, int64_t value) {
  if (IsFloat(type)) return !std::isnan(std::bit_cast<double>(value)) || value == kNanBits;
  if (!IsElementType(type)) return true;  // which FitsTypes refuses
  if (type == DType::kBool) return value == 0 || value == 1;
  const int bits = 8 * SizeBytes(type);
  if (bits == 64) return true;  // a u64 as the i64 of its bits
  if (IsUnsignedInteger(type)) return value >= 0 && value < int64_t{1} << bits;
  const int64_t limit = int64_t{1} << (bits - 1);
  return value >= -limit && value < limit;
}

Result<void> CheckImmediate(size_t at, const Term& term, std::span<const DType> operands, int rank,
                            int sizes) {
  const int64_t value = term.immediate;
  switch (term.op) {
    case MapOp::kLoad:
      if (value < 0 || static_cast<size_t>(value) >= operands.size())
        return Corrupt(at, "loads an operand that is not there");
      if (operands[static_cast<size_t>(value)] != term.type)
        return Corrupt(at, "loads an operand of another type");
      return {};
    case MapOp::kIndex:
      if (value < 0 || value >= rank) return Corrupt(at, "names an axis that is not there");
      return {};
    case MapOp::kSize:
      if (value < 0 || value >= sizes) return Corrupt(at, "names a size that is not there");
      return {};
    case MapOp::kConstant:
      if (!IsValueOf(term.type, value)) return Corrupt(at, "is a constant that its type has not");
      return {};
    default:
      return value == 0 ? Result<void>() : Corrupt(at, "has an immediate that means nothing");
  }
}

int64_t Pack(const Term& term) {
  const auto half = [](int16_t value) {
    return static_cast<uint64_t>(static_cast<uint16_t>(value));
  };
  return static_cast<int64_t>(static_cast<uint64_t>(term.op) |
                              static_cast<uint64_t>(term.type) << 8 |
                              half(term.arguments[0]) << 16 | half(term.arguments[1]) << 32 |
                              half(term.arguments[2]) << 48);
}

std::string PrintReal(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

// Cuts `text` up to `end`, which is skipped; all of it when it has none.
std::string_view Cut(std::string_view& text, char end) {
  const size_t at = text.find(end);
  const std::string_view front = text.substr(0, at);
  text.remove_prefix(at == std::string_view::npos ? text.size() : at + 1);
  return front;
}

template <typename T>
bool ParseNumber(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

// "x0:f32", "const:f32(2)", "mul:f32(t0,t1)"
std::optional<Term> ParseTerm(std::string_view text) {
  Term term;
  const std::string_view name = Cut(text, ':');
  const std::string_view type = text.substr(0, text.find('('));
  const auto dtype = DTypeFromName(type);
  if (!dtype) return std::nullopt;
  term.type = *dtype;
  std::string_view list = text.substr(type.size());
  if (!list.empty()) {
    if (list.size() < 2 || list.front() != '(' || list.back() != ')') return std::nullopt;
    list = list.substr(1, list.size() - 2);
  }
  if (name.size() > 1 && name[0] == 'x' && ParseNumber(name.substr(1), term.immediate)) {
    term.op = MapOp::kLoad;
    return list.empty() ? std::optional(term) : std::nullopt;
  }
  const auto op = MapOpFromName(name);
  if (!op || *op == MapOp::kLoad) return std::nullopt;
  term.op = *op;
  const int arity = Info(*op).arity;
  if (arity == 0) {
    if (*op == MapOp::kConstant && IsFloat(term.type)) {
      double value = 0;
      if (!ParseNumber(list, value)) return std::nullopt;
      term.immediate = std::isnan(value) ? kNanBits : std::bit_cast<int64_t>(value);
      return term;
    }
    return ParseNumber(list, term.immediate) ? std::optional(term) : std::nullopt;
  }
  for (int i = 0; i < arity; ++i) {
    const std::string_view argument = Cut(list, ',');
    if (argument.size() < 2 || argument[0] != 't' ||
        !ParseNumber(argument.substr(1), term.arguments[i]))
      return std::nullopt;
  }
  return list.empty() ? std::optional(term) : std::nullopt;
}

}  // namespace

const MapOpInfo& Info(MapOp op) { return kTable[static_cast<size_t>(op)]; }

std::optional<MapOp> MapOpFromName(std::string_view name) {
  for (const MapOpInfo& info : kTable)
    if (name == info.name) return info.op;
  return std::nullopt;
}

int16_t Expression::Load(int operand, DType type) {
  terms.push_back({.op = MapOp::kLoad, .type = type, .immediate = operand});
  return static_cast<int16_t>(terms.size() - 1);
}

int16_t Expression::Constant(DType type, double value) {
  CHECK(IsFloat(type)) << Name(type);
  terms.push_back({.op = MapOp::kConstant,
                   .type = type,
                   .immediate = std::isnan(value) ? kNanBits : std::bit_cast<int64_t>(value)});
  return static_cast<int16_t>(terms.size() - 1);
}

int16_t Expression::Constant(DType type, int64_t value) {
  CHECK(!IsFloat(type)) << Name(type);
  terms.push_back({.op = MapOp::kConstant, .type = type, .immediate = value});
  return static_cast<int16_t>(terms.size() - 1);
}

int16_t Expression::Index(int axis) {
  terms.push_back({.op = MapOp::kIndex, .type = DType::kI64, .immediate = axis});
  return static_cast<int16_t>(terms.size() - 1);
}

int16_t Expression::Size(int entry) {
  terms.push_back({.op = MapOp::kSize, .type = DType::kI64, .immediate = entry});
  return static_cast<int16_t>(terms.size() - 1);
}

int16_t Expression::Apply(MapOp op, DType type, std::initializer_list<int16_t> arguments) {
  CHECK(static_cast<int>(arguments.size()) == Info(op).arity) << Info(op).name;
  Term term{.op = op, .type = type};
  int i = 0;
  for (const int16_t argument : arguments) term.arguments[i++] = argument;
  terms.push_back(term);
  return static_cast<int16_t>(terms.size() - 1);
}

std::vector<int64_t> Expression::Encode() const {
  std::vector<int64_t> code;
  code.reserve(2 * terms.size());
  for (const Term& term : terms) {
    code.push_back(Pack(term));
    code.push_back(term.immediate);
  }
  return code;
}

Result<Expression> Expression::Decode(std::span<const int64_t> code,
                                      std::span<const DType> operands, int rank, int sizes) {
  if (code.empty() || code.size() % 2 != 0 || code.size() / 2 > kMaxTerms)
    return Fail(ErrorCode::kCorrupt, "an expression is not 1 to 64 terms");
  Expression expression;
  for (size_t at = 0; at < code.size() / 2; ++at) {
    const auto word = static_cast<uint64_t>(code[2 * at]);
    const auto op = static_cast<uint8_t>(word);
    const auto type = static_cast<uint8_t>(word >> 8);
    if (op >= kMapOpCount) return Corrupt(at, "has an operator that does not exist");
    if (type >= kDTypeCount) return Corrupt(at, "has a type that does not exist");
    Term term{.op = static_cast<MapOp>(op), .type = static_cast<DType>(type)};
    for (int i = 0; i < 3; ++i) {
      const auto argument = static_cast<int16_t>(word >> (16 + 16 * i));
      term.arguments[i] = argument;
      if (i >= Info(term.op).arity ? argument != -1
                                   : argument < 0 || argument >= static_cast<int>(at))
        return Corrupt(at, "has an argument that is not an earlier term");
    }
    term.immediate = code[2 * at + 1];
    TRY(CheckImmediate(at, term, operands, rank, sizes));
    if (!FitsTypes(term, expression.terms))
      return Corrupt(at, std::string("(") + Info(term.op).name + ") does not fit its types");
    expression.terms.push_back(term);
  }
  return expression;
}

std::string Expression::ToString() const {
  std::string text;
  for (size_t at = 0; at < terms.size(); ++at) {
    const Term& term = terms[at];
    text += (at == 0 ? "t" : ";t") + std::to_string(at) + '=' + Info(term.op).name;
    if (term.op == MapOp::kLoad) text += std::to_string(term.immediate);
    text += std::string(":") + Name(term.type);
    if (term.op == MapOp::kLoad) continue;
    text += '(';
    if (term.op == MapOp::kConstant && IsFloat(term.type)) {
      text += PrintReal(term.real());
    } else if (Info(term.op).arity == 0) {
      text += std::to_string(term.immediate);
    }
    for (int i = 0; i < Info(term.op).arity; ++i)
      text += (i == 0 ? "t" : ",t") + std::to_string(term.arguments[i]);
    text += ')';
  }
  return text;
}

Result<Expression> Expression::Parse(std::string_view text) {
  Expression expression;
  while (!text.empty() && expression.terms.size() <= kMaxTerms) {
    const std::string_view whole = Cut(text, ';');
    std::string_view rest = whole;
    const std::string_view label = Cut(rest, '=');
    const auto term = ParseTerm(rest);
    if (!term || label != "t" + std::to_string(expression.terms.size()))
      return Fail(ErrorCode::kInvalidArgument, "'" + std::string(whole) + "' is not a term");
    expression.terms.push_back(*term);
  }
  return expression;
}

}  // namespace millpower
