// The GGUF file format (github.com/ggml-org/ggml, docs/gguf.md), versions 2 and 3, little-endian:
//   "GGUF" | u32 version | u64 tensors | u64 entries of metadata
//   metadata   string key | u32 type | value; strings are u64 length | bytes, arrays are
//              u32 type of items | u64 items | items
//   tensors    string name | u32 dimensions | u64 sizes, innermost first | u32 type | u64 offset
//   the rest   the tensors' bytes, from the next multiple of general.alignment (32) on; offsets
//              count from there
// The file is not trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"

namespace millpower::import {

enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
inline constexpr uint32_t kGgufTypeCount = 13;

// One value, or the items of an array, as the file has them: `bytes` hold exactly what the type and
// the count say.
struct GgufValue {
  GgufType type = GgufType::kU8;       // kArray for an array
  GgufType item_type = GgufType::kU8;  // of an array
  uint64_t items = 0;                  // of an array
  std::span<const std::byte> bytes;    // of a string, its text alone
};

using GgufMetadata = std::map<std::string, GgufValue, std::less<>>;

struct GgufTensor {
  std::string type_name;       // ggml's: "Q4_K"
  std::optional<DType> dtype;  // absent for a type that we do not read
  std::vector<int64_t> shape;  // outermost first, as everywhere else here
  // Inside the file; empty for a type that we do not read, whose size we do not know.
  std::span<const std::byte> bytes;
};

struct GgufFile {
  GgufMetadata metadata;
  std::map<std::string, GgufTensor> tensors;
};

inline constexpr uint64_t kMaxGgufTensors = 1 << 20;
inline constexpr uint64_t kMaxGgufMetadata = 1 << 16;
inline constexpr size_t kMaxGgufKeyBytes = 1 << 16;  // as the format has it
inline constexpr size_t kMaxGgufNameBytes = 64;      // likewise
inline constexpr int kMaxGgufArrayDepth = 4;         // of arrays in arrays

// Whether these are the first bytes of a GGUF file of any version.
bool IsGguf(std::span<const std::byte> file);

// What a whole file in memory holds; the views point into it. Reads no byte of a tensor.
// Errors: kUnsupported: version 1, one above 3, or a big-endian file. kCorrupt, naming the key or
// tensor: something ends beyond the file, or is more than the limits above or than the bytes that
// are left can hold; a type that does not exist; a key or name that is empty or twice there; an
// alignment that is no power of two; a tensor without dimensions or with more than four, with a
// size below 1, with rows that are not whole blocks, at an offset that is not aligned, or over
// another tensor.
Result<GgufFile> ParseGguf(std::span<const std::byte> file);

}  // namespace millpower::import
