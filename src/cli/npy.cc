#include "cli/npy.h"

#include <charconv>
#include <cstring>
#include <fstream>
#include <optional>
#include <string_view>

#include "base/mapped_file.h"

namespace millpower::cli {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr int64_t kMaxElements = int64_t{1} << 40;

std::unexpected<Error> Corrupt(std::string message) {
  return Fail(ErrorCode::kCorrupt, "not a sound .npy file: " + std::move(message));
}

struct TypeName {
  std::string_view descr;
  DType type;
};
constexpr TypeName kTypes[] = {{"<f4", DType::kF32}, {"<f8", DType::kF64}, {"<f2", DType::kF16},
                               {"<i8", DType::kI64}, {"<i4", DType::kI32}, {"<i2", DType::kI16},
                               {"|i1", DType::kI8},  {"<u8", DType::kU64}, {"<u4", DType::kU32},
                               {"<u2", DType::kU16}, {"|u1", DType::kU8},  {"|b1", DType::kBool},
                               {"<u2", DType::kBf16}};

// The text between `open` and `close` after `key`.
std::optional<std::string_view> Field(std::string_view header, std::string_view key, char open,
                                      char close) {
  const size_t at = header.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  const size_t begin = header.find(open, at + key.size());
  const size_t end = begin == std::string_view::npos ? begin : header.find(close, begin + 1);
  if (end == std::string_view::npos) return std::nullopt;
  return header.substr(begin + 1, end - begin - 1);
}

Result<std::vector<int64_t>> ParseShape(std::string_view text) {
  std::vector<int64_t> shape;
  int64_t elements = 1;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    std::string_view word = text.substr(0, comma);
    while (word.starts_with(' ')) word.remove_prefix(1);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    if (word.empty()) continue;
    int64_t size = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), size);
    if (error != std::errc() || size < 0 || (size > 0 && elements > kMaxElements / size))
      return Corrupt("its shape is not one");
    elements *= size;
    shape.push_back(size);
  }
  if (shape.size() > 32) return Corrupt("it has more than 32 dimensions");
  return shape;
}

void AppendUtf8(std::string& text, uint32_t point) {
  if (point < 0x80) {
    text += static_cast<char>(point);
    return;
  }
  const int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
  constexpr uint32_t kFirst[] = {0, 0xc0, 0xe0, 0xf0};
  text += static_cast<char>(kFirst[more] | (point >> (6 * more)));
  for (int i = more - 1; i >= 0; --i) text += static_cast<char>(0x80 | ((point >> (6 * i)) & 0x3f));
}

// Elements of `width` bytes (S) or code points (U).
Result<std::vector<std::string>> ParseStrings(std::span<const std::byte> data, int64_t count,
                                              int64_t width, bool wide) {
  const int64_t size = width * (wide ? 4 : 1);
  if (size < 1 || count != static_cast<int64_t>(data.size()) / size ||
      static_cast<int64_t>(data.size()) % size != 0)
    return Corrupt("it does not hold as many bytes as its shape says");
  std::vector<std::string> strings;
  for (int64_t i = 0; i < count; ++i) {
    std::string& text = strings.emplace_back();
    const std::byte* element = data.data() + i * size;
    for (int64_t j = 0; j < width; ++j) {
      if (!wide) {
        text += static_cast<char>(element[j]);
        continue;
      }
      uint32_t point = 0;
      std::memcpy(&point, element + 4 * j, 4);
      if (point == 0) break;
      if (point > 0x10ffff) return Corrupt("it holds what is no character");
      AppendUtf8(text, point);
    }
    text.erase(text.find_last_not_of('\0') + 1);
  }
  return strings;
}

}  // namespace

Result<NpyArray> ParseNpy(std::span<const std::byte> file) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (text.size() < 10 || !text.starts_with(kMagic)) return Corrupt("it begins otherwise");
  const int version = static_cast<unsigned char>(text[6]);
  const size_t length_bytes = version == 1 ? 2 : 4;
  if (version < 1 || version > 3 || text.size() < 8 + length_bytes)
    return Corrupt("version " + std::to_string(version));
  uint32_t length = 0;
  std::memcpy(&length, text.data() + 8, length_bytes);
  const size_t begin = 8 + length_bytes;
  if (length > text.size() - begin || length > 1 << 20) return Corrupt("its header is truncated");
  const std::string_view header = text.substr(begin, length);

  const auto descr = Field(header, "'descr':", '\'', '\'');
  const auto dims = Field(header, "'shape':", '(', ')');
  if (!descr || !dims) return Corrupt("its header lacks descr or shape");
  if (header.find("'fortran_order': False") == std::string_view::npos)
    return Fail(ErrorCode::kUnsupported, "the array is in Fortran order; save it in C order");
  NpyArray array;
  TRY_ASSIGN(array.shape, ParseShape(*dims));
  int64_t elements = 1;
  for (const int64_t size : array.shape) elements *= size;
  const std::span<const std::byte> data = file.subspan(begin + length);

  if (descr->starts_with("|S") || descr->starts_with("<U")) {
    int64_t width = 0;
    const auto [end, error] =
        std::from_chars(descr->data() + 2, descr->data() + descr->size(), width);
    if (error != std::errc() || width < 1 || width > 1 << 20) return Corrupt("its strings");
    array.is_string = true;
    TRY_ASSIGN(array.strings, ParseStrings(data, elements, width, (*descr)[1] == 'U'));
    return array;
  }
  for (const TypeName& type : kTypes) {
    if (type.descr != *descr) continue;
    array.dtype = type.type;
    if (static_cast<int64_t>(data.size()) != elements * SizeBytes(type.type))
      return Corrupt("it does not hold as many bytes as its shape says");
    array.bytes.assign(data.begin(), data.end());
    return array;
  }
  return Fail(ErrorCode::kUnsupported, "arrays of type '" + std::string(*descr) + "'");
}

Result<NpyArray> ReadNpy(const std::filesystem::path& path) {
  TRY_ASSIGN(const MappedFile file, MappedFile::Open(path));
  auto array = ParseNpy(file.bytes());
  if (!array) return FailAt(path.string(), array.error());
  return array;
}

Result<void> WriteNpy(const std::filesystem::path& path, DType dtype,
                      std::span<const int64_t> shape, std::span<const std::byte> bytes) {
  std::string_view descr;
  for (const TypeName& type : kTypes)
    if (type.type == dtype) descr = type.descr;
  std::string header = "{'descr': '" + std::string(descr) + "', 'fortran_order': False, 'shape': (";
  for (const int64_t size : shape) header += std::to_string(size) + ",";
  header += "), }";
  // The data begins at a multiple of 64.
  constexpr size_t kBefore = 10;
  header.append(63 - (kBefore + header.size()) % 64, ' ');
  header += '\n';
  std::ofstream out(path, std::ios::binary);
  out << kMagic << '\x01' << '\0';
  out.put(static_cast<char>(header.size() & 0xff)).put(static_cast<char>(header.size() >> 8));
  out << header;
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (out) return {};
  return Fail(ErrorCode::kIo, "can't write " + path.string());
}

}  // namespace millpower::cli
