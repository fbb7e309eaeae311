#ifndef STUDENT_OP_RESOLVER_H_
#define STUDENT_OP_RESOLVER_H_

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

using StudentOpResolver = tflite::MicroMutableOpResolver<1>;

// Registers the operations of the model, and no other.
inline TfLiteStatus RegisterStudentOps(StudentOpResolver& resolver) {
  if (resolver.AddFullyConnected() != kTfLiteOk) return kTfLiteError;
  return kTfLiteOk;
}

#endif  // STUDENT_OP_RESOLVER_H_
