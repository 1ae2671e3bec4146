// Running the semaphores of a Program: the linear order, and the proof that it is free of races.
#include <algorithm>
#include <deque>
#include <map>
#include <string>

#include "base/rng.h"
#include "isa/encoding.h"
#include "isa/order.h"

namespace millpower::isa {
namespace {

std::string Where(const Program& program, Step step) {
  const auto& stream = program.streams[static_cast<size_t>(step.stream)];
  return std::string(Name(step.stream)) + "[" + std::to_string(step.index) + "] '" +
         Print(program, stream[static_cast<size_t>(step.index)]) + "'";
}

// Runs waits and posts as counters, and says in which order instructions may go.
class Runner {
 public:
  explicit Runner(const Program& program)
      : program_(program), counts_(static_cast<size_t>(program.semaphores), 0) {}

  bool AtEnd(Stream stream) const { return Next(stream).op == Opcode::kEnd; }
  bool CanGo(Stream stream) const {
    const Instruction& next = Next(stream);
    if (next.op == Opcode::kEnd) return false;
    return next.op != Opcode::kWait || Count(next) >= next.integer(sync::kCount);
  }
  Step Go(Stream stream) {
    const Instruction& next = Next(stream);
    if (next.op == Opcode::kWait) Count(next) -= next.integer(sync::kCount);
    if (next.op == Opcode::kPost) Count(next) += next.integer(sync::kCount);
    return {stream, at_[static_cast<size_t>(stream)]++};
  }

  // All streams have ended and all counts are used up, or why not.
  Result<void> Finished() const {
    for (int s = 0; s < kStreamCount; ++s) {
      const auto stream = static_cast<Stream>(s);
      if (!AtEnd(stream))
        return Fail(ErrorCode::kCorrupt,
                    "deadlock: " + Where(program_, {stream, at_[static_cast<size_t>(s)]}) +
                        " waits for counts that never come");
    }
    for (size_t i = 0; i < counts_.size(); ++i)
      if (counts_[i] != 0)
        return Fail(ErrorCode::kCorrupt, "semaphore " + std::to_string(i) + " is left with " +
                                             std::to_string(counts_[i]) +
                                             " counts that no wait takes");
    return {};
  }

 private:
  const Instruction& Next(Stream stream) const {
    const auto s = static_cast<size_t>(stream);
    return program_.streams[s][static_cast<size_t>(at_[s])];
  }
  int64_t& Count(const Instruction& instruction) {
    return counts_[static_cast<size_t>(instruction.integer(sync::kSemaphore))];
  }
  int64_t Count(const Instruction& instruction) const {
    return counts_[static_cast<size_t>(instruction.integer(sync::kSemaphore))];
  }

  const Program& program_;
  std::vector<int64_t> counts_;
  std::array<int32_t, kStreamCount> at_{};
};

// What is known to be done before an instruction starts: for each stream, how many of its
// instructions.
using VectorClock = std::array<int32_t, kStreamCount>;

void Join(VectorClock& clock, const VectorClock& other) {
  for (size_t s = 0; s < clock.size(); ++s) clock[s] = std::max(clock[s], other[s]);
}

struct LiveAccess {
  int64_t begin = 0, end = 0;  // columns
  Step step;
  bool write = false;
};

// Accesses of one buffer that a later one could still race with. More at once than any compiler
// makes is refused, so that hostile programs cannot make the check quadratic.
constexpr size_t kMaxLiveAccesses = 4096;

class RaceCheck {
 public:
  explicit RaceCheck(const Program& program)
      : program_(program),
        semaphores_(static_cast<size_t>(program.semaphores)),
        live_(program.buffers.size()),
        written_(program.buffers.size()) {}

  // `step` runs next in the linear order.
  Result<void> Run(Step step) {
    const auto s = static_cast<size_t>(step.stream);
    const Instruction& instruction = program_.streams[s][static_cast<size_t>(step.index)];
    VectorClock& clock = clocks_[s];
    if (instruction.op == Opcode::kWait) TRY(Wait(step, instruction, clock));
    clock[s] = step.index + 1;
    if (instruction.op == Opcode::kPost) TRY(Post(step, instruction, clock));
    const OpInfo& info = Info(instruction.op);
    for (const bool writes : {false, true}) {  // reads before the writes of the same instruction
      for (size_t i = 0; i < info.operands.size(); ++i) {
        const Operand& operand = instruction.operands[i];
        if (!operand.present()) continue;
        const Access access = info.operands[i].access;
        if (writes ? access == Access::kRead : access == Access::kWrite) continue;
        TRY(Touch(operand, {operand.begin, operand.begin + operand.cols, step, writes}, clock));
      }
    }
    return {};
  }

 private:
  struct Semaphore {
    int poster = -1, waiter = -1;  // streams
    int64_t posted = 0, taken = 0;
    std::deque<std::pair<int64_t, VectorClock>> posts;  // counts up to and with this one, when
  };

  // One stream posts a semaphore and one waits on it, so that counts are matched first to first.
  Result<void> Claim(int& owner, Step step, const char* what) {
    if (owner >= 0 && owner != static_cast<int>(step.stream))
      return Fail(ErrorCode::kCorrupt,
                  Where(program_, step) + ": a second stream " + what + " this semaphore");
    owner = static_cast<int>(step.stream);
    return {};
  }

  Result<void> Wait(Step step, const Instruction& instruction, VectorClock& clock) {
    Semaphore& semaphore = semaphores_[static_cast<size_t>(instruction.integer(sync::kSemaphore))];
    TRY(Claim(semaphore.waiter, step, "waits on"));
    semaphore.taken += instruction.integer(sync::kCount);
    while (!semaphore.posts.empty()) {
      const auto& [posted, when] = semaphore.posts.front();
      Join(clock, when);
      if (posted >= semaphore.taken) {
        if (posted == semaphore.taken) semaphore.posts.pop_front();
        break;
      }
      semaphore.posts.pop_front();
    }
    return {};
  }

  Result<void> Post(Step step, const Instruction& instruction, const VectorClock& clock) {
    Semaphore& semaphore = semaphores_[static_cast<size_t>(instruction.integer(sync::kSemaphore))];
    TRY(Claim(semaphore.poster, step, "posts"));
    semaphore.posted += instruction.integer(sync::kCount);
    semaphore.posts.emplace_back(semaphore.posted, clock);
    return {};
  }

  Result<void> Touch(const Operand& operand, const LiveAccess& access, const VectorClock& clock) {
    const Buffer& buffer = program_.buffer(operand);
    if (buffer.kind == BufferKind::kWeight || buffer.kind == BufferKind::kInput) return {};
    const auto id = static_cast<size_t>(operand.buffer);
    auto& live = live_[id];
    for (const LiveAccess& earlier : live) {
      if (!earlier.write && !access.write) continue;
      if (earlier.end <= access.begin || access.end <= earlier.begin) continue;
      if (clock[static_cast<size_t>(earlier.step.stream)] > earlier.step.index) continue;
      return Fail(ErrorCode::kCorrupt, "race on '" + buffer.name +
                                           "': " + Where(program_, access.step) +
                                           " does not wait for " + Where(program_, earlier.step));
    }
    if (!access.write) TRY(ExpectWritten(buffer, id, access));
    // Whatever the new access covers, and was ordered before it, can no longer be raced with
    // unseen: a third access unordered with the old one would be with the new one too.
    std::erase_if(live, [&](const LiveAccess& earlier) {
      return access.begin <= earlier.begin && earlier.end <= access.end &&
             (access.write || (!earlier.write && earlier.step.stream == access.step.stream));
    });
    if (live.size() >= kMaxLiveAccesses)
      return Fail(ErrorCode::kCorrupt, "'" + buffer.name + "' is accessed in too many pieces");
    live.push_back(access);
    if (access.write) AddWritten(written_[id], access.begin, access.end);
    return {};
  }

  Result<void> ExpectWritten(const Buffer& buffer, size_t id, const LiveAccess& access) {
    if (buffer.kind == BufferKind::kKv) return {};  // holds what earlier launches wrote
    const auto& ranges = written_[id];
    auto after = ranges.upper_bound(access.begin);
    if (after != ranges.begin() && std::prev(after)->second >= access.end) return {};
    return Fail(ErrorCode::kCorrupt, Where(program_, access.step) + " reads '" + buffer.name +
                                         "' before anything has written it");
  }

  // Disjoint, merged column ranges: begin -> end.
  static void AddWritten(std::map<int64_t, int64_t>& ranges, int64_t begin, int64_t end) {
    auto next = ranges.upper_bound(begin);
    if (next != ranges.begin() && std::prev(next)->second >= begin) {
      --next;
      begin = next->first;
    }
    while (next != ranges.end() && next->first <= end) {
      end = std::max(end, next->second);
      next = ranges.erase(next);
    }
    ranges[begin] = end;
  }

  const Program& program_;
  std::array<VectorClock, kStreamCount> clocks_{};
  std::vector<Semaphore> semaphores_;
  std::vector<std::vector<LiveAccess>> live_;
  std::vector<std::map<int64_t, int64_t>> written_;
};

// Calls visit(step) for every instruction but `end`, in an order the semaphores allow.
template <typename Visit>
Result<void> RunStreams(const Program& program, uint64_t seed, Visit visit) {
  Runner runner(program);
  Rng rng(seed);
  for (;;) {
    std::array<Stream, kStreamCount> ready{};
    size_t count = 0;
    for (int s = 0; s < kStreamCount; ++s)
      if (runner.CanGo(static_cast<Stream>(s))) ready[count++] = static_cast<Stream>(s);
    if (count == 0) return runner.Finished();
    if (seed != 0) {
      TRY(visit(runner.Go(ready[rng.Below(count)])));
      continue;
    }
    for (size_t i = 0; i < count; ++i)
      while (runner.CanGo(ready[i])) TRY(visit(runner.Go(ready[i])));
  }
}

}  // namespace

Result<void> CheckOrder(const Program& program) {
  RaceCheck races(program);
  return RunStreams(program, 0, [&](Step step) { return races.Run(step); });
}

Result<std::vector<Step>> Linearise(const Program& program, uint64_t seed) {
  std::vector<Step> order;
  TRY(RunStreams(program, seed, [&](Step step) -> Result<void> {
    const Opcode op =
        program.streams[static_cast<size_t>(step.stream)][static_cast<size_t>(step.index)].op;
    if (op != Opcode::kWait && op != Opcode::kPost) order.push_back(step);
    return {};
  }));
  return order;
}

}  // namespace millpower::isa
