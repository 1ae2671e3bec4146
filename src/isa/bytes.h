// Little-endian integers and counted strings, written to and read from bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/result.h"

namespace millpower::isa {

static_assert(std::endian::native == std::endian::little, "encodings are copied, not swapped");

class ByteWriter {
 public:
  template <typename T>
    requires std::is_integral_v<T> || std::is_enum_v<T>
  void Put(T value) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof value);
  }
  void Put(const std::string& text) {
    Put(static_cast<uint32_t>(text.size()));
    const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
    bytes_.insert(bytes_.end(), bytes, bytes + text.size());
  }
  std::vector<std::byte> Take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

// After the first read past the end (or an oversized count), reads give zeros and ok() is false:
// callers check once where a wrong value could do harm.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool ok() const { return ok_; }
  size_t left() const { return bytes_.size(); }

  template <typename T>
    requires std::is_integral_v<T>
  T Get() {
    T value = 0;
    if (bytes_.size() < sizeof value) return Overrun(), value;
    std::memcpy(&value, bytes_.data(), sizeof value);
    bytes_ = bytes_.subspan(sizeof value);
    return value;
  }

  std::string GetString(size_t limit) {
    const size_t size = Get<uint32_t>();
    if (size > limit || size > bytes_.size()) return Overrun(), std::string();
    std::string text(reinterpret_cast<const char*>(bytes_.data()), size);
    bytes_ = bytes_.subspan(size);
    return text;
  }

  // A count of items that take at least `item_bytes` each, so that no count can claim more items
  // than there are bytes.
  size_t GetCount(size_t item_bytes) {
    const size_t count = Get<uint32_t>();
    if (count > bytes_.size() / item_bytes) return Overrun(), size_t{0};
    return count;
  }

 private:
  void Overrun() {
    ok_ = false;
    bytes_ = {};
  }

  std::span<const std::byte> bytes_;
  bool ok_ = true;
};

}  // namespace millpower::isa
