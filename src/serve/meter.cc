#include "serve/meter.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "base/check.h"

namespace millpower::serve {
namespace {

using ledger::Quantities;
using ledger::Unit;

int64_t& At(Quantities& quantities, Unit unit) { return quantities[static_cast<size_t>(unit)]; }

const char* ReasonName(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kStop:
      return "stop";
    case engine::FinishReason::kLength:
      return "length";
    case engine::FinishReason::kCancelled:
      return "cancelled";
    case engine::FinishReason::kError:
      return "error";
    case engine::FinishReason::kBudget:
      return "budget";
  }
  return "error";
}

// What is held of a request.
struct Held {
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  int64_t max_tokens = 0;
  int64_t candidates = 0;  // of an inference
  bool admitted = false;
  bool waived = false;
  bool paid = false;  // posted in an earlier life of the server: nothing is held for it
};

// Never more than was held, whatever the engine counts.
Quantities Used(const Held& held, const engine::Usage& usage) {
  const int64_t prompt = std::min(usage.prompt_tokens, held.prompt_tokens);
  const int64_t cached = std::min(usage.cached_tokens, prompt);
  Quantities used{};
  At(used, Unit::kInputToken) = prompt - cached;
  At(used, Unit::kCachedToken) = cached;
  At(used, Unit::kOutputToken) = std::min(usage.completion_tokens, held.output_tokens);
  At(used, Unit::kChipSecond) = usage.device_ns / 1000;
  return used;
}

}  // namespace

struct Meter::State {
  std::mutex mutex;
  std::unordered_map<std::string, Held> held;

  std::optional<Held> Take(const std::string& id) {
    std::lock_guard lock(mutex);
    const auto node = held.extract(id);
    return node ? std::optional(node.mapped()) : std::nullopt;
  }

  // Takes those out of `holds` that have been posted before, and lets them run as they are.
  // Whether there were any. Errors: kUnavailable (it can't be read now).
  Result<bool> TakePaid(const ledger::Ledger& ledger, std::vector<ledger::HoldRequest>& holds) {
    std::optional<Error> unreadable;
    const auto is_paid = [&](const ledger::HoldRequest& hold) {
      const auto posted = ledger.store().WasPosted(hold.request_id);
      if (!posted) unreadable = posted.error();
      if (!posted || !*posted) return false;
      std::lock_guard lock(mutex);
      Held& one = held.at(hold.request_id);
      one.paid = true;
      one.output_tokens = one.max_tokens;
      return true;
    };
    const bool were_any = std::erase_if(holds, is_paid) > 0;
    if (unreadable) return Fail(ErrorCode::kUnavailable, unreadable->message);
    return were_any;
  }
};

Meter::Meter(ledger::Ledger& ledger, double grid_g_per_kwh)
    : ledger_(ledger), grid_g_per_kwh_(grid_g_per_kwh), state_(std::make_shared<State>()) {}

Meter::~Meter() = default;

void Meter::Hold(const MeteredCall& call, ledger::Ledger::Done done) {
  std::vector<ledger::HoldRequest> holds;
  std::vector<std::string> ids;
  {
    std::unique_lock lock(state_->mutex);
    // A line of a batch that is asked again while the engine still ends the last time.
    if (std::ranges::any_of(call.requests,
                            [&](const auto& one) { return state_->held.contains(one.id); })) {
      lock.unlock();
      return done(Fail(ErrorCode::kUnavailable, "the request is still under way"));
    }
    for (const MeteredRequest& request : call.requests) {
      ledger::HoldRequest hold{.request_id = request.id,
                               .api_request_id = call.api_request_id,
                               .key = call.caller->key->number,
                               .model = call.model,
                               .endpoint = call.endpoint,
                               .tier = call.tier};
      At(hold.most, Unit::kInputToken) = request.prompt_tokens;
      At(hold.most, Unit::kOutputToken) = FirstSliceOf(request.max_tokens);
      const bool is_new =
          state_->held
              .emplace(request.id, Held{.prompt_tokens = request.prompt_tokens,
                                        .output_tokens = FirstSliceOf(request.max_tokens),
                                        .max_tokens = request.max_tokens})
              .second;
      CHECK(is_new) << request.id;
      ids.push_back(request.id);
      holds.push_back(std::move(hold));
    }
  }
  auto told = [state = state_, ids = std::move(ids), done = std::move(done)](Result<void> result) {
    if (!result)
      for (const std::string& id : ids) state->Take(id);
    done(std::move(result));
  };
  if (!call.caller->is_batch) return ledger_.Hold(std::move(holds), std::move(told));
  // A line keeps its ids however often it is asked, so that what was posted before the server went
  // down is not charged again, nor refused for want of credit.
  ledger_.Hold(holds, [state = state_, &ledger = ledger_, holds,
                       told = std::move(told)](Result<void> result) mutable {
    const bool may_be_paid = !result && (result.error().code == ErrorCode::kAlreadyExists ||
                                         result.error().code == ErrorCode::kQuotaExceeded);
    if (!may_be_paid) return told(std::move(result));
    const Result<bool> paid = state->TakePaid(ledger, holds);
    if (!paid) return told(std::unexpected(paid.error()));
    if (!*paid) return told(std::move(result));
    if (holds.empty()) return told({});
    ledger.Hold(std::move(holds), std::move(told));
  });
}

void Meter::Abandon(const std::string& id) {
  {
    std::lock_guard lock(state_->mutex);
    const auto found = state_->held.find(id);
    if (found == state_->held.end() || found->second.admitted) return;
    state_->held.erase(found);
  }
  ledger_.Void(id, [](Result<void>) {});
}

void Meter::HoldInference(const MeteredInference& inference, ledger::Ledger::Done done) {
  {
    std::lock_guard lock(state_->mutex);
    const bool is_new =
        state_->held.emplace(inference.id, Held{.candidates = inference.candidates}).second;
    CHECK(is_new) << inference.id;
  }
  ledger::HoldRequest hold{.request_id = inference.id,
                           .api_request_id = inference.id,
                           .key = inference.caller->key->number,
                           .model = inference.model,
                           .endpoint = inference.endpoint,
                           .tier = inference.tier};
  At(hold.most, Unit::kInference) = 1;
  At(hold.most, Unit::kCandidate) = inference.candidates;
  ledger_.Hold({std::move(hold)},
               [state = state_, id = inference.id, done = std::move(done)](Result<void> result) {
                 if (!result) state->Take(id);
                 done(std::move(result));
               });
}

ledger::Energy Meter::EnergyOf(int64_t energy_uj) const {
  if (energy_uj == 0) return {};
  constexpr double kMicrojoulesPerKwh = 3.6e12;
  const double micrograms =
      static_cast<double>(energy_uj) / kMicrojoulesPerKwh * grid_g_per_kwh_ * 1e6;
  return {energy_uj, std::llround(micrograms), ledger::Origin::kModelled};
}

void Meter::PostInference(const std::string& id, int64_t device_ns, int64_t energy_uj,
                          std::function<void(Result<void>)> posted) {
  const std::optional<Held> held = state_->Take(id);
  CHECK(held.has_value()) << id;
  Quantities used{};
  At(used, Unit::kInference) = 1;
  At(used, Unit::kCandidate) = held->candidates;
  At(used, Unit::kChipSecond) = device_ns / 1000;
  ledger_.Post(id, used, "stop", std::move(posted), EnergyOf(energy_uj));
}

void Meter::Waive(const std::string& id) {
  std::lock_guard lock(state_->mutex);
  const auto found = state_->held.find(id);
  if (found != state_->held.end()) found->second.waived = true;
}

Result<int64_t> Meter::Admit(const engine::Request& request) {
  std::lock_guard lock(state_->mutex);
  const auto found = state_->held.find(request.id);
  if (found == state_->held.end())
    return Fail(ErrorCode::kInternal, "nothing is held for the request " + request.id);
  found->second.admitted = true;
  return found->second.output_tokens;
}

void Meter::Extend(const std::string& id, const engine::Usage&,
                   std::function<void(Result<int64_t>)> answer) {
  int64_t wanted = 0;
  {
    std::lock_guard lock(state_->mutex);
    const auto found = state_->held.find(id);
    if (found != state_->held.end())
      wanted = std::min(kNextSliceTokens, found->second.max_tokens - found->second.output_tokens);
  }
  if (wanted <= 0) return answer(0);
  ledger_.Extend(id, wanted,
                 [state = state_, id, answer = std::move(answer)](Result<int64_t> granted) {
                   if (granted) {
                     std::lock_guard lock(state->mutex);
                     const auto found = state->held.find(id);
                     if (found != state->held.end()) found->second.output_tokens += *granted;
                   }
                   answer(std::move(granted));
                 });
}

void Meter::Finish(const std::string& id, const engine::Usage& usage, engine::FinishReason reason,
                   std::function<void(Result<void>)> posted) {
  const std::optional<Held> held = state_->Take(id);
  CHECK(held.has_value()) << id;
  const Quantities used = Used(*held, usage);
  const bool is_nothing = std::ranges::all_of(used, [](int64_t quantity) { return quantity == 0; });
  if (held->paid || held->waived || reason == engine::FinishReason::kError || is_nothing)
    return ledger_.Void(id, std::move(posted));
  ledger_.Post(id, used, ReasonName(reason), std::move(posted), EnergyOf(usage.energy_uj));
}

}  // namespace millpower::serve
