#include "cli/size.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <utility>

namespace millpower::cli {

Result<int64_t> ParseSize(const std::string& text) {
  static constexpr std::pair<const char*, double> kUnits[] = {
      {"", 1},         {"b", 1},        {"kb", 1e3},   {"mb", 1e6},   {"gb", 1e9},  {"kib", 0x1p10},
      {"mib", 0x1p20}, {"gib", 0x1p30}, {"k", 0x1p10}, {"m", 0x1p20}, {"g", 0x1p30}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(end, text.data() + text.size());
  std::ranges::transform(unit, unit.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const auto& [name, factor] : kUnits)
    if (error == std::errc() && unit == name && number >= 0 && number * factor < 0x1p62)
      return static_cast<int64_t>(number * factor);
  return Fail(ErrorCode::kInvalidArgument,
              "'" + text + "' is not a size; write for example 512MiB or 2GB");
}

std::string FormatSize(int64_t bytes) {
  double value = static_cast<double>(bytes);
  const char* unit = "bytes";
  for (const char* larger : {"kB", "MB", "GB", "TB"}) {
    if (value < 1000) break;
    value /= 1000;
    unit = larger;
  }
  return fmt::format("{:.3g} {}", value, unit);
}

}  // namespace millpower::cli
