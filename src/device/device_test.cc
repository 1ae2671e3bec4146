#include "device/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <thread>

#include "device/cpu/conflicts.h"
#include "device/cpu/cpu_device.h"
#include "device/cpu/steps.h"
#include "device/launch.h"
#include "device/test_program.h"
#include "isa/sampling.h"

namespace millpower::device {
namespace {

using testing::HasSubstr;

// Two sequences: five rows from position 14 on, and one at position 0.
Launch SoundLaunch(const isa::Program& program) {
  Launch launch(program);
  auto input = [&](const char* name) -> std::vector<int32_t>& {
    return launch.inputs[static_cast<size_t>(program.FindBuffer(name))];
  };
  auto set = [&](const char* name, int64_t value) {
    launch.registers[static_cast<size_t>(program.FindRegister(name))] = value;
  };
  input("tokens") = {1, 2, 3, 4, 5, 63};
  input("positions") = {14, 15, 16, 17, 18, 0};
  input("sequences") = {0, 5, 14, 0, /**/ 5, 1, 0, 2};
  input("pages") = {7, 3, 0};
  input("picked_rows") = {4, 5};
  input("sampling").assign(2 * isa::kSampleParamWords, 0);
  set("rows", 6);
  set("seqs", 2);
  set("picked", 2);
  set("page_entries", 3);
  set("pages", 8);
  return launch;
}

class LaunchTest : public testing::Test {
 protected:
  std::string ErrorOf(const std::function<void(Launch&)>& spoil) {
    Launch launch = SoundLaunch(*program_);
    spoil(launch);
    const auto checked = checker_.Check(launch, launch.registers);
    if (checked) return "";
    EXPECT_EQ(checked.error().code, ErrorCode::kInvalidArgument);
    return checked.error().message;
  }
  std::vector<int32_t>& Input(Launch& launch, const char* name) {
    return launch.inputs[static_cast<size_t>(program_->FindBuffer(name))];
  }
  int64_t& Register(Launch& launch, const char* name) {
    return launch.registers[static_cast<size_t>(program_->FindRegister(name))];
  }

  const std::shared_ptr<const isa::Program> program_ = SoundProgram(TestModelText());
  LaunchChecker checker_{*program_};
};

TEST_F(LaunchTest, AcceptsWhatIsSound) {
  EXPECT_EQ(ErrorOf([](Launch&) {}), "");
  EXPECT_EQ(ErrorOf([&](Launch& l) { l = Launch(*program_); }), "");  // nothing to do
}

TEST_F(LaunchTest, RefusesRegistersOutOfBounds) {
  EXPECT_EQ(ErrorOf([&](Launch& l) { Register(l, "rows") = 33; }),
            "register 'rows' is 33, outside 0..32");
  EXPECT_EQ(ErrorOf([&](Launch& l) { Register(l, "seqs") = -1; }),
            "register 'seqs' is -1, outside 0..6");
  EXPECT_THAT(ErrorOf([&](Launch& l) { Register(l, "pages") = 65; }), HasSubstr("'pages'"));
}

TEST_F(LaunchTest, RefusesInputsOfAnotherSize) {
  EXPECT_EQ(ErrorOf([&](Launch& l) { Input(l, "tokens").pop_back(); }),
            "input 'tokens' has 5 words, not 6");
  EXPECT_EQ(ErrorOf([&](Launch& l) { Input(l, "sampling").push_back(0); }),
            "input 'sampling' has 25 words, not 24");
  EXPECT_EQ(ErrorOf([&](Launch& l) { Register(l, "seqs") = 1; }),
            "input 'sequences' has 8 words, not 4");
}

TEST_F(LaunchTest, RefusesIndicesThatPointPast) {
  EXPECT_EQ(ErrorOf([&](Launch& l) { Input(l, "tokens")[1] = 64; }),
            "input 'tokens' holds 64, which is not in [0, 64)");
  EXPECT_EQ(ErrorOf([&](Launch& l) { Input(l, "tokens")[1] = -1; }),
            "input 'tokens' holds -1, which is not in [0, 64)");
  // Bounds that are registers hold for the launch, not for the largest one.
  EXPECT_EQ(ErrorOf([&](Launch& l) { Input(l, "picked_rows")[0] = 6; }),
            "input 'picked_rows' holds 6, which is not in [0, 6)");
  EXPECT_EQ(ErrorOf([&](Launch& l) { Input(l, "pages")[2] = 8; }),
            "input 'pages' holds 8, which is not in [0, 8)");
}

TEST_F(LaunchTest, RefusesWorkListsThatDoNotCoverTheRows) {
  const std::string in_turn = "'sequences' does not cover the rows one after the other";
  auto with = [&](size_t index, int32_t value) {
    return ErrorOf([&](Launch& l) { Input(l, "sequences")[index] = value; });
  };
  EXPECT_EQ(with(0, 1), in_turn);
  EXPECT_EQ(with(1, 0), in_turn);
  EXPECT_EQ(with(1, -5), in_turn);
  EXPECT_EQ(with(4, 4), in_turn);   // a row twice
  EXPECT_EQ(with(2, -1), in_turn);  // a position before the first
  EXPECT_EQ(with(5, 2), "'sequences' covers 7 rows, not all");
  EXPECT_EQ(ErrorOf([&](Launch& l) {
              Input(l, "sequences").resize(4);
              Register(l, "seqs") = 1;
            }),
            "'sequences' covers 5 rows, not all");
}

TEST_F(LaunchTest, RefusesPagesThatAreNotListed) {
  const std::string more = "'sequences' names more pages than are listed";
  auto with = [&](size_t index, int32_t value) {
    return ErrorOf([&](Launch& l) { Input(l, "sequences")[index] = value; });
  };
  EXPECT_EQ(with(3, -1), more);
  EXPECT_EQ(with(7, 3), more);
  EXPECT_EQ(with(2, 44), more);
  EXPECT_EQ(with(2, std::numeric_limits<int32_t>::max()), more);
  EXPECT_EQ(with(7, std::numeric_limits<int32_t>::max()), more);
  // Row counts far past the end, each too large for the sum of two to fit an int32.
  EXPECT_EQ(ErrorOf([&](Launch& l) {
              for (const size_t at : {1u, 2u})
                Input(l, "sequences")[at] = std::numeric_limits<int32_t>::max();
            }),
            more);
}

TEST_F(LaunchTest, RefusesAPageWithTwoWriters) {
  const std::string twice = "'sequences' has two sequences write one page";
  EXPECT_EQ(ErrorOf([&](Launch& l) { Input(l, "pages")[2] = 3; }), twice);
  EXPECT_EQ(ErrorOf([&](Launch& l) { Input(l, "sequences")[7] = 1; }), twice);
  EXPECT_EQ(ErrorOf([&](Launch& l) { Input(l, "pages")[1] = 7; }), twice);  // its own, twice
  // What lies before the first position is only read, and may be shared.
  EXPECT_EQ(ErrorOf([&](Launch& l) {
              Input(l, "sequences") = {0, 5, 16, 0, 5, 1, 16, 2};
              Input(l, "pages") = {7, 3, 7, 4};
              Register(l, "page_entries") = 4;
            }),
            "");
}

TEST_F(LaunchTest, RefusesAdjustmentsThatAreNoNumbers) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  auto with = [&](float divide, float add) {
    return ErrorOf([&](Launch& l) {
      Register(l, "adjusts") = 2;
      Input(l, "adjust_tokens") = {3, 63};
      Input(l, "adjustments") = {isa::WordOf(1), isa::WordOf(0), isa::WordOf(divide),
                                 isa::WordOf(add)};
    });
  };
  EXPECT_EQ(with(1.5f, -2), "");
  EXPECT_EQ(with(0.5f, -kInfinity), "");
  EXPECT_EQ(with(0, 1),
            "input 'adjustments' holds an adjustment that divides by 0.000000 and adds "
            "1.000000");
  for (const float divide : {-1.0f, -0.0f, kInfinity, kNan})
    EXPECT_THAT(with(divide, 0), HasSubstr("holds an adjustment that divides by"));
  EXPECT_THAT(with(1, kNan), HasSubstr("and adds nan"));
  EXPECT_EQ(ErrorOf([&](Launch& l) {
              Register(l, "adjusts") = 1;
              Input(l, "adjust_tokens") = {64};
              Input(l, "adjustments") = {isa::WordOf(1), 0};
            }),
            "input 'adjust_tokens' holds 64, which is not in [0, 64)");
  EXPECT_EQ(ErrorOf([&](Launch& l) {
              Register(l, "adjusts") = 1;
              Input(l, "adjust_tokens") = {1};
            }),
            "input 'adjustments' has 0 words, not 2");
}

// The words of an input, from its elements.
template <typename T>
std::vector<int32_t> WordsOf(const std::vector<T>& values) {
  std::vector<int32_t> words((values.size() * sizeof(T) + 3) / 4, 0);
  if (!values.empty()) std::memcpy(words.data(), values.data(), values.size() * sizeof(T));
  return words;
}

// A Program on tensors, with sizes that are computed: seq - 1 is where a copy begins, and may be 0;
// bags - 1 is a dimension, and may not.
constexpr char kTensorText[] = R"(program tensors
register batch 8
register seq 6
register bags 5
register idle 3
register batch*seq 48 = batch*seq
register 2*batch*seq+batch 104 = 2*batch*seq+batch
register seq-1 5 = seq-1
register bags-1 4 = bags-1
semaphores 0
buffer ids input i64 rows [batch, 3] below 100
buffer mask input bool rows [batch*seq, 3]
buffer weights input f16 rows [seq, 1]
buffer offsets input i32 rows [bags, 1]
buffer list input i32 rows [batch*seq, 1]
buffer idle.x input f64 rows [idle, 2]
buffer table weight i8 table [100, 6]
buffer inverse scratch bool rows [batch*seq, 3]
buffer last scratch f16 rows [1, 1]
buffer y output f32 rows [bags-1, 6]
buffer wide output i64 rows [2*batch*seq+batch, 1]
stream compute
  map x0=mask:[batch,seq,3] y=inverse:[batch,seq,3] code={t0=x0:bool;t1=not:bool(t0)}
  copy x=weights:[seq] y=last:[1] perm=[0] begin=[seq-1] step=[-1] window=[1] at=[0] gap=[1]
  embedding_bag table=table index=list:[batch*seq] offsets=offsets:[bags] y=y:[bags-1,6] ends=1 default_row=-1 padding_row=-1
  map y=wide code={t0=size:i64(0)} sizes=[2*batch*seq+batch]
  end
stream transfer
  end
stream link
  end
)";

class TensorLaunchTest : public testing::Test {
 protected:
  TensorLaunchTest() {
    for (const auto& [name, value] : {std::pair("batch", 2), {"seq", 3}, {"bags", 2}})
      Register(name) = value;
    Input("ids") = WordsOf<int64_t>({0, 99, 5, 6, 7, 8});
    Input("mask") = WordsOf<uint8_t>({1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1});
    Input("weights") = WordsOf<uint16_t>({1, 2, 3});
    Input("offsets") = {0, 6};
    Input("list") = {1, 2, 3, 4, 5, 6};
  }
  int64_t& Register(const char* name) {
    return launch_.registers[static_cast<size_t>(program_->FindRegister(name))];
  }
  std::vector<int32_t>& Input(const char* name) {
    return launch_.inputs[static_cast<size_t>(program_->FindBuffer(name))];
  }
  std::string Error() {
    const auto checked = checker_.Check(launch_, launch_.registers);
    return checked ? "" : checked.error().message;
  }

  const std::shared_ptr<const isa::Program> program_ = SoundProgram(kTensorText);
  Launch launch_{*program_};
  LaunchChecker checker_{*program_};
};

TEST_F(TensorLaunchTest, ComputesRegistersWithAFormula) {
  Register("batch*seq") = 47;  // not the launch's to say
  EXPECT_EQ(Error(), "");
  EXPECT_EQ(Register("batch*seq"), 6);
  EXPECT_EQ(Register("2*batch*seq+batch"), 14);
  EXPECT_EQ(Register("seq-1"), 2);
  EXPECT_EQ(Register("bags-1"), 1);
}

TEST_F(TensorLaunchTest, SizesOfTensorsAreNotZero) {
  EXPECT_EQ(Register("idle"), 0);  // of no tensor
  EXPECT_EQ(Error(), "");
  Register("batch") = 0;
  EXPECT_EQ(Error(), "register 'batch' is 0, and a tensor has no dimension of 0");
  Register("batch") = 2;
  Register("bags") = 1;
  EXPECT_EQ(Error(), "register 'bags-1' is 0, and a tensor has no dimension of 0");
  Register("bags") = 0;
  EXPECT_EQ(Error(), "register 'bags-1' is -1, outside 0..4");
}

TEST_F(TensorLaunchTest, WhereACopyBeginsMayBeZero) {
  Register("seq") = 1;
  Input("mask") = WordsOf<uint8_t>({1, 0, 1, 1, 1, 1});
  Input("weights") = WordsOf<uint16_t>({1});
  Input("list") = {1, 2};
  EXPECT_EQ(Error(), "");
  EXPECT_EQ(Register("seq-1"), 0);
}

TEST_F(TensorLaunchTest, RefusesRegistersOutOfBoundsBeforeComputingWithThem) {
  for (const int64_t value : {int64_t{9}, int64_t{-1}, std::numeric_limits<int64_t>::max(),
                              std::numeric_limits<int64_t>::min()}) {
    Register("batch") = value;
    EXPECT_EQ(Error(), "register 'batch' is " + std::to_string(value) + ", outside 0..8");
  }
}

TEST_F(TensorLaunchTest, InputsOfAnyTypeComeInWords) {
  Input("mask").push_back(0);
  EXPECT_EQ(Error(), "input 'mask' has 6 words, not 5");  // 18 bytes
  Input("mask").resize(5);
  Input("weights").pop_back();
  EXPECT_EQ(Error(), "input 'weights' has 1 words, not 2");  // 6 bytes
  Input("weights").push_back(0);
  Input("ids").pop_back();
  EXPECT_EQ(Error(), "input 'ids' has 11 words, not 12");
  Input("ids").push_back(0);
  Register("idle") = 1;
  EXPECT_EQ(Error(), "input 'idle.x' has 0 words, not 4");
}

TEST_F(TensorLaunchTest, IndicesOf64BitsAreBounded) {
  for (const int64_t id : {int64_t{100}, int64_t{-1}, int64_t{1} << 32, int64_t{1} << 63}) {
    Input("ids") = WordsOf<int64_t>({0, 1, 2, 3, 4, id});
    EXPECT_EQ(Error(), "input 'ids' holds " + std::to_string(id) + ", which is not in [0, 100)");
  }
}

TEST_F(TensorLaunchTest, BoolsAreZeroOrOne) {
  for (const size_t at : {size_t{0}, size_t{7}, size_t{17}}) {
    std::vector<uint8_t> mask(18, 1);
    mask[at] = 2;
    Input("mask") = WordsOf(mask);
    EXPECT_EQ(Error(), "input 'mask' holds a bool that is neither 0 nor 1");
  }
}

TEST_F(TensorLaunchTest, RowsOfTablesAreCheckedBeforeTheyAreReplaced) {
  const int32_t table = program_->FindBuffer("table");
  const std::vector<std::byte> rows(24);  // two of 4 + 6 bytes, in whole words
  const auto error_of = [&](int32_t buffer, std::vector<int64_t> which, size_t bytes) {
    const auto checked = CheckRowUpdate(*program_, buffer, which, std::span(rows).first(bytes));
    if (checked) return std::string();
    EXPECT_EQ(checked.error().code, ErrorCode::kInvalidArgument);
    return checked.error().message;
  };
  EXPECT_EQ(error_of(table, {0, 99}, 24), "");
  EXPECT_EQ(error_of(table, {}, 0), "");
  EXPECT_EQ(error_of(table, {0, 100}, 24), "table 'table' has no row 100");
  EXPECT_EQ(error_of(table, {-1, 0}, 24), "table 'table' has no row -1");
  EXPECT_EQ(error_of(table, {1, 2}, 12), "table 'table': 12 bytes are not 2 rows of 12");
  EXPECT_EQ(error_of(table, {1}, 13), "table 'table': 13 bytes are not 1 rows of 12");
  EXPECT_THAT(error_of(program_->FindBuffer("ids"), {1}, 12), HasSubstr("not an embedding table"));
  for (const int32_t buffer : {-1, 1000, std::numeric_limits<int32_t>::max()})
    EXPECT_THAT(error_of(buffer, {1}, 12), HasSubstr("not an embedding table"));
}

TEST(WorkLists, AreFoundOnceEach) {
  const auto program = SoundProgram(TestModelText());
  const auto lists = FindWorkLists(*program);  // kv_append's and attention's are one
  ASSERT_EQ(lists.size(), 1u);
  EXPECT_EQ(lists[0].sequences, program->FindBuffer("sequences"));
  EXPECT_EQ(lists[0].pages, program->FindBuffer("pages"));
  EXPECT_EQ(lists[0].rows.reg, program->FindRegister("rows"));
}

TEST(KvPageBytes, AddsUpAllCaches) {
  EXPECT_EQ(KvPageBytes(*SoundProgram(TestModelText())), 2 * 16 * 8 * 2);
  EXPECT_EQ(KvPageBytes(*SoundProgram(R"(program two
register pages 9 at_load
buffer a kv f32 pages [pages, 3 x 8]
buffer b kv bf16 pages [pages, 1 x 4]
stream compute
  end
stream transfer
  end
stream link
  end
)")),
            2 * 16 * (3 * 8 * 4 + 4 * 2));
}

std::vector<std::byte> OutputOf(LoadedProgram& loaded, const Launch& launch, const char* name) {
  const auto ticket = loaded.Submit(launch);
  EXPECT_TRUE(ticket) << ticket.error().message;
  EXPECT_TRUE(loaded.Complete(*ticket));
  const auto bytes = loaded.Output(loaded.program().FindBuffer(name));
  return {bytes.begin(), bytes.end()};
}

TEST(CpuDevice, RefusesPagesBeyondTheBound) {
  const auto program = SoundProgram(TestModelText());
  const auto device = cpu::MakeCpuDevice({});
  for (const int64_t pages : {0, -1, 65}) {
    const auto loaded = device->Load(program, RandomWeights(*program, 1), {.kv_pages = pages});
    ASSERT_FALSE(loaded) << pages;
    EXPECT_EQ(loaded.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(loaded.error().message, HasSubstr(std::to_string(pages) + " KV pages"));
    EXPECT_THAT(loaded.error().message, HasSubstr("1 to 64"));
  }
  for (const int64_t pages : {1, 64}) {
    const auto loaded = device->Load(program, RandomWeights(*program, 1), {.kv_pages = pages});
    ASSERT_TRUE(loaded) << pages;
    EXPECT_EQ((*loaded)->LoadRegister(program->FindRegister("pages")), pages);
  }
}

TEST(CpuDevice, SaysHowMuchMemoryItLacks) {
  std::string text = "program huge\nregister pages 262144 at_load\n";
  for (const char* name : {"a", "b", "c"})  // 2^46 bytes each: more than there are addresses
    text += std::string("buffer ") + name + " kv f32 pages [pages, 4096 x 512]\n";
  const auto program =
      SoundProgram(text + "stream compute\nend\nstream transfer\nend\nstream link\nend\n");
  const auto loaded = cpu::MakeCpuDevice({})->Load(program, RandomWeights(*program, 1),
                                                   {.kv_pages = int64_t{1} << 18});
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, ErrorCode::kNoCapacity);
  EXPECT_THAT(loaded.error().message, HasSubstr("211106232532992 bytes of KV cache"));
}

TEST(CpuDevice, GoesOnAfterARefusedLaunch) {
  const auto program = SoundProgram(TestModelText());
  const auto device = cpu::MakeCpuDevice({.threads = 2, .serial_cost = 0});
  auto loaded = device->Load(program, RandomWeights(*program, 1), {.kv_pages = 8});
  ASSERT_TRUE(loaded);
  const Launch sound = SoundLaunch(*program);
  const auto before = OutputOf(**loaded, sound, "logits");
  EXPECT_EQ(before.size(), 2u * 64 * 4);
  Launch spoiled = sound;
  spoiled.inputs[static_cast<size_t>(program->FindBuffer("pages"))][0] = 8;  // of 0..7
  const auto refused = (*loaded)->Submit(spoiled);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(OutputOf(**loaded, sound, "logits"), before);
  // A register that was set at load is not the launch's to say.
  Launch other = sound;
  other.registers[static_cast<size_t>(program->FindRegister("pages"))] = 64;
  EXPECT_EQ(OutputOf(**loaded, other, "logits"), before);
  EXPECT_TRUE(OutputOf(**loaded, Launch(*program), "logits").empty());
}

// Rows of an embedding table are replaced between launches, all of them or none.
TEST(CpuDevice, ReplacesRowsOfTables) {
  const auto program = SoundProgram(R"(program table
register rows 4
semaphores 0
buffer table weight f32 table [3, 2]
buffer other weight f32 rows [3, 2]
stream compute
  end
stream transfer
  end
stream link
  end
)");
  const auto device = cpu::MakeCpuDevice({});
  std::vector<float> table = {0, 1, 2, 3, 4, 5};
  isa::BoundWeights weights;
  weights.by_buffer = {std::as_bytes(std::span(table)), std::as_bytes(std::span(table))};
  const std::vector<float> rows = {-1, -2, -3, -4, -5, -6};
  const auto bytes = std::as_bytes(std::span(rows));
  {
    auto loaded = device->Load(program, weights, {});
    ASSERT_TRUE(loaded);
    const auto refused = (*loaded)->UpdateRows(0, std::vector<int64_t>{2, 0, 2}, bytes);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(refused.error().message, "table 'table' cannot be written");
  }
  weights.tables_are_writable = true;
  auto loaded = device->Load(program, weights, {});
  ASSERT_TRUE(loaded);
  EXPECT_FALSE((*loaded)->UpdateRows(0, std::vector<int64_t>{2, 0, 3}, bytes));
  EXPECT_FALSE((*loaded)->UpdateRows(1, std::vector<int64_t>{2, 0, 2}, bytes));
  EXPECT_EQ(table, (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_TRUE((*loaded)->UpdateRows(0, std::vector<int64_t>{2, 0, 2}, bytes));
  EXPECT_EQ(table, (std::vector<float>{-3, -4, 2, 3, -5, -6}));
}

// What an instruction raises ends its launch in an error, and that one only.
TEST(Faults, TheFirstCounts) {
  cpu::Faults faults;
  EXPECT_TRUE(faults.Check());
  faults.Raise("take y", -3, 7);
  faults.Raise("take z", 9, 8);
  const auto raised = faults.Check();
  ASSERT_FALSE(raised);
  EXPECT_EQ(raised.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(raised.error().message, "take y: index -3 is not in [0, 7)");
  faults.Clear();
  EXPECT_TRUE(faults.Check());
}

class ModelTest : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(CpuDevice, ModelTest,
                         testing::Values(isa::kTestModelBody, isa::kTestExpertsBody),
                         [](const auto& info) { return info.index == 0 ? "Dense" : "Experts"; });

TEST_P(ModelTest, GivesTheSameBitsWithAnyKernelsThreadsAndOrder) {
  const auto program = SoundProgram(TestModelText({}, GetParam()));
  const isa::BoundWeights weights = RandomWeights(*program, 3);
  std::vector<std::byte> logits, sampled;
  for (const kernels::KernelSet* set : kernels::AvailableKernels()) {
    for (const int threads : {1, 2, 5}) {
      for (const uint64_t order : {0u, 1u, 2u}) {
        const auto device = cpu::MakeCpuDevice(
            {.threads = threads, .kernels = set, .order_seed = order, .serial_cost = 0});
        auto loaded = device->Load(program, weights, {.kv_pages = 8});
        ASSERT_TRUE(loaded);
        const Launch launch = SoundLaunch(*program);
        const auto these = OutputOf(**loaded, launch, "logits");
        const auto drawn = OutputOf(**loaded, launch, "sampled");
        if (logits.empty()) {
          logits = these;
          sampled = drawn;
        }
        EXPECT_EQ(these, logits) << set->name << ", " << threads << " threads, order " << order;
        EXPECT_EQ(drawn, sampled) << set->name << ", " << threads << " threads, order " << order;
      }
    }
  }
}

// Two Programs of one device take turns; each has pages of its own.
TEST(CpuDevice, HoldsSeveralPrograms) {
  const auto program = SoundProgram(TestModelText());
  const auto device = cpu::MakeCpuDevice({.threads = 2, .serial_cost = 0});
  auto first = device->Load(program, RandomWeights(*program, 1), {.kv_pages = 8});
  auto second = device->Load(program, RandomWeights(*program, 2), {.kv_pages = 9});
  ASSERT_TRUE(first && second);
  const Launch launch = SoundLaunch(*program);
  const auto a = OutputOf(**first, launch, "logits");
  const auto b = OutputOf(**second, launch, "logits");
  EXPECT_NE(a, b);
  EXPECT_EQ(OutputOf(**first, launch, "logits"), a);
}

// What writes conflicts with what touches the same columns; who comes after a write comes after
// what that had to come after.
TEST(CpuDevice, FindsConflicts) {
  const auto program = SoundProgram(R"(program conflicts
register rows 8
buffer x input f32 rows [rows, 4]
buffer weight weight f32 rows [1, 4]
buffer a scratch f32 rows [rows, 8]
buffer b scratch f32 rows [rows, 4]
buffer y output f32 rows [rows, 4]
stream compute
  rms_norm x=x weight=weight y=a[0:4] group=4 epsilon=0
  rms_norm x=x weight=weight y=a[4:8] group=4 epsilon=0
  rms_norm x=a[0:4] weight=weight y=b group=4 epsilon=0
  rms_norm x=a[4:8] weight=weight y=a[0:4] group=4 epsilon=0
  rms_norm x=a[0:4] weight=weight y=y group=4 epsilon=0
  end
stream transfer
  end
stream link
  end
)");
  const auto& compute = program->streams[0];
  const std::vector<isa::Instruction> order(compute.begin(), compute.end() - 1);
  const std::vector<std::vector<int32_t>> expected = {{}, {}, {0}, {0, 1, 2}, {3}};
  EXPECT_EQ(cpu::FindConflicts(*program, order), expected);
}

TEST(CpuDevice, ProfilesInstructions) {
  const auto program = SoundProgram(TestModelText());
  cpu::Profile profile;
  const auto device = cpu::MakeCpuDevice({.threads = 2, .serial_cost = 0, .profile = &profile});
  auto loaded = device->Load(program, RandomWeights(*program, 1), {.kv_pages = 8});
  ASSERT_TRUE(loaded);
  for (int run = 0; run < 3; ++run) OutputOf(**loaded, SoundLaunch(*program), "logits");
  bool any_matmul = false;
  for (const auto& line : profile.Lines()) {
    EXPECT_LE(line.runs, 3);
    EXPECT_EQ(line.runs == 0, line.ns == 0) << line.writes;
    any_matmul = any_matmul || (line.op == isa::Opcode::kMatMul && line.runs == 3);
    EXPECT_THAT(line.writes, HasSubstr(", "));
  }
  EXPECT_TRUE(any_matmul);
}

// A sample may stand in any stream, and be narrower than another.
TEST(CpuDevice, SamplesOfTwoWidthsInTwoStreams) {
  const auto program = SoundProgram(R"(program samples
register rows 200
register adjusts 1
semaphores 1
buffer adjust_tokens input i32 rows [adjusts, 1] below 16
buffer adjustments input i32 rows [adjusts, 2]
buffer index input i32 rows [rows, 1] below 64
buffer params input i32 rows [rows, 12]
buffer table weight f32 packed [64, 3000]
buffer wide output f32 rows [rows, 3000]
buffer a output i32 rows [rows, 44]
buffer b output i32 rows [rows, 44]
stream compute
  wait semaphore=0 count=1
  sample logits=wide params=params adjust_tokens=adjust_tokens adjustments=adjustments record=a
  end
stream transfer
  gather table=table index=index y=wide
  post semaphore=0 count=1
  sample logits=wide[8:24] params=params adjust_tokens=adjust_tokens adjustments=adjustments record=b
  end
stream link
  end
)");
  constexpr int64_t kRows = 200;
  for (const int threads : {1, 3}) {
    for (const uint64_t order : {0u, 1u, 2u, 3u}) {
      const auto device =
          cpu::MakeCpuDevice({.threads = threads, .order_seed = order, .serial_cost = 0});
      auto loaded = device->Load(program, RandomWeights(*program, 5), {});
      ASSERT_TRUE(loaded) << loaded.error().message;
      Launch launch(*program);
      launch.registers[0] = kRows;
      for (int32_t i = 0; i < kRows; ++i) {
        launch.inputs[2].push_back(i % 64);
        int32_t params[isa::kSampleParamWords] = {};
        params[isa::kSampleTarget] = -1;
        params[isa::kSampleLogprobs] = 20;
        launch.inputs[3].insert(launch.inputs[3].end(), params, params + isa::kSampleParamWords);
      }
      const auto logits = OutputOf(**loaded, launch, "wide");
      const auto a = OutputOf(**loaded, launch, "a");
      const auto b = OutputOf(**loaded, launch, "b");
      const auto* values = reinterpret_cast<const float*>(logits.data());
      for (int64_t row = 0; row < kRows; ++row) {
        const float* begin = values + row * 3000;
        const auto* wide = reinterpret_cast<const int32_t*>(a.data()) + row * 44;
        const auto* narrow = reinterpret_cast<const int32_t*>(b.data()) + row * 44;
        EXPECT_EQ(wide[isa::kRecordToken], std::max_element(begin, begin + 3000) - begin);
        EXPECT_EQ(narrow[isa::kRecordToken], std::max_element(begin + 8, begin + 24) - (begin + 8));
        EXPECT_EQ(wide[isa::kRecordCount], 20);
        EXPECT_EQ(narrow[isa::kRecordCount], 16);  // all there are
      }
    }
  }
}

// Rows route to experts as they like; empty launches, and experts that nobody chose, are no work.
TEST(CpuDevice, ExpertsWithoutRowsAreNoWork) {
  const auto program = SoundProgram(TestModelText({}, isa::kTestExpertsBody));
  for (const int threads : {1, 3}) {
    const auto device = cpu::MakeCpuDevice({.threads = threads, .serial_cost = 0});
    auto loaded = device->Load(program, RandomWeights(*program, 1), {.kv_pages = 8});
    ASSERT_TRUE(loaded);
    const auto before = OutputOf(**loaded, SoundLaunch(*program), "logits");
    EXPECT_TRUE(OutputOf(**loaded, Launch(*program), "logits").empty());
    EXPECT_EQ(OutputOf(**loaded, SoundLaunch(*program), "logits"), before);
    for (size_t i = 0; i < before.size(); i += 4) {
      float logit;
      std::memcpy(&logit, &before[i], sizeof logit);
      ASSERT_TRUE(std::isfinite(logit));
    }
  }
}

TEST(CpuDevice, AdjustmentsReachTheRowsThatNameThem) {
  const auto program = SoundProgram(TestModelText());
  const auto device = cpu::MakeCpuDevice({});
  auto loaded = device->Load(program, RandomWeights(*program, 1), {.kv_pages = 8});
  ASSERT_TRUE(loaded);
  Launch launch = SoundLaunch(*program);
  auto input = [&](const char* name) -> std::vector<int32_t>& {
    return launch.inputs[static_cast<size_t>(program->FindBuffer(name))];
  };
  input("sampling")[isa::kSampleTarget] = -1;
  input("sampling")[isa::kSampleParamWords + isa::kSampleTarget] = -1;
  auto tokens = [&] {
    const auto bytes = OutputOf(**loaded, launch, "sampled");
    std::vector<int32_t> words(bytes.size() / 4);
    std::memcpy(words.data(), bytes.data(), bytes.size());
    return std::pair(words[0], words[isa::kSampleRecordWords]);
  };
  const auto [first, second] = tokens();
  // The second row may not take what it took; the first row has no adjustments.
  launch.registers[static_cast<size_t>(program->FindRegister("adjusts"))] = 2;
  input("adjust_tokens") = {first, second};
  input("adjustments") = {isa::WordOf(1), isa::WordOf(-std::numeric_limits<float>::infinity()),
                          isa::WordOf(1), isa::WordOf(-std::numeric_limits<float>::infinity())};
  input("sampling")[isa::kSampleParamWords + isa::kSampleAdjustBegin] = 1;
  input("sampling")[isa::kSampleParamWords + isa::kSampleAdjustCount] = 1;
  const auto [same, other] = tokens();
  EXPECT_EQ(same, first);
  EXPECT_NE(other, second);
}

TEST(CpuDevice, EmptyKernelsIssueAndComputeNothing) {
  for (const char* body : {isa::kTestModelBody, isa::kTestExpertsBody}) {
    const auto program = SoundProgram(TestModelText({}, body));
    const auto device = cpu::MakeCpuDevice({.threads = 2, .serial_cost = 0, .empty_kernels = true});
    auto loaded = device->Load(program, RandomWeights(*program, 1), {.kv_pages = 8});
    ASSERT_TRUE(loaded);
    const auto logits = OutputOf(**loaded, SoundLaunch(*program), "logits");
    EXPECT_EQ(std::ranges::count(logits, std::byte{0}), std::ssize(logits));
  }
}

TEST(CpuDevice, RefusesClaimsOfNothing) {
  const auto program = SoundProgram(TestModelText());
  const auto device = cpu::MakeCpuDevice({});
  auto loaded = device->Load(program, RandomWeights(*program, 1), {.kv_pages = 8});
  ASSERT_TRUE(loaded);
  Launch launch = SoundLaunch(*program);
  for (const double share : {0.0, -1.0, std::numeric_limits<double>::infinity(),
                             std::numeric_limits<double>::quiet_NaN()}) {
    launch.claims = {{.caller = 1, .share = 0.5}, {.caller = 2, .share = share}};
    const auto ticket = (*loaded)->Submit(launch);
    ASSERT_FALSE(ticket) << share;
    EXPECT_EQ(ticket.error().code, ErrorCode::kInvalidArgument);
  }
  launch.claims.pop_back();
  const auto ticket = (*loaded)->Submit(launch);
  ASSERT_TRUE(ticket);
  EXPECT_TRUE((*loaded)->Complete(*ticket));
}

// Threads that each use a Program of their own, and load and unload others meanwhile.
TEST(CpuDevice, SharesItselfBetweenThreads) {
  const auto dense = SoundProgram(TestModelText());
  const auto experts = SoundProgram(TestModelText({}, isa::kTestExpertsBody));
  const auto device = cpu::MakeCpuDevice({.threads = 2, .serial_cost = 0});
  std::vector<std::vector<std::byte>> expected;
  for (const auto& program : {dense, experts}) {
    auto loaded = device->Load(program, RandomWeights(*program, 1), {.kv_pages = 8});
    ASSERT_TRUE(loaded);
    expected.push_back(OutputOf(**loaded, SoundLaunch(*program), "logits"));
  }
  std::atomic<int> wrong{0}, launches{0};
  auto use = [&](size_t which, int times, LaunchClass launch_class, bool reload) {
    const auto& program = which == 0 ? dense : experts;
    std::unique_ptr<LoadedProgram> loaded;
    for (int i = 0; i < times; ++i) {
      if (loaded == nullptr || reload) {
        auto again = device->Load(program, RandomWeights(*program, 1), {.kv_pages = 8});
        if (!again) return void(++wrong);
        loaded = std::move(*again);
      }
      const auto ticket = loaded->Submit(SoundLaunch(*program), launch_class);
      if (!ticket) return void(++wrong);
      if (i % 7 == 6) {  // unloaded with a launch in flight, now or when another has run it
        loaded.reset();
        continue;
      }
      if (!loaded->Complete(*ticket)) ++wrong;
      const auto bytes = loaded->Output(program->FindBuffer("logits"));
      if (!std::ranges::equal(bytes, expected[which])) ++wrong;
      ++launches;
    }
  };
  {
    std::vector<std::jthread> threads;
    threads.emplace_back(use, 0, 200, 0, false);
    threads.emplace_back(use, 1, 200, 0, false);
    threads.emplace_back(use, 0, 100, 1, true);
    threads.emplace_back(use, 1, 100, 2, true);
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(launches, 450);
}

// A launch that is submitted first runs even if another thread's wait is what runs it.
TEST(CpuDevice, WhoeverWaitsRunsWhatIsNext) {
  const auto program = SoundProgram(TestModelText());
  const auto device = cpu::MakeCpuDevice({});
  auto first = device->Load(program, RandomWeights(*program, 1), {.kv_pages = 8});
  auto second = device->Load(program, RandomWeights(*program, 2), {.kv_pages = 8});
  ASSERT_TRUE(first && second);
  const auto a = (*first)->Submit(SoundLaunch(*program), 0);
  const auto b = (*second)->Submit(SoundLaunch(*program), 2);
  ASSERT_TRUE(a && b);
  const auto completed = (*second)->Complete(*b);
  ASSERT_TRUE(completed);
  EXPECT_GT(completed->device_ns, 0);
  EXPECT_EQ((*first)->Output(program->FindBuffer("logits")).size(), 2u * 64 * 4);
  const auto other = (*first)->Complete(*a);
  ASSERT_TRUE(other);
  EXPECT_GT(other->device_ns, 0);
  EXPECT_EQ((*first)->Complete(*a)->device_ns, other->device_ns);
}

}  // namespace
}  // namespace millpower::device
