#include "serve/api.h"

#include <spdlog/spdlog.h>

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <thread>

#include "serve/build_info.h"
#include "serve/errors.h"
#include "serve/fields.h"
#include "serve/generation.h"
#include "serve/ids.h"
#include "serve/paths.h"
#include "serve/requests.h"

namespace millpower::serve {
namespace {

using ExchangePtr = std::shared_ptr<Exchange>;
using ModelPtr = std::shared_ptr<const ServedModel>;

// Bodies above this wait in a lane of their own, so that a short question never queues behind
// somebody's book being tokenised.
constexpr size_t kLongBodyBytes = 128 << 10;
constexpr std::string_view kModelsPrefix = "/v1/models/";
// While a model loads, or the server is short of memory for bodies: nobody knows how long.
constexpr int kRetryAfterSeconds = 2;

HttpResponse JsonResponse(const Json& json) { return {.body = DumpJson(json)}; }

Json ModelJson(const ServedModel& model) {
  return {{"id", model.name},
          {"object", "model"},
          {"created", model.created_unix_s},
          {"owned_by", "millpower"},
          {"max_model_len", model.max_model_len}};
}

}  // namespace

struct Api::Impl {
  using Answer = Result<HttpResponse>;

  // GET endpoints answer at once, on the I/O thread; POST endpoints get the JSON body and the model
  // it names, in a lane.
  struct GetRoute {
    const char* path;
    const char* name;  // in logs and metrics
    Answer (Impl::*answer)(const HttpRequest&);
  };
  struct PostRoute {
    const char* path;
    const char* name;
    Result<void> (Impl::*answer)(const ExchangePtr&, const Json&, const ModelPtr&);
  };
  static const GetRoute kGetRoutes[];
  static const PostRoute kPostRoutes[];

  Impl(const ModelRegistry& models, Metrics& metrics, const Clock& clock);

  void Handle(ExchangePtr exchange);
  void HandleGet(const ExchangePtr& exchange, const GetRoute& route);
  void HandlePost(const ExchangePtr& exchange, const PostRoute& route);
  // `model`: which one the request turned out to be for.
  Result<void> AnswerPost(const ExchangePtr& exchange, const PostRoute& route, std::string& model);

  Answer Banner(const HttpRequest&);
  Answer Live(const HttpRequest&);
  Answer Ready(const HttpRequest&);
  Answer MetricsText(const HttpRequest&);
  Answer OpenApi(const HttpRequest&);
  Answer ListModels(const HttpRequest&);
  Answer GetModel(const HttpRequest&);

  Result<void> Chat(const ExchangePtr&, const Json&, const ModelPtr&);
  Result<void> Complete(const ExchangePtr&, const Json&, const ModelPtr&);
  Result<void> Tokenize(const ExchangePtr&, const Json&, const ModelPtr&);
  Result<void> Detokenize(const ExchangePtr&, const Json&, const ModelPtr&);

  ReplyHead MakeHead(const char* prefix, const GenerationRequest& request,
                     const ServedModel& model) const;
  std::shared_ptr<Generation> MakeGeneration(const ExchangePtr& exchange, const ModelPtr& model,
                                             std::unique_ptr<Reply> reply,
                                             const GenerationRequest& request);

  const ModelRegistry& models;
  Metrics& metrics;
  const Clock& clock;
  std::atomic<bool> draining{false};
  boost::asio::thread_pool short_lane{1};
  boost::asio::thread_pool long_lane{1};
  boost::asio::thread_pool reply_lane{1};  // whole answers are written down here
  GenerationContext generation_context{metrics, clock, [this](std::function<void()> work) {
                                         boost::asio::post(reply_lane, std::move(work));
                                       }};
};

const Api::Impl::GetRoute Api::Impl::kGetRoutes[] = {
    {"/", "banner", &Impl::Banner},
    {"/health/live", "health", &Impl::Live},
    {"/health/ready", "health", &Impl::Ready},
    {"/metrics", "metrics", &Impl::MetricsText},
    {"/openapi.json", "openapi", &Impl::OpenApi},
    {"/v1/models", "models", &Impl::ListModels},
    {"/v1/models/{id}", "models", &Impl::GetModel},
};

const Api::Impl::PostRoute Api::Impl::kPostRoutes[] = {
    {"/v1/chat/completions", "chat", &Impl::Chat},
    {"/v1/completions", "completions", &Impl::Complete},
    {"/tokenize", "tokenize", &Impl::Tokenize},
    {"/detokenize", "detokenize", &Impl::Detokenize},
};

Api::Impl::Impl(const ModelRegistry& models_in, Metrics& metrics_in, const Clock& clock_in)
    : models(models_in), metrics(metrics_in), clock(clock_in) {}

// ---- From paths to endpoints

void Api::Impl::Handle(ExchangePtr exchange) {
  const HttpRequest& request = exchange->request();
  std::string_view path = request.path;
  if (path.starts_with(kModelsPrefix) && path.size() > kModelsPrefix.size())
    path = "/v1/models/{id}";

  const auto get = std::ranges::find(kGetRoutes, path, &GetRoute::path);
  const auto post = std::ranges::find(kPostRoutes, path, &PostRoute::path);
  const bool is_get = get != std::end(kGetRoutes);
  if (!is_get && post == std::end(kPostRoutes)) {
    exchange->Reply(ErrorResponse(HttpFault::kNoSuchPath, "no such path: " + request.path));
    return;
  }
  exchange->SetRoute(is_get ? get->name : post->name);
  const char* allow = is_get ? "GET, HEAD, OPTIONS" : "POST, OPTIONS";
  if (request.method == "OPTIONS") {
    exchange->Reply({.status = 204, .body = {}, .headers = {{"allow", allow}}});
  } else if (is_get && (request.method == "GET" || request.method == "HEAD")) {
    HandleGet(exchange, *get);
  } else if (!is_get && request.method == "POST") {
    HandlePost(exchange, *post);
  } else {
    HttpResponse response =
        ErrorResponse(HttpFault::kMethodNotAllowed, request.path + " takes only " + allow);
    response.headers.emplace_back("allow", allow);
    exchange->Reply(std::move(response));
  }
}

void Api::Impl::HandleGet(const ExchangePtr& exchange, const GetRoute& route) {
  Answer answer = (this->*route.answer)(exchange->request());
  exchange->Reply(answer ? std::move(*answer) : ErrorResponse(answer.error()));
}

void Api::Impl::HandlePost(const ExchangePtr& exchange, const PostRoute& route) {
  if (!IsJson(exchange->request().content_type)) {
    exchange->Reply(
        ErrorResponse(HttpFault::kUnsupportedMedia, "Content-Type must be application/json"));
    return;
  }
  auto& lane = exchange->request().body.size() > kLongBodyBytes ? long_lane : short_lane;
  boost::asio::post(lane, [this, exchange, &route] {
    Result<void> answered;
    std::string model;
    try {
      answered = exchange->gone() ? Result<void>() : AnswerPost(exchange, route, model);
    } catch (const std::exception& error) {  // out of memory
      spdlog::error("id={} {}: {}", exchange->request().id, route.name, error.what());
      answered = Fail(ErrorCode::kInternal, "internal error");
    }
    if (answered) return;
    metrics.CountRefusal(model, answered.error().code);
    exchange->Reply(ErrorResponse(answered.error(), kRetryAfterSeconds));
  });
}

Result<void> Api::Impl::AnswerPost(const ExchangePtr& exchange, const PostRoute& route,
                                   std::string& model_name) {
  if (draining) return Fail(ErrorCode::kUnavailable, "the server is shutting down");
  TRY_ASSIGN(const Json body, ParseBody(exchange->TakeBody()));
  TRY_ASSIGN(const std::string name, ReadModelName(body));
  TRY_ASSIGN(const ModelPtr model, models.Find(name));
  model_name = model->name;
  return (this->*route.answer)(exchange, body, model);
}

// ---- GET

Api::Impl::Answer Api::Impl::Banner(const HttpRequest&) {
  return JsonResponse({{"name", "millpower"}, {"version", kVersion}, {"api", "/openapi.json"}});
}

Api::Impl::Answer Api::Impl::Live(const HttpRequest&) {
  return JsonResponse(Json{{"status", "live"}});
}

Api::Impl::Answer Api::Impl::Ready(const HttpRequest&) {
  if (draining) return Fail(ErrorCode::kUnavailable, "the server is shutting down");
  if (!models.IsReady()) return Fail(ErrorCode::kUnavailable, "not all models are loaded yet");
  return JsonResponse(Json{{"status", "ready"}});
}

Api::Impl::Answer Api::Impl::MetricsText(const HttpRequest&) {
  return HttpResponse{.content_type = "text/plain; version=0.0.4; charset=utf-8",
                      .body = metrics.Text()};
}

Api::Impl::Answer Api::Impl::OpenApi(const HttpRequest&) {
  return HttpResponse{.body = kOpenApiJson};
}

Api::Impl::Answer Api::Impl::ListModels(const HttpRequest&) {
  Json data = Json::array();
  for (const ModelPtr& model : models.All()) data.push_back(ModelJson(*model));
  Json list = {{"object", "list"}};
  list["data"] = std::move(data);
  return JsonResponse(list);
}

Api::Impl::Answer Api::Impl::GetModel(const HttpRequest& request) {
  TRY_ASSIGN(const ModelPtr model,
             models.Find(PercentDecoded(request.path.substr(kModelsPrefix.size()))));
  return JsonResponse(ModelJson(*model));
}

// ---- POST

ReplyHead Api::Impl::MakeHead(const char* prefix, const GenerationRequest& request,
                              const ServedModel& model) const {
  return {.id = NewId(prefix),
          .created_unix_s = clock.UnixSeconds(),
          .model = model.name,
          .tokenizer = model.tokenizer,
          .service_tier = request.service_tier,
          .choices_per_prompt = request.choice_count,
          .logprobs = request.logprobs >= 0,
          .prompt_logprobs = request.prompt_logprobs >= 0,
          .return_token_ids = request.return_token_ids,
          .include_usage = request.include_usage};
}

std::shared_ptr<Generation> Api::Impl::MakeGeneration(const ExchangePtr& exchange,
                                                      const ModelPtr& model,
                                                      std::unique_ptr<Reply> reply,
                                                      const GenerationRequest& request) {
  return std::make_shared<Generation>(
      generation_context, exchange, model, std::move(reply),
      Generation::Options{.stream = request.stream, .include_usage = request.include_usage});
}

Result<void> Api::Impl::Chat(const ExchangePtr& exchange, const Json& body, const ModelPtr& model) {
  TRY_ASSIGN(const ChatRequest request, ReadChatRequest(body, *model));
  TRY_ASSIGN(std::vector<int32_t> prompt, PromptIds(request, *model));
  ReplyHead head = MakeHead("chatcmpl-", request, *model);
  if (head.return_token_ids) head.prompts.push_back(prompt);
  std::vector<engine::Request> made;
  for (int i = 0; i < request.choice_count; ++i) {
    TRY_ASSIGN(
        engine::Request one,
        MakeEngineRequest(request, fmt::format("{}-{}", head.id, i), prompt,
                          model->defaults.max_tokens.value_or(model->max_model_len), i, *model));
    // The prompt is one; it is scored once.
    if (i > 0) one.sampling.prompt_logprobs = false;
    made.push_back(std::move(one));
  }
  const auto generation = MakeGeneration(
      exchange, model, MakeChatReply(std::move(head), request.choice_count), request);
  for (engine::Request& one : made)
    generation->AddChoice(
        std::move(one),
        Transcriber(
            *model, request,
            text::OutputParser(model->chat_format, text::StartsInReasoning(model->chat_format),
                               !request.tools.is_null())),
        &one == &made.front());
  generation->Start();
  return {};
}

Result<void> Api::Impl::Complete(const ExchangePtr& exchange, const Json& body,
                                 const ModelPtr& model) {
  constexpr int32_t kMaxTokensDefault = 16;  // OpenAI's
  TRY_ASSIGN(const CompletionRequest request, ReadCompletionRequest(body, *model));
  ReplyHead head = MakeHead("cmpl-", request, *model);
  std::vector<engine::Request> made;
  for (const Prompt& prompt : request.prompts) {
    TRY_ASSIGN(const std::vector<int32_t> ids, PromptIds(prompt, *model));
    if (head.return_token_ids) head.prompts.push_back(ids);
    for (int i = 0; i < request.choice_count; ++i) {
      TRY_ASSIGN(engine::Request one,
                 MakeEngineRequest(request, fmt::format("{}-{}", head.id, made.size()), ids,
                                   kMaxTokensDefault, i, *model));
      made.push_back(std::move(one));
    }
  }
  const auto generation =
      MakeGeneration(exchange, model,
                     MakeCompletionReply(std::move(head), static_cast<int>(made.size())), request);
  for (size_t i = 0; i < made.size(); ++i) {
    const auto choices = static_cast<size_t>(request.choice_count);
    std::string echo;
    if (request.echo) echo = PromptText(request.prompts[i / choices], *model);
    generation->AddChoice(std::move(made[i]),
                          Transcriber(*model, request, std::nullopt, std::move(echo)),
                          i % choices == 0);
  }
  generation->Start();
  return {};
}

Result<void> Api::Impl::Tokenize(const ExchangePtr& exchange, const Json& body,
                                 const ModelPtr& model) {
  TRY_ASSIGN(const TokenizeRequest request, ReadTokenizeRequest(body, *model));
  TRY_ASSIGN(const std::vector<int32_t> ids,
             std::visit([&](const auto& text) { return PromptIds(text, *model); }, request.text));
  exchange->Reply(JsonResponse(
      {{"count", ids.size()}, {"max_model_len", model->max_model_len}, {"tokens", ids}}));
  return {};
}

Result<void> Api::Impl::Detokenize(const ExchangePtr& exchange, const Json& body,
                                   const ModelPtr& model) {
  TRY_ASSIGN(const std::vector<int32_t> ids, ReadDetokenizeRequest(body, *model));
  exchange->Reply(JsonResponse(Json{{"prompt", model->tokenizer->Decode(ids)}}));
  return {};
}

// ---- The shell

Api::Api(const ModelRegistry& models, Metrics& metrics, const Clock& clock)
    : impl_(std::make_unique<Impl>(models, metrics, clock)) {}

Api::~Api() {
  StartDraining();
  impl_->short_lane.join();
  impl_->long_lane.join();
  while (impl_->generation_context.live_count > 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  impl_->reply_lane.join();
}

void Api::Handle(std::shared_ptr<Exchange> exchange) { impl_->Handle(std::move(exchange)); }

void Api::StartDraining() { impl_->draining = true; }

}  // namespace millpower::serve
