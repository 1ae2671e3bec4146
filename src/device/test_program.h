// A small language model as a Program, with random weights: for the tests of devices and engines.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "base/check.h"
#include "base/rng.h"
#include "isa/encoding.h"
#include "isa/package.h"
#include "isa/test_program.h"
#include "isa/verify.h"

namespace millpower::device {

inline constexpr int32_t kTestVocab = 64;

// Bounds of the registers, and the context.
struct TestModelSizes {
  int64_t rows = 32;
  int64_t seqs = 6;
  int64_t picked = 8;
  int64_t adjusts = 200;
  int64_t page_entries = 30;
  int64_t pages = 64;
  int64_t max_positions = 80;
};

// `body`: isa::kTestModelBody, or isa::kTestExpertsBody.
inline std::string TestModelText(const TestModelSizes& sizes = {},
                                 const char* body = isa::kTestModelBody) {
  auto line = [](const char* what, int64_t value) { return what + std::to_string(value) + "\n"; };
  return line("program test\nfact vocab_size ", kTestVocab) +
         line("fact max_positions ", sizes.max_positions) + line("register rows ", sizes.rows) +
         line("register seqs ", sizes.seqs) + line("register picked ", sizes.picked) +
         line("register adjusts ", sizes.adjusts) +
         line("register page_entries ", sizes.page_entries) + "register pages " +
         std::to_string(sizes.pages) + " at_load\n" + body;
}

// A text that the test wrote itself, so that it parses and is sound.
inline std::shared_ptr<const isa::Program> SoundProgram(const std::string& text) {
  auto program = isa::Parse(text);
  CHECK(program) << program.error().message;
  const auto verified = isa::Verify(*program);
  CHECK(verified) << verified.error().message;
  return std::make_shared<const isa::Program>(std::move(*program));
}

// Random bytes with scales that make values of about (-1, 1): one chunk of a weight in blocks.
inline void MakeChunk(Rng& rng, DType type, std::byte* chunk) {
  for (int64_t i = 0; i < isa::ChunkLines(type) * isa::kLineBytes; ++i)
    chunk[i] = static_cast<std::byte>(rng.Below(256));
  const float largest = type == DType::kQ8_0   ? 128
                        : type == DType::kQ4_0 ? 8
                        : type == DType::kQ4_K ? 63 * 15
                                               : 128 * 32;
  for (int64_t i = 0; i < 2 * isa::kLanes; ++i) {
    const uint16_t scale = F32ToF16(rng.Uniform(0.5f, 1) / largest);
    std::memcpy(chunk + 2 * i, &scale, sizeof scale);
  }
}

// Every weight, its padding too, uniform in (-1, 1).
inline isa::BoundWeights RandomWeights(const isa::Program& program, uint64_t seed) {
  size_t total = 0;
  std::vector<size_t> offsets, sizes;
  for (const isa::Buffer& buffer : program.buffers) {
    const bool weight = buffer.kind == isa::BufferKind::kWeight;
    offsets.push_back(total);
    sizes.push_back(weight ? static_cast<size_t>(isa::BufferBytes(buffer, buffer.rows.size))
                           : size_t{0});
    total += (sizes.back() + isa::kLineBytes - 1) / isa::kLineBytes * isa::kLineBytes;
  }
  const std::shared_ptr<std::byte> bytes(
      static_cast<std::byte*>(std::aligned_alloc(isa::kLineBytes, total + isa::kLineBytes)),
      &std::free);
  isa::BoundWeights bound;
  Rng rng(seed);
  for (size_t i = 0; i < program.buffers.size(); ++i) {
    const DType dtype = program.buffers[i].dtype;
    std::byte* const begin = bytes.get() + offsets[i];
    bound.by_buffer.emplace_back(sizes[i] == 0 ? nullptr : begin, sizes[i]);
    if (IsBlockType(dtype)) {
      const auto chunk = static_cast<size_t>(isa::ChunkLines(dtype) * isa::kLineBytes);
      for (size_t at = 0; at < sizes[i]; at += chunk) MakeChunk(rng, dtype, begin + at);
      continue;
    }
    for (size_t at = 0; at < sizes[i]; at += static_cast<size_t>(SizeBytes(dtype))) {
      const float value = rng.Uniform(-1, 1);
      const Bf16 half = F32ToBf16(value);
      if (dtype == DType::kBf16)
        std::memcpy(begin + at, &half, sizeof half);
      else
        std::memcpy(begin + at, &value, sizeof value);
    }
  }
  bound.owner = bytes;
  return bound;
}

}  // namespace millpower::device
