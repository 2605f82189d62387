# Makes src/interpose/passes.c from hooks.def: for each PASS row the wrapper that marks the thread as inside the driver
# for the time of the call and does nothing else. What is rare is in a function apart that it ends in, so that the common way keeps
# no argument over a call. Each name of a parameter is the last word of it.
# Parameters, those after the sixth volatile: they come on the stack, and are read there when they are passed on; compilers else take
# all of them into registers first, which must be saved for that (a nanosecond for cuLaunchKernel).
function kept_in_place(inner,    count, parameter, i, text) {
    count = split(inner, parameter, /, */)
    for (i = 1; i <= count; i++) {
        if (i > 6 && parameter[i] ~ /\*[a-z]+$/)
            sub(/\*/, "*volatile ", parameter[i])
        else if (i > 6 && parameter[i] !~ /float|CUmemLocation|CUipc|CUeglFrame/)
            parameter[i] = "volatile " parameter[i]
        text = text (i > 1 ? ", " : "") parameter[i]
    }
    return "(" text ")"
}
BEGIN {
    print "/* Made by passes.awk from hooks.def: wrappers of what only passes the gate. */"
    print "#include \"config.h\""
    print ""
    print "#include \"interpose/hooks.h\""
    print "#include \"platform/gate.h\""
    print ""
    print "#define COLD __attribute__((noinline))"
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
    printf "\nstatic COLD CUresult %s_slowly%s\n{\n", symbol, parameters
    print "    const struct driver *driver_ = driver_get();"
    printf "    if (driver_ == NULL || driver_->%s == NULL)\n", symbol
    print "        return driver_ == NULL ? CUDA_ERROR_NOT_INITIALIZED : CUDA_ERROR_NOT_SUPPORTED;"
    print "    if (!gate_enter())"
    printf "        return driver_->%s(%s);\n", symbol, arguments
    printf "    CUresult result_ = driver_->%s(%s);\n", symbol, arguments
    print "    gate_leave();"
    print "    return result_;"
    print "}"
    printf "\nCUresult %s%s\n{\n", symbol, kept_in_place(inner)
    print "    const struct driver *driver_ = driver_bound();"
    print "    struct gate_mark *mark_;"
    printf "    if (__builtin_expect(driver_ == NULL || driver_->%s == NULL || (mark_ = gate_try()) == NULL, 0))\n", symbol
    printf "        return %s_slowly(%s);\n", symbol, arguments
    printf "    CUresult result_ = driver_->%s(%s);\n", symbol, arguments
    print "    gate_clear(mark_);"
    print "    return result_;"
    print "}"
}
