#include "ledger/units.h"

#include <algorithm>
#include <iterator>

namespace millpower::ledger {
namespace {

// By Unit.
constexpr const char* kUnitNames[] = {"input_token", "cached_token", "output_token", "inference",
                                      "candidate",   "chip_second",  "joule",        "share_hour"};
constexpr struct {
  int64_t quanta;
  const char *plural, *rate_basis;
} kUnits[] = {{1, "input tokens", "million input tokens"},
              {1, "cached tokens", "million cached tokens"},
              {1, "output tokens", "million output tokens"},
              {1, "inferences", "million inferences"},
              {1, "candidates", "million candidates"},
              {1'000'000, "chip-seconds", "chip-second"},
              {1'000'000, "joules", "joule"},
              {1'000'000, "share-hours", "share-hour"}};
static_assert(std::size(kUnitNames) == kUnitCount && std::size(kUnits) == kUnitCount);
constexpr const char* kTierNames[] = {"on_demand", "priority", "batch", "lease"};
static_assert(std::size(kTierNames) == kTierCount);

template <typename Enum, size_t kCount>
std::optional<Enum> FromName(const char* const (&names)[kCount], std::string_view name) {
  const auto found = std::ranges::find(names, name);
  if (found == std::end(names)) return std::nullopt;
  return static_cast<Enum>(found - std::begin(names));
}

}  // namespace

const char* Name(Unit unit) { return kUnitNames[static_cast<size_t>(unit)]; }
const char* Name(Tier tier) { return kTierNames[static_cast<size_t>(tier)]; }
int64_t QuantaOf(Unit unit) { return kUnits[static_cast<size_t>(unit)].quanta; }
const char* PluralOf(Unit unit) { return kUnits[static_cast<size_t>(unit)].plural; }
const char* RateBasisOf(Unit unit) { return kUnits[static_cast<size_t>(unit)].rate_basis; }
std::optional<Unit> UnitFromName(std::string_view name) { return FromName<Unit>(kUnitNames, name); }
std::optional<Tier> TierFromName(std::string_view name) { return FromName<Tier>(kTierNames, name); }

}  // namespace millpower::ledger
