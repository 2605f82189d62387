/* How programs find the driver's functions, and how they find ours instead. Called by preload.c and the assembly of dlsym. */
#ifndef INTERPOSE_RESOLVE_H
#define INTERPOSE_RESOLVE_H

/* Where a dlsym call goes on, with its arguments as they came and, third, the address that it will return to: the C library's
 * dlsym, which ignores the third, or ours. Called by dlsym.S alone. */
void *dlsym_route(void *handle, const char *name);

/* dlsym with a real handle for a name that begins as NVML's do. Called by resolve.c alone. */
void *nvml_dlsym(void *handle, const char *name, const void *caller);

#endif
