// Imports every model named on standard input, one path a line, and prints of each "ok PATH" or
// "refused PATH: why", then how many of each there were. Runs nothing.
#include <iostream>
#include <string>

#include "import/onnx/model.h"

int main() {
  int imported = 0, refused = 0;
  for (std::string path; std::getline(std::cin, path);) {
    if (const auto model = millpower::import::OpenOnnx(path)) {
      ++imported;
      std::cout << "ok " << path << '\n';
    } else {
      ++refused;
      std::cout << "refused " << model.error().message << '\n';
    }
  }
  std::cout << imported << " imported, " << refused << " refused\n";
}
