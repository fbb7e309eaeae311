#ifndef STUB_LOG_H_
#define STUB_LOG_H_
void MicroPrintf(const char* format, ...);
#endif
