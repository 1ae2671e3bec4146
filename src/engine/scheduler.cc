#include "engine/scheduler.h"

#include <algorithm>

#include "base/check.h"
#include "isa/layout.h"

namespace millpower::engine {
namespace {

int32_t PagesFor(int32_t tokens) {
  const auto page = static_cast<int32_t>(isa::kPagePositions);
  return (tokens + page - 1) / page;
}

bool CameEarlier(const std::unique_ptr<Sequence>& a, const std::unique_ptr<Sequence>& b) {
  return a->order < b->order;
}

}  // namespace

const std::vector<Share>& Scheduler::Plan() {
  shares_.clear();
  tokens_left_ = limits_.max_batch_tokens;
  picked_left_ = limits_.max_picked;
  entries_left_ = limits_.max_page_entries;
  Admit();
  for (const bool prompts : {false, true}) {
    // Preemption shortens running_ from its end, never before the sequence being planned.
    for (size_t i = 0; i < running_.size(); ++i) {
      Sequence* sequence = running_[i].get();
      if ((sequence->pending() > 1) != prompts) continue;
      if (!Grant(sequence, std::min(sequence->pending(), tokens_left_))) break;
    }
  }
  return shares_;
}

// Sequences join while there is a place for them, and pages for what they hold and a little more,
// so that one that was preempted does not come back only to give way again.
void Scheduler::Admit() {
  while (!waiting_.empty() && running() < limits_.max_sequences) {
    if (PagesFor(waiting_.front()->size()) + 1 > pool_.free_count() && !running_.empty()) return;
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    std::ranges::sort(running_, CameEarlier);
  }
}

bool Scheduler::Grant(Sequence* sequence, int32_t count) {
  if (count == 0 || static_cast<int32_t>(shares_.size()) >= limits_.max_sequences) return true;
  // Rows with logits: the last, and with prompt_logprobs those of the prompt not yet collected.
  const bool prompt_logprobs = sequence->request.sampling.prompt_logprobs;
  const int32_t uncollected =
      prompt_logprobs ? std::max(0, sequence->prompt_size - 1 - sequence->prompt_logprobs_done) : 0;
  if (uncollected > 0) count = std::min(count, picked_left_);
  const bool completes = count == sequence->pending();
  const int32_t picked = uncollected > 0 ? count : completes ? 1 : 0;
  if (count == 0 || picked > picked_left_) return true;
  const int32_t entries = PagesFor(sequence->computed + count);
  if (entries > entries_left_) return true;
  if (!Reserve(sequence, sequence->computed + count)) return false;
  tokens_left_ -= count;
  picked_left_ -= picked;
  entries_left_ -= entries;
  shares_.push_back({sequence, count, picked, completes});
  return true;
}

bool Scheduler::Reserve(Sequence* sequence, int32_t tokens) {
  const int32_t wanted = PagesFor(tokens) - static_cast<int32_t>(sequence->pages.size());
  if (wanted <= 0) return true;
  while (!pool_.Take(wanted, sequence->pages)) {
    Sequence* last = running_.back().get();
    Preempt(last);
    if (last == sequence) return false;
  }
  return true;
}

void Scheduler::Preempt(Sequence* victim) {
  CHECK(running_.size() > 1) << "the pool is smaller than one context";
  std::erase_if(shares_, [&](const Share& share) { return share.sequence == victim; });
  pool_.Return(victim->pages);
  victim->computed = 0;
  waiting_.push_front(std::move(running_.back()));
  running_.pop_back();
  ++preemptions_;
}

std::unique_ptr<Sequence> Scheduler::Remove(Sequence* sequence) {
  auto take = [&](auto& from) -> std::unique_ptr<Sequence> {
    const auto found =
        std::ranges::find_if(from, [&](const auto& held) { return held.get() == sequence; });
    if (found == from.end()) return nullptr;
    std::unique_ptr<Sequence> taken = std::move(*found);
    from.erase(found);
    return taken;
  };
  std::unique_ptr<Sequence> taken = take(running_);
  if (taken == nullptr) taken = take(waiting_);
  CHECK(taken != nullptr);
  pool_.Return(taken->pages);
  return taken;
}

Sequence* Scheduler::Find(const std::string& id) const {
  for (Sequence* sequence : Live())
    if (sequence->request.id == id) return sequence;
  return nullptr;
}

std::vector<Sequence*> Scheduler::Live() const {
  std::vector<Sequence*> live;
  for (const auto& sequence : running_) live.push_back(sequence.get());
  for (const auto& sequence : waiting_) live.push_back(sequence.get());
  return live;
}

}  // namespace millpower::engine
