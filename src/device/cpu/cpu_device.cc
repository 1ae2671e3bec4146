#include "device/cpu/cpu_device.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <string>

#include "base/check.h"
#include "base/clock.h"
#include "base/page_memory.h"
#include "base/threads.h"
#include "device/arbiter.h"
#include "device/chip/timer.h"
#include "device/cpu/conflicts.h"
#include "device/cpu/empty_kernels.h"
#include "device/cpu/shares.h"
#include "device/cpu/steps.h"
#include "device/launch.h"
#include "isa/verify.h"

namespace millpower::device::cpu {
namespace {

constexpr double kMicrojoules = 1e6;

// Of the events of a trace; the timing device's are process 1, so that both may lie in one picture.
constexpr int kTraceProcess = 2;

const SystemClock kClock;

class CpuProgram;

// The device's threads, and whose turn it is to use them.
class Turnstile {
 public:
  explicit Turnstile(int threads) : team_(threads) {}

  ThreadTeam& team() { return team_; }
  int64_t start_ns() const { return start_ns_; }

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

  const int64_t start_ns_ = kClock.NowNs();
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
        work_lists_(FindWorkLists(*program_)) {}

  ~CpuProgram() override {
    if (id_) turnstile_.Leave(*id_);
  }

  // Allocates everything a launch will need.
  Result<void> Prepare(const LoadOptions& load) {
    const isa::Program& program = *program_;
    if (program.ranks != options_.group->ranks())
      return Fail(ErrorCode::kInvalidArgument,
                  "the Program is for " + std::to_string(program.ranks) +
                      " ranks; this device is one of " + std::to_string(options_.group->ranks()));
    for (const isa::Register& reg : program.registers)
      frame_.registers.push_back(IsRank(reg) ? options_.rank : reg.at_load ? load.kv_pages : 0);
    for (size_t i = 0; i < program.registers.size(); ++i)
      if (program.registers[i].at_load && !IsRank(program.registers[i]) &&
          (load.kv_pages < 1 || load.kv_pages > program.registers[i].max))
        return Fail(ErrorCode::kInvalidArgument, std::to_string(load.kv_pages) +
                                                     " KV pages; the Program takes 1 to " +
                                                     std::to_string(program.registers[i].max));
    TRY(AllocateBuffers());
    if (load.touch) scratch_memory_->Touch();
    for (const WorkList& list : work_lists_) {
      frame_.work.push_back({list, {}});
      frame_.work.back().runs.reserve(static_cast<size_t>(
          program.Max(list.rows) / kRunRows +
          program.Max(program.buffers[static_cast<size_t>(list.sequences)].rows)));
    }
    MakeSamplers();
    TRY_ASSIGN(std::vector<isa::Step> order, isa::Linearise(program, options_.order_seed));
    TRY(MakeSteps(order));
    if (options_.chip) timer_.emplace(program_, *options_.chip, chip::ExpandOptions{});
    for (size_t i = 0; i < steps_.size(); ++i) progress_.emplace_back(team_.count());
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
    MeasureEnergy(launch);
    if (!id_) id_ = turnstile_.Join(*this);
    turnstile_.Submit(*id_, launch_class, launch.claims);
    return ++ticket_;
  }

  Result<Completion> Complete(Ticket ticket) override {
    CHECK(ticket == ticket_) << ticket;
    completed_ = ticket;
    Completion completion{turnstile_.Complete(*id_)};
    if (options_.trace != nullptr) WriteTrace();
    if (timer_) {
      const double seconds = static_cast<double>(completion.device_ns) * 1e-9;
      completion.energy_uj =
          std::llround((launch_joules_ + options_.chip->idle_w.value * seconds) * kMicrojoules);
    }
    TRY(faults_.Check());
    return completion;
  }

  // Runs the submitted launch. By the thread whose turn it is.
  void Execute() {
    if (PlanSteps())
      team_.RunWithWhoComes([this](int member) { RunSteps(member); });
    else
      RunSteps(0);
    if (options_.profile != nullptr) options_.profile->Add(profile_begin_, step_ns_);
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
      std::byte* const to = buffers_[static_cast<size_t>(id)] + row * row_bytes;
      if (weights_.before_write) weights_.before_write({to, static_cast<size_t>(row_bytes)});
      std::memcpy(to, from, static_cast<size_t>(row_bytes));
      from += row_bytes;
    }
    return {};
  }

 private:
  // Beyond what the machine takes when it idles. An instruction that the description knows no
  // numbers for leaves the launch with that alone.
  void MeasureEnergy(const Launch& launch) {
    if (!timer_) return;
    launch_joules_ = 0;
    const auto time = timer_->Time(frame_.registers, launch);
    if (!time) return;
    for (const double joules : time->unit_joules) launch_joules_ += joules;
  }

  // How a step runs in a launch: not at all, on the first thread, or on all that come.
  enum class How : uint8_t { kIdle, kSerial, kShared };
  // A step of the launch under way. Cache lines of their own, since all threads write them.
  struct alignas(64) Progress {
    explicit Progress(int threads) : shares(threads) {}
    std::atomic<int64_t> done{0};  // units
    std::atomic<uint32_t> is_complete{0};
    How how = How::kIdle;
    int64_t units = 0;
    Shares shares;
  };

  bool IsRank(const isa::Register& reg) const {
    return program_->ranks > 1 && reg.name == isa::kRankRegister;
  }

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
    const StepContext context{*program_,
                              *options_.kernels,
                              buffers_,
                              work_lists_,
                              samplers_,
                              faults_,
                              team_.count(),
                              StayCached(MatMulWeightBytes(*program_)),
                              options_.group.get(),
                              options_.rank,
                              options_.expert_counts,
                              &weights_.before_read};
    std::vector<isa::Instruction> instructions;
    for (const isa::Step& step : order)
      instructions.push_back(
          program_->streams[static_cast<size_t>(step.stream)][static_cast<size_t>(step.index)]);
    if (options_.profile != nullptr) DeclareProfile(instructions);
    if (options_.trace != nullptr) DeclareTrace(instructions);
    conflicts_ = FindConflicts(*program_, instructions);
    try {
      for (const isa::Instruction& instruction : instructions)
        steps_.push_back(MakeStep(context, instruction));
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

  // Decides how the steps of a launch run; whether several threads have something to do.
  bool PlanSteps() {
    bool any_shared = false;
    for (size_t i = 0; i < steps_.size(); ++i) {
      Progress& progress = progress_[i];
      progress.done.store(0, std::memory_order_relaxed);
      progress.is_complete.store(0, std::memory_order_relaxed);
      progress.units = steps_[i]->Units(frame_);
      progress.how = HowToRun(*steps_[i], progress.units);
      if (progress.how == How::kShared)
        progress.shares.Begin(progress.units, steps_[i]->Grain(), steps_[i]->RangesPerThread());
      any_shared = any_shared || progress.how == How::kShared;
    }
    return any_shared;
  }

  How HowToRun(const Step& step, int64_t units) const {
    if (units == 0) return How::kIdle;
    const bool serial =
        team_.count() == 1 || units == 1 || units * step.UnitCost(frame_) < options_.serial_cost;
    return serial ? How::kSerial : How::kShared;
  }

  // Every thread walks all steps; what is small stays on the first thread. A thread waits only
  // where what it is about to do conflicts with what is not complete.
  void RunSteps(int member) {
    const bool timed = options_.profile != nullptr && member == 0;
    WorkSpan* const spans =
        options_.trace == nullptr ? nullptr : spans_[static_cast<size_t>(member)].data();
    int64_t begin_ns = timed ? kClock.NowNs() : 0;
    for (size_t i = 0; i < steps_.size(); ++i) {
      Progress& progress = progress_[i];
      if (member != 0 && (progress.how != How::kShared ||
                          progress.done.load(std::memory_order_relaxed) == progress.units))
        continue;
      // Of an idle one too: who comes after it need not know what it comes after.
      for (const int32_t before : conflicts_[i])
        WaitWhileEqual(progress_[static_cast<size_t>(before)].is_complete, 0);
      const int64_t work_ns = spans != nullptr ? kClock.NowNs() : 0;
      if (progress.how == How::kShared) {
        RunShared(*steps_[i], progress, member);
      } else {
        if (progress.how == How::kSerial) steps_[i]->Run(frame_, 0, progress.units, member);
        SetAndWake(progress.is_complete, 1);
      }
      if (spans != nullptr && progress.how != How::kIdle)
        spans[i] = {work_ns, kClock.NowNs() - work_ns};
      if (!timed) continue;
      const int64_t now_ns = kClock.NowNs();
      step_ns_[i] = progress.how == How::kIdle ? 0 : now_ns - begin_ns;
      begin_ns = now_ns;
    }
  }

  void RunShared(const Step& step, Progress& progress, int member) {
    int64_t count = 0;
    while (const auto range = progress.shares.Take(member)) {
      step.Run(frame_, range->begin, range->end, member);
      count += range->end - range->begin;
    }
    if (count > 0 &&
        progress.done.fetch_add(count, std::memory_order_acq_rel) + count == progress.units)
      SetAndWake(progress.is_complete, 1);
  }

  void DeclareProfile(const std::vector<isa::Instruction>& instructions) {
    std::vector<Profile::Line> lines;
    for (const isa::Instruction& instruction : instructions)
      lines.push_back({instruction.op, WhatItWrites(instruction), 0, 0});
    step_ns_.assign(lines.size(), 0);
    profile_begin_ = options_.profile->Declare(std::move(lines));
  }

  void DeclareTrace(const std::vector<isa::Instruction>& instructions) {
    for (const isa::Instruction& instruction : instructions)
      traced_.push_back(
          {isa::Info(instruction.op).name, "\"writes\":\"" + WhatItWrites(instruction) + "\""});
    spans_.assign(static_cast<size_t>(team_.count()), std::vector<WorkSpan>(traced_.size()));
    for (int member = 0; member < team_.count(); ++member)
      options_.trace->NameRow(kTraceProcess, member, "CPU device, measured",
                              "thread " + std::to_string(member));
  }

  // What the threads noted of the last launch.
  void WriteTrace() {
    for (size_t member = 0; member < spans_.size(); ++member)
      for (size_t i = 0; i < traced_.size(); ++i) {
        WorkSpan& span = spans_[member][i];
        if (span.begin_ns != 0)
          options_.trace->Add(kTraceProcess, static_cast<int>(member), traced_[i].name,
                              static_cast<double>(span.begin_ns - turnstile_.start_ns()) / 1e3,
                              static_cast<double>(span.duration_ns) / 1e3, traced_[i].arguments);
        span = {};
      }
  }

  std::string WhatItWrites(const isa::Instruction& instruction) const {
    const auto text = [this](const isa::Dim& dim) {
      return dim.reg < 0 ? std::to_string(dim.size)
                         : program_->registers[static_cast<size_t>(dim.reg)].name;
    };
    const isa::OpInfo& info = isa::Info(instruction.op);
    for (size_t j = info.operands.size(); j-- > 0;) {
      const isa::Operand& operand = instruction.operands[j];
      if (info.operands[j].access == isa::Access::kRead || !operand.present()) continue;
      const isa::Buffer& buffer = program_->buffer(operand);
      return buffer.name + " [" + text(buffer.rows) + ", " + std::to_string(operand.cols) + "]";
    }
    return "";
  }

  const std::shared_ptr<const isa::Program> program_;
  const isa::BoundWeights weights_;
  const CpuOptions options_;
  Turnstile& turnstile_;
  ThreadTeam& team_;
  LaunchChecker checker_;
  std::optional<chip::Timer> timer_;
  double launch_joules_ = 0;  // of the launch under way, as modelled
  const std::vector<WorkList> work_lists_;
  std::unique_ptr<PageMemory> scratch_memory_, kv_memory_;
  std::vector<std::byte*> buffers_;  // by buffer
  std::vector<std::unique_ptr<Sampler>> samplers_;
  std::vector<std::unique_ptr<Step>> steps_;
  std::vector<std::vector<int32_t>> conflicts_;  // by step
  std::deque<Progress> progress_;                // by step
  size_t profile_begin_ = 0;                     // with a profile: its first line that is ours
  std::vector<int64_t> step_ns_;                 // by step, of the last launch
  // With a trace: by step what to call it, and by thread and step when the thread worked on it.
  struct Traced {
    const char* name = nullptr;
    std::string arguments;
  };
  struct WorkSpan {
    int64_t begin_ns = 0;  // 0: not at all
    int64_t duration_ns = 0;
  };
  std::vector<Traced> traced_;
  std::vector<std::vector<WorkSpan>> spans_;
  Frame frame_;
  Faults faults_;
  Ticket ticket_ = 0, completed_ = 0;
  // From the first launch on: who loads a Program at a low priority must not hold up those who wait
  // for the turnstile.
  std::optional<Arbiter::Id> id_;
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
    if (options_.group == nullptr) options_.group = std::make_shared<Group>(1);
    CHECK(options_.rank >= 0 && options_.rank < options_.group->ranks()) << options_.rank;
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
