#include "serve/inference/tensors.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "ranking/elements.h"

namespace millpower::serve {
namespace {

using ranking::ReadAs;

// Beyond any body; what it times the size of an element is stays far from overflow.
constexpr int64_t kElementsMax = int64_t{1} << 40;

template <typename T>
void Append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
bool AppendInteger(const Json& element, std::string& bytes) {
  if (element.is_number_unsigned()) {
    const auto value = element.get<uint64_t>();
    if (value > static_cast<uint64_t>(std::numeric_limits<T>::max())) return false;
    Append(bytes, static_cast<T>(value));
    return true;
  }
  if (!element.is_number_integer()) return false;
  const auto value = element.get<int64_t>();
  if constexpr (std::is_unsigned_v<T>)
    if (value < 0) return false;
  if (value < static_cast<int64_t>(std::numeric_limits<T>::min())) return false;
  if (value > 0 &&
      static_cast<uint64_t>(value) > static_cast<uint64_t>(std::numeric_limits<T>::max()))
    return false;
  Append(bytes, static_cast<T>(value));
  return true;
}

bool AppendTruth(const Json& element, std::string& bytes) {
  if (element.is_boolean()) {
    Append(bytes, static_cast<uint8_t>(element.get<bool>()));
    return true;
  }
  const bool is_bit =
      element.is_number_integer() && (element.get<int64_t>() == 0 || element.get<int64_t>() == 1);
  if (is_bit) Append(bytes, static_cast<uint8_t>(element.get<int64_t>()));
  return is_bit;
}

bool AppendFloat(const Json& element, DType dtype, std::string& bytes) {
  if (!element.is_number()) return false;
  const double value = element.get<double>();
  if (dtype == DType::kF64) {
    Append(bytes, value);
    return true;
  }
  const auto narrow = static_cast<float>(value);
  if (dtype == DType::kF32)
    Append(bytes, narrow);
  else
    Append(bytes, dtype == DType::kF16 ? F32ToF16(narrow) : F32ToBf16(narrow));
  return true;
}

bool AppendTyped(const Json& element, DType dtype, std::string& bytes) {
  switch (dtype) {
    case DType::kBool:
      return AppendTruth(element, bytes);
    case DType::kI8:
      return AppendInteger<int8_t>(element, bytes);
    case DType::kI16:
      return AppendInteger<int16_t>(element, bytes);
    case DType::kI32:
      return AppendInteger<int32_t>(element, bytes);
    case DType::kI64:
      return AppendInteger<int64_t>(element, bytes);
    case DType::kU8:
      return AppendInteger<uint8_t>(element, bytes);
    case DType::kU16:
      return AppendInteger<uint16_t>(element, bytes);
    case DType::kU32:
      return AppendInteger<uint32_t>(element, bytes);
    case DType::kU64:
      return AppendInteger<uint64_t>(element, bytes);
    default:
      CHECK(IsFloat(dtype)) << Name(dtype);
      return AppendFloat(element, dtype, bytes);
  }
}

template <typename T>
void AppendText(T value, std::string& json) {
  if constexpr (std::is_floating_point_v<T>)
    if (!std::isfinite(value)) {
      json += "null";
      return;
    }
  std::array<char, 32> text;
  const auto end = std::to_chars(text.begin(), text.end(), value).ptr;
  json.append(text.begin(), end);
}

void AppendElement(const std::byte* bytes, DType dtype, std::string& json) {
  switch (dtype) {
    case DType::kBool:
      json += bytes[0] != std::byte{0} ? "true" : "false";
      return;
    case DType::kF32:
      return AppendText(ReadAs<float>(bytes), json);
    case DType::kF64:
      return AppendText(ReadAs<double>(bytes), json);
    case DType::kF16:
      return AppendText(F16ToF32(ReadAs<uint16_t>(bytes)), json);
    case DType::kBf16:
      return AppendText(Bf16ToF32(ReadAs<uint16_t>(bytes)), json);
    case DType::kU64:
      return AppendText(ReadAs<uint64_t>(bytes), json);
    default:
      return AppendText(ranking::IntegerAt(bytes, dtype), json);
  }
}

}  // namespace

Result<int64_t> CountElements(std::span<const int64_t> shape) {
  int64_t elements = 1;
  for (const int64_t size : shape) {
    if (size < 0) return Fail(ErrorCode::kInvalidArgument, "a shape holds a negative size");
    if (size > kElementsMax || __builtin_mul_overflow(elements, size, &elements) ||
        elements > kElementsMax)
      return Fail(ErrorCode::kInvalidArgument, "a shape is larger than any request");
  }
  return elements;
}

std::unexpected<Error> TensorBuilder::Bad(const std::string& what) const {
  return Fail(ErrorCode::kInvalidArgument, fmt::format("input '{}' {}", port_.name, what),
              port_.name);
}

Result<void> TensorBuilder::AddElement(const Json& element) {
  ++count_;
  return port_.is_string ? AddString(element) : AddNumber(element);
}

Result<void> TensorBuilder::AddNumber(const Json& element) {
  if (AppendTyped(element, port_.dtype, bytes_)) return {};
  std::string shown = DumpJson(element).substr(0, 40);
  return Bad(fmt::format("holds {}, which is no {}", shown, Name(port_.dtype)));
}

Result<void> TensorBuilder::AddString(const Json& element) {
  std::string text;
  if (element.is_string()) {
    text = element.get<std::string>();
  } else if (byte_strings_ == ByteStrings::kBase64Objects && element.is_object() &&
             element.size() == 1 && element.contains("b64") && element["b64"].is_string()) {
    auto decoded = DecodeBase64(element["b64"].get_ref<const std::string&>());
    if (!decoded) return Bad("holds malformed base64");
    text = std::move(*decoded);
  } else {
    return Bad("holds something that is no string");
  }
  store_.parts.push_back(std::move(text));
  strings_.push_back(store_.parts.back());
  return {};
}

Result<void> TensorBuilder::AddFlat(const Json& data) {
  if (!data.is_array()) return AddElement(data);
  for (const Json& element : data) TRY(AddFlat(element));
  return {};
}

namespace {

// The sizes along the first of everything.
void MeasureFirst(const Json& data, std::vector<int64_t>& shape) {
  const Json* each = &data;
  while (each->is_array()) {
    shape.push_back(static_cast<int64_t>(each->size()));
    if (each->empty()) return;
    each = &each->front();
  }
}

bool HasShape(const Json& data, std::span<const int64_t> shape) {
  if (shape.empty()) return !data.is_array();
  if (!data.is_array() || std::ssize(data) != shape[0]) return false;
  return std::ranges::all_of(data,
                             [&](const Json& each) { return HasShape(each, shape.subspan(1)); });
}

}  // namespace

Result<void> TensorBuilder::AddNested(const Json& data, std::vector<int64_t>& shape) {
  shape.clear();
  MeasureFirst(data, shape);
  // An empty list tells nothing about what would be in it.
  while (!shape.empty() && shape.back() == 0 && shape.size() < port_.shape.size())
    shape.push_back(port_.shape[shape.size()].Constant().value_or(0));
  if (!HasShape(data, shape)) return Bad("holds lists of different lengths");
  return AddFlat(data);
}

ranking::InputTensor TensorBuilder::Build(std::vector<int64_t> shape) {
  ranking::InputTensor tensor{.shape = std::move(shape)};
  if (port_.is_string) {
    tensor.strings = std::move(strings_);
    return tensor;
  }
  store_.parts.push_back(std::move(bytes_));
  tensor.bytes = std::as_bytes(std::span(store_.parts.back()));
  return tensor;
}

void AppendElements(std::span<const std::byte> bytes, DType dtype, std::string& json) {
  const auto size = static_cast<size_t>(SizeBytes(dtype));
  for (size_t at = 0; at < bytes.size(); at += size) {
    if (at != 0) json += ',';
    AppendElement(bytes.data() + at, dtype, json);
  }
}

void AppendNested(std::span<const std::byte> bytes, DType dtype, std::span<const int64_t> shape,
                  std::string& json) {
  if (shape.empty()) return AppendElements(bytes, dtype, json);
  json += '[';
  if (shape.size() == 1) {
    AppendElements(bytes, dtype, json);
  } else {
    const size_t part = shape[0] == 0 ? 0 : bytes.size() / static_cast<size_t>(shape[0]);
    for (int64_t i = 0; i < shape[0]; ++i) {
      if (i != 0) json += ',';
      AppendNested(bytes.subspan(static_cast<size_t>(i) * part, part), dtype, shape.subspan(1),
                   json);
    }
  }
  json += ']';
}

Result<std::string> DecodeBase64(std::string_view text) {
  const auto bad = [] { return Fail(ErrorCode::kInvalidArgument, "malformed base64"); };
  if (text.size() % 4 != 0 || text.size() > INT32_MAX) return bad();
  size_t padding = 0;
  while (padding < 2 && text.size() > padding && text[text.size() - 1 - padding] == '=') ++padding;
  // OpenSSL takes '=' for nothing wherever it stands, and spaces at either end.
  if (text.substr(0, text.size() - padding).find_first_of("= \t\r\n") != std::string_view::npos)
    return bad();
  std::string bytes(text.size() / 4 * 3, '\0');
  const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                                   reinterpret_cast<const unsigned char*>(text.data()),
                                   static_cast<int>(text.size()));
  if (size < 0 || static_cast<size_t>(size) != bytes.size()) return bad();
  bytes.resize(bytes.size() - padding);
  return bytes;
}

}  // namespace millpower::serve
