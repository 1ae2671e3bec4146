// What is common to those who make families of metrics by hand.
#pragma once

#include <prometheus/metric_family.h>

#include <utility>
#include <vector>

namespace millpower::serve {

// Adds a sample to a family of gauges or counters.
inline void AddValue(prometheus::MetricFamily& family, double value,
                     std::vector<prometheus::ClientMetric::Label> labels = {}) {
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  if (family.type == prometheus::MetricType::Gauge)
    metric.gauge.value = value;
  else
    metric.counter.value = value;
  family.metric.push_back(std::move(metric));
}

}  // namespace millpower::serve
