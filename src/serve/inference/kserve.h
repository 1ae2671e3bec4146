// The Open Inference Protocol (KServe V2) over HTTP, with Triton's extensions for binary tensors,
// statistics, model configuration and the repository. From
// github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md) and
// github.com/triton-inference-server/server (docs/protocol).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "ranking/engine.h"
#include "serve/inference/protocol.h"

namespace millpower::serve::kserve {

// "FP32"; "BYTES" of strings.
const char* DatatypeOf(const ranking::Port& port);

// Reads an inference request. `store` holds the body; `header_length`: of the header
// Inference-Header-Content-Length, empty where there is none. Errors: kInvalidArgument, naming the
// field; kUnsupported.
Result<InferenceCall> ReadInfer(const ranking::ModelPtr& model, std::shared_ptr<TensorStore> store,
                                std::string_view header_length);

Json ServerMetadata();
// `versions`: those that are loaded.
Json ModelMetadata(const ranking::Model& model, const std::vector<int64_t>& versions);
Json ModelConfig(const ranking::Model& model);
Json ModelStatistics(const ranking::Model& model, const ranking::ModelStats& stats);

}  // namespace millpower::serve::kserve
