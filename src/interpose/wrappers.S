/*
 * What stands for each function of hooks.def, as its distance from the place in this table: a table of addresses, which C would
 * make, is pages for the loader to change in every process that the preload comes into. Read by resolve.c.
 */
    .section .rodata, "a", %progbits
    .globl wrapper_distances
    .hidden wrapper_distances
    .type wrapper_distances, %object
    .p2align 2
wrapper_distances:
#define WRAP(symbol, class, parameters) .4byte symbol - .
#define PASS(symbol, class, parameters) .4byte symbol - .
#define SAFE(symbol, class, parameters) .4byte symbol - .
#define BARE(symbol, class) .4byte symbol - .
#include "interpose/hooks.def"
    .size wrapper_distances, . - wrapper_distances
    .section .note.GNU-stack, "", %progbits
