// From a path to a model of tensors that can run: an .onnx or .pt2 file or a SavedModel, imported,
// compiled and packed now; or a compiled file of one, mapped.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "compile/compile.h"
#include "import/tensor/model.h"
#include "isa/package.h"
#include "ranking/signature.h"

namespace millpower::cli {

struct TensorLoadOptions {
  import::TensorOptions import;  // not of a compiled file, which has its own, as has `compile`
  compile::Options compile;
  int threads = 1;            // for packing
  bool show_progress = true;  // on standard error, when it is a terminal
  isa::Progress on_progress = nullptr;
};

// As `compile` writes it: all but the packed weights.
struct ImportedTensorModel {
  compile::Compiled compiled;
  isa::Texts texts;  // "signature", "source"
  ranking::Signature signature;
  std::unique_ptr<ir::WeightSource> weights;
  std::map<std::string, int64_t> operators;  // of the file
  std::vector<std::string> notes;
  std::string graph_text;
};

Result<ImportedTensorModel> ImportTensorModel(const std::filesystem::path& path,
                                              const TensorLoadOptions& options);

// A Program without weights, which are not touched: of a file that ImportTensorModel or
// LoadTensorModel takes, or of a published recommender's name such as "dcnv2-mlperf".
struct TensorShape {
  std::shared_ptr<const isa::Program> program;
  ranking::Signature signature;
};
Result<TensorShape> LoadTensorShape(const std::string& path_or_name,
                                    const TensorLoadOptions& options);

struct LoadedTensorModel {
  std::string name;  // DefaultModelName of the path
  std::shared_ptr<const isa::Program> program;
  isa::BoundWeights weights;
  ranking::Signature signature;
  std::vector<std::string> notes;
};

// Errors: those of the importers, the compiler and ReadPackage.
Result<LoadedTensorModel> LoadTensorModel(const std::filesystem::path& path,
                                          const TensorLoadOptions& options);

// Whether LoadTensorModel is for this path (rather than LoadModel): by content, for a compiled file
// too. Reads little.
bool IsTensorModelPath(const std::filesystem::path& path);

}  // namespace millpower::cli
