// Constants of a graph: TensorFlow's TensorProto as elements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "import/tensorflow/saved_model.pb.h"

namespace millpower::import {

// Numbers of types in the schema (tensorflow/core/framework/types.proto).
inline constexpr int kTypeString = 7;
// Absent for what is not a type of elements here: strings, resources, complex and quantised types.
std::optional<DType> DTypeOf(int type);
std::string TypeName(int type);  // "DT_FLOAT"

// Sizes that are all known. Errors: kCorrupt for negative sizes and products beyond 2^56;
// kUnsupported for more than 8 dimensions.
Result<std::vector<int64_t>> ConstantShape(const tensorflow::Shape& shape);
Result<int64_t> ElementCount(const std::vector<int64_t>& shape);

struct Literal {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  // Row-major; a single element when all are alike (`uniform`).
  std::vector<std::byte> bytes;
  bool uniform = false;
};

// Errors: kCorrupt when there are more elements or bytes than the shape has; kUnsupported for
// types that are not of elements, and lists whose last value stands for most of the tensor.
Result<Literal> ReadLiteral(const tensorflow::TensorProto& proto);

struct StringLiteral {
  std::vector<int64_t> shape;
  std::vector<std::string> values;
  // Of the name of a file: which one it stands for. Set by who knows the model's assets.
  std::optional<std::filesystem::path> asset = std::nullopt;
};
// Of DT_STRING. Errors: as above.
Result<StringLiteral> ReadStrings(const tensorflow::TensorProto& proto);

}  // namespace millpower::import
