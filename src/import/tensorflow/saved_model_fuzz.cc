// Any bytes as the saved_model.pb of a folder with variables and a table: an error, or a graph that
// is sound. Seeds: tests/fuzz_seeds/saved_model.
#include <cstdlib>

#include "import/tensorflow/model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace import = millpower::import;
  millpower::tensorflow::SavedModel saved;
  if (!saved.ParseFromArray(data, static_cast<int>(size))) return 0;
  const auto model = import::ImportSavedModel(
      saved, MILLPOWER_SOURCE_DIR "/tests/saved_model_data/tiny", import::TensorOptions{});
  if (model && !millpower::ir::Verify(model->graph)) std::abort();
  return 0;
}
