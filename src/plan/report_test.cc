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

TEST(Report, OfQueriesAddsUpOverReplicas) {
  RankingSetup setup;
  setup.replicas = 2;
  setup.chip.price_usd_per_hour.value = 3.6;
  RankingResult result;
  result.seconds = 1000;
  result.busy_s = 1000;  // of 2000 s of both
  result.steps = 10;
  result.joules = 7200;
  for (int i = 1; i <= 100; ++i) result.requests.push_back({0, i * 0.001, 50, 0});
  const RankingReport report = Report(result, setup, 500);
  EXPECT_EQ(report.items, 5000);
  EXPECT_DOUBLE_EQ(report.launched, 0.5);
  EXPECT_DOUBLE_EQ(report.latency_s.p99, 0.099);
  EXPECT_DOUBLE_EQ(report.items_per_s, 5);
  EXPECT_DOUBLE_EQ(report.items_per_launch, 500);
  EXPECT_DOUBLE_EQ(report.joules_per_query, 72);
  EXPECT_DOUBLE_EQ(report.grams_co2e_per_query, 0.01);
  EXPECT_DOUBLE_EQ(report.usd_per_million_queries, 20000);  // $2 for 100
  EXPECT_DOUBLE_EQ(report.usd_per_million_items, 400);
}

TEST(Outcome, HasALineForWhatIsMeasuredAndNamesItsLatencies) {
  RankingReport report;
  report.latency_s.p99 = 0.012;
  const Outcome outcome = OutcomeOf(report);
  EXPECT_EQ(outcome.latencies.at("p99"), 0.012);
  EXPECT_EQ(outcome.json["latency_s"]["p99"], 0.012);
  EXPECT_DOUBLE_EQ(outcome.measures[2].value, 12);
  EXPECT_EQ(ServingLatencies().size(), 9u);
  EXPECT_EQ(RankingLatencies().size(), 3u);
}

}  // namespace
}  // namespace millpower::plan
