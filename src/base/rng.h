// Counter-based random numbers: the n-th draw of a seed is a pure function, so a request's
// randomness does not depend on what else the process draws.
#pragma once

#include <cstdint>

namespace millpower {

// SplitMix64's output function (Steele, Lea, Flood: "Fast splittable pseudorandom number
// generators", OOPSLA 2014).
constexpr uint64_t Mix64(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

constexpr uint64_t RandomBits(uint64_t seed, uint64_t counter) {
  return Mix64(Mix64(seed) ^ Mix64(counter * 0xd1342543de82ef95u + 1));
}

// Uniform in [0, 1), 24 bits, exact in float32.
constexpr float RandomUniform(uint64_t seed, uint64_t counter) {
  return static_cast<float>(RandomBits(seed, counter) >> 40) * 0x1p-24f;
}

// A sequence of draws for tests and weight generation. Not thread-safe.
class Rng {
 public:
  explicit Rng(uint64_t seed) : seed_(seed) {}
  uint64_t Next() { return RandomBits(seed_, counter_++); }
  float Uniform() { return RandomUniform(seed_, counter_++); }
  float Uniform(float lo, float hi) { return lo + (hi - lo) * Uniform(); }
  // Uniform in [0, bound); bound > 0. The modulo bias is below 2^-32 for bounds below 2^32.
  uint64_t Below(uint64_t bound) { return Next() % bound; }

 private:
  uint64_t seed_;
  uint64_t counter_ = 0;
};

}  // namespace millpower
