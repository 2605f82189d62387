# Makes two sources of the simulator from src/cuda/symbols.tsv (name, class, base name, version):
#   -v want=stubs    each name as a weak function that is not supported, which a real one displaces; a name with
#                    _ptds or _ptsz (the per-thread default stream) as a jump to the name without: streams are always
#                    idle here, so the two differ in their address alone
#   -v want=symbols  the table cuGetProcAddress looks names up in
BEGIN {
    FS = "\t"
    print "/* Made by exports.awk from symbols.tsv. */"
}
/^#/ || NF < 4 { next }
{
    name[++count] = $1
    base[$1] = $3
    version[$1] = $4
    twin[count] = $1 ~ /_pt[ds][sz]$/
}
END {
    if (want == "stubs") {
        print "#include \"sim/sim.h\""
        for (i = 1; i <= count; i++) {
            plain = name[i]
            sub(/_pt[ds][sz]$/, "", plain)
            if (twin[i] && plain in base)
                printf "SIM_TWIN(%s, %s);\n", name[i], plain
            else
                printf "__attribute__((weak)) SIM_API int %s(void) { return CUDA_ERROR_NOT_SUPPORTED; }\n", name[i]
        }
    } else {
        print "#include \"sim/symbols.h\""
        for (i = 1; i <= count; i++)
            printf "int %s(void);\n", name[i]
        print "const struct symbol symbols[] = {"
        for (i = 1; i <= count; i++)
            printf "    {\"%s\", \"%s\", %d, %d, %s},\n", name[i], base[name[i]], version[name[i]], twin[i], name[i]
        print "};"
        print "const unsigned symbol_count = sizeof(symbols) / sizeof(symbols[0]);"
    }
}
