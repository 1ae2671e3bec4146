// UTF-8, and Unicode's properties as the Hugging Face `tokenizers` library (0.23) has them: its
// regular expressions know Unicode 16, its NFC only Unicode 9. Both are frozen in every published
// Qwen vocabulary, so we pin them by age whatever ICU we are linked with. Thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace millpower::text {

// The first unit of some bytes.
struct Utf8Unit {
  enum Kind : uint8_t {
    kValid,    // one character
    kInvalid,  // a maximal ill-formed part: one U+FFFD stands for it (Unicode 15, 3.9, table 3-8)
    kIncomplete,  // the bytes end inside what could become a character
  };
  Kind kind;
  uint8_t size_bytes;  // 1..4
};

// `bytes` is not empty.
Utf8Unit FirstUtf8Unit(std::string_view bytes);

// Length of the longest prefix of whole, valid characters; bytes.size() when all is valid.
size_t ValidUtf8Prefix(std::string_view bytes);

// Appends `bytes`, with U+FFFD for what is not UTF-8, as Rust's String::from_utf8_lossy does.
void AppendLossy(std::string_view bytes, std::string& out);

void AppendUtf8(char32_t code_point, std::string& out);

// The character at `position` of valid UTF-8; moves `position` past it.
inline char32_t NextCodePoint(std::string_view valid, size_t& position) {
  const auto* p = reinterpret_cast<const unsigned char*>(valid.data()) + position;
  if (p[0] < 0x80) return position += 1, p[0];
  if (p[0] < 0xe0) return position += 2, (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
  if (p[0] < 0xf0)
    return position += 3, (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
  return position += 4,
         (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
}

// Disjoint properties in one byte per code point, so that a scanner tests with masks.
inline constexpr uint8_t kLetter = 1;     // \p{L}
inline constexpr uint8_t kNumber = 2;     // \p{N}
inline constexpr uint8_t kSpace = 4;      // \s: White_Space, '\r' and '\n' included
inline constexpr uint8_t kNewline = 8;    // '\r' and '\n', together with kSpace
inline constexpr uint8_t kNfcCheck = 16;  // a text without any of these is in NFC as it stands

using CharTable = std::array<uint8_t, 0x110000>;

// Built on first use (some milliseconds).
const CharTable& CharProperties();

// \w: letters, marks, decimal digits, connector punctuation and joiners.
bool IsWordChar(char32_t code_point);

// Whether NFC would leave `valid` (UTF-8) as it is; may say false of a text in NFC.
bool IsPlainlyNfc(std::string_view valid);

// `valid` (UTF-8) in Normalization Form C.
std::string ToNfc(std::string_view valid);

}  // namespace millpower::text
