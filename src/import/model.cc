#include "import/model.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <string_view>

#include "import/gguf/format.h"
#include "import/gguf/model.h"
#include "import/hf/folder.h"

namespace millpower::import {

bool IsGgufFile(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  std::array<char, 4> magic{};
  std::ifstream(path, std::ios::binary).read(magic.data(), magic.size());
  return IsGguf(std::as_bytes(std::span(magic)));
}

std::string WithoutPartNumber(std::string stem) {
  constexpr std::string_view kPattern = "-00000-of-00000";
  if (stem.size() <= kPattern.size()) return stem;
  const std::string_view end = std::string_view(stem).substr(stem.size() - kPattern.size());
  const bool matches = std::ranges::equal(
      end, kPattern, [](char c, char p) { return p == '0' ? c >= '0' && c <= '9' : c == p; });
  if (matches) stem.resize(stem.size() - kPattern.size());
  return stem;
}

Result<Model> OpenModel(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return OpenHfFolder(path);
  if (IsGgufFile(path)) return OpenGguf(path);
  return Fail(ErrorCode::kUnsupported,
              path.string() + " is neither a model folder nor a GGUF file");
}

}  // namespace millpower::import
