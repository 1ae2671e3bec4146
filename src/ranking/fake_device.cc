#include "ranking/fake_device.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "isa/layout.h"

namespace millpower::ranking {

int64_t FakeLaunch::Register(const std::string& name) const {
  return registers[static_cast<size_t>(program.FindRegister(name))];
}

class FakeDevice::Loaded final : public device::LoadedProgram {
 public:
  Loaded(FakeDevice& device, std::shared_ptr<const isa::Program> program)
      : device_(device), program_(std::move(program)) {}
  ~Loaded() override {
    std::lock_guard lock(device_.mutex_);
    --device_.loaded_;
  }

  const isa::Program& program() const override { return *program_; }
  int64_t LoadRegister(int32_t) const override { return 0; }

  Result<device::Ticket> Submit(const device::Launch& launch,
                                device::LaunchClass launch_class) override {
    CHECK(!under_way_) << "one launch at a time";
    registers_ = launch.registers;
    inputs_ = launch.inputs;
    Record record{.registers = {}, .launch_class = launch_class, .claims = launch.claims.size()};
    for (size_t i = 0; i < registers_.size(); ++i) {
      const isa::Register& reg = program_->registers[i];
      if (!reg.formula.empty()) registers_[i] = Evaluate(reg.formula);
      CHECK(registers_[i] > 0 && registers_[i] <= reg.max) << reg.name << " " << registers_[i];
      record.registers[reg.name] = registers_[i];
    }
    outputs_.clear();
    for (size_t i = 0; i < program_->buffers.size(); ++i) {
      const isa::Buffer& buffer = program_->buffers[i];
      const int64_t rows =
          buffer.rows.reg < 0 ? buffer.rows.size : registers_[static_cast<size_t>(buffer.rows.reg)];
      const int64_t size_bytes = rows * buffer.cols * SizeBytes(buffer.dtype);
      CHECK(buffer.kind != isa::BufferKind::kInput ||
            std::ssize(inputs_[i]) == (size_bytes + 3) / 4)
          << buffer.name;
      if (buffer.kind == isa::BufferKind::kOutput)
        outputs_[buffer.name].resize(static_cast<size_t>(size_bytes));
    }
    std::lock_guard lock(device_.mutex_);
    device_.launches_.push_back(std::move(record));
    under_way_ = true;
    return 1;
  }

  Result<device::Completion> Complete(device::Ticket) override {
    under_way_ = false;
    {
      std::unique_lock lock(device_.mutex_);
      ++device_.held_;
      device_.changed_.notify_all();
      device_.changed_.wait(lock, [&] { return !device_.hold_; });
      --device_.held_;
    }
    TRY(device_.work_({*program_, registers_, inputs_, outputs_}));
    return device::Completion{.device_ns = 1000};
  }

  std::span<const std::byte> Output(int32_t buffer) const override {
    return outputs_.at(program_->buffers[static_cast<size_t>(buffer)].name);
  }

  Result<void> UpdateRows(int32_t buffer, std::span<const int64_t> rows,
                          std::span<const std::byte> bytes) override {
    CHECK(!under_way_) << "between launches";
    const isa::Buffer& table = program_->buffers[static_cast<size_t>(buffer)];
    const auto size = static_cast<size_t>(isa::TableRowBytes(table.cols, table.dtype));
    CHECK(bytes.size() == rows.size() * size) << bytes.size();
    std::lock_guard lock(device_.mutex_);
    for (size_t i = 0; i < rows.size(); ++i) {
      const auto row = bytes.subspan(i * size, size);
      device_.rows_[{table.name, rows[i]}] = {row.begin(), row.end()};
    }
    return {};
  }

 private:
  int64_t Evaluate(const std::string& formula) const {
    return Size::Parse(formula)
        .value()
        .Evaluate([&](const std::string& name) -> std::optional<int64_t> {
          return registers_[static_cast<size_t>(program_->FindRegister(name))];
        })
        .value();
  }

  FakeDevice& device_;
  const std::shared_ptr<const isa::Program> program_;
  std::vector<int64_t> registers_;
  std::vector<std::vector<int32_t>> inputs_;
  std::map<std::string, std::vector<std::byte>> outputs_;
  bool under_way_ = false;
};

Result<std::unique_ptr<device::LoadedProgram>> FakeDevice::Load(
    std::shared_ptr<const isa::Program> program, isa::BoundWeights, const device::LoadOptions&) {
  std::lock_guard lock(mutex_);
  if (load_error_) return std::unexpected(*load_error_);
  ++loaded_;
  return std::make_unique<Loaded>(*this, std::move(program));
}

void FakeDevice::Hold() {
  std::lock_guard lock(mutex_);
  hold_ = true;
}

void FakeDevice::Release() {
  {
    std::lock_guard lock(mutex_);
    hold_ = false;
  }
  changed_.notify_all();
}

void FakeDevice::WaitUntilHeld() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return held_ > 0; });
}

void FakeDevice::FailLoads(Error error) {
  std::lock_guard lock(mutex_);
  load_error_ = std::move(error);
}

std::vector<FakeDevice::Record> FakeDevice::launches() const {
  std::lock_guard lock(mutex_);
  return launches_;
}

std::map<std::pair<std::string, int64_t>, std::vector<std::byte>> FakeDevice::rows() const {
  std::lock_guard lock(mutex_);
  return rows_;
}

int FakeDevice::loaded() const {
  std::lock_guard lock(mutex_);
  return loaded_;
}

// ---- The recommender

namespace {

constexpr int64_t kItemsMax = 64;

isa::Buffer Rows(const char* name, isa::BufferKind kind, DType dtype, isa::Dim rows, int64_t cols) {
  return {.name = name, .kind = kind, .dtype = dtype, .rows = rows, .cols = cols};
}

}  // namespace

Loading FakeRecommender(const std::string& name, bool with_end, int64_t max_batch) {
  isa::Program program;
  program.name = name;
  program.registers = {{.name = "batch", .max = max_batch},
                       {.name = "items", .max = kItemsMax},
                       {.name = "ends", .max = max_batch + 1, .formula = "batch+1"}};
  const isa::Dim batch{.reg = 0}, items{.reg = 1}, ends{.reg = 2};
  using enum isa::BufferKind;
  program.buffers = {Rows("x.dense", kInput, DType::kF32, batch, 2),
                     Rows("x.items", kInput, DType::kI64, items, 1),
                     Rows("x.offsets", kInput, DType::kI64, with_end ? ends : batch, 1),
                     Rows("x.scale", kInput, DType::kF32, {.size = 1}, 1),
                     Rows("y.score", kOutput, DType::kF32, batch, 1),
                     Rows("y.first", kOutput, DType::kI64, batch, 1),
                     {.name = "table",
                      .kind = kWeight,
                      .form = isa::Form::kTable,
                      .dtype = DType::kI8,
                      .rows = {.size = 10},
                      .cols = 4}};
  const Size b = Size::Symbol("batch"), total = Size::Symbol("items");
  Loading loading{.name = name,
                  .program = std::make_shared<const isa::Program>(std::move(program)),
                  .weights = {},
                  .signature = {}};
  loading.signature.format = "onnx";
  loading.signature.batch = "batch";
  loading.signature.inputs = {{.name = "dense",
                               .dtype = DType::kF32,
                               .is_string = false,
                               .shape = {b, 2},
                               .buffer = "x.dense"},
                              {.name = "items",
                               .dtype = DType::kI64,
                               .is_string = false,
                               .shape = {total},
                               .buffer = "x.items"},
                              {.name = "offsets",
                               .dtype = DType::kI64,
                               .is_string = false,
                               .shape = {with_end ? b.Plus(1).value() : b},
                               .buffer = "x.offsets",
                               .offsets_of = {"items"}},
                              {.name = "scale",
                               .dtype = DType::kF32,
                               .is_string = false,
                               .shape = {1},
                               .buffer = "x.scale"}};
  loading.signature.outputs = {{.name = "score",
                                .dtype = DType::kF32,
                                .is_string = false,
                                .shape = {b},
                                .buffer = "y.score"},
                               {.name = "first",
                                .dtype = DType::kI64,
                                .is_string = false,
                                .shape = {b},
                                .buffer = "y.first"}};
  loading.config.warm_up = false;
  return loading;
}

Result<void> RunFakeRecommender(const FakeLaunch& launch) {
  const int64_t batch = launch.Register("batch"), total = launch.Register("items");
  const auto* dense = launch.Input<float>("x.dense");
  const auto* items = launch.Input<int64_t>("x.items");
  const auto* offsets = launch.Input<int64_t>("x.offsets");
  const float scale = *launch.Input<float>("x.scale");
  const bool with_end = launch.program.buffers[2].rows.reg == 2;
  for (int64_t i = 0; i < total; ++i)
    if (items[i] >= 1000)
      return Fail(ErrorCode::kInvalidArgument, "instruction 3 (embedding_bag): index " +
                                                   std::to_string(items[i]) +
                                                   " is not in [0, 1000)");
  for (int64_t row = 0; row < batch; ++row) {
    const int64_t begin = offsets[row];
    const int64_t end = row + 1 < batch || with_end ? offsets[row + 1] : total;
    float sum = dense[2 * row] + dense[2 * row + 1];
    for (int64_t i = begin; i < end; ++i) sum += static_cast<float>(items[i]);
    launch.Output<float>("y.score")[row] = scale * sum;
    launch.Output<int64_t>("y.first")[row] = begin < end ? items[begin] : -1;
  }
  return {};
}

Request MakeRequest(const FakeRows& rows, bool with_end) {
  struct Owned {
    std::vector<float> dense;
    std::vector<int64_t> items, offsets;
    float scale;
  };
  auto owned = std::make_shared<Owned>();
  owned->dense = rows.dense;
  owned->scale = rows.scale;
  for (const auto& bag : rows.bags) {
    owned->offsets.push_back(std::ssize(owned->items));
    owned->items.insert(owned->items.end(), bag.begin(), bag.end());
  }
  if (with_end) owned->offsets.push_back(std::ssize(owned->items));
  Request request;
  const auto batch = std::ssize(rows.bags);
  request.inputs = {
      {.shape = {batch, 2}, .bytes = std::as_bytes(std::span(owned->dense))},
      {.shape = {std::ssize(owned->items)}, .bytes = std::as_bytes(std::span(owned->items))},
      {.shape = {std::ssize(owned->offsets)}, .bytes = std::as_bytes(std::span(owned->offsets))},
      {.shape = {1}, .bytes = std::as_bytes(std::span(&owned->scale, 1))}};
  request.owner = std::move(owned);
  return request;
}

}  // namespace millpower::ranking
