/*
 * What the programs share that go the ways frameworks go to device memory (way_*.c): finding the driver, looking at what is
 * charged meanwhile, and checking that memory is real. tests/clients/ways and ways_mapped start them and judge what they print: one line a
 * step, and at each way_look what the command in WAY_LOOK says.
 */
#ifndef TESTS_CLIENTS_WAY_H
#define TESTS_CLIENTS_WAY_H

#include "cuda/cuda_abi.h"

#define MIB (1ULL << 20)

/* How this program's framework finds the driver's functions: by its exported name, or by the name and version that
 * cuGetProcAddress knows. */
struct way_driver {
    CUresult (*init)(unsigned);
    CUresult (*retain)(CUcontext *, CUdevice);
    CUresult (*set_current)(CUcontext);
    CUresult (*get_info)(size_t *, size_t *);
    CUresult (*set_bytes)(CUdeviceptr, unsigned char, size_t);
    CUresult (*copy_back)(void *, CUdeviceptr, size_t);
};
extern struct way_driver way;

/* Opens libcuda.so.1, and starts it: cuInit, the primary context of device 0 current. */
void way_start(void);

/* The driver's function of an exported name; ends the program where there is none. */
void *way_find(const char *exported);

/* Ends the program with a line where the result is another than the wanted one. */
void way_expect(CUresult wanted, CUresult result, const char *what);
#define way_must(call) way_expect(CUDA_SUCCESS, call, #call)

/* Prints the step and runs WAY_LOOK, without the preload. */
void way_look(const char *step);

/* Writes a byte to all of it and reads its ends back. */
void way_use(CUdeviceptr pointer, size_t bytes, unsigned char byte);

/* Only reads the ends back. */
void way_recall(CUdeviceptr pointer, size_t bytes, unsigned char byte);

#endif
