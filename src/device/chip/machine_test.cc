#include "device/chip/machine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "isa/opcodes.h"

namespace millpower::device::chip {
namespace {

using isa::Opcode;
using isa::Stream;

// A Program of nothing but an order: instructions whose work the test says.
class Sheet {
 public:
  Sheet& Do(Stream stream, Work work) {
    owned_.push_back(std::make_unique<Work>(std::move(work)));
    return Add(stream, {Opcode::kMap, {}, {}}, owned_.back().get());
  }
  Sheet& Wait(Stream stream, int64_t semaphore, int64_t count = 1) {
    return Add(stream, {Opcode::kWait, {}, {semaphore, count}}, nullptr);
  }
  Sheet& Post(Stream stream, int64_t semaphore, int64_t count = 1) {
    return Add(stream, {Opcode::kPost, {}, {semaphore, count}}, nullptr);
  }
  Result<Played> Play(double prefetch_s = 0) {
    program_.semaphores = 2;
    for (auto s : {Stream::kCompute, Stream::kTransfer, Stream::kLink})
      Add(s, {Opcode::kEnd, {}, {}}, nullptr);
    spans.clear();
    return Machine(prefetch_s).Play(program_, works_, &spans);
  }
  std::vector<Span> spans;

 private:
  Sheet& Add(Stream stream, isa::Instruction instruction, const Work* work) {
    program_.streams[static_cast<size_t>(stream)].push_back(instruction);
    works_[static_cast<size_t>(stream)].push_back(work);
    return *this;
  }
  isa::Program program_;
  std::array<std::vector<const Work*>, isa::kStreamCount> works_;
  std::vector<std::unique_ptr<Work>> owned_;
};

Wave Busy(double memory_s, double matrix_s, int64_t count = 1, double latency_s = 0) {
  Wave wave;
  wave.count = count;
  wave.busy(Unit::kMemory) = memory_s;
  wave.busy(Unit::kMatrix) = matrix_s;
  wave.latency_s = latency_s;
  return wave;
}

double End(Sheet& sheet, double prefetch_s = 0) {
  const auto played = sheet.Play(prefetch_s);
  EXPECT_TRUE(played) << played.error().message;
  return played ? played->end_s : -1;
}

TEST(Machine, AWaveTakesAsLongAsItsBusiestUnitAndItsLatency) {
  Sheet sheet;
  sheet.Do(Stream::kCompute, {0.5, {Busy(3, 2, 1, 0.25)}, {}});
  EXPECT_DOUBLE_EQ(End(sheet), 0.5 + 3 + 0.25);
}

// Transfers of the next wave go on while this one is computed: 1 + 4 · 3, not 4 · (1 + 3).
TEST(Machine, TransfersAreDoubleBuffered) {
  Sheet bound_by_matrix;
  bound_by_matrix.Do(Stream::kCompute, {0, {Busy(1, 3, 4)}, {}});
  EXPECT_DOUBLE_EQ(End(bound_by_matrix), 12);
  Sheet with_latency;
  with_latency.Do(Stream::kCompute, {0, {Busy(4, 3, 4, 1)}, {}});
  // The memory is never idle but behind the first two: 4 waves of 4, the last latency.
  EXPECT_DOUBLE_EQ(End(with_latency), 4 * 4 + 1);
}

TEST(Machine, ManyEqualWavesAreTheSamePlayedOneByOneOrAddedUp) {
  for (const double latency : {0.0, 0.3, 2.0}) {
    for (const double memory : {0.5, 1.0, 1.7}) {
      Sheet together, one_by_one;
      together.Do(Stream::kCompute, {0.1, {Busy(memory, 1, 500, latency)}, {}});
      Work work{0.1, {}, {}};
      work.waves.assign(500, Busy(memory, 1, 1, latency));
      one_by_one.Do(Stream::kCompute, work);
      EXPECT_NEAR(End(together), End(one_by_one), 1e-9) << latency << " " << memory;
    }
  }
}

TEST(Machine, StreamsShareTheMemory) {
  Sheet sheet;
  sheet.Do(Stream::kCompute, {0, {Busy(2, 0)}, {}});
  sheet.Do(Stream::kTransfer, {0, {Busy(3, 0)}, {}});
  EXPECT_DOUBLE_EQ(End(sheet), 5);
  Sheet apart;
  apart.Do(Stream::kCompute, {0, {Busy(0, 2)}, {}});
  apart.Do(Stream::kTransfer, {0, {Busy(3, 0)}, {}});
  EXPECT_DOUBLE_EQ(End(apart), 3);
}

// As a file may have it that describes a chip of tiny tiles.
TEST(Machine, WavesBeyondNumberEnd) {
  constexpr int64_t kMany = 1'000'000'000'000;
  Sheet sheet;
  sheet.Do(Stream::kCompute, {0, {Busy(1, 0, kMany)}, {}});
  sheet.Do(Stream::kTransfer, {0, {Busy(1, 0, kMany)}, {}});
  EXPECT_NEAR(End(sheet) / (2.0 * kMany), 1, 1e-3);
}

TEST(Machine, AWaitHoldsItsStreamUntilAllCountsArePosted) {
  Sheet sheet;
  sheet.Wait(Stream::kCompute, 0, 2).Do(Stream::kCompute, {0, {Busy(0, 1)}, {}});
  sheet.Do(Stream::kTransfer, {0, {Busy(2, 0)}, {}}).Post(Stream::kTransfer, 0);
  sheet.Do(Stream::kTransfer, {0, {Busy(3, 0)}, {}}).Post(Stream::kTransfer, 0);
  EXPECT_DOUBLE_EQ(End(sheet), 6);
}

TEST(Machine, WeightsAreReadAheadAsFarAsBuffersGo) {
  Wave weights = Busy(4, 0);
  weights.weight_share = 1;
  const auto end = [&](double prefetch_s) {
    Sheet sheet;
    sheet.Do(Stream::kCompute, {0, {Busy(0, 10)}, {}});
    sheet.Do(Stream::kCompute, {0, {weights}, {}});
    return End(sheet, prefetch_s);
  };
  EXPECT_DOUBLE_EQ(end(0), 14);
  EXPECT_DOUBLE_EQ(end(1.5), 12.5);
  EXPECT_DOUBLE_EQ(end(100), 10);
  weights.weight_share = 0.5;  // the rest depends on what is computed
  EXPECT_DOUBLE_EQ(end(100), 12);
}

TEST(Machine, AWaitThatNobodyAnswersIsNamed) {
  Sheet sheet;
  sheet.Wait(Stream::kCompute, 1).Post(Stream::kTransfer, 0);
  const auto played = sheet.Play();
  ASSERT_FALSE(played);
  EXPECT_EQ(played.error().message, "compute instruction 0 (wait) waits for ever");
}

TEST(Machine, StreamsThatWaitForEachOtherAreNamed) {
  Sheet sheet;
  sheet.Wait(Stream::kCompute, 0).Post(Stream::kCompute, 1);
  sheet.Wait(Stream::kTransfer, 1).Post(Stream::kTransfer, 0);
  ASSERT_FALSE(sheet.Play());
}

TEST(Machine, CountsThatNobodyTakesAreAnError) {
  Sheet sheet;
  sheet.Post(Stream::kCompute, 1, 3);
  const auto played = sheet.Play();
  ASSERT_FALSE(played);
  EXPECT_EQ(played.error().message, "semaphore 1 has counts that nobody takes");
}

TEST(Machine, SpansSayWhenInstructionsRan) {
  Sheet sheet;
  sheet.Do(Stream::kCompute, {0.5, {Busy(0, 1)}, {}}).Do(Stream::kCompute, {0.5, {Busy(0, 2)}, {}});
  EXPECT_DOUBLE_EQ(End(sheet), 4);
  ASSERT_EQ(sheet.spans.size(), 2u);
  EXPECT_DOUBLE_EQ(sheet.spans[1].begin_s, 1.5);
  EXPECT_DOUBLE_EQ(sheet.spans[1].start_s, 2);
  EXPECT_DOUBLE_EQ(sheet.spans[1].end_s, 4);
}

}  // namespace
}  // namespace millpower::device::chip
