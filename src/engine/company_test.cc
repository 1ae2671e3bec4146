// Results do not depend on company: neither on which requests share a step, nor on chunks, cached
// prefixes, preemption or cancellation.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "engine/test_engine.h"

namespace millpower::engine {
namespace {

// A request and when it comes: at a step of the engine, or as soon as it has nothing to do.
struct Arrival {
  Request request;
  int64_t step = 0;
  int64_t cancel_step = -1;
  int64_t stop_after = -1;  // tokens, by verdict
};

// Sends the arrivals to an engine with these limits. Everything that happens is decided by steps,
// so that a failing seed fails again.
class Traffic {
 public:
  // `deferred`: the device works in Complete, not in Submit.
  Traffic(std::vector<Arrival> arrivals, const LlmOptions& options, int64_t kv_pages,
          bool deferred = false)
      : arrivals_(std::move(arrivals)) {
    const auto submit = [this](int64_t step, const device::Launch& launch) {
      rows_ += launch.registers[0];
      SendUpTo(step);
      for (const Arrival& arrival : arrivals_)
        if (arrival.cancel_step == step) served_.engine->Cancel(arrival.request.id);
      const EngineStats stats = served_.engine->Stats();
      EXPECT_LE(stats.kv_pages_used + stats.kv_pages_cached, stats.kv_pages_total);
      return Result<void>();
    };
    const auto complete = [](int64_t step) -> Result<int64_t> { return 1000 + 13 * step; };
    served_ =
        Serve(options, kv_pages, {.submit = submit, .complete = complete, .deferred = deferred});
  }

  // All outputs, by id.
  std::map<std::string, Output> Run() {
    std::map<std::string, Output> outputs;
    for (;;) {
      size_t sent = 0;
      {
        const std::lock_guard lock(mutex_);
        sent = next_;
      }
      for (size_t i = 0; i < sent; ++i) {
        const std::string& id = arrivals_[i].request.id;
        outputs[id] = inbox_.Wait(id);
      }
      // The hook may have sent more meanwhile.
      const std::lock_guard lock(mutex_);
      if (next_ > sent) continue;
      if (next_ == arrivals_.size()) break;
      Send();
    }
    served_.engine->Drain(60 * kSecond);
    stats_ = served_.engine->Stats();
    for (auto& [id, output] : outputs) output = inbox_.Get(id);
    return outputs;
  }

  const EngineStats& stats() const { return stats_; }
  int64_t rows() const { return rows_; }

 private:
  void SendUpTo(int64_t step) {
    const std::lock_guard lock(mutex_);
    while (next_ < arrivals_.size() && arrivals_[next_].step <= step) Send();
  }
  void Send() {
    const Arrival& arrival = arrivals_[next_++];
    const auto decide = [stop = arrival.stop_after](const Delta& delta) {
      return delta.usage.completion_tokens == stop ? Verdict::kStop : Verdict::kContinue;
    };
    const auto submitted =
        served_.engine->Submit(arrival.request, inbox_.For(arrival.request.id, decide));
    EXPECT_TRUE(submitted) << submitted.error().message;
  }

  const std::vector<Arrival> arrivals_;  // in order of their steps
  Inbox inbox_;
  std::mutex mutex_;
  size_t next_ = 0;
  std::atomic<int64_t> rows_ = 0;
  EngineStats stats_;
  Served served_;  // last: stops first
};

std::vector<int32_t> RandomPrompt(Rng& rng, int64_t size) {
  std::vector<int32_t> prompt;
  for (int64_t i = 0; i < size; ++i)
    prompt.push_back(static_cast<int32_t>(rng.Below(device::kTestVocab)));
  return prompt;
}

TEST(Company, ChangesNothing) {
  Rng rng(1);
  std::vector<Arrival> arrivals;
  std::map<std::string, Output> alone;
  const Served reference = Serve();
  int64_t computed = 0;
  for (int i = 0; i < 6; ++i) {
    const std::string id = std::to_string(i);
    SamplingParams params{.temperature = i % 2 == 0 ? 0.0f : 1.0f,
                          .seed = 40u + static_cast<uint64_t>(i),
                          .max_tokens = 45,
                          .logprobs = 4};
    arrivals.push_back({Ask(id, RandomPrompt(rng, 5 + 5 * i), params)});
    alone[id] = RunAlone(*reference.engine, arrivals.back().request);
    computed += 5 + 5 * i + 44;
  }
  struct Limits {
    LlmOptions options;
    int64_t pages;
    bool preempts;
  };
  for (const Limits& limits : {Limits{{}, 30, false},
                               {{.max_batch_tokens = 3}, 30, false},
                               {{.max_batch_tokens = 1}, 30, false},
                               {{.max_num_seqs = 2}, 30, false},
                               {{}, 9, true},
                               {{}, 5, true},
                               {{.max_batch_tokens = 5}, 5, true}}) {
    SCOPED_TRACE(std::to_string(limits.options.max_batch_tokens) + " tokens, " +
                 std::to_string(limits.options.max_num_seqs) + " sequences, " +
                 std::to_string(limits.pages) + " pages");
    Traffic traffic(arrivals, limits.options, limits.pages);
    for (const auto& [id, output] : traffic.Run()) {
      EXPECT_EQ(output.finish, FinishReason::kLength);
      EXPECT_EQ(Bits(output.tokens), Bits(alone[id].tokens)) << "request " << id;
    }
    EXPECT_EQ(traffic.stats().kv_pages_used, 0);
    EXPECT_EQ(traffic.stats().prompt_tokens, 6 * 5 + 5 * 15);
    EXPECT_EQ(traffic.stats().generated_tokens, 6 * 45);
    if (limits.preempts)
      EXPECT_GT(traffic.rows(), computed);  // some of it twice
    else
      EXPECT_EQ(traffic.rows(), computed);
  }
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kSchedules = 150;
#else
constexpr uint64_t kSchedules = 2000;
#endif

// Sampling parameters of every kind.
SamplingParams RandomParams(Rng& rng) {
  auto pick = [&](int64_t low, int64_t high) {
    return static_cast<int32_t>(
        low + static_cast<int64_t>(rng.Below(static_cast<uint64_t>(high - low + 1))));
  };
  SamplingParams params;
  params.temperature = rng.Below(2) == 0 ? 0.0f : rng.Uniform(0.2f, 2.0f);
  params.top_k = rng.Below(2) == 0 ? 0 : pick(1, 70);
  params.top_p = rng.Below(2) == 0 ? 1.0f : rng.Uniform(0.05f, 1.0f);
  params.min_p = rng.Below(3) == 0 ? rng.Uniform(0.0f, 0.5f) : 0.0f;
  params.seed = rng.Next();
  params.max_tokens = pick(0, 60);
  params.logprobs = pick(-1, 3);
  params.prompt_logprobs = rng.Below(3) == 0;
  if (rng.Below(3) == 0) params.stop_token_ids = {pick(0, device::kTestVocab - 1)};
  if (rng.Below(3) == 0) params.min_tokens = pick(0, params.max_tokens);
  if (rng.Below(3) == 0) params.frequency_penalty = rng.Uniform(-2, 2);
  if (rng.Below(3) == 0) params.presence_penalty = rng.Uniform(-2, 2);
  if (rng.Below(3) == 0) params.repetition_penalty = rng.Uniform(0.5f, 2);
  for (int32_t token = 0; rng.Below(3) == 0 && token < device::kTestVocab; token += pick(1, 30))
    params.logit_bias.push_back({token, rng.Below(4) == 0 ? -INFINITY : rng.Uniform(-9, 9)});
  return params;
}

// Several callers and classes, shared beginnings and equal prompts, small KV memories, chunks,
// cancellation, verdicts, budgets that are extended late: every request gets the bits it gets
// alone, or the beginning of them.
TEST(Company, ChangesNothingOnRandomSchedules) {
  const Served reference = Serve({.prefix_cache = false});
  int64_t cached_tokens = 0, preemptions = 0, budgets_spent = 0;
  for (uint64_t seed = 1; seed <= kSchedules; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    auto pick = [&](int64_t low, int64_t high) {
      return low + static_cast<int64_t>(rng.Below(static_cast<uint64_t>(high - low + 1)));
    };
    const bool has_ledger = rng.Below(2) == 0;
    TestLedger ledger(/*late=*/rng.Below(4) == 0);
    std::map<std::string, int64_t> budgets;
    const std::vector<int32_t> beginning = RandomPrompt(rng, kContext - 1);
    std::vector<Arrival> arrivals;
    std::map<std::string, Output> alone;
    int64_t step = 0;
    for (int64_t i = pick(1, 8); i > 0; --i) {
      Arrival arrival;
      const std::string id = std::to_string(arrivals.size());
      const int64_t size = pick(1, pick(1, kContext - 1));
      std::vector<int32_t> prompt = RandomPrompt(rng, size);
      if (rng.Below(2) == 0) std::copy_n(beginning.begin(), pick(0, size), prompt.begin());
      if (rng.Below(4) == 0 && !arrivals.empty()) prompt = arrivals.back().request.prompt;
      arrival.request = Ask(id, prompt, RandomParams(rng));
      arrival.request.caller = rng.Below(2) == 0 ? "" : "other";
      arrival.request.priority = static_cast<Priority>(pick(0, kPriorityCount - 1));
      arrival.step = step += static_cast<int64_t>(rng.Below(2)) * pick(0, 20);
      if (rng.Below(5) == 0) arrival.cancel_step = arrival.step + pick(0, 20);
      if (rng.Below(5) == 0) arrival.stop_after = pick(1, 20);
      alone[id] = RunAlone(*reference.engine, arrival.request);
      arrivals.push_back(arrival);
      budgets[id] = rng.Below(2) == 0 ? 1000 : pick(0, 60);
      ledger.Open(id, budgets[id], pick(1, 30));
    }
    Traffic traffic(arrivals,
                    {.max_num_seqs = static_cast<int32_t>(pick(1, 6)),
                     .max_batch_tokens = static_cast<int32_t>(pick(1, pick(1, 32))),
                     .prefix_cache = rng.Below(4) != 0,
                     .hooks = has_ledger ? &ledger : nullptr},
                    pick(5, pick(5, 30)), /*deferred=*/rng.Below(2) == 0);
    const auto outputs = traffic.Run();
    ASSERT_EQ(outputs.size(), arrivals.size());
    for (const Arrival& arrival : arrivals) {
      const std::string& id = arrival.request.id;
      SCOPED_TRACE("request " + id);
      const Output& output = outputs.at(id);
      const Output& expected = alone[id];
      ASSERT_EQ(output.calls_after, 0);
      ASSERT_EQ(output.usage.completion_tokens, std::ssize(output.tokens));
      // What was cut short is the beginning of the whole.
      if (output.stops > 0) {
        ASSERT_EQ(output.finish, FinishReason::kStop);
        ASSERT_EQ(std::ssize(output.tokens), arrival.stop_after);
      } else if (output.finish == FinishReason::kCancelled) {
        ASSERT_GE(arrival.cancel_step, 0);
        ASSERT_LE(output.tokens.size(), expected.tokens.size());
      } else if (output.finish == FinishReason::kBudget) {
        ASSERT_TRUE(has_ledger);
        ASSERT_EQ(std::ssize(output.tokens), budgets[id]);
        ASSERT_LT(output.tokens.size(), expected.tokens.size());
        ++budgets_spent;
      } else {
        ASSERT_EQ(output.finish, expected.finish);
        ASSERT_EQ(output.tokens.size(), expected.tokens.size());
        ASSERT_EQ(Bits(output.prompt), Bits(expected.prompt));
        ASSERT_EQ(output.usage.prompt_tokens, std::ssize(arrival.request.prompt));
      }
      const std::vector<TokenInfo> first(expected.tokens.begin(),
                                         expected.tokens.begin() + std::ssize(output.tokens));
      ASSERT_EQ(Bits(output.tokens), Bits(first));
    }
    const EngineStats& stats = traffic.stats();
    ASSERT_EQ(stats.kv_pages_used, 0);
    ASSERT_EQ(stats.requests_finished, std::ssize(arrivals));
    ASSERT_EQ(stats.requests_running + stats.requests_waiting, 0);
    cached_tokens += stats.cached_prompt_tokens;
    preemptions += stats.preemptions;
    if (!has_ledger) continue;
    int64_t device_ns = 0, generated = 0;
    for (const auto& [id, account] : ledger.accounts()) {
      ASSERT_EQ(account.finished, 1);
      ASSERT_EQ(account.usage.completion_tokens, outputs.at(id).usage.completion_tokens);
      device_ns += account.usage.device_ns;
      generated += account.usage.completion_tokens;
    }
    ASSERT_EQ(device_ns, stats.device_busy_ns);
    ASSERT_EQ(generated, stats.generated_tokens);
  }
  EXPECT_GT(cached_tokens, static_cast<int64_t>(kSchedules));
  EXPECT_GT(preemptions, static_cast<int64_t>(kSchedules) / 4);
  EXPECT_GT(budgets_spent, static_cast<int64_t>(kSchedules) / 4);
}

}  // namespace
}  // namespace millpower::engine
