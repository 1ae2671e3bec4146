#include "text/python_json.h"

#include <fmt/format.h>

#include <charconv>

namespace millpower::text {
namespace {

void AppendString(std::string_view text, std::string& out) {
  out.push_back('"');
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\b':
        out += "\\b";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20)
          out += fmt::format("\\u{:04x}", int{c});
        else
          out.push_back(c);
    }
  }
  out.push_back('"');
}

void Append(const Json& value, std::string& out) {
  switch (value.type()) {
    case Json::value_t::object: {
      out.push_back('{');
      const char* separator = "";
      for (const auto& [key, member] : value.items()) {
        out += std::exchange(separator, ", ");
        AppendString(key, out);
        out += ": ";
        Append(member, out);
      }
      out.push_back('}');
      break;
    }
    case Json::value_t::array: {
      out.push_back('[');
      const char* separator = "";
      for (const Json& element : value) {
        out += std::exchange(separator, ", ");
        Append(element, out);
      }
      out.push_back(']');
      break;
    }
    case Json::value_t::string:
      AppendString(value.get_ref<const std::string&>(), out);
      break;
    case Json::value_t::number_float:
      out += PythonFloat(value.get<double>());
      break;
    default:
      out += value.dump();  // null, true, false and integers look the same
  }
}

}  // namespace

std::string PythonFloat(double value) {
  char buffer[32];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  std::string_view text(buffer, static_cast<size_t>(end.ptr - buffer));  // "-d.ddde+XX"
  std::string out;
  if (text.front() == '-') {
    out.push_back('-');
    text.remove_prefix(1);
  }
  const size_t e = text.find('e');
  int exponent = 0;
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), end.ptr, exponent);
  // float.__repr__ has an exponent below 1e-4 and from 1e16 on, which is how to_chars wrote it.
  if (exponent < -4 || exponent >= 16) return out.append(text);
  std::string digits(1, text[0]);
  if (e > 2) digits.append(text.substr(2, e - 2));
  if (exponent < 0)
    return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) return out + digits + std::string(whole - digits.size(), '0') + ".0";
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string PythonJson(const Json& value) {
  std::string out;
  Append(value, out);
  return out;
}

}  // namespace millpower::text
