#include "import/gguf/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "import/gguf/fields.h"

namespace millpower::import {
namespace {

namespace fs = std::filesystem;

// llama.cpp's names (gguf-py/gguf/constants.py, TENSOR_NAMES) and Hugging Face's.
struct Names {
  std::string_view gguf;
  std::string_view hugging_face;
};
constexpr Names kModelNames[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
};
// Of a layer: after "blk.N." and "model.layers.N.".
constexpr Names kLayerNames[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"ffn_gate_inp", "mlp.gate"},
    {"ffn_gate_exps", "mlp.experts.gate_proj"},
    {"ffn_up_exps", "mlp.experts.up_proj"},
    {"ffn_down_exps", "mlp.experts.down_proj"},
};
constexpr Names kLayerPrefix = {"blk.", "model.layers."};
using Side = std::string_view Names::*;

// "PREFIX N . STEM .weight" with the names of the other side; bias likewise.
std::optional<std::string> Translate(std::string_view name, Side from, Side to) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const std::string_view kind = name.substr(dot);
  if (kind != ".weight" && kind != ".bias") return std::nullopt;
  std::string_view stem = name.substr(0, dot);
  std::string prefix;
  std::span<const Names> table = kModelNames;
  if (stem.starts_with(kLayerPrefix.*from)) {
    stem.remove_prefix((kLayerPrefix.*from).size());
    const size_t end = stem.find('.');
    if (end == std::string_view::npos || end == 0 || end > 4 ||
        !std::ranges::all_of(stem.substr(0, end), [](char c) { return c >= '0' && c <= '9'; }))
      return std::nullopt;
    prefix = fmt::format("{}{}.", kLayerPrefix.*to, stem.substr(0, end));
    stem.remove_prefix(end + 1);
    table = kLayerNames;
  }
  for (const Names& names : table)
    if (names.*from == stem) return fmt::format("{}{}{}", prefix, names.*to, kind);
  return std::nullopt;
}

constexpr size_t kNamed = 8;

// "a, b, c and 5 more"
std::string Listed(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kNamed); ++i)
    text += (i == 0 ? "" : ", ") + names[i];
  return names.size() > kNamed ? fmt::format("{} and {} more", text, names.size() - kNamed) : text;
}

constexpr int64_t kMaxParts = 99999;

std::string PartName(std::string_view stem, int64_t part, int64_t parts) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", stem, part + 1, parts);
}

// NAME of "NAME-00002-of-00003.gguf" for part 1 of 3; absent for a file that is named otherwise.
std::optional<std::string> StemOf(const std::string& file, int64_t part, int64_t parts) {
  const std::string end = PartName("", part, parts);
  if (!file.ends_with(end)) return std::nullopt;
  return file.substr(0, file.size() - end.size());
}

std::unexpected<Error> FailPart(const fs::path& path, const std::string& message) {
  return Fail(ErrorCode::kCorrupt, path.string() + ": " + message);
}

}  // namespace

std::optional<std::string> HuggingFaceName(const std::string& gguf_name) {
  return Translate(gguf_name, &Names::gguf, &Names::hugging_face);
}

std::optional<std::string> GgufName(const std::string& hugging_face_name) {
  return Translate(hugging_face_name, &Names::hugging_face, &Names::gguf);
}

Result<std::unique_ptr<GgufWeights>> GgufWeights::Open(const fs::path& path) {
  auto weights = std::make_unique<GgufWeights>();
  weights->path_ = path;
  TRY_ASSIGN(GgufFile file, weights->AddFile(path));
  auto parts = GgufFields(file.metadata).Integer("split.count", 1);
  if (!parts) return FailAt(path.string(), std::move(parts).error());
  if (*parts > 1) {
    TRY(weights->AddParts(path, std::move(file), *parts));
  } else {
    weights->metadata_ = std::move(file.metadata);
    TRY(weights->AddTensors(std::move(file.tensors)));
  }
  if (const auto checked = weights->CheckTensors(); !checked)
    return FailAt(path.string(), checked.error());
  return weights;
}

Result<GgufFile> GgufWeights::AddFile(const fs::path& path) {
  TRY_ASSIGN(MappedFile mapped, MappedFile::Open(path));
  auto file = ParseGguf(mapped.bytes());
  if (!file) return FailAt(path.string(), std::move(file).error());
  files_.push_back(std::move(mapped));
  return file;
}

// llama.cpp (llama_split_path) numbers the parts from 1 in their names, from 0 in split.no.
Result<void> GgufWeights::AddParts(const fs::path& path, GgufFile first, int64_t parts) {
  if (parts > kMaxParts)
    return FailPart(path, fmt::format("split.count is {}, above {}", parts, kMaxParts));
  const auto part_of = [](const GgufFile& file) {
    return GgufFields(file.metadata).Integer("split.no");
  };
  auto opened = part_of(first);
  if (!opened) return FailAt(path.string(), std::move(opened).error());
  if (*opened < 0 || *opened >= parts)
    return FailPart(path, fmt::format("split.no is {}, of {} parts", *opened, parts));
  const std::string name = path.filename().string();
  const auto stem = StemOf(name, *opened, parts);
  if (!stem)
    return FailPart(path, fmt::format("is part {} of {} and is not named so; expected a name that "
                                      "ends in {}",
                                      *opened + 1, parts, PartName("", *opened, parts)));
  std::optional<int64_t> tensors;
  for (int64_t part = 0; part < parts; ++part) {
    const fs::path part_path = path.parent_path() / PartName(*stem, part, parts);
    GgufFile file;
    if (part == *opened) {
      file = std::move(first);
    } else {
      TRY_ASSIGN(file, AddFile(part_path));
    }
    const GgufFields fields(file.metadata);
    const auto number = fields.Integer("split.no");
    const auto count = fields.Integer("split.count");
    if (!number || *number != part || !count || *count != parts)
      return FailPart(part_path, fmt::format("does not say that it is part {} of {} (split.no, "
                                             "split.count)",
                                             part + 1, parts));
    if (part == 0) {
      auto total = fields.Integer("split.tensors.count");
      if (!total) return FailAt(part_path.string(), std::move(total).error());
      tensors = *total;
      metadata_ = std::move(file.metadata);
    }
    TRY(AddTensors(std::move(file.tensors)));
  }
  if (static_cast<int64_t>(tensors_.size()) != tensors)
    return FailPart(path, fmt::format("all parts have {} tensors, not {} (split.tensors.count)",
                                      tensors_.size(), *tensors));
  return {};
}

Result<void> GgufWeights::AddTensors(std::map<std::string, GgufTensor> tensors) {
  for (auto& [name, tensor] : tensors)
    if (!tensors_.emplace(name, std::move(tensor)).second)
      return FailPart(path_, "tensor '" + name + "' is in two parts");
  return {};
}

Result<void> GgufWeights::CheckTensors() const {
  std::map<std::string, int64_t> types;
  std::vector<std::string> unknown;
  for (const auto& [name, tensor] : tensors_) {
    if (!tensor.dtype) ++types[tensor.type_name];
    if (!HuggingFaceName(name)) unknown.push_back("'" + name + "'");
  }
  if (!types.empty()) {
    std::string text;
    for (const auto& [type, count] : types)
      text += fmt::format("{}{} ({} tensors)", text.empty() ? "" : ", ", type, count);
    return Fail(ErrorCode::kUnsupported,
                "tensors of types that are not read: " + text +
                    "; read are F32, F16, BF16, Q8_0, Q4_0, Q4_K and Q6_K");
  }
  if (unknown.empty()) return {};
  return Fail(ErrorCode::kUnsupported, "tensors that Qwen3 does not have: " + Listed(unknown));
}

Result<ir::TensorView> GgufWeights::Find(const std::string& name) const {
  const std::string own = GgufName(name).value_or(name);
  const auto found = tensors_.find(own);
  if (found == tensors_.end())
    return Fail(ErrorCode::kNotFound, "no tensor '" + own + "' in " + path_.string());
  return ir::TensorView{*found->second.dtype, found->second.shape, found->second.bytes};
}

void GgufWeights::Release(std::span<const std::byte> bytes) const { DropResident(files_, bytes); }

}  // namespace millpower::import
