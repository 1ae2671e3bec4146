#include "kernels/tensor/pool.h"

#include <algorithm>
#include <type_traits>

#include "kernels/tensor/element.h"

namespace millpower::kernels {
namespace {

// What one window has of its axes: taps [begin, end) exist, `counted` are in x or its padding.
struct Clip {
  Window::Sizes begin{}, end{};
  int64_t counted = 1;
  bool empty = false;
};

// Taps below `limit` of an axis: the least t with first + t * dilation >= limit, within the kernel.
int64_t TapsBelow(int64_t first, int64_t dilation, int64_t kernel, int64_t limit) {
  return std::clamp<int64_t>((limit - first + dilation - 1) / dilation, 0, kernel);
}

Clip ClipOf(const Window& window, const Window::Sizes& place) {
  Clip clip;
  for (int d = 0; d < window.rank; ++d) {
    const auto axis = static_cast<size_t>(d);
    const int64_t first = window.Position(d, place[axis], 0);
    const auto below = [&](int64_t limit) {
      return limit <= first ? int64_t{0}
                            : TapsBelow(first, window.dilation[axis], window.kernel[axis], limit);
    };
    clip.begin[axis] = below(0);
    clip.end[axis] = below(window.in[axis]);
    clip.counted *= below(window.in[axis] + window.pad_end[axis]);
    clip.empty = clip.empty || clip.begin[axis] >= clip.end[axis];
  }
  return clip;
}

// visit(offset in the plane) of each element of a window, in order.
template <typename Visit>
void VisitWindow(const Window& window, const Window::Sizes& place, const Clip& clip,
                 const Visit& visit) {
  if (clip.empty) return;
  const auto last = static_cast<size_t>(window.rank - 1);
  Window::Sizes tap = clip.begin;
  for (;;) {
    int64_t offset = 0;
    for (int d = 0; d < window.rank; ++d) {
      const auto axis = static_cast<size_t>(d);
      offset = offset * window.in[axis] + window.Position(d, place[axis], tap[axis]);
    }
    for (int64_t t = clip.begin[last]; t < clip.end[last]; ++t, offset += window.dilation[last])
      visit(offset);
    int d = window.rank - 2;
    for (; d >= 0; --d) {
      const auto axis = static_cast<size_t>(d);
      if (++tap[axis] < clip.end[axis]) break;
      tap[axis] = clip.begin[axis];
    }
    if (d < 0) return;
  }
}

template <DType kType>
void PoolOf(const PoolArgs& args, const std::byte* x_bytes, int64_t first_index,
            std::byte* y_bytes) {
  using E = Element<kType>;
  using Number = typename E::Number;
  // Integers are added up modulo 2^64, and divided with their sign.
  using Wide = std::conditional_t<std::is_floating_point_v<Number>, Number,
                                  std::conditional_t<std::is_signed_v<Number>, int64_t, uint64_t>>;
  using Sum = std::conditional_t<std::is_floating_point_v<Number>, Number, uint64_t>;
  const Window& window = args.window;
  const auto* x = reinterpret_cast<const typename E::Stored*>(x_bytes);
  auto* y = reinterpret_cast<typename E::Stored*>(y_bytes);
  auto* places = reinterpret_cast<int64_t*>(y_bytes);
  const int64_t windows = window.Elements(window.out);
  Window::Sizes place{};
  for (int64_t i = 0; i < windows; ++i, Window::Advance(place, window.out, window.rank)) {
    const Clip clip = ClipOf(window, place);
    if (args.kind == Pooling::kMax || args.kind == Pooling::kArgMax) {
      int64_t best_at = -1;
      Number best{};
      VisitWindow(window, place, clip, [&](int64_t at) {
        const Number value = E::Widen(x[at]);
        const bool better = best_at < 0 || value > best || (IsNan(value) && !IsNan(best));
        if (!better) return;
        best = value;
        best_at = at;
      });
      if (args.kind == Pooling::kMax)
        y[i] = E::Round(best);
      else
        places[i] = first_index + std::max<int64_t>(best_at, 0);
      continue;
    }
    Sum sum = 0;
    int64_t elements = 0;
    VisitWindow(window, place, clip, [&](int64_t at) {
      sum += static_cast<Sum>(E::Widen(x[at]));
      ++elements;
    });
    const int64_t divisor = args.count_padding ? clip.counted : elements;
    if (args.kind == Pooling::kAverage && divisor > 0)
      sum = static_cast<Sum>(static_cast<Wide>(sum) / static_cast<Wide>(divisor));
    y[i] = E::Round(static_cast<Number>(sum));
  }
}

}  // namespace

void PoolPlane(const PoolArgs& args, const std::byte* x, int64_t first_index, std::byte* y) {
  WithElement(args.type, [&]<DType kType>() { PoolOf<kType>(args, x, first_index, y); });
}

}  // namespace millpower::kernels
