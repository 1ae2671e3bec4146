// Writes tables and bundles for tests: sound ones, and such as nobody should write.
#pragma once

#include <snappy.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "import/tensorflow/table.h"

namespace millpower::import {

inline std::span<const std::byte> AsBytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

template <typename T>
std::string LittleEndianText(T value) {
  std::string text(sizeof value, '\0');
  std::memcpy(text.data(), &value, sizeof value);
  return text;
}

inline std::string VarintText(uint64_t value) {
  std::string text;
  for (; value >= 0x80; value >>= 7) text += static_cast<char>(value | 0x80);
  return text + static_cast<char>(value);
}

struct TestTable {
  std::map<std::string, std::string> entries;
  bool compress = false;
  size_t entries_per_block = 3;

  // An entry that takes `shared` bytes of its key from the one before.
  static std::string Entry(uint64_t shared, const std::string& rest, const std::string& value) {
    return VarintText(shared) + VarintText(rest.size()) + VarintText(value.size()) + rest + value;
  }

  static std::string WithRestarts(const std::string& entries) {
    return entries + LittleEndianText(uint32_t{0}) + LittleEndianText(uint32_t{1});
  }

  // Appends a block with its trailer and returns its handle.
  static std::string AddBlock(std::string& file, std::string block, bool compress) {
    if (compress) {
      std::string compressed;
      snappy::Compress(block.data(), block.size(), &compressed);
      block = compressed;
    }
    return AddRaw(file, block, compress ? 1 : 0);
  }

  static std::string AddRaw(std::string& file, const std::string& block, char type) {
    const std::string handle = VarintText(file.size()) + VarintText(block.size());
    file += block + type + LittleEndianText(MaskedCrc32c(AsBytes(block), std::byte(type)));
    return handle;
  }

  static std::string Finish(std::string file, const std::string& index_handle) {
    std::string footer = std::string("\0\0", 2) + index_handle;
    footer.resize(40, '\0');
    return file + footer + LittleEndianText(uint64_t{0xdb4775248b80fb57});
  }

  std::string File() const {
    std::string file, index, block, last;
    size_t count = 0;
    const auto flush = [&] {
      if (count == 0) return;
      index += Entry(0, last, AddBlock(file, WithRestarts(block), compress));
      block.clear();
      count = 0;
    };
    for (const auto& [key, value] : entries) {
      size_t shared = 0;
      while (count > 0 && shared < key.size() && shared < last.size() &&
             key[shared] == last[shared])
        ++shared;
      block += Entry(shared, key.substr(shared), value);
      last = key;
      if (++count == entries_per_block) flush();
    }
    flush();
    const std::string handle = AddBlock(file, WithRestarts(index), compress);
    return Finish(file, handle);
  }
};

}  // namespace millpower::import
