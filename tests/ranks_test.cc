// A model spread over several ranks is the model: the same Program on every rank, weights cut from
// the same tensors, and what comes out is what one rank computes but for the order of its sums.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/threads.h"
#include "compile/compile.h"
#include "compile/test_graph.h"
#include "device/cpu/cpu_device.h"
#include "import/qwen3/graph.h"
#include "isa/encoding.h"
#include "isa/sampling.h"

namespace millpower {
namespace {

constexpr int64_t kPages = 8;

// Eight heads that share two KV heads: with four ranks, each of these stands on two.
import::Qwen3Config SmallConfig() {
  import::Qwen3Config config;
  config.vocab_size = 96;
  config.hidden_size = 64;
  config.intermediate_size = 128;
  config.layers = 2;
  config.heads = 8;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.max_positions = kPages * 16;
  config.dtype = DType::kF32;
  config.rope.theta = 10000;
  return config;
}

import::Qwen3Config WithExperts() {
  import::Qwen3Config config = SmallConfig();
  config.experts = 4;
  config.experts_per_token = 2;
  config.expert_intermediate_size = 128;
  config.normalise_experts = true;
  config.dense_layers = {0};
  return config;
}

// The ranks of a model, each on a device of its own.
class Ranks {
 public:
  Ranks(const import::Qwen3Config& config, const compile::Options& options,
        const ir::WeightSource& source, int ranks, int threads = 1) {
    const auto group = std::make_shared<device::cpu::Group>(ranks);
    ThreadTeam team(1);
    for (int rank = 0; rank < ranks; ++rank) {
      auto graph = import::BuildQwen3Graph(
          config, {.max_rows = 32, .max_seqs = 2, .max_pages = 64, .ranks = ranks, .rank = rank});
      CHECK(graph) << graph.error().message;
      auto compiled = compile::Compile(*graph, options);
      CHECK(compiled) << compiled.error().message;
      auto weights = compile::PackAll(compiled->program, compiled->packing, source, team, {});
      CHECK(weights) << weights.error().message;
      programs_.push_back(std::make_shared<const isa::Program>(std::move(compiled->program)));
      devices_.push_back(device::cpu::MakeCpuDevice(
          {.threads = threads, .serial_cost = 0, .group = group, .rank = rank}));
      auto loaded = devices_.back()->Load(programs_.back(), *weights, {.kv_pages = kPages});
      CHECK(loaded) << loaded.error().message;
      loaded_.push_back(std::move(*loaded));
    }
  }

  const isa::Program& program(size_t rank = 0) const { return *programs_[rank]; }
  const device::LoadedProgram& loaded(size_t rank) const { return *loaded_[rank]; }

  // The next tokens of one sequence, from `first` on: logits of the last, the same on all ranks.
  std::vector<float> Step(const std::vector<int32_t>& tokens, int64_t first) {
    const device::Launch launch = LaunchOf(tokens, first);
    std::vector<std::vector<float>> logits(loaded_.size());
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < loaded_.size(); ++rank)
      threads.emplace_back([&, rank] {
        const auto ticket = loaded_[rank]->Submit(launch);
        CHECK(ticket) << ticket.error().message;
        CHECK(loaded_[rank]->Complete(*ticket));
        const auto bytes = loaded_[rank]->Output(program().FindBuffer("logits"));
        logits[rank].resize(bytes.size() / sizeof(float));
        std::memcpy(logits[rank].data(), bytes.data(), bytes.size());
      });
    for (std::thread& thread : threads) thread.join();
    for (const std::vector<float>& other : logits) EXPECT_EQ(other, logits[0]);
    return logits[0];
  }

 private:
  device::Launch LaunchOf(const std::vector<int32_t>& tokens, int64_t first) const {
    device::Launch launch(program());
    auto input = [&](const char* name) -> std::vector<int32_t>& {
      return launch.inputs[static_cast<size_t>(program().FindBuffer(name))];
    };
    auto set = [&](const char* name, size_t value) {
      launch.registers[static_cast<size_t>(program().FindRegister(name))] =
          static_cast<int64_t>(value);
    };
    const auto rows = static_cast<int32_t>(tokens.size());
    input("tokens") = tokens;
    for (int32_t i = 0; i < rows; ++i)
      input("positions").push_back(static_cast<int32_t>(first) + i);
    input("sequences") = {0, rows, static_cast<int32_t>(first), 0};
    for (int32_t page = 0; page < kPages; ++page) input("pages").push_back(kPages - 1 - page);
    input("picked_rows") = {rows - 1};
    input("sampling").assign(isa::kSampleParamWords, 0);
    set("rows", tokens.size());
    set("seqs", 1);
    set("picked", 1);
    set("page_entries", kPages);
    return launch;
  }

  std::vector<std::shared_ptr<const isa::Program>> programs_;
  std::vector<std::unique_ptr<device::Device>> devices_;
  std::vector<std::unique_ptr<device::LoadedProgram>> loaded_;
};

compile::Tensors TensorsOf(const import::Qwen3Config& config) {
  const auto graph = import::BuildQwen3Graph(config);
  CHECK(graph) << graph.error().message;
  compile::Tensors tensors;
  tensors.AddAllOf(*graph);
  return tensors;
}

int32_t Greedy(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
}

struct Case {
  std::string name;
  import::Qwen3Config config;
  compile::Options options;
};

std::vector<Case> Cases() {
  compile::Options f32, int8;
  f32.kv_type = int8.kv_type = DType::kF32;
  int8.weight_type = DType::kQ8_0;
  import::Qwen3Config tied = SmallConfig(), biased = SmallConfig(), odd = SmallConfig();
  tied.tie_word_embeddings = true;
  biased.attention_bias = true;
  odd.vocab_size = 97;  // which no ranks divide
  return {{"dense", SmallConfig(), f32},
          {"experts", WithExperts(), f32},
          {"tied", tied, f32},
          {"biased", biased, f32},
          {"undivided_head", odd, f32},
          {"dense_int8", SmallConfig(), int8},
          {"experts_int8", WithExperts(), int8}};
}

class RanksTest : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(All, RanksTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(RanksTest, GiveTheGreedyTokensOfOne) {
  const Case& test = GetParam();
  const compile::Tensors tensors = TensorsOf(test.config);
  for (const int ranks : {2, 4}) {
    Ranks one(test.config, test.options, tensors, 1);
    Ranks several(test.config, test.options, tensors, ranks, ranks == 2 ? 2 : 1);
    std::vector<int32_t> next = {5, 17, 3, 80, 41, 2, 9};
    int64_t first = 0;
    for (int step = 0; step < 24; ++step) {
      const std::vector<float> expected = one.Step(next, first);
      const std::vector<float> logits = several.Step(next, first);
      ASSERT_EQ(logits.size(), expected.size());
      for (size_t i = 0; i < logits.size(); ++i)
        ASSERT_NEAR(logits[i], expected[i], 1e-4) << ranks << " ranks, step " << step;
      const int32_t token = Greedy(expected), other = Greedy(logits);
      if (token != other) {
        EXPECT_NEAR(expected[static_cast<size_t>(token)], expected[static_cast<size_t>(other)],
                    1e-4)
            << ranks << " ranks, step " << step;
      }
      first += std::ssize(next);
      next = {token};
    }
  }
}

TEST_P(RanksTest, RunOneProgram) {
  const Case& test = GetParam();
  const compile::Tensors tensors = TensorsOf(test.config);
  const Ranks ranks(test.config, test.options, tensors, 4);
  const int32_t rank_register = ranks.program().FindRegister(isa::kRankRegister);
  ASSERT_GE(rank_register, 0);
  for (size_t rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(isa::Print(ranks.program(rank)), isa::Print(ranks.program(0)));
    EXPECT_EQ(ranks.loaded(rank).LoadRegister(rank_register), static_cast<int64_t>(rank));
  }
  int collectives = 0;
  for (const isa::Instruction& in : ranks.program().streams[2])
    collectives += in.op == isa::Opcode::kCollective;
  EXPECT_EQ(collectives, 2 * test.config.layers + (test.name == "undivided_head" ? 0 : 1));
}

TEST(Ranks, AProgramFitsItsGroup) {
  const import::Qwen3Config config = SmallConfig();
  const auto graph = import::BuildQwen3Graph(config, {.ranks = 2});
  ASSERT_TRUE(graph);
  const compile::Tensors tensors = TensorsOf(config);
  auto compiled = compile::Compile(*graph, {});
  ASSERT_TRUE(compiled);
  ThreadTeam team(1);
  auto weights = compile::PackAll(compiled->program, compiled->packing, tensors, team, {});
  ASSERT_TRUE(weights);
  const auto device = device::cpu::MakeCpuDevice({});
  const auto loaded =
      device->Load(std::make_shared<const isa::Program>(std::move(compiled->program)), *weights,
                   {.kv_pages = kPages});
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().message, "the Program is for 2 ranks; this device is one of 1");
}

}  // namespace
}  // namespace millpower
