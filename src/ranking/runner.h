// One loaded version of a model: its queue, and the thread that makes launches of it. Internal to
// the engine.
#pragma once

#include <array>
#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "device/device.h"
#include "ranking/batch.h"
#include "ranking/engine.h"
#include "ranking/layout.h"
#include "ranking/pending.h"

namespace millpower::ranking {

// Who has leased what, and what the others have. Thread-safe.
class Leases {
 public:
  void Set(std::vector<Share> shares);
  device::Claim ClaimOf(const std::string& caller) const;

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::string, double> shares_;
  double rest_ = 1;
};

// Thread-safe but for WarmUp, which comes first.
class Runner {
 public:
  // All that is referred to outlives it.
  Runner(ModelPtr model, Layout layout, std::unique_ptr<device::LoadedProgram> program,
         const Clock& clock, const Leases& leases);
  ~Runner();

  // Launches of one row and of max_batch, before it is started. Errors: the device's.
  Result<void> WarmUp();
  void Start();
  // What waits is worked off within `timeout_ns`, the rest refused; the memory is free afterwards.
  void Stop(int64_t timeout_ns);

  Result<void> Submit(Request request, Callback callback);
  Result<void> UpdateRows(const RowUpdate& update);
  ModelStats Stats() const;
  const ModelPtr& model() const { return model_; }

 private:
  using Requests = std::vector<std::unique_ptr<Pending>>;
  // Rows made ready; `rows` are the caller's, who waits.
  struct Update {
    int32_t buffer = 0;
    std::span<const int64_t> rows;
    std::vector<std::byte> bytes;
    std::promise<Result<void>> done;
  };
  struct Refusal {
    std::unique_ptr<Pending> pending;
    ErrorCode code;
  };

  void Loop();
  // Under the lock. Whether something was done, which needs another look at everything.
  bool ApplyUpdate(std::unique_lock<std::mutex>& lock);
  bool RefuseOverdue(std::unique_lock<std::mutex>& lock);
  // Until a call of others, or a moment of the clock.
  void Wait(std::unique_lock<std::mutex>& lock, int64_t until_ns);
  // Chooses who shares the next launch; 0: go on now, else when to, unless others come.
  int64_t Choose(int64_t now_ns);
  void TakeChosen();
  // It waits no more; under the lock.
  void Forget(const Pending& pending);
  void Refuse(Refusal refusal);

  void Run(std::span<std::unique_ptr<Pending>> requests);
  // The device's time for it. Errors: the device's; kNoCapacity.
  Result<device::Completion> Launch(std::span<std::unique_ptr<Pending>> requests, Timing& input);
  Result<std::vector<Answer>> Split(std::span<std::unique_ptr<Pending>> requests);
  void Finish(Pending& pending, Result<Answer> answer);
  Result<Update> MakeUpdate(const RowUpdate& update) const;
  Result<void> WarmUpWith(int64_t rows);

  const ModelPtr model_;
  const Layout layout_;
  std::unique_ptr<device::LoadedProgram> program_;
  const Clock& clock_;
  const Leases& leases_;

  // ---- Of the thread alone.
  Batcher batcher_;
  device::Launch launch_;
  Requests batch_;
  std::vector<Refusal> refused_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::array<Requests, device::kLaunchClasses> queue_;
  std::vector<std::pair<int, size_t>> chosen_;  // of the queue: class and place, ascending
  std::vector<Update*> updates_;
  int64_t waiting_ = 0, waiting_bytes_ = 0;
  std::unordered_map<std::string, int64_t> waiting_of_;  // by caller
  int64_t calls_ = 0;  // that change any of this: what the thread, when it waits, waits for
  bool stopping_ = false;
  int64_t stop_ns_ = 0;  // what has not begun by then is refused

  mutable std::mutex stats_mutex_;
  ModelStats stats_;

  std::jthread thread_;
};

}  // namespace millpower::ranking
