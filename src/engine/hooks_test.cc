// What the ledger, the observer and the clock see of the engine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "engine/test_engine.h"

namespace millpower::engine {
namespace {

using testing::ElementsAre;

class Recorder final : public Observer {
 public:
  void OnQueued(int64_t waited_ns) override { queued.push_back(waited_ns); }
  void OnFirstToken(int64_t ns) override { first.push_back(ns); }
  void OnNextToken(int64_t ns) override { next.push_back(ns); }
  void OnStep(int64_t sequences, int64_t rows, int64_t device_ns, int64_t step_ns) override {
    steps.push_back({sequences, rows, device_ns, step_ns});
  }
  std::vector<int64_t> queued, first, next;
  std::vector<std::vector<int64_t>> steps;
};

// A step of n rows takes n microseconds and three nanoseconds.
TEST(Hooks, TimeIsTheInjectedClocks) {
  VirtualClock clock;
  Recorder recorder;
  std::atomic<Engine*> engine = nullptr;
  Inbox inbox;
  int64_t rows = 0;
  Served served =
      Serve({.max_num_seqs = 1, .clock = &clock, .observer = &recorder}, 30,
            {.submit = [&](int64_t step, const device::Launch& launch) -> Result<void> {
               rows = launch.registers[0];
               if (step == 1)
                 return engine.load()->Submit(Ask("b", {5, 6}, Greedy(1)), inbox.For("b"));
               return {};
             },
             .complete = [&](int64_t) -> Result<int64_t> {
               clock.Advance(1000 * rows + 3);
               return 1000 * rows + 1;
             }});
  engine = served.engine.get();
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(3)), inbox.For("a")));
  inbox.Wait("a");
  inbox.Wait("b");
  served.engine->Drain(kSecond);
  EXPECT_THAT(recorder.queued, ElementsAre(0, 2006));  // two steps of a row each
  EXPECT_THAT(recorder.first, ElementsAre(8003, 2006 + 2003));
  EXPECT_THAT(recorder.next, ElementsAre(1003, 1003));
  EXPECT_THAT(recorder.steps,
              ElementsAre(ElementsAre(1, 8, 8001, 8003), ElementsAre(1, 1, 1001, 1003),
                          ElementsAre(1, 1, 1001, 1003), ElementsAre(1, 2, 2001, 2003)));
  EXPECT_EQ(served.engine->Stats().device_busy_ns, 8001 + 1001 + 1001 + 2001);
}

TEST(Hooks, DeviceTimeIsPaidToTheNanosecondAndEnergyToTheMicrojoule) {
  TestLedger ledger(false);
  Inbox inbox;
  int64_t total = 0, steps = 0;
  const Served served = Serve({.max_batch_tokens = 7, .hooks = &ledger}, 30,
                              {.complete = [&](int64_t step) -> Result<int64_t> {
                                total += 1'000'003 + step;  // divisible by few
                                ++steps;
                                return 1'000'003 + step;
                              }});
  for (int i = 0; i < 5; ++i) {
    const std::string id = std::to_string(i);
    ledger.Open(id, 1000, 3 + i);
    // One is stopped by its sink, one is cancelled by it: their rows under way are paid for too.
    const auto decide = [i](const Delta& delta) {
      if (i > 1 || delta.usage.completion_tokens < 4) return Verdict::kContinue;
      return i == 0 ? Verdict::kStop : Verdict::kCancel;
    };
    ASSERT_TRUE(served.engine->Submit(Ask(id, kPrompt, Greedy(9)), inbox.For(id, decide)));
  }
  served.engine->Drain(kSecond);
  int64_t paid = 0, energy_uj = 0;
  for (const auto& [id, account] : ledger.accounts()) {
    EXPECT_EQ(account.finished, 1);
    paid += account.usage.device_ns;
    energy_uj += account.usage.energy_uj;
  }
  EXPECT_EQ(paid, total);
  EXPECT_EQ(energy_uj, 3 * total + steps);
  EXPECT_EQ(served.engine->Stats().device_busy_ns, total);
  EXPECT_EQ(ledger.accounts()["0"].reason, FinishReason::kStop);
  EXPECT_EQ(ledger.accounts()["0"].usage.completion_tokens, 4);
  EXPECT_EQ(ledger.accounts()["1"].reason, FinishReason::kCancelled);
  EXPECT_EQ(ledger.accounts()["1"].usage.completion_tokens, 4);
  EXPECT_EQ(ledger.accounts()["2"].usage.completion_tokens, 9);
}

TEST(Hooks, NoMoreTokensThanGranted) {
  for (const bool late : {false, true}) {
    for (const auto& [budget, slice, extended] :
         std::vector<std::tuple<int64_t, int64_t, int>>{{100, 100, 0},  // more than enough
                                                        {100, 4, 2},    // 4, 8, 10 are wanted
                                                        {7, 7, 1},
                                                        {7, 2, 4},
                                                        {1, 1, 1},
                                                        {0, 1, 1}}) {
      SCOPED_TRACE(std::to_string(budget) + " in slices of " + std::to_string(slice));
      TestLedger ledger(late);
      ledger.Open("a", budget, slice);
      Inbox inbox;
      const Served served = Serve({.hooks = &ledger});
      ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(10)), inbox.For("a")));
      const Output output = inbox.Wait("a");
      EXPECT_EQ(std::ssize(output.tokens), std::min<int64_t>(budget, 10));
      EXPECT_EQ(output.finish, budget < 10 ? FinishReason::kBudget : FinishReason::kLength);
      served.engine->Drain(kSecond);
      const auto account = ledger.accounts()["a"];
      EXPECT_EQ(account.extended, extended);
      EXPECT_EQ(account.finished, 1);
      EXPECT_EQ(account.usage.completion_tokens, std::ssize(output.tokens));
      EXPECT_EQ(account.reason, output.finish);
    }
  }
}

// A quick answer costs no step: the ledger is asked before the last granted token is made.
TEST(Hooks, ExtendingInTimeCostsNoStep) {
  TestLedger ledger(false);
  ledger.Open("a", 100, 2);
  Inbox inbox;
  const Served served = Serve({.hooks = &ledger});
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(10)), inbox.For("a")));
  inbox.Wait("a");
  served.engine->Drain(kSecond);
  EXPECT_EQ(served.engine->Stats().steps, 10);
}

TEST(Hooks, ARequestThatIsNotAdmittedIsRefused) {
  TestLedger ledger(false);
  ledger.Open("poor", -1, 1);
  Inbox inbox;
  const Served served = Serve({.hooks = &ledger});
  const auto refused = served.engine->Submit(Ask("poor", kPrompt, Greedy(3)), inbox.For("poor"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "no money");
  EXPECT_EQ(refused.error().param, "caller");
  EXPECT_EQ(served.engine->Stats().requests_waiting, 0);
  served.engine->Drain(kSecond);  // nothing is left of it
  EXPECT_EQ(inbox.Get("poor").calls, 0);
  EXPECT_EQ(ledger.accounts()["poor"].finished, 0);
}

TEST(Hooks, WhatIsRefusedForOtherReasonsIsNeverAdmitted) {
  TestLedger ledger(false);
  ledger.Open("bad", 10, 1);
  Inbox inbox;
  const Served served = Serve({.hooks = &ledger});
  EXPECT_FALSE(served.engine->Submit(Ask("bad", {}, Greedy(3)), inbox.For("bad")));
  served.engine->Drain(kSecond);
  EXPECT_FALSE(served.engine->Submit(Ask("bad", kPrompt, Greedy(3)), inbox.For("bad")));
  EXPECT_EQ(ledger.accounts()["bad"].admitted, 0);
}

// Answers by hand.
class SlowLedger final : public Hooks {
 public:
  Result<int64_t> Admit(const Request&) override { return admit; }
  void Extend(const std::string&, const Usage&,
              std::function<void(Result<int64_t>)> answer) override {
    const std::lock_guard lock(mutex_);
    extend_ = std::move(answer);
    changed_.notify_all();
  }
  void Finish(const std::string&, const Usage& usage, FinishReason,
              std::function<void(Result<void>)> posted) override {
    const std::lock_guard lock(mutex_);
    posted_ = std::move(posted);
    usage_ = usage;
    changed_.notify_all();
  }
  std::function<void(Result<int64_t>)> WaitForExtend() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return extend_ != nullptr; });
    return std::exchange(extend_, nullptr);
  }
  std::function<void(Result<void>)> WaitForFinish() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return posted_ != nullptr; });
    return std::exchange(posted_, nullptr);
  }
  Usage usage() {
    const std::lock_guard lock(mutex_);
    return usage_;
  }
  int64_t admit = 1000;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void(Result<int64_t>)> extend_;
  std::function<void(Result<void>)> posted_;
  Usage usage_;
};

// Grants ten tokens, and answers nothing until it is made to.
class DeadLedger final : public Hooks {
 public:
  Result<int64_t> Admit(const Request&) override { return 10; }
  void Extend(const std::string&, const Usage&,
              std::function<void(Result<int64_t>)> answer) override {
    const std::lock_guard lock(mutex_);
    answers_.push_back([answer = std::move(answer)] { answer(5); });
  }
  void Finish(const std::string&, const Usage&, FinishReason,
              std::function<void(Result<void>)> posted) override {
    const std::lock_guard lock(mutex_);
    answers_.push_back([posted = std::move(posted)] { posted({}); });
    ++finished_;
    changed_.notify_all();
  }
  void WaitForFinished(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return finished_ >= count; });
  }
  void AnswerAll() {
    const std::lock_guard lock(mutex_);
    for (const auto& answer : answers_) answer();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::function<void()>> answers_;
  int finished_ = 0;
};

TEST(Hooks, TheLastDeltaWaitsForThePosting) {
  SlowLedger ledger;
  Inbox inbox;
  const Served served = Serve({.hooks = &ledger});
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(3)), inbox.For("a")));
  const auto posted = ledger.WaitForFinish();
  // Another request goes on meanwhile, and the pages of the first are free.
  ASSERT_TRUE(served.engine->Submit(Ask("b", {9}, Greedy(5)), inbox.For("b")));
  ledger.WaitForFinish()({});
  EXPECT_EQ(inbox.Wait("b").tokens.size(), 5u);
  EXPECT_EQ(inbox.Get("a").tokens.size(), 2u);
  EXPECT_FALSE(inbox.Get("a").finish);
  EXPECT_EQ(served.engine->Stats().kv_pages_used, 0);
  EXPECT_EQ(served.engine->Stats().requests_finished, 2);
  // Its name is still taken.
  EXPECT_FALSE(served.engine->Submit(Ask("a", kPrompt, Greedy(3)), inbox.For("a")));
  posted({});
  const Output output = inbox.Wait("a");
  EXPECT_EQ(output.tokens.size(), 3u);
  EXPECT_EQ(output.finish, FinishReason::kLength);
}

TEST(Hooks, APostingThatFailsIsToldInPlaceOfTheEnd) {
  TestLedger ledger(true);
  ledger.Open("a", 100, 100);
  ledger.FailPosts({ErrorCode::kIo, "the disk is full", ""});
  Inbox inbox;
  const Served served = Serve({.hooks = &ledger});
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(3)), inbox.For("a")));
  const Output output = inbox.Wait("a");
  EXPECT_EQ(output.finish, FinishReason::kError);
  ASSERT_TRUE(output.error);
  EXPECT_EQ(output.error->message, "the disk is full");
  EXPECT_EQ(output.tokens.size(), 2u);  // the third was never paid for
  EXPECT_EQ(ledger.accounts()["a"].finished, 1);
}

TEST(Hooks, OneThatWaitsForItsLedgerCanBeCancelled) {
  SlowLedger ledger;
  ledger.admit = 2;
  Inbox inbox;
  const Served served = Serve({.hooks = &ledger});
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(9)), inbox.For("a")));
  const auto answer = ledger.WaitForExtend();
  while (inbox.Get("a").tokens.size() < 2) std::this_thread::yield();
  served.engine->Cancel("a");
  ledger.WaitForFinish()({});
  const Output output = inbox.Wait("a");
  EXPECT_EQ(output.finish, FinishReason::kCancelled);
  EXPECT_EQ(output.tokens.size(), 2u);
  answer(5);  // comes too late, and is nobody's
  served.engine->Drain(kSecond);
}

TEST(Hooks, ALateAnswerLetsItGoOnToTheSameBits) {
  const auto expected = RunAlone(*Serve().engine, Ask("", kPrompt, Greedy(9)));
  SlowLedger ledger;
  ledger.admit = 2;
  Inbox inbox;
  const Served served = Serve({.hooks = &ledger});
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(9)), inbox.For("a")));
  const auto answer = ledger.WaitForExtend();
  while (inbox.Get("a").tokens.size() < 2) std::this_thread::yield();
  answer(std::numeric_limits<int64_t>::max());
  ledger.WaitForFinish()({});
  EXPECT_EQ(Bits(inbox.Wait("a").tokens), Bits(expected.tokens));
}

TEST(Hooks, ABudgetThatIsSpentIsNoErrorAndALedgerThatFailsIs) {
  for (const ErrorCode code : {ErrorCode::kQuotaExceeded, ErrorCode::kIo}) {
    SlowLedger ledger;
    ledger.admit = 2;
    Inbox inbox;
    const Served served = Serve({.hooks = &ledger});
    ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(9)), inbox.For("a")));
    const auto answer = ledger.WaitForExtend();
    while (inbox.Get("a").tokens.size() < 2) std::this_thread::yield();
    answer(Fail(code, "the ledger is away"));
    ledger.WaitForFinish()({});
    const Output output = inbox.Wait("a");
    const bool is_spent = code == ErrorCode::kQuotaExceeded;
    EXPECT_EQ(output.finish, is_spent ? FinishReason::kBudget : FinishReason::kError);
    EXPECT_EQ(output.tokens.size(), 2u);
  }
}

// After kStop the sink hears the end once the ledger has posted it: what was told, and no more.
TEST(Hooks, TheEndAfterAStopWaitsForThePosting) {
  for (const bool fails : {false, true}) {
    SlowLedger ledger;
    Inbox inbox;
    const Served served = Serve({.hooks = &ledger}, 30,
                                {.complete = [](int64_t) -> Result<int64_t> { return 1000; }});
    const auto decide = [](const Delta& delta) {
      return delta.usage.completion_tokens == 3 ? Verdict::kStop : Verdict::kContinue;
    };
    ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(9)), inbox.For("a", decide)));
    const auto posted = ledger.WaitForFinish();
    EXPECT_EQ(inbox.Get("a").calls, 3);
    EXPECT_EQ(inbox.Get("a").tokens.size(), 3u);
    EXPECT_FALSE(inbox.Get("a").finish);
    if (fails)
      posted(Fail(ErrorCode::kIo, "the disk is full"));
    else
      posted({});
    const Output output = inbox.Wait("a");
    served.engine->Drain(kSecond);
    EXPECT_EQ(output.calls, 4);
    EXPECT_EQ(inbox.Get("a").calls_after, 0);
    EXPECT_EQ(output.finish, fails ? FinishReason::kError : FinishReason::kStop);
    EXPECT_EQ(output.error.has_value(), fails);
    EXPECT_EQ(output.tokens.size(), 3u);
    EXPECT_EQ(output.usage.completion_tokens, 3);
    EXPECT_EQ(output.usage.prompt_tokens, std::ssize(kPrompt));
    EXPECT_EQ(output.usage.device_ns, 4000);  // with the step that was under way
    EXPECT_EQ(ledger.usage().device_ns, output.usage.device_ns);
    EXPECT_EQ(ledger.usage().completion_tokens, output.usage.completion_tokens);
    EXPECT_EQ(ledger.usage().prompt_tokens, output.usage.prompt_tokens);
  }
}

TEST(Hooks, AfterACancelTheSinkHearsNoMore) {
  SlowLedger ledger;
  Inbox inbox;
  const Served served = Serve({.hooks = &ledger});
  const auto decide = [](const Delta& delta) {
    return delta.usage.completion_tokens == 3 ? Verdict::kCancel : Verdict::kContinue;
  };
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(9)), inbox.For("a", decide)));
  ledger.WaitForFinish()({});
  served.engine->Drain(kSecond);
  EXPECT_EQ(inbox.Get("a").calls, 3);
  EXPECT_EQ(ledger.usage().completion_tokens, 3);
}

// One that has ended, one that its sink has stopped, one that its sink has cancelled, one that
// waits for more, and one that waits for a place.
TEST(Hooks, ALedgerThatNeverAnswersHoldsNothingUp) {
  for (const bool drain : {true, false}) {
    DeadLedger ledger;
    Inbox inbox;
    auto served = std::make_unique<Served>(
        Serve({.max_num_seqs = 4, .hooks = &ledger, .ledger_grace_ns = kSecond / 20}));
    const auto send = [&](const std::string& id, int32_t tokens, Verdict third) {
      const auto decide = [third](const Delta& delta) {
        return delta.usage.completion_tokens == 3 ? third : Verdict::kContinue;
      };
      ASSERT_TRUE(served->engine->Submit(Ask(id, kPrompt, Greedy(tokens)), inbox.For(id, decide)));
    };
    send("ends", 5, Verdict::kContinue);
    send("stops", 9, Verdict::kStop);
    send("cancels", 9, Verdict::kCancel);
    ledger.WaitForFinished(3);
    send("asks", 20, Verdict::kContinue);
    while (inbox.Get("asks").tokens.size() < 10) std::this_thread::yield();
    const auto start = std::chrono::steady_clock::now();
    if (drain) {
      served->engine->Drain(0);
      EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(50));
    }
    served.reset();
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::minutes(1));
    for (const char* id : {"ends", "stops", "asks"}) {
      const Output output = inbox.Get(id);
      EXPECT_EQ(output.finish, FinishReason::kError) << id;
      ASSERT_TRUE(output.error) << id;
      EXPECT_EQ(output.error->message, "the ledger did not answer");
      EXPECT_EQ(output.calls_after, 0) << id;
    }
    EXPECT_EQ(inbox.Get("cancels").calls, 3);
    EXPECT_FALSE(inbox.Get("cancels").finish);
    ledger.AnswerAll();  // too late, and to nobody
  }
}

// A late answer while the engine still lives changes nothing either.
TEST(Hooks, ALateAnswerAfterDrainIsHarmless) {
  DeadLedger ledger;
  Inbox inbox;
  const Served served = Serve({.hooks = &ledger, .ledger_grace_ns = 1});
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(2)), inbox.For("a")));
  ledger.WaitForFinished(1);
  served.engine->Drain(0);
  EXPECT_EQ(inbox.Get("a").finish, FinishReason::kError);
  ledger.AnswerAll();
  served.engine->Drain(kSecond);
  EXPECT_EQ(inbox.Get("a").calls_after, 0);
  EXPECT_EQ(inbox.Get("a").finish, FinishReason::kError);
}

// Every request that was admitted is finished, once, whatever ends it.
TEST(Hooks, FinishComesOnceAlsoOnFailureAndDrain) {
  TestLedger ledger(true);
  Inbox inbox;
  std::atomic<Engine*> engine = nullptr;
  const auto send = [&](int i) {
    const std::string id = std::to_string(i);
    return engine.load()->Submit(Ask(id, kPrompt, Greedy(30)), inbox.For(id));
  };
  for (int i = 0; i < 8; ++i) ledger.Open(std::to_string(i), 1000, 5);
  {
    const auto submit = [&](int64_t step, const device::Launch&) -> Result<void> {
      for (int i = 1; i < 8 && step == 0; ++i) EXPECT_TRUE(send(i));
      if (step == 3) return Fail(ErrorCode::kIo, "refused");
      return {};
    };
    const auto complete = [](int64_t step) -> Result<int64_t> {
      if (step == 9) return Fail(ErrorCode::kIo, "failed");
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return 1;
    };
    const Served served =
        Serve({.max_num_seqs = 2, .hooks = &ledger}, 30, {.submit = submit, .complete = complete});
    engine = served.engine.get();
    ASSERT_TRUE(send(0));
    while (served.engine->Stats().requests_finished < 4) std::this_thread::yield();
    served.engine->Drain(0);
    for (int i = 0; i < 8; ++i) EXPECT_TRUE(inbox.Get(std::to_string(i)).finish) << i;
    EXPECT_EQ(served.engine->Stats().kv_pages_used, 0);
    EXPECT_EQ(served.engine->Stats().requests_finished, 8);
  }
  std::map<FinishReason, int> reasons;
  for (const auto& [id, account] : ledger.accounts()) {
    EXPECT_EQ(account.finished, 1) << id;
    EXPECT_EQ(inbox.Get(id).finish, account.reason) << id;
    EXPECT_EQ(inbox.Get(id).usage.completion_tokens, account.usage.completion_tokens) << id;
    EXPECT_EQ(std::ssize(inbox.Get(id).tokens), account.usage.completion_tokens) << id;
    ++reasons[*account.reason];
  }
  EXPECT_EQ(reasons[FinishReason::kError], 8);
}

// --- the prefix cache as requests see it ---

TEST(PrefixCache, SavesWhatWasComputedAndSaysSo) {
  std::vector<int32_t> prompt(50);
  std::iota(prompt.begin(), prompt.end(), 3);
  int64_t rows = 0;
  const Served served =
      Serve({}, 30, {.submit = [&](int64_t, const device::Launch& launch) -> Result<void> {
              rows += launch.registers[0];
              return {};
            }});
  const Output first = RunAlone(*served.engine, Ask("", prompt, Greedy(20)));
  EXPECT_EQ(first.usage.cached_tokens, 0);
  EXPECT_EQ(rows, 50 + 19);
  rows = 0;
  const Output again = RunAlone(*served.engine, Ask("", prompt, Greedy(20)));
  EXPECT_EQ(Bits(again.tokens), Bits(first.tokens));
  EXPECT_EQ(again.usage.prompt_tokens, 50);
  EXPECT_EQ(again.usage.cached_tokens, 48);
  EXPECT_EQ(rows, 2 + 19);
  // Outputs are found too: the next turn of a conversation.
  std::vector<int32_t> next = prompt;
  for (const int32_t token : Ids(first)) next.push_back(token);
  next.push_back(7);
  EXPECT_EQ(RunAlone(*served.engine, Ask("", next, Greedy(3))).usage.cached_tokens, 64);
  // Not by another caller.
  Request other = Ask("", prompt, Greedy(20));
  other.caller = "other";
  const Output stranger = RunAlone(*served.engine, other);
  EXPECT_EQ(stranger.usage.cached_tokens, 0);
  EXPECT_EQ(Bits(stranger.tokens), Bits(first.tokens));
  const EngineStats stats = served.engine->Stats();
  EXPECT_EQ(stats.prompt_tokens, 50 + 50 + 71 + 50);
  EXPECT_EQ(stats.cached_prompt_tokens, 48 + 64);
  EXPECT_EQ(stats.kv_pages_used, 0);
  EXPECT_EQ(stats.kv_pages_cached, 4 + 4);
}

TEST(PrefixCache, CanBeTurnedOff) {
  const Served served = Serve({.prefix_cache = false});
  const std::vector<int32_t> prompt(40, 5);
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ(RunAlone(*served.engine, Ask("", prompt, Greedy(2))).usage.cached_tokens, 0);
  EXPECT_EQ(served.engine->Stats().kv_pages_cached, 0);
}

TEST(PrefixCache, PromptLogprobsAreComputed) {
  const Served served = Serve();
  const std::vector<int32_t> prompt(40, 5);
  SamplingParams params = Greedy(2);
  params.prompt_logprobs = true;
  const Output first = RunAlone(*served.engine, Ask("", prompt, params));
  const Output second = RunAlone(*served.engine, Ask("", prompt, params));
  EXPECT_EQ(second.usage.cached_tokens, 0);
  EXPECT_EQ(second.prompt.size(), 40u);
  EXPECT_EQ(Bits(second.prompt), Bits(first.prompt));
}

}  // namespace
}  // namespace millpower::engine
