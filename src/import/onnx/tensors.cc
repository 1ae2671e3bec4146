#include "import/onnx/tensors.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>

namespace millpower::import::onnx {
namespace {

namespace fs = std::filesystem;

struct TypeInfo {
  const char* name;
  std::optional<DType> dtype;
};
// In the order of TensorProto.DataType.
constexpr TypeInfo kTypes[] = {
    {"UNDEFINED", {}},
    {"FLOAT", DType::kF32},
    {"UINT8", DType::kU8},
    {"INT8", DType::kI8},
    {"UINT16", DType::kU16},
    {"INT16", DType::kI16},
    {"INT32", DType::kI32},
    {"INT64", DType::kI64},
    {"STRING", {}},
    {"BOOL", DType::kBool},
    {"FLOAT16", DType::kF16},
    {"DOUBLE", DType::kF64},
    {"UINT32", DType::kU32},
    {"UINT64", DType::kU64},
    {"COMPLEX64", {}},
    {"COMPLEX128", {}},
    {"BFLOAT16", DType::kBf16},
    {"FLOAT8E4M3FN", {}},
    {"FLOAT8E4M3FNUZ", {}},
    {"FLOAT8E5M2", {}},
    {"FLOAT8E5M2FNUZ", {}},
    {"UINT4", {}},
    {"INT4", {}},
    {"FLOAT4E2M1", {}},
    {"FLOAT8E8M0", {}},
    {"UINT2", {}},
    {"INT2", {}},
};
constexpr auto kTypeCount = static_cast<int32_t>(std::size(kTypes));

std::unexpected<Error> Corrupt(std::string message) {
  return Fail(ErrorCode::kCorrupt, std::move(message));
}

template <typename T, typename List>
std::vector<std::byte> Narrow(const List& list) {
  std::vector<std::byte> bytes(sizeof(T) * static_cast<size_t>(list.size()));
  for (int i = 0; i < list.size(); ++i) {
    const auto value = static_cast<T>(list[i]);
    std::memcpy(bytes.data() + sizeof(T) * static_cast<size_t>(i), &value, sizeof(T));
  }
  return bytes;
}

// The typed field that holds elements of this type.
std::vector<std::byte> Decode(const TensorProto& tensor, DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return Narrow<float>(tensor.float_data());
    case DType::kF64:
      return Narrow<double>(tensor.double_data());
    case DType::kI64:
      return Narrow<int64_t>(tensor.int64_data());
    case DType::kU64:
      return Narrow<uint64_t>(tensor.uint64_data());
    case DType::kU32:
      return Narrow<uint32_t>(tensor.uint64_data());
    case DType::kI32:
      return Narrow<int32_t>(tensor.int32_data());
    case DType::kI16:
    case DType::kU16:
    case DType::kF16:
    case DType::kBf16:
      return Narrow<uint16_t>(tensor.int32_data());
    case DType::kBool:
      return Narrow<bool>(tensor.int32_data());
    default:
      return Narrow<uint8_t>(tensor.int32_data());
  }
}

std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::optional<uint64_t> ParseUnsigned(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// A relative path that goes down only.
bool IsInside(const fs::path& path) {
  if (path.empty() || path.is_absolute() || path.string().find('\0') != std::string::npos ||
      path.string().find('\\') != std::string::npos)
    return false;
  for (const fs::path& part : path)
    if (part == ".." || part.empty()) return false;
  return true;
}

// No part of `location` below `folder` is a symbolic link, which could lead out of it.
Result<void> ExpectNoLink(const fs::path& folder, const fs::path& location) {
  fs::path path = folder;
  for (const fs::path& part : location) {
    path /= part;
    std::error_code error;
    if (fs::is_symlink(fs::symlink_status(path, error)))
      return Corrupt(path.string() + " is a symbolic link, which external data may not be");
  }
  return {};
}

}  // namespace

std::optional<DType> ElementType(int32_t data_type) {
  if (data_type < 0 || data_type >= kTypeCount) return std::nullopt;
  return kTypes[data_type].dtype;
}

std::string TypeName(int32_t data_type) {
  if (data_type < 0 || data_type >= kTypeCount) return fmt::format("type {}", data_type);
  return kTypes[data_type].name;
}

std::optional<int64_t> ElementsOf(std::span<const int64_t> dims) {
  constexpr int64_t kMax = int64_t{1} << 40;
  int64_t elements = 1;
  bool is_empty = false;
  for (const int64_t dim : dims) {
    if (dim < 0) return std::nullopt;
    if (dim == 0) is_empty = true;
    if (dim > 0 && elements > kMax / dim) return std::nullopt;
    elements *= std::max<int64_t>(dim, 1);
  }
  return is_empty ? 0 : elements;
}

Result<ir::TensorView> Tensors::Read(const TensorProto& tensor) {
  const auto dtype = ElementType(tensor.data_type());
  if (!dtype) return Fail(ErrorCode::kUnsupported, "elements of " + TypeName(tensor.data_type()));
  const std::vector<int64_t> shape(tensor.dims().begin(), tensor.dims().end());
  const auto elements = ElementsOf(shape);
  if (!elements) return Corrupt("has a dimension that is negative, or too many elements");
  if (tensor.has_segment()) return Fail(ErrorCode::kUnsupported, "a tensor in segments");
  const size_t size_bytes = static_cast<size_t>(*elements) * SizeBytes(*dtype);
  std::span<const std::byte> bytes;
  if (tensor.data_location() == 1) {
    TRY_ASSIGN(bytes, ReadExternal(tensor, size_bytes));
  } else if (tensor.has_raw_data()) {
    bytes = BytesOf(tensor.raw_data());
  } else {
    auto [found, is_new] = decoded_.try_emplace(&tensor);
    if (is_new) found->second = Decode(tensor, *dtype);
    bytes = found->second;
  }
  if (bytes.size() != size_bytes)
    return Corrupt(fmt::format("holds {} bytes, and its shape {}", bytes.size(), size_bytes));
  return ir::TensorView{*dtype, shape, bytes};
}

Result<std::span<const std::byte>> Tensors::ReadExternal(const TensorProto& tensor,
                                                         size_t size_bytes) {
  std::string location;
  uint64_t offset = 0;
  std::optional<uint64_t> length;
  for (const StringStringEntryProto& entry : tensor.external_data()) {
    if (entry.key() == "location") location = entry.value();
    if (entry.key() != "offset" && entry.key() != "length") continue;
    const auto number = ParseUnsigned(entry.value());
    if (!number) return Corrupt("external data's " + entry.key() + " is no number");
    if (entry.key() == "offset")
      offset = *number;
    else
      length = number;
  }
  TRY_ASSIGN(const std::span<const std::byte> file, FileNamed(location));
  if (offset > file.size() || length.value_or(size_bytes) > file.size() - offset)
    return Corrupt(fmt::format("external data at {} of '{}' goes past its {} bytes", offset,
                               location, file.size()));
  return file.subspan(offset, length.value_or(size_bytes));
}

Result<std::span<const std::byte>> Tensors::FileNamed(const std::string& location) {
  const auto known = file_numbers_.find(location);
  if (known != file_numbers_.end()) return (*files_)[known->second].bytes();
  const fs::path relative = fs::path(location).lexically_normal();
  if (folder_.empty() || !IsInside(relative) || !IsInside(location))
    return Corrupt("external data '" + location + "' is not in the model's folder");
  TRY(ExpectNoLink(folder_, relative));
  TRY_ASSIGN(MappedFile file, MappedFile::OpenCopyOnWrite(folder_ / relative));
  file.MoveForRandomReads();  // of tables, that is; others are packed
  files_->push_back(std::move(file));
  file_numbers_[location] = files_->size() - 1;
  return files_->back().bytes();
}

std::string Tensors::Publish(const std::string& name, ir::TensorView view) {
  std::string unique = name.empty() ? "constant" : name;
  for (int i = 2; published_.contains(unique); ++i) unique = fmt::format("{}#{}", name, i);
  published_.emplace(unique, std::move(view));
  return unique;
}

Result<ir::TensorView> Tensors::Find(const std::string& name) const {
  const auto found = published_.find(name);
  if (found == published_.end()) return Fail(ErrorCode::kNotFound, "no initialiser '" + name + "'");
  return found->second;
}

}  // namespace millpower::import::onnx
