#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>

#include "base/check.h"

namespace millpower::engine {
namespace {

// Tokens whose pages a sequence may take from the prefix cache: at least its last one is computed,
// since its logits are wanted, and with prompt_logprobs those of the whole prompt.
int32_t FindableTokens(const Sequence& sequence) {
  const bool prompt_logprobs = sequence.request.sampling.prompt_logprobs;
  const int32_t all = sequence.size() - 1;
  return prompt_logprobs && sequence.prompt_logprobs_done < sequence.prompt_size - 1
             ? std::min(all, sequence.prompt_logprobs_done)
             : all;
}

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits)
    : limits_(limits), pages_(limits.pages, limits.prefix_cache, limits.hash_seed) {
  CHECK(limits.max_sequences >= 1 && limits.max_sequences <= limits.max_batch_tokens &&
        limits.max_sequences <= limits.max_picked);
}

void Scheduler::Add(std::unique_ptr<Sequence> sequence) {
  const Request& request = sequence->request;
  const auto [entry, is_new] = callers_.try_emplace({request.priority, request.caller});
  Caller& caller = entry->second;
  if (is_new) {
    caller.priority = request.priority;
    caller.name = request.caller;
    const auto lease = leases_.find(caller.name);
    if (lease != leases_.end()) caller.lease = lease->second;
  }
  if (!caller.is_present()) weights_are_old_ = true;
  if (!caller.is_backlogged)
    caller.time = std::max(caller.time, time_[static_cast<size_t>(request.priority)]);
  sequence->caller = &caller;
  caller.waiting.push_back(std::move(sequence));
  ++waiting_;
}

const std::vector<Share>& Scheduler::Plan() {
  ++step_;
  Weigh();
  Grow();
  Admit();
  ShareOut();
  MeasureTime();
  return shares_;
}

// --- shares ---

void Scheduler::SetShares(const std::vector<CallerShare>& shares) {
  leases_.clear();
  double total = 0;
  for (const CallerShare& share : shares) {
    if (!(share.share > 0) || std::isinf(share.share)) continue;
    leases_[share.caller] += share.share;
    total += share.share;
  }
  if (total > 1)
    for (auto& [name, lease] : leases_) lease /= total;
  rest_ = std::max(1 - std::min(total, 1.0), kLeastRest);
  for (auto& [key, caller] : callers_) {
    const auto lease = leases_.find(caller.name);
    caller.lease = lease != leases_.end() ? lease->second : 0;
  }
  weights_are_old_ = true;
}

// A lease is had once by a caller with work of both classes above batch.
void Scheduler::Weigh() {
  if (!std::exchange(weights_are_old_, false)) return;
  std::array<int, kPriorityCount> without{};
  for (const auto& [key, caller] : callers_)
    if (caller.is_present() && caller.lease == 0) ++without[static_cast<size_t>(caller.priority)];
  const auto has_without = [&](Priority priority) {
    return without[static_cast<size_t>(priority)] > 0;
  };
  total_weight_ =
      has_without(Priority::kInteractive) || has_without(Priority::kStandard) ? rest_ : 0;
  for (auto& [key, caller] : callers_) {
    if (!caller.is_present()) continue;
    if (caller.lease == 0) {
      caller.weight = rest_ / without[static_cast<size_t>(caller.priority)];
      continue;
    }
    caller.weight = caller.lease;
    if (caller.priority == Priority::kBatch) continue;
    const auto twin = callers_.find(
        {caller.priority == Priority::kStandard ? Priority::kInteractive : Priority::kStandard,
         caller.name});
    if (twin != callers_.end() && twin->second.is_present()) caller.weight /= 2;
    total_weight_ += caller.weight;
  }
}

// Of the machine, what a caller above batch may have while all who are here want it.
double Scheduler::Part(const Caller& caller) const { return caller.weight / total_weight_; }

double Scheduler::Projected(const Caller& caller) const {
  return caller.time + caller.running * ExpectedNs() / caller.weight;
}

// Where each class has got to. Callers who are gone are remembered as long as they are ahead.
void Scheduler::MeasureTime() {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  std::array<double, kPriorityCount> least, most{};
  least.fill(kNever);
  for (const auto& [key, caller] : callers_) {
    const auto i = static_cast<size_t>(caller.priority);
    if (caller.is_backlogged) least[i] = std::min(least[i], caller.time);
    most[i] = std::max(most[i], caller.time);
  }
  for (size_t i = 0; i < time_.size(); ++i)
    time_[i] = std::max(time_[i], least[i] < kNever ? least[i] : most[i]);
  std::erase_if(callers_, [&](const auto& entry) {
    const Caller& caller = entry.second;
    return !caller.is_present() && caller.time <= time_[static_cast<size_t>(caller.priority)];
  });
}

// --- memory ---

void Scheduler::Grow() {
  while (std::ranges::any_of(running_, [&](const auto& held) { return !HoldPages(*held); })) {
    CHECK(running_.size() > 1) << "the KV cache is smaller than one context";
    Preempt(Victim());
  }
}

// Pages for all tokens of a running sequence; false when there are none.
bool Scheduler::HoldPages(Sequence& sequence) {
  const int32_t wanted = PagesFor(sequence.size()) - static_cast<int32_t>(sequence.pages.size());
  if (wanted == 0) return true;
  if (entries_ + wanted > limits_.max_page_entries) return false;
  if (!pages_.Take(wanted, sequence.pages)) return false;
  entries_ += wanted;
  sequence.caller->pages += wanted;
  return true;
}

Sequence* Scheduler::Victim() const {
  const auto rank = [](const std::unique_ptr<Sequence>& sequence) {
    const Caller& caller = *sequence->caller;
    return std::tuple(caller.priority, static_cast<double>(caller.pages) / caller.weight,
                      sequence->order);
  };
  return std::ranges::max_element(running_, {}, rank)->get();
}

void Scheduler::Preempt(Sequence* victim) {
  auto& waiting = victim->caller->waiting;
  LetGo(*victim);
  const auto place = std::ranges::find_if(
      waiting, [&](const auto& other) { return other->order > victim->order; });
  waiting.insert(place, TakeRunning(victim));
  ++waiting_;
  ++preemptions_;
}

void Scheduler::LetGo(Sequence& sequence) {
  const auto count = static_cast<int64_t>(sequence.pages.size());
  entries_ -= count;
  sequence.caller->pages -= count;
  pages_.Release(sequence.pages);
  sequence.computed = 0;
  sequence.published = 0;
}

std::unique_ptr<Sequence> Scheduler::TakeRunning(Sequence* sequence) {
  const auto found = std::ranges::find(running_, sequence, &std::unique_ptr<Sequence>::get);
  CHECK(found != running_.end());
  std::unique_ptr<Sequence> taken = std::move(*found);
  running_.erase(found);
  --taken->caller->running;
  return taken;
}

// --- places ---

void Scheduler::Admit() {
  memory_is_short_ = false;
  while (waiting_ > 0) {
    Sequence* const next = NextInLine();
    if (next == nullptr) return;
    if (Join(next)) continue;
    // The line stands still, but for whoever may take something back.
    Sequence* const owed = leases_.empty() ? nullptr : NextOwed();
    if (owed == nullptr || owed == next || !Join(owed)) return;
  }
}

// Leaving out those that had better wait for what another computes.
Sequence* Scheduler::FirstOf(const Caller& caller) const {
  const auto first = std::ranges::find_if(
      caller.waiting, [&](const auto& sequence) { return !WaitsForLeader(*sequence); });
  return first == caller.waiting.end() ? nullptr : first->get();
}

// The waiting sequence that the next place is for.
Sequence* Scheduler::NextInLine() const {
  Sequence* best = nullptr;
  const auto rank = [&](const Sequence* sequence) {
    const Caller& caller = *sequence->caller;
    return std::tuple(caller.priority, Projected(caller), sequence->order);
  };
  for (const auto& [key, caller] : callers_) {
    Sequence* const first = FirstOf(caller);
    if (first != nullptr && (best == nullptr || rank(first) < rank(best))) best = first;
  }
  if (best == nullptr || leases_.empty()) return best;
  // A caller who is a whole place below its lease comes before other classes.
  for (const auto& [key, caller] : callers_) {
    if (caller.lease == 0 || caller.priority == Priority::kBatch ||
        caller.priority <= best->caller->priority ||
        caller.running + 1 > Part(caller) * limits_.max_sequences)
      continue;
    if (Sequence* const first = FirstOf(caller)) return first;
  }
  return best;
}

// Of those who may take something back, the one that has had the least.
Sequence* Scheduler::NextOwed() const {
  Sequence* best = nullptr;
  const auto rank = [&](const Sequence* sequence) {
    return std::pair(sequence->caller->priority, Projected(*sequence->caller));
  };
  for (const auto& [key, caller] : callers_) {
    if (caller.lease == 0 || caller.priority == Priority::kBatch) continue;
    Sequence* const first = FirstOf(caller);
    if (first == nullptr || (best != nullptr && rank(best) <= rank(first))) continue;
    if (ToTakeBack(*first, running() < limits_.max_sequences) != nullptr) best = first;
  }
  return best;
}

bool Scheduler::WaitsForLeader(Sequence& sequence) const {
  if (sequence.leader < 0) return false;
  const auto leader = std::ranges::find_if(
      running_, [&](const auto& other) { return other->order == sequence.leader; });
  if (leader != running_.end() && (*leader)->computed < sequence.leader_until) return true;
  sequence.leader = -1;
  return false;
}

// Whether the next page that `sequence` could find, after those it holds, is being computed by a
// running sequence of the same caller. One of a lower class is not waited for, nor one that waits
// for its ledger; any other has a share in every step, so that the wait ends.
bool Scheduler::FindLeader(Sequence& sequence) const {
  const int32_t end = (static_cast<int32_t>(sequence.pages.size()) + 1) * kPageTokens;
  if (!limits_.prefix_cache || end > FindableTokens(sequence)) return false;
  for (const auto& other : running_) {
    if (other->computed >= end || other->size() < end || other->blocked() ||
        other->caller->priority > sequence.caller->priority ||
        other->caller->name != sequence.caller->name ||
        !std::equal(other->tokens.begin(), other->tokens.begin() + end, sequence.tokens.begin()))
      continue;
    sequence.leader = other->order;
    sequence.leader_until = end;
    return true;
  }
  return false;
}

// Lets the next in line run, or find out for whom it waits. False: it stays where it is, and so do
// those behind it.
bool Scheduler::Join(Sequence* sequence) {
  Caller& caller = *sequence->caller;
  const int32_t findable = FindableTokens(*sequence);
  // Without a place, or with no more memory than what it found last time asks for, there is nothing
  // to look up.
  const bool batch_runs = std::ranges::any_of(
      running_, [](const auto& other) { return other->caller->priority == Priority::kBatch; });
  if (caller.lease == 0 && (caller.priority == Priority::kBatch || !batch_runs)) {
    const bool is_known = sequence->found_version == pages_.version();
    const int32_t most = is_known ? sequence->found_pages : findable / kPageTokens;
    const Shortage shortage = ShortOf(*sequence, PagesFor(sequence->size()) - most);
    if (shortage.places || (is_known && shortage.memory)) {
      memory_is_short_ = shortage.memory;
      return false;
    }
  }
  const std::span<const int32_t> tokens = sequence->tokens;
  pages_.Find(caller.name, tokens.first(static_cast<size_t>(findable)), sequence->pages);
  const auto found = static_cast<int32_t>(sequence->pages.size());
  const bool follows = FindLeader(*sequence);
  if (follows || !MakeRoom(*sequence, PagesFor(sequence->size()) - found)) {
    sequence->found_pages = found;
    sequence->found_version = pages_.version();
    pages_.Release(sequence->pages);
    return follows;
  }
  sequence->published = found;
  sequence->computed = found * kPageTokens;
  if (!sequence->started)
    sequence->usage.cached_tokens = std::min(sequence->computed, sequence->prompt_size);
  entries_ += found;
  caller.pages += found;
  ++caller.running;
  --waiting_;
  const auto place = std::ranges::find(caller.waiting, sequence, &std::unique_ptr<Sequence>::get);
  running_.push_back(std::move(*place));
  caller.waiting.erase(place);
  CHECK(HoldPages(*sequence)) << "a context does not fit into the KV cache";
  return true;
}

// A place, and memory for `new_pages` besides the pages found and for each running sequence to
// grow, if so many places and pages were given up.
Scheduler::Shortage Scheduler::ShortOf(const Sequence& sequence, int32_t new_pages,
                                       int64_t given_places, int64_t given_pages) const {
  const int64_t places = running() - given_places;
  const int64_t growth = places + 1;
  const bool memory =
      new_pages + growth > pages_.available() + given_pages ||
      entries_ - given_pages + PagesFor(sequence.size()) + growth > limits_.max_page_entries;
  return {places >= limits_.max_sequences, places > 0 && memory};
}

// Batch sequences give their places and pages up to others, if that is enough as far as can be told
// (a page that several share counts for each). So do those of callers who have more than their part
// to one who has leased its own.
bool Scheduler::MakeRoom(const Sequence& sequence, int32_t new_pages) {
  Shortage now = ShortOf(sequence, new_pages);
  if (!now.any()) return true;
  if (sequence.caller->priority != Priority::kBatch) {
    int64_t batch = 0, batch_pages = 0;
    for (const auto& [key, caller] : callers_) {
      if (key.first != Priority::kBatch) continue;
      batch += caller.running;
      batch_pages += caller.pages;
    }
    if (batch > 0 && !ShortOf(sequence, new_pages, batch, batch_pages).any()) {
      while (now.any() && Victim()->caller->priority == Priority::kBatch) {
        Preempt(Victim());
        now = ShortOf(sequence, new_pages);
      }
      if (!now.any()) return true;
    }
  }
  if (TakeBack(sequence, new_pages)) return true;
  memory_is_short_ = ShortOf(sequence, new_pages).memory;
  return false;
}

// --- leases ---

// Whether `caller`, who needs another place, or `new_pages` of memory, may take a running sequence
// from another, who would then hold `held` places or pages. It is below its own part and leaves the
// other at least its own: so neither takes back what the other has taken. Or it is owed so much
// that it is long before the other is owed as much again. Times of two classes do not compare.
bool Scheduler::MayTake(const Caller& caller, const Caller& from, int64_t new_pages,
                        bool for_memory, int64_t held) const {
  if (from.priority == Priority::kBatch || from.name == caller.name) return false;
  const bool same_class = from.priority == caller.priority;
  if (same_class && from.time < caller.time) return false;
  if (same_class &&
      (from.time - Projected(caller)) * caller.weight >= kOwedSequences * ExpectedNs())
    return true;
  const double all = for_memory ? limits_.pages : limits_.max_sequences;
  const auto wanted =
      static_cast<double>(for_memory ? caller.pages + new_pages : int64_t{caller.running} + 1);
  return wanted <= Part(caller) * all && static_cast<double>(held) >= Part(from) * all;
}

// The running sequence that gives way to one of a caller with a lease: the last come of the caller
// furthest above its part.
Sequence* Scheduler::ToTakeBack(const Sequence& sequence, bool for_memory) const {
  const Caller& caller = *sequence.caller;
  Sequence* best = nullptr;
  double furthest = 0;
  for (const auto& [key, other] : callers_) {
    Sequence* const last = LastCome(other, std::numeric_limits<int64_t>::max());
    if (last == nullptr) continue;
    const int64_t held = for_memory ? other.pages - std::ssize(last->pages) : other.running - 1;
    if (!MayTake(caller, other, PagesFor(sequence.size()), for_memory, held)) continue;
    const double above = static_cast<double>(held) / Part(other);
    if (best != nullptr && above <= furthest) continue;
    best = last;
    furthest = above;
  }
  return best;
}

// Of those that came before the one of order `before`.
Sequence* Scheduler::LastCome(const Caller& caller, int64_t before) const {
  Sequence* last = nullptr;
  for (const auto& sequence : running_)
    if (sequence->caller == &caller && sequence->order < before &&
        (last == nullptr || sequence->order > last->order))
      last = sequence.get();
  return last;
}

// All or nothing, as far as can be told.
bool Scheduler::TakeBack(const Sequence& sequence, int32_t new_pages) {
  const Caller& caller = *sequence.caller;
  if (caller.lease == 0 || caller.priority == Priority::kBatch) return false;
  Shortage now = ShortOf(sequence, new_pages);
  if (now.memory) {
    int64_t places = 0, pages = 0;
    for (const auto& [key, other] : callers_) {
      int64_t held = other.pages;
      const Sequence* last = LastCome(other, std::numeric_limits<int64_t>::max());
      for (; last != nullptr; last = LastCome(other, last->order)) {
        held -= std::ssize(last->pages);
        if (!MayTake(caller, other, PagesFor(sequence.size()), true, held)) break;
        ++places;
        pages += std::ssize(last->pages);
      }
    }
    if (ShortOf(sequence, new_pages, places, pages).any()) return false;
  }
  while (now.any()) {
    Sequence* const victim = ToTakeBack(sequence, now.memory);
    if (victim == nullptr) return false;
    Preempt(victim);
    now = ShortOf(sequence, new_pages);
  }
  return true;
}

// --- steps ---

void Scheduler::ShareOut() {
  shares_.clear();
  line_.clear();
  for (auto& [key, caller] : callers_) {
    caller.is_backlogged = !caller.waiting.empty();
    caller.next_rows = caller.least_rows = caller.prompt_rows = caller.rows_left = 0;
  }
  for (const auto& sequence : running_) {
    if (sequence->blocked()) continue;
    line_.push_back(sequence.get());
    sequence->quota = 1;  // there are never more places than rows, so that one is left for everyone
    if (sequence->pending() == 1)
      ++sequence->caller->next_rows;
    else
      sequence->caller->is_backlogged = true;
  }
  // Of those that only need their next token, the ones left out last time come first.
  const auto rank = [](const Sequence* sequence) {
    const Caller& caller = *sequence->caller;
    return sequence->pending() == 1
               ? std::tuple(0, 0, static_cast<double>(sequence->last_step), sequence->order)
               : std::tuple(1, static_cast<int>(caller.priority), caller.time, sequence->order);
  };
  std::ranges::sort(line_, {}, rank);
  size_t begin = 0;
  while (begin < line_.size() && line_[begin]->pending() == 1) ++begin;
  // Leased rows that a higher class must leave.
  auto all_quotas = static_cast<int32_t>(line_.size());
  const int32_t spare = limits_.max_batch_tokens - all_quotas;
  for (size_t i = begin; i < line_.size() && !leases_.empty(); ++i) {
    Caller& caller = *line_[i]->caller;
    if (caller.lease == 0 || caller.priority == Priority::kBatch ||
        caller.priority == line_[begin]->caller->priority || std::exchange(caller.rows_left, 1) > 0)
      continue;
    const int32_t more =
        std::min(line_[i]->pending() - 1, static_cast<int32_t>(spare * caller.weight));
    line_[i]->quota += more;
    all_quotas += more;
  }
  rows_left_ = limits_.max_batch_tokens - static_cast<int32_t>(begin);
  int32_t reserved = all_quotas - static_cast<int32_t>(begin);  // for those not dealt to yet
  bool is_held_down = false;
  for (size_t end = begin; begin < line_.size(); begin = end) {
    const Priority priority = line_[begin]->caller->priority;
    int32_t of_class = 0;
    for (; end < line_.size() && line_[end]->caller->priority == priority; ++end)
      of_class += line_[end]->quota;
    if (is_held_down) {  // lower classes get their one row
      rows_left_ -= of_class;
      continue;
    }
    is_held_down = Deal(begin, end, rows_left_ - (reserved - of_class));
    for (size_t i = begin; i < end; ++i) {
      Sequence& sequence = *line_[i];
      Caller& caller = *sequence.caller;
      reserved -= sequence.quota;
      const int32_t most = --caller.least_rows > 0 ? (caller.rows_left + 1) / 2 : caller.rows_left;
      sequence.quota =
          std::clamp(std::min(sequence.pending(), most), sequence.quota, rows_left_ - reserved);
      rows_left_ -= sequence.quota;
      caller.rows_left -= sequence.quota;
    }
    // What is left of a caller's rows is for the first of its prompts.
    for (size_t i = begin; i < end && dealt_.size() > 1; ++i) {
      Caller& caller = *line_[i]->caller;
      const int32_t more = std::min(
          {line_[i]->pending() - line_[i]->quota, caller.rows_left, rows_left_ - reserved});
      if (more <= 0) continue;
      line_[i]->quota += more;
      rows_left_ -= more;
      caller.rows_left -= more;
    }
  }
  if (is_held_down) rows_left_ = 0;
  picked_left_ = limits_.max_picked;
  adjustments_left_ = limits_.max_adjustments;
  auto followers = static_cast<int32_t>(line_.size());
  for (Sequence* sequence : line_) {
    const int32_t more = std::min(sequence->pending() - sequence->quota, rows_left_);
    rows_left_ -= more;
    Grant(*sequence, sequence->quota + more, --followers);
  }
}

// Deals `rows` to the callers of the prompts [begin, end) of the line, all of one class: those
// behind get more, so that their times come out even. True: it has not dealt all that was wanted,
// for a caller with a lease that waits for a place and may not be left further behind.
bool Scheduler::Deal(size_t begin, size_t end, int32_t rows) {
  dealt_.clear();
  for (size_t i = begin; i < end; ++i) {
    Caller* const caller = line_[i]->caller;
    if (caller->least_rows++ == 0) dealt_.push_back(caller);
    caller->prompt_rows += line_[i]->pending();
  }
  // After the next tokens of this step.
  const auto time = [&](const Caller& caller) {
    return caller.time + caller.next_rows * row_ns_ / caller.weight;
  };
  constexpr double kNever = std::numeric_limits<double>::infinity();
  double ceiling = kNever;
  const Priority priority = line_[begin]->caller->priority;
  for (const auto& [key, caller] : callers_) {
    if (caller.lease == 0 || caller.priority != priority || priority == Priority::kBatch ||
        caller.waiting.empty() || caller.next_rows + caller.prompt_rows == 0)
      continue;
    ceiling = std::min(ceiling, time(caller) + caller.prompt_rows * row_ns_ / caller.weight);
  }
  if (dealt_.size() == 1 && ceiling == kNever) {
    dealt_[0]->rows_left = rows_left_;
    return false;
  }
  const auto rows_at = [&](const Caller& caller, double level) {
    const double more =
        (level - time(caller)) * caller.weight / row_ns_ + 1e-6;  // rounding takes no row
    return static_cast<int32_t>(std::clamp<double>(more, caller.least_rows, caller.prompt_rows));
  };
  const auto total_at = [&](double level) {
    int64_t total = 0;
    for (const Caller* caller : dealt_) total += rows_at(*caller, level);
    return total;
  };
  double low = kNever, high = 0;
  for (const Caller* caller : dealt_) {
    low = std::min(low, time(*caller));
    high = std::max(high, time(*caller) + caller->prompt_rows * row_ns_ / caller->weight);
  }
  const bool is_held_down = ceiling < high;
  high = std::min(high, ceiling);
  double level = high;
  if (total_at(high) > rows) {
    // 40 halvings of the range: less than a row.
    for (int i = 0; i < 40; ++i) {
      level = (low + high) / 2;
      (total_at(level) > rows ? high : low) = level;
    }
    level = low;
  }
  bool is_short = false;
  for (Caller* caller : dealt_) {
    caller->rows_left = rows_at(*caller, level);
    is_short |= caller->rows_left < caller->prompt_rows;
  }
  return is_held_down && is_short && level == high;
}

// Plans up to `count` more tokens of a sequence, leaving a row with logits for each that follows.
void Scheduler::Grant(Sequence& sequence, int32_t count, int32_t followers) {
  // Rows with logits: the last, and with prompt_logprobs those of the prompt not yet collected.
  const SamplingParams& sampling = sequence.request.sampling;
  const int32_t collected = sequence.prompt_logprobs_done;
  const int32_t first_picked = sampling.prompt_logprobs && collected < sequence.prompt_size - 1
                                   ? std::max(collected, sequence.computed)
                                   : sequence.size() - 1;
  int32_t end = std::min(sequence.computed + count, first_picked + picked_left_ - followers);
  const bool draws = sampling.max_tokens > 0;
  if (end == sequence.size() && draws && sequence.adjustments.count() > adjustments_left_) --end;
  if (end <= sequence.computed) return;
  const bool completes = end == sequence.size();
  const int32_t picked = std::max(0, end - first_picked);
  picked_left_ -= picked;
  if (completes && draws) adjustments_left_ -= sequence.adjustments.count();
  shares_.push_back({&sequence, end - sequence.computed, picked, completes, !sequence.started});
  sequence.rows += end - sequence.computed;
  sequence.started = true;
  sequence.last_step = step_;
}

void Scheduler::Computed(const Share& share, int64_t device_ns) {
  constexpr double kMemory = 1.0 / 64;
  Sequence& sequence = *share.sequence;
  // Whatever the device says, work is not for nothing.
  const auto cost_ns = static_cast<double>(std::max<int64_t>(device_ns, share.count));
  sequence.caller->time += cost_ns / sequence.caller->weight;
  row_ns_ += (cost_ns / share.count - row_ns_) * kMemory;
  sequence.computed += share.count;
  const int32_t full = sequence.computed / kPageTokens;
  pages_.Publish(sequence.caller->name, sequence.tokens, sequence.published, full, sequence.pages);
  sequence.published = full;
}

// --- who is there ---

std::unique_ptr<Sequence> Scheduler::Remove(Sequence* sequence) {
  Caller* const caller = sequence->caller;
  auto& waiting = caller->waiting;
  std::unique_ptr<Sequence> taken;
  const auto found = std::ranges::find(waiting, sequence, &std::unique_ptr<Sequence>::get);
  if (found != waiting.end()) {
    taken = std::move(*found);
    waiting.erase(found);
    --waiting_;
  } else {
    LetGo(*sequence);
    taken = TakeRunning(sequence);
  }
  taken->caller = nullptr;
  if (taken->rows > 0) {
    constexpr double kMemory = 1.0 / 32;
    expected_rows_ += (static_cast<double>(taken->rows) - expected_rows_) * kMemory;
  }
  if (!caller->is_present()) {
    caller->is_backlogged = false;
    weights_are_old_ = true;
  }
  return taken;
}

Sequence* Scheduler::Find(const std::string& id) const {
  for (Sequence* sequence : Live())
    if (sequence->request.id == id) return sequence;
  return nullptr;
}

Sequence* Scheduler::Find(int64_t order) const {
  for (Sequence* sequence : Live())
    if (sequence->order == order) return sequence;
  return nullptr;
}

std::vector<Sequence*> Scheduler::Live() const {
  std::vector<Sequence*> live;
  for (const auto& sequence : running_) live.push_back(sequence.get());
  for (const auto& [key, caller] : callers_)
    for (const auto& sequence : caller.waiting) live.push_back(sequence.get());
  return live;
}

}  // namespace millpower::engine
