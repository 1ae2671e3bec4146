#include "isa/program.h"

namespace millpower::isa {

const char* Name(BufferKind kind) {
  switch (kind) {
    case BufferKind::kInput:
      return "input";
    case BufferKind::kWeight:
      return "weight";
    case BufferKind::kKv:
      return "kv";
    case BufferKind::kScratch:
      return "scratch";
    case BufferKind::kOutput:
      return "output";
  }
  return "?";
}

const char* Name(Form form) {
  switch (form) {
    case Form::kRows:
      return "rows";
    case Form::kPacked:
      return "packed";
    case Form::kPages:
      return "pages";
    case Form::kQuantised:
      return "quantised";
    case Form::kExperts:
      return "experts";
  }
  return "?";
}

int32_t Program::FindBuffer(std::string_view name) const {
  for (size_t i = 0; i < buffers.size(); ++i)
    if (buffers[i].name == name) return static_cast<int32_t>(i);
  return -1;
}

int32_t Program::FindRegister(std::string_view name) const {
  for (size_t i = 0; i < registers.size(); ++i)
    if (registers[i].name == name) return static_cast<int32_t>(i);
  return -1;
}

int64_t Program::FactOr(const std::string& fact, int64_t otherwise) const {
  const auto found = facts.find(fact);
  return found == facts.end() ? otherwise : found->second;
}

int64_t BufferBytes(const Buffer& buffer, int64_t rows) {
  switch (buffer.form) {
    case Form::kRows:
      return rows * buffer.cols * SizeBytes(buffer.dtype);
    case Form::kPacked:
      return PackedBytes(rows, buffer.cols, buffer.dtype);
    case Form::kPages:
      return rows * KvPageBytes(buffer.heads, buffer.cols, buffer.dtype);
    case Form::kQuantised:
      return rows * QuantisedRowBytes(buffer.cols);
    case Form::kExperts:
      return ExpertListBytes(rows, buffer.cols, buffer.heads);
  }
  return 0;
}

}  // namespace millpower::isa
