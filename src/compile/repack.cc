// Four integers at a time: a lane of a line is 4 bytes, and files hold consecutive values in
// consecutive bytes, or halves of them.
#include "compile/repack.h"

#include <cstring>

#include "base/blocks.h"
#include "base/check.h"

namespace millpower::compile {
namespace {

constexpr uint32_t kLowHalves = 0x0f0f0f0f;

uint32_t Load4(const std::byte* from) {
  uint32_t bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return bytes;
}

// One lane of a chunk being written.
class Lane {
 public:
  Lane(std::byte* chunk, DType type, int64_t lane)
      : chunk_(chunk), values_(chunk + isa::ScaleLines(type) * isa::kLineBytes), lane_(lane) {}

  void PutHalf(int64_t row, uint16_t bits) const {
    std::memcpy(chunk_ + (row * isa::kLanes + lane_) * 2, &bits, sizeof bits);
  }
  // Row `row` of the one-byte scales, which begin at the second line.
  void PutByte(int64_t row, std::byte value) const {
    chunk_[isa::kLineBytes + row * isa::kLanes + lane_] = value;
  }
  void PutValues(int64_t line, uint32_t bytes) const {
    std::memcpy(values_ + line * isa::kLineBytes + lane_ * isa::kLaneBytes, &bytes, sizeof bytes);
  }

 private:
  std::byte* const chunk_;
  std::byte* const values_;
  const int64_t lane_;
};

void PutQ8_0(const std::byte* block, int64_t group, const Lane& lane) {
  lane.PutHalf(group, BlockScale(DType::kQ8_0, block));
  for (int64_t i = 0; i < 8; ++i)  // signed to biased by 128
    lane.PutValues(group * 8 + i, Load4(block + 2 + 4 * i) ^ 0x80808080);
}

// Two times 4 bytes whose halves are steps i .. i + 7 (low) of one group of 32 and of another
// (high), to a line of each.
void PutHalves(const std::byte* bytes, int64_t low_line, int64_t high_line, const Lane& lane) {
  const uint32_t a = Load4(bytes), b = Load4(bytes + 4);
  lane.PutValues(low_line, (a & kLowHalves) | (b & kLowHalves) << 4);
  lane.PutValues(high_line, (a >> 4 & kLowHalves) | (b & ~kLowHalves));
}

void PutQ4_0(const std::byte* block, int64_t group, const Lane& lane) {
  lane.PutHalf(group, BlockScale(DType::kQ4_0, block));
  // The low halves are steps 0..15 of the group, the high ones 16..31.
  for (int64_t i = 0; i < 2; ++i)
    PutHalves(block + 2 + 8 * i, group * 4 + i, group * 4 + 2 + i, lane);
}

void PutQ4K(const std::byte* block, const Lane& lane) {
  const Q4KScales scales = ReadQ4KScales(block);
  lane.PutHalf(0, scales.d);
  lane.PutHalf(1, scales.dmin);
  for (int64_t group = 0; group < 8; ++group) {
    lane.PutByte(group, static_cast<std::byte>(scales.scale[group]));
    lane.PutByte(8 + group, static_cast<std::byte>(scales.min[group]));
  }
  // Each 32 bytes hold a group in their low halves and the next in their high ones.
  for (int64_t pair = 0; pair < 4; ++pair)
    for (int64_t i = 0; i < 4; ++i)
      PutHalves(block + 16 + 32 * pair + 8 * i, pair * 8 + i, pair * 8 + 4 + i, lane);
}

void PutQ6K(const std::byte* block, const Lane& lane) {
  const Q6KScales scales = ReadQ6KScales(block);
  lane.PutHalf(0, scales.d);
  lane.PutHalf(1, 0);
  for (int64_t group = 0; group < 16; ++group)
    lane.PutByte(group, static_cast<std::byte>(scales.scale[group]));
  for (int64_t half = 0; half < 2; ++half)
    for (int64_t run = 0; run < 4; ++run)
      for (int64_t i = 0; i < 32; i += 4) {
        const uint32_t low = Load4(block + 64 * half + 32 * (run % 2) + i) >> (4 * (run / 2));
        const uint32_t high = Load4(block + 128 + 32 * half + i) >> (2 * run);
        lane.PutValues((128 * half + 32 * run + i) / 4, (low & kLowHalves) | (high & 0x03030303)
                                                                                 << 4);
      }
}

// A block of values of 0: no scale, and the bias as integers.
void PutZeros(DType type, int64_t group, const Lane& lane) {
  const int64_t steps = BlockSize(type);
  const bool halves = type == DType::kQ4_0 || type == DType::kQ4_K;
  const int64_t lines = steps / (halves ? 8 : 4);
  const uint32_t bias = type == DType::kQ8_0   ? 0x80808080
                        : type == DType::kQ4_0 ? 0x88888888
                        : type == DType::kQ6_K ? 0x20202020
                                               : 0;
  for (int64_t line = 0; line < lines; ++line) lane.PutValues(group * lines + line, bias);
  lane.PutHalf(group, 0);
  if (steps == 32) return;
  lane.PutHalf(1, 0);
  for (int64_t row = 0; row < 16; ++row) lane.PutByte(row, std::byte{0});
}

}  // namespace

void Repack(DType type, const LaneBlocks& lanes, int64_t blocks, int64_t k, std::byte* lines) {
  const int64_t per_chunk = isa::ChunkSteps(type) / BlockSize(type);
  const int64_t chunks = (k + isa::ChunkSteps(type) - 1) / isa::ChunkSteps(type);
  CHECK(blocks <= chunks * per_chunk) << blocks << " blocks in " << k << " steps";
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    std::byte* out = lines + chunk * isa::ChunkLines(type) * isa::kLineBytes;
    for (int64_t at = 0; at < isa::kLanes; ++at) {
      const Lane lane(out, type, at);
      const std::byte* row = lanes[static_cast<size_t>(at)];
      for (int64_t group = 0; group < per_chunk; ++group) {
        const int64_t index = chunk * per_chunk + group;
        if (row == nullptr || index >= blocks) {
          PutZeros(type, group, lane);
          continue;
        }
        const std::byte* block = row + index * BlockBytes(type);
        if (type == DType::kQ8_0) PutQ8_0(block, group, lane);
        if (type == DType::kQ4_0) PutQ4_0(block, group, lane);
        if (type == DType::kQ4_K) PutQ4K(block, lane);
        if (type == DType::kQ6_K) PutQ6K(block, lane);
      }
    }
  }
}

}  // namespace millpower::compile
