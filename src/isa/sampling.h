// The rows of the `sample` instruction's operands, in 32-bit words. docs/isa/sample.md says what
// the instruction does with them.
#pragma once

#include <bit>
#include <cstdint>

namespace millpower::isa {

// What to draw from one row of logits. Reals are the bits of a float32.
enum SampleParam : int {
  kSampleTemperature = 0,  // f32 >= 0; 0 takes the most likely token
  kSampleTopP = 1,         // f32 in (0, 1]
  kSampleMinP = 2,         // f32 in [0, 1]
  kSampleTopK = 3,         // i32; <= 0 keeps all
  kSampleSeedLow = 4,      // 64-bit seed
  kSampleSeedHigh = 5,
  kSampleCounter = 6,   // which draw of the seed this is: the token's index in the output
  kSampleLogprobs = 7,  // i32: -1 none; else the number of alternatives, up to kMaxAlternatives
  kSampleTarget = 8,    // i32: >= 0 takes this token and tells its logprob; -1 draws one
  // The row's part of the adjustments below: what a request changes about single tokens before one
  // is drawn (penalties, biases, tokens it forbids). Parts past the end are cut off.
  kSampleAdjustBegin = 9,   // i32
  kSampleAdjustCount = 10,  // i32
  kSampleParamWords = 12,
};

// A row of the adjustments; the token it speaks of is in the list beside it, at most once in each
// part. First logit > 0 ? logit / divide : logit * divide (repetition penalty; 1 changes nothing),
// then + add (frequency and presence penalties, logit bias; -inf forbids). Logprobs are told of the
// logits as they were.
enum SampleAdjustment : int {
  kAdjustDivide = 0,  // f32 > 0
  kAdjustAdd = 1,     // f32
  kSampleAdjustmentWords = 2,
};

inline constexpr int kMaxAlternatives = 20;

// What came out.
enum SampleRecord : int {
  kRecordToken = 0,    // i32
  kRecordLogprob = 1,  // f32, of the model's own distribution (temperature 1, nothing filtered)
  kRecordCount = 2,    // i32: alternatives that follow
  kRecordIds = 4,      // i32 x kMaxAlternatives, most likely first
  kRecordLogprobs = kRecordIds + kMaxAlternatives,  // f32 x kMaxAlternatives
  kSampleRecordWords = kRecordLogprobs + kMaxAlternatives,
};

inline int32_t WordOf(float value) { return std::bit_cast<int32_t>(value); }
inline float FloatOf(int32_t word) { return std::bit_cast<float>(word); }

}  // namespace millpower::isa
