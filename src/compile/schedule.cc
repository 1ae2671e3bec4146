// Instructions are dealt to streams in program order. Where one must come after another of a
// different stream (it reads what the other wrote, or overwrites what the other read or wrote), a
// wait is needed, unless an earlier wait already implies it. What is implied is tracked by vector
// clocks (Fidge 1988, Mattern 1989), so that every wait left is required.
#include <algorithm>
#include <map>
#include <vector>

#include "compile/passes.h"

namespace millpower::compile {
namespace {

using isa::kStreamCount;
using Clock = std::array<int, kStreamCount>;  // by stream: how many instructions are known done

size_t StreamOf(isa::Opcode op) {
  switch (op) {
    case isa::Opcode::kGather:
    case isa::Opcode::kKvAppend:
    case isa::Opcode::kCopy:
    case isa::Opcode::kTake:
    case isa::Opcode::kTakeAlong:
    case isa::Opcode::kGatherNd:
    case isa::Opcode::kScatter:
    case isa::Opcode::kEmbeddingBag:
      return static_cast<size_t>(isa::Stream::kTransfer);
    case isa::Opcode::kCollective:
      return static_cast<size_t>(isa::Stream::kLink);
    default:
      return static_cast<size_t>(isa::Stream::kCompute);
  }
}

struct Access {
  int64_t begin, end;
  int instruction;
  bool write;
};

class Scheduler {
 public:
  Scheduler(const std::vector<isa::Instruction>& instructions, isa::Program& program)
      : instructions_(instructions),
        program_(program),
        accesses_(program.buffers.size()),
        clocks_(instructions.size()),
        index_in_stream_(instructions.size()),
        waits_for_(instructions.size()) {}

  void Run() {
    for (size_t i = 0; i < instructions_.size(); ++i) FindWaits(static_cast<int>(i));
    Emit();
  }

 private:
  size_t StreamAt(int i) const { return StreamOf(instructions_[static_cast<size_t>(i)].op); }

  // The instructions that `i` must come after: for each operand, conflicting earlier accesses.
  std::vector<int> Dependencies(int i) {
    std::vector<int> dependencies;
    const isa::Instruction& instruction = instructions_[static_cast<size_t>(i)];
    const isa::OpInfo& info = isa::Info(instruction.op);
    for (size_t j = 0; j < info.operands.size(); ++j) {
      const isa::Operand& operand = instruction.operands[j];
      if (!operand.present()) continue;
      const isa::BufferKind kind = program_.buffer(operand).kind;
      if (kind == isa::BufferKind::kWeight || kind == isa::BufferKind::kInput) continue;
      const bool write = info.operands[j].access != isa::Access::kRead;
      const int64_t begin = operand.begin, end = operand.begin + operand.cols;
      auto& earlier = accesses_[static_cast<size_t>(operand.buffer)];
      for (const Access& access : earlier)
        if (access.instruction != i && (write || access.write) && access.begin < end &&
            begin < access.end)
          dependencies.push_back(access.instruction);
      // Whoever comes after this comes after those: a write had to wait for them, and a read is
      // behind the reads of its own stream.
      std::erase_if(earlier, [&](const Access& access) {
        const bool covered = begin <= access.begin && access.end <= end;
        const bool before = !access.write && StreamAt(access.instruction) == StreamAt(i);
        return covered && (write || before);
      });
      earlier.push_back({begin, end, i, write});
    }
    // Latest first: what it implies need not be waited for again.
    std::ranges::sort(dependencies, std::greater());
    return dependencies;
  }

  void FindWaits(int i) {
    const auto at = static_cast<size_t>(i);
    const size_t stream = StreamAt(i);
    Clock clock = last_clock_[stream];
    for (const int dependency : Dependencies(i)) {
      const size_t other = StreamAt(dependency);
      if (clock[other] > index_in_stream_[static_cast<size_t>(dependency)]) continue;
      waits_for_[at].push_back(dependency);
      for (size_t s = 0; s < clock.size(); ++s)
        clock[s] = std::max(clock[s], clocks_[static_cast<size_t>(dependency)][s]);
    }
    index_in_stream_[at] = counts_[stream]++;
    clock[stream] = counts_[stream];
    clocks_[at] = clock;
    last_clock_[stream] = clock;
  }

  // One semaphore for each pair of streams of which one waits for the other; first to first.
  int64_t SemaphoreOf(size_t from, size_t to) {
    const auto [found, added] = semaphores_.try_emplace({from, to}, program_.semaphores);
    if (added) ++program_.semaphores;
    return found->second;
  }

  static isa::Instruction Sync(isa::Opcode op, int64_t semaphore) {
    isa::Instruction instruction;
    instruction.op = op;
    instruction.attributes[isa::sync::kSemaphore] = semaphore;
    instruction.attributes[isa::sync::kCount] = 1;
    return instruction;
  }

  void Emit() {
    std::vector<std::vector<size_t>> waiters(instructions_.size());  // streams to post to
    for (size_t i = 0; i < instructions_.size(); ++i)
      for (const int dependency : waits_for_[i])
        waiters[static_cast<size_t>(dependency)].push_back(StreamOf(instructions_[i].op));
    for (size_t i = 0; i < instructions_.size(); ++i) {
      const size_t stream = StreamOf(instructions_[i].op);
      auto& out = program_.streams[stream];
      for (const int dependency : waits_for_[i])
        out.push_back(Sync(isa::Opcode::kWait, SemaphoreOf(StreamAt(dependency), stream)));
      out.push_back(instructions_[i]);
      for (const size_t waiter : waiters[i])
        out.push_back(Sync(isa::Opcode::kPost, SemaphoreOf(stream, waiter)));
    }
    for (auto& stream : program_.streams) stream.push_back(isa::Instruction{});  // end
  }

  const std::vector<isa::Instruction>& instructions_;
  isa::Program& program_;
  std::vector<std::vector<Access>> accesses_;  // by buffer: those a later access may conflict with
  std::vector<Clock> clocks_;                  // by instruction: what is done when it is done
  std::vector<int> index_in_stream_;
  std::vector<std::vector<int>> waits_for_;
  std::array<Clock, kStreamCount> last_clock_{};
  std::array<int, kStreamCount> counts_{};
  std::map<std::pair<size_t, size_t>, int64_t> semaphores_;
};

}  // namespace

void Schedule(const std::vector<isa::Instruction>& instructions, isa::Program& program) {
  Scheduler(instructions, program).Run();
}

}  // namespace millpower::compile
