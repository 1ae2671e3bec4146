// A Program, as program_fuzz.cc takes it, on one of the built-in chips that its size chooses: an
// error, or a time of each launch that is in order. Seeds: tests/fuzz_seeds/timing.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "base/rng.h"
#include "device/chip/chip_device.h"
#include "isa/encoding.h"
#include "isa/sampling.h"
#include "isa/verify.h"

namespace {

using namespace millpower;
using namespace millpower::device;

constexpr int64_t kInputWordsMax = 1 << 18;
constexpr int64_t kPagesMax = 4096;

void Expect(bool condition) {
  if (!condition) std::abort();
}

Result<isa::Program> Read(const uint8_t* data, size_t size) {
  Result<isa::Program> program =
      data[0] == 't' ? isa::Parse({reinterpret_cast<const char*>(data + 1), size - 1})
                     : isa::Decode(std::as_bytes(std::span(data + 1, size - 1)));
  if (program) TRY(isa::Verify(*program));
  return program;
}

// The least, the most, or something between.
int64_t ValueOf(const isa::Register& reg, uint64_t bits) {
  const int64_t most = std::max<int64_t>(reg.max, 1);
  return bits % 3 == 0 ? 1 : bits % 3 == 1 ? reg.max : 1 + static_cast<int64_t>(bits >> 2) % most;
}

// Sequences of one row, and one of the rest of them, each on pages of its own.
void FillWorkList(Launch& launch, const WorkList& list, int64_t rows) {
  auto& sequences = launch.inputs[static_cast<size_t>(list.sequences)];
  auto& pages = launch.inputs[static_cast<size_t>(list.pages)];
  std::iota(pages.begin(), pages.end(), 0);
  const int64_t count = std::ssize(sequences) / isa::kSequenceColumns;
  int64_t row = 0, page = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t rows_of = i + 1 < count ? 1 : rows - row;
    int32_t* sequence = sequences.data() + i * isa::kSequenceColumns;
    sequence[isa::kRowBegin] = static_cast<int32_t>(row);
    sequence[isa::kRowCount] = static_cast<int32_t>(rows_of);
    sequence[isa::kFirstPosition] = 0;
    sequence[isa::kPageBegin] = static_cast<int32_t>(page);
    row += rows_of;
    page += (rows_of + isa::kPagePositions - 1) / isa::kPagePositions;
  }
}

// False where its inputs would be too large to be worth it.
bool FillLaunch(LoadedProgram& loaded, uint64_t seed, Launch& launch) {
  const isa::Program& program = loaded.program();
  std::vector<int64_t> registers(program.registers.size());
  for (size_t i = 0; i < registers.size(); ++i) {
    const isa::Register& reg = program.registers[i];
    registers[i] = reg.at_load ? loaded.LoadRegister(static_cast<int32_t>(i))
                               : ValueOf(reg, RandomBits(seed, i));
  }
  launch.registers = registers;
  (void)LaunchChecker(program).Check(launch, registers);  // for the formulas
  int64_t words = 0;
  for (size_t i = 0; i < program.buffers.size(); ++i) {
    const isa::Buffer& buffer = program.buffers[i];
    if (buffer.kind != isa::BufferKind::kInput) continue;
    const int64_t rows = RowsOf(registers, buffer.rows);
    if (rows < 0 || rows > program.Max(buffer.rows)) return false;
    const int64_t size = (isa::BufferBytes(buffer, rows) + 3) / 4;
    if (size > kInputWordsMax - words) return false;
    words += size;
    // Zeros, which divide nothing: adjustments are ones.
    const bool adjusts = buffer.cols == isa::kSampleAdjustmentWords && buffer.dtype == DType::kI32;
    launch.inputs[i].assign(static_cast<size_t>(size), adjusts && !buffer.has_bound ? 1 : 0);
  }
  for (const WorkList& list : FindWorkLists(program))
    FillWorkList(launch, list, RowsOf(registers, list.rows));
  return true;
}

void CheckSound(const chip::LaunchReport& report) {
  Expect(report.end_ns >= report.start_ns);
  Expect(std::isfinite(report.time->seconds) && report.time->seconds >= 0);
  Expect(std::isfinite(report.time->Joules()) && report.time->Joules() >= 0);
  for (const double busy_s : report.time->busy_s) Expect(busy_s >= 0 && std::isfinite(busy_s));
  for (const chip::Span& span : report.spans)
    Expect(span.begin_s <= span.start_s && span.start_s <= span.end_s);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<std::string> names = chip::BuiltInChips();
  if (size == 0) return 0;
  auto program = Read(data, size);
  if (!program) return 0;
  auto described = chip::ReadChip(names[size % names.size()]);
  Expect(described.has_value());
  VirtualClock clock;
  const auto device = chip::MakeChipDevice({.chip = described->At(chip::Bound::kValue),
                                            .expand = {},
                                            .clock = &clock,
                                            .stage = {},
                                            .on_launch = CheckSound,
                                            .with_spans = true});
  const auto shared = std::make_shared<const isa::Program>(std::move(*program));
  int64_t pages = 0;
  for (const isa::Register& reg : shared->registers)
    if (reg.at_load && reg.name != isa::kRankRegister) pages = std::min(reg.max, kPagesMax);
  const auto loaded = device->Load(shared, {}, {.kv_pages = pages});
  if (!loaded) return 0;
  for (const uint64_t seed : {0, 1, 2, 3}) {
    Launch launch(*shared);
    if (!FillLaunch(**loaded, seed, launch)) continue;
    if (const auto ticket = (*loaded)->Submit(launch, 0)) Expect(!!(*loaded)->Complete(*ticket));
  }
  return 0;
}
