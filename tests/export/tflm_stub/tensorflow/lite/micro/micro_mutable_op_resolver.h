// What the bundle uses of TensorFlow Lite for Microcontrollers, to compile it.
#ifndef STUB_OP_RESOLVER_H_
#define STUB_OP_RESOLVER_H_
#include <stddef.h>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
namespace tflite {
template <unsigned int n>
struct MicroMutableOpResolver {
  unsigned int count = 0;
  TfLiteStatus add() { return ++count <= n ? kTfLiteOk : kTfLiteError; }
  TfLiteStatus AddAveragePool2D() { return add(); }
  TfLiteStatus AddConv2D() { return add(); }
  TfLiteStatus AddDepthwiseConv2D() { return add(); }
  TfLiteStatus AddFullyConnected() { return add(); }
  TfLiteStatus AddMaxPool2D() { return add(); }
  TfLiteStatus AddQuantize() { return add(); }
  TfLiteStatus AddReshape() { return add(); }
};
}  // namespace tflite
#endif
