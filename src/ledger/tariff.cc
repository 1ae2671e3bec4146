#include "ledger/tariff.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "base/check.h"

namespace millpower::ledger {
namespace {

int64_t Of(const Quantities& quantities, Unit unit) {
  return quantities[static_cast<size_t>(unit)];
}

int64_t PromptOf(const Quantities& quantities) {
  return Of(quantities, Unit::kInputToken) + Of(quantities, Unit::kCachedToken);
}

bool IsOfPrompt(Unit unit) { return unit == Unit::kInputToken || unit == Unit::kCachedToken; }
bool IsOfRanking(Unit unit) { return unit == Unit::kInference || unit == Unit::kCandidate; }

}  // namespace

Result<Tariff> Tariff::Find(const Directory& directory, std::string_view model, Tier tier,
                            int64_t at, const Quantities& most) {
  Tariff tariff;
  const auto no_price = [&](Unit unit) {
    return Fail(ErrorCode::kUnavailable,
                fmt::format("no price is set for {} of model '{}' at tier {}", Name(unit), model,
                            Name(tier)));
  };
  for (int i = 0; i < kUnitCount; ++i) {
    const Unit unit = static_cast<Unit>(i);
    const bool is_needed = IsOfPrompt(unit) ? PromptOf(most) > 0 : most[i] > 0;
    if (!is_needed && unit != Unit::kOutputToken) continue;
    const Price* price = directory.FindPrice(model, tier, unit, at);
    if (price) {
      tariff.terms_[i] = {price->number, price->rate};
    } else if (is_needed && !IsOfRanking(unit)) {
      return no_price(unit);
    }
  }
  for (const Unit unit : {Unit::kInference, Unit::kCandidate})
    if (Of(most, unit) > 0 && !tariff.charges(Unit::kInference) &&
        !tariff.charges(Unit::kCandidate))
      return no_price(unit);
  return tariff;
}

bool Tariff::IsWithin(const Quantities& used, const Quantities& most) const {
  for (int i = 0; i < kUnitCount; ++i) {
    const Unit unit = static_cast<Unit>(i);
    const bool counts = charges(unit) || unit == Unit::kOutputToken;
    if (used[i] < 0 || (counts && !IsOfPrompt(unit) && used[i] > most[i])) return false;
  }
  return PromptOf(used) <= PromptOf(most);
}

Micros Tariff::MostOf(const Quantities& most) const {
  const int64_t prompt = PromptOf(most);
  const Micros input = terms(Unit::kInputToken).rate, cached = terms(Unit::kCachedToken).rate;
  Micros amount = CostOf(prompt, std::max(input, cached));
  // Two lines are rounded up one by one: ceil(a) + ceil(b) <= ceil(a + b) + 1. Whether some split
  // of the prompt comes to that shows within a few splits next to the dearest; where it does not
  // show in kSplits of a longer prompt, it is taken to.
  constexpr int64_t kSplits = 64;
  const Micros dear = std::max(input, cached), cheap = std::min(input, cached);
  const bool is_whole = input % kMicrosPerUnit == 0 && cached % kMicrosPerUnit == 0;
  bool rounds_twice = prompt > kSplits && cheap > 0 && !is_whole;
  for (int64_t i = 1; i <= std::min(prompt - 1, kSplits) && cheap > 0 && !rounds_twice; ++i)
    rounds_twice = CostOf(prompt - i, dear) + CostOf(i, cheap) > amount;
  if (rounds_twice) ++amount;
  for (int i = 0; i < kUnitCount; ++i) {
    if (!IsOfPrompt(static_cast<Unit>(i))) amount += CostOf(most[i], terms_[i].rate);
  }
  return amount;
}

std::vector<UsageLine> Tariff::Lines(const Quantities& used) const {
  std::vector<UsageLine> lines;
  for (int i = 0; i < kUnitCount; ++i) {
    const Unit unit = static_cast<Unit>(i);
    if (!charges(unit) || used[i] == 0) continue;
    lines.push_back({unit, used[i], terms_[i].price, CostOf(used[i], terms_[i].rate)});
  }
  return lines;
}

}  // namespace millpower::ledger
