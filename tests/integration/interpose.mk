# The preloaded library from outside: what it exports, how it behaves in a program, when it ends one.
dist_check_SCRIPTS += tests/integration/thunks tests/unit/prototypes tests/unit/hooks tests/unit/cuda_symbols tests/unit/classify_symbols tests/integration/exports \
    tests/integration/gate tests/integration/procaddress tests/integration/manners \
    tests/integration/children tests/integration/failfast
EXTRA_DIST += tests/integration/openmp.c tests/integration/thunks_program.c tests/unit/prototypes_values.cc scripts/classify-new-symbols
TESTS += tests/integration/thunks tests/unit/prototypes tests/unit/hooks tests/unit/cuda_symbols tests/unit/classify_symbols tests/integration/exports

if SIMULATOR
check_PROGRAMS += tests/integration/procaddress_program tests/integration/manners_program \
    tests/integration/children_program
tests_integration_procaddress_program_SOURCES = tests/integration/procaddress_program.c
tests_integration_procaddress_program_LDADD = -ldl
tests_integration_manners_program_SOURCES = tests/integration/manners_program.c
tests_integration_manners_program_LDADD = -ldl
tests_integration_children_program_SOURCES = tests/integration/children_program.c
tests_integration_children_program_LDADD = -ldl

check_LTLIBRARIES += tests/integration/shim.la tests/integration/other_library.la \
    tests/integration/forking_nvml.la
tests_integration_shim_la_SOURCES = tests/integration/shim.c
tests_integration_shim_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_integration_shim_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared -rpath /nonexistent
tests_integration_shim_la_LIBADD = -ldl
tests_integration_other_library_la_SOURCES = tests/integration/other_library.c
tests_integration_other_library_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared -rpath /nonexistent
tests_integration_forking_nvml_la_SOURCES = tests/integration/forking_nvml.c
tests_integration_forking_nvml_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared -rpath /nonexistent

# A driver with every function of the table, and the program that is linked to it.
check_LTLIBRARIES += tests/integration/every/libcuda.la
tests_integration_every_libcuda_la_SOURCES = tests/integration/every_driver.c tests/integration/every_driver.h \
    src/interpose/hooks.def
tests_integration_every_libcuda_la_LDFLAGS = $(AM_LDFLAGS) -version-info 1:0:0 -Wl,-Bsymbolic -rpath /nonexistent
tests_integration_every_libcuda_la_LIBADD = -ldl
check_PROGRAMS += tests/integration/gate_program
tests_integration_gate_program_SOURCES = tests/integration/gate_program.c tests/integration/every_driver.h
tests_integration_gate_program_LDFLAGS = $(AM_LDFLAGS) -no-install
tests_integration_gate_program_LDADD = tests/integration/every/libcuda.la -ldl

TESTS += tests/integration/gate tests/integration/procaddress tests/integration/manners tests/integration/children \
    tests/integration/failfast
endif
