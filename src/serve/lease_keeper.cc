#include "serve/lease_keeper.h"

#include <condition_variable>
#include <mutex>
#include <utility>

namespace millpower::serve {
std::vector<engine::CallerShare> SharesAt(const ledger::Directory& directory, int64_t unix_s) {
  std::vector<engine::CallerShare> shares;
  if (directory.leases().empty()) return shares;
  for (const ledger::Tenant& tenant : directory.tenants()) {
    const int64_t share_ppm = directory.SharePpm(tenant.number, unix_s);
    if (share_ppm > 0)
      shares.push_back({.caller = tenant.id, .share = static_cast<double>(share_ppm) / 1e6});
  }
  return shares;
}

LeaseKeeper::LeaseKeeper(const ledger::Ledger& ledger, const ModelRegistry& models,
                         const Clock& clock, std::chrono::milliseconds pause, Tell tell_others)
    : ledger_(ledger),
      models_(models),
      clock_(clock),
      tell_others_(std::move(tell_others)),
      thread_([this, pause](std::stop_token stop) {
        std::mutex mutex;
        std::condition_variable_any stopped;
        std::unique_lock lock(mutex);
        while (!stop.stop_requested()) {
          Look();
          stopped.wait_for(lock, stop, pause, [] { return false; });
        }
      }) {}

LeaseKeeper::~LeaseKeeper() = default;

void LeaseKeeper::Look() {
  const std::vector<engine::CallerShare> shares =
      SharesAt(*ledger_.directory(), clock_.UnixSeconds());
  // Engines begin with none.
  if (shares.empty() && !told_) return;
  for (const auto& model : models_.All()) model->engine->SetShares(shares);
  if (tell_others_) tell_others_(shares);
  told_ = !shares.empty();
}

}  // namespace millpower::serve
