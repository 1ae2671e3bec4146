#include "device/chip/description.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "device/chip/description_figures.h"

namespace millpower::device::chip {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// A whole description, line by line.
constexpr const char* kSmall = R"(name = "small"
cores = { value = 4, source = "a" }
clock_hz = { value = 1e9, assumed = "b", low = 0.9e9, high = 1.2e9 }

[matrix.bf16]
ops_per_s = { value = 1e12, source = "c" }
tiles = [[64, 128, 32], [128, 128, 64, 3, 2]]
j_per_op = { value = 1e-12, source = "d" }

[vector]
ops_per_s = { value = 1e11, source = "e" }
special_ops_per_s = { value = 1e10, source = "f" }

[memory]
bytes = { value = 1e9, source = "g" }
bytes_per_s = { value = 1e11, source = "h" }
efficiency = { value = 0.9, source = "i" }
random_efficiency = { value = 0.4, source = "j" }
latency_s = { value = 5e-7, assumed = "k", low = 4e-7, high = 7e-7 }

[scratchpad]
bytes = { value = 262144, source = "l" }
bytes_per_s = { value = 1e11, source = "m" }

[overheads]
issue_s = { value = 1e-6, source = "n" }
launch_s = { value = 1e-5, source = "o" }
host_s = { value = 1e-4, source = "p" }

[energy]
idle_w = { value = 10, source = "q" }
tdp_w = { value = 100, source = "r" }
vector_j_per_op = { value = 1e-12, source = "s" }
memory_j_per_byte = { value = 4e-11, assumed = "t", low = 3e-11, high = 5e-11 }
)";

Chip Parsed(const std::string& text) {
  auto chip = ParseChip(text, "small.toml");
  if (!chip) ADD_FAILURE() << chip.error().message;
  return chip.value_or(Chip());
}

std::string ErrorOf(const std::string& text) {
  const auto chip = ParseChip(text, "small.toml");
  if (chip) return "no error";
  EXPECT_EQ(chip.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(chip.error().message.find('\n'), std::string::npos);
  return chip.error().message;
}

// kSmall with one thing replaced.
std::string With(const std::string& what, const std::string& instead) {
  std::string text = kSmall;
  const size_t at = text.find(what);
  if (at == std::string::npos) ADD_FAILURE() << what;
  return text.replace(at, what.size(), instead);
}

TEST(DescriptionTest, ReadsFiguresTilesAndWhatIsAssumed) {
  const Chip chip = Parsed(kSmall);
  EXPECT_EQ(chip.name, "small");
  EXPECT_EQ(chip.cores, (Figure{4, 4, 4, "a", false}));
  EXPECT_EQ(chip.clock_hz, (Figure{1e9, 0.9e9, 1.2e9, "b", true}));
  const MatrixEngine& bf16 = chip.matrix[static_cast<size_t>(MatrixType::kBf16)];
  EXPECT_THAT(bf16.tiles, ElementsAre(Tile{64, 128, 32, 2, 1}, Tile{128, 128, 64, 3, 2}));
  EXPECT_EQ(chip.activation_type, DType::kBf16);
  EXPECT_THAT(chip.assumed,
              ElementsAre("clock_hz", "memory.latency_s", "energy.memory_j_per_byte"));
  EXPECT_TRUE(chip.HasAssumed());
}

TEST(DescriptionTest, LeavesOutWhatIsNotThereAndAssumesWhatIsNotSaid) {
  const Chip chip = Parsed(With("efficiency = { value = 0.9, source = \"i\" }\n", ""));
  EXPECT_EQ(chip.cache.bytes.value, 0);
  EXPECT_EQ(chip.links.bytes_per_s.value, 0);
  EXPECT_EQ(chip.links.max_chips.value, 1);
  EXPECT_EQ(chip.prefetch_bytes.value, 0);
  EXPECT_TRUE(chip.memory.efficiency.assumed);
  EXPECT_LT(chip.memory.efficiency.low, chip.memory.efficiency.high);
  EXPECT_THAT(chip.assumed, Contains("memory.efficiency"));
}

TEST(DescriptionTest, TakesTheSlowAndTheFastEnd) {
  const Chip chip = Parsed(kSmall);
  const Chip low = chip.At(Bound::kLow), high = chip.At(Bound::kHigh);
  EXPECT_EQ(low.clock_hz.value, 0.9e9);
  EXPECT_EQ(high.clock_hz.value, 1.2e9);
  EXPECT_EQ(low.memory.latency_s.value, 7e-7);  // a long latency is the slow end
  EXPECT_EQ(high.memory.latency_s.value, 4e-7);
  EXPECT_EQ(low.energy.memory_j_per_byte.value, 5e-11);
  EXPECT_EQ(low.cores.value, 4);
  EXPECT_FALSE(low.HasAssumed());
  EXPECT_FALSE(low.clock_hz.assumed);
  EXPECT_EQ(low.clock_hz.low, low.clock_hz.high);
  EXPECT_EQ(chip.At(Bound::kValue).clock_hz.value, 1e9);
}

TEST(DescriptionTest, NamesFileLineKeyAndWhatWasExpected) {
  const std::string cores = "cores = { value = 4, source = \"a\" }";
  EXPECT_EQ(ErrorOf(With(cores, "cores = { value = 0, source = \"a\" }")),
            "small.toml:2: cores.value: expected a whole number in 1..1e+06");
  EXPECT_EQ(ErrorOf(With(cores, "cores = { value = 4.5, source = \"a\" }")),
            "small.toml:2: cores.value: expected a whole number in 1..1e+06");
  EXPECT_THAT(
      ErrorOf(With(cores, "cores = 4")),
      HasSubstr("small.toml:2: cores: expected a whole number in 1..1e+06, written { value"));
  EXPECT_EQ(ErrorOf(With(cores, "cores = { value = \"4\", source = \"a\" }")),
            "small.toml:2: cores.value: expected a whole number in 1..1e+06");
  EXPECT_EQ(ErrorOf(With(cores, "")),
            "small.toml: cores: missing; expected a whole number in 1..1e+06");
  EXPECT_EQ(ErrorOf(With("latency_s = { value = 5e-7", "latency_s = { value = nan")),
            "small.toml:19: memory.latency_s.value: expected a number of seconds in 1e-10..0.001");
  EXPECT_EQ(ErrorOf(With("bytes_per_s = { value = 1e11, source = \"h\" }",
                         "bytes_per_s = { value = inf, source = \"h\" }")),
            "small.toml:16: memory.bytes_per_s.value: expected a number of bytes per second in "
            "1e+06..1e+17");
  EXPECT_EQ(ErrorOf(With("bytes_per_s = { value = 1e11, source = \"h\" }\n", "")),
            "small.toml:14: memory.bytes_per_s: missing; expected a number of bytes per second in "
            "1e+06..1e+17");
  EXPECT_THAT(ErrorOf(With("name = \"small\"", "name = [")), HasSubstr("small.toml:"));
}

TEST(DescriptionTest, WantsASourceOrBoundsOfEveryFigure) {
  const std::string clock =
      "clock_hz = { value = 1e9, assumed = \"b\", low = 0.9e9, high = 1.2e9 }";
  const auto error = [&](const std::string& figure) {
    return ErrorOf(With(clock, "clock_hz = " + figure));
  };
  EXPECT_THAT(error("{ value = 1e9 }"), HasSubstr(":3: clock_hz: expected either source"));
  EXPECT_THAT(error("{ value = 1e9, source = \"x\", assumed = \"y\" }"),
              HasSubstr("either source"));
  EXPECT_THAT(error("{ value = 1e9, source = \"\" }"),
              HasSubstr("clock_hz.source: expected a text"));
  EXPECT_THAT(error("{ value = 1e9, source = \"x\", low = 1e9 }"),
              HasSubstr("low and high belong"));
  EXPECT_THAT(error("{ value = 1e9, assumed = \"x\" }"), HasSubstr("low <= value <= high"));
  EXPECT_THAT(error("{ value = 1e9, assumed = \"x\", low = 1.1e9, high = 2e9 }"),
              HasSubstr("low <= value <= high"));
  EXPECT_THAT(error("{ source = \"x\" }"), HasSubstr("value is missing"));
  EXPECT_THAT(error("{ value = 1e9, sauce = \"x\" }"), HasSubstr("'sauce' is no part of a figure"));
}

TEST(DescriptionTest, SuggestsTheNearestKey) {
  EXPECT_EQ(ErrorOf(With("cores", "corse = 1\ncores")),
            "small.toml:2: corse: there is no such key; did you mean 'cores'?");
  EXPECT_EQ(ErrorOf(With("[scratchpad]", "chanels = 1\n[scratchpad]")),
            "small.toml:21: memory.chanels: there is no such key; did you mean 'memory.channels'?");
  EXPECT_EQ(ErrorOf(std::string(kSmall) + "[matrix.bf61]\n"),
            "small.toml:35: matrix.bf61: there is no such key; did you mean 'matrix.bf16'?");
  EXPECT_EQ(ErrorOf(With("bytes_per_s = { value = 1e11, source = \"h\" }",
                         "byte_per_s = { value = 1e11, source = \"h\" }")),
            "small.toml:16: memory.byte_per_s: there is no such key; did you mean "
            "'memory.bytes_per_s'?");
  EXPECT_THAT(ErrorOf(With("[scratchpad]", "[overheads.issue]\n[scratchpad]")),
              HasSubstr("did you mean 'overheads.issue_s'?"));
  EXPECT_EQ(ErrorOf("cache = 3\n" + std::string(kSmall)), "small.toml:1: cache: expected a table");
  EXPECT_THAT(ErrorOf(With("cores", "\"memory.bytes\" = 1\ncores")), HasSubstr("no plain name"));
  EXPECT_THAT(ErrorOf(With("cores", '"' + std::string(100000, 'x') + "\" = 1\ncores")),
              HasSubstr("no plain name"));
}

TEST(DescriptionTest, ChecksMatrixEngines) {
  const std::string tiles = "tiles = [[64, 128, 32], [128, 128, 64, 3, 2]]";
  for (const char* bad :
       {"tiles = 3", "tiles = []", "tiles = [[64, 64]]", "tiles = [[64, 64, 0]]",
        "tiles = [[64, 64, 1.5]]", "tiles = [[64, 64, 64, 65]]", "tiles = [[64, 64, 64, 1, 1, -1]]",
        "tiles = [[64, 64, 64, 1, 1, 0, 0, 0]]", "tiles = [64]", ""})
    EXPECT_THAT(ErrorOf(With(tiles, bad)), HasSubstr("matrix.bf16.tiles: expected")) << bad;
  EXPECT_THAT(ErrorOf(With("j_per_op = { value = 1e-12, source = \"d\" }\n", "")),
              HasSubstr("small.toml:5: matrix.bf16.j_per_op: missing"));
  EXPECT_THAT(ErrorOf(With("ops_per_s = { value = 1e12, source = \"c\" }\n", "")),
              HasSubstr("matrix.bf16.ops_per_s: missing"));
}

TEST(DescriptionTest, ChecksFiguresAgainstEachOther) {
  EXPECT_THAT(ErrorOf(std::string(kSmall) + "[cache]\nbytes = { value = 1e6, source = \"x\" }\n"),
              HasSubstr("cache.bytes_per_s: a cache needs a bandwidth"));
  EXPECT_THAT(ErrorOf(std::string(kSmall) + "[links]\nmax_chips = { value = 8, source = \"x\" }\n"),
              HasSubstr("links.bytes_per_s: a group of several chips needs links"));
  EXPECT_THAT(ErrorOf(With("value = 10, source", "value = 200, source")),
              HasSubstr("energy.idle_w: more than"));
  EXPECT_THAT(ErrorOf(std::string(kSmall) + "[links]\ntopology = \"star\"\n"),
              HasSubstr("links.topology: expected one of switch, ring, mesh"));
}

TEST(DescriptionTest, ReadsFittedConstantsAndAtMostTwelveOfAKind) {
  const std::string table = std::string(kSmall) + "[fitted.gemm]\nsource = \"some rows\"\n";
  const Chip chip =
      Parsed(table +
             "memory_efficiency = 0.8\n"
             "barrier_s = { value = 2e-6, assumed = \"x\", low = 1e-6, high = 3e-6 }\n");
  EXPECT_EQ(chip.Fitted("gemm", "memory_efficiency", 1), 0.8);
  EXPECT_EQ(chip.Fitted("gemm", "other", 1), 1);
  EXPECT_EQ(chip.Fitted("moe", "other", 2), 2);
  EXPECT_EQ(chip.fitted.at("gemm").at("memory_efficiency").source, "some rows");
  EXPECT_EQ(chip.At(Bound::kLow).Fitted("gemm", "barrier_s", 0), 3e-6);
  EXPECT_THAT(chip.assumed, Contains("fitted.gemm"));

  std::string many = table;
  for (int i = 0; i < 12; ++i) many += "c" + std::to_string(i) + " = 1\n";
  EXPECT_EQ(Parsed(many).fitted.at("gemm").size(), 12u);
  EXPECT_THAT(ErrorOf(many + "c12 = 1\n"), HasSubstr("13 constants; expected at most 12"));
  EXPECT_THAT(ErrorOf(table + "x = nan\n"), HasSubstr("small.toml:37: fitted.gemm.x: expected"));
  EXPECT_THAT(ErrorOf(table + "x = \"y\"\n"), HasSubstr("fitted.gemm.x: expected a number"));
  EXPECT_THAT(ErrorOf(std::string(kSmall) + "[fitted.gemm]\nx = 1\n"),
              HasSubstr("fitted.gemm.source: missing"));
  EXPECT_THAT(ErrorOf(table + "inherited_from = \"nothing\"\n"),
              HasSubstr("small.toml:37: fitted.gemm.inherited_from: expected the name of a chip"));
  EXPECT_THAT(ErrorOf(std::string(kSmall) + "[fitted.none]\ninherited_from = \"h100\"\n"),
              HasSubstr("expected a chip with a table [fitted.none] of its own"));
}

TEST(DescriptionTest, KnowsWhichEndOfAConstantIsGood) {
  EXPECT_EQ(BetterOf("memory_efficiency"), Better::kHigher);
  EXPECT_EQ(BetterOf("copy_bytes_per_s"), Better::kHigher);
  EXPECT_EQ(BetterOf("sustained_clock_hz"), Better::kHigher);
  EXPECT_EQ(BetterOf("barrier_s"), Better::kLower);
  EXPECT_EQ(BetterOf("prologue_cycles"), Better::kLower);
  EXPECT_EQ(BetterOf("exponent"), Better::kNeither);
}

TEST(DescriptionTest, RefusesLargeAndDeepFiles) {
  EXPECT_THAT(ErrorOf(std::string((1 << 20) + 1, '#')), HasSubstr("larger than"));
  EXPECT_THAT(ErrorOf("x = " + std::string(100000, '[')), HasSubstr("small.toml:1"));
}

TEST(DescriptionTest, FindsBuiltInChipsAndFiles) {
  const auto missing = ReadChip("h1000");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(missing.error().message, HasSubstr("h100"));
  const fs::path path = fs::path(testing::TempDir()) / "description_test.toml";
  std::ofstream(path) << kSmall;
  const auto chip = ReadChip(path.string());
  ASSERT_TRUE(chip) << chip.error().message;
  EXPECT_EQ(chip->name, "small");
  fs::remove(path);
}

// ---- the files that are shipped ----

TEST(ChipFilesTest, AllAreBuiltInAndSound) {
  std::set<std::string> on_disk;
  for (const auto& entry : fs::directory_iterator(fs::path(MILLPOWER_SOURCE_DIR) / "chips"))
    on_disk.insert(entry.path().stem().string());
  const auto names = BuiltInChips();
  EXPECT_EQ(std::set(names.begin(), names.end()), on_disk);
  for (const std::string& name : names) {
    const auto chip = ReadChip(name);
    ASSERT_TRUE(chip) << chip.error().message;
    EXPECT_EQ(chip->name, name);
    EXPECT_FALSE(chip->vendor.empty()) << name;
  }
}

double Watts(const Figure& rate, const Figure& joules) { return rate.value * joules.value; }

// With the matrix engines (of the type that takes most), the memory, the cache and the scratchpads
// at their full rates, no chip takes more than its limit; and none is described so frugally that
// the limit would make no sense.
TEST(ChipFilesTest, FullLoadStaysWithinThePowerLimit) {
  for (const std::string& name : BuiltInChips()) {
    const Chip chip = *ReadChip(name);
    double matrix = 0;
    for (size_t i = 0; i < kMatrixTypeCount; ++i)
      matrix = std::max(matrix, Watts(chip.matrix[i].ops_per_s, chip.energy.matrix_j_per_op[i]));
    const double scratch =
        Watts(chip.scratchpad.bytes_per_s, chip.energy.scratch_j_per_byte) * chip.cores.value;
    const double sum = chip.idle_w.value + matrix + scratch +
                       Watts(chip.memory.bytes_per_s, chip.energy.memory_j_per_byte) +
                       Watts(chip.cache.bytes_per_s, chip.energy.cache_j_per_byte);
    EXPECT_LE(sum, chip.tdp_w.value) << name;
    EXPECT_GE(sum, 0.6 * chip.tdp_w.value) << name;
    EXPECT_LT(Watts(chip.vector_ops_per_s, chip.energy.vector_j_per_op), chip.tdp_w.value) << name;
    EXPECT_LT(Watts(chip.links.bytes_per_s, chip.energy.link_j_per_byte), 0.2 * chip.tdp_w.value)
        << name;
  }
}

TEST(ChipFilesTest, TilesFitInTheScratchpad) {
  constexpr std::array<double, kMatrixTypeCount> kBytes = {4, 2, 2, 1, 1, 0.5, 0.5};
  for (const std::string& name : BuiltInChips()) {
    const Chip chip = *ReadChip(name);
    for (size_t i = 0; i < kMatrixTypeCount; ++i)
      for (const Tile& t : chip.matrix[i].tiles)
        EXPECT_LE(static_cast<double>((t.rows + t.channels) * t.steps * t.stages * t.per_core) *
                      kBytes[i],
                  chip.scratchpad.bytes.value)
            << name << " " << Name(static_cast<MatrixType>(i)) << " " << t.rows << " x "
            << t.channels << " x " << t.steps;
    for (size_t i = 0; i < kMatrixTypeCount; ++i)
      for (const Tile& t : chip.matrix[i].narrow_tiles)  // of weights of a byte and their scales
        EXPECT_LE(
            (kBytes[i] * static_cast<double>(t.rows) + 1.0625 * static_cast<double>(t.channels)) *
                static_cast<double>(t.steps * t.stages * t.per_core),
            chip.scratchpad.bytes.value)
            << name << " " << t.rows << " x " << t.channels;
  }
}

TEST(ChipFilesTest, EndsAreInOrder) {
  for (const std::string& name : BuiltInChips()) {
    const Chip chip = *ReadChip(name);
    Chip low = chip.At(Bound::kLow), high = chip.At(Bound::kHigh);
    const auto worst = FiguresOf(low), best = FiguresOf(high);
    for (size_t i = 0; i < worst.size(); ++i) {
      const double up = worst[i].better == Better::kLower ? -1 : 1;
      EXPECT_LE(up * worst[i].figure->value, up * best[i].figure->value)
          << name << " " << worst[i].key;
    }
  }
}

// What results on such chips depend on is not published, so they have to be a range.
TEST(ChipFilesTest, UnpublishedFiguresAreSaidToBe) {
  EXPECT_THAT(ReadChip("zhenwu-810e")->assumed,
              AllOf(Contains("matrix.bf16.ops_per_s"), Contains("memory.bytes_per_s")));
  EXPECT_THAT(ReadChip("hanguang-800")->assumed, Contains("memory.bytes_per_s"));
  EXPECT_THAT(ReadChip("millpower-1")->assumed, Contains("cores"));
  EXPECT_THAT(ReadChip("h100")->assumed, Not(Contains("memory.bytes_per_s")));
}

TEST(ChipFilesTest, SiblingsInheritWhatWasFitted) {
  const Chip h100 = *ReadChip("h100"), b200 = *ReadChip("b200");
  EXPECT_TRUE(h100.inherited.empty());
  ASSERT_TRUE(h100.fitted.contains("collective"));
  EXPECT_EQ(b200.inherited.at("collective"), "h100");
  EXPECT_THAT(b200.assumed, Contains("fitted.collective"));
  EXPECT_EQ(b200.Fitted("collective", "hop_s", 0), h100.Fitted("collective", "hop_s", 1));
  // What its file says wins.
  EXPECT_GT(b200.Fitted("collective", "line_bytes_per_s", 0),
            h100.Fitted("collective", "line_bytes_per_s", 0));
  EXPECT_LT(b200.At(Bound::kLow).Fitted("collective", "line_bytes_per_s", 0),
            b200.At(Bound::kHigh).Fitted("collective", "line_bytes_per_s", 0));
}

// Of tables that are inherited: a name with a slip would silently be another constant.
TEST(ChipFilesTest, OverridesAreOfConstantsThatTheSiblingHas) {
  for (const std::string& name : BuiltInChips()) {
    const Chip chip = *ReadChip(name);
    for (const auto& [kind, from] : chip.inherited)
      EXPECT_EQ(chip.fitted.at(kind).size(), ReadChip(from)->fitted.at(kind).size())
          << name << " " << kind;
  }
}

}  // namespace
}  // namespace millpower::device::chip
