// Descriptions in TOML. Everything in a file that is not asked for is an error, so that a key with
// a slip in it is told rather than passed over.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <span>

#include "base/embedded_file.h"
#include "base/mapped_file.h"
#include "base/toml.h"
#include "device/chip/description.h"
#include "device/chip/description_figures.h"

namespace millpower::device::chip {

// Made by the build: the files of chips/.
std::span<const EmbeddedFile> ChipFiles();

namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr size_t kMaxTextBytes = 4096;
constexpr size_t kMaxTiles = 256;
constexpr int64_t kMaxTileRows = int64_t{1} << 40;  // of products that take a tile
constexpr size_t kMaxFittedKinds = 32;
constexpr size_t kMaxKeyBytes = 64;
constexpr double kMaxConstant = 1e20;  // of a fitted constant, either sign

// Also what keeps errors one short line: other keys are not printed as they are.
bool IsPlainKey(std::string_view key) {
  return !key.empty() && key.size() <= kMaxKeyBytes && std::ranges::all_of(key, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
}

// Levenshtein's: insertions, deletions and replacements of a letter.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row.back();
}

std::string Expected(const FigureInfo& info) {
  const std::string_view unit = UnitOf(info.key);
  return fmt::format("expected {}{}{} in {:g}..{:g}", info.whole ? "a whole number" : "a number",
                     unit.empty() ? "" : " of ", unit, info.least, info.most);
}

// Keys that a file may have, dotted: those of values, and those of the tables around them.
struct KnownKeys {
  std::set<std::string> values, tables;

  KnownKeys() {
    values = {"name",           "title",       "vendor",         "note",  "activation_type",
              "joins_row_work", "memory.kind", "links.topology", "fitted"};
    Chip chip;
    for (const FigureInfo& info : FiguresOf(chip)) values.insert(info.key);
    for (const char* type : kMatrixNames)
      for (const char* menu : {".tiles", ".narrow_tiles"})
        values.insert(std::string("matrix.") + type + menu);
    for (const std::string& key : values)
      for (size_t dot = key.find('.'); dot != std::string::npos; dot = key.find('.', dot + 1))
        tables.insert(key.substr(0, dot));
  }

  std::string Nearest(const std::string& key) const {
    std::set<std::string> all = values;
    all.insert(tables.begin(), tables.end());
    return *std::ranges::min_element(
        all, {}, [&](const std::string& known) { return EditDistance(known, key); });
  }
};

const EmbeddedFile* BuiltIn(const std::string& name) {
  const auto files = ChipFiles();
  const auto file = std::ranges::find(files, name + ".toml", &EmbeddedFile::path);
  return file == files.end() ? nullptr : &*file;
}

class Reader {
 public:
  Reader(const toml::table& root, std::string file) : root_(root), file_(std::move(file)) {}

  Result<Chip> Read() const;

 private:
  struct Constants {  // a table [fitted.<kind>]
    std::string source, from;
    std::map<std::string, Figure> figures;
  };

  // `at` may be null: a thing that is missing.
  std::unexpected<Error> Bad(const toml::node* at, const std::string& key,
                             const std::string& message) const;
  // By dotted key, null when it is not there.
  const toml::node* Node(const std::string& key) const { return root_.at_path(key).node(); }
  // What there is of `key`, or else the innermost table that it would be in: where to say that
  // something is wrong or missing.
  const toml::node* Nearest(const std::string& key) const;

  Result<std::string> Text(const toml::node& node, const std::string& key) const;
  Result<std::string> ReadText(const std::string& key, std::optional<std::string> otherwise) const;
  Result<std::string> ReadChoice(const std::string& key, std::vector<std::string> choices) const;
  Result<bool> ReadBool(const std::string& key, bool otherwise) const;
  Result<double> ReadNumber(const toml::node& node, const std::string& key,
                            const FigureInfo& info) const;
  Result<Figure> ReadFigure(const toml::node& node, const FigureInfo& info) const;
  Result<void> ReadFigures(Chip& chip) const;
  Result<Tile> ReadTile(const toml::node& node, const std::string& key) const;
  Result<std::vector<Tile>> ReadMenu(const std::string& key) const;
  Result<void> ReadMatrix(Chip& chip) const;
  Result<void> ReadNames(Chip& chip) const;
  Result<void> ReadFitted(Chip& chip) const;
  Result<Constants> ReadConstants(const std::string& path, const toml::node& node) const;
  Result<Constants> Inherited(const std::string& path, const std::string& from) const;
  Result<void> ReadFittedKind(const std::string& kind, const toml::node& node, Chip& chip) const;
  Result<void> CheckWhole(const Chip& chip) const;
  Result<void> CheckKeys(const KnownKeys& known, const toml::table& table,
                         const std::string& prefix) const;

  const toml::table& root_;
  const std::string file_;
};

std::unexpected<Error> Reader::Bad(const toml::node* at, const std::string& key,
                                   const std::string& message) const {
  const auto line = at != nullptr ? at->source().begin.line : 0;
  const std::string where = line > 0 ? fmt::format("{}:{}", file_, line) : file_;
  return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: {}: {}", where, key, message), key);
}

const toml::node* Reader::Nearest(const std::string& key) const {
  for (size_t end = key.size(); end != std::string::npos && end > 0; end = key.rfind('.', end - 1))
    if (const toml::node* node = Node(key.substr(0, end))) return node;
  return nullptr;
}

Result<std::string> Reader::Text(const toml::node& node, const std::string& key) const {
  const auto text = node.value_exact<std::string>();
  if (!text || text->empty() || text->size() > kMaxTextBytes)
    return Bad(&node, key, fmt::format("expected a text of 1..{} bytes", kMaxTextBytes));
  return *text;
}

Result<std::string> Reader::ReadText(const std::string& key,
                                     std::optional<std::string> otherwise) const {
  const toml::node* node = Node(key);
  if (node != nullptr) return Text(*node, key);
  if (!otherwise) return Bad(nullptr, key, "missing; expected a text");
  return *otherwise;
}

// The first of `choices` when the file has none.
Result<std::string> Reader::ReadChoice(const std::string& key,
                                       std::vector<std::string> choices) const {
  TRY_ASSIGN(std::string text, ReadText(key, choices.front()));
  if (std::ranges::find(choices, text) == choices.end())
    return Bad(Node(key), key, fmt::format("expected one of {}", fmt::join(choices, ", ")));
  return text;
}

Result<bool> Reader::ReadBool(const std::string& key, bool otherwise) const {
  const toml::node* node = Node(key);
  if (node == nullptr) return otherwise;
  const auto value = node->value_exact<bool>();
  if (!value) return Bad(node, key, "expected true or false");
  return *value;
}

Result<double> Reader::ReadNumber(const toml::node& node, const std::string& key,
                                  const FigureInfo& info) const {
  const auto value = node.is_number() ? node.value<double>() : std::nullopt;
  const bool inside = value && *value >= info.least && *value <= info.most;  // false for a NaN
  if (!inside || (info.whole && *value != std::floor(*value)))
    return Bad(&node, key, Expected(info));
  return *value;
}

Result<Figure> Reader::ReadFigure(const toml::node& node, const FigureInfo& info) const {
  const toml::table* table = node.as_table();
  if (table == nullptr)
    return Bad(
        &node, info.key,
        Expected(info) +
            ", written { value = N, source = \"where published\" } or { value = N, assumed = "
            "\"why\", low = N, high = N }");
  std::map<std::string, double> numbers;
  std::map<std::string, std::string> texts;
  for (const auto& [name, part] : *table) {
    const std::string text(name.str());
    if (text == "value" || text == "low" || text == "high") {
      TRY_ASSIGN(numbers[text], ReadNumber(part, info.key + "." + text, info));
    } else if (text == "source" || text == "assumed") {
      TRY_ASSIGN(texts[text], Text(part, info.key + "." + text));
    } else {
      return Bad(&part, info.key,
                 (IsPlainKey(text) ? "'" + text + "'" : std::string("a key")) +
                     " is no part of a figure; expected value, source, assumed, low, high");
    }
  }
  if (!numbers.contains("value"))
    return Bad(&node, info.key, "value is missing; " + Expected(info));
  const double value = numbers["value"];
  if (texts.size() != 1)
    return Bad(&node, info.key,
               "expected either source = \"where published\" or assumed = \"why\"");
  if (texts.contains("source")) {
    if (numbers.size() > 1)
      return Bad(&node, info.key,
                 "low and high belong to what is assumed, not to what has a source");
    return Figure{value, value, value, texts["source"], false};
  }
  if (numbers.size() != 3 || !(numbers["low"] <= value && value <= numbers["high"]))
    return Bad(&node, info.key, "what is assumed needs low <= value <= high");
  return Figure{value, numbers["low"], numbers["high"], texts["assumed"], true};
}

Result<void> Reader::ReadFigures(Chip& chip) const {
  for (const FigureInfo& info : FiguresOf(chip)) {
    const toml::node* node = Node(info.key);
    if (node != nullptr) {
      TRY_ASSIGN(*info.figure, ReadFigure(*node, info));
    } else if (info.otherwise) {
      const Default& d = *info.otherwise;
      *info.figure = {d.value, d.low, d.high, "the default", d.low < d.high};
    } else {
      return Bad(Nearest(info.key), info.key, "missing; " + Expected(info));
    }
    if (info.figure->assumed) chip.assumed.push_back(info.key);
  }
  return {};
}

Result<Tile> Reader::ReadTile(const toml::node& node, const std::string& key) const {
  Tile tile;
  struct Part {
    int64_t* value;
    int64_t least, most;
  };
  const std::array<Part, 7> parts = {{{&tile.rows, 1, 65536},
                                      {&tile.channels, 1, 65536},
                                      {&tile.steps, 1, 65536},
                                      {&tile.stages, 1, 64},
                                      {&tile.per_core, 1, 64},
                                      {&tile.least_rows, 0, kMaxTileRows},
                                      {&tile.most_rows, 0, kMaxTileRows}}};
  const toml::array* numbers = node.as_array();
  bool good = numbers != nullptr && numbers->size() >= 3 && numbers->size() <= parts.size();
  for (size_t i = 0; good && i < numbers->size(); ++i) {
    const auto value = numbers->get(i)->value_exact<int64_t>();
    good = value && *value >= parts[i].least && *value <= parts[i].most;
    if (good) *parts[i].value = *value;
  }
  if (!good)
    return Bad(
        &node, key,
        "expected tiles [rows, channels, steps, stages, per_core, least_rows, most_rows] of whole "
        "numbers, the first three in 1..65536, the next two, which may be left out as the last two "
        "may, in 1..64");
  return tile;
}

Result<std::vector<Tile>> Reader::ReadMenu(const std::string& key) const {
  const toml::node* node = Node(key);
  const toml::array* list = node != nullptr ? node->as_array() : nullptr;
  if (list == nullptr || list->empty() || list->size() > kMaxTiles)
    return Bad(Nearest(key), key, fmt::format("expected a list of 1..{} tiles", kMaxTiles));
  std::vector<Tile> menu;
  for (const toml::node& entry : *list) {
    TRY_ASSIGN(const Tile tile, ReadTile(entry, key));
    menu.push_back(tile);
  }
  return menu;
}

Result<void> Reader::ReadMatrix(Chip& chip) const {
  bool multiplies = false;
  for (size_t i = 0; i < kMatrixTypeCount; ++i) {
    const std::string key = std::string("matrix.") + kMatrixNames[i];
    MatrixEngine& engine = chip.matrix[i];
    if (Node(key) == nullptr) continue;
    for (const auto& [name, figure] : {std::pair(".ops_per_s", engine.ops_per_s),
                                       std::pair(".j_per_op", chip.energy.matrix_j_per_op[i])})
      if (figure.value <= 0)
        return Bad(Node(key), key + name, "missing; a type of numbers that is multiplied needs it");
    multiplies = true;
    TRY_ASSIGN(engine.tiles, ReadMenu(key + ".tiles"));
    if (Node(key + ".narrow_tiles") != nullptr) {
      TRY_ASSIGN(engine.narrow_tiles, ReadMenu(key + ".narrow_tiles"));
    }
  }
  if (!multiplies) return Bad(nullptr, "matrix", "expected a table [matrix.<type>] with ops_per_s");
  return {};
}

Result<void> Reader::ReadNames(Chip& chip) const {
  TRY_ASSIGN(chip.name, ReadText("name", std::nullopt));
  if (!IsPlainKey(chip.name))
    return Bad(Node("name"), "name", "expected letters, digits, '-' and '_', at most 64");
  TRY_ASSIGN(chip.title, ReadText("title", chip.name));
  TRY_ASSIGN(chip.vendor, ReadText("vendor", ""));
  TRY_ASSIGN(chip.note, ReadText("note", ""));
  TRY_ASSIGN(const std::string activation, ReadChoice("activation_type", {"bf16", "f16", "f32"}));
  chip.activation_type = *DTypeFromName(activation);
  TRY_ASSIGN(chip.joins_row_work, ReadBool("joins_row_work", true));
  TRY_ASSIGN(chip.memory.kind, ReadText("memory.kind", ""));
  TRY_ASSIGN(chip.links.topology, ReadChoice("links.topology", {"switch", "ring", "mesh"}));
  return {};
}

Result<void> Reader::ReadFitted(Chip& chip) const {
  const toml::node* node = Node("fitted");
  if (node == nullptr) return {};
  const toml::table* kinds = node->as_table();
  if (kinds == nullptr || kinds->size() > kMaxFittedKinds)
    return Bad(node, "fitted",
               fmt::format("expected 0..{} tables [fitted.<kind>]", kMaxFittedKinds));
  for (const auto& [kind, constants] : *kinds) {
    if (!IsPlainKey(kind.str())) return Bad(&constants, "fitted", "expected plain names of kinds");
    TRY(ReadFittedKind(std::string(kind.str()), constants, chip));
  }
  return {};
}

// What the file itself has under [fitted.<kind>].
Result<Reader::Constants> Reader::ReadConstants(const std::string& path,
                                                const toml::node& node) const {
  const toml::table* table = node.as_table();
  if (table == nullptr) return Bad(&node, path, "expected a table");
  Constants read;
  for (const auto& [name_key, value] : *table) {
    const std::string name(name_key.str());
    if (!IsPlainKey(name)) return Bad(&value, path, "expected plain names of constants");
    const FigureInfo info = {path + "." + name, nullptr, -kMaxConstant, kMaxConstant};
    if (name == "source") {
      TRY_ASSIGN(read.source, Text(value, info.key));
    } else if (name == "inherited_from") {
      TRY_ASSIGN(read.from, Text(value, info.key));
    } else if (value.is_table()) {
      TRY_ASSIGN(read.figures[name], ReadFigure(value, info));
    } else {
      TRY_ASSIGN(const double number, ReadNumber(value, info.key, info));
      read.figures[name] = {number, number, number, "", false};
    }
  }
  for (auto& [name, figure] : read.figures) {
    if (figure.source.empty()) figure.source = read.source;
    if (figure.source.empty())
      return Bad(&node, path + ".source", "missing; expected a text: what it was fitted to");
  }
  return read;
}

// Those of a built-in chip, which must be its own: so that this is not without end.
Result<Reader::Constants> Reader::Inherited(const std::string& path,
                                            const std::string& from) const {
  const std::string key = path + ".inherited_from";
  const EmbeddedFile* file = BuiltIn(from);
  if (file == nullptr) return Bad(Node(key), key, "expected the name of a chip that is built in");
  TRY_ASSIGN(const toml::table table, ParseToml(file->bytes, "chips/" + std::string(file->path)));
  const toml::node* node = table.at_path(path).node();
  const Reader sibling(table, "chips/" + std::string(file->path));
  Constants constants;
  if (node != nullptr) {
    TRY_ASSIGN(constants, sibling.ReadConstants(path, *node));
  }
  if (constants.figures.empty() || !constants.from.empty())
    return Bad(Node(key), key, "expected a chip with a table [" + path + "] of its own");
  return constants;
}

Result<void> Reader::ReadFittedKind(const std::string& kind, const toml::node& node,
                                    Chip& chip) const {
  const std::string path = "fitted." + kind;
  TRY_ASSIGN(Constants own, ReadConstants(path, node));
  bool assumed = false;
  for (const auto& [name, figure] : own.figures) assumed = assumed || figure.assumed;
  if (!own.from.empty()) {
    TRY_ASSIGN(Constants sibling, Inherited(path, own.from));
    own.figures.merge(sibling.figures);
    chip.inherited[kind] = own.from;
    assumed = true;
  }
  if (own.figures.size() > kMaxFittedConstants)
    return Bad(
        &node, path,
        fmt::format("{} constants; expected at most {}", own.figures.size(), kMaxFittedConstants));
  if (assumed) chip.assumed.push_back(path);
  chip.fitted[kind] = std::move(own.figures);
  return {};
}

// What no figure shows alone.
Result<void> Reader::CheckWhole(const Chip& chip) const {
  const auto bad = [&](const std::string& key, const std::string& message) {
    return Bad(Nearest(key), key, message);
  };
  if (chip.cache.bytes.value > 0 && chip.cache.bytes_per_s.low <= 0)
    return bad("cache.bytes_per_s", "a cache needs a bandwidth");
  if (chip.links.max_chips.value > 1 && chip.links.bytes_per_s.low <= 0)
    return bad("links.bytes_per_s", "a group of several chips needs links");
  if (chip.idle_w.high > chip.tdp_w.value)
    return bad("energy.idle_w", "more than the power at full load, energy.tdp_w");
  return {};
}

// `prefix`: of the keys of `table`, with a dot at its end.
Result<void> Reader::CheckKeys(const KnownKeys& known, const toml::table& table,
                               const std::string& prefix) const {
  for (const auto& [name, node] : table) {
    const std::string where = prefix.empty() ? "the file" : prefix.substr(0, prefix.size() - 1);
    if (!IsPlainKey(name.str())) return Bad(&node, where, "has a key that is no plain name");
    const std::string key = prefix + std::string(name.str());
    if (known.values.contains(key)) continue;
    if (!known.tables.contains(key))
      return Bad(&node, key, "there is no such key; did you mean '" + known.Nearest(key) + "'?");
    if (!node.is_table()) return Bad(&node, key, "expected a table");
    TRY(CheckKeys(known, *node.as_table(), key + "."));
  }
  return {};
}

Result<Chip> Reader::Read() const {
  TRY(CheckKeys(KnownKeys(), root_, ""));
  Chip chip;
  TRY(ReadNames(chip));
  TRY(ReadFigures(chip));
  TRY(ReadMatrix(chip));
  TRY(ReadFitted(chip));
  TRY(CheckWhole(chip));
  return chip;
}

}  // namespace

Result<Chip> ParseChip(std::string_view toml, const std::string& file_name) {
  if (toml.size() > kMaxFileBytes)
    return Fail(ErrorCode::kInvalidArgument, file_name + ": larger than a chip description");
  TRY_ASSIGN(const toml::table table, ParseToml(toml, file_name));
  return Reader(table, file_name).Read();
}

std::vector<std::string> BuiltInChips() {
  std::vector<std::string> names;
  for (const EmbeddedFile& file : ChipFiles())
    names.emplace_back(file.path.substr(0, file.path.rfind('.')));
  std::ranges::sort(names);
  return names;
}

Result<Chip> ReadChip(const std::string& name_or_path) {
  if (const EmbeddedFile* file = BuiltIn(name_or_path))
    return ParseChip(file->bytes, "chips/" + std::string(file->path));
  std::error_code ignored;
  if (std::filesystem::is_regular_file(name_or_path, ignored)) {
    TRY_ASSIGN(const std::string text, ReadFile(name_or_path, kMaxFileBytes));
    return ParseChip(text, name_or_path);
  }
  std::string names;
  for (const std::string& name : BuiltInChips()) names += (names.empty() ? "" : ", ") + name;
  return Fail(ErrorCode::kNotFound, "'" + name_or_path + "' is neither a file nor one of " + names);
}

}  // namespace millpower::device::chip
