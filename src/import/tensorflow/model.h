// TensorFlow's SavedModel: a folder with saved_model.pb (graph, functions, signatures), variables/
// and assets/, as Keras's model.export and tf.saved_model.save write it.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "import/tensor/model.h"
#include "import/tensorflow/saved_model.pb.h"

namespace millpower::import {

// The signature options.signature of the folder's model for serving. Variables get the values that
// its restore operation gives them, tables those of its initialiser; nothing is executed otherwise.
// Dimensions that the signature leaves open: the first of every input is "batch", others are
// "INPUT.AXIS"; the first of an input whose items belong to segments, "items".
//
// Lookups in tables and hashes of inputs become the prologue. A port that is looked up in several
// ways, or looked up and used as it is, has several lookups; Port::value is then the graph's input
// for the elements as they are, and otherwise that of its first lookup. A port that has no part in
// the outputs has an empty value. Hashes of integers are those of their decimal digits.
//
// Errors: kNotFound (file, signature: the message lists those there are), kIo, kCorrupt;
// kUnsupported, which lists all that is not supported, by operator and node.
Result<TensorModel> OpenSavedModel(const std::filesystem::path& folder,
                                   const TensorOptions& options);

// The same of a graph in memory; `folder` is where variables and assets are. For tests and fuzzing.
Result<TensorModel> ImportSavedModel(const tensorflow::SavedModel& saved,
                                     const std::filesystem::path& folder,
                                     const TensorOptions& options);

// Whether the path is a folder with a saved_model.pb.
bool IsSavedModel(const std::filesystem::path& path);

}  // namespace millpower::import
