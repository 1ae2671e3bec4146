// The test model served, and what its requests get: for the engine's tests.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "device/cpu/cpu_device.h"
#include "device/test_program.h"
#include "engine/llm_engine.h"

namespace millpower::engine {

inline constexpr int64_t kSecond = 1'000'000'000;
inline constexpr int64_t kContext = 80;  // of the test model: 5 pages

// What one request got.
struct Output {
  std::vector<TokenInfo> prompt;
  std::vector<TokenInfo> tokens;
  std::optional<FinishReason> finish;
  std::optional<Error> error;
  Usage usage;
  int calls = 0;        // of the sink
  int calls_after = 0;  // those after the last one it was promised
  int stops = 0;        // kStop, said by its sink
};

inline std::vector<int32_t> Ids(const Output& output) {
  std::vector<int32_t> ids;
  for (const TokenInfo& info : output.tokens) ids.push_back(info.token);
  return ids;
}

// Ids and the bits of every number, as text that a failed comparison prints well.
inline std::string Bits(const std::vector<TokenInfo>& infos) {
  std::string text;
  auto add = [&](int32_t token, float logprob) {
    text += std::to_string(token) + ":" + std::to_string(std::bit_cast<uint32_t>(logprob)) + " ";
  };
  for (const TokenInfo& info : infos) {
    add(info.token, info.logprob);
    for (const Alternative& alternative : info.top) add(alternative.token, alternative.logprob);
    text += "| ";
  }
  return text;
}

// Collects what sinks are told. Outlives the engine.
class Inbox {
 public:
  using Decide = std::function<Verdict(const Delta&)>;

  Sink For(const std::string& id, Decide decide = {}) {
    return [this, id, decide = std::move(decide)](const Delta& delta) {
      const Verdict verdict = decide ? decide(delta) : Verdict::kContinue;
      const std::lock_guard lock(mutex_);
      Output& output = outputs_[id];
      ++output.calls;
      if (ended_.contains(id)) ++output.calls_after;
      output.prompt.insert(output.prompt.end(), delta.prompt.begin(), delta.prompt.end());
      output.tokens.insert(output.tokens.end(), delta.tokens.begin(), delta.tokens.end());
      output.usage = delta.usage;
      output.finish = delta.finish;
      output.error = delta.error;
      // After kStop comes one more, which says how it ended and nothing else.
      if (output.stops > 0) {
        EXPECT_TRUE(delta.finish && delta.tokens.empty() && delta.prompt.empty()) << id;
      } else if (verdict == Verdict::kStop && !delta.finish) {
        ++output.stops;
      }
      if (delta.finish || verdict == Verdict::kCancel) {
        ended_.insert(id);
        changed_.notify_all();
      }
      return verdict;
    };
  }

  // Waits for the request's end.
  Output Wait(const std::string& id) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(
        changed_.wait_for(lock, std::chrono::seconds(60), [&] { return ended_.contains(id); }))
        << id << " never ended";
    return outputs_[id];
  }
  Output Get(const std::string& id) {
    const std::lock_guard lock(mutex_);
    return outputs_[id];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Output> outputs_;
  std::set<std::string> ended_;
};

// What a HookedProgram does besides, on the engine's thread. By step, from 0.
struct Hooked {
  // Sees each launch before it starts, and may make it fail.
  std::function<Result<void>(int64_t step, const device::Launch&)> submit{};
  // Called before a step completes; tells how long the device worked, or makes it fail.
  std::function<Result<int64_t>(int64_t step)> complete{};
  bool deferred = false;  // works in Complete, not in Submit
};

// The real thing, with something else done first.
class HookedProgram final : public device::LoadedProgram {
 public:
  HookedProgram(std::unique_ptr<device::LoadedProgram> real, Hooked hooked)
      : real_(std::move(real)), hooked_(std::move(hooked)), launch_(real_->program()) {}
  const isa::Program& program() const override { return real_->program(); }
  int64_t LoadRegister(int32_t reg) const override { return real_->LoadRegister(reg); }

  Result<device::Ticket> Submit(const device::Launch& launch,
                                device::LaunchClass launch_class) override {
    CHECK(!std::exchange(under_way_, true)) << "two launches at a time";
    if (hooked_.submit) {
      auto hooked = hooked_.submit(step_, launch);
      if (!hooked) {
        ++step_;
        under_way_ = false;
        return std::unexpected(hooked.error());
      }
    }
    if (!hooked_.deferred) {
      TRY_ASSIGN(ticket_, real_->Submit(launch, launch_class));
      return step_;
    }
    launch_ = launch;
    class_ = launch_class;
    return step_;
  }

  Result<device::Completion> Complete(device::Ticket ticket) override {
    CHECK(ticket == step_ && std::exchange(under_way_, false));
    const int64_t step = step_++;
    if (hooked_.deferred) {
      TRY_ASSIGN(ticket_, real_->Submit(launch_, class_));
    }
    TRY_ASSIGN(device::Completion completion, real_->Complete(ticket_));
    if (hooked_.complete) {
      TRY_ASSIGN(completion.device_ns, hooked_.complete(step));
      completion.energy_uj = 3 * completion.device_ns + 1;
    }
    return completion;
  }

  std::span<const std::byte> Output(int32_t buffer) const override {
    CHECK(!under_way_) << "read while the device writes";
    return real_->Output(buffer);
  }

 private:
  const std::unique_ptr<device::LoadedProgram> real_;
  const Hooked hooked_;
  device::Launch launch_;
  device::LaunchClass class_ = 0;
  device::Ticket ticket_ = 0;
  int64_t step_ = 0;
  bool under_way_ = false;
};

struct Served {
  std::shared_ptr<device::Device> device;
  std::unique_ptr<Engine> engine;
};

inline Served Serve(const LlmOptions& options = {}, int64_t kv_pages = 30,
                    const Hooked& hooked = {}) {
  static const auto program = device::SoundProgram(device::TestModelText());
  static const isa::BoundWeights weights = device::RandomWeights(*program, 7);
  static const std::shared_ptr<device::Device> device = device::cpu::MakeCpuDevice({.threads = 1});
  auto loaded = device->Load(program, weights, {.kv_pages = kv_pages});
  CHECK(loaded) << loaded.error().message;
  *loaded = std::make_unique<HookedProgram>(std::move(*loaded), hooked);
  auto engine = StartLlmEngine(std::move(*loaded), options);
  CHECK(engine) << engine.error().message;
  return {device, std::move(*engine)};
}

inline Request Ask(const std::string& id, std::vector<int32_t> prompt, SamplingParams sampling) {
  return {.id = id, .caller = "", .prompt = std::move(prompt), .sampling = std::move(sampling)};
}

inline const std::vector<int32_t> kPrompt = {3, 1, 4, 1, 5, 9, 2, 6};

inline SamplingParams Greedy(int32_t max_tokens) {
  return {.temperature = 0, .max_tokens = max_tokens, .logprobs = 3};
}

// Under an id of its own: an id is free again only a moment after the last delta.
inline Output RunAlone(Engine& engine, Request request) {
  static std::atomic<int> runs = 0;
  request.id = "alone" + std::to_string(runs++);
  Inbox inbox;
  const auto submitted = engine.Submit(request, inbox.For(request.id));
  EXPECT_TRUE(submitted) << submitted.error().message;
  const Output output = inbox.Wait(request.id);
  while (engine.Stats().requests_running + engine.Stats().requests_waiting > 0)
    std::this_thread::yield();
  return output;
}

// A ledger that gives every request a budget, in slices, and checks what the engine does with it.
// With `late`, it answers from a thread of its own.
class TestLedger final : public Hooks {
 public:
  struct Account {
    int64_t budget = std::numeric_limits<int64_t>::max();
    int64_t slice = 1;
    int64_t granted = 0;
    int admitted = 0, extended = 0, finished = 0;
    Usage usage;
    std::optional<FinishReason> reason;
  };

  explicit TestLedger(bool late) {
    if (late) thread_ = std::jthread([this](std::stop_token stop) { AnswerLate(stop); });
  }

  // Before the request is submitted.
  void Open(const std::string& id, int64_t budget, int64_t slice) {
    const std::lock_guard lock(mutex_);
    accounts_[id].budget = budget;
    accounts_[id].slice = slice;
  }
  // What Finish answers from now on.
  void FailPosts(const Error& error) {
    const std::lock_guard lock(mutex_);
    post_error_ = error;
  }
  std::map<std::string, Account> accounts() {
    const std::lock_guard lock(mutex_);
    return accounts_;
  }

  Result<int64_t> Admit(const Request& request) override {
    const std::lock_guard lock(mutex_);
    Account& account = accounts_[request.id];
    if (account.budget < 0) return Fail(ErrorCode::kNoCapacity, "no money", "caller");
    EXPECT_EQ(account.admitted++, 0);
    return Slice(account);
  }

  void Extend(const std::string& id, const Usage& so_far,
              std::function<void(Result<int64_t>)> answer) override {
    const std::lock_guard lock(mutex_);
    Account& account = accounts_[id];
    EXPECT_EQ(account.finished, 0) << id;
    // Before the last token granted, or when there was none.
    EXPECT_EQ(so_far.completion_tokens, std::max<int64_t>(account.granted - 1, 0)) << id;
    ++account.extended;
    Answer([answer = std::move(answer), more = Slice(account)] { answer(more); });
  }

  void Finish(const std::string& id, const Usage& usage, FinishReason reason,
              std::function<void(Result<void>)> posted) override {
    const std::lock_guard lock(mutex_);
    Account& account = accounts_[id];
    EXPECT_EQ(account.admitted, 1) << id;
    EXPECT_EQ(account.finished++, 0) << id;
    EXPECT_LE(usage.completion_tokens, account.granted) << id;
    account.usage = usage;
    account.reason = reason;
    Result<void> result;
    if (post_error_) result = std::unexpected(*post_error_);
    Answer([result, posted = std::move(posted)] { posted(result); });
  }

 private:
  int64_t Slice(Account& account) {
    const int64_t more = std::min(account.slice, account.budget - account.granted);
    account.granted += more;
    return more;
  }

  void Answer(std::function<void()> answer) {
    if (!thread_.joinable()) return answer();
    answers_.push_back(std::move(answer));
    changed_.notify_all();
  }

  void AnswerLate(std::stop_token stop) {
    std::unique_lock lock(mutex_);
    while (changed_.wait(lock, stop, [this] { return !answers_.empty(); })) {
      const auto answer = std::move(answers_.front());
      answers_.pop_front();
      lock.unlock();
      answer();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::string, Account> accounts_;
  std::optional<Error> post_error_;
  std::deque<std::function<void()>> answers_;
  std::jthread thread_;
};

}  // namespace millpower::engine
