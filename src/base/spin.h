// Waiting without sleeping, for what is about to happen: the system takes tens of microseconds to
// wake a thread that sleeps, and on a virtual machine that idles a hundred.
#pragma once

#include <chrono>
#include <cstdint>
#include <thread>

namespace millpower {

// For how long a thread spins before it sleeps.
inline constexpr int64_t kSpinWithinUs = 250;   // for another thread's part of the same launch
inline constexpr int64_t kSpinBetweenUs = 100;  // for the next request, of which nobody knows

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Looks whether it is done() until it is, or for `us`: whether it is. Between two looks, `rest()`.
template <typename Done, typename Rest>
bool LookUntil(const Done& done, int64_t us, const Rest& rest) {
  constexpr int kLooks = 16;  // for each at the clock
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(us);
  do {
    for (int i = 0; i < kLooks; ++i) {
      if (done()) return true;
      rest();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

// Keeps the processor: for what takes less than a thread's turn.
template <typename Done>
bool SpinUntil(const Done& done) {
  return LookUntil(done, kSpinWithinUs, Pause);
}

// Lets threads that have work go first.
template <typename Done>
bool YieldUntil(const Done& done) {
  return LookUntil(done, kSpinBetweenUs, std::this_thread::yield);
}

}  // namespace millpower
