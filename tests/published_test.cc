// Every Qwen3 model that was published compiles, and one compiled from its config alone is the one
// compiled from its weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "compile/compile.h"
#include "device/device.h"
#include "import/hf/folder.h"
#include "import/qwen3/published.h"
#include "isa/encoding.h"
#include "isa/sampling.h"
#include "isa/verify.h"

namespace millpower {
namespace {

TEST(Published, CompilesAndIsSound) {
  ASSERT_GE(import::PublishedModels().size(), 6u);
  for (const import::PublishedModel& model : import::PublishedModels()) {
    SCOPED_TRACE(model.name);
    const auto graph = import::BuildQwen3Graph(model.config);
    ASSERT_TRUE(graph) << graph.error().message;
    const auto compiled = compile::Compile(*graph, {});
    ASSERT_TRUE(compiled) << compiled.error().message;
    const isa::Program& program = compiled->program;
    EXPECT_TRUE(isa::Verify(program));
    const auto decoded = isa::Decode(isa::Encode(program));
    ASSERT_TRUE(decoded) << decoded.error().message;
    EXPECT_EQ(*decoded, program);
    // All parameters are there, once; what is more fills up blocks, and holds RoPE frequencies.
    int64_t values = 0;
    for (const isa::Buffer& buffer : program.buffers)
      if (buffer.kind == isa::BufferKind::kWeight && buffer.name != "rope.inv_freq")
        values += buffer.rows.size * buffer.cols;
    EXPECT_EQ(values, program.FactOr("parameters", 0));
    EXPECT_NEAR(static_cast<double>(values), static_cast<double>(model.parameters),
                0.01 * static_cast<double>(model.parameters));
    const import::Qwen3Config& config = model.config;
    EXPECT_EQ(device::KvPageBytes(program),
              config.layers * 2 * isa::kPagePositions * config.kv_heads * config.head_dim * 2);
  }
}

class Shape : public testing::TestWithParam<std::string> {};

TEST_P(Shape, IsThatOfTheWeights) {
  auto folder = import::OpenHfFolder(std::filesystem::path(MILLPOWER_SOURCE_DIR) / "tests/golden" /
                                     GetParam());
  ASSERT_TRUE(folder) << folder.error().message;
  const auto with_weights = folder->BuildGraph();
  const auto without = import::BuildQwen3Graph(folder->config);
  ASSERT_TRUE(with_weights && without);
  for (const compile::Options& options :
       {compile::Options{},
        compile::Options{.weight_type = DType::kBf16, .kv_type = DType::kF32}}) {
    const auto a = compile::Compile(*with_weights, options);
    const auto b = compile::Compile(*without, options);
    ASSERT_TRUE(a && b);
    EXPECT_EQ(isa::Print(a->program), isa::Print(b->program));
    EXPECT_EQ(isa::Encode(a->program), isa::Encode(b->program));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Shape,
                         testing::Values("tiny-tied", "tiny-untied-bf16", "tiny-yarn", "tiny-f16",
                                         "tiny-bias", "tiny-moe", "tiny-moe-fused",
                                         "tiny-moe-sparse"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace millpower
