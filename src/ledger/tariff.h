// What one request is charged: the prices in effect when it was admitted, fixed for its life.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "ledger/directory.h"
#include "ledger/records.h"
#include "ledger/units.h"

namespace millpower::ledger {

class Tariff {
 public:
  // Charges for the units that `most` has: with input tokens also for cached ones and the other way
  // round, and for output tokens in any case if they have a price. Of inferences and candidates it
  // is enough if either has a price. What else is measured is told, not charged. Errors:
  // kUnavailable (no price).
  static Result<Tariff> Find(const Directory& directory, std::string_view model, Tier tier,
                             int64_t at, const Quantities& most);

  bool charges(Unit unit) const { return terms_[static_cast<size_t>(unit)].price != 0; }

  // Whether `used` is at most `most` in every unit that is charged for; of the prompt's tokens any
  // number may be cached.
  bool IsWithin(const Quantities& used, const Quantities& most) const;

  // No use within `most` costs more; a use of exactly `most` that is split between input and cached
  // tokens costs at most one micro-unit less than this, if all are at the higher price. Grows with
  // every quantity. May exceed kMaxMicros, by less than kUnitCount times.
  Micros MostOf(const Quantities& most) const;

  // A line for each unit that is charged for and was used.
  std::vector<UsageLine> Lines(const Quantities& used) const;

 private:
  struct Terms {
    Number price = 0;  // 0: not charged for
    Micros rate = 0;
  };
  const Terms& terms(Unit unit) const { return terms_[static_cast<size_t>(unit)]; }

  std::array<Terms, kUnitCount> terms_{};
};

}  // namespace millpower::ledger
