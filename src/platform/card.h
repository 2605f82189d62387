/*
 * Whether this machine has a GPU that CUDA could use, looked for without touching it: device nodes are seen with stat and never
 * opened, because opening one wakes the driver. Some tens of microseconds. No heap; safe in a constructor.
 */
#ifndef PLATFORM_CARD_H
#define PLATFORM_CARD_H

#include <stdbool.h>

bool card_is_present(void);

/* What card_is_present looked for, for the line that says there is none. */
#define CARD_LOOKED_FOR "/dev/nvidia0 to /dev/nvidia63, /dev/dxg, /dev/nvhost-gpu, a PCI display device of NVIDIA's"

#endif
