#include "ledger/money.h"

#include <fmt/format.h>

#include "base/check.h"

namespace millpower::ledger {
namespace {

constexpr int kDecimals = 6;

}  // namespace

Result<Micros> ParseMoney(std::string_view text) {
  const auto fail = [&](const char* why) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("'{}' is not an amount of money: {}", text.substr(0, 40), why));
  };
  std::string_view rest = text;
  const bool negative = rest.starts_with('-');
  if (negative) rest.remove_prefix(1);
  const size_t point = rest.find('.');
  const std::string_view whole = rest.substr(0, point);
  const std::string_view part = point == rest.npos ? "0" : rest.substr(point + 1);
  if (whole.empty() || part.empty()) return fail("write it like 12 or 12.50");
  if (part.size() > kDecimals) return fail("it has more than six decimals");
  Micros amount = 0;
  for (size_t i = 0; i < whole.size() + kDecimals; ++i) {
    const size_t decimal = i - whole.size();
    const char digit = i < whole.size() ? whole[i] : decimal < part.size() ? part[decimal] : '0';
    if (digit < '0' || digit > '9') return fail("write it like 12 or 12.50");
    amount = amount * 10 + (digit - '0');
    if (amount > kMaxMicros) return fail("it is too large");
  }
  return negative ? -amount : amount;
}

std::string FormatMoney(Micros amount) {
  const uint64_t size = amount < 0 ? -static_cast<uint64_t>(amount) : static_cast<uint64_t>(amount);
  std::string text = fmt::format("{}{}.{:06}", amount < 0 ? "-" : "", size / kMicrosPerUnit,
                                 size % kMicrosPerUnit);
  while (text.ends_with('0') && text[text.size() - 3] != '.') text.pop_back();
  return text;
}

Micros CostOf(int64_t quantity, Micros rate) {
  CHECK(quantity >= 0 && rate >= 0) << quantity << " at " << rate;
  const auto product = static_cast<unsigned __int128>(quantity) * static_cast<uint64_t>(rate);
  const unsigned __int128 cost = (product + (kMicrosPerUnit - 1)) / kMicrosPerUnit;
  return cost > kMaxMicros ? kMaxMicros : static_cast<Micros>(cost);
}

}  // namespace millpower::ledger
