#include "kernels/tensor/conv.h"

#include <algorithm>

#include "kernels/tensor/element.h"

namespace millpower::kernels {
namespace {

// A step of the reduction: a channel and a place in the kernel.
struct StepPlace {
  int64_t channel;
  Window::Sizes kernel;
};

StepPlace StepAt(const ConvArgs& args, int64_t step) {
  const int64_t taps = args.window.Elements(args.window.kernel);
  return {step / taps, args.window.PlaceOf(args.window.kernel, step % taps)};
}

// Where row `place` (all axes but the last) of the output reads step `at`: the offset of that row
// of x in the channel, or -1 when it lies outside.
int64_t RowOffset(const Window& window, const Window::Sizes& place, const StepPlace& at) {
  int64_t offset = 0;
  for (int d = 0; d + 1 < window.rank; ++d) {
    const auto axis = static_cast<size_t>(d);
    const int64_t position = window.Position(d, place[axis], at.kernel[axis]);
    if (position < 0 || position >= window.in[axis]) return -1;
    offset = offset * window.in[axis] + position;
  }
  return offset * window.in[static_cast<size_t>(window.rank - 1)];
}

// to[0 .. end - begin): what output places [begin, end) multiply with the weight of one step.
void PackStep(const Window& window, const float* channel, const StepPlace& at, int64_t begin,
              int64_t end, float* to) {
  const int last = window.rank - 1;
  const auto axis = static_cast<size_t>(last);
  const int64_t stride = window.stride[axis];
  Window::Sizes place = window.PlaceOf(window.out, begin);
  while (begin < end) {
    const int64_t first = place[axis];
    const int64_t count = std::min(window.out[axis] - first, end - begin);
    const int64_t row = RowOffset(window, place, at);
    // Of these places, [low, high) read elements that exist.
    const int64_t position = window.Position(last, first, at.kernel[axis]);
    const int64_t low = row < 0        ? count
                        : position < 0 ? std::min(count, (-position + stride - 1) / stride)
                                       : 0;
    const int64_t room = window.in[axis] - position;
    const int64_t high =
        row < 0 ? count : std::clamp(room <= 0 ? 0 : (room + stride - 1) / stride, low, count);
    std::fill_n(to, low, 0.0f);
    if (low < high) {
      const float* from = channel + row + position;
      if (stride == 1)
        std::copy_n(from + low, high - low, to + low);
      else
        for (int64_t i = low; i < high; ++i) to[i] = from[i * stride];
    }
    std::fill_n(to + high, count - high, 0.0f);
    to += count;
    begin += count;
    place[axis] = 0;
    Window::Advance(place, window.out, last);
  }
}

void FloatPlaces(const KernelSet& set, const ConvArgs& args, int64_t image, int64_t group,
                 int64_t begin, int64_t end, float* scratch) {
  const int64_t in_places = args.window.Elements(args.window.in);
  const int64_t out_places = args.window.Elements(args.window.out);
  const int64_t steps = args.in_channels * args.window.Elements(args.window.kernel);
  const int64_t first_channel = group * args.out_channels;
  const float* x = reinterpret_cast<const float*>(args.x) +
                   (image * args.groups + group) * args.in_channels * in_places;
  const float* bias = reinterpret_cast<const float*>(args.bias);
  ContractArgs part{.b = scratch,
                    .y = reinterpret_cast<float*>(args.y) +
                         (image * args.groups * args.out_channels + first_channel) * out_places +
                         begin,
                    .m = args.out_channels,
                    .n = end - begin,
                    .a_row_stride = steps,
                    .a_step_stride = 1,
                    .b_stride = kConvPlaces,
                    .y_stride = out_places};
  for (int64_t step = 0; step == 0 || step < steps; step += kConvSteps) {
    part.a = reinterpret_cast<const float*>(args.w) + first_channel * steps + step;
    part.k = std::min(kConvSteps, steps - step);
    part.carry = step > 0;
    if (bias != nullptr && step + kConvSteps >= steps) part.bias = bias + first_channel;
    StepPlace at = StepAt(args, step);
    for (int64_t s = 0; s < part.k; ++s) {
      PackStep(args.window, x + at.channel * in_places, at, begin, end, scratch + s * kConvPlaces);
      Window::Advance(at.kernel, args.window.kernel, args.window.rank);
      if (at.kernel == Window::Sizes{}) ++at.channel;
    }
    set.contract(part);
  }
}

template <DType kType>
void PlainPlaces(const ConvArgs& args, int64_t image, int64_t group, int64_t begin, int64_t end) {
  using E = Element<kType>;
  using Sum = Wrapping<typename E::Number>;
  const Window& window = args.window;
  const int64_t in_places = window.Elements(window.in);
  const int64_t out_places = window.Elements(window.out);
  const int64_t steps = args.in_channels * window.Elements(window.kernel);
  const auto axis = static_cast<size_t>(window.rank - 1);
  const auto* x = reinterpret_cast<const typename E::Stored*>(args.x) +
                  (image * args.groups + group) * args.in_channels * in_places;
  for (int64_t o = group * args.out_channels; o < (group + 1) * args.out_channels; ++o) {
    const auto* w = reinterpret_cast<const typename E::Stored*>(args.w) + o * steps;
    auto* y = reinterpret_cast<typename E::Stored*>(args.y) +
              (image * args.groups * args.out_channels + o) * out_places;
    for (int64_t i = begin; i < end; ++i) {
      const Window::Sizes place = window.PlaceOf(window.out, i);
      Sum sum = 0;
      StepPlace at{};
      for (int64_t step = 0; step < steps; ++step) {
        const int64_t row = RowOffset(window, place, at);
        const int64_t position = window.Position(window.rank - 1, place[axis], at.kernel[axis]);
        if (row >= 0 && position >= 0 && position < window.in[axis])
          sum += static_cast<Sum>(E::Widen(x[at.channel * in_places + row + position])) *
                 static_cast<Sum>(E::Widen(w[step]));
        Window::Advance(at.kernel, window.kernel, window.rank);
        if (at.kernel == Window::Sizes{}) ++at.channel;
      }
      if (args.bias != nullptr)
        sum +=
            static_cast<Sum>(E::Widen(reinterpret_cast<const typename E::Stored*>(args.bias)[o]));
      y[i] = E::Round(static_cast<typename E::Number>(sum));
    }
  }
}

}  // namespace

void ConvolvePlaces(const KernelSet& set, const ConvArgs& args, int64_t image, int64_t group,
                    int64_t begin, int64_t end, float* scratch) {
  if (args.type == DType::kF32) return FloatPlaces(set, args, image, group, begin, end, scratch);
  WithElement(args.type,
              [&]<DType kType>() { PlainPlaces<kType>(args, image, group, begin, end); });
}

}  // namespace millpower::kernels
