// A chip as its file describes it (chips/*.toml; docs/chip-files.md documents every key).
//
// Units are in the keys: bytes, seconds, hertz, watts, joules, dollars, operations (a multiply-add
// is two). Every figure says where it comes from, or that it is assumed, and then between which
// bounds the truth may lie.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"

namespace millpower::device::chip {

struct Figure {
  double value = 0;
  double low = 0, high = 0;  // equal to value when it is published
  std::string source;        // where it is published, or why it is assumed
  bool assumed = false;

  bool operator==(const Figure&) const = default;
};

// Numbers that matrix engines multiply.
enum class MatrixType : uint8_t { kF32, kBf16, kF16, kF8, kInt8, kInt4, kFp4 };
inline constexpr int kMatrixTypeCount = 7;
const char* Name(MatrixType type);

// What a core works on at a time: rows x channels of y, `steps` of the reduction for each transfer.
struct Tile {
  int64_t rows = 0, channels = 0, steps = 0;
  int64_t stages = 2;    // buffers: one is computed on while transfers fill the others
  int64_t per_core = 1;  // tiles that a core holds at the same time
  // Products of which rows a library takes it for; 0: any.
  int64_t least_rows = 0, most_rows = 0;

  bool operator==(const Tile&) const = default;
};

struct MatrixEngine {
  Figure ops_per_s;  // of the whole chip, dense; 0: it does not multiply these numbers
  std::vector<Tile> tiles;
  // For weights of fewer bits, widened to these numbers on the way: other kernels. Empty: `tiles`.
  std::vector<Tile> narrow_tiles;
};

struct Memory {
  std::string kind;  // "HBM3"
  Figure bytes;
  Figure bytes_per_s;        // of the datasheet
  Figure efficiency;         // the part of it that long reads reach, (0, 1]
  Figure random_efficiency;  // and reads of access_bytes here and there
  Figure access_bytes;       // the least that is moved
  Figure channels;
  Figure latency_s;
};

struct Cache {  // the last level, shared by all cores; bytes 0: none
  Figure bytes;
  Figure bytes_per_s;
  Figure latency_s;
};

struct Scratchpad {  // of one core
  Figure bytes;
  Figure bytes_per_s;
};

struct Links {
  std::string topology;  // "switch", "ring", "mesh"
  Figure bytes_per_s;    // of one chip, in one direction; 0: none
  Figure latency_s;
  Figure max_chips;  // in one group
};

struct Energy {  // beyond what the chip takes when idle
  std::array<Figure, kMatrixTypeCount> matrix_j_per_op;
  Figure vector_j_per_op;
  Figure memory_j_per_byte;
  Figure cache_j_per_byte;
  Figure scratch_j_per_byte;
  Figure link_j_per_byte;
};

// Which end of every assumed figure to take: kLow is the slow, hungry and dear end.
enum class Bound : uint8_t { kLow, kValue, kHigh };

struct Chip {
  std::string name;   // "h100"
  std::string title;  // "NVIDIA H100 SXM5 80 GB"
  std::string vendor;
  std::string note;                               // free text: what to know of this file
  Figure process_nm, die_mm2, transistors, year;  // where published; else 0

  Figure cores;
  Figure clock_hz;
  std::array<MatrixEngine, kMatrixTypeCount> matrix;
  DType activation_type =
      DType::kBf16;          // of computed f32 values, as the chip's libraries keep them
  Figure vector_ops_per_s;   // f32, of the whole chip
  Figure special_ops_per_s;  // exponentials, roots, divisions
  Memory memory;
  Cache cache;
  Scratchpad scratchpad;
  Links links;

  Figure issue_s;              // from one instruction to the next
  Figure launch_s;             // once a launch
  Figure host_s;               // of the host, between launches
  Figure sampling_s;           // of the host, besides, after launches of Programs that sample
  Figure prefetch_bytes;       // of weights read ahead of the instruction that needs them
  bool joins_row_work = true;  // row-wise instructions that follow each other are one kernel

  Energy energy;
  Figure idle_w;
  Figure tdp_w;
  Figure price_usd_per_hour;

  // [fitted.<kind>]: constants fitted to measurements, by name with their unit; at most
  // kMaxFittedConstants a kind.
  std::map<std::string, std::map<std::string, Figure>> fitted;
  // Kind -> the chip whose constants these are, where they are a sibling's.
  std::map<std::string, std::string> inherited;

  // Keys of figures that are assumed, "memory.bytes_per_s", in the order of docs/chip-files.md;
  // what is inherited counts as assumed, as "fitted.gemm". Times on such a chip are a range.
  std::vector<std::string> assumed;
  bool HasAssumed() const { return !assumed.empty(); }

  // All figures at one end, none assumed any more. Which end of a figure is the slow one, its key
  // says (description_figures.h); what is no matter of better or worse keeps its value.
  Chip At(Bound bound) const;

  // A fitted constant, or `otherwise`.
  double Fitted(const std::string& kind, const std::string& name, double otherwise) const;
};

inline constexpr size_t kMaxFittedConstants = 12;

// `file_name` appears in errors: "chips/h100.toml:12: memory.bytes_per_s: ...".
// Errors: kInvalidArgument, naming line, key and what was expected.
Result<Chip> ParseChip(std::string_view toml, const std::string& file_name);

// A name of chips/ ("h100"), or a path to a file. A name wins over a file of that name: "./h100" is
// the file. Errors: kNotFound, listing the names; those of ParseChip; kIo, kOutOfRange.
Result<Chip> ReadChip(const std::string& name_or_path);

// Names of the files that are built in, sorted.
std::vector<std::string> BuiltInChips();

// What the matrix engines multiply for operands of this type; block types of 8 and 4 bits are
// multiplied as int8, as activations have 8 bits.
MatrixType MatrixTypeOf(DType type);
// Operations a second of the whole chip, of operands of `type`; where it does not multiply them, as
// bf16, then f16, then f32; 0 if it multiplies none of these.
double MatrixRate(const Chip& chip, DType type);
double MatrixJoulesPerOp(const Chip& chip, DType type);

}  // namespace millpower::device::chip
