#include "plan/objectives.h"

#include <gtest/gtest.h>

namespace millpower::plan {
namespace {

const std::vector<std::string> kNames = {"tpot_p50", "ttft_p99"};

TEST(Objectives, AreNamedWithTheirUnit) {
  const auto objectives = ParseObjectives("ttft_p99_s=1,tpot_p50_ms=50", kNames);
  ASSERT_TRUE(objectives) << objectives.error().message;
  ASSERT_EQ(objectives->size(), 2u);
  const auto missed = Missed(*objectives, {{"ttft_p99", 1.5}, {"tpot_p50", 0.049}});
  ASSERT_EQ(missed.size(), 1u);
  EXPECT_EQ(missed[0], "ttft_p99_s=1: 1.5 s");
}

TEST(Objectives, WrongOnesListTheNames) {
  for (const char* wrong : {"ttft_p99=1", "ttft_p99_s", "ttft_p98_s=1", "ttft_p99_s=-1",
                            "ttft_p99_s=nan", "", "ttft_p99_s=1,", ",ttft_p99_s=1"}) {
    const auto objectives = ParseObjectives(wrong, kNames);
    ASSERT_FALSE(objectives) << wrong;
    EXPECT_NE(objectives.error().message.find("tpot_p50, ttft_p99"), std::string::npos) << wrong;
  }
}

}  // namespace
}  // namespace millpower::plan
