// A model of tensors as it came from its files: a recommender, an encoder, a small CNN; what ONNX,
// PyTorch's .pt2 and TensorFlow's SavedModel become alike.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "ir/graph.h"
#include "ir/weights.h"

namespace millpower::import {

// A tensor that goes in or comes out, under its public name.
struct Port {
  std::string name;   // as the file has it, any characters
  std::string value;  // the graph's input or output; of an input with a lookup, what it gives
  DType dtype = DType::kF32;
  bool is_string = false;  // elements are byte strings, which a lookup turns into integers
  ir::Shape shape;         // symbols are dimensions known only with a request
  // Of an input whose elements say which rows of tables are taken, what one does that is no row's
  // number, as ToString(IdPolicy) has it; several, if tables differ, divided by ", ". Empty: it
  // names no rows.
  std::string id_policy = {};
};

// The host prologue: what happens to an input before the Program runs, as chips have no strings.
// Each element becomes the value of its key, or `otherwise`, or for hashing a bucket.
struct Lookup {
  std::string input;              // the port
  std::string value;              // the graph's input, i64, of the port's shape
  std::vector<std::string> keys;  // strings, or decimal integers
  std::vector<int64_t> values;    // by key
  int64_t otherwise = -1;         // of keys that are not there, when buckets is 0
  int64_t buckets = 0;  // > 0: base + a hash of the key (TensorFlow's Fingerprint64) % buckets
  int64_t bucket_base = 0;
};

struct TensorModel {
  std::string format;  // "onnx", "pt2", "saved_model"
  ir::Graph graph;     // verified
  std::unique_ptr<ir::WeightSource> weights;
  std::vector<Port> inputs;
  std::vector<Port> outputs;
  std::vector<Lookup> prologue;
  std::map<std::string, int64_t> operators;  // how often each of the file's operators was met
  std::vector<std::string> notes;            // what a person should know, one line each
};

// What happens to ids of an input that name rows of tables (features.h).
struct IdPolicy {
  enum class Kind : uint8_t {
    kError,    // an id that is no row's number fails its request
    kClamp,    // ... means the nearest row there is
    kDefault,  // ... means row `row`
    kHash,     // every id means a row that a hash of it tells
  };
  Kind kind = Kind::kError;
  int64_t row = 0;  // of kDefault
  bool operator==(const IdPolicy&) const = default;
};

struct TensorOptions {
  // Upper bounds of symbolic dimensions, by the file's name for them; others get `max_batch` when
  // they are an input's first dimension, else `max_other`.
  std::map<std::string, int64_t> symbol_max = {};
  int64_t max_batch = 2048;
  int64_t max_other = 512;
  // Shapes of inputs to take instead of the file's, by port; all constant.
  std::map<std::string, std::vector<int64_t>> input_shapes = {};
  std::string signature = "serving_default";  // of a SavedModel
  // Of inputs that name rows of tables, by port, in place of what the framework does (an error; or
  // negative ids count from the end).
  std::map<std::string, IdPolicy> id_policies = {};
};

// Opens an .onnx or .pt2 file or a SavedModel folder; of an .onnx file the name tells, of the
// others the content.
// Errors: kNotFound, kIo, kCorrupt; kUnsupported, which lists every operator, type and form that is
// not supported, with its place, at once; kInvalidArgument (an id policy that does not fit its
// input).
Result<TensorModel> OpenTensorModel(const std::filesystem::path& path,
                                    const TensorOptions& options = {});

// Whether OpenTensorModel is for this path (rather than OpenModel of model.h).
bool IsTensorModel(const std::filesystem::path& path);

}  // namespace millpower::import
