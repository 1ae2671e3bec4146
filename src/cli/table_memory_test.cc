#include "cli/table_memory.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <map>
#include <thread>

#include "base/clock.h"
#include "base/rng.h"
#include "cli/tensor_loader.h"
#include "device/cpu/cpu_device.h"
#include "import/hf/test_folder.h"
#include "import/onnx/test_model.h"
#include "ranking/engine.h"

namespace millpower::cli {
namespace {

using import::TestFolder;
using import::onnx::TestModel;

constexpr int64_t kMiB = 1 << 20;
constexpr int64_t kRows = 1 << 17, kColumns = 128;  // 64 MiB

// y = rows of a table in a file beside the model, whose row r is all r.
void WriteModel(const std::filesystem::path& folder) {
  TestModel test;
  test.Input("ids", {"batch"}, import::onnx::kInt64Type);
  auto* table = test.Initializer("table", {kRows, kColumns});
  table->set_data_location(1);
  auto* entry = table->add_external_data();
  entry->set_key("location");
  entry->set_value("table.bin");
  test.Node("Gather", {"table", "ids"}, {"y"});
  test.Output("y", {"batch", kColumns});
  std::ofstream(folder / "model.onnx", std::ios::binary) << test.Bytes();
  std::ofstream data(folder / "table.bin", std::ios::binary);
  for (int64_t row = 0; row < kRows; ++row) {
    const std::vector<float> values(kColumns, static_cast<float>(row));
    data.write(reinterpret_cast<const char*>(values.data()), kColumns * sizeof(float));
  }
}

class TableMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    WriteModel(folder_.path());
    auto keeper = PageKeeper::Start(24 * kMiB, 8 * kMiB);
    ASSERT_TRUE(keeper) << keeper.error().message;
    keeper_ = *std::move(keeper);
    TensorLoadOptions options;
    options.show_progress = false;
    auto loaded = LoadTensorModel(folder_.path() / "model.onnx", options);
    ASSERT_TRUE(loaded) << loaded.error().message;
    KeepTables(keeper_, loaded->weights);
    ASSERT_GE(keeper_->stats().mapped_bytes, 63 * kMiB);
    auto model = engine_.Load({.name = "m",
                               .program = loaded->program,
                               .weights = std::move(loaded->weights),
                               .signature = std::move(loaded->signature)});
    ASSERT_TRUE(model) << model.error().message;
    model_ = *model;
  }

  // The first and last value of each of these rows, which must be equal.
  std::vector<float> Ask(const std::vector<int64_t>& ids) {
    std::promise<Result<ranking::Answer>> answered;
    const auto submitted = engine_.Submit(
        model_, {.inputs = {{.shape = {std::ssize(ids)}, .bytes = std::as_bytes(std::span(ids))}}},
        [&](Result<ranking::Answer> answer) { answered.set_value(std::move(answer)); });
    if (!submitted) return {};
    const auto answer = answered.get_future().get();
    if (!answer) return {};
    const auto* y = reinterpret_cast<const float*>(answer->outputs[0].bytes.data());
    std::vector<float> values;
    for (size_t i = 0; i < ids.size(); ++i, y += kColumns)
      values.push_back(y[0] == y[kColumns - 1] ? y[0] : NAN);
    return values;
  }
  std::vector<int64_t> RandomRows(uint64_t seed, size_t count) const {
    std::vector<int64_t> rows;
    for (size_t i = 0; i < count; ++i)
      rows.push_back(static_cast<int64_t>(RandomBits(seed, i) % kRows));
    return rows;
  }

  const TestFolder folder_;
  std::shared_ptr<PageKeeper> keeper_;
  const std::unique_ptr<device::Device> device_ = device::cpu::MakeCpuDevice({.threads = 2});
  SystemClock clock_;
  ranking::Engine engine_{*device_, clock_};
  ranking::ModelPtr model_;
};

// Rows change, through the engine, while others are read and pages are taken back all the time:
// none is lost.
TEST_F(TableMemoryTest, UpdatedRowsStayWhilePagesAreTakenBack) {
  std::atomic<bool> stop = false;
  std::atomic<int64_t> wrong = 0;
  const auto read = [&](uint64_t seed) {
    for (uint64_t n = 0; !stop; ++n) {
      const auto ids = RandomRows(seed + n, 512);
      const auto values = Ask(ids);
      if (values.size() != ids.size()) ++wrong;
      for (size_t i = 0; i < values.size(); ++i) {
        const auto row = static_cast<float>(ids[i]);
        if (values[i] != row && values[i] != -row - 1) ++wrong;
      }
    }
  };
  std::vector<bool> updated(kRows);
  {
    const std::jthread one(read, 1'000'000), other(read, 2'000'000);
    for (uint64_t n = 0; n < 60; ++n) {
      auto rows = RandomRows(n, 16);
      std::ranges::sort(rows);
      rows.erase(std::ranges::unique(rows).begin(), rows.end());
      std::vector<float> values;
      for (const int64_t row : rows) {
        values.insert(values.end(), kColumns, -static_cast<float>(row) - 1);
        updated[static_cast<size_t>(row)] = true;
      }
      const auto done =
          engine_.UpdateRows(model_, {.table = "table", .rows = rows, .values = values});
      EXPECT_TRUE(done);
    }
    stop = true;
  }
  EXPECT_EQ(wrong, 0);
  for (int64_t begin = 0; begin < kRows; begin += 1024) {
    std::vector<int64_t> ids;
    for (int64_t row = begin; row < begin + 1024; ++row) ids.push_back(row);
    const auto values = Ask(ids);
    ASSERT_EQ(values.size(), ids.size());
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto row = static_cast<float>(ids[i]);
      ASSERT_EQ(values[i], updated[static_cast<size_t>(ids[i])] ? -row - 1 : row) << ids[i];
    }
  }
  const auto stats = keeper_->stats();
  EXPECT_GT(stats.given_back_bytes, 32 * kMiB);
  EXPECT_GT(stats.written_bytes, 3 * kMiB);
}

}  // namespace
}  // namespace millpower::cli
