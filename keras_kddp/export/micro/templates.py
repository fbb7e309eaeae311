"""The texts of a microcontroller bundle, with gaps."""

MODEL_HEADER = """
#ifndef ${NAME}_MODEL_H_
#define ${NAME}_MODEL_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The .tflite file, aligned to 16 bytes; keep it in flash. */
extern const unsigned char ${name}_model[];
extern const size_t ${name}_model_size;

/* Bytes of the tensor arena, measured and with a margin: see README.md. */
#define ${NAME}_ARENA_BYTES $arena

/* real = SCALE * (stored - ZERO_POINT) */$ends

#ifdef __cplusplus
}
#endif

#endif  /* ${NAME}_MODEL_H_ */
"""

MODEL_SOURCE = """
#include "model.h"

extern "C" {

alignas(16) const unsigned char ${name}_model[] = {
$bytes
};

const size_t ${name}_model_size = $size;

}  // extern "C"
"""

RESOLVER = """
#ifndef ${NAME}_OP_RESOLVER_H_
#define ${NAME}_OP_RESOLVER_H_

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

using ${Name}OpResolver = tflite::MicroMutableOpResolver<$operations>;

// Registers the operations of the model, and no other.
inline TfLiteStatus Register${Name}Ops(${Name}OpResolver& resolver) {
$calls
  return kTfLiteOk;
}

#endif  // ${NAME}_OP_RESOLVER_H_
"""

GOLDEN_HEADER = """
#ifndef ${NAME}_GOLDEN_H_
#define ${NAME}_GOLDEN_H_

#include <stdint.h>

#define ${NAME}_GOLDEN_COUNT $count

#ifdef __cplusplus
extern "C" {
#endif

/* Samples as the model takes them, and what it must make of them. */
$arrays

#ifdef __cplusplus
}
#endif

#endif  /* ${NAME}_GOLDEN_H_ */
"""

GOLDEN_SOURCE = """
#include "golden.h"

extern "C" {

$arrays

}  // extern "C"
"""

MAIN = """
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

alignas(16) unsigned char arena[${NAME}_ARENA_BYTES];

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
  static ${Name}OpResolver resolver;
  if (Register${Name}Ops(resolver) != kTfLiteOk) return 1;
  static tflite::MicroInterpreter interpreter(
      tflite::GetModel(${name}_model), resolver, arena, sizeof(arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) return 2;
  int wrong = 0;
  for (int sample = 0; sample < ${NAME}_GOLDEN_COUNT; ++sample) {
$main_body
  }
  MicroPrintf("%s: %d samples, %d values differ, arena %d bytes",
              wrong == 0 ? "PASS" : "FAIL", ${NAME}_GOLDEN_COUNT, wrong,
              static_cast<int>(interpreter.arena_used_bytes()));
  return wrong == 0 ? 0 : 4;
}
"""

README = """\
# `{name}` for TensorFlow Lite for Microcontrollers

| | |
|---|---|
| flash for the model | {bytes:,} bytes ({quantization}) |
| tensor arena | {arena:,} bytes (`{NAME}_ARENA_BYTES`); {measured:,} measured |
| operations | {operations} |

| | name | type | shape | scale | zero point |
|---|---|---|---|---|---|
{ends}

`real = scale * (stored - zero point)`; shapes have a batch of 1, channels last.

## Build

1. Take TensorFlow Lite for Microcontrollers (tflite-micro) as your vendor or
   its `create_tflm_tree.py` delivers it.
2. Compile `model.cc`, `golden.cc` and `main.cc` with it, as C++17.
3. Flash, run, and look for `PASS` in the debug log: every output of {count}
   golden samples is what TFLM gave when this folder was made, within one step
   of int8, four of int16, 0.0001 of a float's size. `main` returns 0 then; 1 to
   3 say which step failed, 4 that values differ.

In your firmware, keep `model.cc` and `op_resolver.h` and leave `golden.*` and
`main.cc` out.

## The arena

It is the smallest that the model loaded and ran in, with TFLM's reference
kernels on a 64-bit machine, where pointers take twice the room of a 32-bit
chip's, and a tenth more. Optimized kernels (CMSIS-NN, Ethos-U, Xtensa) may want
scratch buffers beside; the self-test prints what was used on your chip.
"""
