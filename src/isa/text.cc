// The text form, e.g.
//
//   program qwen3
//   fact vocab_size 320
//   register rows 512
//   register pages 1048576 at_load
//   register 26*rows 13312 = 26*rows
//   ranks 4
//   semaphores 2
//   buffer tokens input i32 rows [rows, 1] below 320
//   buffer layers.0.qkv.weight weight bf16 packed [4096, 1024]
//   buffer kv.0 kv bf16 pages [pages, 8 x 128]
//   buffer list scratch i32 experts [rows, 128 x 8]
//   stream compute
//     wait semaphore=0 count=1
//     matmul x=normed w=layers.0.qkv.weight y=qkv[0:4096] epilogue=none
//     end
//
// Without a line `ranks`, it is 1. An operand without a range is the whole buffer; with a shape,
// `ids:[rows,26]`, it is a tensor. What attributes name in the Program's tables stands in their
// place: `axes=[1,2]`, `sizes=[26*rows,3]`, `code={t0=x0:f32;t1=neg:f32(t0)}`.
#include <charconv>
#include <cmath>
#include <limits>
#include <sstream>
#include <unordered_map>

#include "base/expression.h"
#include "isa/encoding.h"

namespace millpower::isa {
namespace {

// Shortest decimal that reads back as the same float64.
std::string PrintReal(double value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return std::string(text, end);
}

std::string PrintDim(const Program& program, const Dim& dim) {
  if (dim.reg < 0) return std::to_string(dim.size);
  if (static_cast<size_t>(dim.reg) >= program.registers.size()) return "?";
  return program.registers[static_cast<size_t>(dim.reg)].name;
}

std::string PrintInteger(int64_t value) { return std::to_string(value); }

// "[1,2,3]" of entry `index` of a table.
template <typename Item, typename PrintItem>
std::string PrintEntry(const std::vector<std::vector<Item>>& table, int64_t index,
                       PrintItem print_item) {
  if (index < 0 || static_cast<size_t>(index) >= table.size()) return "?";
  std::string text = "[";
  for (const Item& item : table[static_cast<size_t>(index)]) {
    if (text.size() > 1) text += ',';
    text += print_item(item);
  }
  return text + "]";
}

std::string PrintSizes(const Program& program, int64_t index) {
  return PrintEntry(program.shapes, index, [&](const Dim& dim) { return PrintDim(program, dim); });
}

// The expression in braces; as a list of integers where it is none.
std::string PrintCode(const Program& program, const Instruction& instruction, int64_t index) {
  if (index < 0 || static_cast<size_t>(index) >= program.lists.size()) return "?";
  std::vector<DType> types;
  for (const Operand& operand : instruction.operands)
    types.push_back(operand.present() &&
                            static_cast<size_t>(operand.buffer) < program.buffers.size()
                        ? program.buffer(operand).dtype
                        : DType::kF32);
  const auto expression = Expression::Decode(program.lists[static_cast<size_t>(index)], types,
                                             kMaxTensorRank, kMaxSizes);
  if (!expression) return PrintEntry(program.lists, index, PrintInteger);
  return "{" + expression->ToString() + "}";
}

std::string PrintOperand(const Program& program, const Operand& operand) {
  if (static_cast<size_t>(operand.buffer) >= program.buffers.size()) return "?";
  const Buffer& buffer = program.buffer(operand);
  if (operand.shape >= 0) return buffer.name + ":" + PrintSizes(program, operand.shape);
  if (operand.begin == 0 && operand.cols == buffer.cols) return buffer.name;
  // Of a Program that isn't proven, too.
  int64_t end = 0;
  if (__builtin_add_overflow(operand.begin, operand.cols, &end)) return buffer.name + "[?]";
  return buffer.name + "[" + std::to_string(operand.begin) + ":" + std::to_string(end) + "]";
}

std::string PrintAttribute(const Program& program, AttributeType type,
                           const Instruction& instruction, int index) {
  const int64_t value = instruction.integer(index);
  switch (type) {
    case AttributeType::kInteger:
      return PrintInteger(value);
    case AttributeType::kReal:
      return PrintReal(instruction.real(index));
    case AttributeType::kEpilogue:
      return Name(static_cast<Epilogue>(value));
    case AttributeType::kCollective:
      return Name(static_cast<Collective>(value));
    case AttributeType::kList:
      return PrintEntry(program.lists, value, PrintInteger);
    case AttributeType::kCode:
      return PrintCode(program, instruction, value);
    case AttributeType::kSizes:
      return PrintSizes(program, value);
  }
  return "?";
}

// Forms whose shape is [ROWS, HEADS x COLS]: heads of pages; experts, and choices of each row.
bool HasHeads(Form form) { return form == Form::kPages || form == Form::kExperts; }

std::string PrintBuffer(const Program& program, const Buffer& buffer) {
  std::ostringstream out;
  out << "buffer " << buffer.name << ' ' << Name(buffer.kind) << ' ' << Name(buffer.dtype) << ' '
      << Name(buffer.form) << " [" << PrintDim(program, buffer.rows) << ", ";
  if (HasHeads(buffer.form)) out << buffer.heads << " x ";
  out << buffer.cols << ']';
  if (buffer.has_bound) out << " below " << PrintDim(program, buffer.bound);
  return out.str();
}

// Splits a line into words; '[', ']' and ',' of shapes count as spaces.
std::vector<std::string> Words(std::string_view line, bool shape) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : line) {
    if (c == ' ' || c == '\t' || c == '\r' || (shape && (c == '[' || c == ']' || c == ','))) {
      if (!word.empty()) words.push_back(std::move(word));
      word.clear();
    } else {
      word += c;
    }
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

Result<int64_t> ParseInteger(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  return Fail(ErrorCode::kInvalidArgument, "'" + std::string(text) + "' is not an integer");
}

class Parser {
 public:
  Result<Program> Run(std::string_view text) {
    int line_number = 0;
    while (!text.empty()) {
      ++line_number;
      const size_t end = text.find('\n');
      const auto parsed = Line(text.substr(0, end));
      if (!parsed) return FailAt("line " + std::to_string(line_number), parsed.error());
      text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    }
    Canonicalise(program_);  // a text may say things in another order than Print does
    return std::move(program_);
  }

 private:
  static std::unexpected<Error> Bad(std::string message) {
    return Fail(ErrorCode::kInvalidArgument, std::move(message));
  }

  Result<void> Line(std::string_view line) {
    const std::vector<std::string> words = Words(line, line.starts_with("buffer"));
    if (words.empty() || words[0].starts_with('#')) return {};
    if (OpcodeFromName(words[0])) return ParseInstruction(words);
    if (words[0] == "buffer") return ParseBuffer(words);
    if (words.size() < 2) return Bad("'" + words[0] + "' needs a value");
    if (words[0] == "program") return program_.name = words[1], Result<void>();
    if (words[0] == "stream") return ParseStream(words[1]);
    if (words[0] == "semaphores" || words[0] == "ranks") {
      TRY_ASSIGN(const int64_t count, ParseInteger(words[1]));
      if (count < 0 || count > std::numeric_limits<int32_t>::max())
        return Bad("there cannot be " + words[1] + " " + words[0]);
      (words[0] == "ranks" ? program_.ranks : program_.semaphores) = static_cast<int32_t>(count);
      return {};
    }
    if (words[0] == "fact" && words.size() == 3) {
      TRY_ASSIGN(program_.facts[words[1]], ParseInteger(words[2]));
      return {};
    }
    if (words[0] == "register" && words.size() >= 3) return ParseRegister(words);
    return Bad("'" + words[0] + "' is neither a declaration nor an opcode");
  }

  Result<void> ParseStream(const std::string& name) {
    for (int i = 0; i < kStreamCount; ++i)
      if (name == Name(static_cast<Stream>(i))) return stream_ = i, Result<void>();
    return Bad("there is no stream '" + name + "'");
  }

  // register NAME BOUND [at_load] [= FORMULA]
  Result<void> ParseRegister(const std::vector<std::string>& words) {
    Register reg{.name = words[1]};
    TRY_ASSIGN(reg.max, ParseInteger(words[2]));
    size_t next = 3;
    if (next < words.size() && words[next] == "at_load") reg.at_load = true, ++next;
    if (next + 2 == words.size() && words[next] == "=") reg.formula = words[next + 1], next += 2;
    if (next != words.size()) return Bad("stray words after the bound");
    registers_.try_emplace(reg.name, static_cast<int32_t>(program_.registers.size()));
    program_.registers.push_back(std::move(reg));
    return {};
  }

  Result<Dim> ParseDim(const std::string& word) {
    if (const auto reg = registers_.find(word); reg != registers_.end()) return Dim{reg->second, 0};
    TRY_ASSIGN(const int64_t size, ParseInteger(word));
    return Dim{-1, size};
  }

  // "[a,b,c]" into a table of the Program: the entry's index.
  template <typename Item, typename ParseItem>
  Result<int64_t> ParseEntry(std::string_view text, std::vector<std::vector<Item>>& table,
                             ParseItem parse_item) {
    if (text.size() < 2 || text.front() != '[' || text.back() != ']')
      return Bad("'" + std::string(text) + "' is not a list [A,B,...]");
    text = text.substr(1, text.size() - 2);
    std::vector<Item> entry;
    while (!text.empty()) {
      const size_t end = text.find(',');
      TRY_ASSIGN(Item item, parse_item(std::string(text.substr(0, end))));
      entry.push_back(item);
      if (end == std::string_view::npos) break;
      text.remove_prefix(end + 1);
      if (text.empty()) return Bad("a list ends with a comma");
    }
    table.push_back(std::move(entry));
    return static_cast<int64_t>(table.size()) - 1;
  }

  Result<int64_t> ParseList(std::string_view text) {
    return ParseEntry(text, program_.lists, ParseInteger);
  }

  Result<int64_t> ParseSizes(std::string_view text) {
    return ParseEntry(text, program_.shapes,
                      [this](const std::string& word) { return ParseDim(word); });
  }

  Result<int64_t> ParseCode(std::string_view text) {
    if (!text.starts_with('{') || !text.ends_with('}')) return ParseList(text);
    TRY_ASSIGN(const Expression expression, Expression::Parse(text.substr(1, text.size() - 2)));
    program_.lists.push_back(expression.Encode());
    return static_cast<int64_t>(program_.lists.size()) - 1;
  }

  // buffer NAME KIND DTYPE FORM ROWS [HEADS x] COLS [below BOUND]
  Result<void> ParseBuffer(const std::vector<std::string>& words) {
    if (words.size() < 7) return Bad("a buffer needs name, kind, type, form and shape");
    Buffer buffer;
    buffer.name = words[1];
    const auto dtype = DTypeFromName(words[3]);
    if (!dtype) return Bad("there is no type '" + words[3] + "'");
    buffer.dtype = *dtype;
    bool known = false;
    for (int i = 0; i < kBufferKindCount; ++i)
      if (words[2] == Name(static_cast<BufferKind>(i)))
        buffer.kind = static_cast<BufferKind>(i), known = true;
    if (!known) return Bad("there is no buffer kind '" + words[2] + "'");
    known = false;
    for (int i = 0; i < kFormCount; ++i)
      if (words[4] == Name(static_cast<Form>(i))) buffer.form = static_cast<Form>(i), known = true;
    if (!known) return Bad("there is no form '" + words[4] + "'");
    TRY_ASSIGN(buffer.rows, ParseDim(words[5]));
    size_t next = 6;
    if (HasHeads(buffer.form)) {
      if (words.size() < 9 || words[7] != "x")
        return Bad(words[4] + " have a shape [ROWS, HEADS x COLS]");
      TRY_ASSIGN(buffer.heads, ParseInteger(words[6]));
      next = 8;
    }
    TRY_ASSIGN(buffer.cols, ParseInteger(words[next]));
    if (words.size() == next + 3 && words[next + 1] == "below") {
      buffer.has_bound = true;
      TRY_ASSIGN(buffer.bound, ParseDim(words[next + 2]));
    } else if (words.size() != next + 1) {
      return Bad("stray words after the shape");
    }
    buffers_.try_emplace(buffer.name, static_cast<int32_t>(program_.buffers.size()));
    program_.buffers.push_back(std::move(buffer));
    return {};
  }

  Result<Operand> ParseOperand(std::string_view text) {
    Operand operand;
    const size_t open = text.find_first_of("[:");
    const std::string name(text.substr(0, open));
    const auto buffer = buffers_.find(name);
    if (buffer == buffers_.end()) return Bad("there is no buffer '" + name + "'");
    operand.buffer = buffer->second;
    operand.cols = program_.buffer(operand).cols;
    if (open == std::string_view::npos) return operand;
    if (text[open] == ':') {
      TRY_ASSIGN(const int64_t shape, ParseSizes(text.substr(open + 1)));
      operand.shape = static_cast<int32_t>(shape);
      return operand;
    }
    const size_t colon = text.find(':', open);
    if (colon == std::string_view::npos || text.back() != ']') return Bad("a range is [BEGIN:END]");
    TRY_ASSIGN(operand.begin, ParseInteger(text.substr(open + 1, colon - open - 1)));
    TRY_ASSIGN(const int64_t end, ParseInteger(text.substr(colon + 1, text.size() - colon - 2)));
    if (operand.begin < 0 || end < operand.begin) return Bad("a range ends before it begins");
    operand.cols = end - operand.begin;
    return operand;
  }

  template <typename Enum>
  static Result<int64_t> ParseName(const std::string& text, int count, const char* what) {
    for (int i = 0; i < count; ++i)
      if (text == Name(static_cast<Enum>(i))) return i;
    return Bad(std::string("there is no ") + what + " '" + text + "'");
  }

  Result<int64_t> ParseAttribute(AttributeType type, const std::string& text) {
    if (type == AttributeType::kInteger) return ParseInteger(text);
    if (type == AttributeType::kList) return ParseList(text);
    if (type == AttributeType::kCode) return ParseCode(text);
    if (type == AttributeType::kSizes) return ParseSizes(text);
    if (type == AttributeType::kEpilogue)
      return ParseName<Epilogue>(text, kEpilogueCount, "epilogue");
    if (type == AttributeType::kCollective)
      return ParseName<Collective>(text, kCollectiveCount, "collective");
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
      return Bad("'" + text + "' is not a number");
    return std::bit_cast<int64_t>(value);
  }

  Result<void> ParseInstruction(const std::vector<std::string>& words) {
    Instruction instruction;
    instruction.op = *OpcodeFromName(words[0]);
    const OpInfo& info = Info(instruction.op);
    for (size_t i = 0; i < info.attributes.size(); ++i)
      if (IsTableIndex(info.attributes[i].type)) instruction.attributes[i] = -1;
    for (size_t word = 1; word < words.size(); ++word) {
      const size_t equals = words[word].find('=');
      const std::string key = words[word].substr(0, equals);
      if (equals == std::string::npos) return Bad("'" + key + "' has no value");
      const std::string value = words[word].substr(equals + 1);
      bool known = false;
      for (size_t i = 0; i < info.operands.size(); ++i) {
        if (key != info.operands[i].name) continue;
        TRY_ASSIGN(instruction.operands[i], ParseOperand(value));
        known = true;
      }
      for (size_t i = 0; i < info.attributes.size(); ++i) {
        if (key != info.attributes[i].name) continue;
        TRY_ASSIGN(instruction.attributes[i], ParseAttribute(info.attributes[i].type, value));
        known = true;
      }
      if (!known) return Bad("'" + words[0] + "' has no operand or attribute '" + key + "'");
    }
    for (size_t i = 0; i < info.attributes.size(); ++i) {
      const AttributeType type = info.attributes[i].type;
      if (!IsTableIndex(type) || instruction.attributes[i] >= 0) continue;
      TRY_ASSIGN(instruction.attributes[i], ParseAttribute(type, "[]"));
    }
    program_.streams[static_cast<size_t>(stream_)].push_back(instruction);
    return {};
  }

  static bool IsTableIndex(AttributeType type) {
    return type == AttributeType::kList || type == AttributeType::kCode ||
           type == AttributeType::kSizes;
  }

  Program program_;
  std::unordered_map<std::string, int32_t> registers_, buffers_;  // by name; of equals the first
  int stream_ = 0;
};

}  // namespace

std::string Print(const Program& program, const Instruction& instruction) {
  const OpInfo& info = Info(instruction.op);
  std::string line = info.name;
  for (size_t i = 0; i < info.operands.size(); ++i)
    if (instruction.operands[i].present())
      line += std::string(" ") + info.operands[i].name + "=" +
              PrintOperand(program, instruction.operands[i]);
  for (size_t i = 0; i < info.attributes.size(); ++i)
    line += std::string(" ") + info.attributes[i].name + "=" +
            PrintAttribute(program, info.attributes[i].type, instruction, static_cast<int>(i));
  return line;
}

std::string Print(const Program& program) {
  std::ostringstream out;
  out << "program " << program.name << '\n';
  for (const auto& [fact, value] : program.facts) out << "fact " << fact << ' ' << value << '\n';
  for (const Register& reg : program.registers)
    out << "register " << reg.name << ' ' << reg.max << (reg.at_load ? " at_load" : "")
        << (reg.formula.empty() ? "" : " = ") << reg.formula << '\n';
  if (program.ranks != 1) out << "ranks " << program.ranks << '\n';
  out << "semaphores " << program.semaphores << '\n';
  for (const Buffer& buffer : program.buffers) out << PrintBuffer(program, buffer) << '\n';
  for (size_t i = 0; i < program.streams.size(); ++i) {
    out << "stream " << Name(static_cast<Stream>(i)) << '\n';
    for (const Instruction& instruction : program.streams[i])
      out << "  " << Print(program, instruction) << '\n';
  }
  return out.str();
}

Result<Program> Parse(std::string_view text) { return Parser().Run(text); }

}  // namespace millpower::isa
