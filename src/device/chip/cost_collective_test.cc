#include "device/chip/cost_collective.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace millpower::device::chip {
namespace {

Figure Of(double value) { return {value, value, value, "test", false}; }

// The links of chips/h100.toml, and the constants that the golden rows were made with.
Chip TestChip() {
  Chip chip;
  chip.links.bytes_per_s = Of(450e9);
  chip.links.latency_s = Of(1e-6);
  chip.memory.bytes_per_s = Of(3.35e12);
  const std::pair<const char*, double> constants[] = {
      {"launch_s", 5.3e-6},       {"hop_s", 0.805e-6},          {"ring_start_s", 16.5e-6},
      {"pairs_start_s", 7.42e-6}, {"pair_bytes_per_s", 3.26e9}, {"line_bytes_per_s", 217e9},
      {"link_efficiency", 0.743}, {"copy_bytes_per_s", 1030e9}, {"switch_efficiency", 0.70},
      {"switch_start_s", 25e-6},  {"switch_least_ranks", 8}};
  for (const auto& [name, value] : constants) chip.fitted["collective"][name] = Of(value);
  return chip;
}

double Microseconds(const Work& work) {
  double length = work.issue_s;
  for (const Wave& wave : work.waves) length += wave.busy(Unit::kLink) + wave.latency_s;
  return length * 1e6;
}

struct Row {
  CollectiveKind kind;
  int ranks;
  double bytes;
  bool floating;
  double microseconds;
};

// Made with the program that the constants were fitted with.
TEST(CollectiveCost, AgreesWithTheModelThatWasFitted) {
  const Chip chip = TestChip();
  const Row rows[] = {
      {CollectiveKind::kAllReduce, 2, 512, true, 6.9135},
      {CollectiveKind::kAllReduce, 4, 4194304, true, 43.9550},
      {CollectiveKind::kAllReduce, 8, 1048576, true, 25.6303},
      {CollectiveKind::kAllReduce, 8, 268435456, true, 990.6081},
      {CollectiveKind::kAllReduce, 8, 268435456, false, 1470.6480},
      {CollectiveKind::kAllGather, 2, 131072, true, 6.7090},
      {CollectiveKind::kAllGather, 8, 67108864, true, 211.2044},
      {CollectiveKind::kReduceScatter, 4, 1048576, true, 12.5471},
      {CollectiveKind::kReduceScatter, 8, 536870912, true, 1497.5901},
      {CollectiveKind::kAllToAll, 2, 32768, true, 11.1308},
      {CollectiveKind::kAllToAll, 4, 4194304, true, 23.9515},
      {CollectiveKind::kAllToAll, 8, 134217728, true, 381.0638},
  };
  for (const Row& row : rows) {
    const DType type = row.floating ? DType::kBf16 : DType::kI8;
    EXPECT_NEAR(Microseconds(CollectiveWork(chip, {row.kind, row.ranks, row.bytes, type})),
                row.microseconds, 1e-3)
        << row.ranks << " ranks, " << row.bytes << " bytes";
  }
}

TEST(CollectiveCost, OneRankHasNothingToDo) {
  const Work work = CollectiveWork(TestChip(), {CollectiveKind::kAllReduce, 1, 1e6});
  EXPECT_TRUE(work.waves.empty());
  EXPECT_EQ(work.issue_s, 0);
}

TEST(CollectiveCost, LinksCarryEachPartOncePerHop) {
  const Chip chip = TestChip();
  EXPECT_EQ(CollectiveWork(chip, {CollectiveKind::kAllGather, 4, 4e6}).traffic.link, 3e6);
  EXPECT_EQ(CollectiveWork(chip, {CollectiveKind::kAllReduce, 4, 4e6}).traffic.link, 6e6);
  EXPECT_EQ(CollectiveWork(chip, {CollectiveKind::kAllToAll, 4, 4e6}).traffic.link, 3e6);
}

// Without fitted constants, the datasheet's links and a hop's latency are all there is.
TEST(CollectiveCost, WithoutConstantsTheLinksDecide) {
  Chip chip = TestChip();
  chip.fitted.clear();
  const double us = Microseconds(CollectiveWork(chip, {CollectiveKind::kAllReduce, 4, 4e9}));
  EXPECT_NEAR(us, 6e9 / 450e9 * 1e6, 0.1 * us);
}

// More bytes never take less, nor do more ranks.
TEST(CollectiveCost, GrowsWithBytesAndRanks) {
  const Chip chip = TestChip();
  for (const auto kind : {CollectiveKind::kAllReduce, CollectiveKind::kAllGather,
                          CollectiveKind::kReduceScatter, CollectiveKind::kAllToAll}) {
    double before = 0;
    for (double bytes = 256; bytes < 1e9; bytes *= 1.5) {
      const double us = Microseconds(CollectiveWork(chip, {kind, 4, bytes, DType::kI8}));
      EXPECT_GE(us, before) << bytes;
      before = us;
    }
  }
}

}  // namespace
}  // namespace millpower::device::chip
