#include "engine/scheduler.h"

#include <algorithm>
#include <tuple>

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
    caller.rows = served_[static_cast<size_t>(request.priority)];
  }
  sequence->caller = &caller;
  caller.waiting.push_back(std::move(sequence));
  ++waiting_;
}

const std::vector<Share>& Scheduler::Plan() {
  ++step_;
  Grow();
  Admit();
  ShareOut();
  return shares_;
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
    return std::tuple(sequence->caller->priority, sequence->caller->pages, sequence->order);
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
    Sequence* next = NextInLine();
    if (next == nullptr || !Join(next)) return;
  }
}

// The waiting sequence that the next place is for, leaving out those that had better wait for what
// another computes.
Sequence* Scheduler::NextInLine() {
  Sequence* best = nullptr;
  const auto rank = [](const Sequence* sequence) {
    const Caller& caller = *sequence->caller;
    return std::tuple(caller.priority, caller.running, caller.rows, sequence->order);
  };
  for (auto& [key, caller] : callers_) {
    const auto first = std::ranges::find_if(
        caller.waiting, [&](const auto& sequence) { return !WaitsForLeader(*sequence); });
    if (first == caller.waiting.end()) continue;
    if (best == nullptr || rank(first->get()) < rank(best)) best = first->get();
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
  const std::span<const int32_t> tokens = sequence->tokens;
  pages_.Find(caller.name, tokens.first(static_cast<size_t>(FindableTokens(*sequence))),
              sequence->pages);
  const auto found = static_cast<int32_t>(sequence->pages.size());
  const bool follows = FindLeader(*sequence);
  if (follows || !MakeRoom(*sequence, PagesFor(sequence->size()) - found)) {
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

// Whether there is a place, and memory for `new_pages` besides the pages found and for each running
// sequence to grow; batch sequences give theirs up to others, if that is enough as far as can be
// told (a page that several share counts for each).
bool Scheduler::MakeRoom(const Sequence& sequence, int32_t new_pages) {
  const auto short_of = [&](int64_t places, int64_t pages, int64_t entries) {
    const int64_t growth = places + 1;
    const bool memory = new_pages + growth > pages ||
                        entries + PagesFor(sequence.size()) + growth > limits_.max_page_entries;
    return std::pair(places >= limits_.max_sequences, places > 0 && memory);
  };
  const auto fits = [](std::pair<bool, bool> is_short) {
    return !is_short.first && !is_short.second;
  };
  auto now = short_of(running(), pages_.available(), entries_);
  if (fits(now)) return true;
  if (sequence.caller->priority != Priority::kBatch) {
    int64_t batch = 0, batch_pages = 0;
    for (const auto& [key, caller] : callers_) {
      if (key.first != Priority::kBatch) continue;
      batch += caller.running;
      batch_pages += caller.pages;
    }
    if (batch > 0 && fits(short_of(running() - batch, pages_.available() + batch_pages,
                                   entries_ - batch_pages))) {
      while (!fits(now) && Victim()->caller->priority == Priority::kBatch) {
        Preempt(Victim());
        now = short_of(running(), pages_.available(), entries_);
      }
      if (fits(now)) return true;
    }
  }
  memory_is_short_ = now.second;
  return false;
}

// --- steps ---

void Scheduler::ShareOut() {
  shares_.clear();
  line_.clear();
  for (const auto& sequence : running_)
    if (!sequence->blocked()) line_.push_back(sequence.get());
  // Of those that only need their next token, the ones left out last time come first.
  const auto rank = [](const Sequence* sequence) {
    const Caller& caller = *sequence->caller;
    return sequence->pending() == 1
               ? std::tuple(0, 0, sequence->last_step, sequence->order)
               : std::tuple(1, static_cast<int>(caller.priority), caller.rows, sequence->order);
  };
  std::ranges::sort(line_, {}, rank);
  // There are never more places than rows, so that a row is left for everyone.
  rows_left_ = limits_.max_batch_tokens;
  auto followers = static_cast<int32_t>(line_.size());
  for (size_t i = 0; i < line_.size(); ++i) {
    --followers;
    const bool another =
        followers > 0 && line_[i]->caller->priority == line_[i + 1]->caller->priority;
    const int32_t most = another ? (rows_left_ + 1) / 2 : rows_left_;
    line_[i]->quota = std::min({line_[i]->pending(), most, rows_left_ - followers});
    rows_left_ -= line_[i]->quota;
  }
  picked_left_ = limits_.max_picked;
  adjustments_left_ = limits_.max_adjustments;
  followers = static_cast<int32_t>(line_.size());
  for (Sequence* sequence : line_) {
    const int32_t more = std::min(sequence->pending() - sequence->quota, rows_left_);
    rows_left_ -= more;
    Grant(*sequence, sequence->quota + more, --followers);
  }
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
  int64_t& served = served_[static_cast<size_t>(sequence.caller->priority)];
  served = std::max(served, sequence.caller->rows);
  sequence.caller->rows += end - sequence.computed;
  sequence.started = true;
  sequence.last_step = step_;
}

void Scheduler::Computed(const Share& share) {
  Sequence& sequence = *share.sequence;
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
  if (waiting.empty() && caller->running == 0) callers_.erase({caller->priority, caller->name});
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
