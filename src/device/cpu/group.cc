#include "device/cpu/group.h"

#include <algorithm>

#include "base/check.h"

namespace millpower::device::cpu {

Group::Group(int ranks)
    : members_(static_cast<size_t>(ranks)), meet_(static_cast<std::ptrdiff_t>(ranks)) {}

void Group::Reserve(int rank, int64_t floats) {
  std::vector<float>& sums = members_[static_cast<size_t>(rank)].sums;
  if (std::ssize(sums) < floats) sums.resize(static_cast<size_t>(floats));
}

void Group::Run(int rank, const CollectiveArgs& args) {
  using enum isa::Collective;
  Member& own = members_[static_cast<size_t>(rank)];
  own.args = args;
  meet_.arrive_and_wait();
  for (const Member& other : members_)
    CHECK(other.args.kind == args.kind && other.args.rows == args.rows &&
          other.args.cols == args.cols)
        << "ranks run different Programs or launches";
  const bool sums = args.kind == kAllReduce || args.kind == kReduceScatter;
  const bool own_part = args.kind == kReduceScatter || args.kind == kAllToAll;
  const int64_t first = own_part ? rank * args.cols : 0;
  if (sums)
    Sum(args, first, own.sums.data());
  else
    Collect(args, first);
  meet_.arrive_and_wait();  // from here on x may be overwritten
  if (!sums) return;
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* sum = own.sums.data() + row * args.cols;
    float* y = args.y + row * args.y_stride;
    if (args.residual == nullptr) {
      std::copy_n(sum, args.cols, y);
      continue;
    }
    const float* residual = args.residual + row * args.residual_stride;
    for (int64_t c = 0; c < args.cols; ++c) y[c] = residual[c] + sum[c];
  }
}

void Group::Sum(const CollectiveArgs& args, int64_t first, float* to) const {
  for (int64_t row = 0; row < args.rows; ++row, to += args.cols) {
    for (const Member& member : members_) {
      const float* x = member.args.x + row * member.args.x_stride + first;
      if (&member == &members_.front())
        std::copy_n(x, args.cols, to);
      else
        for (int64_t c = 0; c < args.cols; ++c) to[c] = to[c] + x[c];
    }
  }
}

void Group::Collect(const CollectiveArgs& args, int64_t first) const {
  for (int64_t row = 0; row < args.rows; ++row) {
    float* y = args.y + row * args.y_stride;
    for (const Member& member : members_) {
      std::copy_n(member.args.x + row * member.args.x_stride + first, args.cols, y);
      y += args.cols;
    }
  }
}

}  // namespace millpower::device::cpu
