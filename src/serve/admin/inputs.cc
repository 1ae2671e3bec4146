#include "serve/admin/inputs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <chrono>

namespace millpower::serve::admin {
namespace {

constexpr const char* kPeriods[] = {"day", "month", "total"};
constexpr const char* kMeasures[] = {"money", "tokens"};

template <typename Enum>
void ReadEnum(FieldReader& fields, const char* name, std::span<const char* const> names,
              Enum& value) {
  std::string text;
  fields.Read(name, text);
  const auto found = std::ranges::find(names, text);
  if (found == names.end())
    fields.Refuse(name, fmt::format("must be one of {}", fmt::join(names, ", ")));
  else
    value = static_cast<Enum>(found - names.begin());
}

// All of `text`.
bool ReadDigits(std::string_view text, int& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && text[0] != '-';
}

}  // namespace

Fields::Fields(const Json& object, Names known, std::string path)
    : FieldReader(object, std::move(path)), object_(object) {
  for (const auto& [name, value] : object.items())
    if (std::ranges::find(known, name) == known.end())
      Refuse(name, fmt::format("is unknown; there are {}", fmt::join(known, ", ")));
}

void Fields::Require(const char* name) {
  if (Find(name) == nullptr) Refuse(name, "is required");
}

void Fields::ReadText(const char* name, std::string& value) {
  if (IsNull(name)) Refuse(name, "must be a string");
  Read(name, value);
}

void Fields::ReadMoney(const char* name, ledger::Micros& value, ledger::Micros low,
                       ledger::Micros high) {
  const Json* field = Find(name);
  if (field == nullptr) return;
  std::string text;
  if (field->is_string())
    text = field->get<std::string>();
  else if (field->is_number_integer())
    text = field->dump();
  else
    return Refuse(name, "must be a string such as \"12.50\": write money as a string");
  const auto amount = ledger::ParseMoney(text);
  if (!amount) return Refuse(name, "is wrong: " + amount.error().message);
  if (*amount < low || *amount > high)
    return Refuse(name, fmt::format("must be in {}..{}", ledger::FormatMoney(low),
                                    ledger::FormatMoney(high)));
  value = *amount;
}

void Fields::ReadTime(const char* name, int64_t& value) {
  if (IsNull(name)) value = 0;
  const Json* field = Find(name);
  if (field == nullptr) return;
  if (!field->is_string() && !field->is_number_integer())
    return Refuse(name, "must be Unix seconds or a date such as \"2026-12-01\"");
  const auto time = ParseTime(name, field->is_string() ? field->get<std::string>() : field->dump());
  if (time)
    value = *time;
  else
    Refuse(name, "must be Unix seconds or a date such as \"2026-12-01\"");
}

void Fields::ReadList(const char* name, std::vector<std::string>& value) {
  if (IsNull(name)) value.clear();
  const Json* field = Find(name);
  if (field == nullptr) return;
  if (!field->is_array() || !std::ranges::all_of(*field, &Json::is_string))
    return Refuse(name, "must be a list of strings");
  value = field->get<std::vector<std::string>>();
}

void Fields::ReadBounds(ledger::Bounds& bounds) {
  if (IsNull("caps")) bounds.caps.clear();
  if (IsNull("limits")) bounds.limits = {};
  ReadCaps(bounds.caps);
  ReadLimits(bounds.limits);
}

void Fields::ReadCaps(std::vector<ledger::Cap>& caps) {
  const Json* field = Find("caps");
  if (field == nullptr) return;
  if (!field->is_array()) return Refuse("caps", "must be a list");
  std::vector<ledger::Cap> read;
  for (const Json& each : *field) {
    const std::string path = fmt::format("caps[{}].", read.size());
    if (!each.is_object()) return Refuse(path.substr(0, path.size() - 1), "must be an object");
    Fields fields(each, {"period", "measure", "limit"}, path);
    ledger::Cap cap;
    for (const char* name : {"period", "measure", "limit"}) fields.Require(name);
    ReadEnum(fields, "period", kPeriods, cap.period);
    ReadEnum(fields, "measure", kMeasures, cap.measure);
    if (cap.measure == ledger::Measure::kMoney)
      fields.ReadMoney("limit", cap.limit, 0, ledger::kMaxMicros);
    else
      fields.Read("limit", cap.limit, int64_t{0}, ledger::kMaxMicros);
    for (const ledger::Cap& other : read)
      if (other.period == cap.period && other.measure == cap.measure)
        fields.Refuse("period", "and measure are those of another cap");
    Adopt(fields);
    read.push_back(cap);
  }
  caps = std::move(read);
}

void Fields::ReadLimits(ledger::RateLimits& limits) {
  const Json* field = Find("limits");
  if (field == nullptr) return;
  if (!field->is_object()) return Refuse("limits", "must be an object");
  Fields fields(*field, {"requests_per_minute", "tokens_per_minute", "concurrent_requests"},
                "limits.");
  const auto read = [&](const char* name, int64_t& value) {
    if (fields.IsNull(name)) value = 0;
    fields.Read(name, value, int64_t{0}, ledger::kMaxMicros);
  };
  read("requests_per_minute", limits.requests_per_minute);
  read("tokens_per_minute", limits.tokens_per_minute);
  read("concurrent_requests", limits.concurrent_requests);
  Adopt(fields);
}

Result<int64_t> ParseTime(const std::string& param, std::string_view text) {
  // The end of the year 9999: later is a slip (milliseconds).
  constexpr int64_t kLast = 253'402'300'799;
  const auto fail = [&] {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} '{}' is not a time: write Unix seconds, 2026-12-01 or "
                            "2026-12-01T12:00:00Z",
                            param, text.substr(0, 40)),
                param);
  };
  if (text.find('-') == text.npos) {
    int64_t seconds = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
    if (error != std::errc() || end != text.data() + text.size() || seconds > kLast) return fail();
    return seconds;
  }
  if (text.size() != 10 && text.size() != 20) return fail();
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
  const bool has_date = text[4] == '-' && text[7] == '-' && ReadDigits(text.substr(0, 4), year) &&
                        ReadDigits(text.substr(5, 2), month) && ReadDigits(text.substr(8, 2), day);
  if (!has_date) return fail();
  const std::chrono::year_month_day date(std::chrono::year(year),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day)));
  if (!date.ok() || year < 1970) return fail();
  if (text.size() == 20) {
    const bool has_time = text[10] == 'T' && text[13] == ':' && text[16] == ':' &&
                          text[19] == 'Z' && ReadDigits(text.substr(11, 2), hour) &&
                          ReadDigits(text.substr(14, 2), minute) &&
                          ReadDigits(text.substr(17, 2), second);
    if (!has_time || hour > 23 || minute > 59 || second > 59) return fail();
  }
  const int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return ((days * 24 + hour) * 60 + minute) * 60 + second;
}

Result<void> CheckQuery(const Query& query, Names known) {
  for (const auto& [name, value] : query.parameters())
    if (std::ranges::find(known, name) == known.end())
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("the parameter '{}' is unknown; there are {}", name.substr(0, 40),
                              fmt::join(known, ", ")),
                  name);
  return {};
}

Result<int64_t> ReadInteger(const Query& query, const std::string& name, int64_t otherwise,
                            int64_t low, int64_t high) {
  const std::string* text = query.Find(name);
  if (text == nullptr) return otherwise;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || value < low || value > high)
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} must be an integer in {}..{}", name, low, high), name);
  return value;
}

Result<std::string> ReadChoice(const Query& query, const std::string& name, Names choices) {
  const std::string value = query.Get(name, *choices.begin());
  if (std::ranges::find(choices, value) == choices.end())
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} must be one of {}", name, fmt::join(choices, ", ")), name);
  return value;
}

namespace {

template <typename T>
Result<const T*> Found(const T* found, const char* what, const std::string& id,
                       const std::string& param) {
  if (found == nullptr)
    return Fail(ErrorCode::kNotFound, fmt::format("there is no {} '{}'", what, id), param);
  return found;
}

}  // namespace

Result<const ledger::Tenant*> FindTenant(const ledger::Directory& directory, const std::string& id,
                                         const std::string& param) {
  return Found(directory.FindTenant(id), "tenant", id, param);
}

Result<const ledger::Project*> FindProject(const ledger::Directory& directory,
                                           const std::string& id) {
  return Found(directory.FindProject(id), "project", id, "project");
}

Result<const ledger::Key*> FindKey(const ledger::Directory& directory, const std::string& id) {
  return Found(directory.FindKey(id), "key", id, "key");
}

}  // namespace millpower::serve::admin
