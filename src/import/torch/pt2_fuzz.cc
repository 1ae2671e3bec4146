// Any bytes: an error, or a verified graph whose weights lie in memory. Bytes that are no zip
// archive are tried as the exported program of one.
#include <cstdlib>
#include <string>

#include "import/torch/archive.h"
#include "import/torch/model.h"
#include "import/torch/test_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace millpower;
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  std::string file;
  if (!import::torch::IsZip(bytes)) file = import::torch::FlatFile(import::torch::AsText(bytes));
  const auto model =
      import::OpenPt2(file.empty() ? bytes : import::torch::AsBytes(file), import::TensorOptions{});
  if (model && !ir::Verify(model->graph)) std::abort();
  return 0;
}
