#include "device/chip/cost_host.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "device/chip/description.h"

namespace millpower::device::chip {
namespace {

// Two threads; 100 GMAC/s; weights cost nothing to load unless a test says so.
Chip Host() {
  Chip chip = *ReadChip("host");
  chip = chip.At(Bound::kValue);
  chip.cores.value = 2;
  for (const MatrixType type : {MatrixType::kF32, MatrixType::kBf16, MatrixType::kInt8})
    chip.matrix[static_cast<size_t>(type)].ops_per_s.value = 200e9;
  chip.memory.bytes_per_s.value = 10e9;
  chip.memory.efficiency.value = 1;
  chip.cache.bytes.value = 32e6;
  chip.cache.bytes_per_s.value = 1e15;
  chip.scratchpad.bytes.value = 2e6;
  chip.scratchpad.bytes_per_s.value = 1e15;
  chip.issue_s.value = 1e-7;
  chip.fitted[kHostKind] = {};
  chip.fitted[kHostWeightsKind] = {};
  const auto set = [&](const char* kind, const char* name, double value) {
    chip.fitted[kind][name] = {value, value, value, "test", false};
  };
  set(kHostKind, "meet_s", 1e-6);
  set(kHostKind, "overlap_power", 2);
  set(kHostKind, "memory_power", 2);
  set(kHostKind, "thread_share", 0.5);
  set(kHostKind, "thread_memory_share", 0.5);
  set(kHostKind, "attention_efficiency", 1);
  set(kHostKind, "append_s", 3e-9);
  set(kHostWeightsKind, "load_rows_bf16", 1e-6);
  return chip;
}

double Seconds(const Work& work) {
  double seconds = work.issue_s;
  for (const Wave& wave : work.waves)
    seconds +=
        static_cast<double>(wave.count) * (*std::ranges::max_element(wave.busy_s) + wave.latency_s);
  return seconds;
}

MatMulShape Product(int64_t rows, int64_t channels, int64_t steps, double program_bytes) {
  MatMulShape shape;
  shape.rows = rows;
  shape.channels = channels;
  shape.steps = steps;
  shape.program_weight_bytes = program_bytes;
  return shape;
}

TEST(HostCost, AChipWithoutConstantsOfTheHostIsNone) {
  EXPECT_TRUE(IsHost(Host()));
  EXPECT_TRUE(IsHost(*ReadChip("host")));
  EXPECT_FALSE(IsHost(*ReadChip("h100")));
}

TEST(HostCost, OneRowTakesAsLongAsItsWeightsComeFromMemory) {
  const Chip chip = Host();
  // 2^25 values: 67 MB at 10 GB/s, and 0.336 ms of computing for each of the two rows that take as
  // long as one.
  const auto work = *MatMulWork(chip, Product(1, 1 << 15, 1 << 10, 1e9));
  const double memory_s = (1 << 25) * 2.0 / 10e9, compute_s = 2.0 * (1 << 25) / 100e9;
  EXPECT_NEAR(Seconds(work), 1e-6 + std::hypot(memory_s, compute_s), 1e-9);
  EXPECT_EQ(work.traffic.weights, 2.0 * (1 << 25));
}

TEST(HostCost, ManyRowsGoByTheRateOfComputing) {
  const Chip chip = Host();
  const double hundred = Seconds(*MatMulWork(chip, Product(96, 1 << 13, 1 << 10, 1e9)));
  const double twice = Seconds(*MatMulWork(chip, Product(192, 1 << 13, 1 << 10, 1e9)));
  EXPECT_NEAR(hundred, 96.0 * (1 << 23) / 100e9, 0.05 * hundred);
  EXPECT_NEAR(twice / hundred, 2, 0.05);
}

TEST(HostCost, WeightsThatTheCacheHoldsCostNoMemory) {
  const Chip chip = Host();
  EXPECT_EQ(MatMulWork(chip, Product(1, 1024, 1024, 10e6))->traffic.weights, 0);
  EXPECT_GT(MatMulWork(chip, Product(1, 1024, 1024, 30e6))->traffic.weights, 0);
  // Between the threads' own caches and memory, the cache's rate.
  Chip slow = chip;
  slow.cache.bytes_per_s.value = 15e9;
  EXPECT_GT(Seconds(*MatMulWork(slow, Product(1, 1024, 1024, 10e6))),
            5 * Seconds(*MatMulWork(chip, Product(1, 1024, 1024, 10e6))));
}

TEST(HostCost, LoadingIsPaidOnceForEachTileOfRows) {
  Chip chip = Host();
  chip.fitted[kHostWeightsKind]["load_rows_q8_0"] = {30, 30, 30, "test", false};
  MatMulShape shape = Product(6, 4096, 1024, 0);
  shape.weights = DType::kQ8_0;
  shape.quantised = true;
  shape.program_weight_bytes = 0;
  const double six = Seconds(*MatMulWork(chip, shape));
  shape.rows = 12;
  EXPECT_NEAR(Seconds(*MatMulWork(chip, shape)) / six, 2, 0.02);
}

TEST(HostCost, LittleWorkStaysOnOneThread) {
  Chip chip = Host();
  // 2^16 products: below what is shared. One thread has half of the rate, and nobody meets.
  const double alone = Seconds(*MatMulWork(chip, Product(2, 64, 512, 1e5)));
  EXPECT_NEAR(alone, 1e-7 + (1 << 16) / 50e9, 1e-9);
  // Threads of one core do not gain from being two.
  chip.fitted[kHostKind]["thread_share"].value = 1;
  EXPECT_NEAR(Seconds(*MatMulWork(chip, Product(2, 64, 512, 1e5))), 1e-7 + (1 << 16) / 100e9, 1e-9);
}

TEST(HostCost, AnOddPanelLeavesAThreadIdle) {
  const Chip chip = Host();
  const double two = Seconds(*MatMulWork(chip, Product(12, 128, 1 << 14, 0)));
  const double three = Seconds(*MatMulWork(chip, Product(12, 192, 1 << 14, 0)));
  EXPECT_NEAR((three - 1e-6) / (two - 1e-6), 2, 0.01);
}

TEST(HostCost, FewSumsWaitForEachOther) {
  const Chip chip = Host();
  // Of one block and a row 1 sum, of four blocks and two rows 8: as many steps, as long.
  const double one = Seconds(*MatMulWork(chip, Product(1, 16, 4096, 1e5)));
  EXPECT_NEAR(Seconds(*MatMulWork(chip, Product(8, 16, 4096, 1e5))), one, 1e-9);
  EXPECT_NEAR(Seconds(*MatMulWork(chip, Product(2, 64, 1023, 1e5))) - 1e-7,
              (one - 1e-7) * 1023 / 4096, 1e-9);
}

TEST(HostCost, RowsThatAnotherThreadWroteTakeTimeUnlessThreadsHaveTheirOwn) {
  Chip chip = Host();
  const auto rise = [&](const MatMulShape& shape) {
    chip.fitted[kHostKind]["exchange_s"] = {0, 0, 0, "test", false};
    const double without = Seconds(*MatMulWork(chip, shape));
    chip.fitted[kHostKind]["exchange_s"] = {1e-9, 1e-9, 1e-9, "test", false};
    return Seconds(*MatMulWork(chip, shape)) - without;
  };
  EXPECT_NEAR(rise(Product(8, 512, 1024, 1e6)), 8 * 1024 * 4 / 2 * 1e-9, 1e-12);
  EXPECT_NEAR(rise(Product(16, 512, 1024, 1e6)), 0, 1e-12);  // each has 8 of its own
  EXPECT_GT(rise(Product(16, 512, 1024, 1e9)), 0);           // the weight comes from memory
  EXPECT_NEAR(rise(Product(1, 64, 1024, 1e6)), 0, 1e-12);    // one thread does all of it
}

TEST(HostCost, FinishingASumTakesSomeSteps) {
  Chip chip = Host();
  const double plain = Seconds(*MatMulWork(chip, Product(16, 1024, 512, 0)));
  chip.fitted[kHostKind]["finish_steps"] = {64, 64, 64, "test", false};
  const double finished = Seconds(*MatMulWork(chip, Product(16, 1024, 512, 0)));
  EXPECT_NEAR((finished - 1e-6) / (plain - 1e-6), (512.0 + 64) / 512, 1e-3);
}

TEST(HostCost, ChannelsAreWholeLines) {
  const Chip chip = Host();
  EXPECT_EQ(Seconds(*MatMulWork(chip, Product(4, 1, 512, 0))),
            Seconds(*MatMulWork(chip, Product(4, 16, 512, 0))));
  EXPECT_LT(Seconds(*MatMulWork(chip, Product(4, 16, 512, 0))),
            Seconds(*MatMulWork(chip, Product(4, 17, 512, 0))));
}

// Rows come from the thread's own cache, from the last one, or from memory: each takes longer.
TEST(HostCost, RowsOfTablesTakeAsLongAsTheyAreFar) {
  Chip chip = Host();
  const auto set = [&](const char* name, double value) {
    chip.fitted[kHostTablesKind][name] = {value, value, value, "test", false};
  };
  set("bag_s", 1e-9);
  set("item_s", 1e-9);
  set("far_s", 5e-9);
  set("miss_s", 20e-9);
  chip.cache.latency_s.value = 30e-9;
  chip.memory.latency_s.value = 100e-9;
  RowTraffic bags{.random_reads = 100, .random_bytes = 64, .rows = 100};
  const auto seconds = [&](double cached, double near) {
    bags.cached_share = cached;
    bags.near_share = near;
    return Seconds(HostRowWork(chip, bags));
  };
  // One thread, at half of all threads' rate; a latency is nobody's to share.
  const double near = seconds(1, 1);
  EXPECT_NEAR(seconds(1, 0) - near, 100 * 5e-9 / 0.5 + 30e-9, 1e-12);
  EXPECT_NEAR(seconds(0, 0) - near, 100 * (20e-9 + 64 / 10e9) / 0.5 + 100e-9, 1e-12);
}

TEST(HostCost, DecodeReadsItsKeysAndValues) {
  const Chip chip = Host();
  const AttentionShape shape{.heads = 16, .kv_heads = 8, .head_dim = 128};
  const std::vector<QueryRun> one = {{1, 1023}};
  const std::vector<QueryRun> eight(8, QueryRun{1, 1023});
  const Work work = AttentionWork(chip, shape, one);
  EXPECT_EQ(work.traffic.memory_read, 1024.0 * 8 * 128 * 2 * 2);
  EXPECT_NEAR(Seconds(AttentionWork(chip, shape, eight)) / Seconds(work), 8, 0.2);
  // A window bounds what is read.
  AttentionShape window = shape;
  window.window = 128;
  EXPECT_EQ(AttentionWork(chip, window, one).traffic.memory_read, 128.0 * 8 * 128 * 2 * 2);
}

TEST(HostCost, AppendingGoesByNewRowsAlone) {
  const Chip chip = Host();
  const AttentionShape shape{.heads = 16, .kv_heads = 8, .head_dim = 128};
  const double few = Seconds(HostKvAppendWork(chip, shape, 64, 64));
  EXPECT_NEAR(Seconds(HostKvAppendWork(chip, shape, 128, 128)) / few, 2, 0.1);
  // The rows of one sequence are one thread's, up to 32 of them.
  EXPECT_GT(Seconds(HostKvAppendWork(chip, shape, 32, 1)),
            1.5 * Seconds(HostKvAppendWork(chip, shape, 32, 32)));
}

TEST(HostCost, InstructionsNeverOverlap) {
  const Work work = *MatMulWork(Host(), Product(8, 4096, 1024, 1e9));
  ASSERT_EQ(work.waves.size(), 1);
  EXPECT_EQ(work.issue_s, 0);
  EXPECT_EQ(work.waves[0].busy(Unit::kVector), Seconds(work));
}

}  // namespace
}  // namespace millpower::device::chip
