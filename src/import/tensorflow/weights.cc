#include "import/tensorflow/weights.h"

namespace millpower::import {

void SavedModelWeights::AddVariable(const std::string& name, const std::string& key,
                                    BundleTensor tensor, std::optional<Extent> rows) {
  variables_.emplace(name, Variable{key, std::move(tensor), rows});
}

void SavedModelWeights::AddConstant(const std::string& name, Literal literal) {
  constants_.emplace(name, std::move(literal));
}

Result<ir::TensorView> SavedModelWeights::Find(const std::string& name) const {
  if (const auto constant = constants_.find(name); constant != constants_.end()) {
    const Literal& literal = constant->second;
    return ir::TensorView{literal.dtype, literal.shape, literal.bytes};
  }
  const auto found = variables_.find(name);
  if (found == variables_.end())
    return Fail(ErrorCode::kNotFound, "no weight '" + name + "' in the saved model");
  const Variable& variable = found->second;
  TRY_ASSIGN(std::span<const std::byte> bytes, bundle_->Bytes(variable.key));
  std::vector<int64_t> shape = variable.tensor.shape;
  if (variable.rows) {
    const auto row_bytes = shape[0] == 0 ? size_t{0} : bytes.size() / static_cast<size_t>(shape[0]);
    bytes = bytes.subspan(static_cast<size_t>(variable.rows->start) * row_bytes,
                          static_cast<size_t>(variable.rows->length) * row_bytes);
    shape[0] = variable.rows->length;
  }
  return ir::TensorView{variable.tensor.dtype, std::move(shape), bytes};
}

void SavedModelWeights::Release(std::span<const std::byte> bytes) const {
  if (bundle_) bundle_->Release(bytes);
}

}  // namespace millpower::import
