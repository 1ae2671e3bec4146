#include "serve/api.h"

#include <spdlog/spdlog.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <thread>

#include "serve/build_info.h"
#include "serve/errors.h"
#include "serve/fields.h"
#include "serve/generation.h"
#include "serve/ids.h"
#include "serve/paths.h"
#include "serve/rate_limiter.h"
#include "serve/requests.h"

namespace millpower::serve {
namespace {

using ExchangePtr = std::shared_ptr<Exchange>;
using ModelPtr = std::shared_ptr<const ServedModel>;
using CallerPtr = std::shared_ptr<const Caller>;

// Bodies above this wait in a lane of their own, so that a short question never queues behind
// somebody's book being tokenised.
constexpr size_t kLongBodyBytes = 128 << 10;
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

void AddHeaders(Exchange& exchange, Headers headers) {
  for (auto& [name, value] : headers) exchange.AddHeader(std::move(name), std::move(value));
}

// Tokens that requests reserve of those per minute: what is held of them at first. The prompt of
// several choices counts once.
int64_t TokensAtFirst(const std::vector<engine::Request>& requests, int choices_per_prompt) {
  int64_t count = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    if (i % static_cast<size_t>(choices_per_prompt) == 0) count += std::ssize(requests[i].prompt);
    count += FirstSliceOf(requests[i].sampling.max_tokens);
  }
  return count;
}

// What a request is sold as. (Of on-demand work the ledger finds itself whether a lease covers it.)
ledger::Tier TierOf(const Caller* caller, engine::Priority priority) {
  if (caller != nullptr && caller->is_batch) return ledger::Tier::kBatch;
  switch (priority) {
    case engine::Priority::kInteractive:
      return ledger::Tier::kPriority;
    case engine::Priority::kStandard:
      return ledger::Tier::kOnDemand;
    case engine::Priority::kBatch:
      return ledger::Tier::kBatch;
  }
  return ledger::Tier::kOnDemand;
}

}  // namespace

struct Api::Impl {
  using Answer = Result<HttpResponse>;

  // What a POST endpoint is asked, by whom.
  struct Call {
    ExchangePtr exchange;
    CallerPtr caller;  // null: nobody in particular
    RateLimiter::Admission admission = {};
    int retry_after_s = kRetryAfterSeconds;  // where it is refused
  };
  struct PostRoute {
    const char* path;
    const char* name;   // in logs and metrics
    const char* scope;  // in keys
    // With the JSON body and the model it names, in a lane.
    Result<void> (Impl::*answer)(Call&, const Json&, const ModelPtr&);
  };
  static const PostRoute kPostRoutes[];

  Impl(const ModelRegistry& models, Metrics& metrics, const Clock& clock, Meter* meter);

  // A GET endpoint that answers at once, on the I/O thread.
  void AddGet(const char* path, const char* name, std::function<Answer()> answer);
  void AddModelsRoutes();
  void HandlePost(const ExchangePtr& exchange, const PostRoute& route);
  // `model`: which one the request turned out to be for.
  Result<void> AnswerPost(Call& call, const PostRoute& route, std::string& model);
  // Refuses what got no further than its key.
  void Refuse(const ExchangePtr& exchange, const Error& error);
  void Refuse(Call& call, const std::string& model, const Error& error);
  // The whole answer, after which the place that the request took is free.
  void Respond(Call& call, HttpResponse response);

  Answer Ready() const;
  Json ListModels(const Caller* caller) const;
  // As if there were none where the caller's key is not for it.
  Result<ModelPtr> FindModel(const Caller* caller, const std::string& name) const;

  Result<void> Chat(Call&, const Json&, const ModelPtr&);
  Result<void> Complete(Call&, const Json&, const ModelPtr&);
  Result<void> Tokenize(Call&, const Json&, const ModelPtr&);
  Result<void> Detokenize(Call&, const Json&, const ModelPtr&);

  ReplyHead MakeHead(const Call& call, const char* prefix, const GenerationRequest& request,
                     const ServedModel& model) const;
  // Of the choices `made`. Errors: kRateLimited (tokens in a minute).
  Result<std::shared_ptr<Generation>> MakeGeneration(Call& call, const ModelPtr& model,
                                                     const char* endpoint, const std::string& id,
                                                     std::unique_ptr<Reply> reply,
                                                     const GenerationRequest& request,
                                                     const std::vector<engine::Request>& made);
  // What the engine is told of who asks.
  void Attribute(const Call& call, engine::Request& request) const;

  const ModelRegistry& models;
  Metrics& metrics;
  const Clock& clock;
  const Access access;
  RateLimiter limiter;
  Router router;
  OtherModels others;
  std::atomic<bool> draining{false};
  boost::asio::thread_pool short_lane{1};
  boost::asio::thread_pool long_lane{1};
  boost::asio::thread_pool reply_lane{1};  // whole answers are written down here
  boost::asio::thread_pool start_lane{1};  // what is held is submitted here
  GenerationContext generation_context;
};

const Api::Impl::PostRoute Api::Impl::kPostRoutes[] = {
    {"/v1/chat/completions", "chat", kChatScope, &Impl::Chat},
    {"/v1/completions", "completions", kCompletionsScope, &Impl::Complete},
    {"/tokenize", "tokenize", kTokenizeScope, &Impl::Tokenize},
    {"/detokenize", "detokenize", kTokenizeScope, &Impl::Detokenize},
};

Api::Impl::Impl(const ModelRegistry& models_in, Metrics& metrics_in, const Clock& clock_in,
                Meter* meter)
    : models(models_in),
      metrics(metrics_in),
      clock(clock_in),
      access(meter == nullptr ? nullptr : &meter->ledger(), clock_in),
      limiter(clock_in),
      generation_context{
          .metrics = metrics_in,
          .clock = clock_in,
          .run_elsewhere = [this](auto work) { boost::asio::post(reply_lane, std::move(work)); },
          .start = [this](auto work) { boost::asio::post(start_lane, std::move(work)); },
          .meter = meter} {
  AddGet("/", "banner", [] {
    return JsonResponse({{"name", "millpower"}, {"version", kVersion}, {"api", "/openapi.json"}});
  });
  AddGet("/health/live", "health", [] { return JsonResponse(Json{{"status", "live"}}); });
  AddGet("/health/ready", "health", [this] { return Ready(); });
  AddGet("/openapi.json", "openapi", [] { return HttpResponse{.body = kOpenApiJson}; });
  if (access.is_open()) AddGet("/metrics", "metrics", [this] { return metrics.Response(); });
  AddModelsRoutes();
  for (const PostRoute& route : kPostRoutes)
    router.Add({"POST", route.path, route.name,
                [this, &route](const ExchangePtr& exchange, const PathArguments&) {
                  HandlePost(exchange, route);
                }});
}

// ---- From paths to endpoints

void Api::Impl::AddGet(const char* path, const char* name, std::function<Answer()> answer) {
  router.Add({"GET", path, name,
              [answer = std::move(answer)](const ExchangePtr& exchange, const PathArguments&) {
                Answer made = answer();
                exchange->Reply(made ? std::move(*made) : ErrorResponse(made.error()));
              }});
}

void Api::Impl::AddModelsRoutes() {
  router.Add(
      {"GET", "/v1/models", "models", [this](const ExchangePtr& exchange, const PathArguments&) {
         const auto caller = access.Authenticate(exchange->request(), kModelsScope);
         if (!caller) return Refuse(exchange, caller.error());
         exchange->Reply(JsonResponse(ListModels(caller->get())));
       }});
  router.Add({"GET", "/v1/models/{id...}", "models",
              [this](const ExchangePtr& exchange, const PathArguments& arguments) {
                const auto caller = access.Authenticate(exchange->request(), kModelsScope);
                if (!caller) return Refuse(exchange, caller.error());
                const auto model = FindModel(caller->get(), arguments[0]);
                if (!model && others.answer && others.answer(exchange, caller->get(), arguments[0]))
                  return;
                exchange->Reply(model ? JsonResponse(ModelJson(**model))
                                      : ErrorResponse(model.error()));
              }});
}

void Api::Impl::Refuse(const ExchangePtr& exchange, const Error& error) {
  metrics.CountRefusal("", error.code);
  exchange->Reply(ErrorResponse(error, kRetryAfterSeconds));
}

void Api::Impl::Refuse(Call& call, const std::string& model, const Error& error) {
  metrics.CountRefusal(model, error.code);
  Respond(call, ErrorResponse(error, call.retry_after_s));
}

void Api::Impl::Respond(Call& call, HttpResponse response) {
  AddHeaders(*call.exchange, call.admission.headers());
  call.admission.Release();
  call.exchange->Reply(std::move(response));
}

// What costs next to nothing comes first, so that who may not come in takes no place in a lane.
void Api::Impl::HandlePost(const ExchangePtr& exchange, const PostRoute& route) {
  auto caller = access.Authenticate(exchange->request(), route.scope);
  if (!caller) return Refuse(exchange, caller.error());
  if (!IsJson(exchange->request().content_type)) {
    exchange->Reply(
        ErrorResponse(HttpFault::kUnsupportedMedia, "Content-Type must be application/json"));
    return;
  }
  Call call{.exchange = exchange, .caller = std::move(*caller)};
  Headers headers;
  auto admission = limiter.Admit(call.caller, call.retry_after_s, headers);
  if (!admission) {
    AddHeaders(*exchange, headers);
    return Refuse(call, "", admission.error());
  }
  call.admission = std::move(*admission);
  auto& lane = exchange->request().body.size() > kLongBodyBytes ? long_lane : short_lane;
  boost::asio::post(lane, [this, call = std::move(call), &route]() mutable {
    Result<void> answered;
    std::string model;
    try {
      answered = call.exchange->gone() ? Result<void>() : AnswerPost(call, route, model);
    } catch (const std::exception& error) {  // out of memory
      spdlog::error("id={} {}: {}", call.exchange->request().id, route.name, error.what());
      answered = Fail(ErrorCode::kInternal, "internal error");
    }
    if (!answered) Refuse(call, model, answered.error());
  });
}

Result<void> Api::Impl::AnswerPost(Call& call, const PostRoute& route, std::string& model_name) {
  if (draining) return Fail(ErrorCode::kUnavailable, "the server is shutting down");
  TRY_ASSIGN(const Json body, ParseBody(call.exchange->TakeBody()));
  TRY_ASSIGN(const std::string name, ReadModelName(body));
  TRY_ASSIGN(const ModelPtr model, FindModel(call.caller.get(), name));
  model_name = model->name;
  return (this->*route.answer)(call, body, model);
}

// ---- GET

Api::Impl::Answer Api::Impl::Ready() const {
  if (draining) return Fail(ErrorCode::kUnavailable, "the server is shutting down");
  const bool others_are_ready = others.is_ready && others.is_ready() && !models.IsAwaited();
  if (!models.IsReady() && !others_are_ready)
    return Fail(ErrorCode::kUnavailable, "not all models are loaded yet");
  return JsonResponse(Json{{"status", "ready"}});
}

Json Api::Impl::ListModels(const Caller* caller) const {
  Json data = Json::array();
  for (const ModelPtr& model : models.All())
    if (MayUseModel(caller, model->name)) data.push_back(ModelJson(*model));
  Json list = {{"object", "list"}};
  list["data"] = std::move(data);
  return list;
}

Result<ModelPtr> Api::Impl::FindModel(const Caller* caller, const std::string& name) const {
  return MayUseModel(caller, name) ? models.Find(name) : ModelRegistry::NoSuchModel(name);
}

// ---- POST

ReplyHead Api::Impl::MakeHead(const Call& call, const char* prefix,
                              const GenerationRequest& request, const ServedModel& model) const {
  // The line of a batch is the same request however often it is asked, which the ledger tells by
  // its id.
  const bool is_batch = call.caller != nullptr && call.caller->is_batch;
  return {.id = is_batch ? prefix + call.exchange->request().id : NewId(prefix),
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

Result<std::shared_ptr<Generation>> Api::Impl::MakeGeneration(
    Call& call, const ModelPtr& model, const char* endpoint, const std::string& id,
    std::unique_ptr<Reply> reply, const GenerationRequest& request,
    const std::vector<engine::Request>& made) {
  TRY(call.admission.TakeTokens(TokensAtFirst(made, request.choice_count), call.retry_after_s));
  AddHeaders(*call.exchange, call.admission.headers());
  return std::make_shared<Generation>(
      generation_context, call.exchange, model, std::move(reply),
      Generation::Options{.stream = request.stream,
                          .include_usage = request.include_usage,
                          .caller = call.caller,
                          .api_request_id = id,
                          .endpoint = endpoint,
                          .tier = TierOf(call.caller.get(), request.priority),
                          .admission = std::move(call.admission)});
}

void Api::Impl::Attribute(const Call& call, engine::Request& request) const {
  if (call.caller == nullptr) return;
  request.caller = call.caller->tenant->id;
  if (call.caller->is_batch) request.priority = engine::Priority::kBatch;
}

Result<void> Api::Impl::Chat(Call& call, const Json& body, const ModelPtr& model) {
  TRY_ASSIGN(const ChatRequest request, ReadChatRequest(body, *model));
  TRY_ASSIGN(std::vector<int32_t> prompt, PromptIds(request, *model));
  ReplyHead head = MakeHead(call, "chatcmpl-", request, *model);
  if (head.return_token_ids) head.prompts.push_back(prompt);
  std::vector<engine::Request> made;
  for (int i = 0; i < request.choice_count; ++i) {
    TRY_ASSIGN(
        engine::Request one,
        MakeEngineRequest(request, fmt::format("{}-{}", head.id, i), prompt,
                          model->defaults.max_tokens.value_or(model->max_model_len), i, *model));
    Attribute(call, one);
    // The prompt is one; it is scored once.
    if (i > 0) one.sampling.prompt_logprobs = false;
    made.push_back(std::move(one));
  }
  const std::string id = head.id;
  TRY_ASSIGN(const auto generation,
             MakeGeneration(call, model, kChatScope, id,
                            MakeChatReply(std::move(head), request.choice_count), request, made));
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

Result<void> Api::Impl::Complete(Call& call, const Json& body, const ModelPtr& model) {
  constexpr int32_t kMaxTokensDefault = 16;  // OpenAI's
  TRY_ASSIGN(const CompletionRequest request, ReadCompletionRequest(body, *model));
  ReplyHead head = MakeHead(call, "cmpl-", request, *model);
  std::vector<engine::Request> made;
  for (const Prompt& prompt : request.prompts) {
    TRY_ASSIGN(const std::vector<int32_t> ids, PromptIds(prompt, *model));
    if (head.return_token_ids) head.prompts.push_back(ids);
    for (int i = 0; i < request.choice_count; ++i) {
      TRY_ASSIGN(engine::Request one,
                 MakeEngineRequest(request, fmt::format("{}-{}", head.id, made.size()), ids,
                                   kMaxTokensDefault, i, *model));
      Attribute(call, one);
      made.push_back(std::move(one));
    }
  }
  const std::string id = head.id;
  TRY_ASSIGN(const auto generation,
             MakeGeneration(call, model, kCompletionsScope, id,
                            MakeCompletionReply(std::move(head), static_cast<int>(made.size())),
                            request, made));
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

Result<void> Api::Impl::Tokenize(Call& call, const Json& body, const ModelPtr& model) {
  TRY_ASSIGN(const TokenizeRequest request, ReadTokenizeRequest(body, *model));
  TRY_ASSIGN(const std::vector<int32_t> ids,
             std::visit([&](const auto& text) { return PromptIds(text, *model); }, request.text));
  Respond(call,
          JsonResponse(
              {{"count", ids.size()}, {"max_model_len", model->max_model_len}, {"tokens", ids}}));
  return {};
}

Result<void> Api::Impl::Detokenize(Call& call, const Json& body, const ModelPtr& model) {
  TRY_ASSIGN(const std::vector<int32_t> ids, ReadDetokenizeRequest(body, *model));
  Respond(call, JsonResponse(Json{{"prompt", model->tokenizer->Decode(ids)}}));
  return {};
}

// ---- The shell

Api::Api(const ModelRegistry& models, Metrics& metrics, const Clock& clock, Meter* meter)
    : impl_(std::make_unique<Impl>(models, metrics, clock, meter)) {}

Api::~Api() {
  StartDraining();
  impl_->short_lane.join();
  impl_->long_lane.join();
  while (impl_->generation_context.live_count > 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  impl_->start_lane.join();
  impl_->reply_lane.join();
}

Router& Api::router() { return impl_->router; }

const Access& Api::access() const { return impl_->access; }

RateLimiter& Api::limiter() { return impl_->limiter; }

void Api::SetOtherModels(OtherModels others) { impl_->others = std::move(others); }

void Api::Handle(std::shared_ptr<Exchange> exchange) { impl_->router.Handle(exchange); }

void Api::StartDraining() { impl_->draining = true; }

}  // namespace millpower::serve
