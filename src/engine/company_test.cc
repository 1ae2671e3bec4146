// Results do not depend on company: neither on which requests share a step, nor on chunks, cached
// prefixes, preemption or cancellation.
#include <gtest/gtest.h>

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
  Traffic(std::vector<Arrival> arrivals, const LlmOptions& options, int64_t kv_pages)
      : arrivals_(std::move(arrivals)) {
    served_ = Serve(options, kv_pages, [this](int64_t step, const device::Launch& launch) {
      rows_ += launch.registers[0];
      SendUpTo(step);
      for (const Arrival& arrival : arrivals_)
        if (arrival.cancel_step == step) served_.engine->Cancel(arrival.request.id);
      return Result<void>();
    });
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

#if defined(__SANITIZE_ADDRESS__)
constexpr uint64_t kSchedules = 150;
#else
constexpr uint64_t kSchedules = 2000;
#endif

TEST(Company, ChangesNothingOnRandomSchedules) {
  const Served reference = Serve();
  for (uint64_t seed = 1; seed <= kSchedules; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    auto pick = [&](int64_t low, int64_t high) {
      return low + static_cast<int64_t>(rng.Below(static_cast<uint64_t>(high - low + 1)));
    };
    std::vector<Arrival> arrivals;
    std::map<std::string, Output> alone;
    int64_t step = 0;
    for (int64_t i = pick(1, 8); i > 0; --i) {
      Arrival arrival;
      const std::string id = std::to_string(arrivals.size());
      const int64_t size = pick(1, pick(1, kContext - 1));
      SamplingParams params;
      params.temperature = rng.Below(2) == 0 ? 0.0f : rng.Uniform(0.2f, 2.0f);
      params.top_k = rng.Below(2) == 0 ? 0 : static_cast<int32_t>(pick(1, 70));
      params.top_p = rng.Below(2) == 0 ? 1.0f : rng.Uniform(0.05f, 1.0f);
      params.min_p = rng.Below(3) == 0 ? rng.Uniform(0.0f, 0.5f) : 0.0f;
      params.seed = rng.Next();
      params.max_tokens = static_cast<int32_t>(pick(0, 60));
      params.logprobs = static_cast<int32_t>(pick(-1, 3));
      params.prompt_logprobs = rng.Below(3) == 0;
      if (rng.Below(3) == 0) params.stop_token_ids = {static_cast<int32_t>(rng.Below(64))};
      arrival.request = Ask(id, RandomPrompt(rng, size), params);
      arrival.step = step += static_cast<int64_t>(rng.Below(2)) * pick(0, 20);
      if (rng.Below(5) == 0) arrival.cancel_step = arrival.step + pick(0, 20);
      if (rng.Below(5) == 0) arrival.stop_after = pick(1, 20);
      alone[id] = RunAlone(*reference.engine, arrival.request);
      arrivals.push_back(arrival);
    }
    Traffic traffic(arrivals,
                    {.max_num_seqs = static_cast<int32_t>(pick(1, 6)),
                     .max_batch_tokens = static_cast<int32_t>(pick(1, pick(1, 32)))},
                    pick(5, pick(5, 30)));
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
      const bool stopped = !output.finish.has_value();
      if (stopped) {
        ASSERT_EQ(std::ssize(output.tokens), arrival.stop_after);
      } else if (output.finish == FinishReason::kCancelled) {
        ASSERT_GE(arrival.cancel_step, 0);
        ASSERT_LE(output.tokens.size(), expected.tokens.size());
      } else {
        ASSERT_EQ(output.finish, expected.finish);
        ASSERT_EQ(output.tokens.size(), expected.tokens.size());
        ASSERT_EQ(Bits(output.prompt), Bits(expected.prompt));
      }
      const std::vector<TokenInfo> beginning(expected.tokens.begin(),
                                             expected.tokens.begin() + std::ssize(output.tokens));
      ASSERT_EQ(Bits(output.tokens), Bits(beginning));
    }
    ASSERT_EQ(traffic.stats().kv_pages_used, 0);
    ASSERT_EQ(traffic.stats().requests_finished, std::ssize(arrivals));
    ASSERT_EQ(traffic.stats().requests_running + traffic.stats().requests_waiting, 0);
  }
}

}  // namespace
}  // namespace millpower::engine
