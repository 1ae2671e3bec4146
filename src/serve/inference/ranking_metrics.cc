#include "serve/inference/ranking_metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <cmath>
#include <iterator>
#include <utility>
#include <vector>

#include "serve/metric_family.h"

namespace millpower::serve {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using ranking::ModelStats;

// One number of a model.
struct Series {
  const char* name;
  const char* help;
  MetricType type;
  double (*value)(const ModelStats&);
};
#define MP_STAT(expression) [](const ModelStats& stats) { return double(stats.expression); }
constexpr Series kSeries[] = {
    {"millpower_ranking_requests_waiting", "Requests queued", MetricType::Gauge, MP_STAT(waiting)},
    {"millpower_ranking_waiting_bytes", "Inputs of the requests queued", MetricType::Gauge,
     MP_STAT(waiting_bytes)},
    {"millpower_ranking_rows_total", "Rows (candidates) answered", MetricType::Counter,
     MP_STAT(rows)},
    {"millpower_ranking_launches_total", "Launches that were answered from", MetricType::Counter,
     MP_STAT(launches)},
    {"millpower_ranking_repeated_launches_total",
     "Launches made again in parts, to find whose input faults", MetricType::Counter,
     MP_STAT(repeated_launches)},
    {"millpower_ranking_faulted_launches_total", "Launches that ended in an error",
     MetricType::Counter, MP_STAT(faulted.count)},
    {"millpower_ranking_faulted_seconds_total", "Time of launches that ended in an error",
     MetricType::Counter, [](const ModelStats& stats) { return double(stats.faulted.ns) * 1e-9; }},
    {"millpower_ranking_row_updates_total", "Requests that changed rows of embedding tables",
     MetricType::Counter, MP_STAT(updates)},
    {"millpower_ranking_row_updates_refused_total",
     "Requests to change rows of embedding tables that were refused", MetricType::Counter,
     MP_STAT(refused_updates)},
    {"millpower_ranking_updated_rows_total", "Rows of embedding tables that were changed",
     MetricType::Counter, MP_STAT(updated_rows)},
    {"millpower_ranking_device_busy_seconds_total", "Time the device spent on launches",
     MetricType::Counter, [](const ModelStats& stats) { return double(stats.device_ns) * 1e-9; }},
};
#undef MP_STAT

// How requests ended.
constexpr struct {
  const char* outcome;
  int64_t (*count)(const ModelStats&);
} kOutcomes[] = {
    {"success", [](const ModelStats& stats) { return stats.success.count; }},
    {"cancelled", [](const ModelStats& stats) { return stats.cancelled; }},
    {"expired", [](const ModelStats& stats) { return stats.expired; }},
    {"error",
     [](const ModelStats& stats) { return stats.fail.count - stats.cancelled - stats.expired; }},
    {"refused", [](const ModelStats& stats) { return stats.refused; }},
};

constexpr struct {
  const char* name;
  const char* help;
  ranking::Durations ModelStats::* durations;
} kHistograms[] = {
    {"millpower_ranking_queue_seconds", "From submission to the launch",
     &ModelStats::queue_durations},
    {"millpower_ranking_request_seconds", "From submission to the answer",
     &ModelStats::request_durations},
};

using Labels = std::vector<ClientMetric::Label>;

void AddHistogram(MetricFamily& family, const std::vector<std::pair<double, int64_t>>& buckets,
                  double sum, Labels labels) {
  ClientMetric metric;
  metric.label = std::move(labels);
  uint64_t total = 0;
  for (const auto& [bound, count] : buckets) {
    total += static_cast<uint64_t>(count);
    metric.histogram.bucket.push_back({.cumulative_count = total, .upper_bound = bound});
  }
  metric.histogram.sample_count = total;
  metric.histogram.sample_sum = sum;
  family.metric.push_back(std::move(metric));
}

void AddDurations(MetricFamily& family, const ranking::Durations& durations, Labels labels) {
  std::vector<std::pair<double, int64_t>> buckets;
  for (int i = 0; i < ranking::kDurationBuckets; ++i) {
    const bool is_last = i + 1 == ranking::kDurationBuckets;
    buckets.emplace_back(is_last ? INFINITY : std::ldexp(1e-6, i),
                         durations.buckets[static_cast<size_t>(i)]);
  }
  AddHistogram(family, buckets, static_cast<double>(durations.total.ns) * 1e-9, std::move(labels));
}

// Launches by rows, in powers of two.
void AddBatches(MetricFamily& family, const ModelStats& stats, Labels labels) {
  constexpr int kBuckets = 16;  // up to 32768
  std::vector<std::pair<double, int64_t>> buckets;
  for (int i = 0; i < kBuckets; ++i) buckets.emplace_back(std::ldexp(1, i), 0);
  buckets.emplace_back(INFINITY, 0);
  for (const auto& [rows, compute] : stats.by_batch) {
    size_t at = 0;
    while (static_cast<double>(rows) > buckets[at].first) ++at;
    buckets[at].second += compute.count;
  }
  AddHistogram(family, buckets, static_cast<double>(stats.rows), std::move(labels));
}

}  // namespace

std::string RankingMetricsText(const ranking::Engine& engine) {
  std::vector<MetricFamily> families;
  for (const Series& each : kSeries) families.push_back({each.name, each.help, each.type, {}});
  MetricFamily requests{"millpower_ranking_requests_total",
                        "Requests to models that rank, by how they ended",
                        MetricType::Counter,
                        {}};
  MetricFamily batches{
      "millpower_ranking_launch_rows", "Rows that share a launch", MetricType::Histogram, {}};
  std::vector<MetricFamily> histograms;
  for (const auto& each : kHistograms)
    histograms.push_back({each.name, each.help, MetricType::Histogram, {}});
  for (const ranking::ModelPtr& model : engine.All()) {
    const Labels labels = {{"model", model->name}, {"version", std::to_string(model->version)}};
    const ModelStats stats = engine.Stats(model);
    for (size_t i = 0; i < std::size(kSeries); ++i)
      AddValue(families[i], kSeries[i].value(stats), labels);
    for (const auto& each : kOutcomes) {
      Labels with_outcome = labels;
      with_outcome.push_back({"outcome", each.outcome});
      AddValue(requests, static_cast<double>(each.count(stats)), std::move(with_outcome));
    }
    for (size_t i = 0; i < std::size(kHistograms); ++i)
      AddDurations(histograms[i], stats.*kHistograms[i].durations, labels);
    AddBatches(batches, stats, labels);
  }
  families.push_back(std::move(requests));
  families.push_back(std::move(batches));
  for (MetricFamily& family : histograms) families.push_back(std::move(family));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace millpower::serve
