#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "base/dtype.h"
#include "base/json.h"
#include "base/mapped_file.h"
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

TEST(ThreadTeam, RunsEveryMemberAndSynchronises) {
  for (int count : {1, 2, 4}) {
    ThreadTeam team(count);
    std::vector<int> values(static_cast<size_t>(count), 0);
    for (int round = 1; round <= 200; ++round) {
      std::atomic<bool> ok{true};
      team.Run([&](int member) {
        values[static_cast<size_t>(member)] = round;
        team.Sync();
        for (int value : values) ok = ok && value == round;
        team.Sync();
      });
      ASSERT_TRUE(ok) << count << " members, round " << round;
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
