// One generating API request, from submission to the last byte of its answer.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/engine.h"
#include "serve/exchange.h"
#include "serve/meter.h"
#include "serve/metrics.h"
#include "serve/models.h"
#include "serve/rate_limiter.h"
#include "serve/reply.h"
#include "serve/transcriber.h"

namespace millpower::serve {

// What generations use of the service, which outlives them.
struct GenerationContext {
  Metrics& metrics;
  const Clock& clock;
  // Off the engine's thread, and off the ledger's.
  std::function<void(std::function<void()>)> run_elsewhere;
  std::function<void(std::function<void()>)> start;
  Meter* meter = nullptr;              // none: nothing is held or posted
  std::atomic<int64_t> live_count{0};  // generations that still exist
};

// Held together by the engine's sinks: it is gone when the engine has forgotten its requests.
// Thread-safe. Lock order: its own mutex is never held while the engine is called.
class Generation : public std::enable_shared_from_this<Generation> {
 public:
  struct Options {
    bool stream = false;
    bool include_usage = false;
    // With a meter: on whose account, and as what.
    std::shared_ptr<const Caller> caller = nullptr;
    std::string api_request_id = {};
    const char* endpoint = "";
    ledger::Tier tier = ledger::Tier::kOnDemand;
    RateLimiter::Admission admission = {};  // released with the end of the answer
  };

  Generation(GenerationContext& context, std::shared_ptr<Exchange> exchange,
             std::shared_ptr<const ServedModel> model, std::unique_ptr<Reply> reply,
             Options options);
  ~Generation();

  // Choices are numbered as added; the tokens of a prompt that several share count once, with the
  // one that `counts_prompt`. Before Start.
  void AddChoice(engine::Request request, Transcriber transcriber, bool counts_prompt);

  // Holds what all choices may use at first, when there is a meter, and then submits them; does not
  // wait. Every outcome, errors included, becomes the exchange's answer. The end of the answer
  // waits until what was used is posted.
  void Start();

 private:
  struct Choice {
    std::string id;
    Transcriber transcriber;
    bool counts_prompt = true;
    engine::Usage usage = {};
    std::optional<Piece> last = std::nullopt;  // made, and told once the choice is posted
    bool finished = false;
  };

  void OnHeld(const Result<void>& held);
  void Submit();
  // Gives back what was held for the requests from `first` on, which are not submitted.
  void AbandonFrom(size_t first);
  // The client is told of an error: none of the choices costs anything.
  void WaiveAll();
  engine::Verdict OnDelta(int index, const engine::Delta& delta);
  // What the engine counted for the choice so far.
  void Count(Choice& choice, const engine::Usage& usage);
  // The engine will say no more of this choice.
  void CountFinish(const Choice& choice, const char* reason);
  // False: the client does not take any more.
  bool Emit(int index, Piece piece);
  void Complete();
  void Fail(const Error& error);
  // The place among those at a time is free again; before the client is told, who may come back at
  // once.
  void ReleasePlace();
  void CancelAll();
  void CancelElsewhere();
  engine::Usage TotalUsage() const;

  GenerationContext& context_;
  const std::shared_ptr<Exchange> exchange_;
  const std::shared_ptr<const ServedModel> model_;
  Options options_;  // constant but for the admission, which is under the mutex
  const int64_t start_ns_;

  std::vector<engine::Request> requests_;  // until they are submitted

  std::mutex mutex_;
  std::unique_ptr<Reply> reply_;
  std::vector<Choice> choices_;
  bool over_ = false;  // answered, failed, or the client is gone
};

}  // namespace millpower::serve
