// Values of variables that the restore operation leaves out. Where a saved object holds a variable
// under another object (Keras 3 inside of a tf.Module), TensorFlow restores a copy of it, and its
// own loader takes the value from the graph of objects instead: a function's captured arguments are
// objects, and objects have keys among the variables.
#pragma once

#include "base/result.h"
#include "import/tensorflow/state.h"

namespace millpower::import {

// Gives each variable without value that the graph hands to a function the value of the object that
// the function was saved with. Without a graph of objects nothing happens. Errors: those of the
// bundle; kCorrupt.
Result<void> BindCaptures(const tensorflow::MetaGraph& graph, State& state);

}  // namespace millpower::import
