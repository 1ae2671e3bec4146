// Work that gives way to requests that are being answered.
#pragma once

#include <exception>
#include <optional>
#include <thread>

namespace millpower::cli {

// From here on this thread, and those that it will start, give way to others: the lowest ordinary
// priority, and the shortest time slices where the kernel has them (Linux 6.12), so that a thread
// that wakes up for a request need not wait until a slice is over. Not SCHED_IDLE, under which a
// load would never end on a machine that others keep busy. A thread can't undo it.
void GiveWay();

// Returns work(), run by a thread that gives way. `work` takes no lock that requests wait for.
template <typename Work>
auto InBackground(const Work& work) {
  std::optional<decltype(work())> done;
  std::exception_ptr thrown;
  std::jthread([&] {
    GiveWay();
    try {
      done.emplace(work());
    } catch (...) {
      thrown = std::current_exception();
    }
  }).join();
  if (thrown) std::rethrow_exception(thrown);
  return *std::move(done);
}

}  // namespace millpower::cli
