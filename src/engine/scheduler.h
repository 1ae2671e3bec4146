// Which sequences take part in the next step, and with how many tokens. Pure bookkeeping: no
// device, no clock, no threads.
//
// Places. A sequence that runs has pages for all its tokens and a place in every step. The next
// free place goes to the highest class; within it, to the caller who has the fewest running, then
// to the one who has been given the fewest rows, then in order of arrival. A newcomer must leave
// every running sequence a page to grow into, or it would only come to give way again. What does
// not fit holds up the line behind it, so that small requests do not keep a large one out. Batch
// sequences give their places and pages up to others that wait.
//
// Steps. Every running sequence's next token goes first. Prompts share what is left of the step,
// by class, then the caller's rows so far, then arrival. Everyone gets a row at least, and takes at
// most half of what is left while another of its class comes after it: neither a long prompt nor
// many short ones stop the others.
//
// Memory. When a sequence needs a page and there is none, one gives way: of the lowest class, the
// last come of the caller who holds the most pages. Only a sequence that has grown asks for pages
// and its tokens stay, so that this ends.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/kv_pages.h"
#include "engine/sequence.h"

namespace millpower::engine {

struct SchedulerLimits {
  // In one step. There are no more places than rows, so that every sequence moves in every step,
  // unless adjustments run out: those left out come first in the next.
  int32_t max_sequences = 1;     // <= max_batch_tokens, max_picked
  int32_t max_batch_tokens = 1;  // rows
  int32_t max_picked = 1;        // rows with logits
  int32_t max_adjustments = 0;   // >= those of any one sequence
  int32_t max_page_entries = 1;  // pages listed, >= those of a whole context
  int32_t pages = 1;             // of the KV cache, >= those of a whole context
  bool prefix_cache = true;
  uint64_t hash_seed = 0;
};

// Whoever has live requests of one class.
struct Caller {
  Priority priority{};
  std::string name;
  std::deque<std::unique_ptr<Sequence>> waiting;  // in order of arrival
  int32_t running = 0;                            // sequences
  int64_t pages = 0;                              // of those; shared ones count for each
  // Given so far. A newcomer starts where the class has got to, so that those who are here already
  // are before all who are still to come.
  int64_t rows = 0;
};

// Not thread-safe; used by the engine's thread.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  void Add(std::unique_ptr<Sequence> sequence);

  // The shares of the next step; empty when nothing can be done now. Sequences that are blocked
  // keep their places.
  const std::vector<Share>& Plan();

  // A share has been computed: counts its tokens, and makes their pages findable.
  void Computed(const Share& share);

  // Takes a sequence out and its pages back.
  std::unique_ptr<Sequence> Remove(Sequence* sequence);

  // The live sequence of a request or of an order of arrival, or null.
  Sequence* Find(const std::string& id) const;
  Sequence* Find(int64_t order) const;
  // All live sequences, running before waiting.
  std::vector<Sequence*> Live() const;

  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const { return waiting_; }
  // Sequences that could come and get a place at once.
  int64_t open_places() const { return memory_is_short_ ? 0 : limits_.max_sequences - running(); }
  int64_t preemptions() const { return preemptions_; }
  const KvPages& pages() const { return pages_; }

 private:
  void Grow();
  bool HoldPages(Sequence& sequence);
  void Admit();
  Sequence* NextInLine();
  bool WaitsForLeader(Sequence& sequence) const;
  bool FindLeader(Sequence& sequence) const;
  bool Join(Sequence* sequence);
  bool MakeRoom(const Sequence& sequence, int32_t new_pages);
  void ShareOut();
  void Grant(Sequence& sequence, int32_t count, int32_t followers);
  Sequence* Victim() const;
  void Preempt(Sequence* victim);
  void LetGo(Sequence& sequence);
  std::unique_ptr<Sequence> TakeRunning(Sequence* sequence);

  const SchedulerLimits limits_;
  KvPages pages_;
  std::map<std::pair<Priority, std::string>, Caller> callers_;
  std::vector<std::unique_ptr<Sequence>> running_;
  // By class: the most rows that any caller had when it was given more.
  std::array<int64_t, kPriorityCount> served_{};
  int64_t waiting_ = 0;
  int64_t entries_ = 0;  // pages of running sequences; shared ones count for each
  int64_t step_ = 0;
  int64_t preemptions_ = 0;
  bool memory_is_short_ = false;  // somebody waits for pages
  // Of the step being planned.
  std::vector<Share> shares_;
  std::vector<Sequence*> line_;
  int32_t rows_left_ = 0, picked_left_ = 0, adjustments_left_ = 0;
};

}  // namespace millpower::engine
