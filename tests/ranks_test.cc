// A model spread over several ranks is the model: the same Program on every rank, weights cut from
// the same tensors, and what comes out is what one rank computes but for the order of its sums.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/threads.h"
#include "compile/compile.h"
#include "compile/test_graph.h"
#include "device/cpu/cpu_device.h"
#include "device/pipeline.h"
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

// Into how much a model is cut.
struct Cut {
  int ranks = 1;
  int stages = 1;
  int stage = 0;
};

import::GraphOptions GraphOf(const Cut& cut, int rank) {
  import::GraphOptions options{.max_rows = 32, .max_seqs = 2, .max_pages = 64};
  options.ranks = cut.ranks;
  options.rank = rank;
  options.stages = cut.stages;
  options.stage = cut.stage;
  return options;
}

// The ranks of a model, or of a stage of it, each on a device of its own.
class Ranks final : public device::LoadedProgram {
 public:
  Ranks(const import::Qwen3Config& config, const compile::Options& options,
        const ir::WeightSource& source, const Cut& cut, int threads = 1)
      : team_(cut.ranks) {
    const auto group = std::make_shared<device::cpu::Group>(cut.ranks);
    ThreadTeam team(1);
    for (int rank = 0; rank < cut.ranks; ++rank) {
      auto graph = import::BuildQwen3Graph(config, GraphOf(cut, rank));
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
    tickets_.resize(loaded_.size());
  }

  const std::shared_ptr<const isa::Program>& shared_program(size_t rank = 0) const {
    return programs_[rank];
  }
  const isa::Program& program() const override { return *programs_[0]; }
  const device::LoadedProgram& loaded(size_t rank) const { return *loaded_[rank]; }
  int64_t LoadRegister(int32_t reg) const override { return loaded_[0]->LoadRegister(reg); }

  Result<device::Ticket> Submit(const device::Launch& launch,
                                device::LaunchClass launch_class) override {
    for (size_t rank = 0; rank < loaded_.size(); ++rank) {
      TRY_ASSIGN(tickets_[rank], loaded_[rank]->Submit(launch, launch_class));
    }
    return tickets_[0];
  }

  Result<device::Completion> Complete(device::Ticket) override {
    team_.Run([&](int rank) {
      const auto i = static_cast<size_t>(rank);
      CHECK(loaded_[i]->Complete(tickets_[i]));
    });
    return device::Completion{};
  }

  // The same on all ranks.
  std::span<const std::byte> Output(int32_t buffer) const override {
    const auto first = loaded_[0]->Output(buffer);
    for (const auto& other : loaded_) {
      const auto bytes = other->Output(buffer);
      EXPECT_TRUE(std::ranges::equal(bytes, first));
    }
    return first;
  }

 private:
  ThreadTeam team_;
  std::vector<std::shared_ptr<const isa::Program>> programs_;
  std::vector<std::unique_ptr<device::Device>> devices_;
  std::vector<std::unique_ptr<device::LoadedProgram>> loaded_;
  std::vector<device::Ticket> tickets_;
};

device::Launch LaunchOf(const isa::Program& program, const std::vector<int32_t>& tokens,
                        int64_t first) {
  device::Launch launch(program);
  auto input = [&](const char* name) -> std::vector<int32_t>& {
    return launch.inputs[static_cast<size_t>(program.FindBuffer(name))];
  };
  auto set = [&](const char* name, size_t value) {
    launch.registers[static_cast<size_t>(program.FindRegister(name))] = static_cast<int64_t>(value);
  };
  const auto rows = static_cast<int32_t>(tokens.size());
  input("tokens") = tokens;
  for (int32_t i = 0; i < rows; ++i) input("positions").push_back(static_cast<int32_t>(first) + i);
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

// The next tokens of one sequence, from `first` on: logits of the last.
std::vector<float> Step(device::LoadedProgram& model, const std::vector<int32_t>& tokens,
                        int64_t first) {
  const auto ticket = model.Submit(LaunchOf(model.program(), tokens, first));
  CHECK(ticket) << ticket.error().message;
  const auto done = model.Complete(*ticket);
  CHECK(done) << done.error().message;
  const auto bytes = model.Output(model.program().FindBuffer("logits"));
  std::vector<float> logits(bytes.size() / sizeof(float));
  std::memcpy(logits.data(), bytes.data(), bytes.size());
  return logits;
}

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

// `model` and the model uncut, a prompt and then what the latter says.
void ExpectSameTokens(device::LoadedProgram& one, device::LoadedProgram& model) {
  std::vector<int32_t> next = {5, 17, 3, 80, 41, 2, 9};
  int64_t first = 0;
  for (int step = 0; step < 24; ++step) {
    const std::vector<float> expected = Step(one, next, first);
    const std::vector<float> logits = Step(model, next, first);
    ASSERT_EQ(logits.size(), expected.size());
    for (size_t i = 0; i < logits.size(); ++i)
      ASSERT_NEAR(logits[i], expected[i], 1e-4) << "step " << step;
    const int32_t token = Greedy(expected), other = Greedy(logits);
    if (token != other) {
      EXPECT_NEAR(expected[static_cast<size_t>(token)], expected[static_cast<size_t>(other)], 1e-4)
          << "step " << step;
    }
    first += std::ssize(next);
    next = {token};
  }
}

TEST_P(RanksTest, GiveTheGreedyTokensOfOne) {
  const Case& test = GetParam();
  const compile::Tensors tensors = TensorsOf(test.config);
  for (const int ranks : {2, 4}) {
    SCOPED_TRACE(ranks);
    Ranks one(test.config, test.options, tensors, {.ranks = 1});
    Ranks several(test.config, test.options, tensors, {.ranks = ranks}, ranks == 2 ? 2 : 1);
    ExpectSameTokens(one, several);
  }
}

// Cut into stages as well, each of several ranks: the bits of the same ranks uncut.
TEST_P(RanksTest, StagesGiveTheBitsOfOne) {
  const Case& test = GetParam();
  import::Qwen3Config config = test.config;
  config.layers = 3;
  const compile::Tensors tensors = TensorsOf(config);
  for (const Cut cut : {Cut{.ranks = 1, .stages = 2}, {.ranks = 2, .stages = 3}}) {
    SCOPED_TRACE(cut.stages);
    Ranks one(config, test.options, tensors, {.ranks = cut.ranks});
    std::vector<std::unique_ptr<device::LoadedProgram>> stages;
    for (int stage = 0; stage < cut.stages; ++stage)
      stages.push_back(std::make_unique<Ranks>(config, test.options, tensors,
                                               Cut{cut.ranks, cut.stages, stage}));
    auto pipeline = device::MakePipeline(one.shared_program(), std::move(stages));
    ASSERT_TRUE(pipeline) << pipeline.error().message;
    std::vector<int32_t> next = {5, 17, 3, 80, 41, 2, 9};
    int64_t first = 0;
    for (int step = 0; step < 16; ++step) {
      const std::vector<float> expected = Step(one, next, first);
      ASSERT_EQ(Step(**pipeline, next, first), expected) << "step " << step;
      first += std::ssize(next);
      next = {Greedy(expected)};
    }
  }
}

TEST(Ranks, StagesFitEachOther) {
  const import::Qwen3Config config = SmallConfig();
  const compile::Tensors tensors = TensorsOf(config);
  const Ranks whole(config, {}, tensors, {});
  const auto stage = [&](int index) {
    return std::make_unique<Ranks>(config, compile::Options{}, tensors, Cut{1, 2, index});
  };
  std::vector<std::unique_ptr<device::LoadedProgram>> stages;
  stages.push_back(stage(1));
  stages.push_back(stage(0));
  auto pipeline = device::MakePipeline(whole.shared_program(), std::move(stages));
  ASSERT_FALSE(pipeline);
  EXPECT_EQ(pipeline.error().message, "stage 0 takes 'hidden' from nowhere");
  stages.clear();
  stages.push_back(stage(0));
  pipeline = device::MakePipeline(whole.shared_program(), std::move(stages));
  ASSERT_FALSE(pipeline);
  EXPECT_EQ(pipeline.error().message, "stage 0 has no 'logits'");
}

TEST_P(RanksTest, RunOneProgram) {
  const Case& test = GetParam();
  const compile::Tensors tensors = TensorsOf(test.config);
  const Ranks ranks(test.config, test.options, tensors, {.ranks = 4});
  const int32_t rank_register = ranks.program().FindRegister(isa::kRankRegister);
  ASSERT_GE(rank_register, 0);
  for (size_t rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(isa::Print(*ranks.shared_program(rank)), isa::Print(ranks.program()));
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
