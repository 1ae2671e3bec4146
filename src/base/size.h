// Sizes that are known only when a Program is launched: polynomials in named symbols, such as
// "26*batch" or "batch*seq + 1", in one canonical form, so that equal sizes compare equal. Symbols
// stand for positive integers.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millpower {

// A polynomial with int64 coefficients. Arithmetic that would overflow gives an absent result.
// Not thread-safe.
class Size {
 public:
  Size() = default;        // 0
  Size(int64_t constant);  // NOLINT: a number is a size
  static Size Symbol(std::string name);

  // What ToString prints: sums and products of integers and names (letters, digits, '_', '.'; not
  // beginning with a digit), e.g. "2*batch*seq+batch+1". Errors: kInvalidArgument.
  static Result<Size> Parse(std::string_view text);

  bool IsConstant() const;
  std::optional<int64_t> Constant() const;  // absent when symbols take part
  // Whether the value can never fall when a symbol grows: no negative coefficient but the
  // constant's.
  bool IsMonotone() const;
  std::vector<std::string> Symbols() const;  // each once, sorted

  std::optional<Size> Plus(const Size& other) const;
  std::optional<Size> Minus(const Size& other) const;
  std::optional<Size> Times(const Size& other) const;
  // Exact: absent where the quotient is not a polynomial with integer coefficients. The divisor is
  // a single term, such as 8 or 4*seq.
  std::optional<Size> DividedBy(const Size& divisor) const;

  // With the symbols' values; absent on overflow or when `value_of` knows no value (absent).
  std::optional<int64_t> Evaluate(
      const std::function<std::optional<int64_t>(const std::string&)>& value_of) const;

  // Canonical: "0", "7", "batch", "2*batch*seq+batch+1", "batch-1".
  std::string ToString() const;

  // A product of symbols, sorted, and its coefficient; never 0.
  using Monomial = std::vector<std::string>;
  const std::map<Monomial, int64_t>& terms() const { return terms_; }

  bool operator==(const Size&) const = default;

 private:
  bool Add(const Monomial& monomial, int64_t coefficient);  // false on overflow

  std::map<Monomial, int64_t> terms_;  // the constant has an empty monomial
};

}  // namespace millpower
