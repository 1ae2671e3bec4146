#include "serve/models.h"

#include "base/check.h"

namespace millpower::serve {

void ModelRegistry::Add(ServedModel model) {
  CHECK(model.engine != nullptr && model.tokenizer != nullptr && model.max_model_len > 0)
      << model.name;
  auto added = std::make_shared<const ServedModel>(std::move(model));
  std::lock_guard lock(mutex_);
  for (auto& present : models_)
    if (present->name == added->name) {
      present = std::move(added);
      return;
    }
  models_.push_back(std::move(added));
}

void ModelRegistry::Remove(const std::string& name) {
  std::lock_guard lock(mutex_);
  std::erase_if(models_, [&](const auto& model) { return model->name == name; });
}

Result<std::shared_ptr<const ServedModel>> ModelRegistry::Find(const std::string& name) const {
  std::lock_guard lock(mutex_);
  for (const auto& model : models_)
    if (model->name == name) return model;
  return Fail(ErrorCode::kNotFound, "the model '" + name + "' does not exist", "model");
}

std::vector<std::shared_ptr<const ServedModel>> ModelRegistry::All() const {
  std::lock_guard lock(mutex_);
  return models_;
}

}  // namespace millpower::serve
