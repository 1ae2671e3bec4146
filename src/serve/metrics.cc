#include "serve/metrics.h"

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "base/system.h"

namespace millpower::serve {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

const prometheus::Histogram::BucketBoundaries kRequestSeconds = {
    0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600};
const prometheus::Histogram::BucketBoundaries kTokenSeconds = {
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5};

// One number of the engines', as Prometheus sees it.
struct EngineSeries {
  const char* name;
  const char* help;
  MetricType type;
  double (*value)(const engine::EngineStats&);
};

#define MP_STAT(field) [](const engine::EngineStats& stats) { return double(stats.field); }
constexpr EngineSeries kEngineSeries[] = {
    {"millpower_requests_running", "Generations in the batch", MetricType::Gauge,
     MP_STAT(requests_running)},
    {"millpower_requests_waiting", "Generations queued", MetricType::Gauge,
     MP_STAT(requests_waiting)},
    {"millpower_kv_pages_total", "KV cache pages there are", MetricType::Gauge,
     MP_STAT(kv_pages_total)},
    {"millpower_kv_pages_used", "KV cache pages in use", MetricType::Gauge, MP_STAT(kv_pages_used)},
    {"millpower_engine_steps_total", "Launches of the model", MetricType::Counter, MP_STAT(steps)},
    {"millpower_prompt_tokens_total", "Prompt tokens taken in", MetricType::Counter,
     MP_STAT(prompt_tokens)},
    {"millpower_generated_tokens_total", "Tokens generated", MetricType::Counter,
     MP_STAT(generated_tokens)},
    {"millpower_generations_finished_total", "Generations ended, for whatever reason",
     MetricType::Counter, MP_STAT(requests_finished)},
    {"millpower_generations_cancelled_total", "Generations ended because their client left",
     MetricType::Counter, MP_STAT(requests_cancelled)},
    {"millpower_device_busy_seconds_total", "Time the device spent on launches",
     MetricType::Counter,
     [](const engine::EngineStats& stats) { return double(stats.device_busy_ns) * 1e-9; }},
};
#undef MP_STAT

void AddValue(MetricFamily& family, double value, std::vector<ClientMetric::Label> labels = {}) {
  ClientMetric metric;
  metric.label = std::move(labels);
  if (family.type == MetricType::Gauge)
    metric.gauge.value = value;
  else
    metric.counter.value = value;
  family.metric.push_back(std::move(metric));
}

MetricFamily OneGauge(const char* name, const char* help, double value,
                      std::vector<ClientMetric::Label> labels = {}) {
  MetricFamily family{name, help, MetricType::Gauge, {}};
  AddValue(family, value, std::move(labels));
  return family;
}

}  // namespace

struct Metrics::Impl {
  const ModelRegistry& models;
  const std::string version;
  const std::function<int64_t()> connection_count;
  prometheus::Registry registry{};

  prometheus::Family<prometheus::Counter>& requests =
      prometheus::BuildCounter()
          .Name("millpower_http_requests_total")
          .Help("Requests answered; status 499: the client left first")
          .Register(registry);
  prometheus::Family<prometheus::Histogram>& request_seconds = Histograms(
      "millpower_http_request_seconds", "From the end of the request to that of the answer");
  prometheus::Family<prometheus::Histogram>& first_token_seconds = Histograms(
      "millpower_time_to_first_token_seconds", "From a request's arrival to its first token");
  prometheus::Family<prometheus::Histogram>& token_seconds =
      Histograms("millpower_inter_token_seconds", "From one token to the next");
  prometheus::Family<prometheus::Histogram>& generation_seconds =
      Histograms("millpower_generation_seconds", "From a request's arrival to its last token");

  prometheus::Family<prometheus::Histogram>& Histograms(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
  }

  // Numbers that others keep, read when they are asked for.
  std::vector<MetricFamily> Collect() const {
    std::vector<MetricFamily> families;
    for (const EngineSeries& series : kEngineSeries)
      families.push_back({series.name, series.help, series.type, {}});
    for (const auto& model : models.All()) {
      const engine::EngineStats stats = model->engine->Stats();
      for (size_t i = 0; i < std::size(kEngineSeries); ++i)
        AddValue(families[i], kEngineSeries[i].value(stats), {{"model", model->name}});
    }
    families.push_back(OneGauge("millpower_http_connections", "Client connections",
                                static_cast<double>(connection_count())));
    families.push_back(OneGauge("millpower_process_resident_bytes", "Memory of this process",
                                static_cast<double>(ResidentBytes())));
    families.push_back(
        OneGauge("millpower_build_info", "Always 1; the labels tell", 1, {{"version", version}}));
    return families;
  }
};

Metrics::Metrics(const ModelRegistry& models, std::string version,
                 std::function<int64_t()> connection_count)
    : impl_(new Impl{models, std::move(version), std::move(connection_count)}) {}

Metrics::~Metrics() = default;

void Metrics::CountRequest(const char* route, int status, double seconds) {
  impl_->requests.Add({{"route", route}, {"status", std::to_string(status)}}).Increment();
  impl_->request_seconds.Add({{"route", route}}, kRequestSeconds).Observe(seconds);
}

void Metrics::ObserveFirstToken(const std::string& model, double seconds) {
  impl_->first_token_seconds.Add({{"model", model}}, kRequestSeconds).Observe(seconds);
}

void Metrics::ObserveTokens(const std::string& model, int count, double seconds) {
  prometheus::Histogram& histogram = impl_->token_seconds.Add({{"model", model}}, kTokenSeconds);
  for (int i = 0; i < count; ++i) histogram.Observe(seconds / count);
}

void Metrics::ObserveGeneration(const std::string& model, double seconds) {
  impl_->generation_seconds.Add({{"model", model}}, kRequestSeconds).Observe(seconds);
}

std::string Metrics::Text() const {
  std::vector<MetricFamily> families = impl_->registry.Collect();
  std::ranges::move(impl_->Collect(), std::back_inserter(families));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace millpower::serve
