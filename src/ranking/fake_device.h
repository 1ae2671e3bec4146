// A device for tests of the engine and of what stands before it: launches are functions of the
// test's.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "device/device.h"
#include "ranking/engine.h"

namespace millpower::ranking {

// One launch, to be worked on.
struct FakeLaunch {
  const isa::Program& program;
  const std::vector<int64_t>& registers;  // formulas computed
  const std::vector<std::vector<int32_t>>& inputs;
  std::map<std::string, std::vector<std::byte>>& outputs;  // of the right size, zero

  int64_t Register(const std::string& name) const;
  template <typename T>
  const T* Input(const std::string& name) const {
    return reinterpret_cast<const T*>(inputs[static_cast<size_t>(program.FindBuffer(name))].data());
  }
  template <typename T>
  T* Output(const std::string& name) const {
    return reinterpret_cast<T*>(outputs.at(name).data());
  }
};
using FakeWork = std::function<Result<void>(const FakeLaunch&)>;

// Thread-safe.
class FakeDevice final : public device::Device {
 public:
  explicit FakeDevice(FakeWork work) : work_(std::move(work)) {}

  Result<std::unique_ptr<device::LoadedProgram>> Load(std::shared_ptr<const isa::Program> program,
                                                      isa::BoundWeights weights,
                                                      const device::LoadOptions& options) override;

  // From now on launches wait until Release, which WaitUntilHeld sees.
  void Hold();
  void Release();
  void WaitUntilHeld();
  void FailLoads(Error error);

  struct Record {
    std::map<std::string, int64_t> registers;
    device::LaunchClass launch_class = 0;
    size_t claims = 0;
  };
  std::vector<Record> launches() const;
  // Rows of tables as they were written last, by buffer and row.
  std::map<std::pair<std::string, int64_t>, std::vector<std::byte>> rows() const;
  int loaded() const;  // programs that exist

 private:
  class Loaded;

  const FakeWork work_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool hold_ = false;
  int held_ = 0;
  int loaded_ = 0;
  std::optional<Error> load_error_;
  std::vector<Record> launches_;
  std::map<std::pair<std::string, int64_t>, std::vector<std::byte>> rows_;
};

// A small recommender: "dense" f32 [batch, 2], "items" i64 [items] in bags that begin at "offsets"
// i64 [batch] (or, with_end, [batch + 1]), "scale" f32 [1]; "score" f32 [batch] and "first" i64
// [batch]. score = scale * (dense[0] + dense[1] + sum of the bag); first: of the bag, or -1. An
// item of 1000 or more is a fault. Its weight "table" is an embedding table i8 [10, 4].
Loading FakeRecommender(const std::string& name, bool with_end = false, int64_t max_batch = 8);
Result<void> RunFakeRecommender(const FakeLaunch& launch);

// A request to it; the bags' items, a list for each row.
struct FakeRows {
  std::vector<float> dense;  // [rows, 2]
  std::vector<std::vector<int64_t>> bags;
  float scale = 1;
};
Request MakeRequest(const FakeRows& rows, bool with_end = false);

}  // namespace millpower::ranking
