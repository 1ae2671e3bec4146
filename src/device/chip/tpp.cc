#include "device/chip/tpp.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace millpower::device::chip {
namespace {

constexpr std::array<int, kMatrixTypeCount> kBits = {32, 16, 16, 8, 8, 4, 4};
constexpr double kLastPlanarProcessNm = 20;

double Tops(const Figure& ops_per_s) { return ops_per_s.value * 1e-12; }

}  // namespace

double TotalProcessingPerformance(const Chip& chip) {
  double most = Tops(chip.vector_ops_per_s) * 32;
  for (size_t i = 0; i < kMatrixTypeCount; ++i)
    most = std::max(most, Tops(chip.matrix[i].ops_per_s) * kBits[i]);
  return most;
}

double PerformanceDensity(const Chip& chip) {
  if (chip.die_mm2.value <= 0 || chip.process_nm.value >= kLastPlanarProcessNm) return 0;
  return TotalProcessingPerformance(chip) / chip.die_mm2.value;
}

ExportTier ExportTierOf(const Chip& chip) {
  const double tpp = TotalProcessingPerformance(chip);
  if (tpp >= 4800) return ExportTier::kA;
  if (tpp < 1600) return ExportTier::kNone;
  if (chip.die_mm2.value <= 0) return ExportTier::kUnknown;
  const double density = PerformanceDensity(chip);
  if (density >= 5.92) return ExportTier::kA;
  if (density >= 3.2 || (tpp >= 2400 && density >= 1.6)) return ExportTier::kB;
  return ExportTier::kNone;
}

std::string ExportSummary(const Chip& chip) {
  const double density = PerformanceDensity(chip);
  std::string text = fmt::format("TPP {:.0f}", TotalProcessingPerformance(chip));
  if (density > 0) text += fmt::format(", density {:.1f}", density);
  switch (ExportTierOf(chip)) {
    case ExportTier::kA:
      return text + ": meets 3A090.a";
    case ExportTier::kB:
      return text + ": meets 3A090.b";
    case ExportTier::kUnknown:
      return text + ": depends on the area of its dies, which is not published";
    case ExportTier::kNone:
      break;
  }
  return text + ": below 3A090";
}

}  // namespace millpower::device::chip
