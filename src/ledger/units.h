// What is sold, and on what terms.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace millpower::ledger {

// Quantities are whole quanta of a unit, and every price is in micro-units of the currency for a
// million quanta: of tokens a million tokens, of a chip-second (quantum: a microsecond) one
// chip-second.
enum class Unit : uint8_t {
  kInputToken = 0,   // computed; quantum: a token
  kCachedToken = 1,  // of the prompt, found in the prefix cache
  kOutputToken = 2,
  kInference = 3,
  kCandidate = 4,   // ranked
  kChipSecond = 5,  // quantum: a microsecond of the device's time
  kJoule = 6,       // quantum: a microjoule
  kShareHour = 7,   // the whole device for an hour; quantum: a millionth of that
};
inline constexpr int kUnitCount = 8;
using Quantities = std::array<int64_t, kUnitCount>;  // by Unit; none negative

// What caps in tokens count: input, cached and output.
inline int64_t TokensOf(const Quantities& quantities) {
  return quantities[static_cast<size_t>(Unit::kInputToken)] +
         quantities[static_cast<size_t>(Unit::kCachedToken)] +
         quantities[static_cast<size_t>(Unit::kOutputToken)];
}

enum class Tier : uint8_t {
  kOnDemand = 0,
  kPriority = 1,  // goes before others
  kBatch = 2,     // runs in idle steps
  kLease = 3,     // of a tenant that has a lease running
};
inline constexpr int kTierCount = 4;

const char* Name(Unit unit);  // "input_token"
const char* Name(Tier tier);  // "on_demand"
// How many quanta one unit is: 1 of those that are counted, a million of those that are measured.
int64_t QuantaOf(Unit unit);
const char* PluralOf(Unit unit);     // "input tokens"
const char* RateBasisOf(Unit unit);  // what a price is for: "million input tokens", "chip-second"
std::optional<Unit> UnitFromName(std::string_view name);
std::optional<Tier> TierFromName(std::string_view name);

}  // namespace millpower::ledger
