#include "import/torch/strided.h"

#include <algorithm>
#include <cstring>

#include "ir/graph.h"

namespace millpower::import::torch {
namespace {

struct ScalarType {
  int64_t number;
  const char* name;
  std::optional<DType> dtype;
};

// torch/_export/serde/schema.py, ScalarType.
constexpr ScalarType kScalarTypes[] = {
    {1, "uint8", DType::kU8},       {2, "int8", DType::kI8},     {3, "int16", DType::kI16},
    {4, "int32", DType::kI32},      {5, "int64", DType::kI64},   {6, "float16", DType::kF16},
    {7, "float32", DType::kF32},    {8, "float64", DType::kF64}, {9, "complex32", {}},
    {10, "complex64", {}},          {11, "complex128", {}},      {12, "bool", DType::kBool},
    {13, "bfloat16", DType::kBf16}, {28, "uint16", DType::kU16}, {29, "float8_e4m3fn", {}},
    {30, "float8_e5m2", {}},        {31, "float8_e4m3fnuz", {}}, {32, "float8_e5m2fnuz", {}},
    {33, "float8_e8m0fnu", {}},     {34, "uint32", DType::kU32}, {35, "uint64", DType::kU64},
};

const ScalarType* Find(int64_t number) {
  const auto* found = std::ranges::find(kScalarTypes, number, &ScalarType::number);
  return found == std::end(kScalarTypes) ? nullptr : found;
}

bool IsRowMajor(const StridedTensor& tensor) {
  int64_t expected = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
    expected *= tensor.shape[i];
  }
  return true;
}

struct Extent {
  int64_t elements = 1;
  int64_t last = 0;  // place of the last element, in elements
};

// Absent on overflow, or when a size, stride or the offset is not what it may be.
std::optional<Extent> ExtentOf(const StridedTensor& tensor) {
  if (tensor.strides.size() != tensor.shape.size() || tensor.offset < 0) return std::nullopt;
  Extent extent{1, tensor.offset};
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    if (tensor.shape[i] < 0 || tensor.strides[i] < 0) return std::nullopt;
    if (__builtin_mul_overflow(extent.elements, tensor.shape[i], &extent.elements))
      return std::nullopt;
  }
  if (extent.elements == 0) return extent;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    int64_t reach = 0;
    if (__builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &reach) ||
        __builtin_add_overflow(extent.last, reach, &extent.last))
      return std::nullopt;
  }
  return extent;
}

std::vector<std::byte> Gather(const StridedTensor& tensor, int64_t elements, size_t width) {
  std::vector<std::byte> bytes(static_cast<size_t>(elements) * width);
  std::vector<int64_t> at(tensor.shape.size());
  int64_t place = tensor.offset;
  for (size_t i = 0; i < bytes.size(); i += width) {
    std::memcpy(bytes.data() + i, tensor.storage.data() + static_cast<size_t>(place) * width,
                width);
    for (size_t d = at.size(); d-- > 0;) {
      place += tensor.strides[d];
      if (++at[d] < tensor.shape[d]) break;
      place -= tensor.strides[d] * tensor.shape[d];
      at[d] = 0;
    }
  }
  return bytes;
}

}  // namespace

std::optional<DType> DTypeOfScalarType(int64_t scalar_type) {
  const ScalarType* found = Find(scalar_type);
  return found != nullptr ? found->dtype : std::nullopt;
}

std::string ScalarTypeName(int64_t scalar_type) {
  const ScalarType* found = Find(scalar_type);
  return found != nullptr ? found->name : "scalar type " + std::to_string(scalar_type);
}

Result<ir::TensorView> RowMajor(const StridedTensor& tensor, std::vector<std::byte>& copy) {
  if (!tensor.dtype) return Fail(ErrorCode::kUnsupported, "is of type " + tensor.dtype_name);
  if (tensor.shape.size() > ir::kMaxRank)
    return Fail(ErrorCode::kUnsupported, "has more than 8 dimensions");
  const auto width = static_cast<size_t>(SizeBytes(*tensor.dtype));
  const auto capacity = static_cast<int64_t>(tensor.storage.size() / width);
  const std::optional<Extent> extent = ExtentOf(tensor);
  if (!extent) return Fail(ErrorCode::kCorrupt, "has sizes or strides that cannot be");
  if (extent->elements > 0 && extent->last >= capacity)
    return Fail(ErrorCode::kCorrupt,
                "reaches past its storage of " + std::to_string(tensor.storage.size()) + " bytes");
  if (extent->elements == 0) return ir::TensorView{*tensor.dtype, tensor.shape, {}};
  if (IsRowMajor(tensor))
    return ir::TensorView{*tensor.dtype, tensor.shape,
                          tensor.storage.subspan(static_cast<size_t>(tensor.offset) * width,
                                                 static_cast<size_t>(extent->elements) * width)};
  if (extent->elements > capacity)
    return Fail(ErrorCode::kUnsupported, "is broadcast by its strides");
  copy = Gather(tensor, extent->elements, width);
  return ir::TensorView{*tensor.dtype, tensor.shape, copy};
}

}  // namespace millpower::import::torch
