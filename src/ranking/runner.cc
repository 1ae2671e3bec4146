#include "ranking/runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <new>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "ranking/rows.h"

namespace millpower::ranking {
namespace {

// What others have where everything is leased.
constexpr double kLeastRest = 0.01;
constexpr int64_t kWarmUpNs = 2'000'000;
constexpr device::LaunchClass kWarmUpClass = device::kLaunchClasses - 1;

void Count(Timing& timing, int64_t ns, int64_t count = 1) {
  timing.count += count;
  timing.ns += ns;
}

void Count(Durations& durations, int64_t ns) {
  const auto us = static_cast<uint64_t>(std::max<int64_t>(ns, 0)) / 1000;
  const int bucket = std::min(static_cast<int>(std::bit_width(us)), kDurationBuckets - 1);
  ++durations.buckets[static_cast<size_t>(bucket)];
  Count(durations.total, ns);
}

Error ErrorOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kDeadline:
      return {code, "the request could not begin before its time was over", ""};
    case ErrorCode::kCancelled:
      return {code, "the request was cancelled", ""};
    default:
      return {code, "the model has been unloaded", "model"};
  }
}

// What `work` gives, a Result; running out of memory is an error of those who asked for the work,
// not of the process.
template <typename Work>
std::invoke_result_t<Work> WithinMemory(Work work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return Fail(ErrorCode::kNoCapacity, "no memory for this now");
  }
}

std::unexpected<Error> BadRows(const isa::Buffer& table, const std::string& what) {
  return Fail(ErrorCode::kInvalidArgument, fmt::format("table '{}': {}", table.name, what), "rows");
}

// Each is a row of the table, and none comes twice.
Result<void> CheckRows(std::span<const int64_t> rows, const isa::Buffer& table) {
  if (rows.empty()) return BadRows(table, "no rows are given");
  std::vector<int64_t> sorted(rows.begin(), rows.end());
  std::ranges::sort(sorted);
  for (const int64_t end : {sorted.front(), sorted.back()})
    if (end < 0 || end >= table.rows.size)
      return BadRows(table, fmt::format("there is no row {}, of {} rows", end, table.rows.size));
  const auto twice = std::ranges::adjacent_find(sorted);
  if (twice == sorted.end()) return {};
  return BadRows(table, fmt::format("row {} is given twice", *twice));
}

}  // namespace

void Leases::Set(std::vector<Share> shares) {
  std::lock_guard lock(mutex_);
  shares_.clear();
  double total = 0;
  for (const Share& each : shares) total += each.share;
  for (const Share& each : shares)
    if (each.share > 0) shares_[each.caller] = each.share / std::max(total, 1.0);
  rest_ = std::max(1 - std::min(total, 1.0), kLeastRest);
}

device::Claim Leases::ClaimOf(const std::string& caller) const {
  std::lock_guard lock(mutex_);
  const auto found = shares_.find(caller);
  const bool has_lease = found != shares_.end();
  return {.caller = std::hash<std::string>()(caller),
          .share = has_lease ? found->second : rest_,
          .is_split = !has_lease};
}

Runner::Runner(ModelPtr model, Layout layout, std::unique_ptr<device::LoadedProgram> program,
               const Clock& clock, const Leases& leases)
    : model_(std::move(model)),
      layout_(std::move(layout)),
      program_(std::move(program)),
      clock_(clock),
      leases_(leases),
      batcher_(layout_, model_->config.max_batch),
      launch_(*layout_.program) {}

Runner::~Runner() { Stop(0); }

// ---- Before it is ready

// Twice as many rows each time: other models' launches wait for none that takes much longer than
// kWarmUpNs.
Result<void> Runner::WarmUp() {
  const int64_t most = layout_.batch < 0 ? 1 : model_->config.max_batch;
  for (int64_t rows = 1;; rows = std::min(2 * rows, most)) {
    const int64_t begin_ns = clock_.NowNs();
    TRY(WarmUpWith(rows));
    if (rows == most || clock_.NowNs() - begin_ns > kWarmUpNs) return {};
  }
}

Result<void> Runner::WarmUpWith(int64_t rows) {
  for (const int32_t reg : layout_.free_registers) {
    const bool adds = layout_.adds[static_cast<size_t>(reg)];
    launch_.registers[static_cast<size_t>(reg)] = std::min(adds ? rows : 1, layout_.most(reg));
  }
  launch_.claims.clear();
  batcher_.FillZeros(launch_);
  const auto ticket = program_->Submit(launch_, kWarmUpClass);
  // Zeros may be no valid input; pages are warm all the same.
  if (!ticket && ticket.error().code == ErrorCode::kInvalidArgument) return {};
  if (!ticket) return std::unexpected(ticket.error());
  const auto completed = program_->Complete(*ticket);
  if (!completed && completed.error().code != ErrorCode::kInvalidArgument)
    return std::unexpected(completed.error());
  return {};
}

void Runner::Start() {
  thread_ = std::jthread([this] { Loop(); });
}

void Runner::Stop(int64_t timeout_ns) {
  {
    std::lock_guard lock(mutex_);
    const int64_t stop_ns = clock_.NowNs() + timeout_ns;
    stop_ns_ = stopping_ ? std::min(stop_ns_, stop_ns) : stop_ns;
    stopping_ = true;
    ++calls_;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  program_.reset();
}

// ---- What others ask

Result<void> Runner::Submit(Request request, Callback callback) {
  const auto refuse = [&](Error error) -> Result<void> {
    std::lock_guard lock(stats_mutex_);
    ++stats_.refused;
    return std::unexpected(std::move(error));
  };
  auto made = MakePending(*model_, layout_, std::move(request));
  if (!made) return refuse(std::move(made.error()));
  Pending& pending = **made;
  const ModelConfig& config = model_->config;
  pending.callback = std::move(callback);
  pending.submitted_ns = clock_.NowNs();
  pending.due_ns = pending.submitted_ns + config.max_queue_delay_us * 1000;
  if (const int64_t deadline = pending.request.deadline_ns; deadline != 0) {
    if (deadline <= pending.submitted_ns) return refuse(ErrorOf(ErrorCode::kDeadline));
    // Half of the time there is may go into waiting for company.
    const int64_t half = (deadline - pending.submitted_ns) / 2;
    pending.due_ns = std::min(pending.due_ns, pending.submitted_ns + half);
  }
  pending.request.launch_class =
      std::clamp(pending.request.launch_class, 0, device::kLaunchClasses - 1);
  {
    std::unique_lock lock(mutex_);
    if (stopping_) {
      lock.unlock();
      return refuse(ErrorOf(ErrorCode::kUnavailable));
    }
    // Nobody's requests fill more than half of the queue.
    const std::string& caller = pending.request.caller;
    const auto found = waiting_of_.find(caller);
    const bool has_half = !caller.empty() && found != waiting_of_.end() &&
                          found->second >= std::max<int64_t>(config.max_queue / 2, 1);
    if (has_half || waiting_ >= config.max_queue ||
        waiting_bytes_ + pending.size_bytes > config.max_queue_bytes) {
      lock.unlock();
      return refuse({ErrorCode::kNoCapacity,
                     fmt::format("the queue of model '{}' is full", model_->name), ""});
    }
    ++calls_;
    ++waiting_;
    ++waiting_of_[caller];
    waiting_bytes_ += pending.size_bytes;
    queue_[static_cast<size_t>(pending.request.launch_class)].push_back(std::move(*made));
  }
  wake_.notify_one();
  return {};
}

Result<Runner::Update> Runner::MakeUpdate(const RowUpdate& update) const {
  const isa::Program& program = *layout_.program;
  const int32_t id = program.FindBuffer(update.table);
  const isa::Buffer* table = id < 0 ? nullptr : &program.buffers[static_cast<size_t>(id)];
  if (table == nullptr || table->kind != isa::BufferKind::kWeight ||
      table->form != isa::Form::kTable)
    return Fail(ErrorCode::kNotFound, "there is no table '" + update.table + "'", "table");
  int64_t values = 0;
  if (__builtin_mul_overflow(std::ssize(update.rows), table->cols, &values) ||
      values != std::ssize(update.values))
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("table '{}': {} rows of {} values are told with {} values", table->name,
                            update.rows.size(), table->cols, update.values.size()),
                "values");
  TRY(CheckRows(update.rows, *table));
  auto bytes = MakeTableRows(update.values, update.rows, table->cols, table->dtype);
  if (!bytes) return FailAt("table '" + table->name + "'", bytes.error());
  return Update{.buffer = id, .rows = update.rows, .bytes = *std::move(bytes), .done = {}};
}

Result<void> Runner::UpdateRows(const RowUpdate& update) {
  const auto apply = [&]() -> Result<void> {
    TRY_ASSIGN(Update made, MakeUpdate(update));
    auto done = made.done.get_future();
    {
      std::lock_guard lock(mutex_);
      if (stopping_) return std::unexpected(ErrorOf(ErrorCode::kUnavailable));
      updates_.push_back(&made);
      ++calls_;
    }
    wake_.notify_one();
    return done.get();
  };
  Result<void> applied = WithinMemory(apply);
  std::lock_guard lock(stats_mutex_);
  ++(applied ? stats_.updates : stats_.refused_updates);
  if (applied) stats_.updated_rows += std::ssize(update.rows);
  return applied;
}

ModelStats Runner::Stats() const {
  ModelStats stats;
  {
    std::lock_guard lock(stats_mutex_);
    stats = stats_;
  }
  std::lock_guard lock(mutex_);
  stats.waiting = waiting_;
  stats.waiting_bytes = waiting_bytes_;
  return stats;
}

// ---- The thread

void Runner::Loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    if (ApplyUpdate(lock) || RefuseOverdue(lock)) continue;
    if (waiting_ == 0) {
      if (stopping_) return;
      Wait(lock, kNeverNs);
      continue;
    }
    const int64_t now_ns = clock_.NowNs();
    const int64_t until_ns = Choose(now_ns);
    if (until_ns > now_ns) {
      Wait(lock, until_ns);
      continue;
    }
    TakeChosen();
    lock.unlock();
    Run(batch_);
    batch_.clear();
    lock.lock();
  }
}

void Runner::Wait(std::unique_lock<std::mutex>& lock, int64_t until_ns) {
  clock_.WaitUntil(lock, wake_, until_ns, [this, seen = calls_] { return calls_ != seen; });
}

bool Runner::ApplyUpdate(std::unique_lock<std::mutex>& lock) {
  if (updates_.empty()) return false;
  Update& update = *updates_.front();
  updates_.erase(updates_.begin());
  lock.unlock();
  Result<void> updated =
      WithinMemory([&] { return program_->UpdateRows(update.buffer, update.rows, update.bytes); });
  update.done.set_value(std::move(updated));  // and it is gone
  lock.lock();
  return true;
}

// Before any work is done for them.
bool Runner::RefuseOverdue(std::unique_lock<std::mutex>& lock) {
  const int64_t now_ns = clock_.NowNs();
  for (Requests& queue : queue_)
    std::erase_if(queue, [&](std::unique_ptr<Pending>& pending) {
      const Request& request = pending->request;
      ErrorCode code;
      if (request.cancelled != nullptr && *request.cancelled)
        code = ErrorCode::kCancelled;
      else if (request.deadline_ns != 0 && request.deadline_ns <= now_ns)
        code = ErrorCode::kDeadline;
      else if (stopping_ && stop_ns_ <= now_ns)
        code = ErrorCode::kUnavailable;
      else
        return false;
      Forget(*pending);
      refused_.push_back({std::move(pending), code});
      return true;
    });
  if (refused_.empty()) return false;
  lock.unlock();
  for (Refusal& refusal : refused_) Refuse(std::move(refusal));
  refused_.clear();
  lock.lock();
  return true;
}

void Runner::Forget(const Pending& pending) {
  --waiting_;
  waiting_bytes_ -= pending.size_bytes;
  const auto found = waiting_of_.find(pending.request.caller);
  if (--found->second == 0) waiting_of_.erase(found);
}

void Runner::Refuse(Refusal refusal) {
  {
    std::lock_guard lock(stats_mutex_);
    if (refusal.code == ErrorCode::kCancelled) ++stats_.cancelled;
    if (refusal.code == ErrorCode::kDeadline) ++stats_.expired;
  }
  Finish(*refusal.pending, std::unexpected(ErrorOf(refusal.code)));
}

// The first is always taken. Those that do not fit beside it stay, in order; while there are any,
// waiting gains nothing for them.
int64_t Runner::Choose(int64_t now_ns) {
  batcher_.Clear();
  chosen_.clear();
  int64_t due_ns = kNeverNs;
  for (int i = 0; i < device::kLaunchClasses; ++i) {
    const Requests& queue = queue_[static_cast<size_t>(i)];
    for (size_t j = 0; j < queue.size() && !batcher_.is_full(); ++j) {
      if (!batcher_.Take(*queue[j])) continue;
      chosen_.emplace_back(i, j);
      due_ns = std::min(due_ns, queue[j]->due_ns);
      if (!layout_.joins || queue[j]->alone) return now_ns;
    }
  }
  const bool others_wait = std::ssize(chosen_) < waiting_;
  return batcher_.is_full() || others_wait || stopping_ ? now_ns : due_ns;
}

void Runner::TakeChosen() {
  for (const auto& [queue, place] : chosen_) {
    auto& pending = queue_[static_cast<size_t>(queue)][place];
    Forget(*pending);
    batch_.push_back(std::move(pending));
  }
  for (Requests& queue : queue_)
    std::erase_if(queue, [](const auto& pending) { return pending == nullptr; });
}

// A launch that faults is cut in two, and those again, until who caused it is alone.
void Runner::Run(std::span<std::unique_ptr<Pending>> requests) {
  const int64_t begin_ns = clock_.NowNs();
  Timing input;
  const Result<device::Completion> done = WithinMemory([&] { return Launch(requests, input); });
  const int64_t end_ns = clock_.NowNs();
  const int64_t compute_ns = end_ns - begin_ns - input.ns;
  if (!done) {
    const bool is_cut = done.error().code == ErrorCode::kInvalidArgument && requests.size() > 1;
    {
      std::lock_guard lock(stats_mutex_);
      Count(stats_.faulted, compute_ns);
      if (is_cut) stats_.repeated_launches += 2;
    }
    if (is_cut) {
      Run(requests.first(requests.size() / 2));
      Run(requests.subspan(requests.size() / 2));
      return;
    }
  }
  Result<std::vector<Answer>> answers = std::vector<Answer>();
  if (done) answers = WithinMemory([&] { return Split(requests); });
  const int64_t split_ns = clock_.NowNs();
  int64_t rows = 0;
  for (const auto& request : requests) rows += request->rows(layout_);
  {
    std::lock_guard lock(stats_mutex_);
    for (const auto& request : requests) {
      Count(stats_.queue, begin_ns - request->submitted_ns);
      Count(stats_.queue_durations, begin_ns - request->submitted_ns);
    }
    if (done) {
      ++stats_.launches;
      stats_.rows += rows;
      stats_.device_ns += done->device_ns;
      // As Triton counts: each request of a launch has had all of its time.
      const auto count = std::ssize(requests);
      Count(stats_.input, input.ns * count, count);
      Count(stats_.compute, compute_ns * count, count);
      Count(stats_.output, (split_ns - end_ns) * count, count);
      Count(stats_.by_batch[rows], compute_ns);
    }
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    if (!done || !answers) {
      Finish(*requests[i], std::unexpected(done ? answers.error() : done.error()));
      continue;
    }
    Answer& answer = (*answers)[i];
    const double part = static_cast<double>(answer.rows) / static_cast<double>(rows);
    answer.device_ns = static_cast<int64_t>(static_cast<double>(done->device_ns) * part);
    answer.energy_uj = static_cast<int64_t>(static_cast<double>(done->energy_uj) * part);
    Finish(*requests[i], std::move(answer));
  }
}

Result<std::vector<Answer>> Runner::Split(std::span<std::unique_ptr<Pending>> requests) {
  return batcher_.Split(requests, launch_, *program_);
}

Result<device::Completion> Runner::Launch(std::span<std::unique_ptr<Pending>> requests,
                                          Timing& input) {
  const int64_t begin_ns = clock_.NowNs();
  batcher_.Fill(requests, launch_);
  launch_.claims.clear();
  device::LaunchClass launch_class = device::kLaunchClasses - 1;
  for (const auto& request : requests) {
    launch_class = std::min(launch_class, request->request.launch_class);
    const device::Claim claim = leases_.ClaimOf(request->request.caller);
    if (std::ranges::find(launch_.claims, claim.caller, &device::Claim::caller) ==
        launch_.claims.end())
      launch_.claims.push_back(claim);
  }
  Count(input, clock_.NowNs() - begin_ns);
  TRY_ASSIGN(const device::Ticket ticket, program_->Submit(launch_, launch_class));
  return program_->Complete(ticket);
}

void Runner::Finish(Pending& pending, Result<Answer> answer) {
  const int64_t elapsed_ns = clock_.NowNs() - pending.submitted_ns;
  {
    std::lock_guard lock(stats_mutex_);
    Count(answer ? stats_.success : stats_.fail, elapsed_ns);
    Count(stats_.request_durations, elapsed_ns);
    stats_.last_unix_ms = clock_.UnixMs();
  }
  pending.callback(std::move(answer));
}

}  // namespace millpower::ranking
