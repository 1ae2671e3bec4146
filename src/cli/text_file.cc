#include "cli/text_file.h"

#include <fstream>

namespace millpower::cli {

Result<void> WriteText(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file) return Fail(ErrorCode::kIo, "cannot write " + path);
  return {};
}

}  // namespace millpower::cli
