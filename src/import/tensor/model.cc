#include "import/tensor/model.h"

#include <array>
#include <fstream>
#include <string_view>

#include "import/onnx/model.h"
#include "import/tensor/features.h"
#include "import/tensorflow/model.h"
#include "import/torch/model.h"

namespace millpower::import {
namespace {

enum class Kind { kNone, kOnnx, kPt2, kSavedModel };

// A .pt2 file is a zip; ONNX files have no magic number, so that their name must tell.
Kind KindOf(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    return std::filesystem::is_regular_file(path / "saved_model.pb", ignored) ? Kind::kSavedModel
                                                                              : Kind::kNone;
  if (!std::filesystem::is_regular_file(path, ignored)) return Kind::kNone;
  std::array<char, 4> magic{};
  std::ifstream(path, std::ios::binary).read(magic.data(), magic.size());
  if (std::string_view(magic.data(), 4) == std::string_view("PK\x03\x04", 4)) return Kind::kPt2;
  return path.extension() == ".onnx" ? Kind::kOnnx : Kind::kNone;
}

}  // namespace

bool IsTensorModel(const std::filesystem::path& path) { return KindOf(path) != Kind::kNone; }

namespace {

Result<TensorModel> Import(const std::filesystem::path& path, const TensorOptions& options) {
  switch (KindOf(path)) {
    case Kind::kOnnx:
      return OpenOnnx(path, options);
    case Kind::kPt2:
      return OpenPt2(path, options);
    case Kind::kSavedModel:
      return OpenSavedModel(path, options);
    case Kind::kNone:
      break;
  }
  return Fail(
      ErrorCode::kUnsupported,
      path.string() + " is neither an .onnx file, nor a .pt2 file, nor a SavedModel folder");
}

}  // namespace

Result<TensorModel> OpenTensorModel(const std::filesystem::path& path,
                                    const TensorOptions& options) {
  TRY_ASSIGN(TensorModel model, Import(path, options));
  if (const auto applied = ApplyIdPolicies(options.id_policies, model); !applied)
    return FailAt(path.string(), applied.error());
  return model;
}

}  // namespace millpower::import
