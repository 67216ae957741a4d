#include "conv2d.h"

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct Conv2d {
  typedef Conv2dParams Params;
  static constexpr const char* kName = "conv2d";
  static constexpr const char* kInputs[] = {"data", "weight", "bias"};
  static constexpr int kRequired = 2;
  static constexpr const char* kOutputs[] = {"out"};

  static void parse(ParamReader* reader, Params* params) {
    reader->integer("channels", &params->channels, 1, 1 << 20);
    reader->integer("kernel_size", &params->kernel_size, 1, 1 << 10);
    reader->integer("padding", &params->padding, 0, params->kernel_size - 1);
  }

  static void infer_dtype(const Params&, DType* in, DType* out, Error* error) {
    expect_same_float(in, kInputs, given(in[2]) ? 3 : 2, kName, error);
    out[0] = in[0];
  }

  static void infer_shape(const Params& params, Shape* in, Shape* out, Error* error) {
    if (in[0].ndim != 4) {
      fail(error, "%s: data must have 4 axes, got shape %s", kName, ShapeText(in[0]).text);
      return;
    }
    const Conv2dSizes size = conv2d_sizes(params, in[0]);
    if ((size.height >= 0 && size.out_height() < 1) || (size.width >= 0 && size.out_width() < 1)) {
      fail(error, "%s: data must be at least %lld high and wide, got shape %s", kName,
           static_cast<long long>(size.kernel - 2 * size.padding), ShapeText(in[0]).text);
      return;
    }
    expect_shape(&in[1], {4, {size.channels, size.in_channels, size.kernel, size.kernel}}, kName,
                 kInputs[1], error);
    if (given(in[2])) expect_shape(&in[2], {1, {size.channels}}, kName, kInputs[2], error);
    out[0] = {4, {size.batch, size.channels, size.out_height(), size.out_width()}};
  }

  static int64_t workspace(const Params& params, const Tensor* in, bool backward) {
    const Conv2dSizes size = conv2d_sizes(params, in[0].shape);
    return in[0].dtype == DType::kFloat64 ? conv2d_workspace<double>(size, backward)
                                          : conv2d_workspace<float>(size, backward);
  }

  template <class T>
  static void forward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor* in = call.inputs;
    conv2d_forward(conv2d_sizes(params, in[0].shape), data<T>(in[0]), data<T>(in[1]),
                   data<T>(in[2]), data<T>(call.outputs[0]), resources.workspace);
  }

  template <class T>
  static void backward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor *in = call.inputs, *grad = call.grad_inputs;
    conv2d_backward<T>(conv2d_sizes(params, in[0].shape),
                       {data<T>(call.grad_outputs[0]), data<T>(in[0]), data<T>(in[1]),
                        data<T>(grad[0]), data<T>(grad[1]), data<T>(grad[2])},
                       resources.workspace);
  }
};

D2L_REGISTER_OP(Conv2d);

}  // namespace D2L_ISA
}  // namespace d2l
