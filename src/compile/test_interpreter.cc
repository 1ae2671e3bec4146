#include "compile/test_interpreter.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "base/blocks.h"
#include "base/check.h"
#include "base/expression.h"
#include "base/rng.h"
#include "base/tensor_ops.h"
#include "isa/layout.h"
#include "isa/verify.h"

namespace millpower::compile {
namespace {

using List = std::vector<int64_t>;

int64_t Product(const List& sizes) {
  int64_t product = 1;
  for (const int64_t size : sizes) product *= size;
  return product;
}

double RoundReal(DType type, double value) {
  switch (type) {
    case DType::kF32:
      return static_cast<double>(static_cast<float>(value));
    case DType::kF16:
      return static_cast<double>(F16ToF32(F32ToF16(static_cast<float>(value))));
    case DType::kBf16:
      return static_cast<double>(Bf16ToF32(F32ToBf16(static_cast<float>(value))));
    default:
      return value;
  }
}

int64_t Wrap(DType type, int64_t value) {
  switch (type) {
    case DType::kI32:
      return static_cast<int32_t>(value);
    case DType::kI16:
      return static_cast<int16_t>(value);
    case DType::kI8:
      return static_cast<int8_t>(value);
    case DType::kU32:
      return static_cast<uint32_t>(value);
    case DType::kU16:
      return static_cast<uint16_t>(value);
    case DType::kU8:
      return static_cast<uint8_t>(value);
    case DType::kBool:
      return value != 0;
    default:
      return value;
  }
}

// Coordinates of element `i` of `shape`, and back.
List Coordinates(int64_t i, const List& shape) {
  List at(shape.size());
  for (size_t d = shape.size(); d-- > 0;) {
    at[d] = i % shape[d];
    i /= shape[d];
  }
  return at;
}
int64_t Offset(const List& at, const List& shape) {
  int64_t offset = 0;
  for (size_t d = 0; d < shape.size(); ++d) {
    CHECK(at[d] >= 0 && at[d] < shape[d]) << "axis " << d << ": " << at[d] << " of " << shape[d];
    offset = offset * shape[d] + at[d];
  }
  return offset;
}
// The element of `shape` that broadcasts to coordinates `at`.
int64_t Broadcast(const List& at, const List& shape) {
  List here(shape.size());
  for (size_t d = 0; d < shape.size(); ++d)
    here[d] = shape[d] == 1 ? 0 : at[at.size() - shape.size() + d];
  return Offset(here, shape);
}

// ---- expressions ----

struct Scalar {
  double real = 0;
  int64_t integer = 0;
};

double RealOf(MapOp op, double a, double b) {
  switch (op) {
    case MapOp::kNeg:
      return -a;
    case MapOp::kAbs:
      return std::abs(a);
    case MapOp::kSign:
      return std::isnan(a) ? a : static_cast<double>((a > 0) - (a < 0));
    case MapOp::kFloor:
      return std::floor(a);
    case MapOp::kCeil:
      return std::ceil(a);
    case MapOp::kRound:
      return std::nearbyint(a);
    case MapOp::kTrunc:
      return std::trunc(a);
    case MapOp::kSqrt:
      return std::sqrt(a);
    case MapOp::kReciprocal:
      return 1 / a;
    case MapOp::kExp:
      return std::exp(a);
    case MapOp::kLog:
      return std::log(a);
    case MapOp::kSin:
      return std::sin(a);
    case MapOp::kCos:
      return std::cos(a);
    case MapOp::kTanh:
      return std::tanh(a);
    case MapOp::kErf:
      return std::erf(a);
    case MapOp::kSigmoid:
      return 1 / (1 + std::exp(-a));
    case MapOp::kRelu:
      return std::isnan(a) ? a : std::max(a, 0.0);
    case MapOp::kSoftplus:
      return std::max(a, 0.0) + std::log1p(std::exp(-std::abs(a)));
    case MapOp::kAdd:
      return a + b;
    case MapOp::kSub:
      return a - b;
    case MapOp::kMul:
      return a * b;
    case MapOp::kDiv:
      return a / b;
    case MapOp::kFloorDiv:
      return std::floor(a / b);
    case MapOp::kFmod:
      return std::fmod(a, b);
    case MapOp::kPow:
      return std::pow(a, b);
    case MapOp::kMin:
      return std::isnan(a) || std::isnan(b) ? a + b : std::min(a, b);
    case MapOp::kMax:
      return std::isnan(a) || std::isnan(b) ? a + b : std::max(a, b);
    default:
      CHECK(false) << "the interpreter does not know " << Info(op).name << " of reals";
      return 0;
  }
}

int64_t IntegerOf(MapOp op, int64_t a, int64_t b) {
  switch (op) {
    case MapOp::kNeg:
      return -a;
    case MapOp::kAbs:
      return std::abs(a);
    case MapOp::kSign:
      return (a > 0) - (a < 0);
    case MapOp::kRelu:
      return std::max<int64_t>(a, 0);
    case MapOp::kAdd:
      return a + b;
    case MapOp::kSub:
      return a - b;
    case MapOp::kMul:
      return a * b;
    case MapOp::kDiv:
      return b == 0 ? 0 : a / b;
    case MapOp::kFloorDiv:
      return b == 0 ? 0 : a / b - (a % b != 0 && (a < 0) != (b < 0));
    case MapOp::kMod:
      return b == 0 ? 0 : ((a % b) + b) % b;
    case MapOp::kFmod:
      return b == 0 ? 0 : a % b;
    case MapOp::kMin:
      return std::min(a, b);
    case MapOp::kMax:
      return std::max(a, b);
    case MapOp::kBitAnd:
    case MapOp::kLogicalAnd:
      return a & b;
    case MapOp::kBitOr:
    case MapOp::kLogicalOr:
      return a | b;
    case MapOp::kBitXor:
    case MapOp::kLogicalXor:
      return a ^ b;
    case MapOp::kLogicalNot:
      return a == 0;
    default:
      CHECK(false) << "the interpreter does not know " << Info(op).name << " of integers";
      return 0;
  }
}

template <typename T>
bool Compare(MapOp op, T a, T b) {
  switch (op) {
    case MapOp::kEqual:
      return a == b;
    case MapOp::kNotEqual:
      return a != b;
    case MapOp::kLess:
      return a < b;
    case MapOp::kLessEqual:
      return a <= b;
    case MapOp::kGreater:
      return a > b;
    default:
      return a >= b;
  }
}

Scalar Cast(const Scalar& x, DType from, DType to) {
  if (IsFloat(to))
    return {RoundReal(to, IsFloat(from) ? x.real : static_cast<double>(x.integer)), 0};
  if (to == DType::kBool) return {0, IsFloat(from) ? x.real != 0 : x.integer != 0};
  return {0, Wrap(to, IsFloat(from) ? static_cast<int64_t>(x.real) : x.integer)};
}

Scalar Apply(const Term& term, const std::vector<Term>& terms, const std::vector<Scalar>& done) {
  auto argument = [&](int i) { return done[static_cast<size_t>(term.arguments[i])]; };
  auto type = [&](int i) { return terms[static_cast<size_t>(term.arguments[i])].type; };
  if (term.op == MapOp::kConstant)
    return IsFloat(term.type) ? Scalar{RoundReal(term.type, term.real()), 0}
                              : Scalar{0, term.immediate};
  if (term.op == MapOp::kCast) return Cast(argument(0), type(0), term.type);
  if (term.op == MapOp::kSelect) return argument(0).integer != 0 ? argument(1) : argument(2);
  if (term.op == MapOp::kIsNan) return {0, std::isnan(argument(0).real)};
  if (term.op >= MapOp::kEqual && term.op <= MapOp::kGreaterEqual)
    return {0, IsFloat(type(0)) ? Compare(term.op, argument(0).real, argument(1).real)
                                : Compare(term.op, argument(0).integer, argument(1).integer)};
  const Scalar a = argument(0), b = Info(term.op).arity > 1 ? argument(1) : Scalar{};
  if (IsFloat(term.type)) return {RoundReal(term.type, RealOf(term.op, a.real, b.real)), 0};
  return {0, Wrap(term.type, IntegerOf(term.op, a.integer, b.integer))};
}

// ---- operators ----

// An operator's use, of a graph or a Program: attributes by name, sizes as numbers.
struct Call {
  std::string op;
  std::map<std::string, int64_t> integers = {};
  std::map<std::string, double> reals = {};
  std::map<std::string, List> lists = {};
  std::vector<const Array*> in = {};  // null: absent
  std::optional<Error> fault = {};

  int64_t integer(const std::string& name) const { return integers.at(name); }
  const List& list(const std::string& name) const { return lists.at(name); }
  const Array& x(size_t i) const { return *in[i]; }
  bool has(size_t i) const { return i < in.size() && in[i] != nullptr; }

  // An index by its policy; absent: none of the table.
  std::optional<int64_t> Index(int64_t index, int64_t size) {
    const auto policy = static_cast<IndexPolicy>(integer("policy"));
    if (policy == IndexPolicy::kWrap && index < 0) index += size;
    if (index >= 0 && index < size) return index;
    if (policy == IndexPolicy::kClamp) return index < 0 ? 0 : size - 1;
    if (policy == IndexPolicy::kDefault) {
      const int64_t row = integer("default_row");
      return row < 0 ? std::nullopt : std::optional(row);
    }
    fault = Error{ErrorCode::kInvalidArgument, op + ": index " + std::to_string(index), {}};
    return 0;
  }
};

void Map(Call& call, Array& y) {
  std::vector<DType> types;
  for (const Array* x : call.in) types.push_back(x->dtype);
  const auto expression =
      Expression::Decode(call.list("code"), types, static_cast<int>(y.shape.size()),
                         static_cast<int>(call.list("sizes").size()));
  CHECK(expression) << expression.error().message;
  for (int64_t i = 0; i < y.count(); ++i) {
    const List at = Coordinates(i, y.shape);
    std::vector<Scalar> done;
    for (const Term& term : expression->terms) {
      Scalar value;
      if (term.op == MapOp::kLoad) {
        const Array& x = call.x(static_cast<size_t>(term.immediate));
        const int64_t from = Broadcast(at, x.shape);
        value = IsFloat(x.dtype) ? Scalar{x.real(from), 0} : Scalar{0, x.integer(from)};
      } else if (term.op == MapOp::kIndex) {
        value.integer = at[static_cast<size_t>(term.immediate)];
      } else if (term.op == MapOp::kSize) {
        value.integer = call.list("sizes")[static_cast<size_t>(term.immediate)];
      } else {
        value = Apply(term, expression->terms, done);
      }
      done.push_back(value);
    }
    if (IsFloat(y.dtype))
      y.Set(i, done.back().real);
    else
      y.SetInteger(i, done.back().integer);
  }
}

void Reduce(Call& call, Array& y) {
  const Array& x = call.x(0);
  const auto kind = static_cast<Reduction>(call.integer("kind"));
  std::vector<std::vector<int64_t>> groups(static_cast<size_t>(y.count()));
  for (int64_t i = 0; i < x.count(); ++i) {
    List at = Coordinates(i, x.shape);
    for (const int64_t axis : call.list("axes")) at[static_cast<size_t>(axis)] = 0;
    groups[static_cast<size_t>(Offset(at, y.shape))].push_back(i);
  }
  for (size_t g = 0; g < groups.size(); ++g) {
    const auto& group = groups[g];
    double real = x.real(group[0]);
    int64_t integer = IsFloat(x.dtype) ? 0 : x.integer(group[0]), best = 0;
    for (size_t i = 1; i < group.size(); ++i) {
      const double value = x.real(group[i]);
      const int64_t whole = IsFloat(x.dtype) ? 0 : x.integer(group[i]);
      const double before = x.real(group[static_cast<size_t>(best)]);
      switch (kind) {
        case Reduction::kSum:
        case Reduction::kMean:
          real += value;
          integer += whole;
          break;
        case Reduction::kProduct:
          real *= value;
          integer *= whole;
          break;
        case Reduction::kMax:
          real = std::max(real, value);
          integer = std::max(integer, whole);
          break;
        case Reduction::kMin:
          real = std::min(real, value);
          integer = std::min(integer, whole);
          break;
        case Reduction::kAny:
          integer |= whole;
          break;
        case Reduction::kAll:
          integer &= whole;
          break;
        case Reduction::kArgMax:
          if (value > before) best = static_cast<int64_t>(i);
          break;
        case Reduction::kArgMin:
          if (value < before) best = static_cast<int64_t>(i);
          break;
        case Reduction::kLastArgMax:
          if (value >= before) best = static_cast<int64_t>(i);
          break;
        case Reduction::kLastArgMin:
          if (value <= before) best = static_cast<int64_t>(i);
          break;
      }
    }
    const auto at = static_cast<int64_t>(g);
    if (kind == Reduction::kMean) {
      real /= static_cast<double>(group.size());
      integer /= std::ssize(group);
    }
    if (kind >= Reduction::kArgMax && kind <= Reduction::kLastArgMin)
      y.SetInteger(at, best);
    else if (IsFloat(y.dtype))
      y.Set(at, real);
    else
      y.SetInteger(at, integer);
  }
}

// y[at + gap * i] = x[begin + step * i], axes permuted.
void CopyWindow(Call& call, Array& y) {
  const List& window = call.list("window");
  const List& perm = call.list("perm");
  for (int64_t i = 0; i < Product(window); ++i) {
    const List place = Coordinates(i, window);
    List from(place.size()), to(place.size());
    for (size_t d = 0; d < place.size(); ++d) {
      const auto axis = static_cast<size_t>(perm[d]);
      from[axis] = call.list("begin")[axis] + call.list("step")[axis] * place[d];
      to[d] = call.list("at")[d] + call.list("gap")[d] * place[d];
    }
    y.Copy(Offset(to, y.shape), call.x(0), Offset(from, call.x(0).shape));
  }
}

void Transpose(Call& call, Array& y) {
  for (int64_t i = 0; i < y.count(); ++i) {
    const List at = Coordinates(i, y.shape);
    List from(at.size());
    for (size_t d = 0; d < at.size(); ++d) from[static_cast<size_t>(call.list("perm")[d])] = at[d];
    y.Copy(i, call.x(0), Offset(from, call.x(0).shape));
  }
}

void Slice(Call& call, Array& y) {
  for (int64_t i = 0; i < y.count(); ++i) {
    List at = Coordinates(i, y.shape);
    for (size_t d = 0; d < at.size(); ++d)
      at[d] = call.list("begin")[d] + call.list("step")[d] * at[d];
    y.Copy(i, call.x(0), Offset(at, call.x(0).shape));
  }
}

void Expand(Call& call, Array& y) {
  for (int64_t i = 0; i < y.count(); ++i)
    y.Copy(i, call.x(0), Broadcast(Coordinates(i, y.shape), call.x(0).shape));
}

void JoinParts(Call& call, Array& y) {
  const auto axis = static_cast<size_t>(call.integer("axis"));
  int64_t begin = 0;
  for (const Array* x : call.in) {
    for (int64_t i = 0; i < x->count(); ++i) {
      List at = Coordinates(i, x->shape);
      at[axis] += begin;
      y.Copy(Offset(at, y.shape), *x, i);
    }
    begin += x->shape[axis];
  }
}

void Pad(Call& call, Array& y) {
  const double value = call.reals.at("value");
  for (int64_t i = 0; i < y.count(); ++i)
    IsFloat(y.dtype) ? y.Set(i, value) : y.SetInteger(i, static_cast<int64_t>(value));
  for (int64_t i = 0; i < call.x(0).count(); ++i) {
    List at = Coordinates(i, call.x(0).shape);
    for (size_t d = 0; d < at.size(); ++d)
      at[d] = call.list("before")[d] + at[d] * (call.list("interior")[d] + 1);
    y.Copy(Offset(at, y.shape), call.x(0), i);
  }
}

// The leading coordinates of a matrix stack, then row and column, which may be swapped.
int64_t MatrixPlace(List at, int64_t row, int64_t col, bool transposed, const List& shape) {
  at.resize(at.size() - 2);
  at.push_back(transposed ? col : row);
  at.push_back(transposed ? row : col);
  return Broadcast(at, shape);
}

void Contract(Call& call, Array& y) {
  const Array &a = call.x(0), &b = call.x(1);
  const bool ta = call.integer("transpose_a") == 1, tb = call.integer("transpose_b") == 1;
  const int64_t k = a.shape[a.shape.size() - (ta ? 2 : 1)];
  for (int64_t i = 0; i < y.count(); ++i) {
    const List at = Coordinates(i, y.shape);
    const int64_t m = at[at.size() - 2], n = at.back();
    double real = 0;
    int64_t integer = 0;
    for (int64_t j = 0; j < k; ++j) {
      const int64_t p = MatrixPlace(at, m, j, ta, a.shape), q = MatrixPlace(at, j, n, tb, b.shape);
      if (IsFloat(y.dtype))
        real += a.real(p) * b.real(q);
      else
        integer += a.integer(p) * b.integer(q);
    }
    IsFloat(y.dtype) ? y.Set(i, real) : y.SetInteger(i, integer);
  }
}

// Calls visit(place in x, place in the kernel) for what a window at `out` covers of x; `channel` is
// x's.
template <typename Visit>
void ForWindow(const Call& call, const List& x, const List& kernel, const List& out,
               int64_t channel, Visit visit) {
  for (int64_t j = 0; j < Product(kernel); ++j) {
    const List offset = Coordinates(j, kernel);
    List at = {out[0], channel};
    bool inside = true, padded = true;
    for (size_t d = 0; d < kernel.size(); ++d) {
      at.push_back(out[d + 2] * call.list("strides")[d] - call.list("pads_begin")[d] +
                   offset[d] * call.list("dilations")[d]);
      inside = inside && at.back() >= 0 && at.back() < x[d + 2];
      padded = padded && at.back() < x[d + 2] + call.list("pads_end")[d];
    }
    visit(inside ? Offset(at, x) : -1, j, padded);
  }
}

void Conv(Call& call, Array& y) {
  const Array &x = call.x(0), &w = call.x(1);
  const List kernel(w.shape.begin() + 2, w.shape.end());
  const int64_t depth = w.shape[1], per_group = w.shape[0] / call.integer("groups");
  for (int64_t i = 0; i < y.count(); ++i) {
    const List out = Coordinates(i, y.shape);
    double sum = call.has(2) ? call.x(2).real(out[1]) : 0;
    for (int64_t c = 0; c < depth; ++c)
      ForWindow(call, x.shape, kernel, out, out[1] / per_group * depth + c,
                [&](int64_t from, int64_t j, bool) {
                  if (from < 0) return;
                  sum += x.real(from) * w.real((out[1] * depth + c) * Product(kernel) + j);
                });
    y.Set(i, sum);
  }
}

void Pool(Call& call, Array& y) {
  const Array& x = call.x(0);
  const auto kind = static_cast<Pooling>(call.integer("kind"));
  for (int64_t i = 0; i < y.count(); ++i) {
    const List out = Coordinates(i, y.shape);
    int64_t best = -1, count = 0;
    double sum = 0;
    ForWindow(call, x.shape, call.list("kernel"), out, out[1],
              [&](int64_t from, int64_t, bool padded) {
                if (from >= 0 || (padded && call.integer("count_padding") == 1)) ++count;
                if (from < 0) return;
                sum += x.real(from);
                if (best < 0 || x.real(from) > x.real(best)) best = from;
              });
    if (kind == Pooling::kArgMax)
      y.SetInteger(i, best);
    else
      y.Set(i, kind == Pooling::kMax   ? x.real(best)
               : kind == Pooling::kSum ? sum
                                       : sum / static_cast<double>(count));
  }
}

void Take(Call& call, Array& y) {
  const Array &x = call.x(0), &index = call.x(1);
  const auto axis = static_cast<size_t>(call.integer("axis"));
  const size_t rank = index.shape.size();
  for (int64_t i = 0; i < y.count(); ++i) {
    const List at = Coordinates(i, y.shape);
    const auto begin = at.begin() + static_cast<std::ptrdiff_t>(axis);
    const List which(begin, begin + static_cast<std::ptrdiff_t>(rank));
    List from(at.begin(), begin);
    from.push_back(*call.Index(index.integer(Offset(which, index.shape)), x.shape[axis]));
    from.insert(from.end(), begin + static_cast<std::ptrdiff_t>(rank), at.end());
    y.Copy(i, x, Offset(from, x.shape));
  }
}

void TakeAlong(Call& call, Array& y) {
  const auto axis = static_cast<size_t>(call.integer("axis"));
  for (int64_t i = 0; i < y.count(); ++i) {
    List at = Coordinates(i, y.shape);
    at[axis] = *call.Index(call.x(1).integer(i), call.x(0).shape[axis]);
    y.Copy(i, call.x(0), Offset(at, call.x(0).shape));
  }
}

void GatherNd(Call& call, Array& y) {
  const Array &x = call.x(0), &index = call.x(1);
  const auto batch = static_cast<size_t>(call.integer("batch_dims"));
  const int64_t depth = index.shape.back();
  for (int64_t i = 0; i < y.count(); ++i) {
    const List at = Coordinates(i, y.shape);
    List which(at.begin(), at.begin() + std::ssize(index.shape) - 1);
    which.push_back(0);
    List from(at.begin(), at.begin() + static_cast<std::ptrdiff_t>(batch));
    for (int64_t d = 0; d < depth; ++d) {
      which.back() = d;
      from.push_back(*call.Index(index.integer(Offset(which, index.shape)), x.shape[from.size()]));
    }
    from.insert(from.end(), at.begin() + std::ssize(index.shape) - 1, at.end());
    y.Copy(i, x, Offset(from, x.shape));
  }
}

void Update(Array& y, int64_t at, const Array& updates, int64_t i, Scattering how) {
  const bool real = IsFloat(y.dtype);
  const double a = y.real(at), b = updates.real(i);
  const int64_t p = real ? 0 : y.integer(at), q = real ? 0 : updates.integer(i);
  switch (how) {
    case Scattering::kSet:
      return y.Copy(at, updates, i);
    case Scattering::kAdd:
      return real ? y.Set(at, a + b) : y.SetInteger(at, p + q);
    case Scattering::kMul:
      return real ? y.Set(at, a * b) : y.SetInteger(at, p * q);
    case Scattering::kMax:
      return real ? y.Set(at, std::max(a, b)) : y.SetInteger(at, std::max(p, q));
    case Scattering::kMin:
      return real ? y.Set(at, std::min(a, b)) : y.SetInteger(at, std::min(p, q));
  }
}

// y holds x; in[0] is the index, in[1] the updates.
void Scatter(Call& call, Array& y) {
  const Array &index = call.x(0), &updates = call.x(1);
  const auto how = static_cast<Scattering>(call.integer("reduction"));
  const bool elements = static_cast<ScatterMode>(call.integer("mode")) == ScatterMode::kElements;
  for (int64_t i = 0; i < updates.count(); ++i) {
    List at = Coordinates(i, updates.shape);
    if (elements) {
      const auto axis = static_cast<size_t>(call.integer("axis"));
      at[axis] = *call.Index(index.integer(i), y.shape[axis]);
    } else {
      List which(at.begin(), at.begin() + std::ssize(index.shape) - 1), to;
      which.push_back(0);
      for (int64_t d = 0; d < index.shape.back(); ++d) {
        which.back() = d;
        to.push_back(*call.Index(index.integer(Offset(which, index.shape)), y.shape[to.size()]));
      }
      to.insert(to.end(), at.begin() + std::ssize(index.shape) - 1, at.end());
      at = to;
    }
    Update(y, Offset(at, y.shape), updates, i, how);
  }
}

void EmbeddingBag(Call& call, Array& y) {
  const Array &table = call.x(0), &index = call.x(1);
  const int64_t dim = table.shape[1], bags = y.count() / dim;
  const auto mode = static_cast<Bag>(call.integer("mode"));
  for (int64_t bag = 0; bag < bags; ++bag) {
    int64_t begin = bag * index.shape.back(), end = begin + index.shape.back();
    if (call.has(2)) {
      begin = call.x(2).integer(bag);
      end = bag + 1 < call.x(2).count() ? call.x(2).integer(bag + 1) : index.count();
    }
    std::vector<double> sum(static_cast<size_t>(dim), 0);
    int64_t count = 0;
    for (int64_t item = begin; item < end; ++item) {
      if (index.integer(item) == call.integer("padding_row") && index.integer(item) >= 0) continue;
      const auto row = call.Index(index.integer(item), table.shape[0]);
      for (int64_t c = 0; c < dim; ++c) {
        double value = row ? table.real(*row * dim + c) : 0;
        if (call.has(3)) value *= call.x(3).real(item);
        double& total = sum[static_cast<size_t>(c)];
        total = mode == Bag::kMax && count > 0 ? std::max(total, value)
                : mode == Bag::kMax            ? value
                                               : total + value;
      }
      ++count;
    }
    for (int64_t c = 0; c < dim; ++c) {
      const double total = sum[static_cast<size_t>(c)];
      y.Set(bag * dim + c,
            mode == Bag::kMean && count > 0 ? total / static_cast<double>(count) : total);
    }
  }
}

void Softmax(Call& call, Array& y) {
  const int64_t n = y.shape.back();
  const Array x = call.x(0);
  for (int64_t row = 0; row < y.count(); row += n) {
    double max = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t i = 0; i < n; ++i) max = std::max(max, x.real(row + i));
    for (int64_t i = 0; i < n; ++i) sum += std::exp(x.real(row + i) - max);
    for (int64_t i = 0; i < n; ++i) {
      const double value = x.real(row + i) - max;
      y.Set(row + i, call.integer("log") == 1 ? value - std::log(sum) : std::exp(value) / sum);
    }
  }
}

void LayerNorm(Call& call, Array& y) {
  const int64_t n = y.shape.back();
  const Array x = call.x(0);
  for (int64_t row = 0; row < y.count(); row += n) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < n; ++i) mean += x.real(row + i) / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i)
      variance += std::pow(x.real(row + i) - mean, 2) / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) {
      double value = (x.real(row + i) - mean) / std::sqrt(variance + call.reals.at("epsilon"));
      if (call.has(1)) value *= call.x(1).real(i);
      if (call.has(2)) value += call.x(2).real(i);
      y.Set(row + i, value);
    }
  }
}

void TopK(Call& call, Array& y) {
  const Array& x = call.x(0);
  const int64_t n = x.shape.back(), k = y.shape.back();
  for (int64_t row = 0; row < x.count() / n; ++row) {
    std::vector<int64_t> order;
    for (int64_t i = 0; i < n; ++i) order.push_back(i);
    std::ranges::stable_sort(order, [&](int64_t a, int64_t b) {
      const double p = x.real(row * n + a), q = x.real(row * n + b);
      return call.integer("largest") == 1 ? p > q : p < q;
    });
    for (int64_t i = 0; i < k; ++i) y.SetInteger(row * k + i, order[static_cast<size_t>(i)]);
  }
}

void Cumulate(Call& call, Array& y) {
  const Array& x = call.x(0);
  const auto axis = static_cast<size_t>(call.integer("axis"));
  const bool product = static_cast<Reduction>(call.integer("kind")) == Reduction::kProduct;
  for (int64_t i = 0; i < y.count(); ++i) {
    const List at = Coordinates(i, y.shape);
    double real = product ? 1 : 0;
    int64_t integer = product ? 1 : 0;
    for (int64_t j = 0; j < x.shape[axis]; ++j) {
      const int64_t distance = call.integer("reverse") == 1 ? j - at[axis] : at[axis] - j;
      if (distance < call.integer("exclusive")) continue;
      List from = at;
      from[axis] = j;
      const int64_t place = Offset(from, x.shape);
      if (IsFloat(x.dtype))
        real = product ? real * x.real(place) : real + x.real(place);
      else
        integer = product ? integer * x.integer(place) : integer + x.integer(place);
    }
    IsFloat(y.dtype) ? y.Set(i, real) : y.SetInteger(i, integer);
  }
}

// x [rows, k], w as values [n, k], bias, residual -> y [rows, n].
void MatMul(Call& call, Array& y) {
  const Array &x = call.x(0), &w = call.x(1);
  const int64_t n = w.shape[0], k = w.shape[1];
  const auto epilogue = static_cast<isa::Epilogue>(call.integer("epilogue"));
  for (int64_t i = 0; i < y.count(); ++i) {
    double sum = call.has(2) ? call.x(2).real(i % n) : 0;
    for (int64_t j = 0; j < k; ++j) sum += x.real(i / n * k + j) * w.real(i % n * k + j);
    if (epilogue == isa::Epilogue::kAdd) sum += call.x(3).real(i);
    y.Set(i, epilogue == isa::Epilogue::kRelu ? std::max(sum, 0.0) : sum);
  }
}

void Reshape(Call& call, Array& y) {
  for (int64_t i = 0; i < y.count(); ++i) y.Copy(i, call.x(0), i);
}

Result<void> Run(Call& call, Array& y) {
  static const std::map<std::string, void (*)(Call&, Array&)> kOperators = {
      {"map", Map},
      {"reduce", Reduce},
      {"reshape", Reshape},
      {"transpose", Transpose},
      {"strided_slice", Slice},
      {"expand", Expand},
      {"join", JoinParts},
      {"pad", Pad},
      {"contract", Contract},
      {"conv", Conv},
      {"pool", Pool},
      {"take", Take},
      {"take_along", TakeAlong},
      {"gather_nd", GatherNd},
      {"scatter", Scatter},
      {"embedding_bag", EmbeddingBag},
      {"softmax", Softmax},
      {"layer_norm", LayerNorm},
      {"top_k", TopK},
      {"cumulate", Cumulate},
      {"copy", CopyWindow},
      {"matmul", MatMul},
  };
  const auto found = kOperators.find(call.op);
  CHECK(found != kOperators.end()) << "the interpreter does not know " << call.op;
  found->second(call, y);
  if (call.fault) return std::unexpected(*call.fault);
  return {};
}

std::optional<int64_t> ValueOf(const Values& symbols, const std::string& name) {
  const auto found = symbols.find(name);
  return found == symbols.end() ? std::nullopt : std::optional(found->second);
}

int64_t Evaluate(const Size& size, const Values& symbols) {
  const auto value = size.Evaluate([&](const std::string& name) { return ValueOf(symbols, name); });
  CHECK(value) << size.ToString();
  return *value;
}

List Evaluate(const ir::Shape& shape, const Values& symbols) {
  List sizes;
  for (const ir::Dim& dim : shape) sizes.push_back(Evaluate(ir::SizeOf(dim), symbols));
  return sizes;
}

Result<Array> WeightOf(const ir::Value& value, const ir::WeightSource& weights) {
  const List shape = Evaluate(value.shape, {});
  if (!value.literal.empty()) return Array::FromBytes(value.dtype, shape, value.literal);
  if (!value.values.empty())
    return Array::FromBytes(value.dtype, shape, std::as_bytes(std::span(value.values)));
  TRY_ASSIGN(const ir::TensorView view, weights.Find(value.name));
  return Array::FromBytes(value.dtype, shape, view.bytes);
}

// Buffers of a Program in memory, and instructions over them.
class Machine {
 public:
  Machine(const isa::Program& program, const isa::BoundWeights& weights, Values registers,
          const Arrays& inputs)
      : program_(program), registers_(std::move(registers)), memory_(program.buffers.size()) {
    for (const isa::Register& reg : program.registers)
      if (!reg.formula.empty())
        registers_[reg.name] = Evaluate(*Size::Parse(reg.formula), registers_);
    for (size_t i = 0; i < memory_.size(); ++i) {
      const isa::Buffer& buffer = program.buffers[i];
      if (buffer.kind == isa::BufferKind::kWeight) {
        memory_[i].assign(weights.by_buffer[i].begin(), weights.by_buffer[i].end());
        continue;
      }
      if (buffer.kind == isa::BufferKind::kInput) memory_[i] = inputs.at(buffer.name).Bytes();
      // Whatever is read before it is written spoils the result.
      memory_[i].resize(static_cast<size_t>(isa::BufferBytes(buffer, Of(buffer.rows))),
                        std::byte{0x7f});
    }
  }

  Result<void> Run(const isa::Instruction& instruction) {
    const isa::OpInfo& info = isa::Info(instruction.op);
    Call call{.op = info.name};
    for (size_t i = 0; i < info.attributes.size(); ++i) {
      const int64_t value = instruction.attributes[i];
      const std::string name = info.attributes[i].name;
      switch (info.attributes[i].type) {
        case isa::AttributeType::kReal:
          call.reals[name] = std::bit_cast<double>(value);
          break;
        case isa::AttributeType::kList:
        case isa::AttributeType::kCode:
          call.lists[name] = program_.lists[static_cast<size_t>(value)];
          break;
        case isa::AttributeType::kSizes:
          for (const isa::Dim& dim : program_.shapes[static_cast<size_t>(value)])
            call.lists[name].push_back(Of(dim));
          call.lists[name];  // empty ones, too
          break;
        default:
          call.integers[name] = value;
      }
    }
    std::vector<Array> operands(info.operands.size());
    for (size_t i = 0; i < info.operands.size(); ++i)
      if (instruction.operands[i].present()) operands[i] = Read(instruction.operands[i]);
    const size_t y = info.operands.size() - 1;
    for (size_t i = 0; i < y; ++i)
      if (instruction.operands[i].present() || instruction.op != isa::Opcode::kMap)
        call.in.push_back(instruction.operands[i].present() ? &operands[i] : nullptr);
    Array result = operands[y];
    TRY(compile::Run(call, result));
    Write(instruction.operands[y], result);
    return {};
  }

  Array Whole(int32_t buffer) const {
    return Read({buffer, 0, program_.buffers[static_cast<size_t>(buffer)].cols});
  }

 private:
  int64_t Of(const isa::Dim& dim) const {
    if (dim.reg < 0) return dim.size;
    return registers_.at(program_.registers[static_cast<size_t>(dim.reg)].name);
  }

  Array Read(const isa::Operand& operand) const {
    const isa::Buffer& buffer = program_.buffer(operand);
    const auto& bytes = memory_[static_cast<size_t>(operand.buffer)];
    const int64_t rows = Of(buffer.rows);
    if (buffer.form == isa::Form::kPacked) return Unpack(buffer, bytes);
    if (buffer.form == isa::Form::kTable) return ReadTable(buffer, bytes);
    CHECK(buffer.form == isa::Form::kRows) << buffer.name;
    if (operand.shape >= 0) {
      List shape;
      for (const isa::Dim& dim : program_.shapes[static_cast<size_t>(operand.shape)])
        shape.push_back(Of(dim));
      CHECK(Product(shape) == rows * buffer.cols) << buffer.name;
      return Array::FromBytes(buffer.dtype, shape, bytes);
    }
    const Array all = Array::FromBytes(buffer.dtype, {rows, buffer.cols}, bytes);
    Array part = Array::Zeros(buffer.dtype, {rows, operand.cols});
    for (int64_t i = 0; i < part.count(); ++i)
      part.Copy(i, all, i / operand.cols * buffer.cols + operand.begin + i % operand.cols);
    return part;
  }

  void Write(const isa::Operand& operand, const Array& value) {
    const isa::Buffer& buffer = program_.buffer(operand);
    auto& bytes = memory_[static_cast<size_t>(operand.buffer)];
    if (operand.shape >= 0) {
      bytes = value.Bytes();
      return;
    }
    Array all = Array::FromBytes(buffer.dtype, {Of(buffer.rows), buffer.cols}, bytes);
    for (int64_t i = 0; i < value.count(); ++i)
      all.Copy(i / operand.cols * buffer.cols + operand.begin + i % operand.cols, value, i);
    bytes = all.Bytes();
  }

  static Array Unpack(const isa::Buffer& buffer, std::span<const std::byte> bytes) {
    Array all = Array::Zeros(DType::kF32, {buffer.rows.size, buffer.cols});
    CHECK(!IsBlockType(buffer.dtype)) << buffer.name;
    for (int64_t i = 0; i < all.count(); ++i) {
      const std::byte* at = bytes.data() + isa::PackedOffset(i / buffer.cols, i % buffer.cols,
                                                             buffer.cols, buffer.dtype);
      float value = 0;
      Dequantise(buffer.dtype, at, 1, &value);
      all.Set(i, static_cast<double>(value));
    }
    return all;
  }

  static Array ReadTable(const isa::Buffer& buffer, std::span<const std::byte> bytes) {
    Array all = Array::Zeros(DType::kF32, {buffer.rows.size, buffer.cols});
    const int64_t row_bytes = isa::TableRowBytes(buffer.cols, buffer.dtype);
    for (int64_t i = 0; i < all.count(); ++i) {
      const std::byte* row = bytes.data() + i / buffer.cols * row_bytes;
      const int64_t c = i % buffer.cols;
      float value = 0;
      std::memcpy(&value, row, sizeof value);  // the scale, of integers
      if (buffer.dtype == DType::kI8)
        value *= static_cast<float>(static_cast<int8_t>(row[4 + c]));
      else if (buffer.dtype == DType::kI4)
        value *= static_cast<float>((static_cast<int>(row[4 + c / 2]) >> (c % 2 * 4) & 15) - 8);
      else
        Dequantise(buffer.dtype, row + c * SizeBytes(buffer.dtype), 1, &value);
      all.Set(i, static_cast<double>(value));
    }
    return all;
  }

  const isa::Program& program_;
  Values registers_;
  std::vector<std::vector<std::byte>> memory_;
};

}  // namespace

Array Array::Zeros(DType dtype, std::vector<int64_t> shape) {
  Array array{dtype, std::move(shape)};
  const auto count = static_cast<size_t>(array.count());
  if (IsFloat(dtype))
    array.reals.resize(count, 0);
  else
    array.integers.resize(count, 0);
  return array;
}

Array Array::FromBytes(DType dtype, std::vector<int64_t> shape, std::span<const std::byte> bytes) {
  Array array = Zeros(dtype, std::move(shape));
  CHECK(std::ssize(bytes) >= array.count() * SizeBytes(dtype)) << "too few bytes";
  for (int64_t i = 0; i < array.count(); ++i) {
    const std::byte* at = bytes.data() + i * SizeBytes(dtype);
    uint64_t bits = 0;
    std::memcpy(&bits, at, static_cast<size_t>(SizeBytes(dtype)));
    const auto n = static_cast<size_t>(i);
    if (dtype == DType::kF64)
      array.reals[n] = std::bit_cast<double>(bits);
    else if (dtype == DType::kF32)
      array.reals[n] = static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(bits)));
    else if (dtype == DType::kF16)
      array.reals[n] = static_cast<double>(F16ToF32(static_cast<uint16_t>(bits)));
    else if (dtype == DType::kBf16)
      array.reals[n] = static_cast<double>(Bf16ToF32(static_cast<uint16_t>(bits)));
    else
      array.integers[n] = Wrap(dtype, static_cast<int64_t>(bits));
  }
  return array;
}

std::vector<std::byte> Array::Bytes() const {
  std::vector<std::byte> bytes(static_cast<size_t>(count() * SizeBytes(dtype)));
  for (int64_t i = 0; i < count(); ++i) {
    const auto n = static_cast<size_t>(i);
    uint64_t bits = IsFloat(dtype) ? 0 : static_cast<uint64_t>(integers[n]);
    if (dtype == DType::kF64) bits = std::bit_cast<uint64_t>(reals[n]);
    if (dtype == DType::kF32) bits = std::bit_cast<uint32_t>(static_cast<float>(reals[n]));
    if (dtype == DType::kF16) bits = F32ToF16(static_cast<float>(reals[n]));
    if (dtype == DType::kBf16) bits = F32ToBf16(static_cast<float>(reals[n]));
    std::memcpy(bytes.data() + i * SizeBytes(dtype), &bits, static_cast<size_t>(SizeBytes(dtype)));
  }
  return bytes;
}

int64_t Array::count() const { return Product(shape); }

double Array::real(int64_t i) const {
  const auto n = static_cast<size_t>(i);
  return IsFloat(dtype) ? reals[n] : static_cast<double>(integers[n]);
}

void Array::Set(int64_t i, double value) {
  CHECK(IsFloat(dtype)) << Name(dtype);
  reals[static_cast<size_t>(i)] = RoundReal(dtype, value);
}

void Array::SetInteger(int64_t i, int64_t value) {
  CHECK(!IsFloat(dtype)) << Name(dtype);
  integers[static_cast<size_t>(i)] = Wrap(dtype, value);
}

void Array::Copy(int64_t i, const Array& from, int64_t j) {
  CHECK(dtype == from.dtype) << Name(dtype) << " from " << Name(from.dtype);
  if (IsFloat(dtype))
    reals[static_cast<size_t>(i)] = from.reals[static_cast<size_t>(j)];
  else
    integers[static_cast<size_t>(i)] = from.integers[static_cast<size_t>(j)];
}

Result<Arrays> Interpret(const ir::Graph& graph, const Values& symbols, const Arrays& inputs,
                         const ir::WeightSource& weights) {
  std::map<ir::ValueId, Array> values;
  for (size_t i = 0; i < graph.values().size(); ++i) {
    const ir::Value& value = graph.values()[i];
    const auto id = static_cast<ir::ValueId>(i);
    if (value.kind == ir::ValueKind::kInput) values[id] = inputs.at(value.name);
    if (value.kind != ir::ValueKind::kWeight) continue;
    TRY_ASSIGN(values[id], WeightOf(value, weights));
  }
  for (const ir::Node& node : graph.nodes()) {
    const ir::Value& output = graph.value(node.output);
    Call call{.op = ir::Name(node.op)};
    for (const auto& [name, attribute] : node.attributes) {
      if (const auto* integer = std::get_if<int64_t>(&attribute)) call.integers[name] = *integer;
      if (const auto* real = std::get_if<double>(&attribute)) call.reals[name] = *real;
      if (const auto* list = std::get_if<List>(&attribute)) call.lists[name] = *list;
      if (const auto* shape = std::get_if<ir::Shape>(&attribute))
        call.lists[name] = Evaluate(*shape, symbols);
    }
    Array y = Array::Zeros(output.dtype, Evaluate(output.shape, symbols));
    for (const ir::ValueId input : node.inputs)
      call.in.push_back(input == ir::kNoValue ? nullptr : &values.at(input));
    if (node.op == ir::Op::kScatter) {
      y = *call.in[0];
      call.in.erase(call.in.begin());
    }
    TRY(Run(call, y));
    values[node.output] = std::move(y);
  }
  Arrays outputs;
  for (const ir::ValueId output : graph.outputs())
    outputs[graph.value(output).name] = values.at(output);
  return outputs;
}

Result<Arrays> Interpret(const isa::Program& program, const isa::BoundWeights& weights,
                         const Values& registers, const Arrays& inputs, uint64_t seed) {
  Machine machine(program, weights, registers, inputs);
  TRY_ASSIGN(const std::vector<isa::Step> order, isa::Linearise(program, seed));
  for (const isa::Step& step : order)
    TRY(machine.Run(
        program.streams[static_cast<size_t>(step.stream)][static_cast<size_t>(step.index)]));
  Arrays outputs;
  for (size_t i = 0; i < program.buffers.size(); ++i)
    if (program.buffers[i].kind == isa::BufferKind::kOutput)
      outputs[program.buffers[i].name] = machine.Whole(static_cast<int32_t>(i));
  return outputs;
}

}  // namespace millpower::compile
