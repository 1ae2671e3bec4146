#include "device/cpu/cpu_device.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <span>
#include <string>

#include "base/check.h"
#include "base/clock.h"
#include "base/page_memory.h"
#include "base/threads.h"
#include "device/arbiter.h"
#include "device/cpu/empty_kernels.h"
#include "device/cpu/steps.h"
#include "device/launch.h"
#include "isa/verify.h"

namespace millpower::device::cpu {
namespace {

const SystemClock kClock;

class CpuProgram;

// The device's threads, and whose turn it is to use them.
class Turnstile {
 public:
  explicit Turnstile(int threads) : team_(threads) {}

  ThreadTeam& team() { return team_; }

  Arbiter::Id Join(CpuProgram& program) {
    const std::lock_guard lock(mutex_);
    const Arbiter::Id id = arbiter_.Join();
    programs_[id] = {&program, true, 0};
    return id;
  }

  // Drops a launch that waits; waits for one that runs.
  void Leave(Arbiter::Id id) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return running_ != id; });
    arbiter_.Leave(id);
    programs_.erase(id);
    changed_.notify_all();
  }

  // From here to the end of Complete, another thread may run the launch.
  void Submit(Arbiter::Id id, LaunchClass launch_class, std::span<const Claim> claims) {
    const std::lock_guard lock(mutex_);
    programs_.at(id).done = false;
    arbiter_.Submit(id, launch_class, claims, kClock.NowNs());
    changed_.notify_all();
  }

  // How long the launch took.
  int64_t Complete(Arbiter::Id id);

 private:
  struct Member {
    CpuProgram* program = nullptr;
    bool done = true;
    int64_t device_ns = 0;  // of the last launch
  };

  ThreadTeam team_;  // run by the thread that has set running_
  std::mutex mutex_;
  std::condition_variable changed_;
  Arbiter arbiter_;
  std::map<Arbiter::Id, Member> programs_;
  Arbiter::Id running_ = -1;
};

class CpuProgram final : public LoadedProgram {
 public:
  CpuProgram(std::shared_ptr<const isa::Program> program, isa::BoundWeights weights,
             const CpuOptions& options, Turnstile& turnstile)
      : program_(std::move(program)),
        weights_(std::move(weights)),
        options_(options),
        turnstile_(turnstile),
        team_(turnstile.team()),
        checker_(*program_),
        work_lists_(FindWorkLists(*program_)),
        id_(turnstile.Join(*this)) {}

  ~CpuProgram() override { turnstile_.Leave(id_); }

  // Allocates everything a launch will need.
  Result<void> Prepare(const LoadOptions& load) {
    const isa::Program& program = *program_;
    for (const isa::Register& reg : program.registers)
      frame_.registers.push_back(reg.at_load ? load.kv_pages : 0);
    for (size_t i = 0; i < program.registers.size(); ++i)
      if (program.registers[i].at_load &&
          (load.kv_pages < 1 || load.kv_pages > program.registers[i].max))
        return Fail(ErrorCode::kInvalidArgument, std::to_string(load.kv_pages) +
                                                     " KV pages; the Program takes 1 to " +
                                                     std::to_string(program.registers[i].max));
    TRY(AllocateBuffers());
    for (const WorkList& list : work_lists_) {
      frame_.work.push_back({list, {}});
      frame_.work.back().runs.reserve(static_cast<size_t>(
          program.Max(list.rows) / kRunRows +
          program.Max(program.buffers[static_cast<size_t>(list.sequences)].rows)));
    }
    MakeSamplers();
    TRY_ASSIGN(std::vector<isa::Step> order, isa::Linearise(program, options_.order_seed));
    TRY(MakeSteps(order));
    next_unit_ = std::make_unique<Counter[]>(steps_.size());
    return {};
  }

  const isa::Program& program() const override { return *program_; }

  int64_t LoadRegister(int32_t reg) const override {
    return frame_.registers[static_cast<size_t>(reg)];
  }

  Result<Ticket> Submit(const Launch& launch, LaunchClass launch_class) override {
    CHECK(completed_ == ticket_) << "a launch is in flight";
    for (size_t i = 0; i < frame_.registers.size(); ++i)
      if (!program_->registers[i].at_load) frame_.registers[i] = launch.registers[i];
    TRY(checker_.Check(launch, frame_.registers));  // which computes those with a formula
    TakeInputs(launch);
    faults_.Clear();
    for (WorkRuns& work : frame_.work) CutRuns(work);
    for (size_t i = 0; i < steps_.size(); ++i) next_unit_[i].value = 0;
    turnstile_.Submit(id_, launch_class, launch.claims);
    return ++ticket_;
  }

  Result<Completion> Complete(Ticket ticket) override {
    CHECK(ticket == ticket_) << ticket;
    completed_ = ticket;
    const Completion completion{turnstile_.Complete(id_)};
    TRY(faults_.Check());
    return completion;
  }

  // Runs the submitted launch. By the thread whose turn it is.
  void Execute() {
    team_.Run([this](int member) { RunSteps(member); });
  }

  std::span<const std::byte> Output(int32_t id) const override {
    const isa::Buffer& buffer = program_->buffers[static_cast<size_t>(id)];
    CHECK(buffer.kind == isa::BufferKind::kOutput) << buffer.name;
    return {buffers_[static_cast<size_t>(id)],
            static_cast<size_t>(isa::BufferBytes(buffer, frame_.Rows(buffer.rows)))};
  }

  Result<void> UpdateRows(int32_t id, std::span<const int64_t> rows,
                          std::span<const std::byte> bytes) override {
    CHECK(completed_ == ticket_) << "a launch is in flight";
    TRY(CheckRowUpdate(*program_, id, rows, bytes));
    const isa::Buffer& table = program_->buffers[static_cast<size_t>(id)];
    if (!weights_.tables_are_writable)
      return Fail(ErrorCode::kUnsupported, "table '" + table.name + "' cannot be written");
    const int64_t row_bytes = isa::BufferBytes(table, 1);
    const std::byte* from = bytes.data();
    for (const int64_t row : rows) {
      std::memcpy(buffers_[static_cast<size_t>(id)] + row * row_bytes, from,
                  static_cast<size_t>(row_bytes));
      from += row_bytes;
    }
    return {};
  }

 private:
  struct alignas(64) Counter {
    std::atomic<int64_t> value{0};
  };

  Result<void> AllocateBuffers() {
    const isa::Program& program = *program_;
    std::vector<int64_t> offsets(program.buffers.size(), -1);
    int64_t total = 0;
    auto place = [&](bool kv) {
      for (size_t i = 0; i < program.buffers.size(); ++i) {
        const isa::Buffer& buffer = program.buffers[i];
        if (buffer.kind == isa::BufferKind::kWeight || (buffer.kind == isa::BufferKind::kKv) != kv)
          continue;
        const int64_t rows = kv ? frame_.Rows(buffer.rows) : program.Max(buffer.rows);
        offsets[i] = total;
        total += (isa::BufferBytes(buffer, rows) + 4095) / 4096 * 4096;
      }
    };
    buffers_.assign(program.buffers.size(), nullptr);
    for (const bool kv : {false, true}) {
      total = 0;
      place(kv);
      auto& memory = kv ? kv_memory_ : scratch_memory_;
      memory = std::make_unique<PageMemory>(static_cast<size_t>(total));
      if (!memory->ok())
        return Fail(ErrorCode::kNoCapacity, "no memory for " + std::to_string(total) +
                                                " bytes of " + (kv ? "KV cache" : "scratch"));
      for (size_t i = 0; i < program.buffers.size(); ++i)
        if (offsets[i] >= 0 && buffers_[i] == nullptr) buffers_[i] = memory->data() + offsets[i];
    }
    for (size_t i = 0; i < program.buffers.size(); ++i) {
      if (program.buffers[i].kind != isa::BufferKind::kWeight) continue;
      const auto bytes = weights_.by_buffer[i];
      CHECK(static_cast<int64_t>(bytes.size()) ==
            isa::BufferBytes(program.buffers[i], program.buffers[i].rows.size))
          << program.buffers[i].name;
      // No instruction writes weights, as Verify has proven. UpdateRows does, where it may.
      buffers_[i] = const_cast<std::byte*>(bytes.data());
    }
    return {};
  }

  // Steps have working memory of their own.
  Result<void> MakeSteps(const std::vector<isa::Step>& order) {
    const StepContext context{*program_, *options_.kernels, buffers_,     work_lists_,
                              samplers_, faults_,           team_.count()};
    try {
      for (const isa::Step& step : order)
        steps_.push_back(MakeStep(
            context,
            program_->streams[static_cast<size_t>(step.stream)][static_cast<size_t>(step.index)]));
    } catch (const std::bad_alloc&) {
      return Fail(ErrorCode::kNoCapacity, "no memory for what the instructions work with");
    }
    return {};
  }

  void MakeSamplers() {
    int64_t vocab = 0;
    for (const auto& stream : program_->streams)
      for (const isa::Instruction& in : stream)
        if (in.op == isa::Opcode::kSample)
          vocab = std::max(vocab, in.operand(isa::sample::kLogits).cols);
    if (vocab == 0) return;
    for (int i = 0; i < team_.count(); ++i)
      samplers_.push_back(std::make_unique<Sampler>(*options_.kernels, vocab));
  }

  void TakeInputs(const Launch& launch) {
    for (size_t i = 0; i < launch.inputs.size(); ++i)
      if (program_->buffers[i].kind == isa::BufferKind::kInput && !launch.inputs[i].empty())
        std::memcpy(buffers_[i], launch.inputs[i].data(), launch.inputs[i].size() * 4);
  }

  void CutRuns(WorkRuns& work) {
    work.runs.clear();
    const isa::Buffer& buffer = program_->buffers[static_cast<size_t>(work.list.sequences)];
    const auto* row =
        reinterpret_cast<const int32_t*>(buffers_[static_cast<size_t>(work.list.sequences)]);
    const auto* pages =
        reinterpret_cast<const int32_t*>(buffers_[static_cast<size_t>(work.list.pages)]);
    for (int64_t i = 0; i < frame_.Rows(buffer.rows); ++i, row += isa::kSequenceColumns) {
      for (int64_t done = 0; done < row[isa::kRowCount]; done += kRunRows)
        work.runs.push_back({row[isa::kRowBegin] + done,
                             std::min<int64_t>(kRunRows, row[isa::kRowCount] - done),
                             row[isa::kFirstPosition] + done, pages + row[isa::kPageBegin]});
    }
  }

  // Every thread walks all steps; what is small stays on the first thread, and only where work
  // changes hands do the threads meet.
  void RunSteps(int member) {
    bool pending = false;  // the last step's results may not be visible to all threads
    bool last_serial = true;
    for (size_t i = 0; i < steps_.size(); ++i) {
      const Step& step = *steps_[i];
      const int64_t units = step.Units(frame_);
      if (units == 0) continue;
      const bool serial =
          team_.count() == 1 || units == 1 || units * step.UnitCost(frame_) < options_.serial_cost;
      if (pending && !(serial && last_serial)) team_.Sync();
      if (serial) {
        if (member == 0) step.Run(frame_, 0, units, member);
      } else {
        RunShared(step, units, next_unit_[i].value, member);
      }
      pending = true;
      last_serial = serial;
    }
  }

  void RunShared(const Step& step, int64_t units, std::atomic<int64_t>& next, int member) {
    const int64_t ranges = team_.count() * step.RangesPerThread();
    const int64_t grain = step.Grain();
    const int64_t size = std::max(grain, (units / ranges + grain - 1) / grain * grain);
    for (;;) {
      const int64_t begin = next.fetch_add(size, std::memory_order_relaxed);
      if (begin >= units) return;
      step.Run(frame_, begin, std::min(begin + size, units), member);
    }
  }

  const std::shared_ptr<const isa::Program> program_;
  const isa::BoundWeights weights_;
  const CpuOptions options_;
  Turnstile& turnstile_;
  ThreadTeam& team_;
  LaunchChecker checker_;
  const std::vector<WorkList> work_lists_;
  std::unique_ptr<PageMemory> scratch_memory_, kv_memory_;
  std::vector<std::byte*> buffers_;  // by buffer
  std::vector<std::unique_ptr<Sampler>> samplers_;
  std::vector<std::unique_ptr<Step>> steps_;
  std::unique_ptr<Counter[]> next_unit_;  // by step: the next unit to hand out
  Frame frame_;
  Faults faults_;
  Ticket ticket_ = 0, completed_ = 0;
  const Arbiter::Id id_;  // last: from here on other threads may see this Program
};

int64_t Turnstile::Complete(Arbiter::Id id) {
  std::unique_lock lock(mutex_);
  const Member& own = programs_.at(id);
  while (!own.done) {
    if (running_ >= 0) {
      changed_.wait(lock);
      continue;
    }
    const int64_t now = kClock.NowNs();
    const Arbiter::Decision decision = arbiter_.Next(now);
    if (decision.next < 0) {
      changed_.wait_for(lock, std::chrono::nanoseconds(decision.until_ns - now));
      continue;
    }
    Member& member = programs_.at(decision.next);
    running_ = decision.next;
    lock.unlock();
    const int64_t start = kClock.NowNs();
    member.program->Execute();
    const int64_t end = kClock.NowNs();
    lock.lock();
    running_ = -1;
    member.done = true;
    member.device_ns = end - start;
    arbiter_.Finish(decision.next, end, member.device_ns);
    changed_.notify_all();
  }
  return own.device_ns;
}

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(const CpuOptions& options) : options_(options), turnstile_(options.threads) {
    if (options_.kernels == nullptr) options_.kernels = kernels::AvailableKernels().front();
    if (options_.empty_kernels) options_.kernels = &EmptyKernels();
  }

  Result<std::unique_ptr<LoadedProgram>> Load(std::shared_ptr<const isa::Program> program,
                                              isa::BoundWeights weights,
                                              const LoadOptions& options) override {
    auto loaded =
        std::make_unique<CpuProgram>(std::move(program), std::move(weights), options_, turnstile_);
    TRY(loaded->Prepare(options));
    return loaded;
  }

 private:
  CpuOptions options_;
  Turnstile turnstile_;
};

}  // namespace

std::unique_ptr<Device> MakeCpuDevice(const CpuOptions& options) {
  return std::make_unique<CpuDevice>(options);
}

}  // namespace millpower::device::cpu
