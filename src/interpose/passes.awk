# Makes src/interpose/passes.c from hooks.def: for each PASS row the wrapper that marks the thread as inside the driver
# for the time of the call and does nothing else. What is rare is in a function apart that it ends in, so that the common way keeps
# no argument over a call. Each name of a parameter is the last word of it.
# With more than six parameters (integers and pointers, as a static assertion says) some come on the stack. Compilers take them all
# into registers first, which must be saved for that; on x86-64 such wrappers are assembly instead (a nanosecond for cuLaunchKernel).
# driver_targets is read after the gate was looked at: by then it may hold what answers after the end (driver_deinitialize).
function assembly(symbol, count, number,    stacked, pad, i) {
    stacked = count - 6
    pad = stacked % 2 # calls want the stack aligned to 16
    print "__asm__(\".text\\n.globl " symbol "\\n.type " symbol ", @function\\n.p2align 4\\n" symbol ":\\n.cfi_startproc\\nendbr64\\n\""
    print "        \"movq gate_self@gottpoff(%rip), %rax\\nmovq %fs:(%rax), %rax\\ncmpq $0, (%rax)\\njne 1f\\n\""
    print "        \"movq %rsp, (%rax)\\ncmpl $0, gate_shut(%rip)\\njne 2f\\n\""
    print "        \"movq driver_targets+" 8 * number "(%rip), %r11\\ntestq %r11, %r11\\nje 2f\\n\""
    for (i = 0; i <= pad; i++)
        print "        \"pushq %rax\\n.cfi_adjust_cfa_offset 8\\n\""
    for (i = 0; i < stacked; i++) # the last first: what is next lies a word lower each time, and the stack is a word deeper
        print "        \"pushq " 8 * (stacked + 1 + pad) "(%rsp)\\n.cfi_adjust_cfa_offset 8\\n\""
    print "        \"call *%r11\\nmovq " 8 * stacked "(%rsp), %rdx\\n\""
    print "        \"addq $" 8 * (stacked + 1 + pad) ", %rsp\\n.cfi_adjust_cfa_offset -" 8 * (stacked + 1 + pad) "\\n\""
    print "        \"movq $0, (%rdx)\\nret\\n2:movq $0, (%rax)\\n1:jmp " symbol "_slowly\\n\""
    print "        \".cfi_endproc\\n.size " symbol ", .-" symbol "\\n\");"
}
BEGIN {
    print "/* Made by passes.awk from hooks.def: wrappers of what only passes the gate. */"
    print "#include \"config.h\""
    print ""
    print "#include \"interpose/hooks.h\""
    print "#include \"platform/gate.h\""
    print ""
    print "#define APART __attribute__((noinline, used))"
    print "_Static_assert(offsetof(struct gate_mark, inside) == 0 && sizeof(gate_shut) == 4, \"as the assembly has it\");"
}
/^(WRAP|PASS|SAFE|BARE)\(/ {
    number = rows++
}
/^PASS\(/ {
    open = index($0, ", (")
    head = substr($0, 6, open - 6)
    symbol = head
    sub(/,.*/, "", symbol)
    parameters = substr($0, open + 2)
    sub(/\)$/, "", parameters)
    inner = substr(parameters, 2, length(parameters) - 2)
    arguments = ""
    if (inner != "void") {
        count = split(inner, parameter, /, */)
        for (i = 1; i <= count; i++) {
            name = parameter[i]
            sub(/.*[ *]/, "", name)
            arguments = arguments (i > 1 ? ", " : "") name
        }
    }
    printf "\nstatic APART CUresult %s_slowly%s\n{\n", symbol, parameters
    print "    const struct driver *driver_ = driver_get();"
    printf "    if (driver_ == NULL || driver_->%s == NULL)\n", symbol
    print "        return driver_ == NULL ? CUDA_ERROR_NOT_INITIALIZED : CUDA_ERROR_NOT_SUPPORTED;"
    print "    if (!gate_enter())"
    printf "        return driver_->%s(%s);\n", symbol, arguments
    printf "    CUresult result_ = driver_->%s(%s);\n", symbol, arguments
    print "    gate_leave();"
    print "    return result_;"
    print "}"
    printf "_Static_assert(DRIVER_%s == %d, \"the rows were counted as they are\");\n", symbol, number
    if (inner != "void" && count > 6) {
        print "#if defined(__x86_64__)"
        for (i = 1; i <= count; i++) {
            type = parameter[i]
            sub(/[a-z]+$/, "", type)
            if (type !~ /\*/) # a conversion that only an integer or a pointer allows, and a pointer to char a float not
                printf "_Static_assert(sizeof(%s) <= 8 && sizeof((char *)(%s)0) == 8, \"in a register, or a word of the stack\");\n", type, type
        }
        assembly(symbol, count, number)
        print "#else"
    }
    printf "\nCUresult %s%s\n{\n", symbol, parameters
    printf "    const _Atomic(uintptr_t) *target_ = &driver_targets[%d];\n", number
    print "    struct gate_mark *mark_;"
    print "    if (__builtin_expect(atomic_load_explicit(target_, memory_order_acquire) == 0 || (mark_ = gate_try()) == NULL, 0))"
    printf "        return %s_slowly(%s);\n", symbol, arguments
    printf "    CUresult (*real_)%s = (CUresult(*)%s)atomic_load_explicit(target_, memory_order_relaxed);\n", parameters, parameters
    printf "    CUresult result_ = real_(%s);\n", arguments
    print "    gate_clear(mark_);"
    print "    return result_;"
    print "}"
    if (inner != "void" && count > 6)
        print "#endif"
}
