#include "serve/model_host.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <list>
#include <mutex>
#include <thread>

#include "base/check.h"

namespace millpower::serve {

const char* Name(ModelState state) {
  constexpr const char* kNames[] = {"loading", "ready", "unloading", "failed"};
  return kNames[static_cast<size_t>(state)];
}

struct ModelHost::Impl {
  struct Entry {
    ModelStatus status;
    bool unwanted = false;  // to be unloaded once it is loaded
  };
  using EntryPtr = std::shared_ptr<Entry>;

  Impl(ModelRegistry& registry_in, ModelLoader loader_in, int64_t drain_timeout_ns_in)
      : registry(registry_in),
        loader(std::move(loader_in)),
        drain_timeout_ns(drain_timeout_ns_in) {}

  EntryPtr FindEntry(const std::string& name) const;
  Result<void> LoadEntry(const EntryPtr& entry, bool at_start);
  void UnloadEntry(const EntryPtr& entry, int64_t timeout_ns);

  ModelRegistry& registry;
  const ModelLoader loader;
  const int64_t drain_timeout_ns;
  std::atomic<bool> stopping{false};

  std::mutex loader_mutex;   // one load at a time
  mutable std::mutex mutex;  // of the entries and all that is in them
  std::list<EntryPtr> entries;

  boost::asio::thread_pool loading{1};
  boost::asio::thread_pool unloading{2};
};

ModelHost::Impl::EntryPtr ModelHost::Impl::FindEntry(const std::string& name) const {
  for (const EntryPtr& entry : entries)
    if (entry->status.spec.name == name) return entry;
  return nullptr;
}

Result<void> ModelHost::Impl::LoadEntry(const EntryPtr& entry, bool at_start) {
  const ModelSpec spec = entry->status.spec;  // constant since it was made
  Result<ServedModel> loaded = Fail(ErrorCode::kUnavailable, "the server is shutting down");
  try {
    const std::lock_guard one(loader_mutex);
    if (!stopping)
      loaded = loader(spec, at_start, [&](int64_t done_bytes, int64_t total_bytes) {
        std::lock_guard lock(mutex);
        entry->status.done_bytes = done_bytes;
        entry->status.total_bytes = total_bytes;
      });
  } catch (const std::exception& error) {  // out of memory, for one
    loaded = Fail(ErrorCode::kNoCapacity, std::string("loading failed: ") + error.what());
  }
  std::unique_lock lock(mutex);
  ModelStatus& status = entry->status;
  if (!loaded) {
    registry.Remove(spec.name);
    status.state = ModelState::kFailed;
    status.error = loaded.error().message;
    if (entry->unwanted) entries.remove(entry);
    return std::unexpected(loaded.error());
  }
  CHECK(loaded->name == spec.name) << loaded->name;
  status.model = std::make_shared<const ServedModel>(std::move(*loaded));
  if (entry->unwanted) {
    status.state = ModelState::kUnloading;
    lock.unlock();
    UnloadEntry(entry, 0);
    return {};
  }
  status.state = ModelState::kReady;
  registry.Add(status.model);
  return {};
}

// The entry is kUnloading, and nobody finds the model any more.
void ModelHost::Impl::UnloadEntry(const EntryPtr& entry, int64_t timeout_ns) {
  const std::shared_ptr<const ServedModel>& model = entry->status.model;  // ours alone to change
  model->engine->Drain(timeout_ns);
  // Who still holds the model is about to let go: a request whose last tokens are being sent, a
  // glance at its counters. The engine must not be destroyed by one of its own sinks.
  while (model.use_count() > 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::atomic_thread_fence(std::memory_order_acquire);
  std::shared_ptr<const ServedModel> last;
  {
    std::lock_guard lock(mutex);
    last = std::move(entry->status.model);
  }
  last.reset();
  // Gone from the list means that the memory is free.
  std::lock_guard lock(mutex);
  entries.remove(entry);
  spdlog::info("unloaded '{}'", entry->status.spec.name);
}

ModelHost::ModelHost(ModelRegistry& registry, ModelLoader loader, int64_t drain_timeout_ns)
    : impl_(std::make_unique<Impl>(registry, std::move(loader), drain_timeout_ns)) {}

ModelHost::~ModelHost() {
  impl_->stopping = true;
  impl_->loading.join();
  std::vector<Impl::EntryPtr> ready;
  {
    std::lock_guard lock(impl_->mutex);
    for (const Impl::EntryPtr& entry : impl_->entries)
      if (entry->status.state == ModelState::kReady) {
        entry->status.state = ModelState::kUnloading;
        impl_->registry.Remove(entry->status.spec.name);
        ready.push_back(entry);
      }
  }
  for (const Impl::EntryPtr& entry : ready) impl_->UnloadEntry(entry, 0);
  impl_->unloading.join();
}

Result<void> ModelHost::LoadAtStart(const std::vector<ModelSpec>& specs) {
  std::vector<Impl::EntryPtr> added;
  {
    std::lock_guard lock(impl_->mutex);
    for (const ModelSpec& spec : specs) {
      if (impl_->FindEntry(spec.name) != nullptr)
        return Fail(ErrorCode::kInvalidArgument,
                    "two models of the name '" + spec.name + "': give them as NAME=PATH", "model");
      added.push_back(std::make_shared<Impl::Entry>(Impl::Entry{{.spec = spec}}));
      impl_->entries.push_back(added.back());
      impl_->registry.Announce(spec.name, true);
    }
  }
  for (const Impl::EntryPtr& entry : added) TRY(impl_->LoadEntry(entry, true));
  return {};
}

bool ModelHost::Load(ModelSpec spec) {
  std::lock_guard lock(impl_->mutex);
  if (const auto present = impl_->FindEntry(spec.name)) {
    if (present->status.state != ModelState::kFailed) return false;
    impl_->entries.remove(present);
  }
  auto entry = std::make_shared<Impl::Entry>(Impl::Entry{{.spec = std::move(spec)}});
  impl_->entries.push_back(entry);
  impl_->registry.Announce(entry->status.spec.name, false);
  boost::asio::post(impl_->loading, [impl = impl_.get(), entry] {
    const auto loaded = impl->LoadEntry(entry, false);
    if (!loaded) spdlog::error("loading '{}': {}", entry->status.spec.name, loaded.error().message);
  });
  return true;
}

bool ModelHost::Unload(const std::string& name) {
  std::lock_guard lock(impl_->mutex);
  const auto entry = impl_->FindEntry(name);
  if (entry == nullptr || entry->unwanted) return false;
  switch (entry->status.state) {
    case ModelState::kUnloading:
      return false;
    case ModelState::kFailed:
      impl_->entries.remove(entry);
      break;
    case ModelState::kLoading:
      entry->unwanted = true;
      impl_->registry.Remove(name);
      break;
    case ModelState::kReady:
      entry->status.state = ModelState::kUnloading;
      impl_->registry.Remove(name);
      boost::asio::post(impl_->unloading, [impl = impl_.get(), entry] {
        impl->UnloadEntry(entry, impl->drain_timeout_ns);
      });
      break;
  }
  return true;
}

std::vector<ModelStatus> ModelHost::List() const {
  std::lock_guard lock(impl_->mutex);
  std::vector<ModelStatus> all;
  for (const auto& entry : impl_->entries) all.push_back(entry->status);
  return all;
}

std::optional<ModelStatus> ModelHost::Find(const std::string& name) const {
  std::lock_guard lock(impl_->mutex);
  const auto entry = impl_->FindEntry(name);
  return entry == nullptr ? std::nullopt : std::optional(entry->status);
}

}  // namespace millpower::serve
