#ifndef STUB_SCHEMA_H_
#define STUB_SCHEMA_H_
#include "tensorflow/lite/micro/micro_interpreter.h"
namespace tflite {
inline const Model* GetModel(const void* bytes) {
  static Model model;
  model.bytes = bytes;
  return &model;
}
}  // namespace tflite
#endif
