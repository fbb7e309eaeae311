// Self-test: runs the golden samples and compares every output value.
// Prints PASS and returns 0 where each is within one step of int8, or four of
// the finer int16.

#include <string.h>

#include "golden.h"
#include "model.h"
#include "op_resolver.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

alignas(16) unsigned char arena[STUDENT_ARENA_BYTES];

template <typename T>
int differs(const T* found, const T* wanted, int size, double absolute,
            double relative) {
  int wrong = 0;
  for (int i = 0; i < size; ++i) {
    const double value = static_cast<double>(wanted[i]);
    const double gap = static_cast<double>(found[i]) - value;
    const double allowed = absolute + relative * (value < 0 ? -value : value);
    if (!(gap <= allowed && gap >= -allowed)) ++wrong;  // NaN is wrong too
  }
  return wrong;
}

}  // namespace

int main() {
  static StudentOpResolver resolver;
  if (RegisterStudentOps(resolver) != kTfLiteOk) return 1;
  static tflite::MicroInterpreter interpreter(
      tflite::GetModel(student_model), resolver, arena, sizeof(arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) return 2;
  int wrong = 0;
  for (int sample = 0; sample < STUDENT_GOLDEN_COUNT; ++sample) {
    memcpy(interpreter.input(0)->data.raw, student_golden_input_0[sample],
           STUDENT_INPUT_0_SIZE * sizeof(int8_t));
    if (interpreter.Invoke() != kTfLiteOk) return 3;
    wrong += differs(
        reinterpret_cast<const int8_t*>(interpreter.output(0)->data.raw),
        student_golden_output_0[sample], STUDENT_OUTPUT_0_SIZE,
        1.0, 0.0);
  }
  MicroPrintf("%s: %d samples, %d values differ, arena %d bytes",
              wrong == 0 ? "PASS" : "FAIL", STUDENT_GOLDEN_COUNT, wrong,
              static_cast<int>(interpreter.arena_used_bytes()));
  return wrong == 0 ? 0 : 4;
}
