// The tensors of a GGUF model, mapped into memory: one file, or the parts of a split one. They are
// found by the names that the graph uses, which are Hugging Face's.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "base/result.h"
#include "import/gguf/format.h"
#include "ir/weights.h"

namespace millpower::import {

// "blk.3.attn_q.weight" is "model.layers.3.self_attn.q_proj.weight"; the experts of a layer are
// "model.layers.3.mlp.experts.gate_proj.weight" and so on, in three dimensions. Absent for names
// that Qwen3 does not have.
std::optional<std::string> HuggingFaceName(const std::string& gguf_name);
std::optional<std::string> GgufName(const std::string& hugging_face_name);

// Immutable and thread-safe. Owns the mappings that its views point into.
class GgufWeights final : public ir::WeightSource {
 public:
  // Reads headers only. Any part of a split model ("NAME-00002-of-00003.gguf") opens all of them.
  // Errors: kNotFound (the file, or another part of it); kCorrupt (see format.h; parts that do not
  // belong together, or not as many tensors as split.tensors.count says); kUnsupported: tensors of
  // types that we do not read, or that Qwen3 does not have, all of them by name.
  static Result<std::unique_ptr<GgufWeights>> Open(const std::filesystem::path& path);

  // By the Hugging Face name. Errors: kNotFound.
  Result<ir::TensorView> Find(const std::string& name) const override;
  void Release(std::span<const std::byte> bytes) const override;

  // Of the file, or of the first part.
  const GgufMetadata& metadata() const { return metadata_; }

 private:
  Result<GgufFile> AddFile(const std::filesystem::path& path);
  Result<void> AddParts(const std::filesystem::path& path, GgufFile first, int64_t parts);
  Result<void> AddTensors(std::map<std::string, GgufTensor> tensors);
  Result<void> CheckTensors() const;

  std::filesystem::path path_;
  std::vector<MappedFile> files_;
  GgufMetadata metadata_;
  std::map<std::string, GgufTensor> tensors_;  // by their own names
};

}  // namespace millpower::import
