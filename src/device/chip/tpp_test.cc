#include "device/chip/tpp.h"

#include <gtest/gtest.h>

namespace millpower::device::chip {
namespace {

Chip Built(const char* name) {
  auto chip = ReadChip(name);
  if (!chip) ADD_FAILURE() << chip.error().message;
  return chip.value_or(Chip());
}

// A chip of one bf16 rate, die area and process.
Chip Simple(double tops, double die_mm2, double process_nm) {
  Chip chip;
  chip.matrix[static_cast<size_t>(MatrixType::kBf16)].ops_per_s.value = tops * 1e12;
  chip.die_mm2.value = die_mm2;
  chip.process_nm.value = process_nm;
  return chip;
}

TEST(TppTest, IsTheLargestProductOfRateAndBits) {
  EXPECT_DOUBLE_EQ(TotalProcessingPerformance(Simple(100, 0, 0)), 1600);
  Chip chip = Simple(100, 0, 0);
  chip.matrix[static_cast<size_t>(MatrixType::kInt8)].ops_per_s.value = 300e12;
  EXPECT_DOUBLE_EQ(TotalProcessingPerformance(chip), 2400);
  chip.vector_ops_per_s.value = 80e12;
  EXPECT_DOUBLE_EQ(TotalProcessingPerformance(chip), 2560);
}

TEST(TppTest, OfKnownChips) {
  EXPECT_NEAR(TotalProcessingPerformance(Built("h100")), 15830, 5);
  EXPECT_NEAR(TotalProcessingPerformance(Built("a100")), 4992, 1);
  EXPECT_NEAR(TotalProcessingPerformance(Built("h20")), 2368, 1);
  EXPECT_EQ(ExportTierOf(Built("h100")), ExportTier::kA);
  EXPECT_EQ(ExportTierOf(Built("a100")), ExportTier::kA);
  EXPECT_EQ(ExportTierOf(Built("h20")), ExportTier::kNone);  // what it was made for
}

TEST(TppTest, ThresholdsStandWhereTheRuleHasThem) {
  const auto tier = [](double tpp, double density) {
    return ExportTierOf(Simple(tpp / 16, tpp / density, 7));
  };
  EXPECT_EQ(tier(4800, 1), ExportTier::kA);
  EXPECT_EQ(tier(1600, 5.93), ExportTier::kA);
  EXPECT_EQ(tier(1599, 100), ExportTier::kNone);
  EXPECT_EQ(tier(1600, 3.21), ExportTier::kB);
  EXPECT_EQ(tier(1600, 3.19), ExportTier::kNone);
  EXPECT_EQ(tier(2400, 1.61), ExportTier::kB);
  EXPECT_EQ(tier(2400, 1.59), ExportTier::kNone);
  EXPECT_EQ(tier(2399, 1.61), ExportTier::kNone);
  EXPECT_EQ(ExportTierOf(Simple(200, 0, 7)), ExportTier::kUnknown);
  EXPECT_EQ(ExportTierOf(Simple(200, 100, 28)), ExportTier::kNone);  // planar: no area counts
  EXPECT_EQ(ExportTierOf(Simple(50, 0, 7)), ExportTier::kNone);
}

TEST(TppTest, SaysItInWords) {
  EXPECT_EQ(ExportSummary(Simple(100, 100, 7)), "TPP 1600, density 16.0: meets 3A090.a");
  EXPECT_EQ(ExportSummary(Simple(50, 0, 0)), "TPP 800: below 3A090");
}

}  // namespace
}  // namespace millpower::device::chip
