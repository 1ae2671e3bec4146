#include "serve/batch/batch_runner.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/mapped_file.h"
#include "serve/errors.h"

namespace millpower::serve {
namespace {

constexpr int kTooManyRequests = 429, kUnavailableStatus = 503;
// What can't be written waits this long (a full disk), and nothing new is asked meanwhile.
constexpr int64_t kWriteRetryNs = 1'000'000'000;
// Lines without an answer that are written down at a time, when a batch ends early.
constexpr size_t kUnansweredAtOnce = 1000;
// Files that are validated at a time, each on a thread of its own.
constexpr size_t kChecksMax = 2;

std::string_view TextOf(const MappedFile& file) {
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The id of a line's request, the same however often it is asked: what the ledger has posted under
// it is not charged again.
std::string RequestId(const BatchRecord& batch, int64_t line) {
  return fmt::format("{}-{}", batch.id, line);
}

std::string ErrorCodeOf(const HttpResponse& response) {
  const auto body = ParseJson(response.body);
  if (!body || !body->is_object()) return "";
  const auto error = body->find("error");
  if (error == body->end() || !error->is_object()) return "";
  const auto code = error->find("code");
  return code == error->end() || !code->is_string() ? "" : code->get<std::string>();
}

int64_t RetryAfterNs(const HttpResponse& response) {
  int64_t seconds = 0;
  for (const auto& [name, value] : response.headers)
    if (name == "retry-after") std::from_chars(value.data(), value.data() + value.size(), seconds);
  return std::clamp<int64_t>(seconds, 0, 3600) * 1'000'000'000;
}

Json ResultHead(const BatchRecord& batch, int64_t line, const std::string& custom_id) {
  return {{"id", fmt::format("batch_req_{}_{}", batch.id.substr(batch.id.find('_') + 1), line)},
          {"custom_id", custom_id}};
}

std::string AnsweredText(const BatchRecord& batch, int64_t line, const std::string& custom_id,
                         const HttpResponse& response) {
  Json result = ResultHead(batch, line, custom_id);
  auto body = ParseJson(response.body);
  result["response"] = {{"status_code", response.status},
                        {"request_id", RequestId(batch, line)},
                        {"body", body ? std::move(*body) : Json(response.body)}};
  result["error"] = nullptr;
  return DumpJson(result);
}

std::string UnansweredText(const BatchRecord& batch, int64_t line, const std::string& custom_id,
                           const char* code, const char* message) {
  Json result = ResultHead(batch, line, custom_id);
  result["response"] = nullptr;
  result["error"] = {{"code", code}, {"message", message}};
  return DumpJson(result);
}

// What comes from other threads. Outlives the runner where answers come late.
struct Inbox {
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::pair<int64_t, HttpResponse>> answers;  // by number of the asking
  std::set<int64_t> checked;  // batches whose validation has come to an end
  bool changed = true;        // look at the store
  bool stopping = false;
};

}  // namespace

struct BatchRunner::Impl {
  // Nothing is asked before its time.
  struct Backoff {
    int64_t not_before_ns = 0;
    int64_t time_ns = 0;  // that it took last
  };
  struct Batch {
    BatchRecord record;
    // Once its lines are wanted.
    bool loaded = false;
    MappedFile input = {};
    std::vector<InputLine> lines = {};
    std::vector<bool> settled = {};  // by index in `lines`: done, or among `unsaved`
    size_t next = 0;                 // the first line that was never asked
    std::deque<size_t> again = {};   // to be asked once more, first of all
    std::vector<LineResult> unsaved = {};
    Backoff backoff = {};
  };
  struct Tenant {
    int in_flight = 0;
    Backoff backoff = {};  // for credit that is held elsewhere
    // A line was refused for want of credit while others were under way, which may give back some
    // of what is held for them: one line at a time tells whether there is any left.
    bool alone = false;
  };
  struct Asked {
    std::shared_ptr<Exchange> exchange;
    int64_t batch = 0;
    size_t index = 0;
    std::string custom_id;
  };

  Impl(BatchStore& store_in, BatchPorts ports_in, const Clock& clock_in,
       const RunnerOptions& options_in)
      : store(store_in), ports(std::move(ports_in)), clock(clock_in), options(options_in) {}

  void Loop();
  std::chrono::nanoseconds WaitTime(bool stopping) const;
  void NoteFault(const BatchRecord& batch, const Error& error);
  void Refresh(const std::set<int64_t>& checked);
  void Check(const BatchRecord& batch);
  void StartChecks();
  void StartCheck(const BatchRecord& batch);
  Result<void> Load(Batch& batch);
  void TakeAnswer(int64_t number, const HttpResponse& response);
  // True: the line is to be asked again.
  bool IsLater(Batch& batch, Tenant& tenant, const HttpResponse& response);
  void Postpone(Backoff& backoff, const HttpResponse& response);
  void Settle(Batch& batch, size_t index, bool failed, std::string text);
  void Save(bool now);
  // Whether the batch is over.
  Result<bool> Advance(Batch& batch);
  Result<void> EndEarly(Batch& batch, BatchStatus status);
  void GiveUp(const Batch& batch);
  std::vector<std::string> TenantsAfter(const std::string& last) const;
  void Dispatch();
  Batch* NextBatch();
  Batch* NextBatch(Tenant& tenant, const std::string& id);
  void Ask(Batch& batch, Tenant& tenant);

  BatchStore& store;
  const BatchPorts ports;
  const Clock& clock;
  const RunnerOptions options;
  const std::shared_ptr<Inbox> inbox = std::make_shared<Inbox>();
  std::chrono::steady_clock::time_point stop_by;  // with inbox->stopping
  std::jthread thread;

  // The runner's thread only.
  std::map<int64_t, Batch> batches;       // not over, by number: oldest first
  std::map<std::string, Tenant> tenants;  // by id
  std::map<int64_t, Asked> asked;
  std::map<int64_t, std::jthread> checks;
  int64_t last_asked = 0;
  std::string last_tenant, last_checked;  // whose line was asked, whose file checked
  std::optional<int64_t> unsaved_since_ns;
  int64_t write_not_before_ns = 0;

  std::atomic<int64_t> completed{0}, failed{0}, retried{0}, in_flight{0};
};

void BatchRunner::Impl::Loop() {
  bool stopping = false;
  while (true) {
    std::vector<std::pair<int64_t, HttpResponse>> answers;
    std::set<int64_t> checked;
    bool changed = false;
    {
      std::unique_lock lock(inbox->mutex);
      const auto is_news = [&] {
        return !inbox->answers.empty() || inbox->changed || inbox->stopping != stopping;
      };
      if (batches.empty())
        inbox->wake.wait(lock, is_news);
      else
        inbox->wake.wait_for(lock, WaitTime(stopping), is_news);
      answers = std::exchange(inbox->answers, {});
      checked = std::exchange(inbox->checked, {});
      changed = std::exchange(inbox->changed, false);
      stopping = inbox->stopping;
    }
    for (const int64_t number : checked) checks.erase(number);
    for (const auto& [number, response] : answers) TakeAnswer(number, response);
    const bool is_end = stopping && (asked.empty() || std::chrono::steady_clock::now() >= stop_by);
    Save(is_end);
    if (is_end) break;
    if (changed) Refresh(checked);
    if (write_not_before_ns > clock.NowNs()) continue;
    for (auto each = batches.begin(); each != batches.end();) {
      const auto over = Advance(each->second);
      if (!over) NoteFault(each->second.record, over.error());
      each = over.value_or(false) ? batches.erase(each) : std::next(each);
    }
    if (stopping) continue;
    StartChecks();
    Dispatch();
  }
  for (const auto& [number, batch] : batches) GiveUp(batch);
  checks.clear();
}

std::chrono::nanoseconds BatchRunner::Impl::WaitTime(bool stopping) const {
  std::chrono::nanoseconds time = stopping ? std::chrono::milliseconds(5) : options.poll;
  if (unsaved_since_ns) time = std::min(time, std::chrono::nanoseconds(options.gather_ns));
  return std::max<std::chrono::nanoseconds>(time, std::chrono::milliseconds(1));
}

// The store can't be written, a disk that is full most likely: it is tried again a little later.
void BatchRunner::Impl::NoteFault(const BatchRecord& batch, const Error& error) {
  spdlog::error("{}: {}", batch.id, error.message);
  write_not_before_ns = clock.NowNs() + kWriteRetryNs;
}

// Takes over what tenants and validations have done meanwhile.
void BatchRunner::Impl::Refresh(const std::set<int64_t>& checked) {
  auto unfinished = store.ListUnfinished();
  if (!unfinished) {
    spdlog::error("batches can't be read: {}", unfinished.error().message);
    write_not_before_ns = clock.NowNs() + kWriteRetryNs;
    std::lock_guard lock(inbox->mutex);
    inbox->changed = true;
    return;
  }
  std::set<int64_t> numbers;
  for (BatchRecord& record : *unfinished) {
    const int64_t number = record.number;
    if (checked.contains(number) && record.status == BatchStatus::kValidating)
      NoteFault(record, {ErrorCode::kIo, "the outcome of its validation could not be written", ""});
    numbers.insert(number);
    batches[number].record = std::move(record);
  }
  std::erase_if(batches, [&](const auto& each) { return !numbers.contains(each.first); });
}

// ---- Validation, on a thread of its own: a large file takes longer than answers may wait.

void BatchRunner::Impl::Check(const BatchRecord& batch) {
  const auto file = MappedFile::Open(store.PathOf(batch.input_file));
  const std::shared_ptr<const Caller> caller = ports.caller_of(batch.owner);
  std::vector<BatchError> errors;
  if (!file)
    errors = {{"file_unreadable", "the input file can't be read", "input_file_id", 0}};
  else if (caller == nullptr)
    errors = {{"invalid_api_key", "the key that made the batch is unknown", "", 0}};
  else
    errors = CheckInput(TextOf(*file), batch.endpoint, [&](const std::string& model) {
      return ports.check_model(*caller, model);
    });
  const auto total = file ? std::ssize(SplitLines(TextOf(*file))) : 0;
  const auto told = errors.empty() ? store.StartBatch(batch.number, total)
                                   : store.FailBatch(batch.number, errors);
  if (!told)
    spdlog::error("{}: {}", batch.id, told.error().message);
  else if (errors.empty())
    spdlog::info("{}: {} lines", batch.id, total);
  else
    spdlog::info("{}: failed, line {}: {}", batch.id, errors[0].line, errors[0].code);
}

// Tenants take turns, whose oldest batch is the first.
void BatchRunner::Impl::StartChecks() {
  while (checks.size() < kChecksMax) {
    std::map<std::string, const BatchRecord*> first;  // by tenant
    for (const auto& [number, batch] : batches)
      if (batch.record.status == BatchStatus::kValidating && !checks.contains(number))
        first.emplace(batch.record.owner.tenant, &batch.record);
    if (first.empty()) return;
    auto next = first.upper_bound(last_checked);
    if (next == first.end()) next = first.begin();
    last_checked = next->first;
    StartCheck(*next->second);
  }
}

void BatchRunner::Impl::StartCheck(const BatchRecord& batch) {
  checks.emplace(batch.number, std::jthread([this, batch] {
                   try {
                     Check(batch);
                   } catch (const std::exception& error) {  // out of memory
                     spdlog::error("{}: {}", batch.id, error.what());
                   }
                   std::lock_guard lock(inbox->mutex);
                   inbox->checked.insert(batch.number);
                   inbox->changed = true;
                   inbox->wake.notify_all();
                 }));
}

// ---- Asking

Result<void> BatchRunner::Impl::Load(Batch& batch) {
  if (batch.loaded) return {};
  TRY_ASSIGN(const std::vector<int64_t> done, store.DoneLines(batch.record.number));
  TRY_ASSIGN(batch.input, MappedFile::Open(store.PathOf(batch.record.input_file)));
  batch.lines = SplitLines(TextOf(batch.input));
  batch.settled.resize(batch.lines.size());
  for (size_t i = 0; i < batch.lines.size(); ++i)
    batch.settled[i] = std::ranges::binary_search(done, batch.lines[i].number);
  batch.loaded = true;
  return {};
}

// Those that have batches, from the one after `last` on.
std::vector<std::string> BatchRunner::Impl::TenantsAfter(const std::string& last) const {
  std::set<std::string> all;
  for (const auto& [number, batch] : batches) all.insert(batch.record.owner.tenant);
  std::vector<std::string> ordered(all.begin(), all.end());
  std::ranges::rotate(ordered, std::ranges::upper_bound(ordered, last));
  return ordered;
}

void BatchRunner::Impl::Dispatch() {
  while (std::ssize(asked) < options.lines_in_flight_max) {
    Batch* const batch = NextBatch();
    if (batch == nullptr) return;
    last_tenant = batch->record.owner.tenant;
    Ask(*batch, tenants[last_tenant]);
  }
}

// That of the next tenant, after the last one, that has a line to ask and less than half of the
// places; if there is none, of the next that has a line.
BatchRunner::Impl::Batch* BatchRunner::Impl::NextBatch() {
  Batch* beyond = nullptr;
  for (const std::string& id : TenantsAfter(last_tenant)) {
    Tenant& tenant = tenants[id];
    const bool has_half = tenant.in_flight >= std::max(options.lines_in_flight_max / 2, 1);
    if (has_half && beyond != nullptr) continue;
    Batch* const batch = NextBatch(tenant, id);
    if (batch != nullptr && !has_half) return batch;
    if (batch != nullptr) beyond = batch;
  }
  return beyond;
}

// The tenant's oldest batch that has a line to ask, loaded.
BatchRunner::Impl::Batch* BatchRunner::Impl::NextBatch(Tenant& tenant, const std::string& id) {
  const int64_t now = clock.NowNs();
  if (tenant.backoff.not_before_ns > now) return nullptr;
  if (tenant.alone && tenant.in_flight > 0) return nullptr;
  for (auto& [number, batch] : batches) {
    if (batch.record.owner.tenant != id || batch.record.status != BatchStatus::kInProgress ||
        batch.backoff.not_before_ns > now)
      continue;
    if (const auto loaded = Load(batch); !loaded) {
      spdlog::error("{}: {}", batch.record.id, loaded.error().message);
      batch.backoff.not_before_ns = now + options.backoff_max_ns;
      continue;
    }
    while (batch.next < batch.lines.size() && batch.settled[batch.next]) ++batch.next;
    if (!batch.again.empty() || batch.next < batch.lines.size()) return &batch;
  }
  return nullptr;
}

void BatchRunner::Impl::Ask(Batch& batch, Tenant& tenant) {
  size_t index = batch.next;
  if (batch.again.empty()) {
    ++batch.next;
  } else {
    index = batch.again.front();
    batch.again.pop_front();
  }
  const InputLine& line = batch.lines[index];
  auto request = ReadLine(line, batch.record.endpoint);
  const std::shared_ptr<const Caller> caller = ports.caller_of(batch.record.owner);
  if (!request || caller == nullptr) {
    const Error error{ErrorCode::kUnauthenticated, "the key that made the batch is unknown", ""};
    Settle(batch, index, true,
           request
               ? AnsweredText(batch.record, line.number, request->custom_id, ErrorResponse(error))
               : UnansweredText(batch.record, line.number, "", "invalid_line",
                                "the line has changed since it was checked"));
    return;
  }
  const int64_t number = ++last_asked;
  const auto exchange =
      std::make_shared<Exchange>(HttpRequest{.method = "POST",
                                             .path = batch.record.endpoint,
                                             .content_type = "application/json",
                                             .id = RequestId(batch.record, line.number),
                                             .caller = caller,
                                             .body = std::move(request->body)},
                                 0);
  exchange->OnReply([inbox = inbox, number](HttpResponse response) {
    std::lock_guard lock(inbox->mutex);
    inbox->answers.emplace_back(number, std::move(response));
    inbox->wake.notify_all();
  });
  asked.emplace(number, Asked{exchange, batch.record.number, index, std::move(request->custom_id)});
  ++tenant.in_flight;
  ++in_flight;
  ports.answer(exchange);
}

// ---- Answers

bool BatchRunner::Impl::IsLater(Batch& batch, Tenant& tenant, const HttpResponse& response) {
  const bool is_refused = response.status == kTooManyRequests;
  if (is_refused && ErrorCodeOf(response) == "insufficient_quota") {
    tenant.alone = true;
    if (tenant.in_flight > 0) return true;
    // What the tenant's other requests hold may come back, nobody tells us when.
    const std::shared_ptr<const Caller> caller = ports.caller_of(batch.record.owner);
    if (caller == nullptr || !ports.holds_credit(*caller)) return false;
    Postpone(tenant.backoff, response);
    return true;
  }
  if (!is_refused && response.status != kUnavailableStatus) {
    batch.backoff.time_ns = 0;
    if (response.status == 200) {
      tenant.alone = false;
      tenant.backoff.time_ns = 0;
    }
    return false;
  }
  Postpone(batch.backoff, response);
  return true;
}

// Several answers of one moment count once.
void BatchRunner::Impl::Postpone(Backoff& backoff, const HttpResponse& response) {
  const int64_t now = clock.NowNs();
  if (backoff.not_before_ns > now) return;
  backoff.time_ns =
      std::clamp(2 * backoff.time_ns, options.backoff_first_ns, options.backoff_max_ns);
  backoff.not_before_ns =
      now + std::min(std::max(backoff.time_ns, RetryAfterNs(response)), options.backoff_max_ns);
}

void BatchRunner::Impl::TakeAnswer(int64_t number, const HttpResponse& response) {
  const auto node = asked.extract(number);
  if (!node) return;  // given up meanwhile
  const Asked& one = node.mapped();
  --in_flight;
  Batch& batch = batches.at(one.batch);
  Tenant& tenant = tenants[batch.record.owner.tenant];
  --tenant.in_flight;
  if (IsLater(batch, tenant, response)) {
    ++retried;
    batch.again.push_back(one.index);
    return;
  }
  Settle(batch, one.index, response.status != 200,
         AnsweredText(batch.record, batch.lines[one.index].number, one.custom_id, response));
}

void BatchRunner::Impl::Settle(Batch& batch, size_t index, bool has_failed, std::string text) {
  batch.settled[index] = true;
  batch.unsaved.push_back({batch.lines[index].number, has_failed, std::move(text)});
  ++(has_failed ? failed : completed);
  if (!unsaved_since_ns) unsaved_since_ns = clock.NowNs();
}

// Writes down what has been gathered, if it is time.
void BatchRunner::Impl::Save(bool now) {
  if (!unsaved_since_ns) return;
  const int64_t time_ns = std::max(*unsaved_since_ns + options.gather_ns, write_not_before_ns);
  if (!now && clock.NowNs() < time_ns) return;
  unsaved_since_ns.reset();
  for (auto& [number, batch] : batches) {
    if (batch.unsaved.empty()) continue;
    auto record = store.RecordResults(number, batch.unsaved);
    if (!record) {
      NoteFault(batch.record, record.error());
      unsaved_since_ns = clock.NowNs();
      continue;
    }
    batch.record = std::move(*record);
    batch.unsaved.clear();
  }
}

// ---- Ends

Result<bool> BatchRunner::Impl::Advance(Batch& batch) {
  BatchRecord& record = batch.record;
  switch (record.status) {
    case BatchStatus::kValidating:
      return false;
    case BatchStatus::kInProgress:
      if (clock.UnixSeconds() >= record.expires_at) {
        TRY(EndEarly(batch, BatchStatus::kExpired));
        return true;
      }
      if (record.completed + record.failed < record.total) return false;
      TRY(store.FinishBatch(record.number, BatchStatus::kCompleted));
      spdlog::info("{}: completed, {} lines of {} failed", record.id, record.failed, record.total);
      return true;
    case BatchStatus::kCancelling:
      TRY(EndEarly(batch, BatchStatus::kCancelled));
      return true;
    default:
      return true;
  }
}

// Every line that has no result gets one that says so.
Result<void> BatchRunner::Impl::EndEarly(Batch& batch, BatchStatus status) {
  GiveUp(batch);
  const bool expired = status == BatchStatus::kExpired;
  const char* code = expired ? "batch_expired" : "batch_cancelled";
  const char* message = expired ? "the batch expired before this request was answered"
                                : "the batch was cancelled before this request was answered";
  // Without a total it was never validated: there are no lines to speak of. If its file can't be
  // read any more, those without an answer go without a word.
  if (batch.record.total > 0)
    if (const auto loaded = Load(batch); !loaded)
      spdlog::error("{}: {}", batch.record.id, loaded.error().message);
  for (size_t i = 0; i < batch.lines.size(); ++i) {
    if (!batch.settled[i]) {
      const auto request = ReadLine(batch.lines[i], batch.record.endpoint);
      Settle(batch, i, true,
             UnansweredText(batch.record, batch.lines[i].number, request ? request->custom_id : "",
                            code, message));
    }
    if (batch.unsaved.size() < kUnansweredAtOnce && i + 1 < batch.lines.size()) continue;
    TRY_ASSIGN(batch.record, store.RecordResults(batch.record.number, batch.unsaved));
    batch.unsaved.clear();
  }
  TRY(store.FinishBatch(batch.record.number, status));
  spdlog::info("{}: {}, {} lines of {} answered", batch.record.id, Name(status),
               batch.record.completed, batch.record.total);
  return {};
}

// What is asked for a batch ends within a step of the engine.
void BatchRunner::Impl::GiveUp(const Batch& batch) {
  for (auto each = asked.begin(); each != asked.end();) {
    if (each->second.batch != batch.record.number) {
      ++each;
      continue;
    }
    --in_flight;
    --tenants[batch.record.owner.tenant].in_flight;
    each->second.exchange->Abandon();
    each = asked.erase(each);
  }
}

// ---- The shell

BatchRunner::BatchRunner(BatchStore& store, BatchPorts ports, const Clock& clock,
                         const RunnerOptions& options)
    : impl_(std::make_unique<Impl>(store, std::move(ports), clock, options)) {}

BatchRunner::~BatchRunner() { Stop(std::chrono::milliseconds(0)); }

void BatchRunner::Start() {
  impl_->thread = std::jthread([impl = impl_.get()] { impl->Loop(); });
}

void BatchRunner::Wake() {
  std::lock_guard lock(impl_->inbox->mutex);
  impl_->inbox->changed = true;
  impl_->inbox->wake.notify_all();
}

void BatchRunner::Stop(std::chrono::milliseconds timeout) {
  {
    std::lock_guard lock(impl_->inbox->mutex);
    if (!impl_->inbox->stopping) impl_->stop_by = std::chrono::steady_clock::now() + timeout;
    impl_->inbox->stopping = true;
    impl_->inbox->wake.notify_all();
  }
  if (impl_->thread.joinable()) impl_->thread.join();
}

RunnerStats BatchRunner::stats() const {
  return {impl_->completed, impl_->failed, impl_->retried, impl_->in_flight};
}

}  // namespace millpower::serve
