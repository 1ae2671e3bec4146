#include "isa/program.h"

#include <type_traits>
#include <utility>

namespace millpower::isa {
namespace {

// Calls visit_shape and visit_list with every index (an int64_t&, const in a const Program; of an
// operand's shape, a copy that is written back) in the order of use.
template <typename AnyProgram, typename VisitShape, typename VisitList>
void ForEachTableIndex(AnyProgram& program, VisitShape visit_shape, VisitList visit_list) {
  for (auto& stream : program.streams)
    for (auto& instruction : stream) {
      const OpInfo& info = Info(instruction.op);
      for (size_t i = 0; i < info.operands.size(); ++i) {
        auto& operand = instruction.operands[i];
        if (!operand.present() || operand.shape < 0) continue;
        int64_t index = operand.shape;
        visit_shape(index);
        if constexpr (!std::is_const_v<AnyProgram>) operand.shape = static_cast<int32_t>(index);
      }
      for (size_t i = 0; i < info.attributes.size(); ++i) {
        const AttributeType type = info.attributes[i].type;
        if (type == AttributeType::kSizes) visit_shape(instruction.attributes[i]);
        if (type == AttributeType::kList || type == AttributeType::kCode)
          visit_list(instruction.attributes[i]);
      }
    }
}

// Collects indices of a table of `size` entries, each once.
class FirstUses {
 public:
  explicit FirstUses(size_t size) : seen_(size, false) {}
  void operator()(int64_t index) {
    if (index < 0 || static_cast<size_t>(index) >= seen_.size()) return;
    if (!seen_[static_cast<size_t>(index)]) order.push_back(index);
    seen_[static_cast<size_t>(index)] = true;
  }
  std::vector<int64_t> order;

 private:
  std::vector<bool> seen_;
};

// Makes a table anew, in the order in which its entries are asked for.
template <typename Entry>
class Renumbering {
 public:
  explicit Renumbering(std::vector<Entry>& table) : old_(std::exchange(table, {})), table_(table) {}
  void operator()(int64_t& index) {
    if (index < 0 || static_cast<size_t>(index) >= old_.size()) {
      index = -1;
      return;
    }
    const Entry& entry = old_[static_cast<size_t>(index)];
    const auto [found, is_new] = numbers_.try_emplace(entry, static_cast<int64_t>(table_.size()));
    if (is_new) table_.push_back(entry);
    index = found->second;
  }

 private:
  const std::vector<Entry> old_;
  std::vector<Entry>& table_;
  std::map<Entry, int64_t> numbers_;
};

}  // namespace

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
    case Form::kTable:
      return "table";
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

TableOrder OrderOfUse(const Program& program) {
  FirstUses shapes(program.shapes.size()), lists(program.lists.size());
  ForEachTableIndex(
      program, [&](int64_t index) { shapes(index); }, [&](int64_t index) { lists(index); });
  return {std::move(shapes.order), std::move(lists.order)};
}

void Canonicalise(Program& program) {
  Renumbering shapes(program.shapes);
  Renumbering lists(program.lists);
  ForEachTableIndex(
      program, [&](int64_t& index) { shapes(index); }, [&](int64_t& index) { lists(index); });
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
      return rows * QuantisedRowBytes(buffer.cols, buffer.dtype);
    case Form::kTable:
      return rows * TableRowBytes(buffer.cols, buffer.dtype);
    case Form::kExperts:
      return ExpertListBytes(rows, buffer.cols, buffer.heads);
  }
  return 0;
}

}  // namespace millpower::isa
