// Ids that name rows of tables: what one does that is no row's number, said per input by whoever
// serves the model rather than by who exported it.
//
// An input is followed through what leaves its elements as they are (reshapes, transposes, slices,
// casts) to the operators that take rows of a weight by it; there the policy is set. `kHash` and,
// where the operator has no default of its own, `kDefault` put an expression on the ids in front of
// it. Other uses of the input (a mask of ids that are not 0) see the ids as they came.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "import/tensor/model.h"

namespace millpower::import {

// "error", "clamp", "default:ROW", "hash". Errors: kInvalidArgument.
Result<IdPolicy> ParseIdPolicy(std::string_view text);
std::string ToString(const IdPolicy& policy);

// Sets the policies given, by input, and says of each input which it has (Port::id_policy).
//
// The row of `kHash` is Mix(id) mod rows, where Mix is docs/isa/README.md's (splitmix64) of the id
// as 64 bits, unsigned, and rows are those of the table it names; ids that a pooled table leaves
// out as padding stay what they are.
//
// Errors: kInvalidArgument, naming the input: there is none of that name; it names no rows; what
// names them is computed from it, or shared with another input; a default row that a table has not;
// hashing what the host has looked up already.
Result<void> ApplyIdPolicies(const std::map<std::string, IdPolicy>& policies, TensorModel& model);

}  // namespace millpower::import
