#include "base/size.h"

#include <algorithm>
#include <charconv>
#include <set>

namespace millpower {
namespace {

constexpr size_t kMaxTerms = 64;
constexpr size_t kMaxFactors = 16;

bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsNamePart(char c) { return IsNameStart(c) || (c >= '0' && c <= '9') || c == '.'; }

std::unexpected<Error> Malformed(std::string_view text) {
  return Fail(ErrorCode::kInvalidArgument, "'" + std::string(text) + "' is not a size");
}

// One factor at the front of `text`: an integer or a name.
std::optional<Size> TakeFactor(std::string_view& text) {
  if (text.empty()) return std::nullopt;
  if (IsNameStart(text[0])) {
    const auto end = std::ranges::find_if_not(text, IsNamePart);
    const auto length = static_cast<size_t>(end - text.begin());
    Size symbol = Size::Symbol(std::string(text.substr(0, length)));
    text.remove_prefix(length);
    return symbol;
  }
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 0) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return Size(value);
}

}  // namespace

Size::Size(int64_t constant) {
  if (constant != 0) terms_[{}] = constant;
}

Size Size::Symbol(std::string name) {
  Size size;
  size.terms_[{std::move(name)}] = 1;
  return size;
}

bool Size::Add(const Monomial& monomial, int64_t coefficient) {
  if (terms_.size() >= kMaxTerms || monomial.size() > kMaxFactors) return false;
  int64_t& sum = terms_[monomial];
  if (__builtin_add_overflow(sum, coefficient, &sum)) return false;
  if (sum == 0) terms_.erase(monomial);
  return true;
}

Result<Size> Size::Parse(std::string_view text) {
  const std::string_view whole = text;
  if (text.size() > 1024) return Malformed(text.substr(0, 64));
  Size sum;
  for (bool first = true; first || !text.empty(); first = false) {
    bool negative = false;
    if (!text.empty() && (text[0] == '-' || (!first && text[0] == '+'))) {
      negative = text[0] == '-';
      text.remove_prefix(1);
    } else if (!first) {
      return Malformed(whole);
    }
    std::optional<Size> term = TakeFactor(text);
    while (term && text.starts_with('*')) {
      text.remove_prefix(1);
      const std::optional<Size> factor = TakeFactor(text);
      term = factor ? term->Times(*factor) : std::nullopt;
    }
    if (term) term = negative ? sum.Minus(*term) : sum.Plus(*term);
    if (!term) return Malformed(whole);
    sum = *term;
  }
  return sum;
}

bool Size::IsConstant() const { return Constant().has_value(); }

std::optional<int64_t> Size::Constant() const {
  if (terms_.empty()) return 0;
  if (terms_.size() > 1 || !terms_.begin()->first.empty()) return std::nullopt;
  return terms_.begin()->second;
}

bool Size::IsMonotone() const {
  return std::ranges::all_of(
      terms_, [](const auto& term) { return term.first.empty() || term.second > 0; });
}

std::vector<std::string> Size::Symbols() const {
  std::set<std::string> symbols;
  for (const auto& [monomial, coefficient] : terms_)
    symbols.insert(monomial.begin(), monomial.end());
  return {symbols.begin(), symbols.end()};
}

std::optional<Size> Size::Plus(const Size& other) const {
  Size sum = *this;
  for (const auto& [monomial, coefficient] : other.terms_)
    if (!sum.Add(monomial, coefficient)) return std::nullopt;
  return sum;
}

std::optional<Size> Size::Minus(const Size& other) const {
  const std::optional<Size> negative = other.Times(-1);
  return negative ? Plus(*negative) : std::nullopt;
}

std::optional<Size> Size::Times(const Size& other) const {
  Size product;
  for (const auto& [a, a_coefficient] : terms_)
    for (const auto& [b, b_coefficient] : other.terms_) {
      int64_t coefficient = 0;
      if (__builtin_mul_overflow(a_coefficient, b_coefficient, &coefficient)) return std::nullopt;
      Monomial monomial;
      std::ranges::merge(a, b, std::back_inserter(monomial));
      if (!product.Add(monomial, coefficient)) return std::nullopt;
    }
  return product;
}

std::optional<Size> Size::DividedBy(const Size& divisor) const {
  if (divisor.terms_.size() != 1) return std::nullopt;
  const auto& [below, divide] = *divisor.terms_.begin();
  Size quotient;
  for (const auto& [monomial, coefficient] : terms_) {
    // -1 first: the least integer divided by it overflows.
    if (divide == -1 || coefficient % divide != 0 || !std::ranges::includes(monomial, below))
      return std::nullopt;
    Monomial rest;
    std::ranges::set_difference(monomial, below, std::back_inserter(rest));
    if (!quotient.Add(rest, coefficient / divide)) return std::nullopt;
  }
  return quotient;
}

std::optional<int64_t> Size::Evaluate(
    const std::function<std::optional<int64_t>(const std::string&)>& value_of) const {
  int64_t sum = 0;
  for (const auto& [monomial, coefficient] : terms_) {
    int64_t product = coefficient;
    for (const std::string& symbol : monomial) {
      const std::optional<int64_t> value = value_of(symbol);
      if (!value || __builtin_mul_overflow(product, *value, &product)) return std::nullopt;
    }
    if (__builtin_add_overflow(sum, product, &sum)) return std::nullopt;
  }
  return sum;
}

std::string Size::ToString() const {
  std::string text;
  // The constant, whose monomial sorts first, is printed last.
  for (auto term = terms_.rbegin(); term != terms_.rend(); ++term) {
    const auto& [monomial, coefficient] = *term;
    if (coefficient > 0 && !text.empty()) text += '+';
    if (monomial.empty()) {
      text += std::to_string(coefficient);
      continue;
    }
    if (coefficient == -1) text += '-';
    if (coefficient != 1 && coefficient != -1) text += std::to_string(coefficient) + '*';
    for (size_t i = 0; i < monomial.size(); ++i) text += (i == 0 ? "" : "*") + monomial[i];
  }
  return text.empty() ? "0" : text;
}

}  // namespace millpower
