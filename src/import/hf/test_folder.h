// Model folders for tests, written and removed again.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "import/qwen3/graph.h"

namespace millpower::import {

class TestFolder {
 public:
  TestFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "import_test.XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  void Remove(const std::string& name) const { std::filesystem::remove(path_ / name); }

 private:
  std::filesystem::path path_;
};

// A safetensors file of any header, sound or not.
inline std::string SafetensorsFile(const std::string& header, size_t data_bytes) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>((uint64_t{header.size()} >> (8 * i)) & 255);
  return file + header + std::string(data_bytes, '\0');
}

// A sound one, of the given tensors, all BF16 zeros.
inline std::string SafetensorsFile(const std::map<std::string, std::vector<int64_t>>& tensors) {
  Json header = Json::object();
  int64_t end = 0;
  for (const auto& [name, shape] : tensors) {
    const int64_t begin = end;
    int64_t bytes = 2;
    for (const int64_t dim : shape) bytes *= dim;
    end += bytes;
    header[name] = {{"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {begin, end}}};
  }
  return SafetensorsFile(DumpJson(header), static_cast<size_t>(end));
}

// The tensors that a model's folder has to have; with experts, one for each projection of all.
inline std::map<std::string, std::vector<int64_t>> TensorsOf(const ir::Graph& graph) {
  std::map<std::string, std::vector<int64_t>> tensors;
  for (const ir::Value& value : graph.values()) {
    if (value.kind != ir::ValueKind::kWeight || !value.values.empty()) continue;
    for (const ir::Dim& dim : value.shape) tensors[value.name].push_back(dim.size);
  }
  return tensors;
}

// Tensors of any type, without bytes.
class ShapesOnly final : public ir::WeightSource {
 public:
  explicit ShapesOnly(std::map<std::string, std::vector<int64_t>> tensors,
                      DType dtype = DType::kBf16)
      : tensors_(std::move(tensors)), dtype_(dtype) {}
  Result<ir::TensorView> Find(const std::string& name) const override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return Fail(ErrorCode::kNotFound, "no tensor '" + name + "'");
    const auto odd = odd_types.find(name);
    return ir::TensorView{odd == odd_types.end() ? dtype_ : odd->second, found->second, {}};
  }
  void Release(std::span<const std::byte>) const override {}

  std::map<std::string, DType> odd_types;

 private:
  std::map<std::string, std::vector<int64_t>> tensors_;
  DType dtype_;
};

// config.json of a small model, to be varied.
inline Json SmallConfig() {
  return Json::parse(R"({
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 96,
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "hidden_act": "silu", "max_position_embeddings": 640,
    "rms_norm_eps": 1e-06, "rope_theta": 1000000, "rope_scaling": null, "attention_bias": false,
    "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_sliding_window": false,
    "sliding_window": null, "eos_token_id": 7, "transformers_version": "4.51.0"})");
}

// The same with 4 experts, 2 of which are chosen.
inline Json SmallMoeConfig() {
  Json config = SmallConfig();
  config.update(Json::parse(R"({
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": true,
    "decoder_sparse_step": 1, "mlp_only_layers": []})"));
  return config;
}

}  // namespace millpower::import
