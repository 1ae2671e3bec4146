#include "serve/models.h"

#include <algorithm>

#include "base/check.h"

namespace millpower::serve {

void ModelRegistry::Announce(const std::string& name, bool at_start) {
  std::lock_guard lock(mutex_);
  std::erase_if(announced_, [&](const Announced& other) { return other.name == name; });
  announced_.push_back({name, at_start});
}

void ModelRegistry::Add(ServedModel model) {
  Add(std::make_shared<const ServedModel>(std::move(model)));
}

void ModelRegistry::Add(std::shared_ptr<const ServedModel> model) {
  CHECK(model->engine != nullptr && model->tokenizer != nullptr && model->metrics != nullptr &&
        model->max_model_len > 0)
      << model->name;
  std::lock_guard lock(mutex_);
  std::erase_if(announced_, [&](const Announced& other) { return other.name == model->name; });
  for (auto& present : models_)
    if (present->name == model->name) {
      present.swap(model);  // the old one goes when the lock is free
      return;
    }
  models_.push_back(std::move(model));
}

void ModelRegistry::Remove(const std::string& name) {
  std::lock_guard lock(mutex_);
  std::erase_if(announced_, [&](const Announced& other) { return other.name == name; });
  std::erase_if(models_, [&](const auto& model) { return model->name == name; });
}

Result<std::shared_ptr<const ServedModel>> ModelRegistry::Find(const std::string& name) const {
  std::lock_guard lock(mutex_);
  for (const auto& model : models_)
    if (model->name == name) return model;
  if (std::ranges::find(announced_, name, &Announced::name) != announced_.end())
    return Fail(ErrorCode::kUnavailable, "the model '" + name + "' is still loading", "model");
  return NoSuchModel(name);
}

std::unexpected<Error> ModelRegistry::NoSuchModel(const std::string& name) {
  return Fail(ErrorCode::kNotFound, "the model '" + name + "' does not exist", "model");
}

std::vector<std::shared_ptr<const ServedModel>> ModelRegistry::All() const {
  std::lock_guard lock(mutex_);
  return models_;
}

bool ModelRegistry::IsAwaited() const {
  std::lock_guard lock(mutex_);
  return std::ranges::any_of(announced_, &Announced::at_start);
}

bool ModelRegistry::IsReady() const {
  std::lock_guard lock(mutex_);
  return !models_.empty() && std::ranges::none_of(announced_, &Announced::at_start);
}

}  // namespace millpower::serve
