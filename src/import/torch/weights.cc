#include "import/torch/weights.h"

namespace millpower::import::torch {

Result<ir::TensorView> Pt2Weights::Add(const std::string& name, const StridedTensor& tensor) {
  size_t inflated = 0;
  for (const std::vector<std::byte>& bytes : inflated_) inflated += bytes.size();
  std::vector<std::byte> copy;
  TRY_ASSIGN(ir::TensorView view, RowMajor(tensor, copy));
  if (!copy.empty()) {
    copied_bytes_ += copy.size();
    if (copied_bytes_ > bytes_.size() + inflated)
      return Fail(ErrorCode::kUnsupported, "the same bytes stand for too many tensors");
    copies_.push_back(std::move(copy));
    view.bytes = copies_.back();
  }
  tensors_[name] = view;
  return view;
}

Result<ir::TensorView> Pt2Weights::Find(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    return Fail(ErrorCode::kNotFound, "no tensor '" + name + "' in the .pt2 file");
  return found->second;
}

void Pt2Weights::Release(std::span<const std::byte> bytes) const { DropResident(*files_, bytes); }

}  // namespace millpower::import::torch
