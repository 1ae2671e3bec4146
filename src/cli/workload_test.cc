#include "cli/workload.h"

#include <gtest/gtest.h>

#include "cli/loader.h"

namespace millpower::cli {
namespace {

Workload WorkloadOfShape(const std::string& name, DType weights) {
  LoadOptions options;
  options.compile = {.weight_type = weights, .kv_type = DType::kBf16};
  const auto model = ImportShape(name, options);
  EXPECT_TRUE(model) << model.error().message;
  return model ? WorkloadOf(model->compiled.program) : Workload{};
}

TEST(Workload, OfADenseModel) {
  // Qwen3-0.6B: 28 layers of 1024 x (4096 qkv + 2048 o + 3 * 3072 mlp) values, a head of 151,936.
  const double layers = 28.0 * 1024 * (4096 + 2048 + 3 * 3072), head = 1024.0 * 151936;
  const Workload work = WorkloadOfShape("qwen3-0.6b", DType::kBf16);
  EXPECT_EQ(work.float_ops, 2 * layers);
  EXPECT_EQ(work.int8_ops, 0);
  EXPECT_EQ(work.head_ops, 2 * head);
  EXPECT_EQ(work.step_weight_bytes, 2 * (layers + head));
  EXPECT_EQ(work.kv_bytes_per_position, 114688);
}

TEST(Workload, BlocksAreMultipliedAsIntegers) {
  const Workload work = WorkloadOfShape("qwen3-0.6b", DType::kQ8_0);
  const double layers = 28.0 * 1024 * (4096 + 2048 + 3 * 3072), head = 1024.0 * 151936;
  EXPECT_EQ(work.float_ops, 0);
  EXPECT_EQ(work.int8_ops, 2 * layers);
  EXPECT_EQ(work.step_weight_bytes, 34.0 / 32 * (layers + head));
}

TEST(Workload, OnlyChosenExpertsCount) {
  // Qwen3-30B-A3B: 8 of 128 experts of 3 * 768 x 2048, the router, q and o of 4096, k and v of 512.
  const double layers = 48.0 * 2048 * (8 * 3 * 768 + 128 + 2 * 4096 + 2 * 512),
               head = 2048.0 * 151936;
  const Workload work = WorkloadOfShape("qwen3-30b-a3b", DType::kBf16);
  EXPECT_EQ(work.float_ops, 2 * layers);
  EXPECT_EQ(work.step_weight_bytes, 2 * (layers + head));
  EXPECT_EQ(work.head_ops, 2 * head);
}

}  // namespace
}  // namespace millpower::cli
