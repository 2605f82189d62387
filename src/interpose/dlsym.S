/*
 * dlsym, exported. It asks dlsym_route where the call goes on and jumps there with every argument and the return address
 * as they came: the C library's dlsym looks at its caller's address for RTLD_NEXT and RTLD_DEFAULT, and a call from here
 * would be taken for ours (that hangs OpenMP and crashes cuDNN).
 */
#if defined(__x86_64__)
    .text
    .globl dlsym
    .type dlsym, @function
    .p2align 4
dlsym:
    .cfi_startproc
    endbr64
    pushq %rdi
    .cfi_adjust_cfa_offset 8
    pushq %rsi
    .cfi_adjust_cfa_offset 8
    subq $8, %rsp             /* calls want the stack aligned to 16 */
    .cfi_adjust_cfa_offset 8
    call dlsym_route
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    popq %rsi
    .cfi_adjust_cfa_offset -8
    popq %rdi
    .cfi_adjust_cfa_offset -8
    movq (%rsp), %rdx         /* the caller */
    jmp *%rax
    .cfi_endproc
    .size dlsym, . - dlsym
#elif defined(__aarch64__)
    .text
    .globl dlsym
    .type dlsym, %function
    .p2align 4
dlsym:
    .cfi_startproc
    hint #34                  /* bti c */
    stp x29, x30, [sp, #-32]!
    .cfi_adjust_cfa_offset 32
    .cfi_rel_offset x29, 0
    .cfi_rel_offset x30, 8
    stp x0, x1, [sp, #16]
    mov x29, sp
    bl dlsym_route
    mov x16, x0
    ldp x0, x1, [sp, #16]
    ldp x29, x30, [sp], #32
    .cfi_adjust_cfa_offset -32
    .cfi_restore x29
    .cfi_restore x30
    mov x2, x30               /* the caller */
    br x16
    .cfi_endproc
    .size dlsym, . - dlsym
#else
#error "dlsym is written for x86-64 and aarch64"
#endif
    .section .note.GNU-stack, "", %progbits
