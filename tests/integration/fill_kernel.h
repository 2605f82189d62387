/*
 * A kernel for programs that run on the simulator, which has one of this name and looks at no more than that, and on a real card, which
 * compiles it: fill_u32(u64 to, u32 value, u64 count) writes a value to each of `count` words, a thread to a word.
 */
#ifndef TESTS_FILL_KERNEL_H
#define TESTS_FILL_KERNEL_H

static const char fill_image[] = ".version 7.0\n.target sm_70\n.address_size 64\n"
                                 ".visible .entry fill_u32(.param .u64 to, .param .u32 value, .param .u64 count)\n"
                                 "{\n"
                                 "    .reg .pred %p;\n    .reg .b32 %r<5>;\n    .reg .b64 %d<5>;\n"
                                 "    ld.param.u64 %d0, [to];\n    ld.param.u32 %r0, [value];\n"
                                 "    ld.param.u64 %d1, [count];\n"
                                 "    mov.u32 %r1, %ctaid.x;\n    mov.u32 %r2, %ntid.x;\n    mov.u32 %r3, %tid.x;\n"
                                 "    mad.lo.u32 %r4, %r1, %r2, %r3;\n    cvt.u64.u32 %d2, %r4;\n"
                                 "    setp.ge.u64 %p, %d2, %d1;\n    @%p ret;\n"
                                 "    cvta.to.global.u64 %d3, %d0;\n    shl.b64 %d4, %d2, 2;\n"
                                 "    add.u64 %d4, %d3, %d4;\n    st.global.u32 [%d4], %r0;\n    ret;\n}\n";

#endif
