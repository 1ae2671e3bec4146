#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <span>
#include <thread>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "base/page_memory.h"
#include "base/rng.h"
#include "base/system.h"
#include "base/threads.h"

namespace millpower {
namespace {

TEST(DType, F16WidensExactly) {
  EXPECT_EQ(F16ToF32(0x3c00), 1.0f);
  EXPECT_EQ(F16ToF32(0xc000), -2.0f);
  EXPECT_EQ(F16ToF32(0x7bff), 65504.0f);
  EXPECT_EQ(F16ToF32(0x0001), 0x1p-24f);
  EXPECT_EQ(F16ToF32(0x83ff), -1023 * 0x1p-24f);
  EXPECT_TRUE(std::signbit(F16ToF32(0x8000)));
  EXPECT_TRUE(std::isinf(F16ToF32(0x7c00)));
  EXPECT_TRUE(std::isnan(F16ToF32(0x7e00)));
}

TEST(DType, Bf16RoundsToNearestEven) {
  EXPECT_EQ(Bf16ToF32(F32ToBf16(1.0f)), 1.0f);
  EXPECT_EQ(F32ToBf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // tie, to even
  EXPECT_EQ(F32ToBf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(F32ToBf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_TRUE(std::isnan(Bf16ToF32(F32ToBf16(NAN))));
  EXPECT_TRUE(std::isinf(Bf16ToF32(F32ToBf16(3.4e38f))));
}

// A value of f8_e4m3 by its definition.
double F8Value(int bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 7 - 3);
  return bits & 0x80 ? -magnitude : magnitude;
}

TEST(DType, F8E4M3HoldsItsValues) {
  for (int bits = 0; bits < 256; ++bits) {
    const float value = F8E4M3ToF32(static_cast<uint8_t>(bits));
    if ((bits & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value)) << bits;
      EXPECT_EQ(F32ToF8E4M3(value) & 0x7f, 0x7f);
      continue;
    }
    EXPECT_EQ(value, F8Value(bits)) << bits;
    EXPECT_EQ(std::signbit(value), (bits & 0x80) != 0) << bits;
    EXPECT_EQ(F32ToF8E4M3(value), bits);
  }
  EXPECT_EQ(F8E4M3ToF32(0x7e), kF8E4M3Max);
}

// The nearest of all values, found by looking at each; of two as near, the one whose last bit is 0.
TEST(DType, F8E4M3RoundsToNearestEvenAndSaturates) {
  const auto nearest = [](float value) {
    int best = 0;
    for (int bits = 0; bits < 0x7f; ++bits) {
      const double now = std::abs(F8Value(bits) - std::abs(static_cast<double>(value)));
      const double before = std::abs(F8Value(best) - std::abs(static_cast<double>(value)));
      if (now < before || (now == before && bits % 2 == 0)) best = bits;
    }
    return best | (std::signbit(value) ? 0x80 : 0);
  };
  std::vector<float> values = {0.0f, 1e-30f, 0x1p-10f, 0x1.8p-9f, 440,
                               448,  464,    480,      3e38f,     INFINITY};
  for (int bits = 0; bits < 0x7e; ++bits) {  // halfway, and just beside it
    const auto half = static_cast<float>((F8Value(bits) + F8Value(bits + 1)) / 2);
    for (const float beside : {std::nextafter(half, 0.0f), half, std::nextafter(half, 500.0f)})
      values.push_back(beside);
  }
  Rng rng(1);
  for (int i = 0; i < 2000; ++i)
    values.push_back(std::ldexp(rng.Uniform(0.5f, 1), static_cast<int>(rng.Below(24)) - 14));
  for (const float value : values)
    for (const float x : {value, -value}) EXPECT_EQ(F32ToF8E4M3(x), nearest(x)) << x;
  EXPECT_TRUE(std::isnan(F8E4M3ToF32(F32ToF8E4M3(NAN))));
}

TEST(Rng, IsAPureFunctionOfSeedAndCounter) {
  EXPECT_EQ(RandomBits(1, 2), RandomBits(1, 2));
  EXPECT_NE(RandomBits(1, 2), RandomBits(1, 3));
  EXPECT_NE(RandomBits(1, 2), RandomBits(2, 2));
  double sum = 0;
  for (int i = 0; i < 10000; ++i) {
    const float u = RandomUniform(7, static_cast<uint64_t>(i));
    ASSERT_GE(u, 0.0f);
    ASSERT_LT(u, 1.0f);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.01);
}

TEST(Json, RefusesWhatIsNotStrict) {
  EXPECT_TRUE(ParseJson(R"({"a": [1, "[[["]})"));
  for (const char* bad : {"", "{", "[1,]", "{\"a\":1}x", "\"\xff\"", "nul", "// c\n1", "'a'"})
    EXPECT_FALSE(ParseJson(bad)) << bad;
}

TEST(Json, BoundsDepth) {
  EXPECT_TRUE(ParseJson(std::string(kJsonMaxDepth, '[') + std::string(kJsonMaxDepth, ']')));
  const auto deep = ParseJson(std::string(1'000'000, '['));
  ASSERT_FALSE(deep);
  EXPECT_NE(deep.error().message.find("deeper"), std::string::npos);
}

TEST(Json, BoundsKeysOfAnObject) {
  auto object = [](int keys) {
    std::string text = "{\"k\":0";
    for (int i = 1; i < keys; ++i) text += ",\"k" + std::to_string(i) + ":\":[{\"a\":1}]";
    return text + "}";
  };
  EXPECT_TRUE(ParseJson(object(kJsonMaxKeys)));
  const auto wide = ParseJson(object(kJsonMaxKeys + 1));
  ASSERT_FALSE(wide);
  EXPECT_NE(wide.error().message.find("more keys"), std::string::npos);
}

TEST(Json, KeepsKeyOrder) {
  EXPECT_EQ(DumpJson(*ParseJson(R"({"z":1,"a":2})")), R"({"z":1,"a":2})");
}

TEST(MappedFile, TellsWhatIsWrong) {
  EXPECT_EQ(MappedFile::Open("/no/such/file").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(MappedFile::Open("/tmp").error().code, ErrorCode::kInvalidArgument);
  const auto path = std::filesystem::path(testing::TempDir()) / "mapped";
  std::ofstream(path) << "abc";
  auto file = MappedFile::Open(path);
  ASSERT_TRUE(file);
  EXPECT_EQ(file->bytes().size(), 3u);
  EXPECT_EQ(*ReadFile(path, 3), "abc");
  EXPECT_EQ(ReadFile(path, 2).error().code, ErrorCode::kOutOfRange);
}

// Also one that sleeps by then.
TEST(ThreadTeam, SetAndWakeEndsAWait) {
  for (const int delay_us : {0, 20, 2000}) {
    std::atomic<uint32_t> value{0};
    std::jthread waiter([&] { WaitWhileEqual(value, 0); });
    std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
    SetAndWake(value, 1);
  }
}

TEST(PageMemory, IsZeroAndThereOnceTouched) {
  constexpr size_t kBytes = (4 << 20) + 100;
  PageMemory memory(kBytes);
  ASSERT_TRUE(memory.ok());
  memory.Touch();
  EXPECT_TRUE(std::ranges::all_of(std::span(memory.data(), kBytes),
                                  [](std::byte b) { return b == std::byte{0}; }));
  std::vector<unsigned char> resident(kBytes / 4096 + 1);
  ASSERT_EQ(::mincore(memory.data(), kBytes, resident.data()), 0);
  EXPECT_TRUE(std::ranges::all_of(resident, [](unsigned char page) { return (page & 1) == 1; }));
}

// Units are taken by whoever is there; none is lost or done twice, however often members come late.
TEST(ThreadTeam, RunsWithWhoComes) {
  for (const int count : {1, 2, 4}) {
    ThreadTeam team(count);
    for (int round = 0; round < 200; ++round) {
      std::atomic<int> next{0};
      std::vector<int> done(50, 0);  // not atomic: the team's end makes it visible
      std::vector<int> runs(static_cast<size_t>(count), 0);
      const auto work = [&](int member) {
        ++runs[static_cast<size_t>(member)];
        for (int unit = next++; unit < 50; unit = next++) ++done[static_cast<size_t>(unit)];
      };
      if (round % 16 == 0)
        team.Run(work);
      else
        team.RunWithWhoComes(work);
      for (const int each : done) ASSERT_EQ(each, 1);
      ASSERT_EQ(runs[0], 1);
      for (const int each : runs) ASSERT_LE(each, 1);
      for (const int each : runs) ASSERT_GE(each, round % 16 == 0 ? 1 : 0);
    }
  }
}

TEST(ThreadTeam, RunsEveryMember) {
  for (int count : {1, 2, 4}) {
    ThreadTeam team(count);
    std::vector<int> values(static_cast<size_t>(count), 0);
    for (int round = 1; round <= 200; ++round) {
      team.Run([&](int member) { values[static_cast<size_t>(member)] = round; });
      for (int value : values) ASSERT_EQ(value, round) << count << " members";
    }
  }
}

TEST(System, ReportsPlausibleFigures) {
  EXPECT_GE(UsableCpuCount(), 1);
  EXPECT_GT(UsableMemoryBytes(), 64 << 20);
  EXPECT_GT(AvailableMemoryBytes(), 0);
  EXPECT_LE(AvailableMemoryBytes(), UsableMemoryBytes() + (int64_t{1} << 30));
  EXPECT_GT(ResidentBytes(), 0);
}

}  // namespace
}  // namespace millpower
