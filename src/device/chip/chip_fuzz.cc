// A chip's description: an error of one line, or a chip with figures that are in order at every
// end. Seeds: tests/fuzz_seeds/chip.
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "device/chip/description_figures.h"
#include "device/chip/tpp.h"

namespace {

using namespace millpower;
using namespace millpower::device::chip;

void Expect(bool condition) {
  if (!condition) std::abort();
}

void CheckSound(Chip& chip) {
  for (const FigureInfo& info : FiguresOf(chip)) {
    const Figure& figure = *info.figure;
    Expect(std::isfinite(figure.low) && std::isfinite(figure.high));
    Expect(figure.low <= figure.value && figure.value <= figure.high);
    Expect(figure.assumed || figure.low == figure.high);
    Expect(figure.value <= info.most);
  }
  for (const auto& [kind, constants] : chip.fitted) Expect(constants.size() <= kMaxFittedConstants);
  for (const Bound bound : {Bound::kLow, Bound::kValue, Bound::kHigh}) {
    const Chip settled = chip.At(bound);
    Expect(!settled.HasAssumed() && settled.memory.bytes_per_s.value > 0);
  }
  Expect(std::isfinite(TotalProcessingPerformance(chip)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto chip = ParseChip({reinterpret_cast<const char*>(data), size}, "fuzz.toml");
  if (chip)
    CheckSound(*chip);
  else
    Expect(!chip.error().message.empty() && !chip.error().message.contains('\n'));
  return 0;
}
