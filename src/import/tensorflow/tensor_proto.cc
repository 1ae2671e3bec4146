#include "import/tensorflow/tensor_proto.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "ir/graph.h"

namespace millpower::import {
namespace {

struct TypeInfo {
  int number;
  const char* name;
  std::optional<DType> dtype;
};
constexpr TypeInfo kTypes[] = {
    {1, "DT_FLOAT", DType::kF32},     {2, "DT_DOUBLE", DType::kF64},
    {3, "DT_INT32", DType::kI32},     {4, "DT_UINT8", DType::kU8},
    {5, "DT_INT16", DType::kI16},     {6, "DT_INT8", DType::kI8},
    {7, "DT_STRING", std::nullopt},   {8, "DT_COMPLEX64", std::nullopt},
    {9, "DT_INT64", DType::kI64},     {10, "DT_BOOL", DType::kBool},
    {11, "DT_QINT8", std::nullopt},   {12, "DT_QUINT8", std::nullopt},
    {13, "DT_QINT32", std::nullopt},  {14, "DT_BFLOAT16", DType::kBf16},
    {17, "DT_UINT16", DType::kU16},   {18, "DT_COMPLEX128", std::nullopt},
    {19, "DT_HALF", DType::kF16},     {20, "DT_RESOURCE", std::nullopt},
    {21, "DT_VARIANT", std::nullopt}, {22, "DT_UINT32", DType::kU32},
    {23, "DT_UINT64", DType::kU64},
};

constexpr int64_t kMaxElements = int64_t{1} << 56;
// A list's last value may stand for this many times as many elements as are listed.
constexpr int64_t kMaxRepeats = 64;

template <typename To, typename List>
std::vector<std::byte> BytesOf(const List& list) {
  std::vector<std::byte> bytes(static_cast<size_t>(list.size()) * sizeof(To));
  size_t offset = 0;
  for (const auto item : list) {
    const To value = static_cast<To>(item);
    std::memcpy(bytes.data() + offset, &value, sizeof value);
    offset += sizeof value;
  }
  return bytes;
}

// The elements that are listed one by one, in the list of their type.
std::vector<std::byte> ListedBytes(const tensorflow::TensorProto& proto, DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return BytesOf<float>(proto.float_val());
    case DType::kF64:
      return BytesOf<double>(proto.double_val());
    case DType::kF16:
    case DType::kBf16:
      return BytesOf<uint16_t>(proto.half_val());
    case DType::kI64:
      return BytesOf<int64_t>(proto.int64_val());
    case DType::kU64:
      return BytesOf<uint64_t>(proto.uint64_val());
    case DType::kU32:
      return BytesOf<uint32_t>(proto.uint32_val());
    case DType::kI32:
      return BytesOf<int32_t>(proto.int_val());
    case DType::kI16:
    case DType::kU16:
      return BytesOf<uint16_t>(proto.int_val());
    case DType::kI8:
    case DType::kU8:
      return BytesOf<uint8_t>(proto.int_val());
    case DType::kBool:
      return BytesOf<uint8_t>(proto.bool_val());
    default:
      return {};
  }
}

Result<void> CheckBools(std::span<const std::byte> bytes) {
  for (const std::byte byte : bytes)
    if (byte > std::byte{1}) return Fail(ErrorCode::kCorrupt, "a truth value is neither 0 nor 1");
  return {};
}

// All elements of which `bytes` has the first ones; the last of them stands for the others.
Result<void> Complete(Literal& literal, int64_t elements) {
  const int64_t element_bytes = SizeBytes(literal.dtype);
  const int64_t listed = static_cast<int64_t>(literal.bytes.size()) / element_bytes;
  if (listed > elements) return Fail(ErrorCode::kCorrupt, "has more elements than its shape");
  if (listed == elements) return {};
  if (listed <= 1) {
    literal.bytes.resize(static_cast<size_t>(element_bytes));  // none listed: zeros
    literal.uniform = true;
    return {};
  }
  if (elements / kMaxRepeats > listed)
    return Fail(ErrorCode::kUnsupported, "most of its elements are left out");
  const std::vector<std::byte> last(literal.bytes.end() - element_bytes, literal.bytes.end());
  literal.bytes.reserve(static_cast<size_t>(elements * element_bytes));
  for (int64_t i = listed; i < elements; ++i)
    literal.bytes.insert(literal.bytes.end(), last.begin(), last.end());
  return {};
}

}  // namespace

std::optional<DType> DTypeOf(int type) {
  for (const TypeInfo& info : kTypes)
    if (info.number == type) return info.dtype;
  return std::nullopt;
}

std::string TypeName(int type) {
  for (const TypeInfo& info : kTypes)
    if (info.number == type) return info.name;
  return fmt::format("type {}", type);
}

Result<int64_t> ElementCount(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t dim : shape)
    if (dim < 0 || __builtin_mul_overflow(count, dim, &count) || count > kMaxElements)
      return Fail(ErrorCode::kCorrupt, "has an impossible shape");
  return count;
}

Result<std::vector<int64_t>> ConstantShape(const tensorflow::Shape& shape) {
  if (shape.unknown_rank()) return Fail(ErrorCode::kUnsupported, "has no known rank");
  if (shape.dim_size() > static_cast<int>(ir::kMaxRank))
    return Fail(ErrorCode::kUnsupported, fmt::format("has {} dimensions", shape.dim_size()));
  std::vector<int64_t> sizes;
  for (const auto& dim : shape.dim()) sizes.push_back(dim.size());
  TRY(ElementCount(sizes));
  return sizes;
}

Result<Literal> ReadLiteral(const tensorflow::TensorProto& proto) {
  const auto dtype = DTypeOf(proto.dtype());
  if (!dtype) return Fail(ErrorCode::kUnsupported, "a constant of type " + TypeName(proto.dtype()));
  Literal literal{.dtype = *dtype, .shape = {}, .bytes = {}};
  TRY_ASSIGN(literal.shape, ConstantShape(proto.shape()));
  TRY_ASSIGN(const int64_t elements, ElementCount(literal.shape));
  if (!proto.content().empty()) {
    const std::string& content = proto.content();
    if (static_cast<int64_t>(content.size()) != elements * SizeBytes(*dtype))
      return Fail(ErrorCode::kCorrupt,
                  fmt::format("has {} bytes for {} elements", content.size(), elements));
    const auto bytes = std::as_bytes(std::span(content));
    literal.bytes.assign(bytes.begin(), bytes.end());
  } else {
    literal.bytes = ListedBytes(proto, *dtype);
    TRY(Complete(literal, elements));
  }
  if (*dtype == DType::kBool) TRY(CheckBools(literal.bytes));
  return literal;
}

Result<StringLiteral> ReadStrings(const tensorflow::TensorProto& proto) {
  if (proto.dtype() != kTypeString)
    return Fail(ErrorCode::kCorrupt, TypeName(proto.dtype()) + " where strings are expected");
  StringLiteral literal;
  TRY_ASSIGN(literal.shape, ConstantShape(proto.shape()));
  TRY_ASSIGN(const int64_t elements, ElementCount(literal.shape));
  literal.values.assign(proto.string_val().begin(), proto.string_val().end());
  const auto listed = static_cast<int64_t>(literal.values.size());
  if (listed > elements) return Fail(ErrorCode::kCorrupt, "has more strings than its shape");
  if (listed < elements && elements > kMaxRepeats)
    return Fail(ErrorCode::kUnsupported, "most of its strings are left out");
  literal.values.resize(static_cast<size_t>(elements),
                        literal.values.empty() ? std::string() : literal.values.back());
  return literal;
}

}  // namespace millpower::import
