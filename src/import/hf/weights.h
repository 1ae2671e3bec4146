// The tensors of a Hugging Face model folder, mapped into memory: one model.safetensors, or the
// shards that model.safetensors.index.json names.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "base/result.h"
#include "import/hf/safetensors.h"
#include "ir/weights.h"

namespace millpower::import {

// Immutable and thread-safe. Owns the mappings that its views point into.
class HfWeights final : public ir::WeightSource {
 public:
  // Reads headers only. With both forms in the folder, the single file is taken, as transformers
  // does.
  // Errors: kNotFound (neither form, or a shard is missing); kUnsupported (only pickles, such as
  // pytorch_model.bin); kCorrupt (see safetensors.h; an index that names a tensor its shard does
  // not have, or a shard outside of the folder).
  static Result<std::unique_ptr<HfWeights>> Open(const std::filesystem::path& folder);

  // Errors: kNotFound; kUnsupported for a type other than F32, F16 and BF16.
  Result<ir::TensorView> Find(const std::string& name) const override;
  void Release(std::span<const std::byte> bytes) const override;

  size_t tensor_count() const { return tensors_.size(); }

 private:
  struct Tensor {
    size_t file = 0;
    SafetensorsEntry entry;
  };

  Result<SafetensorsTable> AddFile(const std::filesystem::path& path);
  Result<void> AddShards(const std::filesystem::path& folder,
                         const std::filesystem::path& index_path);

  std::filesystem::path folder_;
  std::vector<MappedFile> files_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace millpower::import
