#include "device/trace.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "base/json.h"
#include "device/cpu/cpu_device.h"
#include "device/test_program.h"
#include "isa/sampling.h"

namespace millpower::device::cpu {
namespace {

class TraceTest : public testing::Test {
 protected:
  // One launch of six rows; the events, if it was traced.
  Json Run(int threads, bool traced) {
    const auto program = SoundProgram(TestModelText());
    std::unique_ptr<TraceFile> trace;
    if (traced) trace = *TraceFile::Open(path_);
    CpuOptions options;
    options.threads = threads;
    options.serial_cost = 0;
    options.trace = trace.get();
    const auto device = MakeCpuDevice(options);
    const auto loaded = *device->Load(program, RandomWeights(*program, 1), {.kv_pages = 8});
    Launch launch(*program);
    const auto input = [&](const char* name) -> std::vector<int32_t>& {
      return launch.inputs[static_cast<size_t>(program->FindBuffer(name))];
    };
    const auto set = [&](const char* name, int64_t value) {
      launch.registers[static_cast<size_t>(program->FindRegister(name))] = value;
    };
    input("tokens") = {1, 2, 3, 4, 5, 63};
    input("positions") = {0, 1, 2, 3, 4, 0};
    input("sequences") = {0, 5, 0, 0, /**/ 5, 1, 0, 1};
    input("pages") = {7, 3};
    input("picked_rows") = {4, 5};
    input("sampling").assign(2 * isa::kSampleParamWords, 0);
    set("rows", 6);
    set("seqs", 2);
    set("picked", 2);
    set("page_entries", 2);
    EXPECT_TRUE(loaded->Complete(*loaded->Submit(launch)));
    if (!trace) return Json::array();
    EXPECT_TRUE(trace->Close());
    std::ifstream file(path_);
    std::stringstream text;
    text << file.rdbuf();
    return Json::parse(text.str());  // throws if it is no JSON
  }
  void TearDown() override { std::filesystem::remove(path_); }

  const std::filesystem::path path_ = std::filesystem::temp_directory_path() /
                                      ("millpower-trace-" + std::to_string(::getpid()) + ".json");
};

TEST_F(TraceTest, HasAnEventForEachInstruction) {
  for (const int threads : {1, 3}) {
    const Json events = Run(threads, true);
    std::map<std::string, int> counts;
    for (const Json& event : events) {
      if (event["ph"] != "X") continue;
      EXPECT_GE(event["ts"].get<double>(), 0);
      EXPECT_GE(event["dur"].get<double>(), 0);
      EXPECT_LT(event["tid"].get<int>(), threads);
      EXPECT_TRUE(event["args"].contains("writes"));
      ++counts[event["name"].get<std::string>()];
    }
    // On one thread each once; on several, once for each thread that worked on it.
    for (const auto& [name, count] : std::map<std::string, int>{{"matmul", 5},
                                                                {"rms_norm", 3},
                                                                {"gather", 2},
                                                                {"kv_append", 1},
                                                                {"attention", 1},
                                                                {"sample", 1}}) {
      EXPECT_GE(counts[name], count) << name;
      EXPECT_LE(counts[name], count * threads) << name;
    }
  }
}

TEST_F(TraceTest, OffItWritesNothing) {
  Run(2, false);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace millpower::device::cpu
