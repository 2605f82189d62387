/*
 * What loading code will take of a device, as far as an image says so: its global variables. Called by src/interpose before the
 * driver is asked. Reads the program's memory only through the kernel where the driver would be the first to touch it, so that a
 * broken image is the driver's to refuse.
 */
#ifndef ACCOUNT_IMAGE_COST_H
#define ACCOUNT_IMAGE_COST_H

#include <stdint.h>

/* Of a cubin, a fat binary (the largest of its uncompressed cubins) or PTX; 0: small, or cannot be known. Keeps errno. */
uint64_t image_cost(const void *image);

/* The same of a file. */
uint64_t image_cost_of_file(const char *path);

#endif
