#include "text/unicode.h"

#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/uniset.h>

#include <cstring>
#include <memory>

#include "base/check.h"

namespace millpower::text {
namespace {

struct Range {
  char32_t first, last;
};

// Letters and numbers of Unicode 15.1 and 16.0, which ICU 72 (Unicode 15.0, Debian 12) lacks.
constexpr Range kNewLetters[] = {
    {0x1c89, 0x1c8a},   {0xa7cb, 0xa7cd},   {0xa7da, 0xa7dc},   {0x105c0, 0x105f3},
    {0x10d4a, 0x10d65}, {0x10d6f, 0x10d85}, {0x10ec2, 0x10ec4}, {0x11380, 0x11389},
    {0x1138b, 0x1138b}, {0x1138e, 0x1138e}, {0x11390, 0x113b5}, {0x113b7, 0x113b7},
    {0x113d1, 0x113d1}, {0x113d3, 0x113d3}, {0x11bc0, 0x11be0}, {0x13460, 0x143fa},
    {0x16100, 0x1611d}, {0x16d40, 0x16d6c}, {0x18cff, 0x18cff}, {0x1e5d0, 0x1e5ed},
    {0x1e5f0, 0x1e5f0}, {0x2ebf0, 0x2ee5d},
};
constexpr Range kNewNumbers[] = {
    {0x10d40, 0x10d49}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9}, {0x16130, 0x16139},
    {0x16d70, 0x16d79}, {0x1ccf0, 0x1ccf9}, {0x1e5f1, 0x1e5fa},
};

icu::UnicodeSet SetOf(const char16_t* pattern) {
  UErrorCode status = U_ZERO_ERROR;
  icu::UnicodeSet set(pattern, status);
  CHECK(U_SUCCESS(status)) << u_errorName(status);
  return set;
}

std::unique_ptr<CharTable> BuildCharTable() {
  auto table = std::make_unique<CharTable>();
  const auto mark = [&](Range range, uint8_t bit) {
    for (char32_t c = range.first; c <= range.last; ++c) (*table)[c] |= bit;
  };
  const auto mark_set = [&](const char16_t* pattern, uint8_t bit) {
    const icu::UnicodeSet set = SetOf(pattern);
    for (int32_t i = 0; i < set.getRangeCount(); ++i)
      mark({static_cast<char32_t>(set.getRangeStart(i)), static_cast<char32_t>(set.getRangeEnd(i))},
           bit);
  };
  mark_set(u"[[:L:]&[:age=16.0:]]", kLetter);
  mark_set(u"[[:N:]&[:age=16.0:]]", kNumber);
  for (const Range range : kNewLetters) mark(range, kLetter);
  for (const Range range : kNewNumbers) mark(range, kNumber);
  mark_set(u"[:White_Space:]", kSpace);
  mark_set(u"[\\r\\n]", kNewline);
  mark_set(u"[[[:^ccc=0:][:^NFC_Quick_Check=Yes:]]&[:age=9.0:]]", kNfcCheck);
  return table;
}

}  // namespace

Utf8Unit FirstUtf8Unit(std::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {Utf8Unit::kValid, 1};
  // The second byte's range excludes overlong forms, surrogates and what lies past U+10FFFF.
  unsigned char low = 0x80, high = 0xbf;
  uint8_t size = 0;
  if (lead >= 0xc2 && lead <= 0xdf)
    size = 2;
  else if (lead >= 0xe0 && lead <= 0xef)
    size = 3;
  else if (lead >= 0xf0 && lead <= 0xf4)
    size = 4;
  else
    return {Utf8Unit::kInvalid, 1};
  if (lead == 0xe0) low = 0xa0;
  if (lead == 0xed) high = 0x9f;
  if (lead == 0xf0) low = 0x90;
  if (lead == 0xf4) high = 0x8f;
  for (uint8_t i = 1; i < size; ++i) {
    if (i == bytes.size()) return {Utf8Unit::kIncomplete, i};
    if (byte(i) < low || byte(i) > high) return {Utf8Unit::kInvalid, i};
    low = 0x80, high = 0xbf;
  }
  return {Utf8Unit::kValid, size};
}

size_t ValidUtf8Prefix(std::string_view bytes) {
  size_t position = 0;
  while (position < bytes.size()) {
    if (uint64_t eight; bytes.size() - position >= sizeof eight) {
      std::memcpy(&eight, bytes.data() + position, sizeof eight);
      if ((eight & 0x8080808080808080u) == 0) {
        position += sizeof eight;
        continue;
      }
    }
    const Utf8Unit unit = FirstUtf8Unit(bytes.substr(position));
    if (unit.kind != Utf8Unit::kValid) break;
    position += unit.size_bytes;
  }
  return position;
}

void AppendLossy(std::string_view bytes, std::string& out) {
  while (!bytes.empty()) {
    const size_t valid = ValidUtf8Prefix(bytes);
    out.append(bytes.substr(0, valid));
    bytes.remove_prefix(valid);
    if (bytes.empty()) return;
    out.append("\xef\xbf\xbd");
    bytes.remove_prefix(FirstUtf8Unit(bytes).size_bytes);
  }
}

void AppendUtf8(char32_t c, std::string& out) {
  const auto append = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) return append(c);
  if (c < 0x800) {
    append(0xc0 | c >> 6);
  } else {
    if (c < 0x10000) {
      append(0xe0 | c >> 12);
    } else {
      append(0xf0 | c >> 18);
      append(0x80 | (c >> 12 & 0x3f));
    }
    append(0x80 | (c >> 6 & 0x3f));
  }
  append(0x80 | (c & 0x3f));
}

const CharTable& CharProperties() {
  static const std::unique_ptr<const CharTable> table = BuildCharTable();
  return *table;
}

bool IsWordChar(char32_t c) {
  return CharProperties()[c] & kLetter || u_isUAlphabetic(static_cast<UChar32>(c)) ||
         U_GET_GC_MASK(static_cast<UChar32>(c)) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK) ||
         u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_JOIN_CONTROL);
}

bool IsPlainlyNfc(std::string_view valid) {
  const CharTable& table = CharProperties();
  for (size_t position = 0; position < valid.size();) {
    if (static_cast<unsigned char>(valid[position]) < 0xcc) {  // below U+0300: never composes
      // ASCII, or a lead byte followed by a continuation byte, which is below 0xcc as well.
      ++position;
      continue;
    }
    if (table[NextCodePoint(valid, position)] & kNfcCheck) return false;
  }
  return true;
}

std::string ToNfc(std::string_view valid) {
  UErrorCode status = U_ZERO_ERROR;
  static const icu::UnicodeSet unicode9 = *SetOf(u"[:age=9.0:]").freeze();
  const icu::Normalizer2* nfc = icu::Normalizer2::getNFCInstance(status);
  CHECK(U_SUCCESS(status)) << u_errorName(status);
  std::string out;
  icu::StringByteSink<std::string> sink(&out);
  icu::FilteredNormalizer2(*nfc, unicode9)
      .normalizeUTF8(0, {valid.data(), static_cast<int32_t>(valid.size())}, sink, nullptr, status);
  CHECK(U_SUCCESS(status)) << u_errorName(status);
  return out;
}

}  // namespace millpower::text
