#ifndef STUDENT_GOLDEN_H_
#define STUDENT_GOLDEN_H_

#include <stdint.h>

#define STUDENT_GOLDEN_COUNT 4

#ifdef __cplusplus
extern "C" {
#endif

/* Samples as the model takes them, and what it must make of them. */
extern const int8_t student_golden_input_0[4][64];
extern const int8_t student_golden_output_0[4][10];

#ifdef __cplusplus
}
#endif

#endif  /* STUDENT_GOLDEN_H_ */
