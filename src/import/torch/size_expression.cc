#include "import/torch/size_expression.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <vector>

namespace millpower::import::torch {
namespace {

constexpr int kMaxDepth = 64;
constexpr int64_t kMaxPower = 16;

bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

int64_t FloorDivide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

class Parser {
 public:
  Parser(std::string_view text, const std::function<Result<Size>(const std::string&)>& value_of)
      : whole_(text), rest_(text), value_of_(value_of) {}

  Result<Size> Parse() {
    if (whole_.size() > kMaxSizeExpressionBytes) return Malformed();
    TRY_ASSIGN(const Size size, Sum());
    SkipSpace();
    if (!rest_.empty()) return Malformed();
    return size;
  }

 private:
  std::unexpected<Error> Malformed() const {
    return Fail(ErrorCode::kCorrupt, "'" + std::string(whole_.substr(0, 200)) + "' is not a size");
  }
  std::unexpected<Error> NoPolynomial(const std::string& why) const {
    return Fail(ErrorCode::kUnsupported,
                "size '" + std::string(whole_.substr(0, 200)) + "': " + why);
  }
  Result<Size> Checked(const std::optional<Size>& size) const {
    if (size) return *size;
    return NoPolynomial("is not a polynomial with whole coefficients, or too large");
  }

  void SkipSpace() {
    while (rest_.starts_with(' ')) rest_.remove_prefix(1);
  }
  bool Accept(std::string_view token) {
    SkipSpace();
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }

  Result<Size> Sum() {
    if (++depth_ > kMaxDepth) return Malformed();
    TRY_ASSIGN(Size sum, Product());
    for (;;) {
      const bool minus = Accept("-");
      if (!minus && !Accept("+")) break;
      TRY_ASSIGN(const Size term, Product());
      TRY_ASSIGN(sum, Checked(minus ? sum.Minus(term) : sum.Plus(term)));
    }
    --depth_;
    return sum;
  }

  Result<Size> Product() {
    TRY_ASSIGN(Size product, Power());
    for (;;) {
      if (Accept("//")) {
        TRY_ASSIGN(const Size divisor, Power());
        TRY_ASSIGN(product, FloorDiv(product, divisor));
      } else if (Accept("*")) {
        TRY_ASSIGN(const Size factor, Power());
        TRY_ASSIGN(product, Checked(product.Times(factor)));
      } else if (Accept("/")) {
        TRY_ASSIGN(const Size divisor, Power());
        TRY_ASSIGN(product, Checked(product.DividedBy(divisor)));
      } else {
        return product;
      }
    }
  }

  Result<Size> Power() {
    if (++depth_ > kMaxDepth) return Malformed();
    const bool minus = Accept("-");
    TRY_ASSIGN(Size base, minus ? Power() : Factor());
    if (!minus && Accept("**")) {
      TRY_ASSIGN(const Size exponent, Power());
      TRY_ASSIGN(base, Raise(base, exponent));
    }
    --depth_;
    if (!minus) return base;
    return Checked(Size(0).Minus(base));
  }

  Result<Size> Factor() {
    SkipSpace();
    if (Accept("(")) {
      TRY_ASSIGN(const Size inner, Sum());
      if (!Accept(")")) return Malformed();
      return inner;
    }
    if (rest_.empty()) return Malformed();
    if (IsDigit(rest_[0])) return Integer();
    if (!IsNameStart(rest_[0])) return Malformed();
    const std::string name = Name();
    if (!Accept("(")) return value_of_(name);
    if (name == "Symbol") return SymbolConstructor();
    return Call(name);
  }

  std::string Name() {
    const auto end = std::ranges::find_if_not(
        rest_, [](char c) { return IsNameStart(c) || IsDigit(c) || c == '.'; });
    const auto length = static_cast<size_t>(end - rest_.begin());
    std::string name(rest_.substr(0, length));
    rest_.remove_prefix(length);
    return name;
  }

  Result<Size> Integer() {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (error != std::errc()) return NoPolynomial("holds a number that is too large");
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    return Size(value);
  }

  // 'name', assumptions such as positive=True )
  Result<Size> SymbolConstructor() {
    if (!Accept("'")) return Malformed();
    const std::string name = Name();
    if (name.empty() || !Accept("'")) return Malformed();
    while (Accept(",")) {
      SkipSpace();
      const std::string assumption = Name();
      if (assumption.empty() || !Accept("=") || Name().empty()) return Malformed();
    }
    if (!Accept(")")) return Malformed();
    return value_of_(name);
  }

  Result<Size> Call(const std::string& name) {
    std::vector<Size> arguments;
    do {
      TRY_ASSIGN(Size argument, Sum());
      arguments.push_back(std::move(argument));
    } while (Accept(","));
    if (!Accept(")")) return Malformed();
    return Apply(name, arguments);
  }

  Result<Size> Apply(const std::string& name, const std::vector<Size>& arguments) {
    if (name == "Add" || name == "Mul" || name == "Max" || name == "Min") {
      Size all = arguments[0];
      for (size_t i = 1; i < arguments.size(); ++i) {
        TRY_ASSIGN(all, Combine(name, all, arguments[i]));
      }
      return all;
    }
    if (name == "Integer" && arguments.size() == 1) return arguments[0];
    if (arguments.size() == 2 && name == "Pow") return Raise(arguments[0], arguments[1]);
    if (arguments.size() == 2 && (name == "FloorDiv" || name == "CleanDiv"))
      return FloorDiv(arguments[0], arguments[1]);
    if (arguments.size() == 2 && (name == "Mod" || name == "PythonMod"))
      return Remainder(arguments[0], arguments[1]);
    return NoPolynomial("function '" + name + "' is not supported");
  }

  Result<Size> Combine(const std::string& name, const Size& a, const Size& b) {
    if (name == "Add") return Checked(a.Plus(b));
    if (name == "Mul") return Checked(a.Times(b));
    // The larger one is known when the difference has one sign whatever the symbols, at least 1.
    const bool is_max = name == "Max";
    for (const bool swapped : {false, true}) {
      const std::optional<Size> difference = swapped ? b.Minus(a) : a.Minus(b);
      const auto least = difference && difference->IsMonotone()
                             ? difference->Evaluate([](const std::string&) { return 1; })
                             : std::nullopt;
      if (least && *least >= 0) return is_max != swapped ? a : b;
    }
    return NoPolynomial("function '" + name + "' is not supported");
  }

  Result<Size> Raise(const Size& base, const Size& exponent) {
    const std::optional<int64_t> power = exponent.Constant();
    if (!power || *power < 0 || *power > kMaxPower) return NoPolynomial("is no polynomial");
    Size result(1);
    for (int64_t i = 0; i < *power; ++i) {
      TRY_ASSIGN(result, Checked(result.Times(base)));
    }
    return result;
  }

  Result<Size> FloorDiv(const Size& a, const Size& b) {
    const auto dividend = a.Constant(), divisor = b.Constant();
    if (divisor && *divisor == 0) return NoPolynomial("divides by zero");
    if (dividend && divisor && *divisor > 0) return Size(FloorDivide(*dividend, *divisor));
    return Checked(a.DividedBy(b));
  }

  Result<Size> Remainder(const Size& a, const Size& b) {
    const auto dividend = a.Constant(), divisor = b.Constant();
    if (dividend && divisor && *divisor > 0)
      return Size(*dividend - FloorDivide(*dividend, *divisor) * *divisor);
    if (b != Size(0) && a.DividedBy(b)) return Size(0);
    return NoPolynomial("is the remainder of symbols");
  }

  std::string_view whole_;
  std::string_view rest_;
  const std::function<Result<Size>(const std::string&)>& value_of_;
  int depth_ = 0;
};

}  // namespace

Result<Size> ParseSizeExpression(std::string_view text,
                                 const std::function<Result<Size>(const std::string&)>& value_of) {
  return Parser(text, value_of).Parse();
}

}  // namespace millpower::import::torch
