#include "chip_truth/predict.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>

#include "compile/compile.h"
#include "device/chip/timer.h"
#include "import/qwen3/graph.h"
#include "import/qwen3/published.h"
#include "ir/graph.h"
#include "isa/layout.h"
#include "isa/sampling.h"
#include "plan/report.h"
#include "plan/serving.h"

namespace millpower::truth {
namespace {

namespace chip = device::chip;
using ir::Constant;
using ir::Op;
using ir::Symbol;

// Of the rows that a message is cut into, for each rank.
constexpr int64_t kCollectiveColumns = 4096;

std::unexpected<Error> Refuse(const std::string& what) {
  return Fail(ErrorCode::kUnsupported, what);
}

// A row's operator: a graph, how it is compiled, and the launch.
struct Question {
  std::string group, shape;
  ir::Graph graph;
  compile::Options options;
  std::map<std::string, int64_t> registers;
  // Of attention: rows and first position of each sequence.
  std::vector<chip::QueryRun> runs;
  chip::RoutingModel routing;
  double other_weight_bytes = 0;
  int ranks = 1;
  std::optional<DType> collective_type;
  // Which instructions were measured; null: all.
  std::function<bool(isa::Opcode)> measured;
};

// The measurements' names of number types, as the instruction set has them: SmoothQuant's int8 has
// scales for each row and channel, ours for groups of 32; fp8 rows quantise their activations.
Result<void> SetWeights(const std::string& type, compile::Options& options) {
  options.weight_only = type.ends_with("_wo");
  if (type == "bfloat16")
    options.weight_type = DType::kBf16;
  else if (type == "fp8" || type == "fp8_block")
    options.weight_type = DType::kF8E4M3;
  else if (type == "sq" || type == "int8" || type == "int8_wo")
    options.weight_type = DType::kQ8_0;
  else if (type == "int4_wo")
    options.weight_type = DType::kQ4_0;
  else
    return Refuse("the instruction set has no products of type '" + type + "'");
  return {};
}

Result<Question> GemmQuestion(const Row& row) {
  TRY_ASSIGN(const int64_t m, row.Integer("m"));
  TRY_ASSIGN(const int64_t n, row.Integer("n"));
  TRY_ASSIGN(const int64_t k, row.Integer("k"));
  const std::string& type = row.Text("gemm_dtype");
  Question question;
  question.group = type;
  question.shape = fmt::format("m={} n={} k={}", m, n, k);
  TRY(SetWeights(type, question.options));
  ir::Graph& graph = question.graph;
  graph.name = "gemm";
  graph.AddSymbol("rows", m);
  const auto x = graph.AddInput("x", DType::kF32, {Symbol("rows"), Constant(k)});
  const auto w = graph.AddWeight("w", DType::kBf16, {Constant(n), Constant(k)});
  TRY_ASSIGN(const auto y, graph.AddNode(Op::kLinear, "y", {x, w}));
  graph.AddOutput(y);
  question.registers = {{"rows", m}};
  // The measurements go round six layers of the same shape.
  const DType stored = *question.options.weight_type;
  question.other_weight_bytes =
      5.0 * static_cast<double>(n) * static_cast<double>(k) *
      (IsBlockType(stored) ? static_cast<double>(BlockBytes(stored)) / BlockSize(stored)
                           : static_cast<double>(SizeBytes(stored)));
  // SmoothQuant's rows come quantised; what quantises those of fp8 was measured with the product.
  if (type == "sq") question.measured = [](isa::Opcode op) { return op == isa::Opcode::kMatMul; };
  return question;
}

Result<DType> KvType(const std::string& name) {
  if (name == "bfloat16") return DType::kBf16;
  if (name == "int8") return DType::kI8;
  if (name == "fp8") return DType::kF8E4M3;
  return Refuse("KV pages of type '" + name + "'");
}

Result<Question> AttentionQuestion(const Row& row) {
  TRY_ASSIGN(const int64_t batch, row.Integer("batch_size"));
  TRY_ASSIGN(const int64_t length, row.Integer("isl"));
  TRY_ASSIGN(const int64_t heads, row.Integer("num_heads"));
  TRY_ASSIGN(const int64_t kv_heads, row.Integer("num_key_value_heads"));
  TRY_ASSIGN(const int64_t head_dim, row.Integer("head_dim"));
  TRY_ASSIGN(const int64_t step, row.Integer("step"));
  TRY_ASSIGN(const int64_t window, row.Integer("window_size"));
  if (row.Text("attn_dtype") != "bfloat16")
    return Refuse("attention in '" + row.Text("attn_dtype") + "'");
  Question question;
  TRY_ASSIGN(question.options.kv_type, KvType(row.Text("kv_cache_dtype")));
  question.group = row.Text("kv_cache_dtype") + " kv";
  question.shape = fmt::format("batch={} isl={} heads={}/{} dim={} step={} window={}", batch,
                               length, heads, kv_heads, head_dim, step, window);
  const int64_t pages = (step + length + isa::kPagePositions - 1) / isa::kPagePositions;
  ir::Graph& graph = question.graph;
  graph.name = "attention";
  graph.AddSymbol("rows", batch * length);
  graph.AddSymbol("seqs", batch);
  graph.AddSymbol("page_entries", batch * pages);
  graph.AddSymbol("pages", batch * pages);
  const auto rows = [&](const char* name, int64_t columns) {
    return graph.AddInput(name, DType::kF32, {Symbol("rows"), Constant(columns)});
  };
  const auto q = rows("q", heads * head_dim);
  const auto k = rows("k", kv_heads * head_dim);
  const auto v = rows("v", kv_heads * head_dim);
  const auto sequences = graph.AddInput("sequences", DType::kI32, {Symbol("seqs"), Constant(4)});
  const auto page_list =
      graph.AddInput("pages", DType::kI32, {Symbol("page_entries")}, Symbol("pages"));
  TRY_ASSIGN(const auto out,
             graph.AddNode(Op::kAttention, "out", {q, k, v, sequences, page_list},
                           {{"layer", int64_t{0}},
                            {"heads", heads},
                            {"kv_heads", kv_heads},
                            {"head_dim", head_dim},
                            {"window", window},
                            {"scale", 1.0 / std::sqrt(static_cast<double>(head_dim))}}));
  graph.AddOutput(out);
  question.registers = {{"rows", batch * length},
                        {"seqs", batch},
                        {"page_entries", batch * pages},
                        {"pages", batch * pages}};
  question.runs.assign(static_cast<size_t>(batch), {length, step});
  // What was measured stores the new keys and values, too.
  question.measured = [](isa::Opcode op) {
    return op == isa::Opcode::kAttention || op == isa::Opcode::kKvAppend;
  };
  return question;
}

Result<void> SetRouting(const std::string& name, chip::RoutingModel& routing) {
  constexpr std::string_view kPowerLaw = "power_law_";
  if (name == "balanced") {
    routing.experts = chip::Popularity::kBalanced;
    return {};
  }
  char* end = nullptr;
  if (name.starts_with(kPowerLaw)) {
    routing.experts = chip::Popularity::kDrawn;
    routing.expert_exponent = std::strtod(name.c_str() + kPowerLaw.size(), &end);
  }
  if (end == nullptr || *end != 0 || !(routing.expert_exponent >= 0) ||
      routing.expert_exponent > 10)
    return Refuse("experts loaded by '" + name + "'");
  return {};
}

// One chip's part of a layer: its experts, its columns of them, and the rows that choose them.
Result<Question> ExpertsQuestion(const Row& row) {
  TRY_ASSIGN(const int64_t tokens, row.Integer("num_tokens"));
  TRY_ASSIGN(const int64_t hidden, row.Integer("hidden_size"));
  TRY_ASSIGN(const int64_t inner, row.Integer("inter_size"));
  TRY_ASSIGN(const int64_t choices, row.Integer("topk"));
  TRY_ASSIGN(const int64_t experts, row.Integer("num_experts"));
  TRY_ASSIGN(const int64_t tp, row.Integer("moe_tp_size"));
  TRY_ASSIGN(const int64_t ep, row.Integer("moe_ep_size"));
  if (tp < 1 || ep < 1 || inner % tp != 0 || experts % ep != 0)
    return Refuse(fmt::format("experts split {} ways and their columns {} ways", ep, tp));
  const std::string& type = row.Text("moe_dtype");
  Question question;
  question.group = type;
  question.shape = fmt::format("tokens={} hidden={} inner={} top{} of {} tp={} ep={} {}", tokens,
                               hidden, inner, choices, experts, tp, ep, row.Text("distribution"));
  TRY(SetWeights(type, question.options));
  TRY(SetRouting(row.Text("distribution"), question.routing));
  question.routing.expert_ranks = ep;
  const int64_t columns = inner / tp;
  ir::Graph& graph = question.graph;
  graph.name = "experts";
  graph.AddSymbol("rows", tokens);
  const auto x = graph.AddInput("x", DType::kF32, {Symbol("rows"), Constant(hidden)});
  const auto weight = [&](const char* name, ir::Shape shape) {
    return graph.AddWeight(name, DType::kBf16, std::move(shape));
  };
  const auto router = weight("router", {Constant(experts), Constant(hidden)});
  const auto gate = weight("gate", {Constant(experts), Constant(columns), Constant(hidden)});
  const auto up = weight("up", {Constant(experts), Constant(columns), Constant(hidden)});
  const auto down = weight("down", {Constant(experts), Constant(hidden), Constant(columns)});
  TRY_ASSIGN(const auto y, graph.AddNode(Op::kExperts, "y", {x, router, gate, up, down},
                                         {{"choices", choices}, {"normalise", int64_t{1}}}));
  graph.AddOutput(y);
  question.registers = {{"rows", tokens}};
  // The router's product was not measured.
  question.measured = [](isa::Opcode op) { return op != isa::Opcode::kMatMul; };
  return question;
}

// `message_size` counts elements of what each of the ranks gives to an all_reduce, a reduce_scatter
// or an all_to_all, and of what each has after an all_gather. Programs exchange f32, which the chip
// keeps in its activation type: a row of half the elements for each byte less.
Result<Question> CollectiveQuestion(const chip::Chip& chip, const Row& row) {
  TRY_ASSIGN(const int64_t ranks, row.Integer("num_gpus"));
  TRY_ASSIGN(const int64_t elements, row.Integer("message_size"));
  const std::string& type = row.Text("nccl_dtype");
  const std::string& op = row.Text("op_name");
  const int64_t bytes = type == "half" || type == "bfloat16" ? 2 * elements
                        : type == "int8"                     ? elements
                                                             : 0;
  if (bytes == 0) return Refuse("collectives of type '" + type + "'");
  if (ranks < 2 || ranks > isa::kMaxRanks) return Refuse(fmt::format("{} ranks", ranks));
  constexpr std::pair<const char*, isa::Collective> kKinds[] = {
      {"all_reduce", isa::Collective::kAllReduce},
      {"all_gather", isa::Collective::kAllGather},
      {"reduce_scatter", isa::Collective::kReduceScatter},
      {"alltoall", isa::Collective::kAllToAll}};
  const auto* kind =
      std::ranges::find_if(kKinds, [&](const auto& known) { return op == known.first; });
  if (kind == std::end(kKinds)) return Refuse("collectives '" + op + "'");
  Question question;
  question.group = op;
  question.shape = fmt::format("{} x {} {}", ranks, elements, type);
  question.ranks = static_cast<int>(ranks);
  if (type == "int8") question.collective_type = DType::kI8;
  ir::Graph& graph = question.graph;
  graph.name = "collective";
  graph.ranks = ranks;
  const int64_t values =
      std::max<int64_t>(1, bytes / SizeBytes(chip.activation_type) / ranks) * ranks;
  const int64_t rows = std::max<int64_t>(1, values / (ranks * kCollectiveColumns));
  const int64_t columns = values / rows / ranks * ranks;
  graph.AddSymbol("rows", rows);
  const bool gathers = kind->second == isa::Collective::kAllGather;
  const auto x = graph.AddInput("x", DType::kF32,
                                {Symbol("rows"), Constant(gathers ? columns / ranks : columns)});
  TRY_ASSIGN(const auto y, graph.AddNode(Op::kCollective, "y", {x},
                                         {{"kind", static_cast<int64_t>(kind->second)}}));
  graph.AddOutput(y);
  question.registers = {{"rows", rows}};
  question.measured = [](isa::Opcode opcode) { return opcode == isa::Opcode::kCollective; };
  return question;
}

// TensorRT-LLM's rows: closed loop, all users at once; a step takes all decodes and at most one
// whole prompt, and is planned while the one before runs.
constexpr int64_t kServingRounds = 10;  // requests of each user

// Users who ask one server at once, each again and again.
struct Service {
  std::string model;
  std::string precision;
  int64_t ranks = 1, users = 1, rounds = kServingRounds, input = 1, output = 1;
};

Result<plan::ServingReport> Serve(const chip::Chip& chip, const Service& service) {
  const import::PublishedModel* published = nullptr;
  for (const import::PublishedModel& known : import::PublishedModels())
    if (service.model == known.repository) published = &known;
  if (published == nullptr) return Refuse("serving of '" + service.model + "'");
  compile::Options options;
  const std::string& precision = service.precision;
  if (precision != "fp8" && !precision.empty() && precision != "bf16" && precision != "bfloat16")
    return Refuse("serving in '" + precision + "'");
  options.weight_type = precision == "fp8" ? DType::kF8E4M3 : DType::kBf16;
  options.kv_type = options.weight_type;
  import::GraphOptions sizes;
  sizes.page_positions = isa::kPagePositions;
  sizes.sample_param_words = isa::kSampleParamWords;
  sizes.sample_adjustment_words = isa::kSampleAdjustmentWords;
  sizes.sample_record_words = isa::kSampleRecordWords;
  sizes.max_rows = service.input + service.users;
  sizes.max_seqs = sizes.max_picked = service.users;
  sizes.ranks = service.ranks;
  TRY_ASSIGN(const ir::Graph graph, import::BuildQwen3Graph(published->config, sizes));
  TRY_ASSIGN(compile::Compiled compiled, compile::Compile(graph, options));
  plan::ServingSetup setup;
  setup.program = std::make_shared<const isa::Program>(std::move(compiled.program));
  setup.chip = chip;
  setup.ranks = static_cast<int>(service.ranks);
  setup.plans_ahead = true;
  // Of the host beside the chip, as it was measured with.
  setup.turnaround_s = chip.Fitted("serving", "turnaround_s", 0);
  setup.chip.host_s.value = chip.Fitted("serving", "host_s", chip.host_s.value);
  setup.prefix_cache = false;
  const plan::Workload workload =
      plan::ClosedLoop(static_cast<int32_t>(service.users), service.rounds * service.users,
                       static_cast<int32_t>(service.input), static_cast<int32_t>(service.output));
  TRY_ASSIGN(const plan::ServingResult result, plan::SimulateServing(setup, workload));
  return plan::Report(result, setup, 0);
}

Result<std::vector<Prediction>> ServingPredictions(const chip::Chip& chip, const Row& row) {
  if (row.Text("mode") != "agg") return Refuse("serving in mode '" + row.Text("mode") + "'");
  Service service;
  TRY_ASSIGN(service.input, row.Integer("isl"));
  TRY_ASSIGN(service.output, row.Integer("osl"));
  TRY_ASSIGN(service.users, row.Integer("batch_size"));
  TRY_ASSIGN(service.ranks, row.Integer("tp_size"));
  TRY_ASSIGN(const double ttft_ms, row.Real("silicon_ttft_ms"));
  TRY_ASSIGN(const double tpot_ms, row.Real("silicon_tpot_ms"));
  service.model = row.cells.contains("model_path") ? row.Text("model_path") : "Qwen/Qwen3-32B";
  service.precision = row.Text("precision");
  TRY_ASSIGN(const plan::ServingReport report, Serve(chip, service));
  const std::string group =
      row.Text("backend") + (service.precision.empty() ? "" : " " + service.precision);
  const std::string shape = fmt::format("tp={} users={} input={} output={}", service.ranks,
                                        service.users, service.input, service.output);
  return std::vector<Prediction>{{group + " TTFT", shape, report.ttft_s.mean, ttft_ms * 1e-3},
                                 {group + " TPOT", shape, report.tpot_s.mean, tpot_ms * 1e-3}};
}

// Published rates of one server, tokens a second of all its users together.
Result<std::vector<Prediction>> DecodeRatePredictions(const chip::Chip& chip, const Row& row) {
  Service service;
  service.model = row.Text("model_path");
  service.precision = row.Text("precision");
  service.rounds = 1;
  TRY_ASSIGN(service.users, row.Integer("batch_size"));
  TRY_ASSIGN(service.input, row.Integer("isl"));
  TRY_ASSIGN(service.output, row.Integer("osl"));
  TRY_ASSIGN(const double rate, row.Real("decode_tokens_per_s"));
  if (!(rate > 0)) return Refuse("a rate of " + row.Text("decode_tokens_per_s"));
  TRY_ASSIGN(const plan::ServingReport report, Serve(chip, service));
  const auto users = static_cast<double>(service.users);
  const double predicted_s = report.tpot_s.mean;
  return std::vector<Prediction>{{"decode rate",
                                  fmt::format("{} users={}, {:.1f} tok/s for {:.1f}", service.model,
                                              service.users, users / predicted_s, rate),
                                  predicted_s, users / rate}};
}

}  // namespace

Predictor::Predictor(chip::Chip chip, device::TraceFile* trace)
    : chip_(std::move(chip)), trace_(trace) {
  if (trace_ == nullptr) return;
  for (const auto stream : {isa::Stream::kCompute, isa::Stream::kTransfer, isa::Stream::kLink})
    trace_->NameRow(1, static_cast<int>(stream), chip_.title, isa::Name(stream));
}

namespace {

// Seconds from the first to the last measured instruction.
Result<double> Time(const chip::Chip& chip, const Question& question, device::TraceFile* trace,
                    double& trace_us) {
  TRY(ir::Verify(question.graph));
  TRY_ASSIGN(compile::Compiled compiled, compile::Compile(question.graph, question.options));
  const auto program = std::make_shared<const isa::Program>(std::move(compiled.program));
  std::vector<int64_t> registers(program->registers.size(), 0);
  for (const auto& [name, value] : question.registers) {
    const int32_t reg = program->FindRegister(name);
    if (reg >= 0) registers[static_cast<size_t>(reg)] = value;
  }
  device::Launch launch(*program);
  for (const device::WorkList& list : device::FindWorkLists(*program)) {
    auto& rows = launch.inputs[static_cast<size_t>(list.sequences)];
    int64_t at = 0;
    for (const chip::QueryRun& run : question.runs) {
      rows.insert(rows.end(), {static_cast<int32_t>(at), static_cast<int32_t>(run.rows),
                               static_cast<int32_t>(run.first_position), 0});
      at += run.rows;
    }
  }
  chip::ExpandOptions options;
  options.ranks = question.ranks;
  options.routing = question.routing;
  options.other_weight_bytes = question.other_weight_bytes;
  options.collective_type = question.collective_type;
  chip::Timer timer(program, chip, options);
  std::vector<chip::Span> spans;
  TRY(timer.Time(registers, launch, &spans));
  double begin_s = INFINITY, end_s = 0, last_s = 0;
  for (const chip::Span& span : spans) {
    const isa::Opcode op =
        program->streams[static_cast<size_t>(span.stream)][static_cast<size_t>(span.index)].op;
    last_s = std::max(last_s, span.end_s);
    if (trace != nullptr)
      trace->Add(1, static_cast<int>(span.stream), isa::Info(op).name,
                 trace_us + span.begin_s * 1e6, (span.end_s - span.begin_s) * 1e6,
                 "\"row\":\"" + question.shape + "\"");
    if (question.measured && !question.measured(op)) continue;
    begin_s = std::min(begin_s, span.begin_s);
    end_s = std::max(end_s, span.end_s);
  }
  trace_us += last_s * 1e6;
  return end_s - begin_s;
}

}  // namespace

Result<std::vector<Prediction>> Predictor::Predict(Kind kind, const Row& row) {
  if (kind == Kind::kServing) return ServingPredictions(chip_, row);
  if (kind == Kind::kDecodeRate) return DecodeRatePredictions(chip_, row);
  const auto question = [&]() -> Result<Question> {
    switch (kind) {
      case Kind::kGemm:
        return GemmQuestion(row);
      case Kind::kAttention:
        return AttentionQuestion(row);
      case Kind::kExperts:
        return ExpertsQuestion(row);
      case Kind::kCollective:
        return CollectiveQuestion(chip_, row);
      default:
        return Refuse(std::string(Name(kind)) + " rows");
    }
  }();
  if (!question) return std::unexpected(question.error());
  TRY_ASSIGN(const double measured_ms, row.Real("latency"));
  Prediction prediction{question->group, question->shape, 0, measured_ms * 1e-3};
  TRY_ASSIGN(prediction.predicted_s, Time(chip_, *question, trace_, trace_us_));
  return std::vector{prediction};
}

}  // namespace millpower::truth
