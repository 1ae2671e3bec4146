#include "import/gguf/format.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace millpower::import {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint32_t kDefaultAlignment = 32;
constexpr uint64_t kMaxElements = uint64_t{1} << 48;
// The least that an entry takes: an empty string, a type, a byte; a name, one dimension, and so on.
constexpr uint64_t kMinMetadataBytes = 8 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 4 + 8 + 4 + 8;

std::unexpected<Error> Corrupt(std::string message) {
  return Fail(ErrorCode::kCorrupt, std::move(message));
}

// Bytes of one item; 0 for strings and arrays.
uint64_t ItemBytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    default:
      return 0;
  }
}

// ggml's numbers of tensor types (ggml.h, enum ggml_type).
struct TensorType {
  uint32_t number;
  const char* name;
  std::optional<DType> dtype = std::nullopt;
};
constexpr TensorType kTensorTypes[] = {
    {0, "F32", DType::kF32},
    {1, "F16", DType::kF16},
    {2, "Q4_0", DType::kQ4_0},
    {3, "Q4_1"},
    {6, "Q5_0"},
    {7, "Q5_1"},
    {8, "Q8_0", DType::kQ8_0},
    {9, "Q8_1"},
    {10, "Q2_K"},
    {11, "Q3_K"},
    {12, "Q4_K", DType::kQ4_K},
    {13, "Q5_K"},
    {14, "Q6_K", DType::kQ6_K},
    {15, "Q8_K"},
    {16, "IQ2_XXS"},
    {17, "IQ2_XS"},
    {18, "IQ3_XXS"},
    {19, "IQ1_S"},
    {20, "IQ4_NL"},
    {21, "IQ3_S"},
    {22, "IQ2_S"},
    {23, "IQ4_XS"},
    {24, "I8"},
    {25, "I16"},
    {26, "I32"},
    {27, "I64"},
    {28, "F64"},
    {29, "IQ1_M"},
    {30, "BF16", DType::kBf16},
    {34, "TQ1_0"},
    {35, "TQ2_0"},
    {39, "MXFP4"},
    {40, "NVFP4"},
    {41, "Q1_0"},
    {42, "Q2_0"},
};

TensorType TensorTypeOf(uint32_t number) {
  for (const TensorType& type : kTensorTypes)
    if (type.number == number) return type;
  return {number, "?"};
}

class Reader {
 public:
  explicit Reader(std::span<const std::byte> file) : file_(file) {}

  uint64_t at() const { return at_; }
  uint64_t left() const { return file_.size() - at_; }

  template <typename T>
  Result<T> Number() {
    TRY_ASSIGN(const auto bytes, Bytes(sizeof(T)));
    T value;
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }

  Result<std::span<const std::byte>> Bytes(uint64_t count) {
    if (count > left())
      return Corrupt("takes " + std::to_string(count) + " bytes at " + std::to_string(at_) +
                     ", beyond the end of the file at " + std::to_string(file_.size()));
    const auto bytes = file_.subspan(at_, count);
    at_ += count;
    return bytes;
  }

  Result<std::span<const std::byte>> String() {
    TRY_ASSIGN(const uint64_t size, Number<uint64_t>());
    return Bytes(size);
  }

  // A key or a name.
  Result<std::string> Name(size_t most) {
    TRY_ASSIGN(const auto bytes, String());
    if (bytes.empty() || bytes.size() > most)
      return Corrupt("has a name of " + std::to_string(bytes.size()) + " bytes, not 1 to " +
                     std::to_string(most));
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

  Result<GgufType> Type() {
    TRY_ASSIGN(const uint32_t type, Number<uint32_t>());
    if (type >= kGgufTypeCount) return Corrupt("has the type " + std::to_string(type));
    return static_cast<GgufType>(type);
  }

  Result<GgufValue> Value() {
    GgufValue value;
    TRY_ASSIGN(value.type, Type());
    if (value.type == GgufType::kArray) {
      TRY(Array(value, 1));
    } else if (value.type == GgufType::kString) {
      TRY_ASSIGN(value.bytes, String());
    } else {
      TRY_ASSIGN(value.bytes, Bytes(ItemBytes(value.type)));
    }
    return value;
  }

 private:
  // Walks over the items, so that what holds them need not check again.
  Result<void> Array(GgufValue& value, int depth) {
    if (depth > kMaxGgufArrayDepth)
      return Corrupt("has arrays in arrays deeper than " + std::to_string(kMaxGgufArrayDepth));
    TRY_ASSIGN(value.item_type, Type());
    TRY_ASSIGN(value.items, Number<uint64_t>());
    const uint64_t begin = at_;
    const uint64_t item_bytes = ItemBytes(value.item_type);
    // A string takes 8 bytes at least, and an array 12.
    const uint64_t least = item_bytes > 0 ? item_bytes : 8;
    if (value.items > left() / least)
      return Corrupt("has an array of " + std::to_string(value.items) + " items where " +
                     std::to_string(left()) + " bytes are left");
    if (item_bytes > 0) {
      TRY(Bytes(value.items * item_bytes));
    } else {
      for (uint64_t i = 0; i < value.items; ++i) {
        GgufValue item;
        if (value.item_type == GgufType::kArray)
          TRY(Array(item, depth + 1));
        else
          TRY(String());
      }
    }
    value.bytes = file_.subspan(begin, at_ - begin);
    return {};
  }

  std::span<const std::byte> file_;
  uint64_t at_ = 0;
};

Result<void> CheckVersion(uint32_t version) {
  if (version == 2 || version == 3) return {};
  if ((version & 0xffff) == 0 && version != 0)
    return Fail(ErrorCode::kUnsupported, "is big-endian; only little-endian GGUF is read");
  return Fail(ErrorCode::kUnsupported,
              "is GGUF version " + std::to_string(version) + "; versions 2 and 3 are read");
}

Result<uint64_t> Count(Reader& reader, const char* what, uint64_t most, uint64_t least_bytes) {
  TRY_ASSIGN(const uint64_t count, reader.Number<uint64_t>());
  if (count > most || count > reader.left() / least_bytes)
    return Corrupt("says that it has " + std::to_string(count) + " " + what + " in " +
                   std::to_string(reader.left()) + " bytes");
  return count;
}

Result<uint64_t> AlignmentOf(const GgufMetadata& metadata) {
  const auto found = metadata.find("general.alignment");
  if (found == metadata.end()) return kDefaultAlignment;
  if (found->second.type != GgufType::kU32) return Corrupt("general.alignment is not a u32");
  uint32_t alignment = 0;
  std::memcpy(&alignment, found->second.bytes.data(), sizeof(alignment));
  if (std::has_single_bit(alignment)) return alignment;
  return Corrupt("general.alignment is " + std::to_string(alignment) + ", no power of two");
}

// A tensor, and where its bytes begin; they are not looked up yet.
struct Placed {
  GgufTensor tensor;
  uint64_t offset = 0;
  uint64_t size_bytes = 0;
};

Result<Placed> ReadTensor(Reader& reader) {
  Placed placed;
  TRY_ASSIGN(const uint32_t dimensions, reader.Number<uint32_t>());
  if (dimensions < 1 || dimensions > 4)
    return Corrupt("has " + std::to_string(dimensions) + " dimensions, not 1 to 4");
  uint64_t elements = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    TRY_ASSIGN(const uint64_t size, reader.Number<uint64_t>());
    if (size < 1 || size > kMaxElements / elements)
      return Corrupt("has a dimension of " + std::to_string(size) +
                     ", which is 0 or makes it larger than 2^48 values");
    elements *= size;
    placed.tensor.shape.insert(placed.tensor.shape.begin(), static_cast<int64_t>(size));
  }
  TRY_ASSIGN(const uint32_t number, reader.Number<uint32_t>());
  const TensorType type = TensorTypeOf(number);
  placed.tensor.dtype = type.dtype;
  placed.tensor.type_name =
      type.name[0] == '?' ? "type " + std::to_string(number) : std::string(type.name);
  TRY_ASSIGN(placed.offset, reader.Number<uint64_t>());
  if (!type.dtype) return placed;
  const int64_t row = placed.tensor.shape.back();
  if (row % BlockSize(*type.dtype) != 0)
    return Corrupt("has rows of " + std::to_string(row) + " values, not whole blocks of " +
                   type.name + " (" + std::to_string(BlockSize(*type.dtype)) + " values)");
  placed.size_bytes = elements / static_cast<uint64_t>(BlockSize(*type.dtype)) *
                      static_cast<uint64_t>(BlockBytes(*type.dtype));
  return placed;
}

Result<void> CheckNoOverlap(const std::map<std::string, Placed>& tensors) {
  std::vector<const std::pair<const std::string, Placed>*> in_order;
  for (const auto& item : tensors) in_order.push_back(&item);
  std::ranges::sort(in_order, {}, [](const auto* item) {
    return std::pair(item->second.offset, item->second.size_bytes);
  });
  for (size_t i = 1; i < in_order.size(); ++i) {
    const auto& [before_name, before] = *in_order[i - 1];
    if (before.offset + before.size_bytes > in_order[i]->second.offset)
      return Corrupt("tensor '" + in_order[i]->first + "' overlaps '" + before_name + "'");
  }
  return {};
}

Result<GgufMetadata> ReadMetadata(Reader& reader, uint64_t count) {
  GgufMetadata metadata;
  for (uint64_t i = 0; i < count; ++i) {
    auto key = reader.Name(kMaxGgufKeyBytes);
    if (!key) return FailAt("metadata entry " + std::to_string(i), std::move(key).error());
    auto value = reader.Value();
    if (!value) return FailAt("metadata '" + *key + "'", std::move(value).error());
    if (!metadata.emplace(*key, *value).second)
      return Corrupt("metadata '" + *key + "' is there twice");
  }
  return metadata;
}

}  // namespace

bool IsGguf(std::span<const std::byte> file) {
  uint32_t magic = 0;
  if (file.size() < sizeof(magic)) return false;
  std::memcpy(&magic, file.data(), sizeof(magic));
  return magic == kMagic;
}

Result<GgufFile> ParseGguf(std::span<const std::byte> file) {
  static_assert(std::endian::native == std::endian::little, "fields are copied as they are");
  if (!IsGguf(file)) return Corrupt("does not begin with GGUF");
  Reader reader(file);
  TRY(reader.Number<uint32_t>());
  TRY_ASSIGN(const uint32_t version, reader.Number<uint32_t>());
  TRY(CheckVersion(version));
  TRY_ASSIGN(const uint64_t tensors, Count(reader, "tensors", kMaxGgufTensors, kMinTensorBytes));
  TRY_ASSIGN(const uint64_t entries,
             Count(reader, "entries of metadata", kMaxGgufMetadata, kMinMetadataBytes));
  GgufFile result;
  TRY_ASSIGN(result.metadata, ReadMetadata(reader, entries));
  TRY_ASSIGN(const uint64_t alignment, AlignmentOf(result.metadata));

  std::map<std::string, Placed> placed;
  for (uint64_t i = 0; i < tensors; ++i) {
    auto name = reader.Name(kMaxGgufNameBytes);
    if (!name) return FailAt("tensor " + std::to_string(i), std::move(name).error());
    auto tensor = ReadTensor(reader);
    if (!tensor) return FailAt("tensor '" + *name + "'", std::move(tensor).error());
    if (!placed.emplace(*name, *std::move(tensor)).second)
      return Corrupt("tensor '" + *name + "' is there twice");
  }

  // A file without tensors may end before the next multiple.
  const uint64_t begin = (reader.at() + alignment - 1) / alignment * alignment;
  const auto data = file.subspan(std::min<uint64_t>(begin, file.size()));
  for (auto& [name, tensor] : placed) {
    if (tensor.offset % alignment != 0)
      return Corrupt("tensor '" + name + "' is at " + std::to_string(tensor.offset) +
                     ", no multiple of the alignment " + std::to_string(alignment));
    if (tensor.offset > data.size() || tensor.size_bytes > data.size() - tensor.offset)
      return Corrupt("tensor '" + name + "' takes " + std::to_string(tensor.size_bytes) +
                     " bytes at " + std::to_string(tensor.offset) + " of " +
                     std::to_string(data.size()) + " bytes of data; is the file complete?");
    tensor.tensor.bytes = data.subspan(tensor.offset, tensor.size_bytes);
  }
  TRY(CheckNoOverlap(placed));
  for (auto& [name, tensor] : placed) result.tensors.emplace(name, std::move(tensor.tensor));
  return result;
}

}  // namespace millpower::import
