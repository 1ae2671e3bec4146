// TensorFlow Serving's REST API, from tensorflow.org/tfx/serving/api_rest.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "ranking/engine.h"
#include "serve/inference/protocol.h"

namespace millpower::serve::tfserving {

// `store` holds the body. Errors: kInvalidArgument, naming the field; kUnsupported.
Result<InferenceCall> ReadPredict(const ranking::ModelPtr& model,
                                  std::shared_ptr<TensorStore> store);
// The output "scores" of classifiers, with labels from an output of integers "classes"; "outputs"
// of regressions; or the only output.
Result<InferenceCall> ReadClassify(const ranking::ModelPtr& model,
                                   std::shared_ptr<TensorStore> store);
Result<InferenceCall> ReadRegress(const ranking::ModelPtr& model,
                                  std::shared_ptr<TensorStore> store);

// "DT_FLOAT"; "DT_STRING" of strings.
const char* TypeNameOf(const ranking::Port& port);
Json Metadata(const ranking::Model& model);
Json Status(const std::vector<ranking::ModelPtr>& versions);

}  // namespace millpower::serve::tfserving
