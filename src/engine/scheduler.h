// Which sequences take part in the next step, and with how many tokens. Pure bookkeeping: no
// device, no clock, no threads.
//
// Shares. Every caller has a weight: its lease, or an equal part of what is not leased. What it has
// had is counted in virtual time, the device's by weight, and whoever has had the least comes first
// (start-time fair queueing: Goyal, Vin and Cheng 1996; for tokens: Sheng et al., "Fairness in
// Serving Large Language Models", 2024). A newcomer, or one that comes back, starts where those
// that wait have got to, or where it had got to itself, whichever is later: neither pausing nor
// leaving earns anything. When nobody waits, nobody is owed anything. All of this is within one
// class.
//
// Places. A sequence that runs has pages for all its tokens and a place in every step. The next
// free place goes to the highest class; within it, to the caller whose time is the least when what
// its running sequences are expected to need - for each the average of those that are over - is
// counted too; then in order of arrival. So a caller with one request waits for one
// place at most, and for those of other callers before it, however many requests anyone else has. A
// newcomer must leave every running sequence a page to grow into, or it would only come to give way
// again. What does not fit holds up the line behind it, so that small requests do not keep a large
// one out. Batch sequences give their places and pages up to others that wait.
//
// Leases. A caller with a lease takes places and pages back, also from other classes, as long as
// it has less than its part of them, and only from those who keep at least theirs: nothing is taken
// back and forth. Within its class it also takes a place when it is owed kOwedSequences whole
// sequences, so that long ones do not outlast a lease that is less than a place. What is taken is
// the last come of whoever is furthest above; its pages stay findable.
//
// Steps. Every running sequence's next token goes first. Prompts share what is left of the step,
// by class, then so that the callers' times come out even; of one caller, in order of arrival.
// Everyone gets a row at least, and takes at most half of what its caller has left while another of
// its caller's comes after it: neither a long prompt nor many short ones stop the others. While a
// caller with a lease waits for a place, prompts do not carry others beyond its time.
//
// Memory. When a sequence needs a page and there is none, one gives way: of the lowest class, the
// last come of the caller who holds the most pages for its weight. Only a sequence that has grown
// asks for pages and its tokens stay, so that this ends.
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

// What all callers without a lease share when everything is leased.
inline constexpr double kLeastRest = 0.01;
// A caller with a lease takes a place when it is owed so many sequences of average length.
inline constexpr double kOwedSequences = 2;

// Whoever has requests of one class, or had and is still ahead of those that wait.
struct Caller {
  Priority priority{};
  std::string name;
  std::deque<std::unique_ptr<Sequence>> waiting;  // in order of arrival
  int32_t running = 0;                            // sequences
  int64_t pages = 0;                              // of those; shared ones count for each
  double lease = 0;                               // of the device's time; 0: none
  double weight = 1;                              // the lease, or a part of what is not leased
  double time = 0;             // of the device, in ns, each by the weight of then
  bool is_backlogged = false;  // wanted more than it got when last planned
  // Of the step being planned: rows of next tokens, the least and most that its prompts may get,
  // and what they have left.
  int32_t next_rows = 0, least_rows = 0, prompt_rows = 0, rows_left = 0;

  bool is_present() const { return running > 0 || !waiting.empty(); }
};

// Not thread-safe; used by the engine's thread.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  void Add(std::unique_ptr<Sequence> sequence);

  // Replaces what is leased. Shares that are not positive are ignored; more than 1 in all is scaled
  // down to 1.
  void SetShares(const std::vector<CallerShare>& shares);
  // What is not leased; callers without a lease share it.
  double rest() const { return rest_; }

  // The shares of the next step; empty when nothing can be done now. Sequences that are blocked
  // keep their places.
  const std::vector<Share>& Plan();

  // A share has been computed, which took so much of the device's time: counts both, and makes the
  // tokens' pages findable.
  void Computed(const Share& share, int64_t device_ns);

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
  // Whether there is no place, and whether there is no memory.
  struct Shortage {
    bool places = false, memory = false;
    bool any() const { return places || memory; }
  };

  void Weigh();
  void MeasureTime();
  double Part(const Caller& caller) const;
  double ExpectedNs() const { return expected_rows_ * row_ns_; }
  double Projected(const Caller& caller) const;
  void Grow();
  bool HoldPages(Sequence& sequence);
  void Admit();
  Sequence* FirstOf(const Caller& caller) const;
  Sequence* NextInLine() const;
  Sequence* NextOwed() const;
  bool WaitsForLeader(Sequence& sequence) const;
  bool FindLeader(Sequence& sequence) const;
  bool Join(Sequence* sequence);
  Shortage ShortOf(const Sequence& sequence, int32_t new_pages, int64_t places = 0,
                   int64_t pages = 0) const;
  bool MakeRoom(const Sequence& sequence, int32_t new_pages);
  bool TakeBack(const Sequence& sequence, int32_t new_pages);
  bool MayTake(const Caller& caller, const Caller& from, int64_t new_pages, bool for_memory,
               int64_t held) const;
  Sequence* ToTakeBack(const Sequence& sequence, bool for_memory) const;
  Sequence* LastCome(const Caller& caller, int64_t before) const;
  void ShareOut();
  bool Deal(size_t begin, size_t end, int32_t rows);
  void Grant(Sequence& sequence, int32_t count, int32_t followers);
  Sequence* Victim() const;
  void Preempt(Sequence* victim);
  void LetGo(Sequence& sequence);
  std::unique_ptr<Sequence> TakeRunning(Sequence* sequence);

  const SchedulerLimits limits_;
  KvPages pages_;
  std::map<std::pair<Priority, std::string>, Caller> callers_;
  std::vector<std::unique_ptr<Sequence>> running_;
  std::map<std::string, double> leases_;
  double rest_ = 1;
  double total_weight_ = 0;  // what those present above batch may claim
  bool weights_are_old_ = false;
  // By class: the least time of those that are backlogged; with nobody, the most of all. Grows.
  std::array<double, kPriorityCount> time_{};
  double expected_rows_ = 256;  // of a sequence: the average of those that are over
  double row_ns_ = 1;           // of the device: the average of late
  int64_t waiting_ = 0;
  int64_t entries_ = 0;  // pages of running sequences; shared ones count for each
  int64_t step_ = 0;
  int64_t preemptions_ = 0;
  bool memory_is_short_ = false;  // somebody waits for pages
  // Of the step being planned.
  std::vector<Share> shares_;
  std::vector<Sequence*> line_;
  std::vector<Caller*> dealt_;  // callers whose prompts share a class's rows
  int32_t rows_left_ = 0, picked_left_ = 0, adjustments_left_ = 0;
};

}  // namespace millpower::engine
