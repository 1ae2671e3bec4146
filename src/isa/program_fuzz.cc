// 't' and a Program's text, or any other byte and a Program's bytes: an error, or a Program that
// every form holds unchanged and that can be run. Seeds: tests/fuzz_seeds/program.
#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "isa/encoding.h"
#include "isa/verify.h"

namespace {

using namespace millpower;
using namespace millpower::isa;

void Expect(bool condition) {
  if (!condition) std::abort();
}

// What Verify promises of a Program that it accepts.
void CheckSound(const Program& program) {
  const auto parsed = Parse(Print(program));
  Expect(parsed && *parsed == program);
  const auto decoded = Decode(Encode(program));
  Expect(decoded && *decoded == program);
  Program same = program;
  Canonicalise(same);
  Expect(same == program);

  size_t work = 0;  // instructions that are no synchronisation
  for (const auto& stream : program.streams)
    work += static_cast<size_t>(std::ranges::count_if(stream, [](const Instruction& instruction) {
      return instruction.op != Opcode::kEnd && instruction.op != Opcode::kWait &&
             instruction.op != Opcode::kPost;
    }));
  for (const uint64_t seed : {0, 1, 2}) {
    const auto order = Linearise(program, seed);
    Expect(order && order->size() == work);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const bool is_text = data[0] == 't';
  ++data, --size;
  Result<Program> program;
  if (is_text) {
    program = Parse({reinterpret_cast<const char*>(data), size});
    if (program) (void)Print(*program);
  } else {
    const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
    program = Decode(bytes);
    if (program) {
      Expect(std::ranges::equal(Encode(*program), bytes));  // a Program has one encoding
      (void)Print(*program);                                // of whatever decodes
    }
  }
  if (program && Verify(*program)) CheckSound(*program);
  return 0;
}
