// millpower perplexity MODEL FILE: how well a model predicts a text, and how far it is from
// another.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

#include "base/json.h"
#include "base/mapped_file.h"
#include "base/system.h"
#include "cli/commands.h"
#include "cli/evaluation.h"
#include "cli/progress.h"
#include "cli/text_file.h"
#include "device/cpu/cpu_device.h"
#include "plan/experts.h"

namespace millpower::cli {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;
constexpr int64_t kDefaultContext = 2048;
// Rows whose logits come out of one launch: enough to make good use of a pass over the weights, and
// 78 MB of logits at Qwen3's vocabulary of 151,936.
constexpr int64_t kPickedRows = 128;

struct Flags {
  std::string model, file, against, against_weights = "auto", against_kv, experts_file;
  int64_t context = 0, stride = 0;
  bool json = false;
  ModelFlags shared;
};

std::string Tokens(int64_t count) { return std::to_string(count) + " tokens"; }

Result<LoadOptions> OptionsFor(const ModelFlags& flags) {
  TRY_ASSIGN(LoadOptions options, ToLoadOptions(flags));
  // Nobody chats here: a template that is not known is no obstacle.
  if (!options.chat_format) options.chat_format = text::ChatFormat::kQwen3;
  options.max_num_seqs = 1;
  options.max_picked = kPickedRows;
  return options;
}

int64_t WeightBytes(const isa::Program& program) {
  int64_t bytes = 0;
  for (const isa::Buffer& buffer : program.buffers)
    if (buffer.kind == isa::BufferKind::kWeight)
      bytes += isa::BufferBytes(buffer, buffer.rows.size);
  return bytes;
}

// Memory that a model's weights will take; a compiled file is mapped and takes none of its own.
Result<int64_t> PackedBytes(const std::string& path, const LoadOptions& options) {
  if (isa::IsPackage(path)) return 0;
  TRY_ASSIGN(const ImportedModel model, ImportModel(path, options));
  return WeightBytes(model.compiled.program);
}

Result<void> CheckBothFit(const Flags& flags, const LoadOptions& options,
                          const LoadOptions& against) {
  TRY_ASSIGN(const int64_t model_bytes, PackedBytes(flags.model, options));
  TRY_ASSIGN(const int64_t against_bytes, PackedBytes(flags.against, against));
  const int64_t available = AvailableMemoryBytes();
  if (model_bytes + against_bytes <= available) return {};
  return Fail(ErrorCode::kNoCapacity,
              fmt::format("both models are held in memory at once: {} and {} of weights are {}; {} "
                          "are free",
                          FormatSize(model_bytes), FormatSize(against_bytes),
                          FormatSize(model_bytes + against_bytes), FormatSize(available)),
              "against");
}

// That token ids, and the rows of logits, mean the same to both.
Result<void> CheckVocabulary(const LoadedModel& model, const LoadedModel& against) {
  auto differ = [&](const std::string& how) {
    return Fail(ErrorCode::kInvalidArgument,
                model.name + " and " + against.name +
                    " have different vocabularies, so their predictions cannot be compared: " + how,
                "against");
  };
  const int64_t ours = model.program->FactOr("vocab_size", 0);
  const int64_t theirs = against.program->FactOr("vocab_size", 0);
  if (ours != theirs) return differ(fmt::format("{} and {} logits", ours, theirs));
  if (model.tokenizer->vocab_size() != against.tokenizer->vocab_size())
    return differ(fmt::format("{} and {} tokens", model.tokenizer->vocab_size(),
                              against.tokenizer->vocab_size()));
  for (int32_t id = 0; id < model.tokenizer->vocab_size(); ++id)
    if (model.tokenizer->TokenBytes(id) != against.tokenizer->TokenBytes(id))
      return differ(fmt::format("token {} is not the same text", id));
  return {};
}

std::string WeightType(const isa::Program& program) {
  std::string names;
  for (int type = 0; type < kDTypeCount; ++type)
    if (std::ranges::any_of(program.buffers, [&](const isa::Buffer& buffer) {
          return buffer.form == isa::Form::kPacked && buffer.dtype == static_cast<DType>(type);
        }))
      names += std::string(names.empty() ? "" : "+") + Name(static_cast<DType>(type));
  return names;
}

std::string KvType(const isa::Program& program) {
  for (const isa::Buffer& buffer : program.buffers)
    if (buffer.form == isa::Form::kPages) return Name(buffer.dtype);
  return "none";
}

Json LikelihoodJson(const std::string& model, const isa::Program& program,
                    const Likelihood& likelihood, double scored_bytes_per_token) {
  const double bits = likelihood.nll.value / std::numbers::ln2;
  Json json = {{"model", model},
               {"weights", WeightType(program)},
               {"kv", KvType(program)},
               {"perplexity", likelihood.perplexity.value},
               {"perplexity_stderr", likelihood.perplexity.error},
               {"nll_nats", likelihood.nll.value},
               {"nll_nats_stderr", likelihood.nll.error},
               {"nll_bits", bits}};
  json["bits_per_byte"] = scored_bytes_per_token > 0 ? Json(bits / scored_bytes_per_token) : Json();
  return json;
}

Result<Json> Measure(const Flags& flags) {
  TRY_ASSIGN(const LoadOptions options, OptionsFor(flags.shared));
  TRY_ASSIGN(const std::string text, ReadFile(flags.file, kMaxTextBytes));
  TRY_ASSIGN(const auto* kernel_set, kernels::SelectKernels(flags.shared.kernels));
  const bool compares = !flags.against.empty();
  LoadOptions against_options;
  if (compares) {
    ModelFlags against = flags.shared;
    against.weights = flags.against_weights;
    if (!flags.against_kv.empty()) against.kv = flags.against_kv;
    TRY_ASSIGN(against_options, OptionsFor(against));
    TRY(CheckBothFit(flags, options, against_options));
  }

  TRY_ASSIGN(LoadedModel model, LoadModel(flags.model, options));
  const auto encoded = model.tokenizer->Encode(text, false);
  if (!encoded) return FailAt(flags.file, encoded.error());
  const std::vector<int32_t>& tokens = *encoded;
  if (tokens.size() < 2)
    return Fail(
        ErrorCode::kInvalidArgument,
        fmt::format("{} has {} tokens; perplexity needs at least 2", flags.file, tokens.size()));
  int64_t context_max = model.program->FactOr("max_positions", 0);
  std::optional<LoadedModel> against;
  if (compares) {
    TRY_ASSIGN(against, LoadModel(flags.against, against_options));
    TRY(CheckVocabulary(model, *against));
    context_max = std::min(context_max, against->program->FactOr("max_positions", 0));
  }
  if (flags.context > context_max)
    return Fail(ErrorCode::kOutOfRange,
                fmt::format("--context {} is more than the model's context, {}", flags.context,
                            context_max),
                "context");
  const int64_t context =
      flags.context > 0 ? flags.context : std::min(kDefaultContext, context_max);
  if (context < 2)
    return Fail(ErrorCode::kInvalidArgument,
                "--context must be at least 2: a token to predict, and one before it", "context");
  const int64_t stride = flags.stride > 0 ? flags.stride : context / 2;
  if (stride > context)
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("--stride {} is more than --context {}: tokens would be left out",
                            stride, context),
                "stride");
  const auto windows = PlanWindows(static_cast<int64_t>(tokens.size()), context, stride);

  device::cpu::ExpertCounts expert_counts;
  const bool records = !flags.experts_file.empty();
  if (records && model.program->FactOr("experts", 0) == 0)
    return Fail(ErrorCode::kInvalidArgument, flags.model + " has no experts to record",
                "record-experts");
  const auto device =
      device::cpu::MakeCpuDevice({.threads = options.threads,
                                  .kernels = kernel_set,
                                  .expert_counts = records ? &expert_counts : nullptr});
  const int64_t positions = std::min(context, static_cast<int64_t>(tokens.size()));
  TRY_ASSIGN(LogitsRunner runner,
             LogitsRunner::Load(*device, model.program, model.weights, positions));
  std::optional<LogitsRunner> against_runner;
  if (compares) {
    TRY_ASSIGN(against_runner,
               LogitsRunner::Load(*device, against->program, against->weights, positions));
  }
  ThreadTeam team(options.threads);
  ProgressLine progress("scoring", true, Tokens);
  const auto start = std::chrono::steady_clock::now();
  auto evaluated = Evaluate(runner, compares ? &*against_runner : nullptr, tokens, windows, team,
                            std::ref(progress));
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  if (!evaluated) return FailAt(flags.file, evaluated.error());

  int64_t scored_bytes = 0;
  for (const Window& window : windows)
    for (int64_t i = window.scored_begin; i < window.end; ++i)
      scored_bytes +=
          static_cast<int64_t>(model.tokenizer->TokenBytes(tokens[static_cast<size_t>(i)]).size());
  const double bytes_per_token =
      static_cast<double>(scored_bytes) / static_cast<double>(evaluated->scored_tokens);
  if (records) TRY(WriteText(flags.experts_file, plan::RecordedExperts(expert_counts.Layers())));
  Json result = LikelihoodJson(model.name, *model.program, evaluated->model, bytes_per_token);
  result.update({{"file", flags.file},
                 {"tokens", static_cast<int64_t>(tokens.size())},
                 {"scored_tokens", evaluated->scored_tokens},
                 {"scored_bytes", scored_bytes},
                 {"windows", static_cast<int64_t>(windows.size())},
                 {"context", context},
                 {"stride", stride},
                 {"threads", options.threads},
                 {"kernels", kernel_set->name},
                 {"seconds", elapsed.count()}});
  if (!compares) return result;
  result["reference"] =
      LikelihoodJson(against->name, *against->program, *evaluated->reference, bytes_per_token);
  const Divergence& divergence = *evaluated->divergence;
  result["kl_mean_nats"] = divergence.kl.value;
  result["kl_mean_stderr"] = divergence.kl.error;
  result["kl_median_nats"] = divergence.kl_median;
  result["kl_p99_nats"] = divergence.kl_p99;
  result["kl_max_nats"] = divergence.kl_max;
  result["top1_agreement"] = divergence.top_agreement.value;
  result["top1_agreement_stderr"] = divergence.top_agreement.error;
  result["logprob_delta_mean_nats"] = divergence.logprob_delta.value;
  result["logprob_delta_stderr"] = divergence.logprob_delta.error;
  return result;
}

void PrintTable(const Json& result) {
  auto number = [](const Json& of, const char* key) {
    return of[key].is_number() ? of[key].get<double>() : 0.0;
  };
  auto name = [](const Json& of) {
    return fmt::format("{} ({}, kv {})", of["model"].get<std::string>(),
                       of["weights"].get<std::string>(), of["kv"].get<std::string>());
  };
  fmt::print("{} on {}: {} tokens, {} windows of {}, {} apart\n\n", name(result),
             result["file"].get<std::string>(), result["tokens"].get<int64_t>(),
             result["windows"].get<int64_t>(), result["context"].get<int64_t>(),
             result["stride"].get<int64_t>());
  fmt::print("perplexity   {:.4f} +- {:.4f} over {} tokens\n", number(result, "perplexity"),
             number(result, "perplexity_stderr"), result["scored_tokens"].get<int64_t>());
  fmt::print("per token    {:.5f} nats, {:.5f} bits\nper byte     {:.5f} bits\n",
             number(result, "nll_nats"), number(result, "nll_bits"),
             number(result, "bits_per_byte"));
  if (const auto found = result.find("reference"); found != result.end()) {
    fmt::print("\nreference    {}: perplexity {:.4f} +- {:.4f}\n", name(*found),
               number(*found, "perplexity"), number(*found, "perplexity_stderr"));
    fmt::print("KL divergence of the model from the reference, KL(reference || model), in nats\n");
    fmt::print(
        "  mean       {:.6f} +- {:.6f}\n  median     {:.6f}\n  99%        {:.6f}\n"
        "  largest    {:.6f}\n",
        number(result, "kl_mean_nats"), number(result, "kl_mean_stderr"),
        number(result, "kl_median_nats"), number(result, "kl_p99_nats"),
        number(result, "kl_max_nats"));
    fmt::print("same top token {:.2f}% +- {:.2f}%\n", 100 * number(result, "top1_agreement"),
               100 * number(result, "top1_agreement_stderr"));
    fmt::print(
        "log-probability of the text's tokens: {:+.6f} +- {:.6f} nats from the reference's\n",
        number(result, "logprob_delta_mean_nats"), number(result, "logprob_delta_stderr"));
  }
  const double seconds = number(result, "seconds");
  fmt::print("\ntime         {:.1f} s, {:.1f} tokens scored a second\n", seconds,
             number(result, "scored_tokens") / seconds);
}

Result<void> Perplexity(const Flags& flags) {
  spdlog::set_level(spdlog::level::warn);
  TRY_ASSIGN(const Json result, Measure(flags));
  if (flags.json)
    fmt::print("{}\n", DumpJson(result));
  else
    PrintTable(result);
  return {};
}

}  // namespace

Command AddPerplexity(CLI::App& app) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "perplexity", "Measure how well a model predicts a text, and how far it is from another");
  command->add_option("model", flags->model, "Model folder, GGUF file or compiled file")
      ->required();
  command->add_option("file", flags->file, "Text to predict, UTF-8")->required();
  command
      ->add_option("--context", flags->context,
                   "Tokens of a window; 0: 2048, or the model's context where that is less")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--stride", flags->stride,
                   "Tokens from the start of a window to that of the next; 0: half a window")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option(
      "--against", flags->against,
      "Reference model: how far is MODEL from it? (KL divergence, top-1 agreement)");
  AddCompileFlags(*command, flags->shared);
  for (const auto& [of, as, target, what] :
       {std::tuple{"--weights", "--against-weights", &flags->against_weights,
                   "Type of the reference's weights, as --weights"},
        std::tuple{"--kv", "--against-kv", &flags->against_kv,
                   "Type of the reference's KV cache; default: that of --kv"}}) {
    command->add_option(as, *target, what)
        ->check(*command->get_option(of)->get_validator())
        ->needs("--against");
  }
  command
      ->add_option("--record-experts", flags->experts_file,
                   "Write how often each expert was chosen, for simulate --experts FILE")
      ->excludes("--against");
  command->add_flag("--json", flags->json, "One JSON object instead of a table");
  AddDeviceFlags(*command, flags->shared);
  return [flags] { return Perplexity(*flags); };
}

}  // namespace millpower::cli
