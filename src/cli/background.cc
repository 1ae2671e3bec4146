#include "cli/background.h"

#include <sched.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

namespace millpower::cli {
namespace {

constexpr int kNice = 19;
constexpr uint64_t kSliceNs = 100'000;  // the least there is

// sched_setattr(2); glibc has it since 2.41 only.
struct SchedAttributes {
  uint32_t size = sizeof(SchedAttributes);
  uint32_t policy = SCHED_OTHER;
  uint64_t flags = 0;
  int32_t nice = kNice;
  uint32_t priority = 0;
  uint64_t runtime_ns = kSliceNs;  // of SCHED_OTHER: the time slice; ignored before 6.12
  uint64_t deadline_ns = 0, period_ns = 0;
};

}  // namespace

void GiveWay() {
  const auto self = static_cast<id_t>(::gettid());
  SchedAttributes attributes;
  if (::syscall(SYS_sched_setattr, self, &attributes, 0) != 0 &&
      ::setpriority(PRIO_PROCESS, self, kNice) != 0)
    spdlog::warn("loading at normal priority: {}", std::strerror(errno));
}

}  // namespace millpower::cli
