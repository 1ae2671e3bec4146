#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "device/cpu/tensor/places.h"
#include "device/cpu/tensor/scratch.h"
#include "device/cpu/tensor/tensor_steps.h"
#include "kernels/tensor/contract.h"
#include "kernels/tensor/conv.h"
#include "kernels/tensor/pool.h"

namespace millpower::device::cpu {
namespace {

using isa::Instruction;

// How many units a step should have at least, for threads to have something to choose from.
int64_t UnitsWanted(int threads) { return threads == 1 ? 1 : 8 * threads; }

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Units are (product, block of rows, panel of columns).
class ContractStep final : public Step {
 public:
  ContractStep(const StepContext& context, const Instruction& in)
      : kernels_(context.kernels),
        a_(context, in.operand(isa::contract::kA)),
        b_(context, in.operand(isa::contract::kB)),
        y_(context, in.operand(isa::contract::kY)),
        transpose_a_(in.integer(isa::contract::kTransposeA) != 0),
        transpose_b_(in.integer(isa::contract::kTransposeB) != 0),
        threads_(context.threads),
        scratch_(context.threads, kernels::kProductScratchFloats) {}

  int64_t Units(const Frame& frame) const override {
    const Products products = Open(frame);
    return products.count * products.row_blocks * products.panels;
  }
  int64_t UnitCost(const Frame& frame) const override {
    const Products products = Open(frame);
    return products.block_rows * products.one.k * std::min(products.panel, products.one.n) / 8;
  }
  void Run(const Frame& frame, int64_t begin, int64_t end, int member) const override {
    const Products products = Open(frame);
    const int64_t bytes = SizeBytes(products.one.type);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t panel = unit % products.panels;
      const int64_t block = unit / products.panels % products.row_blocks;
      const int64_t product = unit / products.panels / products.row_blocks;
      kernels::ProductArgs args = products.one;
      const int64_t row = block * products.block_rows, column = panel * products.panel;
      args.m = std::min(products.block_rows, products.one.m - row);
      args.n = std::min(products.panel, products.one.n - column);
      int64_t a = row * args.a_row_stride, b = column * args.b_column_stride;
      int64_t y = row * args.y_stride + column;
      int64_t index = product;
      for (int d = products.axes - 1; d >= 0; --d) {
        const Axis& axis = products.leading[static_cast<size_t>(d)];
        const int64_t i = index % axis.size;
        index /= axis.size;
        a += i * axis.a;
        b += i * axis.b;
        y += i * axis.y;
      }
      args.a += a * bytes;
      args.b += b * bytes;
      args.y += y * bytes;
      kernels::Product(kernels_, args, scratch_.Of(member));
    }
  }

 private:
  struct Axis {
    int64_t size, a, b, y;  // strides in elements
  };
  // The products of a launch, each like `one`.
  struct Products {
    kernels::ProductArgs one;
    int axes = 0;
    std::array<Axis, kMaxRank> leading;
    int64_t count = 1;
    int64_t block_rows = 0, row_blocks = 0, panel = kernels::kProductColumns, panels = 0;
  };

  Products Open(const Frame& frame) const {
    const TensorView a = a_.View(frame), b = b_.View(frame), y = y_.View(frame);
    Products products;
    kernels::ProductArgs& one = products.one;
    const auto last = [](const TensorView& view, int back) {
      return static_cast<size_t>(view.rank - back);
    };
    one = {.type = y.dtype,
           .a = a.data,
           .b = b.data,
           .y = y.data,
           .m = y.dims[last(y, 2)],
           .k = a.dims[last(a, transpose_a_ ? 2 : 1)],
           .n = y.dims[last(y, 1)],
           .a_row_stride = a.strides[last(a, 2)],
           .a_step_stride = a.strides[last(a, 1)],
           .b_step_stride = b.strides[last(b, 2)],
           .b_column_stride = b.strides[last(b, 1)],
           .y_stride = y.strides[last(y, 2)]};
    if (transpose_a_) std::swap(one.a_row_stride, one.a_step_stride);
    if (transpose_b_) std::swap(one.b_step_stride, one.b_column_stride);
    // Strides of the dimensions in front, 0 where an operand is repeated.
    const auto stride = [&](const TensorView& view, int d) -> int64_t {
      const int own = d - (y.rank - view.rank);
      if (own < 0 || view.dims[static_cast<size_t>(own)] == 1) return 0;
      return view.strides[static_cast<size_t>(own)];
    };
    for (int d = 0; d + 2 < y.rank; ++d) {
      const int64_t size = y.dims[static_cast<size_t>(d)];
      products.count *= size;
      if (size == 1) continue;
      products.leading[static_cast<size_t>(products.axes++)] = {size, stride(a, d), stride(b, d),
                                                                y.strides[static_cast<size_t>(d)]};
    }
    Fold(products);
    Cut(products);
    return products;
  }

  // Products of one b whose rows follow each other are one product of more rows.
  static void Fold(Products& products) {
    kernels::ProductArgs& one = products.one;
    while (products.axes > 0) {
      const Axis& axis = products.leading[static_cast<size_t>(products.axes - 1)];
      if (axis.b != 0 || axis.a != one.m * one.a_row_stride || axis.y != one.m * one.y_stride)
        return;
      one.m *= axis.size;
      products.count /= axis.size;
      --products.axes;
    }
  }

  void Cut(Products& products) const {
    const kernels::ProductArgs& one = products.one;
    if (products.count == 0 || one.m == 0 || one.n == 0) {
      products.count = 0;
      return;
    }
    products.panels = CeilDiv(one.n, products.panel);
    const int64_t blocks = CeilDiv(UnitsWanted(threads_), products.count * products.panels);
    constexpr int64_t kLeastRows = 128;  // that make up for laying out a panel
    products.block_rows =
        std::min(one.m, std::max(kLeastRows, (CeilDiv(one.m, blocks) + 63) / 64 * 64));
    products.row_blocks = CeilDiv(one.m, products.block_rows);
  }

  const kernels::KernelSet& kernels_;
  const TensorOperand a_, b_, y_;
  const bool transpose_a_, transpose_b_;
  const int threads_;
  const ThreadScratch<float> scratch_;
};

// The spatial axes of images x and y, and the attributes that conv and pool share.
struct WindowLists {
  std::span<const int64_t> strides, pads_begin, pads_end, dilations;
};

kernels::Window WindowOf(const TensorView& x, const TensorView& y, const WindowLists& lists) {
  kernels::Window window{.rank = x.rank - 2};
  for (int d = 0; d < window.rank; ++d) {
    const auto axis = static_cast<size_t>(d);
    window.in[axis] = x.dims[axis + 2];
    window.out[axis] = y.dims[axis + 2];
    window.stride[axis] = lists.strides[axis];
    window.pad_begin[axis] = lists.pads_begin[axis];
    window.pad_end[axis] = lists.pads_end[axis];
    window.dilation[axis] = lists.dilations[axis];
  }
  return window;
}

std::span<const int64_t> ListOf(const StepContext& context, const Instruction& in, int attribute) {
  return context.program.lists[static_cast<size_t>(in.integer(attribute))];
}

// Units are (image, group, range of output places).
class ConvStep final : public Step {
 public:
  ConvStep(const StepContext& context, const Instruction& in)
      : kernels_(context.kernels),
        x_(context, in.operand(isa::conv::kX)),
        w_(context, in.operand(isa::conv::kW)),
        bias_(context, in.operand(isa::conv::kBias)),
        y_(context, in.operand(isa::conv::kY)),
        lists_{ListOf(context, in, isa::conv::kStrides), ListOf(context, in, isa::conv::kPadsBegin),
               ListOf(context, in, isa::conv::kPadsEnd),
               ListOf(context, in, isa::conv::kDilations)},
        groups_(in.integer(isa::conv::kGroups)),
        scratch_(context.threads, kernels::kConvScratchFloats) {}

  int64_t Units(const Frame& frame) const override {
    const TensorView y = y_.View(frame);
    return y.Elements() == 0 ? 0 : y.dims[0] * groups_ * Ranges(y);
  }
  int64_t UnitCost(const Frame& frame) const override {
    const TensorView w = w_.View(frame), y = y_.View(frame);
    return w.Elements() / groups_ * std::min(kernels::kConvPlaces, PlacesOf(y)) / 8;
  }
  void Run(const Frame& frame, int64_t begin, int64_t end, int member) const override {
    const TensorView x = x_.View(frame), w = w_.View(frame), y = y_.View(frame);
    kernels::ConvArgs args{.type = y.dtype,
                           .x = x.data,
                           .w = w.data,
                           .bias = bias_.present() ? bias_.View(frame).data : nullptr,
                           .y = y.data,
                           .groups = groups_,
                           .in_channels = w.dims[1],
                           .out_channels = w.dims[0] / groups_,
                           .window = WindowOf(x, y, lists_)};
    for (int d = 0; d < args.window.rank; ++d)
      args.window.kernel[static_cast<size_t>(d)] = w.dims[static_cast<size_t>(d + 2)];
    const int64_t ranges = Ranges(y), places = PlacesOf(y);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t first = unit % ranges * kernels::kConvPlaces;
      kernels::ConvolvePlaces(kernels_, args, unit / ranges / groups_, unit / ranges % groups_,
                              first, std::min(places, first + kernels::kConvPlaces),
                              scratch_.Of(member));
    }
  }

 private:
  static int64_t PlacesOf(const TensorView& y) { return ElementsOf(y, 2, y.rank); }
  static int64_t Ranges(const TensorView& y) { return CeilDiv(PlacesOf(y), kernels::kConvPlaces); }

  const kernels::KernelSet& kernels_;
  const TensorOperand x_, w_, bias_, y_;
  const WindowLists lists_;
  const int64_t groups_;
  const ThreadScratch<float> scratch_;
};

// Units are planes: a channel of an image.
class PoolStep final : public Step {
 public:
  PoolStep(const StepContext& context, const Instruction& in)
      : x_(context, in.operand(isa::pool::kX)),
        y_(context, in.operand(isa::pool::kY)),
        lists_{ListOf(context, in, isa::pool::kStrides), ListOf(context, in, isa::pool::kPadsBegin),
               ListOf(context, in, isa::pool::kPadsEnd),
               ListOf(context, in, isa::pool::kDilations)},
        kernel_(ListOf(context, in, isa::pool::kKernel)),
        kind_(static_cast<Pooling>(in.integer(isa::pool::kKind))),
        count_padding_(in.integer(isa::pool::kCountPadding) != 0) {}

  int64_t Units(const Frame& frame) const override {
    const TensorView y = y_.View(frame);
    return y.Elements() == 0 ? 0 : ElementsOf(y, 0, 2);
  }
  int64_t UnitCost(const Frame& frame) const override {
    const TensorView y = y_.View(frame);
    int64_t cost = ElementsOf(y, 2, y.rank);
    for (const int64_t size : kernel_) cost *= size;
    return cost;
  }
  void Run(const Frame& frame, int64_t begin, int64_t end, int) const override {
    const TensorView x = x_.View(frame), y = y_.View(frame);
    kernels::PoolArgs args{.type = x.dtype,
                           .kind = kind_,
                           .count_padding = count_padding_,
                           .window = WindowOf(x, y, lists_)};
    std::ranges::copy(kernel_, args.window.kernel.begin());
    const int64_t in = ElementsOf(x, 2, x.rank), out = ElementsOf(y, 2, y.rank);
    for (int64_t plane = begin; plane < end; ++plane)
      kernels::PoolPlane(args, x.data + plane * in * SizeBytes(x.dtype), plane * in,
                         y.data + plane * out * SizeBytes(y.dtype));
  }

 private:
  const TensorOperand x_, y_;
  const WindowLists lists_;
  const std::span<const int64_t> kernel_;
  const Pooling kind_;
  const bool count_padding_;
};

}  // namespace

std::unique_ptr<Step> MakeContractStep(const StepContext& context, const Instruction& in) {
  return std::make_unique<ContractStep>(context, in);
}
std::unique_ptr<Step> MakeConvStep(const StepContext& context, const Instruction& in) {
  return std::make_unique<ConvStep>(context, in);
}
std::unique_ptr<Step> MakePoolStep(const StepContext& context, const Instruction& in) {
  return std::make_unique<PoolStep>(context, in);
}

}  // namespace millpower::device::cpu
