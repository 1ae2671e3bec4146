// millpower serve --model PATH
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>

#include <cstdio>

#include "base/clock.h"
#include "cli/commands.h"
#include "cli/config.h"
#include "cli/session.h"
#include "cli/size.h"
#include "serve/service.h"

namespace millpower::cli {
namespace {

struct Flags {
  CLI::App* command = nullptr;
  std::string config, model, model_name;
  std::string host = "127.0.0.1";
  uint16_t port = 8080;
  ModelFlags shared;
  int32_t max_model_len = 0, max_num_seqs = 0, max_batch_tokens = 0, queue = 256;
  std::string kv_memory;
  std::optional<double> temperature, top_p, min_p;
  std::optional<int64_t> top_k;
  std::string max_body = "32MiB";
  int drain_seconds = 30;
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

// What a newcomer can paste at once.
void PrintHints(const std::string& url, const std::string& model) {
  fmt::print(
      "\nServing '{1}' at {0}/v1. Try it:\n\n"
      "  curl {0}/v1/chat/completions -H 'Content-Type: application/json' -d '{{\n"
      "    \"model\": \"{1}\",\n"
      "    \"messages\": [{{\"role\": \"user\", \"content\": \"What is a bill of lading?\"}}],\n"
      "    \"chat_template_kwargs\": {{\"enable_thinking\": false}}}}'\n\n"
      "or, in Python (pip install openai):\n\n"
      "  from openai import OpenAI\n"
      "  client = OpenAI(base_url=\"{0}/v1\", api_key=\"none\")\n"
      "  stream = client.chat.completions.create(\n"
      "      model=\"{1}\", stream=True,\n"
      "      messages=[{{\"role\": \"user\", \"content\": \"Why do freight rates rise?\"}}])\n"
      "  for chunk in stream:\n"
      "      print(chunk.choices[0].delta.content or \"\", end=\"\", flush=True)\n\n"
      "Ctrl-C stops it.\n",
      url, model);
  std::fflush(stdout);
}

Result<void> Serve(Flags& flags) {
  if (!flags.config.empty()) TRY(ApplyConfig(*flags.command, flags.config));
  if (flags.model.empty())
    return Fail(ErrorCode::kInvalidArgument, "no model: give --model PATH", "model");
  spdlog::set_level(spdlog::level::from_str(flags.log_level));
  const sigset_t termination = BlockTermination();

  SessionOptions options;
  TRY_ASSIGN(options.load, ToLoadOptions(flags.shared));
  options.kernels = flags.shared.kernels;
  options.max_model_len = flags.max_model_len;
  options.max_num_seqs = flags.max_num_seqs;
  options.max_batch_tokens = flags.max_batch_tokens;
  options.max_queue = flags.queue;
  // A folder is compiled for what is asked; a compiled file has bounds of its own.
  if (flags.max_num_seqs > 0) options.load.max_num_seqs = flags.max_num_seqs;
  if (flags.max_batch_tokens > 0) options.load.max_batch_tokens = flags.max_batch_tokens;
  if (!flags.kv_memory.empty()) {
    TRY_ASSIGN(options.kv_memory_bytes, ParseSize(flags.kv_memory));
  }
  serve::HttpConfig http{.host = flags.host, .port = flags.port};
  TRY_ASSIGN(const int64_t max_body, ParseSize(flags.max_body));
  http.limits.body_bytes_max = static_cast<size_t>(max_body);

  // The service starts before the model is there: it answers "not ready" meanwhile, and a taken
  // port is told at once.
  const SystemClock clock;
  serve::ModelRegistry registry;
  Session session;  // outlives the service
  serve::Service service(http, registry, clock);
  TRY(service.Start());
  TRY_ASSIGN(session, StartSession(flags.model, options));
  const std::string name = flags.model_name.empty() ? session.model.name : flags.model_name;
  registry.Add({.name = name,
                .created_unix_s = clock.UnixSeconds(),
                .engine = session.engine.get(),
                .tokenizer = session.model.tokenizer.get(),
                .chat_format = session.model.chat_format,
                .defaults = Defaults(flags, session.model.generation),
                .max_model_len = session.engine->limits().max_model_len});
  const std::string url = fmt::format("http://{}:{}", flags.host, service.port());
  spdlog::info("serving '{}' at {}/v1", name, url);
  if (flags.hints) PrintHints(url, name);

  int signal = 0;
  sigwait(&termination, &signal);
  spdlog::info("{}: finishing the requests being served, for at most {} s",
               signal == SIGTERM ? "SIGTERM" : "SIGINT", flags.drain_seconds);
  pthread_sigmask(SIG_UNBLOCK, &termination, nullptr);  // a second signal ends the process
  service.Drain(std::chrono::seconds(flags.drain_seconds));
  session.engine->Drain(0);
  spdlog::info("stopped");
  return {};
}

}  // namespace

Command AddServe(CLI::App& app) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("serve", "Serve a model over the OpenAI API until SIGTERM or Ctrl-C");
  flags->command = command;
  command->add_option("--model", flags->model, "Model folder or compiled file");
  command->add_option("--model-name", flags->model_name,
                      "Name clients call it by; default: the last part of the path");
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
                      "Memory for keys and values, e.g. 2GiB; default: up to 8 contexts, at most "
                      "half of what is free");
  command->add_option("--queue", flags->queue, "Requests that may wait; more get 429")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
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
  command->add_option("--log-level", flags->log_level, "Least severity logged")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  command->add_flag("--hints", flags->hints, "Print examples to paste once it is ready");
  command->add_option("--config", flags->config,
                      "TOML file with these settings; flags override it");
  return [flags] { return Serve(*flags); };
}

}  // namespace millpower::cli
