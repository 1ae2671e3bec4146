#include "import/qwen3/published.h"

#include <vector>

namespace millpower::import {
namespace {

// What differs between the sizes. All have heads of 128, and a vocabulary of 151936.
struct Size {
  int64_t layers, hidden_size, intermediate_size, heads, kv_heads;
  bool tied = false;
  int64_t expert_intermediate_size = 0;  // of 128 experts, 8 of which are chosen; 0: dense
};

struct Context {
  int64_t max_positions;
  double rope_theta;
};

// huggingface.co/Qwen/*/blob/main/config.json
constexpr Size k0_6B{28, 1024, 3072, 16, 8, true};
constexpr Size k1_7B{28, 2048, 6144, 16, 8, true};
constexpr Size k4B{36, 2560, 9728, 32, 8, true};
constexpr Size k8B{36, 4096, 12288, 32, 8};
constexpr Size k14B{40, 5120, 17408, 40, 8};
constexpr Size k32B{64, 5120, 25600, 64, 8};
constexpr Size k30BA3B{48, 2048, 6144, 32, 4, false, 768};
constexpr Size k235BA22B{94, 4096, 12288, 64, 4, false, 1536};

constexpr Context k40K{40960, 1e6};
constexpr Context k256K{262144, 5e6};        // the 2507 releases
constexpr Context k256K30BA3B{262144, 1e7};  // of 30B-A3B

Qwen3Config ConfigOf(const Size& size, const Context& context) {
  Qwen3Config config;
  config.vocab_size = 151936;
  config.hidden_size = size.hidden_size;
  config.intermediate_size = size.intermediate_size;
  config.layers = size.layers;
  config.heads = size.heads;
  config.kv_heads = size.kv_heads;
  config.head_dim = 128;
  config.max_positions = context.max_positions;
  config.tie_word_embeddings = size.tied;
  config.rope.theta = context.rope_theta;
  config.eos_token_ids = {151645};  // <|im_end|>
  if (size.expert_intermediate_size > 0) {
    config.experts = 128;
    config.experts_per_token = 8;
    config.expert_intermediate_size = size.expert_intermediate_size;
    config.normalise_experts = true;
  }
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
      {"qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B", 30'532'122'624, ConfigOf(k30BA3B, k40K)},
      {"qwen3-30b-a3b-instruct-2507", "Qwen/Qwen3-30B-A3B-Instruct-2507", 30'532'122'624,
       ConfigOf(k30BA3B, k256K30BA3B)},
      {"qwen3-30b-a3b-thinking-2507", "Qwen/Qwen3-30B-A3B-Thinking-2507", 30'532'122'624,
       ConfigOf(k30BA3B, k256K30BA3B)},
      {"qwen3-235b-a22b", "Qwen/Qwen3-235B-A22B", 235'093'634'560, ConfigOf(k235BA22B, k40K)},
      {"qwen3-235b-a22b-instruct-2507", "Qwen/Qwen3-235B-A22B-Instruct-2507", 235'093'634'560,
       ConfigOf(k235BA22B, k256K)},
      {"qwen3-235b-a22b-thinking-2507", "Qwen/Qwen3-235B-A22B-Thinking-2507", 235'093'634'560,
       ConfigOf(k235BA22B, k256K)},
  };
  return models;
}

const PublishedModel* FindPublishedModel(std::string_view name) {
  for (const PublishedModel& model : PublishedModels())
    if (model.name == name) return &model;
  return nullptr;
}

}  // namespace millpower::import
