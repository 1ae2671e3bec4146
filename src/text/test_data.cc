#include "text/test_data.h"

#include <zlib.h>

#include <sstream>

#include "base/check.h"

namespace millpower::text {

std::string ReadTestData(const std::string& name) {
  const std::string path = std::string(MILLPOWER_SOURCE_DIR) + "/tests/text_data/" + name;
  gzFile file = gzopen(path.c_str(), "rb");
  CHECK(file) << path;
  std::string data;
  char block[1 << 16];
  int read = 0;
  while ((read = gzread(file, block, sizeof block)) > 0)
    data.append(block, static_cast<size_t>(read));
  CHECK(read == 0) << path;
  gzclose(file);
  return data;
}

std::vector<std::string> ReadTestLines(const std::string& name) {
  std::istringstream data(ReadTestData(name));
  std::vector<std::string> lines;
  for (std::string line; std::getline(data, line);) lines.push_back(line);
  return lines;
}

}  // namespace millpower::text
