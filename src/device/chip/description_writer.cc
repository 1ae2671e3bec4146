#include "device/chip/description_writer.h"

#include <fmt/format.h>

#include <map>
#include <vector>

#include "device/chip/description_figures.h"

namespace millpower::device::chip {
namespace {

std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    if (static_cast<unsigned char>(c) < 0x20)
      quoted += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    else
      quoted += c;
  }
  return quoted + "\"";
}

std::string Text(const Figure& figure) {
  if (!figure.assumed)
    return fmt::format("{{ value = {}, source = {} }}", figure.value,
                       Quoted(figure.source.empty() ? "not said" : figure.source));
  return fmt::format("{{ value = {}, assumed = {}, low = {}, high = {} }}", figure.value,
                     Quoted(figure.source), figure.low, figure.high);
}

std::string Text(const std::vector<Tile>& tiles) {
  std::string text;
  for (const Tile& t : tiles)
    text += fmt::format("{}[{}, {}, {}, {}, {}, {}, {}]", text.empty() ? "" : ", ", t.rows,
                        t.channels, t.steps, t.stages, t.per_core, t.least_rows, t.most_rows);
  return "[" + text + "]";
}

// Of figures that a file may leave out, those that say nothing.
bool SaysNothing(const Figure& figure) {
  return figure.value == 0 && (figure.source.empty() || figure.source == "the default");
}

}  // namespace

std::string ToToml(const Chip& given) {
  Chip chip = given;
  std::string top;
  const auto line = [](const std::string& name, const std::string& value) {
    return name + " = " + value + "\n";
  };
  top += line("name", Quoted(chip.name));
  if (!chip.title.empty()) top += line("title", Quoted(chip.title));
  if (!chip.vendor.empty()) top += line("vendor", Quoted(chip.vendor));
  if (!chip.note.empty()) top += line("note", Quoted(chip.note));
  top += line("activation_type", Quoted(Name(chip.activation_type)));
  top += line("joins_row_work", chip.joins_row_work ? "true" : "false");

  std::vector<std::string> order;  // of tables
  std::map<std::string, std::string> tables;
  const auto table = [&](const std::string& name) -> std::string& {
    const auto [at, added] = tables.emplace(name, "");
    if (added) order.push_back(name);
    return at->second;
  };
  for (const FigureInfo& info : FiguresOf(chip)) {
    if (SaysNothing(*info.figure) && info.otherwise) continue;
    const size_t dot = info.key.rfind('.');
    if (dot == std::string::npos)
      top += line(info.key, Text(*info.figure));
    else
      table(info.key.substr(0, dot)) += line(info.key.substr(dot + 1), Text(*info.figure));
  }
  for (size_t i = 0; i < kMatrixTypeCount; ++i) {
    const MatrixEngine& engine = chip.matrix[i];
    if (engine.ops_per_s.value <= 0) continue;
    std::string& lines = table(std::string("matrix.") + kMatrixNames[i]);
    lines += line("tiles", Text(engine.tiles));
    if (!engine.narrow_tiles.empty()) lines += line("narrow_tiles", Text(engine.narrow_tiles));
  }
  if (!chip.memory.kind.empty()) table("memory") += line("kind", Quoted(chip.memory.kind));
  if (tables.contains("links")) table("links") += line("topology", Quoted(chip.links.topology));
  for (const auto& [kind, constants] : chip.fitted)
    for (const auto& [name, figure] : constants)
      table("fitted." + kind) += line(name, Text(figure));

  std::string text = top;
  for (const std::string& name : order) text += "\n[" + name + "]\n" + tables[name];
  return text;
}

}  // namespace millpower::device::chip
