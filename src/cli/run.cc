// millpower run MODEL: chat in the terminal.
#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <iostream>
#include <mutex>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/size.h"
#include "text/output_parser.h"

namespace millpower::cli {
namespace {

struct Flags {
  std::string model, system, prompt, trace;
  ModelFlags shared;
  int32_t max_model_len = 0, max_tokens = 0;
  std::string kv_memory;
  std::optional<double> temperature;
  std::optional<uint64_t> seed;
  bool no_think = false;
};

// Ctrl-C stops the answer, not the program.
std::atomic<bool> interrupted{false};
void OnInterrupt(int) { interrupted = true; }

// Prints an answer as it comes, reasoning dimmed, and keeps what goes into the next turn.
class Printer {
 public:
  Printer(const Session& session, bool starts_in_reasoning)
      : detokenizer_(*session.model.tokenizer, true),
        parser_(session.model.chat_format, starts_in_reasoning, false),
        colour_(::isatty(STDOUT_FILENO) == 1) {}

  void Push(int32_t token) { Print(parser_.Push(detokenizer_.Push(token))); }
  void Finish() {
    Print(parser_.Push(detokenizer_.Flush()));
    Print(parser_.Finish());
    SetDim(false);
    std::fputs("\n", stdout);
    std::fflush(stdout);
  }
  const std::string& content() const { return content_; }

 private:
  void Print(const std::vector<text::OutputEvent>& events) {
    for (const text::OutputEvent& event : events) {
      const bool reasoning = event.kind == text::OutputEvent::kReasoning;
      if (!reasoning && dim_) std::fputs("\n", stdout);
      SetDim(reasoning);
      std::fputs(event.text.c_str(), stdout);
      if (!reasoning) content_ += event.text;
    }
    std::fflush(stdout);
  }
  void SetDim(bool dim) {
    if (dim != dim_ && colour_) std::fputs(dim ? "\033[2m" : "\033[0m", stdout);
    dim_ = dim;
  }

  text::Detokenizer detokenizer_;
  text::OutputParser parser_;
  const bool colour_;
  bool dim_ = false;
  std::string content_;
};

// One turn: renders the conversation, generates, prints. The answer's content.
Result<std::string> Answer(Session& session, const Flags& flags, const Json& messages, int turn) {
  const LoadedModel& model = session.model;
  text::ChatOptions chat;
  if (flags.no_think) chat.enable_thinking = false;
  std::vector<text::TextRange> typed;  // control tokens that a person types stay text
  TRY_ASSIGN(const std::string prompt,
             text::RenderChat(model.chat_format, messages, nullptr, chat, &typed));
  engine::Request request;
  request.id = "turn-" + std::to_string(turn);
  TRY_ASSIGN(request.prompt, model.tokenizer->Encode(prompt, true, typed));
  engine::SamplingParams& sampling = request.sampling;
  sampling.temperature =
      static_cast<float>(flags.temperature.value_or(model.generation.temperature));
  sampling.top_k = static_cast<int32_t>(model.generation.top_k);
  sampling.top_p = static_cast<float>(model.generation.top_p);
  sampling.min_p = static_cast<float>(model.generation.min_p);
  sampling.seed = flags.seed;
  const int32_t room =
      session.engine->limits().max_model_len - static_cast<int32_t>(request.prompt.size());
  sampling.max_tokens = flags.max_tokens > 0 ? std::min(flags.max_tokens, room) : room;
  if (room < 1)
    return Fail(ErrorCode::kOutOfRange, "the conversation has filled the context; start anew");

  Printer printer(session, text::StartsInReasoning(model.chat_format) && !flags.no_think);
  std::mutex mutex;
  std::condition_variable done_changed;
  bool done = false;
  std::optional<Error> error;
  const std::vector<int32_t>& eos = model.generation.eos_token_ids;
  interrupted = false;
  TRY(session.engine->Submit(std::move(request), [&](const engine::Delta& delta) {
    for (const engine::TokenInfo& token : delta.tokens)
      if (std::ranges::find(eos, token.token) == eos.end()) printer.Push(token.token);
    const bool stop = interrupted;
    if (delta.finish || stop) {
      const std::lock_guard lock(mutex);
      done = true;
      error = delta.error;
      done_changed.notify_all();
    }
    return stop ? engine::Verdict::kCancel : engine::Verdict::kContinue;
  }));
  std::unique_lock lock(mutex);
  done_changed.wait(lock, [&] { return done; });
  printer.Finish();
  if (error) return std::unexpected(*error);
  return printer.content();
}

Result<void> Run(const Flags& flags) {
  spdlog::set_level(spdlog::level::warn);
  SessionOptions options;
  TRY_ASSIGN(options.load, ToLoadOptions(flags.shared));
  options.kernels = flags.shared.kernels;
  options.max_model_len = flags.max_model_len;
  if (!flags.kv_memory.empty()) {
    TRY_ASSIGN(options.kv_memory_bytes, ParseSize(flags.kv_memory));
  }
  TRY_ASSIGN(const std::unique_ptr<device::TraceFile> trace, OpenTrace(flags.trace));
  options.trace = trace.get();
  TRY_ASSIGN(Session session, StartSession(flags.model, options));
  struct sigaction action{};
  action.sa_handler = OnInterrupt;  // without SA_RESTART: at the prompt, Ctrl-C ends the input
  sigaction(SIGINT, &action, nullptr);

  const Json system = flags.system.empty()
                          ? Json::array()
                          : Json::array({{{"role", "system"}, {"content", flags.system}}});
  Json messages = system;
  const bool interactive = flags.prompt.empty() && ::isatty(STDIN_FILENO) == 1;
  if (interactive)
    std::printf("%s, context %d. /reset starts anew, Ctrl-C stops an answer, Ctrl-D ends.\n",
                session.model.name.c_str(), session.engine->limits().max_model_len);
  for (int turn = 0;; ++turn) {
    std::string line = flags.prompt;
    if (flags.prompt.empty()) {
      if (interactive) std::fputs("\n> ", stdout);
      std::fflush(stdout);
      if (!std::getline(std::cin, line)) break;
    }
    if (line.empty()) continue;
    if (line == "/reset") {
      messages = system;
      continue;
    }
    messages.push_back({{"role", "user"}, {"content", line}});
    TRY_ASSIGN(std::string answer, Answer(session, flags, messages, turn));
    messages.push_back({{"role", "assistant"}, {"content", std::move(answer)}});
    if (!flags.prompt.empty()) break;
  }
  if (interactive) std::printf("\n");
  if (trace) TRY(trace->Close());
  return {};
}

}  // namespace

Command AddRun(CLI::App& app) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("run", "Chat with a model in the terminal");
  command->add_option("model", flags->model, "Model folder, GGUF file or compiled file")
      ->required();
  command->add_option("-p,--prompt", flags->prompt, "Answer this and end; default: read lines");
  command->add_option("--system", flags->system, "System message");
  command
      ->add_option("--max-tokens", flags->max_tokens, "Of one answer; 0: the rest of the context")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--temperature", flags->temperature, "0: always the most likely token")
      ->check(CLI::Range(0.0, 100.0));
  command->add_option("--seed", flags->seed, "Same seed, same answers");
  command->add_flag("--no-think", flags->no_think, "Answer without reasoning first");
  command
      ->add_option("--max-model-len", flags->max_model_len,
                   "Tokens of the whole conversation; 0: the model's, as memory allows")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--kv-memory", flags->kv_memory, "Memory for keys and values, e.g. 2GiB");
  AddTraceFlag(*command, flags->trace);
  AddCompileFlags(*command, flags->shared);
  AddDeviceFlags(*command, flags->shared);
  return [flags] { return Run(*flags); };
}

}  // namespace millpower::cli
