#include "import/qwen3/published.h"

#include <vector>

namespace millpower::import {
namespace {

// What differs between the sizes. All have 8 KV heads of 128, and a vocabulary of 151936.
struct Size {
  int64_t layers, hidden_size, intermediate_size, heads;
  bool tied;
};

struct Context {
  int64_t max_positions;
  double rope_theta;
};

// huggingface.co/Qwen/*/blob/main/config.json
constexpr Size k0_6B{28, 1024, 3072, 16, true};
constexpr Size k1_7B{28, 2048, 6144, 16, true};
constexpr Size k4B{36, 2560, 9728, 32, true};
constexpr Size k8B{36, 4096, 12288, 32, false};
constexpr Size k14B{40, 5120, 17408, 40, false};
constexpr Size k32B{64, 5120, 25600, 64, false};

constexpr Context k40K{40960, 1e6};
constexpr Context k256K{262144, 5e6};  // the 2507 releases

Qwen3Config ConfigOf(const Size& size, const Context& context) {
  Qwen3Config config;
  config.vocab_size = 151936;
  config.hidden_size = size.hidden_size;
  config.intermediate_size = size.intermediate_size;
  config.layers = size.layers;
  config.heads = size.heads;
  config.kv_heads = 8;
  config.head_dim = 128;
  config.max_positions = context.max_positions;
  config.tie_word_embeddings = size.tied;
  config.rope.theta = context.rope_theta;
  config.eos_token_ids = {151645};  // <|im_end|>
  return config;
}

}  // namespace

std::span<const PublishedModel> PublishedModels() {
  static const std::vector<PublishedModel> models = {
      {"qwen3-0.6b", "Qwen/Qwen3-0.6B", 596'049'920, ConfigOf(k0_6B, k40K)},
      {"qwen3-1.7b", "Qwen/Qwen3-1.7B", 1'720'574'976, ConfigOf(k1_7B, k40K)},
      {"qwen3-4b", "Qwen/Qwen3-4B", 4'022'468'096, ConfigOf(k4B, k40K)},
      {"qwen3-4b-instruct-2507", "Qwen/Qwen3-4B-Instruct-2507", 4'022'468'096,
       ConfigOf(k4B, k256K)},
      {"qwen3-4b-thinking-2507", "Qwen/Qwen3-4B-Thinking-2507", 4'022'468'096,
       ConfigOf(k4B, k256K)},
      {"qwen3-8b", "Qwen/Qwen3-8B", 8'190'735'360, ConfigOf(k8B, k40K)},
      {"qwen3-14b", "Qwen/Qwen3-14B", 14'768'307'200, ConfigOf(k14B, k40K)},
      {"qwen3-32b", "Qwen/Qwen3-32B", 32'762'123'264, ConfigOf(k32B, k40K)},
  };
  return models;
}

const PublishedModel* FindPublishedModel(std::string_view name) {
  for (const PublishedModel& model : PublishedModels())
    if (model.name == name) return &model;
  return nullptr;
}

}  // namespace millpower::import
