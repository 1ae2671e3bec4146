#include "device/chip/machine.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "isa/opcodes.h"

namespace millpower::device::chip {
namespace {

// Turns in which an instruction's equal waves go through beside other streams, at most: what a file
// says of a chip, or a Program, does not decide for how long it is played.
constexpr int64_t kMostTurns = 1 << 16;

constexpr double kNever = std::numeric_limits<double>::infinity();

std::string Place(const isa::Program& program, isa::Stream stream, size_t index) {
  const auto& list = program.streams[static_cast<size_t>(stream)];
  return std::string(isa::Name(stream)) + " instruction " + std::to_string(index) + " (" +
         isa::Info(list[index].op).name + ")";
}

}  // namespace

const char* Name(Unit unit) {
  switch (unit) {
    case Unit::kMemory:
      return "memory";
    case Unit::kCache:
      return "cache";
    case Unit::kScratch:
      return "scratchpad";
    case Unit::kMatrix:
      return "matrix";
    case Unit::kVector:
      return "vector";
    case Unit::kLink:
      return "link";
  }
  return "?";
}

Result<Played> Machine::Play(const isa::Program& program,
                             const std::array<std::vector<const Work*>, isa::kStreamCount>& works,
                             std::vector<Span>* spans) {
  cursors_ = {};
  free_s_ = {};
  busy_s_ = {};
  posts_.resize(static_cast<size_t>(program.semaphores));
  for (Posts& posts : posts_) {
    posts.all.clear();
    posts.first = 0;
    posts.there = 0;
  }
  for (size_t s = 0; s < isa::kStreamCount; ++s) cursors_[s].ended = program.streams[s].empty();

  // Always the stream whose next event is the earliest, so that units serve in the order of time.
  waiting_ = {};
  while (true) {
    int next = -1;
    double at = kNever;
    for (int s = 0; s < isa::kStreamCount; ++s) {
      const Cursor& cursor = cursors_[static_cast<size_t>(s)];
      if (cursor.ended || waiting_[static_cast<size_t>(s)]) continue;
      const double event = NextEvent(cursor);
      if (event < at) at = event, next = s;
    }
    if (next < 0) break;
    const auto stream = static_cast<isa::Stream>(next);
    if (!Advance(program, stream, works[static_cast<size_t>(next)], spans))
      waiting_[static_cast<size_t>(next)] = true;
  }
  TRY(CheckCounts(program));
  Played played;
  played.busy_s = busy_s_;
  for (const Cursor& cursor : cursors_) played.end_s = std::max(played.end_s, cursor.ready_s);
  return played;
}

double Machine::NextEvent(const Cursor& cursor) const {
  return cursor.inside ? cursor.over_s : cursor.ready_s;
}

// One event of a stream. False: it waits for a semaphore.
bool Machine::Advance(const isa::Program& program, isa::Stream stream,
                      const std::vector<const Work*>& works, std::vector<Span>* spans) {
  const auto s = static_cast<size_t>(stream);
  Cursor& cursor = cursors_[s];
  const isa::Instruction& instruction = program.streams[s][cursor.index];
  switch (instruction.op) {
    case isa::Opcode::kEnd:
      cursor.ended = true;
      return true;
    case isa::Opcode::kPost: {
      Posts& posts = posts_[static_cast<size_t>(instruction.integer(isa::sync::kSemaphore))];
      const int64_t count = instruction.integer(isa::sync::kCount);
      posts.all.push_back({cursor.ready_s, count});
      posts.there += count;
      waiting_ = {};  // any of them may have been waiting for this
      break;
    }
    case isa::Opcode::kWait:
      if (!TakeCounts(instruction, cursor.ready_s)) return false;
      break;
    default: {
      const Work& work = *works[cursor.index];
      if (!cursor.inside) Begin(cursor, work);
      if (cursor.wave < work.waves.size()) {
        const Wave& wave = work.waves[cursor.wave];
        if (Alone(stream))
          PlayRepeats(cursor, wave);
        else
          PlayWave(cursor, wave,
                   std::min(wave.count - cursor.repeat, (wave.count - 1) / kMostTurns + 1));
        if (cursor.repeat == wave.count) cursor.repeat = 0, ++cursor.wave;
        if (cursor.wave < work.waves.size()) return true;
      }
      cursor.ready_s = cursor.over_s;
      cursor.inside = false;
      if (spans != nullptr)
        spans->push_back({stream, static_cast<int32_t>(cursor.index), cursor.begin_s,
                          cursor.start_s, cursor.over_s});
    }
  }
  if (++cursor.index == program.streams[s].size()) cursor.ended = true;
  return true;
}

bool Machine::TakeCounts(const isa::Instruction& wait, double& ready_s) {
  Posts& posts = posts_[static_cast<size_t>(wait.integer(isa::sync::kSemaphore))];
  int64_t wanted = wait.integer(isa::sync::kCount);
  if (posts.there < wanted) return false;
  posts.there -= wanted;
  while (wanted > 0) {
    Post& post = posts.all[posts.first];
    const int64_t taken = std::min(wanted, post.count);
    ready_s = std::max(ready_s, post.at_s);
    wanted -= taken;
    post.count -= taken;
    if (post.count == 0) ++posts.first;
  }
  return true;
}

void Machine::Begin(Cursor& cursor, const Work& work) {
  cursor.inside = true;
  cursor.begin_s = cursor.ready_s;
  cursor.start_s = cursor.over_s = cursor.over_before_s = cursor.ready_s + work.issue_s;
  cursor.wave = 0;
  cursor.repeat = 0;
  // Weights that an idle memory has read meanwhile.
  double& memory = free_s_[static_cast<size_t>(Unit::kMemory)];
  cursor.ahead_s = std::clamp(cursor.start_s - memory, 0.0, prefetch_s_);
}

// `times` of it as one.
void Machine::PlayWave(Cursor& cursor, const Wave& wave, int64_t times) {
  const auto factor = static_cast<double>(times);
  double over = cursor.over_s;
  for (size_t unit = 0; unit < kUnitCount; ++unit) {
    double busy = factor * wave.busy_s[unit];
    if (busy <= 0) continue;
    busy_s_[unit] += busy;
    const bool transfers = unit == static_cast<size_t>(Unit::kMemory);
    if (transfers) {
      const double ahead = std::min(cursor.ahead_s, busy * wave.weight_share);
      cursor.ahead_s -= ahead;
      busy -= ahead;
    }
    double& free = free_s_[unit];
    free = std::max(free, transfers ? cursor.over_before_s : cursor.over_s) + busy;
    over = std::max(over, free);
  }
  cursor.over_before_s = cursor.over_s;
  cursor.over_s = over + factor * wave.latency_s;
  cursor.repeat += times;
}

// All that is left of a wave's count, when no other stream can come between. Once a wave has moved
// every time that counts by the same as the one before it, all that follow do, because times enter
// only by sums and maxima: so these are not played but added up.
void Machine::PlayRepeats(Cursor& cursor, const Wave& wave) {
  double step = -1;
  while (cursor.repeat < wave.count) {
    const Cursor before = cursor;
    const auto free = free_s_;
    PlayWave(cursor, wave, 1);
    const double moved = cursor.over_s - before.over_s;
    const auto same = [&](double a, double b) {
      return std::abs((a - b) - moved) <= 1e-12 * std::abs(moved);
    };
    bool steady =
        cursor.ahead_s == before.ahead_s && same(cursor.over_before_s, before.over_before_s);
    for (size_t unit = 0; unit < kUnitCount && steady; ++unit)
      steady = wave.busy_s[unit] <= 0 || same(free_s_[unit], free[unit]);
    if (!steady || std::abs(moved - step) > 1e-12 * moved) {
      step = moved;
      continue;
    }
    const auto left = static_cast<double>(wave.count - cursor.repeat);
    cursor.over_s += left * moved;
    cursor.over_before_s += left * moved;
    for (size_t unit = 0; unit < kUnitCount; ++unit) {
      if (wave.busy_s[unit] <= 0) continue;
      free_s_[unit] += left * moved;
      busy_s_[unit] += left * wave.busy_s[unit];
    }
    cursor.repeat = wave.count;
  }
}

// No other stream does anything before this one has posted or ended: all others wait, or are done.
bool Machine::Alone(isa::Stream stream) const {
  for (size_t s = 0; s < isa::kStreamCount; ++s)
    if (s != static_cast<size_t>(stream) && !cursors_[s].ended && !waiting_[s]) return false;
  return true;
}

Result<void> Machine::CheckCounts(const isa::Program& program) const {
  for (size_t s = 0; s < isa::kStreamCount; ++s)
    if (!cursors_[s].ended)
      return Fail(
          ErrorCode::kCorrupt,
          Place(program, static_cast<isa::Stream>(s), cursors_[s].index) + " waits for ever");
  for (size_t i = 0; i < posts_.size(); ++i)
    if (posts_[i].there > 0)
      return Fail(ErrorCode::kCorrupt,
                  "semaphore " + std::to_string(i) + " has counts that nobody takes");
  return {};
}

}  // namespace millpower::device::chip
