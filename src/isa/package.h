// One file that holds everything needed to serve a model: the Program and its packed weights side
// by side, tokenizer, chat format, generation defaults. Starts by mmap. docs/isa/package.md
// specifies the bytes.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "base/result.h"
#include "isa/program.h"

namespace millpower::isa {

// XXH3-64 (github.com/Cyan4973/xxHash, by its library): finds damage, not malice. A Program is
// proven by Verify whatever its hash says.
uint64_t Hash(std::span<const std::byte> bytes);

// The bytes of every constant a Program declares, and what keeps them alive.
struct BoundWeights {
  // By buffer index; empty spans for buffers that are no weights. 64-byte aligned.
  std::vector<std::span<const std::byte>> by_buffer;
  std::shared_ptr<const void> owner;
  // The bytes of embedding tables (Form::kTable) lie in memory that may be written, and no one else
  // reads them while a device does: what LoadedProgram::UpdateRows needs. A mapped file need not be
  // changed for it: pages mapped privately are copied when they are first written.
  bool tables_are_writable = false;
  // Tables that lie in files mapped privately, which `owner` owns: their pages may leave memory as
  // long as nobody has written them.
  std::vector<std::span<const std::byte>> mapped_tables = {};
  // If set, called with bytes of a table before they are written.
  std::function<void(std::span<const std::byte>)> before_write = nullptr;
  // If set, called with rows of tables, so many bytes long each, before they are read; by any
  // thread.
  std::function<void(std::span<const std::byte* const>, int64_t)> before_read = nullptr;
};

// Texts that travel with a Program, by name: "tokenizer" (tokenizer.json), "chat" (name of the chat
// format), "generation" (generation defaults, JSON), "source" (the path it was compiled from).
using Texts = std::map<std::string, std::string>;

struct Package {
  Program program;
  BoundWeights weights;
  Texts texts;
};

// Done and total bytes, called now and then.
using Progress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

// Writes the weights one after the other as `next_weight` gives them: called once per weight
// buffer, in buffer order; a span stays valid until the following call. Writes to a temporary
// name first and renames, so that a reader never sees half a file. Errors: kIo.
Result<void> WritePackage(
    const std::filesystem::path& path, const Program& program, const Texts& texts,
    const std::function<Result<std::span<const std::byte>>(int32_t)>& next_weight,
    const Progress& progress);

// Maps the file, proves its Program (Verify), and checks every hash, the weights' too but for
// tables (Form::kTable), which may change; those lie in memory that may be written. Errors:
// kNotFound, kIo; kCorrupt and kUnsupported, naming the section and what is wrong.
Result<Package> ReadPackage(const std::filesystem::path& path, const Progress& progress);

// The texts alone. Errors: as those of ReadPackage.
Result<Texts> ReadTexts(const std::filesystem::path& path);

// Whether the file begins like a package.
bool IsPackage(const std::filesystem::path& path);

}  // namespace millpower::isa
