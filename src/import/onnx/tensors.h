// The constants of an ONNX file: initialisers and attributes, in the file or beside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/mapped_file.h"
#include "base/result.h"
#include "import/onnx/onnx.pb.h"
#include "import/tensor/shared_files.h"
#include "ir/weights.h"

namespace millpower::import::onnx {

// TensorProto.DataType. The element type, absent for those that are not supported.
std::optional<DType> ElementType(int32_t data_type);
// "FLOAT8E4M3FN", or "type 99".
std::string TypeName(int32_t data_type);
inline constexpr int32_t kStringType = 8;

// Elements of a shape; absent when a dimension is negative or there are more than 2^40.
std::optional<int64_t> ElementsOf(std::span<const int64_t> dims);

// Owns the parsed file, and what it names beside itself. Find is thread-safe; Read is not.
class Tensors final : public ir::WeightSource {
 public:
  // `folder`: where external data may lie; empty: nowhere.
  Tensors(std::unique_ptr<ModelProto> model, std::filesystem::path folder)
      : model_(std::move(model)), folder_(std::move(folder)) {}

  const ModelProto& model() const { return *model_; }

  // A tensor of model(); its bytes live as long as this. Errors: kUnsupported for its type,
  // kCorrupt when it does not hold what its shape promises, or names data outside of its folder;
  // kNotFound and kIo of its file.
  Result<ir::TensorView> Read(const TensorProto& tensor);
  // Gives a tensor to Find, under the name that is returned: its own, or one that is like it.
  std::string Publish(const std::string& name, ir::TensorView view);

  Result<ir::TensorView> Find(const std::string& name) const override;
  void Release(std::span<const std::byte> bytes) const override { DropResident(*files_, bytes); }
  std::optional<Shared> Share(std::span<const std::byte> bytes) const override {
    return ShareOf(files_, bytes);
  }

 private:
  Result<std::span<const std::byte>> ReadExternal(const TensorProto& tensor, size_t size_bytes);
  Result<std::span<const std::byte>> FileNamed(const std::string& location);

  std::unique_ptr<ModelProto> model_;
  std::filesystem::path folder_;
  SharedFiles files_ = std::make_shared<std::vector<MappedFile>>();
  std::map<std::string, size_t> file_numbers_;  // by location, into files_
  std::map<const TensorProto*, std::vector<std::byte>> decoded_;
  std::map<std::string, ir::TensorView> published_;
};

}  // namespace millpower::import::onnx
