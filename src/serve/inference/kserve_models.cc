#include <fmt/format.h>

#include <string>

#include "serve/build_info.h"
#include "serve/inference/kserve.h"

namespace millpower::serve::kserve {
namespace {

// A size as clients see it: -1 where requests differ.
int64_t PublicSize(const Size& size) { return size.Constant().value_or(-1); }

Json ShapeJson(const ranking::Port& port, size_t from = 0) {
  Json shape = Json::array();
  for (size_t i = from; i < port.shape.size(); ++i) shape.push_back(PublicSize(port.shape[i]));
  return shape;
}

std::string PlatformOf(const ranking::Model& model) {
  return model.signature.format.empty() ? "millpower" : "millpower_" + model.signature.format;
}

// Triton's batching dimension: the first one of everything, which the configuration leaves out. It
// has no word for an input that is one number for each row, and its perf_analyzer fails on what
// such an input leaves: none then.
bool HasBatchDimension(const ranking::Model& model) {
  if (model.signature.batch.empty()) return false;
  const Size batch = Size::Symbol(model.signature.batch);
  const auto begins = [&](const ranking::Port& port) {
    return !port.shape.empty() && port.shape[0] == batch;
  };
  const auto begins_and_goes_on = [&](const ranking::Port& port) {
    return begins(port) && port.shape.size() > 1;
  };
  return std::ranges::all_of(model.signature.inputs, begins_and_goes_on) &&
         std::ranges::all_of(model.signature.outputs, begins);
}

Json PortsMetadata(const std::vector<ranking::Port>& ports) {
  Json list = Json::array();
  for (const ranking::Port& port : ports)
    list.push_back(
        {{"name", port.name}, {"datatype", DatatypeOf(port)}, {"shape", ShapeJson(port)}});
  return list;
}

Json PortsConfig(const std::vector<ranking::Port>& ports, bool has_batch) {
  Json list = Json::array();
  for (const ranking::Port& port : ports) {
    const std::string type = port.is_string ? "STRING" : DatatypeOf(port);
    list.push_back({{"name", port.name},
                    {"data_type", "TYPE_" + type},
                    {"dims", ShapeJson(port, has_batch ? 1 : 0)}});
  }
  return list;
}

Json TimingJson(const ranking::Timing& timing) {
  return {{"count", timing.count}, {"ns", timing.ns}};
}

}  // namespace

Json ServerMetadata() {
  return {{"name", "millpower"},
          {"version", kVersion},
          {"extensions",
           {"binary_tensor_data", "model_configuration", "model_repository", "parameters",
            "statistics"}}};
}

Json ModelMetadata(const ranking::Model& model, const std::vector<int64_t>& versions) {
  Json json = {{"name", model.name}};
  json["versions"] = Json::array();
  for (const int64_t version : versions) json["versions"].push_back(std::to_string(version));
  json["platform"] = PlatformOf(model);
  json["inputs"] = PortsMetadata(model.signature.inputs);
  json["outputs"] = PortsMetadata(model.signature.outputs);
  return json;
}

Json ModelConfig(const ranking::Model& model) {
  const bool has_batch = HasBatchDimension(model);
  Json json = {{"name", model.name},
               {"platform", PlatformOf(model)},
               {"backend", "millpower"},
               {"version_policy", {{"latest", {{"num_versions", 1}}}}},
               {"max_batch_size", has_batch ? model.config.max_batch : 0}};
  json["input"] = PortsConfig(model.signature.inputs, has_batch);
  json["output"] = PortsConfig(model.signature.outputs, has_batch);
  if (model.joins)
    json["dynamic_batching"] = {
        {"preferred_batch_size", Json::array()},
        {"max_queue_delay_microseconds", model.config.max_queue_delay_us},
        {"default_queue_policy", {{"max_queue_size", model.config.max_queue}}}};
  json["instance_group"] =
      Json::array({{{"name", model.name}, {"kind", "KIND_CPU"}, {"count", 1}}});
  return json;
}

Json ModelStatistics(const ranking::Model& model, const ranking::ModelStats& stats) {
  Json batches = Json::array();
  for (const auto& [rows, compute] : stats.by_batch)
    batches.push_back({{"batch_size", rows},
                       {"compute_input", TimingJson({compute.count, 0})},
                       {"compute_infer", TimingJson(compute)},
                       {"compute_output", TimingJson({compute.count, 0})}});
  Json json = {{"name", model.name},
               {"version", std::to_string(model.version)},
               {"last_inference", stats.last_unix_ms},
               {"inference_count", stats.rows},
               {"execution_count", stats.launches}};
  json["inference_stats"] = {{"success", TimingJson(stats.success)},
                             {"fail", TimingJson(stats.fail)},
                             {"queue", TimingJson(stats.queue)},
                             {"compute_input", TimingJson(stats.input)},
                             {"compute_infer", TimingJson(stats.compute)},
                             {"compute_output", TimingJson(stats.output)},
                             {"cache_hit", TimingJson({})},
                             {"cache_miss", TimingJson({})}};
  json["response_stats"] = Json::object();
  json["batch_stats"] = std::move(batches);
  json["memory_usage"] = Json::array();
  return json;
}

}  // namespace millpower::serve::kserve
