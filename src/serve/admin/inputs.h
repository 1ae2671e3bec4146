// Reading what an operator says. Unlike a client's requests, nothing unknown passes: a slip in
// "credit_line" must not go unnoticed.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/directory.h"
#include "ledger/reports.h"
#include "serve/fields.h"
#include "serve/router.h"

namespace millpower::serve::admin {

using Names = std::initializer_list<std::string_view>;

// Null fields: FieldReader skips them; what follows says what else they mean.
class Fields : public FieldReader {
 public:
  // Refuses fields that are not in `known`.
  Fields(const Json& object, Names known, std::string path = "");

  bool Has(const char* name) const { return object_.contains(name); }  // null counts
  bool IsNull(const char* name) const { return Has(name) && object_[name].is_null(); }
  void Require(const char* name);

  // A string, not null; what it may be is for the ledger to say.
  void ReadText(const char* name, std::string& value);
  // A decimal string or a whole number; floats are refused, they are not exact.
  void ReadMoney(const char* name, ledger::Micros& value, ledger::Micros low, ledger::Micros high);
  // Unix seconds, or a date as ParseTime takes it. Null: 0.
  void ReadTime(const char* name, int64_t& value);
  // A list of strings, likewise. Null: none.
  void ReadList(const char* name, std::vector<std::string>& value);
  // "caps", replaced as a whole, and of "limits" those that are given. Null: none.
  void ReadBounds(ledger::Bounds& bounds);

 private:
  void ReadCaps(std::vector<ledger::Cap>& caps);
  void ReadLimits(ledger::RateLimits& limits);

  const Json& object_;
};

// "1790000000", "2026-12-01" (0:00 UTC), "2026-12-01T12:30:00Z". Errors: kInvalidArgument, naming
// `param`.
Result<int64_t> ParseTime(const std::string& param, std::string_view text);

// Errors: kInvalidArgument, naming the first parameter that is not in `known`.
Result<void> CheckQuery(const Query& query, Names known);
// A whole number, or `otherwise` without one. Errors: kInvalidArgument.
Result<int64_t> ReadInteger(const Query& query, const std::string& name, int64_t otherwise,
                            int64_t low, int64_t high);
// One of `choices`, of which the first is the default. Errors: kInvalidArgument.
Result<std::string> ReadChoice(const Query& query, const std::string& name, Names choices);

// By id; a tenant also by its name. Errors: kNotFound, naming `param`.
Result<const ledger::Tenant*> FindTenant(const ledger::Directory& directory, const std::string& id,
                                         const std::string& param = "tenant");
Result<const ledger::Project*> FindProject(const ledger::Directory& directory,
                                           const std::string& id);
Result<const ledger::Key*> FindKey(const ledger::Directory& directory, const std::string& id);

}  // namespace millpower::serve::admin
