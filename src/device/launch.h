// What every device checks of a launch before it starts; execution then needs no checks.
#pragma once

#include <span>
#include <vector>

#include "base/result.h"
#include "device/device.h"
#include "isa/program.h"

namespace millpower::device {

// The inputs that some instructions follow to KV pages: `sequences` and `pages`, for operands with
// as many rows as `rows` says.
struct WorkList {
  int32_t sequences = -1;  // buffers
  int32_t pages = -1;
  isa::Dim rows;
  bool operator==(const WorkList&) const = default;
};

// Those of a Program, each once.
std::vector<WorkList> FindWorkLists(const isa::Program& program);

// The value of `dim` in this launch; `registers` holds launch and load values both.
int64_t RowsOf(std::span<const int64_t> registers, const isa::Dim& dim);

// What every device checks of UpdateRows; errors as there.
Result<void> CheckRowUpdate(const isa::Program& program, int32_t buffer,
                            std::span<const int64_t> rows, std::span<const std::byte> bytes);

// Checks one Program's launches. Keeps scratch memory so that a check allocates nothing.
class LaunchChecker {
 public:
  explicit LaunchChecker(const isa::Program& program);

  // An input that is not the launch's to bring: it is not looked at.
  void Exempt(int32_t input);

  // `registers`: all registers' values, of which those with a formula are computed here. Proves
  // that registers are within their bounds, and those that are sizes of tensors not 0; inputs have
  // exactly the declared sizes, indices lie below their bounds, bools are 0 or 1, and of each work
  // list: rows of sequences follow each other without gap and cover all rows, their pages exist,
  // and no page is written by two sequences; that adjustments of sampling are numbers, divisors
  // positive and finite; and that claims are positive and finite. Errors: kInvalidArgument.
  Result<void> Check(const Launch& launch, std::span<int64_t> registers);

 private:
  // A register's formula: the sum of coefficients, each times the values of some registers.
  struct Formula {
    struct Term {
      int64_t coefficient = 0;
      std::vector<int32_t> factors;
    };
    int32_t reg = -1;
    std::vector<Term> terms;
  };

  void AddFormulas();
  void FindTensorSizes();
  Result<void> CheckRegisters(std::span<int64_t> registers) const;
  Result<void> CheckInput(const Launch& launch, std::span<const int64_t> registers, int32_t id);
  Result<void> CheckWorkList(const Launch& launch, std::span<const int64_t> registers,
                             const WorkList& list);

  Result<void> CheckAdjustments(const Launch& launch, const isa::Operand& operand);

  const isa::Program& program_;
  std::vector<Formula> formulas_;      // in the order of their registers
  std::vector<int32_t> tensor_sizes_;  // registers that must not be 0
  std::vector<WorkList> work_lists_;
  std::vector<int32_t> inputs_;
  std::vector<isa::Operand> adjustments_;  // of `sample`, those that are inputs
  std::vector<int32_t> written_pages_;
};

}  // namespace millpower::device
