#include "serve/generation.h"

#include <algorithm>

#include "serve/errors.h"

namespace millpower::serve {
namespace {

void AppendEvent(std::string& stream, const Json& event) {
  stream += "data: ";
  stream += DumpJson(event);
  stream += "\n\n";
}

double Seconds(int64_t ns) { return static_cast<double>(ns) * 1e-9; }

}  // namespace

Generation::Generation(GenerationContext& context, std::shared_ptr<Exchange> exchange,
                       std::shared_ptr<const ServedModel> model, std::unique_ptr<Reply> reply,
                       Options options)
    : context_(context),
      exchange_(std::move(exchange)),
      model_(std::move(model)),
      options_(options),
      start_ns_(context.clock.NowNs()),
      reply_(std::move(reply)) {
  ++context_.live_count;
}

Generation::~Generation() { --context_.live_count; }

void Generation::AddChoice(engine::Request request, Transcriber transcriber) {
  choices_.push_back({request.id, std::move(transcriber)});
  requests_.push_back(std::move(request));
}

void Generation::Start() {
  exchange_->OnGone([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->CancelAll();
  });
  for (size_t i = 0; i < requests_.size(); ++i) {
    const auto submitted = model_->engine->Submit(
        std::move(requests_[i]),
        [self = shared_from_this(), index = static_cast<int>(i)](const engine::Delta& delta) {
          return self->OnDelta(index, delta);
        });
    if (submitted) continue;
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

engine::Verdict Generation::OnDelta(int index, const engine::Delta& delta) {
  std::lock_guard lock(mutex_);
  Choice& choice = choices_[static_cast<size_t>(index)];
  Observe(choice, delta);
  if (over_ || exchange_->gone()) return engine::Verdict::kCancel;
  if (delta.finish == engine::FinishReason::kError ||
      delta.finish == engine::FinishReason::kCancelled) {
    Fail(delta.error.value_or(Error{ErrorCode::kUnavailable, "the generation was cancelled", ""}));
    return engine::Verdict::kCancel;
  }
  Piece piece = choice.transcriber.Push(delta);
  choice.finished = piece.finish_reason != nullptr;
  if (!piece.empty() && !Emit(index, std::move(piece))) {
    over_ = true;
    return engine::Verdict::kCancel;
  }
  if (!choice.finished) return engine::Verdict::kContinue;
  context_.metrics.ObserveGeneration(model_->name, Seconds(context_.clock.NowNs() - start_ns_));
  if (std::ranges::all_of(choices_, &Choice::finished)) Complete();
  return engine::Verdict::kStop;
}

void Generation::Observe(Choice& choice, const engine::Delta& delta) {
  exchange_->CountTokens(delta.usage.prompt_tokens - choice.usage.prompt_tokens,
                         delta.usage.completion_tokens - choice.usage.completion_tokens);
  choice.usage = delta.usage;
  if (delta.tokens.empty()) return;
  const int64_t now_ns = context_.clock.NowNs();
  if (choice.last_token_ns == 0)
    context_.metrics.ObserveFirstToken(model_->name, Seconds(now_ns - start_ns_));
  else
    context_.metrics.ObserveTokens(model_->name, static_cast<int>(delta.tokens.size()),
                                   Seconds(now_ns - choice.last_token_ns));
  choice.last_token_ns = now_ns;
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

void Generation::Complete() {
  over_ = true;
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
  if (!exchange_->streaming()) {
    exchange_->Reply(ErrorResponse(error));
    return;
  }
  std::string events;
  AppendEvent(events, ErrorJson(error));
  exchange_->Stream(events + "data: [DONE]\n\n");
  exchange_->Finish();
}

void Generation::CancelAll() {
  for (const Choice& choice : choices_) model_->engine->Cancel(choice.id);
}

engine::Usage Generation::TotalUsage() const {
  engine::Usage total;
  for (const Choice& choice : choices_) {
    total.prompt_tokens += choice.usage.prompt_tokens;
    total.cached_tokens += choice.usage.cached_tokens;
    total.completion_tokens += choice.usage.completion_tokens;
  }
  return total;
}

}  // namespace millpower::serve
