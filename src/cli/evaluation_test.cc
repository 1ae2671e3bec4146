#include "cli/evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "base/rng.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "device/cpu/cpu_device.h"

namespace millpower::cli {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

const fs::path kGoldens = MILLPOWER_SOURCE_DIR "/tests/golden";
const fs::path kDemo = MILLPOWER_SOURCE_DIR "/models/demo";

TEST(PlanWindows, CountsEveryTokenOnce) {
  EXPECT_THAT(PlanWindows(0, 4, 2), ElementsAre());
  EXPECT_THAT(PlanWindows(1, 4, 2), ElementsAre());
  EXPECT_THAT(PlanWindows(3, 4, 2), ElementsAre(Window{0, 1, 3}));
  EXPECT_THAT(PlanWindows(4, 4, 2), ElementsAre(Window{0, 1, 4}));
  EXPECT_THAT(PlanWindows(9, 4, 2),
              ElementsAre(Window{0, 1, 4}, Window{2, 4, 6}, Window{4, 6, 8}, Window{6, 8, 9}));
  EXPECT_THAT(PlanWindows(9, 8, 1), ElementsAre(Window{0, 1, 8}, Window{1, 8, 9}));
  for (int64_t tokens = 2; tokens < 40; ++tokens) {
    for (int64_t context = 2; context < 12; ++context) {
      for (int64_t stride = 1; stride < context; ++stride) {
        int64_t next = 1;
        for (const Window& window : PlanWindows(tokens, context, stride)) {
          EXPECT_EQ(window.scored_begin, next);
          EXPECT_LE(window.end - window.begin, context);
          EXPECT_LT(window.begin, window.scored_begin);
          next = window.end;
        }
        EXPECT_EQ(next, tokens) << tokens << " by " << context << ", " << stride;
      }
    }
  }
}

TEST(PlanWindows, WithoutOverlapTheFirstOfEachIsNotCounted) {
  EXPECT_THAT(PlanWindows(9, 4, 4), ElementsAre(Window{0, 1, 4}, Window{4, 5, 8}));
  EXPECT_THAT(PlanWindows(10, 4, 4),
              ElementsAre(Window{0, 1, 4}, Window{4, 5, 8}, Window{8, 9, 10}));
}

TEST(Score, IsTheLogarithmOfASoftmax) {
  const std::vector<float> logits = {0.5f, -1.0f, 3.0f, 3.0f, 2.0f};
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  const RowScore score = ScoreRow(logits, 1);
  EXPECT_NEAR(score.log_sum, std::log(sum), 1e-14);
  EXPECT_NEAR(score.nll, std::log(sum) + 1.0, 1e-14);
  EXPECT_EQ(score.top, 2);
  // Large logits do not overflow.
  EXPECT_NEAR(ScoreRow(std::vector<float>{3000.0f, 3001.0f}, 1).nll, std::log1p(std::exp(-1.0)),
              1e-12);
}

TEST(Score, KlDivergenceIsOfTheModelFromTheReference) {
  const std::vector<float> reference = {1.0f, 2.0f, -0.5f}, model = {0.25f, 2.5f, 0.0f};
  const RowScore r = ScoreRow(reference, 0), m = ScoreRow(model, 0);
  double expected = 0, reversed = 0;
  for (size_t i = 0; i < 3; ++i) {
    const double log_p = reference[i] - r.log_sum, log_q = model[i] - m.log_sum;
    expected += std::exp(log_p) * (log_p - log_q);
    reversed += std::exp(log_q) * (log_q - log_p);
  }
  EXPECT_NEAR(KlDivergence(reference, r, model, m), expected, 1e-14);
  EXPECT_GT(std::abs(expected - reversed), 1e-3);
  EXPECT_EQ(KlDivergence(reference, r, reference, r), 0);
}

TEST(Score, MeansAndQuantiles) {
  const std::vector<double> values = {1, 2, 3, 10};
  EXPECT_DOUBLE_EQ(MeanOf(values).value, 4);
  EXPECT_DOUBLE_EQ(MeanOf(values).error, std::sqrt((9 + 4 + 1 + 36) / 3.0 / 4));
  EXPECT_EQ(MeanOf(std::vector<double>{5}).error, 0);
  EXPECT_EQ(Quantile(values, 0.5), 2);
  EXPECT_EQ(Quantile(values, 0.51), 3);
  EXPECT_EQ(Quantile(values, 0.99), 10);
  EXPECT_EQ(Quantile(values, 1), 10);
  EXPECT_EQ(Quantile(values, 1e-9), 1);
}

LoadedModel LoadGolden(const std::string& name, DType weights, int64_t max_batch_tokens = 512,
                       int64_t max_picked = 128) {
  LoadOptions options;
  options.chat_format = text::ChatFormat::kQwen3;
  options.compile.weight_type = weights;
  options.compile.kv_type = DType::kF32;
  options.max_batch_tokens = max_batch_tokens;
  options.max_num_seqs = 1;
  options.max_picked = max_picked;
  options.show_progress = false;
  auto model = LoadModel(kGoldens / name, options);
  EXPECT_TRUE(model) << model.error().message;
  return std::move(*model);
}

// A golden model, ready to run.
struct Runner {
  Runner(const std::string& name, DType weights, int64_t max_batch_tokens = 512,
         int64_t max_picked = 128, int64_t positions = 256)
      : model(LoadGolden(name, weights, max_batch_tokens, max_picked)),
        device(device::cpu::MakeCpuDevice({.threads = 2})),
        runner(std::move(*LogitsRunner::Load(*device, model.program, model.weights, positions))) {}

  Evaluation Run(const std::vector<int32_t>& tokens, const std::vector<Window>& windows,
                 Runner* reference = nullptr, int threads = 2) {
    ThreadTeam team(threads);
    auto result = Evaluate(runner, reference != nullptr ? &reference->runner : nullptr, tokens,
                           windows, team, {});
    EXPECT_TRUE(result) << result.error().message;
    return result ? *result : Evaluation{};
  }

  LoadedModel model;
  std::unique_ptr<device::Device> device;
  LogitsRunner runner;
};

std::vector<int32_t> RandomTokens(size_t count, int64_t vocab, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> tokens(count);
  for (auto& token : tokens) token = static_cast<int32_t>(rng.Below(static_cast<uint64_t>(vocab)));
  return tokens;
}

// Sum of the log-probabilities of all tokens but the first, as the serving engine tells them.
double EngineLogprob(Session& session, const std::vector<int32_t>& prompt) {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  double sum = 0;
  engine::Request request;
  static int count = 0;  // the engine may still know a request that has just finished
  request.id = "prompt-" + std::to_string(count++);
  request.prompt = prompt;
  request.sampling.max_tokens = 0;
  request.sampling.logprobs = 0;
  request.sampling.prompt_logprobs = true;
  const auto submitted =
      session.engine->Submit(std::move(request), [&](const engine::Delta& delta) {
        const std::lock_guard lock(mutex);
        for (const engine::TokenInfo& token : delta.prompt) sum += token.logprob;
        done = delta.finish.has_value();
        changed.notify_all();
        return engine::Verdict::kContinue;
      });
  EXPECT_TRUE(submitted);
  if (!submitted) return 0;
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return done; });
  return sum;
}

TEST(Evaluate, GivesTheEnginesPromptLogprobs) {
  SessionOptions options;
  options.load.chat_format = text::ChatFormat::kQwen3;
  options.load.compile = {.weight_type = DType::kF32, .kv_type = DType::kF32};
  options.load.show_progress = false;
  auto session = StartSession(kGoldens / "tiny-tied", options);
  ASSERT_TRUE(session) << session.error().message;
  Runner tiny("tiny-tied", DType::kF32);
  const auto tokens = RandomTokens(150, tiny.runner.vocab_size(), 1);

  const auto whole = tiny.Run(tokens, PlanWindows(150, 200, 100));
  EXPECT_EQ(whole.scored_tokens, 149);
  EXPECT_NEAR(whole.model.nll.value, -EngineLogprob(*session, tokens) / 149, 1e-5);
  EXPECT_DOUBLE_EQ(whole.model.perplexity.value, std::exp(whole.model.nll.value));

  // Windows of 64 every 48: each is a prompt of its own, less what comes before its scored part.
  double expected = 0;
  const auto windows = PlanWindows(150, 64, 48);
  ASSERT_EQ(windows.size(), 3u);
  for (const Window& window : windows) {
    const auto at = tokens.begin() + window.begin;
    expected -= EngineLogprob(*session, {at, tokens.begin() + window.end});
    if (window.scored_begin > window.begin + 1)
      expected += EngineLogprob(*session, {at, tokens.begin() + window.scored_begin});
  }
  const auto windowed = tiny.Run(tokens, windows);
  EXPECT_EQ(windowed.scored_tokens, 149);
  EXPECT_NEAR(windowed.model.nll.value, expected / 149, 1e-5);
  EXPECT_GT(std::abs(windowed.model.nll.value - whole.model.nll.value), 1e-4);
}

TEST(Evaluate, ChunksAndThreadsChangeNothing) {
  Runner large("tiny-tied", DType::kF32);
  Runner small("tiny-tied", DType::kF32, 7, 3, 64);
  EXPECT_EQ(small.runner.max_rows(), 7);
  EXPECT_EQ(small.runner.max_picked(), 3);
  const auto tokens = RandomTokens(150, large.runner.vocab_size(), 2);
  const auto windows = PlanWindows(150, 64, 40);
  const auto expected = large.Run(tokens, windows);
  EXPECT_EQ(small.Run(tokens, windows, nullptr, 1).model.nll.value, expected.model.nll.value);
  const auto both = small.Run(tokens, windows, &large, 3);
  EXPECT_EQ(both.model.nll.value, expected.model.nll.value);
  EXPECT_EQ(both.reference->nll.value, expected.model.nll.value);
  EXPECT_EQ(both.divergence->kl_max, 0);
}

TEST(Evaluate, AModelIsNoDistanceFromItself) {
  Runner model("tiny-tied", DType::kF32), same("tiny-tied", DType::kF32);
  const auto tokens = RandomTokens(100, model.runner.vocab_size(), 3);
  const auto result = model.Run(tokens, PlanWindows(100, 64, 32), &same);
  ASSERT_TRUE(result.divergence);
  EXPECT_EQ(result.divergence->kl.value, 0);
  EXPECT_EQ(result.divergence->kl_max, 0);
  EXPECT_EQ(result.divergence->top_agreement.value, 1);
  EXPECT_EQ(result.divergence->logprob_delta.value, 0);
  EXPECT_EQ(result.reference->perplexity.value, result.model.perplexity.value);
}

TEST(Evaluate, RoundedWeightsAreALittleOff) {
  Runner exact("tiny-tied", DType::kF32), rounded("tiny-tied", DType::kBf16);
  const auto tokens = RandomTokens(200, exact.runner.vocab_size(), 4);
  const auto windows = PlanWindows(200, 256, 128);
  const auto result = rounded.Run(tokens, windows, &exact);
  ASSERT_TRUE(result.divergence);
  const Divergence& d = *result.divergence;
  EXPECT_GT(d.kl.value, 1e-9);
  EXPECT_LT(d.kl.value, 1e-2);
  EXPECT_LE(d.kl_median, d.kl_p99);
  EXPECT_LE(d.kl_p99, d.kl_max);
  EXPECT_GT(d.top_agreement.value, 0.9);
  EXPECT_NE(d.logprob_delta.value, 0);
  EXPECT_NEAR(d.logprob_delta.value, result.reference->nll.value - result.model.nll.value, 1e-12);
  EXPECT_EQ(result.reference->nll.value, exact.Run(tokens, windows).model.nll.value);
}

TEST(Evaluate, NeedsSomethingToPredict) {
  Runner model("tiny-tied", DType::kF32);
  ThreadTeam team(1);
  const auto result =
      Evaluate(model.runner, nullptr, std::vector<int32_t>{5}, PlanWindows(1, 8, 4), team, {});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
}

TEST(LogitsRunner, RefusesWhatDoesNotFit) {
  const LoadedModel model = LoadGolden("tiny-tied", DType::kF32);
  const auto device = device::cpu::MakeCpuDevice({.threads = 1});
  const int64_t most = model.program->FactOr("max_positions", 0);
  EXPECT_TRUE(LogitsRunner::Load(*device, model.program, model.weights, most));
  for (const int64_t positions : {int64_t{0}, most + 1}) {
    const auto runner = LogitsRunner::Load(*device, model.program, model.weights, positions);
    ASSERT_FALSE(runner);
    EXPECT_EQ(runner.error().code, ErrorCode::kOutOfRange);
  }
  auto runner = LogitsRunner::Load(*device, model.program, model.weights, 16);
  ASSERT_TRUE(runner);
  const auto bad = runner->Run(std::vector<int32_t>{1 << 30}, 0, 1);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(runner->Run(std::vector<int32_t>{1}, 0, 1));  // and goes on
}

TEST(LogitsRunner, NeedsALanguageModel) {
  const auto device = device::cpu::MakeCpuDevice({.threads = 1});
  const auto runner =
      LogitsRunner::Load(*device, std::make_shared<const isa::Program>(), isa::BoundWeights{}, 1);
  ASSERT_FALSE(runner);
  EXPECT_EQ(runner.error().code, ErrorCode::kUnsupported);
}

// The error of "millpower perplexity FLAGS", or nothing.
std::string CommandError(const std::string& flags) {
  CLI::App app;
  const Command run = AddPerplexity(app);
  try {
    app.parse("perplexity " + flags);
  } catch (const CLI::ParseError& error) {
    return error.what();
  }
  testing::internal::CaptureStdout();
  const auto done = run();
  const std::string printed = testing::internal::GetCapturedStdout();
  if (done) {
    EXPECT_THAT(printed, HasSubstr("perplexity"));
    EXPECT_THAT(printed, Not(HasSubstr("nan")));
    return "";
  }
  EXPECT_EQ(printed, "");
  return done.error().message;
}

TEST(PerplexityCommand, SaysWhatIsWrong) {
  const std::string pattern = (fs::temp_directory_path() / "perplexity.XXXXXX").string();
  std::string folder = pattern;
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  auto write = [&](const char* name, const std::string& text) {
    std::ofstream(fs::path(folder) / name, std::ios::binary) << text;
    return (fs::path(folder) / name).string();
  };
  const std::string text = write("text", "A bill of lading is a document from the carrier.");
  const std::string demo = kDemo.string() + " ";
  EXPECT_EQ(CommandError(demo + text), "");
  EXPECT_EQ(CommandError(demo + text + " --json --against " + kDemo.string()), "");
  EXPECT_THAT(CommandError(demo + "/no/such/text"), HasSubstr("/no/such/text"));
  EXPECT_THAT(CommandError("/no/such/model " + text), HasSubstr("/no/such/model"));
  EXPECT_THAT(CommandError(demo + write("bytes", "good\xff")), HasSubstr("UTF-8 at byte 4"));
  EXPECT_THAT(CommandError(demo + write("empty", "")), HasSubstr("0 tokens"));
  EXPECT_THAT(CommandError(demo + text + " --context 2049"), HasSubstr("2048"));
  EXPECT_THAT(CommandError(demo + text + " --context 1"), HasSubstr("at least 2"));
  EXPECT_THAT(CommandError(demo + text + " --context 8 --stride 9"), HasSubstr("--stride 9"));
  EXPECT_THAT(CommandError(demo + text + " --against-weights f32"), HasSubstr("--against"));
  EXPECT_THAT(CommandError(demo + text + " --against " + demo + "--against-weights int3"),
              HasSubstr("int3"));
  EXPECT_THAT(CommandError(demo + text + " --against " + (kGoldens / "tiny-tied").string()),
              HasSubstr("different vocabularies"));
  fs::remove_all(folder);
}

}  // namespace
}  // namespace millpower::cli
