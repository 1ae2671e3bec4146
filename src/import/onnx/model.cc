#include "import/onnx/model.h"

#include <limits>
#include <memory>

#include "base/mapped_file.h"
#include "import/onnx/importer.h"
#include "import/onnx/tensors.h"
#include "import/tensor/ports.h"

namespace millpower::import {
Result<TensorModel> ParseOnnx(std::span<const std::byte> bytes, const std::filesystem::path& folder,
                              const TensorOptions& options) {
  auto proto = std::make_unique<onnx::ModelProto>();
  if (bytes.size() > static_cast<size_t>(std::numeric_limits<int>::max()) ||
      !proto->ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    return Fail(ErrorCode::kCorrupt, "is no ONNX file, or is truncated");
  auto tensors = std::make_unique<onnx::Tensors>(std::move(proto), folder);
  onnx::Importer importer(*tensors, options);
  TRY_ASSIGN(TensorBuilder builder, std::move(importer).Import());
  TRY_ASSIGN(TensorBuilder::Built built, std::move(builder).Build());
  TensorModel model;
  model.format = "onnx";
  model.inputs = PortsOf(built.inputs, built.graph);
  model.outputs = PortsOf(built.outputs, built.graph);
  model.graph = std::move(built.graph);
  model.weights = std::move(tensors);
  model.operators = importer.operators();
  model.notes.assign(importer.notes().begin(), importer.notes().end());
  return model;
}

Result<TensorModel> OpenOnnx(const std::filesystem::path& path, const TensorOptions& options) {
  TRY_ASSIGN(const MappedFile file, MappedFile::Open(path));
  const std::filesystem::path folder = path.parent_path();
  auto model = ParseOnnx(file.bytes(), folder.empty() ? "." : folder, options);
  if (!model) return FailAt(path.string(), std::move(model).error());
  return model;
}

}  // namespace millpower::import
