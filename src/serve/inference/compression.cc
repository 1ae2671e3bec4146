#include "serve/inference/compression.h"

#include <zlib.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/check.h"

namespace millpower::serve {
namespace {

// zlib's: windows of 2^15 bytes, and gzip's wrapping instead of zlib's.
constexpr int kWindowBits = 15;
constexpr int kGzipWrapping = 16;
constexpr size_t kPieceBytes = 64 << 10;

int BitsOf(Coding coding) {
  return coding == Coding::kGzip ? kWindowBits + kGzipWrapping : kWindowBits;
}

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool IsSameWord(std::string_view a, std::string_view b) {
  return std::ranges::equal(
      a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

// Whether "gzip;q=0.5" says that it may be: a weight of zero forbids it.
bool IsAllowed(std::string_view parameters) {
  const size_t at = parameters.find("q=");
  if (at == std::string_view::npos) return true;
  double weight = 1;
  std::from_chars(parameters.data() + at + 2, parameters.data() + parameters.size(), weight);
  return weight > 0;
}

Bytef* BytesOf(std::string_view text) {
  return reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));  // zlib does not write to it
}

}  // namespace

const char* Name(Coding coding) {
  constexpr const char* kNames[] = {"identity", "gzip", "deflate"};
  return kNames[static_cast<size_t>(coding)];
}

Result<Coding> ReadCoding(std::string_view content_encoding) {
  const std::string_view name = Trimmed(content_encoding);
  if (name.empty()) return Coding::kIdentity;
  for (const Coding coding : {Coding::kIdentity, Coding::kGzip, Coding::kDeflate})
    if (IsSameWord(name, Name(coding))) return coding;
  if (IsSameWord(name, "x-gzip")) return Coding::kGzip;
  return Fail(ErrorCode::kUnsupported, "Content-Encoding is none of gzip and deflate");
}

Coding ChooseCoding(std::string_view accept_encoding) {
  bool gzip = false, deflate = false;
  while (!accept_encoding.empty()) {
    const std::string_view one = accept_encoding.substr(0, accept_encoding.find(','));
    accept_encoding.remove_prefix(std::min(accept_encoding.size(), one.size() + 1));
    const size_t end = std::min(one.find(';'), one.size());
    const std::string_view name = Trimmed(one.substr(0, end));
    if (!IsAllowed(one.substr(end))) continue;
    gzip = gzip || IsSameWord(name, "gzip");
    deflate = deflate || IsSameWord(name, "deflate");
  }
  return gzip ? Coding::kGzip : deflate ? Coding::kDeflate : Coding::kIdentity;
}

Result<std::string> Decompress(std::string_view bytes, Coding coding, size_t max_bytes) {
  CHECK(coding != Coding::kIdentity);
  z_stream stream{};
  CHECK(inflateInit2(&stream, BitsOf(coding)) == Z_OK) << "zlib";
  stream.next_in = BytesOf(bytes);
  stream.avail_in = static_cast<uInt>(std::min<size_t>(bytes.size(), UINT32_MAX));
  std::string whole;
  int state = Z_OK;
  while (state == Z_OK) {
    const size_t had = whole.size();
    // One byte more than may be, so that what is too large shows.
    const size_t room = std::min(std::max(had, kPieceBytes), max_bytes + 1 - had);
    whole.resize(had + room);
    stream.next_out = BytesOf(whole) + had;
    stream.avail_out = static_cast<uInt>(room);
    state = inflate(&stream, Z_NO_FLUSH);
    whole.resize(whole.size() - stream.avail_out);
    if (whole.size() > max_bytes) break;
    if (state == Z_OK && stream.avail_in == 0 && stream.avail_out > 0) state = Z_BUF_ERROR;
  }
  const bool has_rest = stream.avail_in > 0 || bytes.size() > UINT32_MAX;
  inflateEnd(&stream);
  if (whole.size() > max_bytes)
    return Fail(ErrorCode::kOutOfRange,
                "the body is larger than " + std::to_string(max_bytes) + " bytes when unpacked");
  if (state != Z_STREAM_END || has_rest)
    return Fail(ErrorCode::kInvalidArgument,
                std::string("the body is not whole and sound ") + Name(coding));
  return whole;
}

std::string Compress(std::string_view bytes, Coding coding) {
  CHECK(coding != Coding::kIdentity);
  z_stream stream{};
  constexpr int kMemoryLevel = 8;  // zlib's default
  CHECK(deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, BitsOf(coding), kMemoryLevel,
                     Z_DEFAULT_STRATEGY) == Z_OK)
      << "zlib";
  CHECK(bytes.size() < UINT32_MAX) << bytes.size();
  std::string packed(deflateBound(&stream, bytes.size()), '\0');
  stream.next_in = BytesOf(bytes);
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = BytesOf(packed);
  stream.avail_out = static_cast<uInt>(packed.size());
  CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END) << "zlib";
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

}  // namespace millpower::serve
