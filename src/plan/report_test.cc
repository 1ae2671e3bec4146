#include "plan/report.h"

#include <gtest/gtest.h>

namespace millpower::plan {
namespace {

TEST(Percentiles, AreNearestRanks) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const Percentiles p = PercentilesOf(values);
  EXPECT_EQ(p.p50, 50);
  EXPECT_EQ(p.p90, 90);
  EXPECT_EQ(p.p99, 99);
  EXPECT_DOUBLE_EQ(p.mean, 50.5);
  EXPECT_EQ(PercentilesOf({7}).p99, 7);
  EXPECT_EQ(PercentilesOf({}).p50, 0);
}

TEST(Objectives, AreNamedWithTheirUnit) {
  const auto objectives = ParseObjectives("ttft_p99_s=1,tpot_p50_ms=50");
  ASSERT_TRUE(objectives) << objectives.error().message;
  ASSERT_EQ(objectives->size(), 2u);
  ServingReport report;
  report.ttft_s.p99 = 1.5;
  report.tpot_s.p50 = 0.049;
  const auto missed = Missed(*objectives, report);
  ASSERT_EQ(missed.size(), 1u);
  EXPECT_EQ(missed[0], "ttft_p99_s=1: 1.5 s");
  for (const char* wrong :
       {"ttft_p99=1", "ttft_p99_s", "ttft_p98_s=1", "ttft_p99_s=-1", "ttft_p99_s=nan", ""})
    EXPECT_FALSE(*wrong != 0 ? bool(ParseObjectives(wrong)) : false) << wrong;
}

TEST(Report, AddsUpMoneyAndCarbon) {
  ServingSetup setup;
  setup.ranks = 2;
  setup.chip.price_usd_per_hour.value = 3.6;
  ServingResult result;
  result.seconds = 1000;
  result.busy_s = 900;
  result.joules = 7.2e6;
  result.requests.push_back({0, 10, 20, 5, 1000, 0, 0});
  const ServingReport report = Report(result, setup, 500);
  EXPECT_DOUBLE_EQ(report.joules_per_output_token, 7200);
  EXPECT_DOUBLE_EQ(report.grams_co2e_per_output_token, 1);  // 2 kWh of 500 g over 1000 tokens
  EXPECT_DOUBLE_EQ(report.usd_per_million_output_tokens, 2000);
  EXPECT_DOUBLE_EQ(report.ttft_s.p50, 10);
}

}  // namespace
}  // namespace millpower::plan
