// Money as whole micro-units of one currency, never floating point.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace millpower::ledger {

// Millionths of a unit of the ledger's currency: 1'500'000 is 1.50.
using Micros = int64_t;
inline constexpr Micros kMicrosPerUnit = 1'000'000;
// No single amount, balance, cap or price exceeds this (a billion units), so that nine thousand of
// them still fit an int64.
inline constexpr Micros kMaxMicros = 1'000'000'000 * kMicrosPerUnit;

// Decimal text: "12", "12.5", "-0.000001". Errors: kInvalidArgument (not a number, more than six
// decimals, beyond +-kMaxMicros).
Result<Micros> ParseMoney(std::string_view text);
// At least two decimals, and as many more as are not zero: "12.50", "-0.000001".
std::string FormatMoney(Micros amount);

// What `quantity` quanta cost at `rate` micro-units for a million quanta: the exact product,
// rounded up to a whole micro-unit, so that nothing is free by being small; kMaxMicros where it
// would be more. Grows with `quantity`, so what was held for an upper bound covers what is posted.
// Neither argument is negative.
Micros CostOf(int64_t quantity, Micros rate);

}  // namespace millpower::ledger
