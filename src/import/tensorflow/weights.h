// Where the graph's weights are: variables in the bundle, and large constants of the graph itself.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "import/tensorflow/bundle.h"
#include "import/tensorflow/tensor_proto.h"
#include "ir/weights.h"

namespace millpower::import {

// Thread-safe once filled.
class SavedModelWeights final : public ir::WeightSource {
 public:
  // May be null, of models without variables.
  void SetBundle(std::unique_ptr<Bundle> bundle) { bundle_ = std::move(bundle); }
  const Bundle* bundle() const { return bundle_.get(); }

  // Names are new (the caller sees to it). A part of the tensor: rows [first, first + rows) of it.
  void AddVariable(const std::string& name, const std::string& key, BundleTensor tensor,
                   std::optional<Extent> rows = std::nullopt);
  void AddConstant(const std::string& name, Literal literal);

  Result<ir::TensorView> Find(const std::string& name) const override;
  void Release(std::span<const std::byte> bytes) const override;

 private:
  struct Variable {
    std::string key;
    BundleTensor tensor;
    std::optional<Extent> rows;
  };
  std::unique_ptr<Bundle> bundle_;
  std::map<std::string, Variable> variables_;
  std::map<std::string, Literal> constants_;
};

}  // namespace millpower::import
