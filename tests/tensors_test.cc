// Graphs of tensors compiled, packed and run on the CPU device, against an interpreter of the graph
// in float64 that knows nothing of any of these.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "compile/compile.h"
#include "compile/test_tensors.h"
#include "device/cpu/cpu_device.h"
#include "isa/encoding.h"

namespace millpower {
namespace {

using compile::Array;
using compile::Arrays;
using compile::Constant;
using compile::Op;
using compile::Symbol;
using compile::Tensors;
using compile::ValueId;
using compile::Values;

// One model, loaded on devices that must give the same bits.
class Runs {
 public:
  Runs(const ir::Graph& graph, const compile::Options& options) : graph_(graph) {
    tensors.AddAllOf(graph);
    auto compiled = compile::Compile(graph, options);
    CHECK(compiled) << compiled.error().message << "\n" << ir::ToText(graph);
    program = std::make_shared<const isa::Program>(std::move(compiled->program));
    ThreadTeam team(1);
    auto bound = compile::PackAll(*program, compiled->packing, tensors, team, {});
    CHECK(bound) << bound.error().message;
    for (const auto& [threads, kernels, seed] :
         {std::tuple(1, "auto", 0), {3, "auto", 1}, {1, "scalar", 2}}) {
      devices_.push_back(device::cpu::MakeCpuDevice({.threads = threads,
                                                     .kernels = *kernels::SelectKernels(kernels),
                                                     .order_seed = static_cast<uint64_t>(seed),
                                                     .serial_cost = 0}));
      auto loaded = devices_.back()->Load(program, *bound, {});
      CHECK(loaded) << loaded.error().message;
      loaded_.push_back(std::move(*loaded));
    }
  }

  // Outputs of one launch, as rows and columns.
  Result<Arrays> Run(const Values& symbols, const Arrays& inputs) {
    device::Launch launch(*program);
    for (size_t i = 0; i < program->registers.size(); ++i)
      if (program->registers[i].formula.empty())
        launch.registers[i] = symbols.at(program->registers[i].name);
    for (size_t i = 0; i < program->buffers.size(); ++i) {
      if (program->buffers[i].kind != isa::BufferKind::kInput) continue;
      const std::vector<std::byte> bytes = inputs.at(program->buffers[i].name).Bytes();
      launch.inputs[i].assign((bytes.size() + 3) / 4, 0);
      std::memcpy(launch.inputs[i].data(), bytes.data(), bytes.size());
    }
    std::vector<std::vector<std::byte>> first;
    for (auto& loaded : loaded_) {
      TRY_ASSIGN(const device::Ticket ticket, loaded->Submit(launch));
      TRY(loaded->Complete(ticket));
      std::vector<std::vector<std::byte>> outputs;
      for (const ValueId output : graph_.outputs()) {
        const auto bytes = loaded->Output(program->FindBuffer(graph_.value(output).name));
        outputs.emplace_back(bytes.begin(), bytes.end());
      }
      if (first.empty()) first = outputs;
      EXPECT_EQ(outputs, first) << "bits differ between devices";
    }
    Arrays arrays;
    for (size_t i = 0; i < first.size(); ++i) {
      const ir::Value& value = graph_.value(graph_.outputs()[i]);
      const int64_t count = std::ssize(first[i]) / SizeBytes(value.dtype);
      arrays[value.name] = Array::FromBytes(value.dtype, {count}, first[i]);
    }
    return arrays;
  }

  Tensors tensors;
  std::shared_ptr<const isa::Program> program;

 private:
  const ir::Graph& graph_;
  std::vector<std::unique_ptr<device::Device>> devices_;
  std::vector<std::unique_ptr<device::LoadedProgram>> loaded_;
};

void Check(const ir::Graph& graph, double tolerance, const compile::Options& options = {}) {
  Runs runs(graph, options);
  Rng rng(5);
  for (const Values& symbols : {Values{{"batch", 7}, {"seq", 1}}, Values{{"batch", 1}, {"seq", 5}},
                                Values{{"batch", 4}, {"seq", 3}}}) {
    Arrays inputs;
    for (const ir::Value& value : graph.values())
      if (value.kind == ir::ValueKind::kInput)
        inputs[value.name] = compile::RandomArray(value, symbols, rng);
    const auto expected = compile::Interpret(graph, symbols, inputs, runs.tensors);
    const auto actual = runs.Run(symbols, inputs);
    ASSERT_TRUE(expected) << expected.error().message;
    ASSERT_TRUE(actual) << actual.error().message;
    for (const auto& [name, array] : *expected)
      compile::ExpectClose(actual->at(name), array, name, tolerance);
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << ir::ToText(graph) << isa::Print(*runs.program);
      return;
    }
  }
}

TEST(Tensors, RandomGraphsComputeTheSame) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Check(compile::RandomGraph(seed).Make(), 1e-4);
    if (HasFailure()) break;
  }
}

TEST(Tensors, EveryOperator) { Check(compile::GraphOfEveryOperator(), 1e-5); }

TEST(Tensors, Dlrm) {
  const ir::Graph graph = compile::DlrmGraph(26, 16);
  Check(graph, 1e-5);
  Check(graph, 0.02, {.weight_type = DType::kQ8_0, .kv_type = {}, .table_type = DType::kI8});
  Check(graph, 0.02, {.weight_type = DType::kBf16, .kv_type = {}, .table_type = DType::kF16});
}

TEST(Tensors, AnIndexThatIsRefusedFailsTheLaunch) {
  compile::Model m;
  const ValueId ids = m.Input("ids", {Symbol("batch")}, DType::kI64);
  m.graph.AddOutput(m.Take(m.Weight("table", {5, 3}), ids, 0, IndexPolicy::kError));
  Runs runs(m.graph, {});
  const Values symbols = {{"batch", 3}, {"seq", 1}};
  Array inside = Array::Zeros(DType::kI64, {3}), outside = inside;
  inside.integers = {0, 4, 2};
  outside.integers = {0, 5, 2};
  EXPECT_TRUE(runs.Run(symbols, {{"ids", inside}}));
  const auto failed = runs.Run(symbols, {{"ids", outside}});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(runs.Run(symbols, {{"ids", inside}}));
}

}  // namespace
}  // namespace millpower
