#include "engine/llm_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/test_engine.h"
#include "isa/sampling.h"

namespace millpower::engine {
namespace {

using testing::HasSubstr;

TEST(LlmEngine, TellsItsLimits) {
  const Served served = Serve({.max_queue = 9});
  EXPECT_EQ(served.engine->limits().vocab_size, device::kTestVocab);
  EXPECT_EQ(served.engine->limits().max_model_len, kContext);
  EXPECT_EQ(served.engine->limits().max_queue, 9);
  EXPECT_EQ(Serve({}, 2).engine->limits().max_model_len, 32);  // what two pages hold
}

TEST(LlmEngine, RefusesToStartBeyondWhatThereIs) {
  const auto program = device::SoundProgram(device::TestModelText());
  const auto weights = device::RandomWeights(*program, 1);
  const auto device = device::cpu::MakeCpuDevice({.threads = 1});
  auto start = [&](const LlmOptions& options) {
    auto loaded = device->Load(program, weights, {.kv_pages = 4});
    EXPECT_TRUE(loaded);
    const auto engine = StartLlmEngine(std::move(*loaded), options);
    return engine ? Error{} : engine.error();
  };
  EXPECT_EQ(start({.max_model_len = 64}).message, "");
  for (const auto& [options, param] : std::vector<std::pair<LlmOptions, std::string>>{
           {{.max_model_len = 65}, "max_model_len"},
           {{.max_model_len = -1}, "max_model_len"},
           {{.max_num_seqs = 7}, "max_num_seqs"},
           {{.max_batch_tokens = 33}, "max_batch_tokens"}}) {
    const Error error = start(options);
    EXPECT_EQ(error.code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(error.param, param);
    EXPECT_THAT(error.message, HasSubstr("allow 1 to"));
  }
}

TEST(LlmEngine, RefusesAProgramThatIsNoLanguageModel) {
  const auto device = device::cpu::MakeCpuDevice({.threads = 1});
  auto error_of = [&](const std::string& from, const std::string& to) {
    std::string text = device::TestModelText();
    for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
      text.replace(at, from.size(), to);
    const auto program = device::SoundProgram(text);
    auto loaded = device->Load(program, device::RandomWeights(*program, 1), {.kv_pages = 4});
    EXPECT_TRUE(loaded);
    const auto engine = StartLlmEngine(std::move(*loaded), {});
    EXPECT_FALSE(engine);
    return engine ? Error{} : engine.error();
  };
  EXPECT_THAT(error_of("fact vocab_size 64\n", "").message, HasSubstr("no language model"));
  EXPECT_THAT(error_of("picked_rows", "chosen").message, HasSubstr("'picked_rows'"));
  EXPECT_THAT(error_of("sampled", "drawn").message, HasSubstr("'sampled'"));
  EXPECT_THAT(error_of("sampled output", "sampled scratch").message, HasSubstr("no language"));
  EXPECT_THAT(error_of("page_entries", "entries").message, HasSubstr("register 'page_entries'"));
}

// Hostile Programs are sound, and still not what the engine expects.
TEST(LlmEngine, RefusesPortsOfAnotherShape) {
  const auto device = device::cpu::MakeCpuDevice({.threads = 1});
  // An output 'sampled' of one row that nothing writes, whatever is picked.
  std::string text = device::TestModelText();
  for (size_t at = 0; (at = text.find("sampled", at)) != std::string::npos; at += 5)
    text.replace(at, 7, "other");
  text.replace(text.find("stream compute"), 0, "buffer sampled output i32 rows [1, 44]\n");
  const auto program = device::SoundProgram(text);
  auto loaded = device->Load(program, device::RandomWeights(*program, 1), {.kv_pages = 4});
  ASSERT_TRUE(loaded);
  const auto engine = StartLlmEngine(std::move(*loaded), {});
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().code, ErrorCode::kUnsupported);
}

TEST(LlmEngine, PagesThatAStepCanListBoundTheContext) {
  const auto device = device::cpu::MakeCpuDevice({.threads = 1});
  const auto program = device::SoundProgram(device::TestModelText({.page_entries = 2}));
  auto loaded = device->Load(program, device::RandomWeights(*program, 1), {.kv_pages = 30});
  ASSERT_TRUE(loaded);
  const auto engine = StartLlmEngine(std::move(*loaded), {});
  ASSERT_TRUE(engine);
  EXPECT_EQ((*engine)->limits().max_model_len, 32);
  Inbox inbox;
  EXPECT_FALSE((*engine)->Submit(Ask("a", std::vector<int32_t>(40, 1), Greedy(4)), inbox.For("a")));
}

TEST(LlmEngine, NamesBadParameters) {
  const Served served = Serve();
  Inbox inbox;
  auto error_of = [&](const std::function<void(Request&)>& spoil) {
    Request request = Ask("a", kPrompt, Greedy(4));
    spoil(request);
    const auto submitted = served.engine->Submit(request, inbox.For("a"));
    EXPECT_FALSE(submitted);
    return submitted ? Error{} : submitted.error();
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::pair<const char*, std::function<void(Request&)>> cases[] = {
      {"prompt", [](Request& r) { r.prompt.clear(); }},
      {"prompt", [](Request& r) { r.prompt[2] = device::kTestVocab; }},
      {"prompt", [](Request& r) { r.prompt[2] = -1; }},
      {"temperature", [](Request& r) { r.sampling.temperature = -0.1f; }},
      {"temperature", [&](Request& r) { r.sampling.temperature = nan; }},
      {"temperature", [](Request& r) { r.sampling.temperature = 101; }},
      {"top_p", [](Request& r) { r.sampling.top_p = 0; }},
      {"top_p", [](Request& r) { r.sampling.top_p = 1.01f; }},
      {"top_p", [&](Request& r) { r.sampling.top_p = nan; }},
      {"min_p", [](Request& r) { r.sampling.min_p = -0.1f; }},
      {"min_p", [&](Request& r) { r.sampling.min_p = nan; }},
      {"max_tokens", [](Request& r) { r.sampling.max_tokens = -1; }},
      {"logprobs", [](Request& r) { r.sampling.logprobs = kMaxTopLogprobs + 1; }},
      {"logprobs", [](Request& r) { r.sampling.logprobs = -2; }},
      {"min_tokens", [](Request& r) { r.sampling.min_tokens = -1; }},
      {"min_tokens", [](Request& r) { r.sampling.min_tokens = 5; }},  // of 4 at most
      {"frequency_penalty", [](Request& r) { r.sampling.frequency_penalty = 2.1f; }},
      {"frequency_penalty", [&](Request& r) { r.sampling.frequency_penalty = nan; }},
      {"presence_penalty", [](Request& r) { r.sampling.presence_penalty = -2.1f; }},
      {"presence_penalty", [&](Request& r) { r.sampling.presence_penalty = nan; }},
      {"repetition_penalty", [](Request& r) { r.sampling.repetition_penalty = 0; }},
      {"repetition_penalty", [](Request& r) { r.sampling.repetition_penalty = 2.1f; }},
      {"repetition_penalty", [&](Request& r) { r.sampling.repetition_penalty = nan; }},
      {"logit_bias", [](Request& r) { r.sampling.logit_bias = {{device::kTestVocab, 1}}; }},
      {"logit_bias", [](Request& r) { r.sampling.logit_bias = {{-1, 1}}; }},
      {"logit_bias", [](Request& r) { r.sampling.logit_bias = {{3, 100.5f}}; }},
      {"logit_bias", [&](Request& r) { r.sampling.logit_bias = {{3, nan}}; }},
      {"logit_bias", [](Request& r) { r.sampling.logit_bias = {{3, INFINITY}}; }},
      {"logit_bias", [](Request& r) { r.sampling.logit_bias = {{3, 1}, {4, 1}, {3, 2}}; }},
      {"stop_token_ids", [](Request& r) { r.sampling.stop_token_ids = {device::kTestVocab}; }},
      {"stop_token_ids", [](Request& r) { r.sampling.stop_token_ids = {-1}; }},
      {"stop_token_ids", [](Request& r) { r.sampling.stop_token_ids.assign(1025, 1); }},
  };
  for (const auto& [param, spoil] : cases) {
    const Error error = error_of(spoil);
    EXPECT_EQ(error.param, param) << error.message;
    EXPECT_EQ(error.code, ErrorCode::kInvalidArgument) << error.message;
  }
  EXPECT_EQ(inbox.Get("a").calls, 0);
}

TEST(LlmEngine, APromptBeyondTheContextIsOutOfRange) {
  const Served served = Serve();
  Inbox inbox;
  for (const auto& [size, max_tokens, fits] : std::vector<std::tuple<size_t, int, bool>>{
           {80, 5, false}, {81, 0, false}, {79, 5, true}, {80, 0, true}}) {
    const std::string id = std::to_string(size) + "," + std::to_string(max_tokens);
    const auto submitted = served.engine->Submit(
        Ask(id, std::vector<int32_t>(size, 1), Greedy(max_tokens)), inbox.For(id));
    EXPECT_EQ(submitted.has_value(), fits) << id;
    if (fits) {
      const Output output = inbox.Wait(id);
      EXPECT_EQ(output.finish, FinishReason::kLength);
      EXPECT_EQ(output.tokens.size(), max_tokens == 0 ? 0u : 1u);  // the context ends it
      continue;
    }
    EXPECT_EQ(submitted.error().code, ErrorCode::kOutOfRange);
    EXPECT_THAT(submitted.error().message, HasSubstr(std::to_string(size)));
    EXPECT_THAT(submitted.error().message, HasSubstr("80"));
  }
}

TEST(LlmEngine, CountsWhatItGenerated) {
  const Served served = Serve();
  const Output output = RunAlone(*served.engine, Ask("", kPrompt, Greedy(12)));
  EXPECT_EQ(output.finish, FinishReason::kLength);
  EXPECT_EQ(output.tokens.size(), 12u);
  EXPECT_EQ(output.calls, 12);
  EXPECT_EQ(output.usage.prompt_tokens, std::ssize(kPrompt));
  EXPECT_EQ(output.usage.completion_tokens, 12);
  const EngineStats stats = served.engine->Stats();
  EXPECT_EQ(stats.steps, 12);
  EXPECT_EQ(stats.prompt_tokens, std::ssize(kPrompt));
  EXPECT_EQ(stats.generated_tokens, 12);
  EXPECT_EQ(stats.requests_finished, 1);
  EXPECT_EQ(stats.requests_cancelled, 0);
  EXPECT_EQ(stats.kv_pages_total, 30);
  EXPECT_EQ(stats.kv_pages_used, 0);
}

TEST(LlmEngine, EndsAtEndOfTextStopIdsOrLength) {
  const std::vector<int32_t> free_run =
      Ids(RunAlone(*Serve().engine, Ask("", kPrompt, Greedy(20))));
  // A token that does not come up before the sixth.
  size_t at = 5;
  while (std::find(free_run.begin(), free_run.begin() + static_cast<int64_t>(at), free_run[at]) !=
         free_run.begin() + static_cast<int64_t>(at))
    ASSERT_LT(++at, free_run.size()) << "the test model repeats itself";
  const int32_t stop = free_run[at];
  const std::vector<int32_t> expected(free_run.begin(),
                                      free_run.begin() + static_cast<int64_t>(at) + 1);
  const Served served = Serve({.eos_ids = {stop}});
  const Output ended = RunAlone(*served.engine, Ask("", kPrompt, Greedy(20)));
  EXPECT_EQ(Ids(ended), expected);
  EXPECT_EQ(ended.finish, FinishReason::kStop);
  EXPECT_EQ(ended.usage.completion_tokens, std::ssize(expected));

  SamplingParams ignoring = Greedy(20);
  ignoring.ignore_eos = true;
  EXPECT_EQ(Ids(RunAlone(*served.engine, Ask("", kPrompt, ignoring))), free_run);

  ignoring.stop_token_ids = {stop};
  const Output stopped = RunAlone(*served.engine, Ask("", kPrompt, ignoring));
  EXPECT_EQ(Ids(stopped), expected);
  EXPECT_EQ(stopped.finish, FinishReason::kStop);

  // On the last token allowed, the id still says why.
  const Output both =
      RunAlone(*served.engine, Ask("", kPrompt, Greedy(static_cast<int32_t>(expected.size()))));
  EXPECT_EQ(both.finish, FinishReason::kStop);
}

TEST(LlmEngine, TheSinkCanStopOrCancel) {
  const Served served = Serve();
  for (const Verdict verdict : {Verdict::kStop, Verdict::kCancel}) {
    Inbox inbox;
    int64_t seen = 0;
    const auto decide = [&](const Delta& delta) {
      seen = delta.usage.completion_tokens;
      return seen == 3 ? verdict : Verdict::kContinue;
    };
    const int64_t cancelled = served.engine->Stats().requests_cancelled;
    const std::string id = verdict == Verdict::kStop ? "stop" : "cancel";
    ASSERT_TRUE(served.engine->Submit(Ask(id, kPrompt, Greedy(50)), inbox.For(id, decide)));
    inbox.Wait(id);
    while (served.engine->Stats().requests_running > 0) std::this_thread::yield();
    const Output output = inbox.Get(id);
    EXPECT_EQ(output.calls, verdict == Verdict::kStop ? 4 : 3);
    EXPECT_EQ(output.calls_after, 0);
    EXPECT_EQ(output.tokens.size(), 3u);
    EXPECT_EQ(output.usage.completion_tokens, 3);
    EXPECT_EQ(output.finish, verdict == Verdict::kStop ? std::optional(FinishReason::kStop)
                                                       : std::optional<FinishReason>());
    EXPECT_EQ(served.engine->Stats().requests_cancelled - cancelled,
              verdict == Verdict::kCancel ? 1 : 0);
    EXPECT_EQ(served.engine->Stats().kv_pages_used, 0);
  }
}

TEST(LlmEngine, CancelEndsARequestWithinOneStep) {
  Inbox inbox;
  std::atomic<Engine*> engine = nullptr;
  Served served =
      Serve({}, 30, {.submit = [&](int64_t step, const device::Launch&) -> Result<void> {
              if (step == 5) engine.load()->Cancel("a");  // while step 5 is under way
              return {};
            }});
  engine = served.engine.get();
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(60)), inbox.For("a")));
  inbox.Wait("a");
  served.engine->Drain(10 * kSecond);
  const Output output = inbox.Get("a");
  EXPECT_EQ(output.finish, FinishReason::kCancelled);
  EXPECT_EQ(output.tokens.size(), 6u);  // steps 0 to 5
  EXPECT_EQ(output.calls, 6);           // the last of them says so
  EXPECT_EQ(output.calls_after, 0);
  EXPECT_EQ(output.usage.completion_tokens, 6);
  EXPECT_EQ(served.engine->Stats().requests_cancelled, 1);
  EXPECT_EQ(served.engine->Stats().kv_pages_used, 0);
}

TEST(LlmEngine, CancelReachesThoseThatWaitAndNobodyElse) {
  Inbox inbox;
  std::atomic<Engine*> engine = nullptr;
  Served served = Serve(
      {.max_num_seqs = 1}, 30, {.submit = [&](int64_t step, const device::Launch&) -> Result<void> {
        if (step != 0) return {};
        EXPECT_TRUE(engine.load()->Submit(Ask("b", kPrompt, Greedy(60)), inbox.For("b")));
        engine.load()->Cancel("b");
        engine.load()->Cancel("nobody");
        return {};
      }});
  engine = served.engine.get();
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(5)), inbox.For("a")));
  EXPECT_EQ(inbox.Wait("a").tokens.size(), 5u);
  const Output output = inbox.Wait("b");
  EXPECT_EQ(output.finish, FinishReason::kCancelled);
  EXPECT_EQ(output.calls, 1);
  EXPECT_TRUE(output.tokens.empty());
}

// A cancellation that came too late must not hit the next request of the same name.
TEST(LlmEngine, ALateCancelIsForgotten) {
  Inbox inbox, second;
  std::atomic<Engine*> engine = nullptr;
  // "a" ends with step 1; its sink hears of it while step 2, of "b" alone, is under way.
  Served served =
      Serve({}, 30,
            {.submit = [&](int64_t step, const device::Launch&) -> Result<void> {
               if (step == 0) {
                 EXPECT_TRUE(engine.load()->Submit(Ask("b", kPrompt, Greedy(9)), inbox.For("b")));
               }
               if (step == 2) engine.load()->Cancel("a");
               return {};
             },
             .complete = [&](int64_t step) -> Result<int64_t> {
               if (step == 2) {
                 EXPECT_TRUE(engine.load()->Submit(Ask("a", kPrompt, Greedy(4)), second.For("a")));
               }
               return 1;
             }});
  engine = served.engine.get();
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(2)), inbox.For("a")));
  EXPECT_EQ(inbox.Wait("a").finish, FinishReason::kLength);
  EXPECT_EQ(inbox.Wait("b").finish, FinishReason::kLength);
  const Output output = second.Wait("a");
  EXPECT_EQ(output.finish, FinishReason::kLength);
  EXPECT_EQ(output.tokens.size(), 4u);
}

TEST(LlmEngine, AnIdInUseIsRefused) {
  Inbox inbox, other;
  std::atomic<Engine*> engine = nullptr;
  Served served = Serve(
      {}, 30, {.submit = [&](int64_t step, const device::Launch&) -> Result<void> {
        if (step != 1) return {};
        const auto submitted = engine.load()->Submit(Ask("a", kPrompt, Greedy(5)), other.For("a"));
        EXPECT_FALSE(submitted);
        EXPECT_EQ(submitted.error().param, "id");
        return {};
      }});
  engine = served.engine.get();
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(5)), inbox.For("a")));
  EXPECT_EQ(inbox.Wait("a").tokens.size(), 5u);
  served.engine->Drain(kSecond);
  EXPECT_EQ(other.Get("a").calls, 0);
}

TEST(LlmEngine, OneMoreThanTheQueueHoldsIsRefused) {
  Inbox inbox;
  std::atomic<Engine*> engine = nullptr;
  Served served = Serve({.max_num_seqs = 1, .max_queue = 2}, 30,
                        {.submit = [&](int64_t step, const device::Launch&) -> Result<void> {
                          if (step != 1) return {};  // "a" runs, nobody waits
                          for (const char* id : {"b", "c", "d"}) {
                            const auto submitted =
                                engine.load()->Submit(Ask(id, kPrompt, Greedy(2)), inbox.For(id));
                            EXPECT_EQ(submitted.has_value(), *id != 'd') << id;
                            if (submitted) continue;
                            EXPECT_EQ(submitted.error().code, ErrorCode::kNoCapacity);
                            EXPECT_THAT(submitted.error().message, HasSubstr("2 requests"));
                          }
                          return {};
                        }});
  engine = served.engine.get();
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(4)), inbox.For("a")));
  for (const char* id : {"a", "b", "c"}) EXPECT_EQ(inbox.Wait(id).finish, FinishReason::kLength);
  served.engine->Drain(kSecond);
  EXPECT_EQ(inbox.Get("d").calls, 0);
}

// A request that finds a place at once does not count as waiting, whatever the queue.
TEST(LlmEngine, TheQueueHoldsOnlyThoseWithoutAPlace) {
  Inbox inbox;
  std::atomic<Engine*> engine = nullptr;
  Served served = Serve({.max_num_seqs = 4, .max_queue = 0}, 30,
                        {.submit = [&](int64_t step, const device::Launch&) -> Result<void> {
                          if (step != 0) return {};
                          for (const char* id : {"b", "c", "d", "e"}) {
                            const auto submitted =
                                engine.load()->Submit(Ask(id, kPrompt, Greedy(2)), inbox.For(id));
                            EXPECT_EQ(submitted.has_value(), *id != 'e') << id;
                          }
                          EXPECT_EQ(engine.load()->Stats().requests_running, 1);
                          EXPECT_EQ(engine.load()->Stats().requests_waiting, 3);
                          return {};
                        }});
  engine = served.engine.get();
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(9)), inbox.For("a")));
  for (const char* id : {"a", "b", "c", "d"})
    EXPECT_EQ(inbox.Wait(id).finish, FinishReason::kLength);
}

// One caller can have half of the queue, the local developer all of it.
TEST(LlmEngine, NobodyFillsTheQueueAlone) {
  Inbox inbox;
  std::atomic<Engine*> engine = nullptr;
  std::vector<std::string> refused;
  const auto send = [&](const std::string& id, const std::string& caller) {
    Request request = Ask(id, kPrompt, Greedy(2));
    request.caller = caller;
    const auto submitted = engine.load()->Submit(request, inbox.For(id));
    if (submitted) return;
    refused.push_back(id);
    EXPECT_EQ(submitted.error().code, ErrorCode::kNoCapacity);
    EXPECT_THAT(submitted.error().message,
                HasSubstr(id == "late" ? "the queue is full" : "half of the queue (3 requests"));
  };
  Served served = Serve({.max_num_seqs = 1, .max_queue = 5}, 30,
                        {.submit = [&](int64_t step, const device::Launch&) -> Result<void> {
                          if (step != 1) return {};  // "a0" runs, nobody waits
                          for (int i = 1; i < 6; ++i) send("a" + std::to_string(i), "a");
                          engine.load()->Cancel("a2");  // counts until the engine hears of it
                          send("b0", "b");
                          send("c0", "");
                          send("late", "c");
                          return {};
                        }});
  engine = served.engine.get();
  send("a0", "a");
  for (const char* id : {"a0", "a1", "a3", "b0", "c0"})
    EXPECT_EQ(inbox.Wait(id).finish, FinishReason::kLength) << id;
  EXPECT_EQ(inbox.Wait("a2").finish, FinishReason::kCancelled);
  EXPECT_EQ(refused, (std::vector<std::string>{"a4", "a5", "late"}));
  // All of it is free again.
  while (served.engine->Stats().requests_running + served.engine->Stats().requests_waiting > 0)
    std::this_thread::yield();
  for (int i = 6; i < 9; ++i) send("a" + std::to_string(i), "a");
  EXPECT_EQ(refused.size(), 3u);
  served.engine->Drain(kSecond);
}

TEST(LlmEngine, TheLocalDeveloperFillsTheQueue) {
  Inbox inbox;
  std::atomic<Engine*> engine = nullptr;
  Served served = Serve(
      {.max_num_seqs = 1, .max_queue = 4}, 30,
      {.submit = [&](int64_t step, const device::Launch&) -> Result<void> {
        if (step != 1) return {};
        for (const char* id : {"b", "c", "d", "e"})
          EXPECT_TRUE(engine.load()->Submit(Ask(id, kPrompt, Greedy(2)), inbox.For(id))) << id;
        return {};
      }});
  engine = served.engine.get();
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(4)), inbox.For("a")));
  EXPECT_EQ(inbox.Wait("e").finish, FinishReason::kLength);
}

TEST(LlmEngine, SeedsDecide) {
  const Served served = Serve();
  auto run = [&](std::optional<uint64_t> seed) {
    return Ids(RunAlone(*served.engine,
                        Ask("", kPrompt, {.temperature = 1.5f, .seed = seed, .max_tokens = 30})));
  };
  EXPECT_EQ(run(5), run(5));
  EXPECT_NE(run(5), run(6));
  EXPECT_NE(run(5), run(5 + (uint64_t{1} << 32)));
  EXPECT_NE(run(std::nullopt), run(std::nullopt));
}

// A token's draw is numbered by its index in the output (isa/sampling.h), so that it does not
// depend on how the prompt came about.
TEST(LlmEngine, DrawsAreNumberedByTheOutput) {
  std::vector<int32_t> counters;
  const Served served = Serve(
      {}, 30, {.submit = [&](int64_t, const device::Launch& launch) -> Result<void> {
        const auto program = device::SoundProgram(device::TestModelText());
        const auto& words = launch.inputs[static_cast<size_t>(program->FindBuffer("sampling"))];
        counters.push_back(words[isa::kSampleCounter]);
        EXPECT_EQ(words[isa::kSampleSeedLow], 7);
        EXPECT_EQ(words[isa::kSampleSeedHigh], 9);
        return {};
      }});
  RunAlone(*served.engine, Ask("", kPrompt, {.seed = uint64_t{9} << 32 | 7, .max_tokens = 4}));
  EXPECT_EQ(counters, (std::vector<int32_t>{0, 1, 2, 3}));
}

TEST(LlmEngine, TemperatureZeroIsTopKOne) {
  const Served served = Serve();
  const Output greedy = RunAlone(*served.engine, Ask("", kPrompt, Greedy(30)));
  SamplingParams top_one = Greedy(30);
  top_one.temperature = 1;
  top_one.top_k = 1;
  EXPECT_EQ(Bits(RunAlone(*served.engine, Ask("", kPrompt, top_one)).tokens), Bits(greedy.tokens));
  for (const TokenInfo& info : greedy.tokens) {
    ASSERT_EQ(info.top.size(), 3u);
    EXPECT_EQ(info.top[0].token, info.token);
    EXPECT_EQ(info.top[0].logprob, info.logprob);
    EXPECT_GE(info.top[0].logprob, info.top[1].logprob);
  }
}

TEST(LlmEngine, NoLogprobsUnlessAskedFor) {
  const Served served = Serve();
  SamplingParams params = Greedy(3);
  params.logprobs = -1;
  for (const TokenInfo& info : RunAlone(*served.engine, Ask("", kPrompt, params)).tokens) {
    EXPECT_EQ(info.logprob, 0);
    EXPECT_TRUE(info.top.empty());
  }
  params.logprobs = 0;
  for (const TokenInfo& info : RunAlone(*served.engine, Ask("", kPrompt, params)).tokens) {
    EXPECT_LT(info.logprob, 0);
    EXPECT_TRUE(info.top.empty());
  }
}

TEST(LlmEngine, PromptLogprobsAreThoseOfEachStep) {
  const Served served = Serve();
  SamplingParams sampled{.temperature = 1, .seed = 3, .max_tokens = 40, .logprobs = 5};
  const Output steps = RunAlone(*served.engine, Ask("", kPrompt, sampled));
  std::vector<int32_t> whole = kPrompt;
  for (const TokenInfo& info : steps.tokens) whole.push_back(info.token);
  for (const int32_t max_batch_tokens : {1, 7, 32}) {
    const Served other = Serve({.max_batch_tokens = max_batch_tokens});
    const Output forced = RunAlone(
        *other.engine, Ask("", whole, {.max_tokens = 0, .logprobs = 5, .prompt_logprobs = true}));
    EXPECT_EQ(forced.finish, FinishReason::kLength);
    EXPECT_EQ(forced.calls, 1);
    EXPECT_TRUE(forced.tokens.empty());
    EXPECT_EQ(forced.usage.completion_tokens, 0);
    ASSERT_EQ(forced.prompt.size(), whole.size());
    EXPECT_EQ(forced.prompt[0].token, whole[0]);
    EXPECT_EQ(forced.prompt[0].logprob, 0);
    const std::vector<TokenInfo> tail(forced.prompt.end() - std::ssize(steps.tokens),
                                      forced.prompt.end());
    EXPECT_EQ(Bits(tail), Bits(steps.tokens)) << "chunks of " << max_batch_tokens;
  }
}

TEST(LlmEngine, PromptLogprobsComeOnceAndBeforeTheFirstToken) {
  const Served served = Serve({.max_batch_tokens = 3});
  for (const size_t size : {1u, 2u, 3u, 8u}) {
    const std::vector<int32_t> prompt(kPrompt.begin(),
                                      kPrompt.begin() + static_cast<int64_t>(size));
    Inbox inbox;
    int deltas = 0;
    const auto decide = [&](const Delta& delta) {
      EXPECT_EQ(delta.prompt.size(), deltas++ == 0 ? size : 0u) << "prompt of " << size;
      return Verdict::kContinue;
    };
    SamplingParams params = Greedy(3);
    params.prompt_logprobs = true;
    const std::string id = std::to_string(size);
    ASSERT_TRUE(served.engine->Submit(Ask(id, prompt, params), inbox.For(id, decide)));
    EXPECT_EQ(inbox.Wait(id).tokens.size(), 3u);
    EXPECT_EQ(deltas, 3);
  }
}

TEST(LlmEngine, DrainLetsTheLiveOnesFinish) {
  Inbox inbox;
  const Served served = Serve();
  for (const char* id : {"a", "b", "c"})
    ASSERT_TRUE(served.engine->Submit(Ask(id, kPrompt, Greedy(40)), inbox.For(id)));
  served.engine->Drain(std::numeric_limits<int64_t>::max());
  for (const char* id : {"a", "b", "c"}) {
    EXPECT_EQ(inbox.Get(id).finish, FinishReason::kLength);
    EXPECT_EQ(inbox.Get(id).tokens.size(), 40u);
  }
  const auto late = served.engine->Submit(Ask("late", kPrompt, Greedy(1)), inbox.For("late"));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::kUnavailable);
  served.engine->Drain(0);
  served.engine->Drain(kSecond);
}

Hooked Slowly() {
  return {.submit = [](int64_t, const device::Launch&) -> Result<void> {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // of 70 steps
    return {};
  }};
}

TEST(LlmEngine, DrainEndsWhatIsLeftAfterItsTime) {
  Inbox inbox;
  const Served served = Serve({.max_num_seqs = 1}, 30, Slowly());
  for (const char* id : {"a", "b"})
    ASSERT_TRUE(served.engine->Submit(Ask(id, kPrompt, Greedy(70)), inbox.For(id)));
  served.engine->Drain(kSecond / 50);
  for (const char* id : {"a", "b"}) {
    EXPECT_EQ(inbox.Get(id).finish, FinishReason::kError) << id;
    EXPECT_EQ(inbox.Get(id).calls_after, 0) << id;
  }
  EXPECT_LT(inbox.Get("a").tokens.size(), 70u);
  EXPECT_EQ(served.engine->Stats().kv_pages_used, 0);
  served.engine->Drain(0);
}

TEST(LlmEngine, DestructionEndsWhatIsLive) {
  Inbox inbox;
  {
    const Served served = Serve({.max_num_seqs = 1}, 30, Slowly());
    for (const char* id : {"a", "b"})
      ASSERT_TRUE(served.engine->Submit(Ask(id, kPrompt, Greedy(70)), inbox.For(id)));
  }
  for (const char* id : {"a", "b"}) {
    EXPECT_EQ(inbox.Get(id).finish, FinishReason::kError) << id;
    EXPECT_EQ(inbox.Get(id).calls_after, 0) << id;
  }
}

TEST(LlmEngine, ADeviceThatFailsEndsItsRequestsAndNoOthers) {
  Inbox inbox;
  std::atomic<Engine*> engine = nullptr;
  Served served = Serve(
      {.max_num_seqs = 2}, 30, {.submit = [&](int64_t step, const device::Launch&) -> Result<void> {
        for (const char* id : {"b", "c"}) {
          if (step != 0) break;
          EXPECT_TRUE(engine.load()->Submit(Ask(id, kPrompt, Greedy(9)), inbox.For(id)));
        }
        if (step == 3) return Fail(ErrorCode::kIo, "the chip caught fire");
        return {};
      }});
  engine = served.engine.get();
  ASSERT_TRUE(served.engine->Submit(Ask("a", kPrompt, Greedy(9)), inbox.For("a")));
  for (const char* id : {"a", "b"}) {
    const Output output = inbox.Wait(id);
    EXPECT_EQ(output.finish, FinishReason::kError);
    ASSERT_TRUE(output.error);
    EXPECT_EQ(output.error->message, "the chip caught fire");
    EXPECT_EQ(output.calls_after, 0);
  }
  EXPECT_EQ(inbox.Get("a").tokens.size(), 3u);
  const Output spared = inbox.Wait("c");  // it waited
  EXPECT_EQ(spared.finish, FinishReason::kLength);
  EXPECT_EQ(Ids(spared), Ids(RunAlone(*Serve().engine, Ask("", kPrompt, Greedy(9)))));
  served.engine->Drain(kSecond);
  EXPECT_EQ(served.engine->Stats().kv_pages_used, 0);
  EXPECT_EQ(served.engine->Stats().requests_finished, 3);
}

}  // namespace
}  // namespace millpower::engine
