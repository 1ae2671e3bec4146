// What requests change about the odds of single tokens: the adjustments, the launches made of them,
// and what comes out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "engine/adjustments.h"
#include "engine/test_engine.h"
#include "isa/sampling.h"

namespace millpower::engine {
namespace {

using testing::HasSubstr;
using testing::UnorderedElementsAre;

struct Row {
  int32_t token = 0;
  float divide = 1, add = 0;
  bool operator==(const Row&) const = default;
};

std::vector<Row> Rows(std::span<const int32_t> tokens, std::span<const int32_t> words) {
  EXPECT_EQ(words.size(), tokens.size() * isa::kSampleAdjustmentWords);
  std::vector<Row> rows;
  for (size_t i = 0; i < tokens.size(); ++i)
    rows.push_back({tokens[i], isa::FloatOf(words[2 * i + isa::kAdjustDivide]),
                    isa::FloatOf(words[2 * i + isa::kAdjustAdd])});
  return rows;
}

std::vector<Row> RowsAfter(const Adjustments& adjustments, int32_t generated) {
  std::vector<int32_t> tokens, words;
  adjustments.AppendTo(generated, tokens, words);
  EXPECT_LE(std::ssize(tokens), adjustments.count());
  return Rows(tokens, words);
}

TEST(Adjustments, AreNoneByDefault) {
  Adjustments adjustments(Ask("", kPrompt, {}), std::vector{1, 2}, 64);
  adjustments.Add(5);
  EXPECT_EQ(adjustments.count(), 0);
  EXPECT_EQ(adjustments.CountAfter(100, 64), 0);
}

TEST(Adjustments, PenaltiesFollowTheCounts) {
  Adjustments adjustments(
      Ask("", {7, 8, 7}, {.frequency_penalty = 0.5f, .presence_penalty = 0.25f}), {}, 64);
  EXPECT_EQ(RowsAfter(adjustments, 0).size(), 0u);  // the prompt does not count
  for (const int32_t token : {7, 9, 7}) adjustments.Add(token);
  EXPECT_THAT(RowsAfter(adjustments, 3),
              UnorderedElementsAre(Row{7, 1, -1.25f}, Row{9, 1, -0.75f}));
  EXPECT_EQ(adjustments.CountAfter(10, 64), 12);
  EXPECT_EQ(adjustments.CountAfter(100, 64), 64);
}

TEST(Adjustments, RepetitionCountsThePromptOnce) {
  Adjustments adjustments(Ask("", {7, 8, 7}, {.repetition_penalty = 1.5f}), {}, 64);
  EXPECT_THAT(RowsAfter(adjustments, 0), UnorderedElementsAre(Row{7, 1.5f, 0}, Row{8, 1.5f, 0}));
  for (const int32_t token : {8, 9, 9}) adjustments.Add(token);
  EXPECT_THAT(RowsAfter(adjustments, 3),
              UnorderedElementsAre(Row{7, 1.5f, 0}, Row{8, 1.5f, 0}, Row{9, 1.5f, 0}));
}

TEST(Adjustments, BiasesAddUpWithPenalties) {
  Adjustments adjustments(Ask("", {7},
                              {.presence_penalty = 1,
                               .repetition_penalty = 2,
                               .logit_bias = {{7, 3}, {9, -INFINITY}, {4, 0}}}),
                          {}, 64);
  EXPECT_THAT(RowsAfter(adjustments, 0), UnorderedElementsAre(Row{7, 2, 3}, Row{9, 1, -INFINITY}));
  for (const int32_t token : {7, 9}) adjustments.Add(token);
  EXPECT_THAT(RowsAfter(adjustments, 2), UnorderedElementsAre(Row{7, 2, 2}, Row{9, 2, -INFINITY}));
}

TEST(Adjustments, EndsAreForbiddenUntilMinTokens) {
  Adjustments adjustments(Ask("", {7}, {.max_tokens = 5, .min_tokens = 2, .logit_bias = {{3, 1}}}),
                          std::vector{3, 60, 64, -1},
                          64);  // ids outside of the vocabulary never come up
  const Row three{3, 1, -INFINITY}, sixty{60, 1, -INFINITY};
  EXPECT_THAT(RowsAfter(adjustments, 0), UnorderedElementsAre(three, sixty));
  EXPECT_THAT(RowsAfter(adjustments, 1), UnorderedElementsAre(three, sixty));
  EXPECT_THAT(RowsAfter(adjustments, 2), UnorderedElementsAre(Row{3, 1, 1}));
}

// --- launches ---

// The rows that a launch has for each picked row, in order.
std::vector<std::vector<Row>> RowsOfLaunch(const device::Launch& launch) {
  static const auto program = device::SoundProgram(device::TestModelText());
  auto input = [&](const char* name) -> const std::vector<int32_t>& {
    return launch.inputs[static_cast<size_t>(program->FindBuffer(name))];
  };
  const std::vector<Row> all = Rows(input("adjust_tokens"), input("adjustments"));
  EXPECT_EQ(launch.registers[static_cast<size_t>(program->FindRegister("adjusts"))],
            std::ssize(all));
  std::vector<std::vector<Row>> parts;
  const auto& params = input("sampling");
  for (size_t at = 0; at < params.size(); at += isa::kSampleParamWords) {
    const auto begin = all.begin() + params[at + isa::kSampleAdjustBegin];
    parts.emplace_back(begin, begin + params[at + isa::kSampleAdjustCount]);
  }
  return parts;
}

TEST(Launches, TellWhatToAdjustInEachRow) {
  std::vector<std::vector<std::vector<Row>>> launches;
  const Served served = Serve(
      {.eos_ids = {2}}, 30, {.submit = [&](int64_t, const device::Launch& launch) -> Result<void> {
        launches.push_back(RowsOfLaunch(launch));
        return {};
      }});
  const SamplingParams params{.temperature = 0,
                              .max_tokens = 3,
                              .min_tokens = 2,
                              .frequency_penalty = 0.5f,
                              .logit_bias = {{60, 4}},
                              .stop_token_ids = {63},
                              .prompt_logprobs = true};
  const auto ids = Ids(RunAlone(*served.engine, Ask("", {7, 8, 9}, params)));
  ASSERT_EQ(ids.size(), 3u);
  ASSERT_EQ(launches.size(), 3u);
  // The prompt's logprobs are the model's own; only the row that draws is adjusted.
  ASSERT_EQ(launches[0].size(), 3u);
  EXPECT_TRUE(launches[0][0].empty());
  EXPECT_TRUE(launches[0][1].empty());
  const Row no_2{2, 1, -INFINITY}, no_63{63, 1, -INFINITY}, bias{60, 1, 4};
  EXPECT_THAT(launches[0][2], UnorderedElementsAre(no_2, no_63, bias));
  auto add_of = [&](const std::vector<Row>& rows, int32_t token) {
    const auto row = std::ranges::find(rows, token, &Row::token);
    return row == rows.end() ? 0 : row->add;
  };
  EXPECT_EQ(add_of(launches[1][0], 2), -INFINITY);
  EXPECT_EQ(add_of(launches[2][0], 63), ids[0] == 63 || ids[1] == 63 ? -0.5f : 0.0f);
  const auto before = std::count(ids.begin(), ids.begin() + 2, ids[0]);
  EXPECT_EQ(add_of(launches[2][0], ids[0]),
            (ids[0] == 60 ? 4.0f : 0.0f) - 0.5f * static_cast<float>(before));
}

// The test model takes 200 adjustments in a step, and each of these needs up to 64: some sequences
// must wait for the next step, none for long, and none fails.
TEST(Launches, AdjustmentsThatDoNotFitWaitForTheNextStep) {
  size_t most = 0, steps = 0;
  const Served served =
      Serve({}, 30, {.submit = [&](int64_t, const device::Launch& launch) -> Result<void> {
              size_t count = 0;
              for (const auto& rows : RowsOfLaunch(launch)) count += rows.size();
              most = std::max(most, count);
              ++steps;
              return {};
            }});
  Inbox inbox;
  std::vector<int32_t> all(device::kTestVocab);
  for (int32_t i = 0; i < device::kTestVocab; ++i) all[static_cast<size_t>(i)] = i;
  SamplingParams params = Greedy(10);
  params.repetition_penalty = 1.1f;
  for (int i = 0; i < 6; ++i) {
    std::swap(all[0], all[static_cast<size_t>(i)]);
    const std::string id = std::to_string(i);
    ASSERT_TRUE(served.engine->Submit(Ask(id, all, params), inbox.For(id)));
  }
  for (int i = 0; i < 6; ++i) {
    const Output output = inbox.Wait(std::to_string(i));
    EXPECT_EQ(output.finish, FinishReason::kLength);
    EXPECT_EQ(output.tokens.size(), 10u);
  }
  EXPECT_EQ(most, 3u * 64);
  EXPECT_LE(steps, 6u * 10);
}

TEST(Launches, ARequestThatNeedsMoreThanAStepTakesIsRefused) {
  const auto device = device::cpu::MakeCpuDevice({.threads = 1});
  const auto program = device::SoundProgram(device::TestModelText({.adjusts = 10}));
  auto loaded = device->Load(program, device::RandomWeights(*program, 1), {.kv_pages = 30});
  ASSERT_TRUE(loaded);
  const auto engine = StartLlmEngine(std::move(*loaded), {.eos_ids = {1, 2}});
  ASSERT_TRUE(engine);
  Inbox inbox;
  auto error_of = [&](const SamplingParams& params) {
    static int count = 0;
    const std::string id = std::to_string(count++);
    const auto submitted = (*engine)->Submit(Ask(id, kPrompt, params), inbox.For(id));
    if (!submitted) return submitted.error();
    inbox.Wait(id);
    return Error{.code = ErrorCode::kInternal, .message = "", .param = ""};
  };
  // The prompt has 7 tokens of its own.
  EXPECT_EQ(error_of({.max_tokens = 4, .repetition_penalty = 2}).message, "");
  const Error longer = error_of({.max_tokens = 5, .repetition_penalty = 2});
  EXPECT_EQ(longer.code, ErrorCode::kOutOfRange);
  EXPECT_EQ(longer.param, "max_tokens");
  EXPECT_THAT(longer.message, HasSubstr("11 tokens"));
  EXPECT_THAT(longer.message, HasSubstr("takes 10"));
  EXPECT_EQ(error_of({.max_tokens = 11, .presence_penalty = 1}).message, "");
  EXPECT_EQ(error_of({.max_tokens = 12, .presence_penalty = 1}).param, "max_tokens");
  SamplingParams biased{.max_tokens = 40};
  for (int32_t token = 10; token < 20; ++token) biased.logit_bias.push_back({token, 1});
  EXPECT_EQ(error_of(biased).message, "");
  biased.min_tokens = 1;  // and two ends
  EXPECT_EQ(error_of(biased).param, "logit_bias");
  biased.repetition_penalty = 1.1f;
  EXPECT_EQ(error_of(biased).param, "repetition_penalty");
}

// --- what comes out ---

TEST(Sampling, ABiasCanForceOrForbidAToken) {
  const Served served = Serve();
  SamplingParams params = Greedy(6);
  params.logit_bias = {{37, 100}};
  EXPECT_EQ(Ids(RunAlone(*served.engine, Ask("", kPrompt, params))), std::vector<int32_t>(6, 37));
  // Logprobs are the model's own, whatever the bias.
  const Output free = RunAlone(*served.engine, Ask("", kPrompt, Greedy(1)));
  const Output forced = RunAlone(*served.engine, Ask("", kPrompt, params));
  EXPECT_EQ(forced.tokens[0].top[0].token, free.tokens[0].token);
  EXPECT_EQ(forced.tokens[0].top[0].logprob, free.tokens[0].logprob);
  EXPECT_LT(forced.tokens[0].logprob, free.tokens[0].logprob);

  params = Greedy(1);
  params.logit_bias = {{free.tokens[0].token, -INFINITY}};
  EXPECT_EQ(Ids(RunAlone(*served.engine, Ask("", kPrompt, params)))[0],
            free.tokens[0].top[1].token);
}

TEST(Sampling, NothingEndsTheOutputBeforeMinTokens) {
  const Served served = Serve({.eos_ids = {41}});
  for (const int32_t end : {41, 42}) {
    for (const int32_t min_tokens : {0, 1, 5}) {
      SamplingParams params = Greedy(20);
      params.logit_bias = {{end, 100}};
      params.stop_token_ids = {42};
      params.min_tokens = min_tokens;
      const Output output = RunAlone(*served.engine, Ask("", kPrompt, params));
      EXPECT_EQ(output.finish, FinishReason::kStop);
      EXPECT_EQ(std::ssize(output.tokens), min_tokens + 1);
      EXPECT_EQ(output.tokens.back().token, end);
    }
  }
}

// Against the definition, by the model's own logprobs of the 20 likeliest tokens: greedy takes the
// one that is best after the penalties.
TEST(Sampling, PenaltiesAreOpenAis) {
  const Served served = Serve({.max_batch_tokens = 5});
  Rng rng(5);
  for (int run = 0; run < 20; ++run) {
    SCOPED_TRACE("run " + std::to_string(run));
    SamplingParams params{.temperature = 0,
                          .max_tokens = 60,
                          .frequency_penalty = rng.Uniform(0, 1),
                          .presence_penalty = rng.Uniform(0, 1),
                          .ignore_eos = true,
                          .logprobs = kMaxTopLogprobs};
    const Output output = RunAlone(*served.engine, Ask("", kPrompt, params));
    std::map<int32_t, int> counts;
    int decided = 0;
    for (const TokenInfo& info : output.tokens) {
      auto value = [&](const Alternative& alternative) {
        const int count = counts[alternative.token];
        return double{alternative.logprob} - double{params.frequency_penalty} * count -
               (count > 0 ? double{params.presence_penalty} : 0);
      };
      const auto best = std::ranges::max_element(info.top, {}, value);
      // Those that are not listed have no more than the last one's logprob.
      const bool is_certain = value(*best) > info.top.back().logprob;
      if (is_certain) {
        EXPECT_EQ(info.token, best->token);
      }
      decided += is_certain;
      ++counts[info.token];
    }
    EXPECT_GT(decided, 30);
  }
}

TEST(Sampling, RepetitionPenalisesThePromptToo) {
  const Served served = Serve();
  SamplingParams params = Greedy(40);
  const Output free = RunAlone(*served.engine, Ask("", kPrompt, params));
  params.repetition_penalty = 2;
  const Output penalised = RunAlone(*served.engine, Ask("", kPrompt, params));
  auto repeats = [](const Output& output) {
    std::set<int32_t> seen(kPrompt.begin(), kPrompt.end());
    int count = 0;
    for (const int32_t token : Ids(output)) count += !seen.insert(token).second;
    return count;
  };
  EXPECT_LT(repeats(penalised), repeats(free));
  // The first token is drawn from logits of which only the prompt's tokens are changed.
  std::vector<int32_t> all(device::kTestVocab);
  for (int32_t i = 0; i < device::kTestVocab; ++i) all[static_cast<size_t>(i)] = i;
  params.max_tokens = 1;
  params.logprobs = kMaxTopLogprobs;
  const Output whole = RunAlone(*served.engine, Ask("", all, params));
  EXPECT_EQ(whole.tokens[0].token, whole.tokens[0].top[0].token);  // all alike: the order stays
}

}  // namespace
}  // namespace millpower::engine
