#include "serve/generation.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "serve/errors.h"

namespace millpower::serve {
namespace {

void AppendEvent(std::string& stream, const Json& event) {
  stream += "data: ";
  stream += DumpJson(event);
  stream += "\n\n";
}

}  // namespace

Generation::Generation(GenerationContext& context, std::shared_ptr<Exchange> exchange,
                       std::shared_ptr<const ServedModel> model, std::unique_ptr<Reply> reply,
                       Options options)
    : context_(context),
      exchange_(std::move(exchange)),
      model_(std::move(model)),
      options_(std::move(options)),
      start_ns_(context.clock.NowNs()),
      reply_(std::move(reply)) {
  ++context_.live_count;
}

Generation::~Generation() {
  ReleasePlace();  // of a client that left
  --context_.live_count;
}

void Generation::AddChoice(engine::Request request, Transcriber transcriber, bool counts_prompt) {
  choices_.push_back({request.id, std::move(transcriber), counts_prompt});
  requests_.push_back(std::move(request));
}

void Generation::Start() {
  exchange_->OnGone([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->CancelAll();
  });
  if (context_.meter == nullptr) return Submit();
  MeteredCall call{.caller = options_.caller,
                   .api_request_id = options_.api_request_id,
                   .model = model_->name,
                   .endpoint = options_.endpoint,
                   .tier = options_.tier,
                   .requests = {}};
  for (size_t i = 0; i < requests_.size(); ++i)
    call.requests.push_back(
        {.id = requests_[i].id,
         .prompt_tokens = choices_[i].counts_prompt ? std::ssize(requests_[i].prompt) : 0,
         .max_tokens = requests_[i].sampling.max_tokens});
  context_.meter->Hold(call, [self = shared_from_this()](const Result<void>& held) {
    self->context_.start([self, held] { self->OnHeld(held); });
  });
}

void Generation::OnHeld(const Result<void>& held) {
  if (!held) {
    context_.metrics.CountRefusal(model_->name, held.error().code);
    std::lock_guard lock(mutex_);
    return Fail(held.error());
  }
  if (exchange_->gone()) return AbandonFrom(0);
  Submit();
}

void Generation::Submit() {
  for (size_t i = 0; i < requests_.size(); ++i) {
    const auto submitted = model_->engine->Submit(
        std::move(requests_[i]),
        [self = shared_from_this(), index = static_cast<int>(i)](const engine::Delta& delta) {
          return self->OnDelta(index, delta);
        });
    if (submitted) continue;
    AbandonFrom(i);
    WaiveAll();
    context_.metrics.CountRefusal(model_->name, submitted.error().code);
    {
      std::lock_guard lock(mutex_);
      if (!over_) Fail(submitted.error());
    }
    CancelAll();
    return;
  }
  // A client that left before there was anything to cancel.
  if (exchange_->gone()) CancelAll();
}

void Generation::AbandonFrom(size_t first) {
  if (context_.meter == nullptr) return;
  for (size_t i = first; i < choices_.size(); ++i) context_.meter->Abandon(choices_[i].id);
}

void Generation::WaiveAll() {
  if (context_.meter == nullptr) return;
  for (const Choice& choice : choices_) context_.meter->Waive(choice.id);
}

engine::Verdict Generation::OnDelta(int index, const engine::Delta& delta) {
  std::lock_guard lock(mutex_);
  Choice& choice = choices_[static_cast<size_t>(index)];
  Count(choice, delta.usage);
  const bool failed = delta.finish == engine::FinishReason::kError;
  if (over_ || exchange_->gone()) {
    CountFinish(choice, failed ? "error" : "cancelled");
    return engine::Verdict::kCancel;
  }
  if (failed || delta.finish == engine::FinishReason::kCancelled) {
    CountFinish(choice, failed ? "error" : "cancelled");
    WaiveAll();
    Fail(delta.error.value_or(Error{ErrorCode::kUnavailable, "the generation was cancelled", ""}));
    CancelElsewhere();
    return engine::Verdict::kCancel;
  }
  Piece piece =
      choice.last ? *std::exchange(choice.last, std::nullopt) : choice.transcriber.Push(delta);
  if (piece.finish_reason != nullptr && !delta.finish) {
    choice.last = std::move(piece);
    return engine::Verdict::kStop;
  }
  choice.finished = piece.finish_reason != nullptr;
  const char* reason = piece.budget_spent ? "budget" : piece.finish_reason;
  if (!piece.empty() && !Emit(index, std::move(piece))) {
    over_ = true;
    CountFinish(choice, "cancelled");
    CancelElsewhere();
    return engine::Verdict::kCancel;
  }
  if (!choice.finished) return engine::Verdict::kContinue;
  CountFinish(choice, reason);
  if (std::ranges::all_of(choices_, &Choice::finished)) Complete();
  return engine::Verdict::kStop;
}

void Generation::Count(Choice& choice, const engine::Usage& usage) {
  exchange_->CountTokens(
      choice.counts_prompt ? usage.prompt_tokens - choice.usage.prompt_tokens : 0,
      usage.completion_tokens - choice.usage.completion_tokens);
  choice.usage = usage;
}

void Generation::CountFinish(const Choice& choice, const char* reason) {
  model_->metrics->CountFinish(reason, choice.usage,
                               static_cast<double>(context_.clock.NowNs() - start_ns_) * 1e-9);
}

bool Generation::Emit(int index, Piece piece) {
  if (!options_.stream) {
    reply_->Add(index, std::move(piece));
    return true;
  }
  std::string events;
  for (const Json& event : reply_->Events(index, std::move(piece))) AppendEvent(events, event);
  return exchange_->Stream(events);
}

void Generation::ReleasePlace() {
  const engine::Usage total = TotalUsage();
  options_.admission.CorrectTokens(total.prompt_tokens + total.completion_tokens);
  options_.admission.Release();
}

void Generation::Complete() {
  over_ = true;
  ReleasePlace();
  if (!options_.stream) {
    // Long answers with logprobs take longer to write down than a step of the engine.
    context_.run_elsewhere([self = shared_from_this()] {
      std::lock_guard lock(self->mutex_);
      self->exchange_->Reply({.body = DumpJson(self->reply_->Whole(self->TotalUsage()))});
    });
    return;
  }
  std::string events;
  if (options_.include_usage) AppendEvent(events, reply_->UsageEvent(TotalUsage()));
  exchange_->Stream(events + "data: [DONE]\n\n");
  exchange_->Finish();
}

void Generation::Fail(const Error& error) {
  over_ = true;
  ReleasePlace();
  if (!exchange_->streaming()) {
    exchange_->Reply(ErrorResponse(error, model_->metrics->RetryAfterSeconds()));
    return;
  }
  std::string events;
  AppendEvent(events, ErrorJson(error));
  exchange_->Stream(events + "data: [DONE]\n\n");
  exchange_->Finish();
}

// From a sink, which must not call the engine: the other choices need not wait for their next token
// to hear that it is over.
void Generation::CancelElsewhere() {
  if (choices_.size() > 1)
    context_.run_elsewhere([self = shared_from_this()] { self->CancelAll(); });
}

void Generation::CancelAll() {
  for (const Choice& choice : choices_) model_->engine->Cancel(choice.id);
}

engine::Usage Generation::TotalUsage() const {
  engine::Usage total;
  for (const Choice& choice : choices_) {
    if (choice.counts_prompt) {
      total.prompt_tokens += choice.usage.prompt_tokens;
      total.cached_tokens += choice.usage.cached_tokens;
    }
    total.completion_tokens += choice.usage.completion_tokens;
    total.device_ns += choice.usage.device_ns;
  }
  return total;
}

}  // namespace millpower::serve
