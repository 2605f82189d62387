/*
 * Thunks: entry points that pass the gate without a mark. While it is open one jumps to the real function with every argument
 * and the stack as they came; closed, or at its first call, it has thunk_arrive (thunk.c) wait and say where to go.
 *
 * Those with a name are exported, one for each SAFE and BARE row of hooks.def and in its order; THUNK_POOL more without a name
 * stand for what is met at run time. thunk_targets[i] is where the i-th goes, 0 until it may go there directly. No more than
 * the registers that a call may change anyway is written: r11; x16, x17.
 */
#include "interpose/thunk.h"

    .text
    .set thunk_number, 0

#if defined(__x86_64__)

    .macro thunk
    endbr64
    cmpl $0, gate_shut(%rip)
    jne 1f
    movq thunk_targets + 8 * thunk_number(%rip), %r11
    testq %r11, %r11
    je 1f
    jmp *%r11
1:  movl $thunk_number, %r11d
    jmp thunk_slowly
    .set thunk_number, thunk_number + 1
    .endm
#define FUNCTION @function

#elif defined(__aarch64__)

    .macro thunk
    hint #34                  /* bti c */
    adrp x16, gate_shut
    ldr w16, [x16, #:lo12:gate_shut]
    cbnz w16, 1f
    adrp x16, thunk_targets + 8 * thunk_number
    ldr x16, [x16, #:lo12:thunk_targets + 8 * thunk_number]
    cbz x16, 1f
    br x16
1:  mov w17, #thunk_number
    b thunk_slowly
    .set thunk_number, thunk_number + 1
    .endm
#define FUNCTION %function

#else
#error "thunks are written for x86-64 and aarch64"
#endif

    .macro named symbol
    .globl \symbol
    .type \symbol, FUNCTION
    .p2align 4
\symbol:
    .cfi_startproc
    thunk
    .cfi_endproc
    .size \symbol, . - \symbol
    .endm

#define SAFE(symbol, class, parameters) named symbol
#define BARE(symbol, class) named symbol
#include "interpose/hooks.def"

    .p2align THUNK_SHIFT
    .globl thunk_pool
    .hidden thunk_pool
    .type thunk_pool, FUNCTION
thunk_pool:
    .rept THUNK_POOL
    .p2align THUNK_SHIFT
    .cfi_startproc
    thunk
    .cfi_endproc
    .endr
    .size thunk_pool, . - thunk_pool

    .type thunk_slowly, FUNCTION
    .p2align 4
thunk_slowly:
    .cfi_startproc
#if defined(__x86_64__)
    /* Every register that can carry an argument; rax counts those in vector registers, r10 is a nested function's. On entry the
     * stack is 8 off alignment; nine words and 128 bytes bring it there. */
    .irp register, rdi, rsi, rdx, rcx, r8, r9, rax, r10
    pushq %\register
    .cfi_adjust_cfa_offset 8
    .endr
    subq $136, %rsp
    .cfi_adjust_cfa_offset 136
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7
    movups %xmm\number, 16 * \number(%rsp)
    .endr
    movl %r11d, %edi
    call thunk_arrive
    movq %rax, %r11
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7
    movups 16 * \number(%rsp), %xmm\number
    .endr
    addq $136, %rsp
    .cfi_adjust_cfa_offset -136
    .irp register, r10, rax, r9, r8, rcx, rdx, rsi, rdi
    popq %\register
    .cfi_adjust_cfa_offset -8
    .endr
    jmp *%r11
#else
    /* x0 to x7 and q0 to q7 carry arguments, x8 the place of a result; the frame record is for who unwinds. */
    stp x29, x30, [sp, #-224]!
    .cfi_adjust_cfa_offset 224
    .cfi_rel_offset x29, 0
    .cfi_rel_offset x30, 8
    mov x29, sp
    stp x0, x1, [sp, #16]
    stp x2, x3, [sp, #32]
    stp x4, x5, [sp, #48]
    stp x6, x7, [sp, #64]
    str x8, [sp, #80]
    stp q0, q1, [sp, #96]
    stp q2, q3, [sp, #128]
    stp q4, q5, [sp, #160]
    stp q6, q7, [sp, #192]
    mov w0, w17
    bl thunk_arrive
    mov x16, x0
    ldp q6, q7, [sp, #192]
    ldp q4, q5, [sp, #160]
    ldp q2, q3, [sp, #128]
    ldp q0, q1, [sp, #96]
    ldr x8, [sp, #80]
    ldp x6, x7, [sp, #64]
    ldp x4, x5, [sp, #48]
    ldp x2, x3, [sp, #32]
    ldp x0, x1, [sp, #16]
    ldp x29, x30, [sp], #224
    .cfi_adjust_cfa_offset -224
    .cfi_restore x29
    .cfi_restore x30
    br x16
#endif
    .cfi_endproc
    .size thunk_slowly, . - thunk_slowly
    .section .note.GNU-stack, "", %progbits
