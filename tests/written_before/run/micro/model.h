#ifndef STUDENT_MODEL_H_
#define STUDENT_MODEL_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The .tflite file, aligned to 16 bytes; keep it in flash. */
extern const unsigned char student_model[];
extern const size_t student_model_size;

/* Bytes of the tensor arena, measured and with a margin: see README.md. */
#define STUDENT_ARENA_BYTES 2032

/* real = SCALE * (stored - ZERO_POINT) */
/* input 0: input_layer, 1 x 64 */
#define STUDENT_INPUT_0_SIZE 64
#define STUDENT_INPUT_0_SCALE 0.003921568859368563f
#define STUDENT_INPUT_0_ZERO_POINT (-128)

/* output 0: logits, 1 x 10 */
#define STUDENT_OUTPUT_0_SIZE 10
#define STUDENT_OUTPUT_0_SCALE 0.08277112245559692f
#define STUDENT_OUTPUT_0_ZERO_POINT (19)

#ifdef __cplusplus
}
#endif

#endif  /* STUDENT_MODEL_H_ */
