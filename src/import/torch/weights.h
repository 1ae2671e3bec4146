// The tensors of a .pt2 file that its graph uses, in the file's mapping where they lie there
// row-major, else in copies.
#pragma once

#include <list>
#include <map>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "base/result.h"
#include "import/tensor/shared_files.h"
#include "import/torch/archive.h"
#include "ir/weights.h"

namespace millpower::import::torch {

// Filled while a graph is built, then immutable and thread-safe.
class Pt2Weights final : public ir::WeightSource {
 public:
  // Owns `file`, opened by OpenCopyOnWrite (which may be empty: the bytes are somebody else's, who
  // keeps them).
  Pt2Weights(MappedFile file, std::span<const std::byte> bytes) : bytes_(bytes) {
    files_->push_back(std::move(file));
  }

  // What had to be inflated to be read.
  void Keep(std::vector<std::vector<std::byte>> inflated) { inflated_ = std::move(inflated); }

  // Makes a tensor known by this name, row-major. Copies come to no more than the file's bytes.
  // Errors: those of RowMajor; kUnsupported: more copies than that.
  Result<ir::TensorView> Add(const std::string& name, const StridedTensor& tensor);

  Result<ir::TensorView> Find(const std::string& name) const override;
  void Release(std::span<const std::byte> bytes) const override;
  std::optional<Shared> Share(std::span<const std::byte> bytes) const override {
    return ShareOf(files_, bytes);
  }

 private:
  SharedFiles files_ = std::make_shared<std::vector<MappedFile>>();
  std::span<const std::byte> bytes_;
  std::vector<std::vector<std::byte>> inflated_;
  std::list<std::vector<std::byte>> copies_;
  size_t copied_bytes_ = 0;
  std::map<std::string, ir::TensorView> tensors_;
};

}  // namespace millpower::import::torch
