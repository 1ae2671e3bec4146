#include "ledger/units.h"

#include <algorithm>
#include <iterator>

namespace millpower::ledger {
namespace {

constexpr const char* kUnitNames[] = {"input_token", "cached_token", "output_token", "inference",
                                      "candidate",   "chip_second",  "joule",        "share_hour"};
static_assert(std::size(kUnitNames) == kUnitCount);
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
std::optional<Unit> UnitFromName(std::string_view name) { return FromName<Unit>(kUnitNames, name); }
std::optional<Tier> TierFromName(std::string_view name) { return FromName<Tier>(kTierNames, name); }

}  // namespace millpower::ledger
