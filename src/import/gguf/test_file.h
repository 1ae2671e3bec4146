// GGUF files for tests, sound or not.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "import/gguf/format.h"
#include "import/hf/test_folder.h"

namespace millpower::import {

template <typename T>
std::string BytesOf(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}
inline std::string BytesOf(const std::string& text) {
  return BytesOf(uint64_t{text.size()}) + text;
}

// A file put together from its parts, each of which a test may spoil.
class GgufBuilder {
 public:
  struct Tensor {
    uint32_t type = 0;
    std::vector<int64_t> shape;  // outermost first
    uint64_t size_bytes = 0;
    std::optional<uint64_t> offset = std::nullopt;  // instead of the next free one
  };

  uint32_t version = 3;
  std::optional<uint64_t> tensor_count, entry_count;  // instead of the true ones
  uint64_t alignment = 32;
  std::vector<std::pair<std::string, std::string>> entries;  // key, type and value
  std::vector<std::pair<std::string, Tensor>> tensors;

  GgufBuilder& Set(const std::string& key, uint32_t value) {
    return Put(key, BytesOf(uint32_t{4}) + BytesOf(value));
  }
  GgufBuilder& Set(const std::string& key, float value) {
    return Put(key, BytesOf(uint32_t{6}) + BytesOf(value));
  }
  GgufBuilder& Set(const std::string& key, bool value) {
    return Put(key, BytesOf(uint32_t{7}) + BytesOf(uint8_t{value}));
  }
  GgufBuilder& Set(const std::string& key, const std::string& value) {
    return Put(key, BytesOf(uint32_t{8}) + BytesOf(value));
  }
  GgufBuilder& Set(const std::string& key, const char* value) {
    return Set(key, std::string(value));
  }
  GgufBuilder& Set(const std::string& key, const std::vector<std::string>& values) {
    std::string bytes =
        BytesOf(uint32_t{9}) + BytesOf(uint32_t{8}) + BytesOf(uint64_t{values.size()});
    for (const std::string& value : values) bytes += BytesOf(value);
    return Put(key, bytes);
  }
  GgufBuilder& Set(const std::string& key, const std::vector<int32_t>& values) {
    std::string bytes =
        BytesOf(uint32_t{9}) + BytesOf(uint32_t{5}) + BytesOf(uint64_t{values.size()});
    for (const int32_t value : values) bytes += BytesOf(value);
    return Put(key, bytes);
  }
  // Type and value as bytes.
  GgufBuilder& Put(const std::string& key, std::string bytes) {
    for (auto& entry : entries)
      if (entry.first == key) {
        entry.second = std::move(bytes);
        return *this;
      }
    entries.emplace_back(key, std::move(bytes));
    return *this;
  }
  GgufBuilder& Erase(const std::string& key) {
    std::erase_if(entries, [&](const auto& entry) { return entry.first == key; });
    return *this;
  }

  // Zeros. `number` is ggml's of the type.
  GgufBuilder& Add(const std::string& name, uint32_t number, std::vector<int64_t> shape,
                   DType sized_as) {
    int64_t values = 1;
    for (const int64_t size : shape) values *= size;
    const int64_t bytes = values / BlockSize(sized_as) * BlockBytes(sized_as);
    tensors.push_back({name, {number, std::move(shape), static_cast<uint64_t>(bytes)}});
    return *this;
  }
  Tensor& At(const std::string& name) {
    for (auto& [own, tensor] : tensors)
      if (own == name) return tensor;
    return tensors.emplace_back(name, Tensor{}).second;
  }

  std::string Build() const {
    std::string file = "GGUF" + BytesOf(version) + BytesOf(tensor_count.value_or(tensors.size())) +
                       BytesOf(entry_count.value_or(entries.size()));
    for (const auto& [key, bytes] : entries) file += BytesOf(key) + bytes;
    uint64_t offset = 0;
    for (const auto& [name, tensor] : tensors) {
      file += BytesOf(name) + BytesOf(static_cast<uint32_t>(tensor.shape.size()));
      for (size_t i = tensor.shape.size(); i-- > 0;) file += BytesOf(tensor.shape[i]);
      file += BytesOf(tensor.type) + BytesOf(tensor.offset.value_or(offset));
      offset += Aligned(tensor.size_bytes);
    }
    file.resize(Aligned(file.size()));
    return file + std::string(offset, '\0');
  }

 private:
  uint64_t Aligned(uint64_t size) const { return (size + alignment - 1) / alignment * alignment; }
};

inline constexpr uint32_t kGgmlF32 = 0, kGgmlF16 = 1, kGgmlQ4_0 = 2, kGgmlQ8_0 = 8, kGgmlQ5_K = 13,
                          kGgmlBf16 = 30;

// The small model of SmallConfig, or of SmallMoeConfig, as llama.cpp would convert it: matrices in
// Q8_0 where their rows allow it, else BF16. 96 tokens: 3 normal, 2 added, the rest unused.
inline GgufBuilder SmallGguf(bool experts = false) {
  GgufBuilder file;
  const std::string arch = experts ? "qwen3moe" : "qwen3";
  file.Set("general.architecture", arch);
  file.Set(arch + ".block_count", 2u).Set(arch + ".context_length", 640u);
  file.Set(arch + ".embedding_length", 32u).Set(arch + ".feed_forward_length", 48u);
  file.Set(arch + ".attention.head_count", 4u).Set(arch + ".attention.head_count_kv", 2u);
  file.Set(arch + ".attention.key_length", 16u).Set(arch + ".attention.value_length", 16u);
  file.Set(arch + ".attention.layer_norm_rms_epsilon", 1e-6f);
  file.Set(arch + ".rope.freq_base", 1e6f);
  if (experts) {
    file.Set(arch + ".expert_count", 4u).Set(arch + ".expert_used_count", 2u);
    file.Set(arch + ".expert_feed_forward_length", 24u);
  }
  std::vector<std::string> tokens = {"a", "b", "ab", "<|im_end|>", "<think>"};
  std::vector<int32_t> types = {1, 1, 1, 3, 4};
  for (int i = 5; i < 96; ++i) {
    tokens.push_back("[PAD" + std::to_string(i) + "]");
    types.push_back(5);
  }
  file.Set("tokenizer.ggml.model", "gpt2").Set("tokenizer.ggml.pre", "qwen2");
  file.Set("tokenizer.ggml.tokens", tokens).Set("tokenizer.ggml.token_type", types);
  file.Set("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
  file.Set("tokenizer.ggml.eos_token_id", 3u).Set("tokenizer.ggml.add_bos_token", false);
  file.Set("tokenizer.chat_template", "{#- millpower: qwen3 chat format -#}");

  const auto matrix = [&](const std::string& name, std::vector<int64_t> shape) {
    const bool blocks = shape.back() % 32 == 0;
    file.Add(name + ".weight", blocks ? kGgmlQ8_0 : kGgmlBf16, std::move(shape),
             blocks ? DType::kQ8_0 : DType::kBf16);
  };
  const auto norm = [&](const std::string& name, int64_t size) {
    file.Add(name + ".weight", kGgmlF32, {size}, DType::kF32);
  };
  matrix("token_embd", {96, 32});
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    norm(layer + "attn_norm", 32);
    matrix(layer + "attn_q", {64, 32});
    matrix(layer + "attn_k", {32, 32});
    matrix(layer + "attn_v", {32, 32});
    norm(layer + "attn_q_norm", 16);
    norm(layer + "attn_k_norm", 16);
    matrix(layer + "attn_output", {32, 64});
    norm(layer + "ffn_norm", 32);
    if (experts) {
      file.Add(layer + "ffn_gate_inp.weight", kGgmlF32, {4, 32}, DType::kF32);
      matrix(layer + "ffn_gate_exps", {4, 24, 32});
      matrix(layer + "ffn_up_exps", {4, 24, 32});
      matrix(layer + "ffn_down_exps", {4, 32, 24});
    } else {
      matrix(layer + "ffn_gate", {48, 32});
      matrix(layer + "ffn_up", {48, 32});
      matrix(layer + "ffn_down", {32, 48});
    }
  }
  norm("output_norm", 32);
  return file;
}

}  // namespace millpower::import
