#include "serve/transcriber.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "serve/test_model.h"

namespace millpower::serve {
namespace {

struct Told {
  std::string text;
  std::vector<int32_t> tokens;
  std::vector<int64_t> offsets;
  std::string finish_reason;
};

// Feeds `tokens` in steps of up to `step` tokens, until the transcriber has had enough.
Told Transcribe(const TestModel& model, const GenerationRequest& request,
                const std::vector<int32_t>& tokens, size_t step) {
  Transcriber transcriber(model.served, request, std::nullopt);
  Told told;
  for (size_t i = 0; i < tokens.size() && told.finish_reason.empty(); i += step) {
    engine::Delta delta;
    for (size_t k = i; k < std::min(i + step, tokens.size()); ++k)
      delta.tokens.push_back({.token = tokens[k], .top = {}});
    if (i + step >= tokens.size()) delta.finish = engine::FinishReason::kStop;
    const Piece piece = transcriber.Push(delta);
    for (const text::OutputEvent& event : piece.events) told.text += event.text;
    for (const TokenRecord& record : piece.tokens) {
      told.tokens.push_back(record.info.token);
      told.offsets.push_back(record.text_offset);
    }
    if (piece.finish_reason) told.finish_reason = piece.finish_reason;
  }
  return told;
}

TEST(Transcriber, HoldsTokensWithTheirText) {
  const TestModel model([](const auto&) { return ""; });
  GenerationRequest request;
  request.stop = {"END"};
  Transcriber transcriber(model.served, request, std::nullopt);
  const auto push = [&](char c) {
    engine::Delta delta;
    delta.tokens.push_back({.token = c, .top = {}});
    return transcriber.Push(delta);
  };
  EXPECT_EQ(push('a').tokens.size(), 1u);
  EXPECT_TRUE(push('E').empty());
  EXPECT_TRUE(push('N').empty());
  const Piece piece = push('x');
  EXPECT_EQ(piece.events.at(0).text, "ENx");
  EXPECT_EQ(piece.tokens.size(), 3u);
  EXPECT_EQ(piece.tokens[2].text_offset, 3);
}

TEST(Transcriber, ShowsTheEndOfTextOnlyWhenAskedTo) {
  const TestModel model([](const auto&) { return ""; });
  GenerationRequest request;
  EXPECT_EQ(Transcribe(model, request, Say("ok"), 1).text, "ok");
  request.skip_special_tokens = false;
  EXPECT_EQ(Transcribe(model, request, Say("ok"), 1).text, "ok<|im_end|>");
}

TEST(Transcriber, TellsTheSameHoweverTheStepsFall) {
  const TestModel model([](const auto&) { return ""; });
  Rng rng(11);
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (uint64_t i = rng.Below(20); i > 0; --i)
      text += rng.Below(8) == 0 ? "\u00e9" : std::string(1, static_cast<char>('a' + rng.Below(2)));
    GenerationRequest request;
    if (rng.Below(2)) request.stop = {"aba", "bb\u00e9"};
    const std::vector<int32_t> tokens = Say(text);
    const Told whole = Transcribe(model, request, tokens, tokens.size());
    for (const size_t step : {1u, 2u, 3u}) {
      const Told told = Transcribe(model, request, tokens, step);
      EXPECT_EQ(told.text, whole.text);
      EXPECT_EQ(told.finish_reason, "stop");
      // What was fed, and nothing else; a stop string may leave the rest of the tokens unfed.
      EXPECT_EQ(told.tokens, std::vector(tokens.begin(), tokens.begin() + told.tokens.size()));
      EXPECT_TRUE(std::ranges::is_sorted(told.offsets));
      if (request.stop.empty()) {
        EXPECT_EQ(told.text, text);
        EXPECT_EQ(told.offsets, whole.offsets);
      }
    }
  }
}

}  // namespace
}  // namespace millpower::serve
