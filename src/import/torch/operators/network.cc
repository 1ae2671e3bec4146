// Products, normalisations, convolutions, attention.
#include <algorithm>
#include <limits>
#include <numeric>

#include "import/torch/call.h"

namespace millpower::import::torch {
namespace {

// ---- products ----

Result<Tensors> Linear(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("input"));
  TRY_ASSIGN(const Tensor weight, call.TensorAt("weight"));
  TRY_ASSIGN(const Tensor bias, call.OptionalTensor("bias"));
  if (call.b.rank(weight) != 2) return NotSupported("a weight that is no matrix");
  return One(call.b.Linear(x, weight, bias));
}

template <int which>
constexpr const char* kSecond = which == 0   ? "mat2"
                                : which == 1 ? "other"
                                             : "vec";
template <int which>
Result<Tensors> MatMul(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const Tensor other, call.TensorAt(kSecond<which>));
  return One(call.b.MatMul(x, other));
}
Result<Tensors> Dot(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const Tensor other, call.TensorAt("tensor"));
  return One(call.b.MatMul(x, other));
}
Result<Tensors> Outer(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const Tensor other, call.TensorAt("vec2"));
  TRY_ASSIGN(const Tensor column, call.b.Unsqueeze(x, call.b.rank(x)));
  return One(call.b.Binary(MapOp::kMul, column, other));
}

// beta * self + alpha * (a b)
Result<Tensors> AddProduct(Call& call, std::string_view first, std::string_view second) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const double beta, call.Real("beta", 1));
  TRY_ASSIGN(const double alpha, call.Real("alpha", 1));
  TRY_ASSIGN(Tensor self, call.TensorAt("self"));
  TRY_ASSIGN(const Tensor left, call.TensorAt(first));
  TRY_ASSIGN(const Tensor right, call.TensorAt(second));
  TRY_ASSIGN(Tensor product, b.MatMul(left, right));
  if (alpha != 1) {
    TRY_ASSIGN(product, b.Binary(MapOp::kMul, product, alpha));
  }
  if (beta == 0) return Tensors{product};
  if (beta != 1) {
    TRY_ASSIGN(self, b.Binary(MapOp::kMul, self, beta));
  }
  return One(b.Binary(MapOp::kAdd, product, self));
}
Result<Tensors> AddMm(Call& call) { return AddProduct(call, "mat1", "mat2"); }
Result<Tensors> AddMv(Call& call) { return AddProduct(call, "mat", "vec"); }
Result<Tensors> BatchAddMm(Call& call) { return AddProduct(call, "batch1", "batch2"); }

Result<Tensors> Einsum(Call& call) {
  TRY_ASSIGN(const std::string equation, call.Text("equation"));
  TRY_ASSIGN(const Tensors operands, call.Tensors("tensors"));
  return One(call.b.Einsum(equation, operands));
}

// y[.., k] = sum over i, j of x1[.., i] W[k, i, j] x2[.., j] + bias
Result<Tensors> Bilinear(Call& call) {
  TensorBuilder& b = call.b;
  Tensor operands[3];
  TRY_ASSIGN(operands[0], call.TensorAt("input1"));
  TRY_ASSIGN(operands[1], call.TensorAt("weight"));
  TRY_ASSIGN(operands[2], call.TensorAt("input2"));
  TRY_ASSIGN(const Tensor bias, call.OptionalTensor("bias"));
  TRY_ASSIGN(const Tensor y, b.Einsum("...i,kij,...j->...k", operands));
  if (!bias.present()) return Tensors{y};
  return One(b.Binary(MapOp::kAdd, y, bias));
}

// i1 i2 i3, each with axes of 1 put in where expand1, expand2, expand3 say, summed over sumdim:
// what bilinear is decomposed into.
Result<Tensors> Trilinear(Call& call) {
  TensorBuilder& b = call.b;
  Tensor product;
  for (const auto& [name, axes] :
       {std::pair("i1", "expand1"), std::pair("i2", "expand2"), std::pair("i3", "expand3")}) {
    TRY_ASSIGN(Tensor factor, call.TensorAt(name));
    TRY_ASSIGN(std::vector<int64_t> places, call.Integers(axes));
    std::ranges::sort(places);
    for (const int64_t place : places) {
      if (place < 0 || place > b.rank(factor)) return NotSupported("axes that are not in order");
      TRY_ASSIGN(factor, b.Unsqueeze(factor, static_cast<int>(place)));
    }
    if (!product.present()) {
      product = factor;
      continue;
    }
    TRY_ASSIGN(product, b.Binary(MapOp::kMul, product, factor));
  }
  TRY_ASSIGN(const std::vector<int> sums, call.Axes("sumdim", b.rank(product)));
  if (sums.empty()) return Tensors{product};
  return One(b.Reduce(Reduction::kSum, product, sums, false));
}

// The first half of an axis times the sigmoid of the second.
Result<Tensors> Glu(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const int axis, call.Axis("dim", b.rank(x), -1));
  const auto half = b.dim(x, axis).DividedBy(2);
  if (!half) return NotSupported("an axis that is not even");
  TRY_ASSIGN(const Tensors parts, b.Split(x, axis, {*half, *half}));
  TRY_ASSIGN(const Tensor gate, b.Unary(MapOp::kSigmoid, parts[1]));
  return One(b.Binary(MapOp::kMul, parts[0], gate));
}

// ---- normalisation ----

Result<Tensors> BatchNorm(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("input"));
  TRY_ASSIGN(const Tensor scale, call.OptionalTensor("weight"));
  TRY_ASSIGN(const Tensor bias, call.OptionalTensor("bias"));
  TRY_ASSIGN(const Tensor mean, call.OptionalTensor("running_mean"));
  TRY_ASSIGN(const Tensor variance, call.OptionalTensor("running_var"));
  TRY_ASSIGN(const bool training, call.Flag("training", false));
  TRY_ASSIGN(const double epsilon, call.Real("eps"));
  if (training || !mean.present() || !variance.present())
    return NotSupported("statistics of the batch; export the model after eval()");
  return One(call.b.BatchNorm(x, scale, bias, mean, variance, epsilon));
}

// Normalised by each channel's own mean and variance over everything else: what instance_norm is
// decomposed into, examples' channels being channels of one example.
Result<Tensors> BatchNormByInput(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("input"));
  TRY_ASSIGN(const Tensor scale, call.OptionalTensor("weight"));
  TRY_ASSIGN(const Tensor bias, call.OptionalTensor("bias"));
  TRY_ASSIGN(const double epsilon, call.Real("eps"));
  if (b.rank(x) < 2) return Invalid("has no channels");
  // One example makes this a function of each example alone; several would mix what a batch holds.
  if (b.dim(x, 0) != Size(1))
    return NotSupported("statistics of the batch; export the model after eval()");
  std::vector<int> axes;
  for (int axis = 0; axis < b.rank(x); ++axis)
    if (axis != 1) axes.push_back(axis);
  TRY_ASSIGN(const Tensor mean, b.Reduce(Reduction::kMean, x, axes, true));
  TRY_ASSIGN(const Tensor distance, b.Binary(MapOp::kSub, x, mean));
  TRY_ASSIGN(const Tensor square, b.Binary(MapOp::kMul, distance, distance));
  TRY_ASSIGN(const Tensor variance, b.Reduce(Reduction::kMean, square, axes, true));
  TRY_ASSIGN(const Tensor shifted, b.Binary(MapOp::kAdd, variance, epsilon));
  TRY_ASSIGN(const Tensor deviation, b.Unary(MapOp::kSqrt, shifted));
  TRY_ASSIGN(Tensor y, b.Binary(MapOp::kDiv, distance, deviation));
  ir::Shape by_channel(b.shape(x).size(), ir::Constant(1));
  by_channel[1] = b.shape(x)[1];
  for (const auto& [operand, op] : {std::pair(scale, MapOp::kMul), std::pair(bias, MapOp::kAdd)}) {
    if (!operand.present()) continue;
    TRY_ASSIGN(const Tensor typed, b.Reshape(operand, by_channel));
    TRY_ASSIGN(y, b.Binary(op, y, typed));
  }
  return Tensors{y};
}

Result<Tensors> LayerNorm(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("input"));
  TRY_ASSIGN(const ir::Shape inner, call.ShapeAt("normalized_shape"));
  TRY_ASSIGN(const Tensor scale, call.OptionalTensor("weight"));
  TRY_ASSIGN(const Tensor bias, call.OptionalTensor("bias"));
  TRY_ASSIGN(const double epsilon, call.Real("eps", 1e-5));
  const int first = call.b.rank(x) - static_cast<int>(inner.size());
  if (first < 0 || inner.empty()) return Invalid("normalized_shape does not fit");
  return One(call.b.LayerNorm(x, first, scale, bias, epsilon));
}

// The smallest step of a float type at 1, torch.finfo(dtype).eps.
double StepAtOne(DType type) {
  if (type == DType::kF64) return std::numeric_limits<double>::epsilon();
  if (type == DType::kF16) return 0x1p-10;
  if (type == DType::kBf16) return 0x1p-7;
  return std::numeric_limits<float>::epsilon();
}

Result<Tensors> RmsNorm(Call& call) {  // x / sqrt(mean(x^2) + eps) * weight
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("input"));
  TRY_ASSIGN(const ir::Shape inner, call.ShapeAt("normalized_shape"));
  TRY_ASSIGN(const Tensor scale, call.OptionalTensor("weight"));
  TRY_ASSIGN(const double epsilon, call.Real("eps", StepAtOne(b.dtype(x))));
  std::vector<int> axes(inner.size());
  std::iota(axes.begin(), axes.end(), b.rank(x) - static_cast<int>(inner.size()));
  if (axes.empty()) return Invalid("normalized_shape is empty");
  TRY_ASSIGN(const Tensor square, b.Binary(MapOp::kMul, x, x));
  TRY_ASSIGN(const Tensor mean, b.Reduce(Reduction::kMean, square, axes, true));
  TRY_ASSIGN(const Tensor shifted, b.Binary(MapOp::kAdd, mean, epsilon));
  TRY_ASSIGN(const Tensor root, b.Unary(MapOp::kSqrt, shifted));
  TRY_ASSIGN(const Tensor factor, b.Unary(MapOp::kReciprocal, root));
  TRY_ASSIGN(Tensor y, b.Binary(MapOp::kMul, x, factor));
  if (scale.present()) {
    TRY_ASSIGN(y, b.Binary(MapOp::kMul, y, scale));
  }
  return Tensors{y};
}

// x with its channels (axis 1) in groups, each group of an example normalised by itself.
Result<Tensors> NormaliseGroups(Call& call, const Size& groups, double epsilon) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("input"));
  TRY_ASSIGN(const Tensor scale, call.OptionalTensor("weight"));
  TRY_ASSIGN(const Tensor bias, call.OptionalTensor("bias"));
  const ir::Shape shape = b.shape(x);
  if (shape.size() < 2) return Invalid("has no channels");
  const Size sizes[] = {b.dim(x, 0), groups, Size(-1)};
  TRY_ASSIGN(Tensor y, b.Reshape(x, sizes));
  TRY_ASSIGN(y, b.LayerNorm(y, 2, {}, {}, epsilon));
  TRY_ASSIGN(y, b.Reshape(y, shape));
  ir::Shape by_channel(shape.size(), ir::Constant(1));
  by_channel[1] = shape[1];
  if (scale.present()) {
    TRY_ASSIGN(const Tensor factor, b.Reshape(scale, by_channel));
    TRY_ASSIGN(y, b.Binary(MapOp::kMul, y, factor));
  }
  if (bias.present()) {
    TRY_ASSIGN(const Tensor shift, b.Reshape(bias, by_channel));
    TRY_ASSIGN(y, b.Binary(MapOp::kAdd, y, shift));
  }
  return Tensors{y};
}
Result<Tensors> GroupNorm(Call& call) {
  TRY_ASSIGN(const Size groups, call.SizeAt(call.Has("num_groups") ? "num_groups" : "group"));
  TRY_ASSIGN(const double epsilon, call.Real("eps", 1e-5));
  return NormaliseGroups(call, groups, epsilon);
}
Result<Tensors> InstanceNorm(Call& call) {
  TRY_ASSIGN(const bool by_example, call.Flag("use_input_stats"));
  if (!by_example) return BatchNorm(call);
  TRY_ASSIGN(const Tensor x, call.TensorAt("input"));
  TRY_ASSIGN(const double epsilon, call.Real("eps", 1e-5));
  if (call.b.rank(x) < 2) return Invalid("has no channels");
  return NormaliseGroups(call, call.b.dim(x, 1), epsilon);
}

// ---- convolutions ----

Result<std::vector<int64_t>> PerAxis(Call& call, std::string_view name, size_t axes,
                                     int64_t fallback) {
  TRY_ASSIGN(std::vector<int64_t> values, call.Integers(name, std::vector{fallback}));
  if (values.size() == 1) values.assign(axes, values[0]);
  if (values.size() == axes) return values;
  return Invalid("'" + std::string(name) + "' does not have the spatial dimensions");
}

// Padding "same" puts the odd element behind; "valid" is none.
Result<void> PadByName(Call& call, TensorBuilder::Window& window,
                       const std::vector<int64_t>& kernel) {
  TRY_ASSIGN(const std::string padding, call.Text("padding"));
  if (padding == "valid") return {};
  if (padding != "same") return NotSupported("padding '" + padding + "'");
  for (size_t i = 0; i < kernel.size(); ++i) {
    const int64_t total = window.dilations[i] * (kernel[i] - 1);
    window.pads_begin[i] = total / 2;
    window.pads_end[i] = total - total / 2;
  }
  return {};
}

Result<std::vector<int64_t>> KernelOf(TensorBuilder& b, Tensor w) {
  std::vector<int64_t> kernel;
  for (int axis = 2; axis < b.rank(w); ++axis) {
    const auto size = b.dim(w, axis).Constant();
    if (!size) return NotSupported("a kernel that is not constant");
    kernel.push_back(*size);
  }
  if (kernel.empty()) return Invalid("the weight has no spatial dimension");
  return kernel;
}

Result<Tensors> ConvolveAs(Call& call, bool transposed, bool named_padding) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(Tensor x, call.TensorAt("input"));
  TRY_ASSIGN(const Tensor w, call.TensorAt("weight"));
  TRY_ASSIGN(const Tensor bias, call.OptionalTensor("bias"));
  TRY_ASSIGN(const std::vector<int64_t> kernel, KernelOf(b, w));
  TRY_ASSIGN(const int64_t groups, call.Integer("groups", 1));
  const size_t axes = kernel.size();
  TensorBuilder::Window window;
  window.kernel = kernel;
  TRY_ASSIGN(window.strides, PerAxis(call, "stride", axes, 1));
  TRY_ASSIGN(window.dilations, PerAxis(call, "dilation", axes, 1));
  window.pads_begin.assign(axes, 0);
  if (!named_padding) {
    TRY_ASSIGN(window.pads_begin, PerAxis(call, "padding", axes, 0));
  }
  window.pads_end = window.pads_begin;
  for (const int64_t value : window.pads_begin)
    if (value < 0 || value > (1 << 20)) return Invalid("padding is negative or too large");
  for (size_t i = 0; i < axes; ++i)
    if (window.strides[i] < 1 || window.dilations[i] < 1 || window.strides[i] > (1 << 20) ||
        window.dilations[i] > (1 << 20) || kernel[i] > (1 << 20))
      return Invalid("a stride, dilation or kernel is not positive or too large");
  if (named_padding) TRY(PadByName(call, window, kernel));
  const bool is_single = static_cast<size_t>(b.rank(x)) == axes + 1;  // without a batch
  if (is_single) {
    TRY_ASSIGN(x, b.Unsqueeze(x, 0));
  }
  if (static_cast<size_t>(b.rank(x)) != axes + 2) return Invalid("input and weight differ in rank");
  Tensor y;
  if (transposed) {
    TRY_ASSIGN(const std::vector<int64_t> extra, PerAxis(call, "output_padding", axes, 0));
    TRY_ASSIGN(y, b.ConvTranspose(x, w, bias, window, groups, extra));
  } else {
    TRY_ASSIGN(y, b.Conv(x, w, bias, window, groups));
  }
  return is_single ? One(b.Squeeze(y, {0})) : Result<Tensors>(Tensors{y});
}
Result<Tensors> Conv(Call& call) { return ConvolveAs(call, false, false); }
Result<Tensors> ConvNamed(Call& call) { return ConvolveAs(call, false, true); }
Result<Tensors> ConvTranspose(Call& call) { return ConvolveAs(call, true, false); }
Result<Tensors> Convolution(Call& call) {
  TRY_ASSIGN(const bool transposed, call.Flag("transposed"));
  return ConvolveAs(call, transposed, false);
}

// ---- attention ----

// Heads of k and v repeated so that there are as many as of q.
Result<Tensor> RepeatHeads(TensorBuilder& b, Tensor x, Tensor q) {
  const auto have = b.dim(x, -3).Constant(), need = b.dim(q, -3).Constant();
  if (!have || !need || *have < 1 || *need % *have != 0)
    return NotSupported("these groups of heads");
  const int axis = b.rank(x) - 3;
  TRY_ASSIGN(x, b.Unsqueeze(x, axis + 1));
  ir::Shape shape = b.shape(x);
  shape[static_cast<size_t>(axis) + 1] = ir::Constant(*need / *have);
  TRY_ASSIGN(x, b.Expand(x, shape));
  return b.Flatten(x, axis, axis + 2);
}

Result<Tensors> Attention(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor q, call.TensorAt("query"));
  TRY_ASSIGN(Tensor k, call.TensorAt("key"));
  TRY_ASSIGN(Tensor v, call.TensorAt("value"));
  const char* mask_name = call.Has("attn_bias") ? "attn_bias" : "attn_mask";
  TRY_ASSIGN(const Tensor mask, call.OptionalTensor(mask_name));
  TRY_ASSIGN(const double dropout, call.Real("dropout_p", 0));
  TRY_ASSIGN(const bool causal, call.Flag("is_causal", false));
  TRY_ASSIGN(const bool groups, call.Flag("enable_gqa", false));
  if (dropout != 0) return NotSupported("dropout; export the model after eval()");
  std::optional<double> scale;
  if (call.Has("scale")) {
    TRY_ASSIGN(scale, call.Real("scale"));
  }
  if (groups && b.rank(q) >= 3) {
    TRY_ASSIGN(k, RepeatHeads(b, k, q));
    TRY_ASSIGN(v, RepeatHeads(b, v, q));
  }
  return One(b.ScaledDotProductAttention(q, k, v, mask, causal, scale));
}

constexpr Operator kOperators[] = {
    {"_fused_rms_norm", "default", RmsNorm},
    {"_native_batch_norm_legit", "no_stats", BatchNormByInput},
    {"_native_batch_norm_legit_no_training", "default", BatchNorm},
    {"_scaled_dot_product_efficient_attention", "default", Attention},
    {"_scaled_dot_product_flash_attention_for_cpu", "default", Attention},
    {"_trilinear", "default", Trilinear},
    {"addmm", "default", AddMm},
    {"addmv", "default", AddMv},
    {"baddbmm", "default", BatchAddMm},
    {"batch_norm", "default", BatchNorm},
    {"bilinear", "default", Bilinear},
    {"bmm", "default", MatMul<0>},
    {"conv1d", "default", Conv},
    {"conv1d", "padding", ConvNamed},
    {"conv2d", "default", Conv},
    {"conv2d", "padding", ConvNamed},
    {"conv3d", "default", Conv},
    {"conv3d", "padding", ConvNamed},
    {"conv_transpose1d", "default", ConvTranspose},
    {"conv_transpose2d", "input", ConvTranspose},
    {"conv_transpose3d", "input", ConvTranspose},
    {"convolution", "default", Convolution},
    {"dot", "default", Dot},
    {"einsum", "default", Einsum},
    {"ger", "default", Outer},
    {"glu", "default", Glu},
    {"group_norm", "default", GroupNorm},
    {"instance_norm", "default", InstanceNorm},
    {"layer_norm", "default", LayerNorm},
    {"linear", "default", Linear},
    {"matmul", "default", MatMul<1>},
    {"mm", "default", MatMul<0>},
    {"mv", "default", MatMul<2>},
    {"native_batch_norm", "default", BatchNorm},
    {"native_group_norm", "default", GroupNorm},
    {"native_layer_norm", "default", LayerNorm},
    {"outer", "default", Outer},
    {"rms_norm", "default", RmsNorm},
    {"scaled_dot_product_attention", "default", Attention},
    {"vdot", "default", Dot},
};

}  // namespace

std::span<const Operator> NetworkOperators() { return kOperators; }

}  // namespace millpower::import::torch
