// millpower serve --model [NAME=]PATH ...
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <set>

#include "base/clock.h"
#include "cli/commands.h"
#include "cli/config.h"
#include "cli/ranking_host.h"
#include "cli/rental.h"
#include "cli/session.h"
#include "cli/size.h"
#include "cli/table_memory.h"
#include "cli/tensor_flags.h"
#include "serve/admin.h"
#include "serve/cors.h"
#include "serve/metrics.h"
#include "serve/model_host.h"
#include "serve/service.h"

namespace millpower::cli {
namespace {

struct Flags {
  CLI::App* command = nullptr;
  std::string config, model_name;
  std::vector<std::string> models;
  std::string host = "127.0.0.1";
  uint16_t port = 8080;
  ModelFlags shared;
  TensorFlags tensor;
  int64_t max_queue_delay_us = 0;
  std::string table_memory = "auto";
  int32_t max_model_len = 0, max_num_seqs = 0, max_batch_tokens = 0, queue = 256;
  std::string kv_memory;
  bool no_prefix_cache = false, priority_tier = false;
  std::optional<double> temperature, top_p, min_p;
  std::optional<int64_t> top_k;
  std::string max_body = "32MiB";
  int drain_seconds = 30;
  std::vector<std::string> cors_origins;
  std::optional<uint16_t> admin_port;
  std::string admin_key_file, model_root;
  std::string ledger, currency = "USD";
  std::string chip;  // of this machine, for energy
  double grid_g_per_kwh = 0;
  std::string log_level = "info";
  bool hints = false;
};

// Termination is taken as a signal to wait for, not to be interrupted by: no handler code runs.
// Blocks it for this thread and those it will start.
sigset_t BlockTermination() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return set;
}

serve::GenerationDefaults Defaults(const Flags& flags, const import::GenerationDefaults& file) {
  return {.temperature = static_cast<float>(flags.temperature.value_or(file.temperature)),
          .top_k = static_cast<int32_t>(flags.top_k.value_or(file.top_k)),
          .top_p = static_cast<float>(flags.top_p.value_or(file.top_p)),
          .min_p = static_cast<float>(flags.min_p.value_or(file.min_p)),
          .max_tokens = file.max_new_tokens ? std::optional(static_cast<int32_t>(std::min<int64_t>(
                                                  *file.max_new_tokens, INT32_MAX)))
                                            : std::nullopt,
          .eos_token_ids = file.eos_token_ids};
}

// What a newcomer can paste at once. `key`: "" where none is needed.
void PrintHints(const std::string& url, const std::string& model, const std::string& key) {
  const std::string header =
      key.empty() ? "" : fmt::format(" \\\n    -H 'Authorization: Bearer {}'", key);
  fmt::print(
      "\nServing '{1}' at {0}/v1. Try it:\n\n"
      "  curl {0}/v1/chat/completions -H 'Content-Type: application/json'{2} -d '{{\n"
      "    \"model\": \"{1}\",\n"
      "    \"messages\": [{{\"role\": \"user\", \"content\": \"What is a bill of lading?\"}}],\n"
      "    \"chat_template_kwargs\": {{\"enable_thinking\": false}}}}'\n\n"
      "or, in Python (pip install openai):\n\n"
      "  from openai import OpenAI\n"
      "  client = OpenAI(base_url=\"{0}/v1\", api_key=\"{3}\")\n"
      "  stream = client.chat.completions.create(\n"
      "      model=\"{1}\", stream=True,\n"
      "      messages=[{{\"role\": \"user\", \"content\": \"Why do freight rates rise?\"}}])\n"
      "  for chunk in stream:\n"
      "      print(chunk.choices[0].delta.content or \"\", end=\"\", flush=True)\n\n"
      "Ctrl-C stops it.\n",
      url, model, header, key.empty() ? "none" : key);
  std::fflush(stdout);
}

// "a=models/x" or "models/x", which is called by its last part.
serve::ModelSpec SpecOf(const std::string& given) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const size_t equals = given.find('=');
  if (equals != std::string::npos && equals > 0 && !fs::exists(given, ignored))
    return {.name = given.substr(0, equals), .path = given.substr(equals + 1)};
  return {.name = DefaultModelName(given), .path = given};
}

// What is to be served: language models, and models of tensors.
struct Specs {
  std::vector<serve::ModelSpec> language;
  std::vector<RankingHost::Spec> tensors;
};

Result<Specs> ModelSpecs(const Flags& flags) {
  if (flags.models.empty())
    return Fail(ErrorCode::kInvalidArgument, "no model: give --model PATH", "model");
  if (!flags.model_name.empty() && flags.models.size() > 1)
    return Fail(ErrorCode::kInvalidArgument,
                "--model-name names one model; give several as --model NAME=PATH", "model-name");
  Specs all;
  std::set<std::string> names;
  for (const std::string& given : flags.models) {
    serve::ModelSpec spec = SpecOf(given);
    if (!flags.model_name.empty()) spec.name = flags.model_name;
    if (!names.insert(spec.name).second)
      return Fail(ErrorCode::kInvalidArgument,
                  "two models are named '" + spec.name + "'; give them as --model NAME=PATH",
                  "model");
    if (VersionsAt(spec.path).empty()) {
      all.language.push_back(std::move(spec));
    } else {
      all.tensors.push_back({std::move(spec.name), std::move(spec.path)});
    }
  }
  std::vector<serve::ModelSpec>& specs = all.language;
  int64_t kv_memory_bytes = 0;
  if (!flags.kv_memory.empty()) {
    TRY_ASSIGN(kv_memory_bytes, ParseSize(flags.kv_memory));
  }
  for (serve::ModelSpec& spec : specs) {
    spec.weights = flags.shared.weights;
    spec.kv = flags.shared.kv;
    spec.kv_memory_bytes = kv_memory_bytes / static_cast<int64_t>(specs.size());
  }
  return all;
}

Result<RankingOptions> ToRankingOptions(const Flags& flags) {
  RankingOptions options;
  TRY_ASSIGN(options.load, ToTensorLoadOptions(flags.tensor, flags.shared));
  TRY_ASSIGN(options.table_keeper, StartTableKeeper(flags.table_memory));
  options.config.max_queue_delay_us = flags.max_queue_delay_us;
  return options;
}

// What every model gets that is loaded here, from the flags.
Result<SessionOptions> CommonOptions(const Flags& flags, engine::Hooks* hooks) {
  SessionOptions options;
  TRY_ASSIGN(options.load, ToLoadOptions(flags.shared));
  options.kernels = flags.shared.kernels;
  options.max_num_seqs = flags.max_num_seqs;
  options.max_batch_tokens = flags.max_batch_tokens;
  options.max_queue = flags.queue;
  options.prefix_cache = !flags.no_prefix_cache;
  options.hooks = hooks;
  if (!flags.chip.empty()) {
    TRY_ASSIGN(const device::chip::Chip chip, device::chip::ReadChip(flags.chip));
    options.chip = std::make_shared<device::chip::Chip>(chip.At(device::chip::Bound::kValue));
  }
  // A folder is compiled for what is asked; a compiled file has bounds of its own.
  if (flags.max_num_seqs > 0) options.load.max_num_seqs = flags.max_num_seqs;
  if (flags.max_batch_tokens > 0) options.load.max_batch_tokens = flags.max_batch_tokens;
  return options;
}

// A session, and what has to outlive its engine.
struct Loaded {
  serve::ModelMetrics metrics;
  Session session;
};

// `--max-model-len` and `--chat-format` speak of the models on the command line; what is loaded
// later has its own.
Result<serve::ServedModel> Load(const Flags& flags, const SessionOptions& common,
                                const std::shared_ptr<device::Device>& device, int sharers,
                                const serve::ModelSpec& spec, bool at_start,
                                const serve::LoadProgress& progress) {
  const auto loaded = std::make_shared<Loaded>();
  ModelFlags types = flags.shared;
  types.weights = spec.weights;
  types.kv = spec.kv;
  if (!at_start) types.chat_format.clear();
  SessionOptions options = common;
  TRY_ASSIGN(const LoadOptions typed, ToLoadOptions(types));
  options.load.compile = typed.compile;
  options.load.chat_format = typed.chat_format;
  options.load.show_progress = at_start;
  options.load.on_progress = progress;
  options.max_model_len = at_start ? flags.max_model_len : 0;
  options.kv_memory_bytes = spec.kv_memory_bytes;
  options.sharers = sharers;
  options.in_background = !at_start;
  options.observer = &loaded->metrics;
  TRY_ASSIGN(loaded->session, StartSession(device, spec.path, options));
  const Session& session = loaded->session;
  return serve::ServedModel{.name = spec.name,
                            .created_unix_s = SystemClock().UnixSeconds(),
                            .engine = session.engine.get(),
                            .tokenizer = session.model.tokenizer.get(),
                            .metrics = &loaded->metrics,
                            .chat_format = session.model.chat_format,
                            .defaults = Defaults(flags, session.model.generation),
                            .max_model_len = session.engine->limits().max_model_len,
                            .priority_tier = flags.priority_tier,
                            .weights_bytes = session.weights_bytes,
                            .kv_bytes = session.kv_bytes,
                            .owner = loaded};
}

// Starts the admin API, if it is asked for, with a key from the file or the environment, or with
// one that is made now and told once.
Result<void> StartAdmin(const Flags& flags, size_t body_bytes_max, serve::ModelHost& host,
                        const serve::AdminParts& parts, std::optional<serve::AdminServer>& admin) {
  if (!flags.admin_port) return {};
  TRY_ASSIGN(const std::string given, ReadAdminKey(flags.admin_key_file));
  const std::string key = given.empty() ? serve::NewAdminKey() : given;
  admin.emplace(serve::AdminConfig{.port = *flags.admin_port,
                                   .key = key,
                                   .model_root = flags.model_root,
                                   .body_bytes_max = body_bytes_max},
                host, parts);
  TRY(admin->Start());
  spdlog::info("admin API at http://127.0.0.1:{}/admin/v1", admin->port());
  if (given.empty()) fmt::print(stderr, "admin key, not shown again: {}\n", key);
  return {};
}

// Nothing is being answered, and a load of minutes is not worth waiting for.
[[noreturn]] void GiveUpLoading() {
  spdlog::info("stopped; what was being loaded is given up");
  spdlog::shutdown();
  std::_Exit(0);
}

Result<void> Serve(Flags& flags) {
  if (!flags.config.empty()) TRY(ApplyConfig(*flags.command, flags.config));
  spdlog::set_level(spdlog::level::from_str(flags.log_level));
  TRY_ASSIGN(const Specs all, ModelSpecs(flags));
  const std::vector<serve::ModelSpec>& specs = all.language;
  TRY_ASSIGN(const RankingOptions ranking_options, ToRankingOptions(flags));
  serve::HttpConfig http{
      .host = flags.host, .port = flags.port, .cors_origins = flags.cors_origins};
  for (const std::string& origin : flags.cors_origins) TRY(serve::CheckOrigin(origin));
  TRY_ASSIGN(const int64_t max_body, ParseSize(flags.max_body));
  http.limits.body_bytes_max = static_cast<size_t>(max_body);
  const sigset_t termination = BlockTermination();

  // The services start before the models are there: they answer "not ready" meanwhile, and a taken
  // port is told at once.
  const SystemClock clock;
  Rental rental;  // outlives the engines, which post to it until they are gone
  if (!flags.ledger.empty()) {
    TRY_ASSIGN(rental, OpenRental(flags.ledger, flags.currency, clock, flags.grid_g_per_kwh));
  }
  TRY_ASSIGN(const SessionOptions common, CommonOptions(flags, rental.meter.get()));
  TRY_ASSIGN(const std::shared_ptr<device::Device> device, MakeDevice(common));
  RankingHost ranking(device, clock, ranking_options, all.tensors);
  serve::ModelRegistry registry;
  serve::ModelHost host(
      registry,
      [&](const serve::ModelSpec& spec, bool at_start, const serve::LoadProgress& progress) {
        const size_t sharers = at_start ? specs.size() : registry.All().size() + 1;
        return Load(flags, common, device, static_cast<int>(sharers), spec, at_start, progress);
      },
      flags.drain_seconds * int64_t{1'000'000'000});
  serve::Service service(http, registry, clock, rental.meter.get());
  if (rental.ledger) TRY(service.OpenBatches({.folder = flags.ledger}));
  serve::InferenceApi& inference = service.OpenInference(
      ranking.engine(),
      {.body_bytes_max = http.limits.body_bytes_max, .repository = ranking.Repository()});
  if (const auto& keeper = ranking_options.table_keeper)
    service.AddMetrics([&keeper = *keeper] { return TableMetricsText(keeper); });
  TRY(service.Start());
  std::optional<serve::AdminServer> admin;
  TRY(StartAdmin(flags, http.limits.body_bytes_max, host,
                 {.ledger = rental.ledger.get(),
                  .api = &service.api(),
                  .metrics = &service.metrics(),
                  .inference = &inference,
                  .clock = &clock},
                 admin));
  auto loading = std::async(std::launch::async, [&]() -> Result<void> {
    TRY(ranking.LoadAtStart());
    if (specs.empty()) return {};
    return host.LoadAtStart(specs);
  });
  constexpr timespec kLook = {.tv_sec = 0, .tv_nsec = 50'000'000};
  while (loading.wait_for(std::chrono::seconds(0)) != std::future_status::ready)
    if (sigtimedwait(&termination, nullptr, &kLook) > 0) GiveUpLoading();
  TRY(loading.get());
  if (rental.ledger) service.StartBatches();
  const std::string url = fmt::format("http://{}:{}", flags.host, service.port());
  std::string names;
  for (const serve::ModelSpec& spec : specs)
    names += (names.empty() ? "'" : ", '") + spec.name + "'";
  for (const RankingHost::Spec& spec : all.tensors)
    names += (names.empty() ? "'" : ", '") + spec.name + "'";
  spdlog::info("serving {} at {}/v1", names, url);
  if (flags.hints && !specs.empty()) PrintHints(url, specs[0].name, rental.developer_key);

  int signal = 0;
  sigwait(&termination, &signal);
  spdlog::info("{}: finishing the requests being served, for at most {} s",
               signal == SIGTERM ? "SIGTERM" : "SIGINT", flags.drain_seconds);
  pthread_sigmask(SIG_UNBLOCK, &termination, nullptr);  // a second signal ends the process
  const std::chrono::seconds timeout(flags.drain_seconds);
  const auto admin_drained = std::async(std::launch::async, [&] {
    if (admin) admin->Drain(timeout);
  });
  service.Drain(timeout);
  admin_drained.wait();
  admin.reset();
  for (const serve::ModelStatus& model : host.List())
    if (model.state == serve::ModelState::kLoading) GiveUpLoading();
  spdlog::info("stopped");
  return {};
}

}  // namespace

Command AddServe(CLI::App& app) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("serve", "Serve models over the OpenAI API until SIGTERM or Ctrl-C");
  flags->command = command;
  command
      ->add_option(
          "--model", flags->models,
          "Model folder or file, or NAME=PATH: the name clients call it by, by default the "
          "last part of the path. Repeat it to serve several")
      ->allow_extra_args(false);
  command->add_option("--model-name", flags->model_name, "Name of the one model");
  command->add_option("--host", flags->host, "Address to listen on")->capture_default_str();
  command->add_option("--port", flags->port, "Port to listen on; 0: any free one")
      ->capture_default_str();
  AddCompileFlags(*command, flags->shared);
  AddDeviceFlags(*command, flags->shared);
  command
      ->add_option("--max-model-len", flags->max_model_len,
                   "Tokens of prompt and answer together; 0: the model's, as memory allows")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--max-num-seqs", flags->max_num_seqs, "Requests of one step; 0: the Program's")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--max-batch-tokens", flags->max_batch_tokens,
                   "Tokens of one step, which bounds how long a long prompt holds up others; 0: "
                   "the Program's")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--kv-memory", flags->kv_memory,
                      "Memory for keys and values, e.g. 2GiB, in equal parts for all models; "
                      "default: up to 8 contexts of each, at most half of what is free");
  AddTensorFlags(*command, flags->tensor);
  AddTableMemoryFlag(*command, flags->table_memory);
  command
      ->add_option("--max-queue-delay-us", flags->max_queue_delay_us,
                   "How long a request to a model of tensors may wait for others to share a launch")
      ->check(CLI::Range(0, 10'000'000))
      ->capture_default_str();
  command->add_option("--queue", flags->queue, "Requests that may wait; more get 429")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--no-prefix-cache", flags->no_prefix_cache,
                    "Compute every prompt anew; changes no answer");
  command->add_flag("--priority-tier", flags->priority_tier,
                    "Let clients ask for service_tier \"priority\", which goes before others");
  command->add_option("--temperature", flags->temperature,
                      "Default for requests that do not say; so are the next three");
  command->add_option("--top-k", flags->top_k, "0: all tokens");
  command->add_option("--top-p", flags->top_p, "In (0, 1]");
  command->add_option("--min-p", flags->min_p, "In [0, 1]");
  command->add_option("--max-body", flags->max_body, "Largest request body")->capture_default_str();
  command
      ->add_option("--drain-seconds", flags->drain_seconds,
                   "How long SIGTERM waits for requests being served")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--cors-origin", flags->cors_origins,
                   "Origin whose web pages may use the server, e.g. https://example.org, or * for "
                   "any; may be repeated")
      ->allow_extra_args(false);
  command->add_option("--admin-port", flags->admin_port,
                      "Port of 127.0.0.1 for the admin API; 0: any free one; default: none");
  command->add_option("--admin-key-file", flags->admin_key_file,
                      "File with the admin key; default: the variable MILLPOWER_ADMIN_KEY, else a "
                      "key is made and printed");
  command->add_option("--model-root", flags->model_root,
                      "Folder that the admin API loads models from; default: anywhere");
  command->add_option("--ledger", flags->ledger,
                      "Folder of the ledger, made if there is none: clients then need keys, and "
                      "what they use is billed; default: open to all");
  command->add_option("--chip", flags->chip,
                      "This machine as a chip description (millpower probe writes it): usage then "
                      "has its modelled energy");
  command
      ->add_option("--grid", flags->grid_g_per_kwh,
                   "Carbon intensity of the electricity, gCO2e per kWh: usage has it beside energy")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--currency", flags->currency, "Of a new ledger, e.g. EUR")
      ->capture_default_str();
  command->add_option("--log-level", flags->log_level, "Least severity logged")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  command->add_flag("--hints", flags->hints, "Print examples to paste once it is ready");
  command->add_option("--config", flags->config,
                      "TOML file with these settings; flags override it");
  return [flags] { return Serve(*flags); };
}

}  // namespace millpower::cli
