# The simulator by itself.
dist_check_SCRIPTS += tests/unit/cuda_header
TESTS += tests/unit/cuda_header
EXTRA_DIST += tests/unit/cuda_header_values.c

if SIMULATOR
if HAVE_CMOCKA
check_LTLIBRARIES += libsimstage.la
libsimstage_la_SOURCES = tests/unit/sim_stage.c tests/unit/sim_stage.h tests/unit/sim_context.h
libsimstage_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
libsimstage_la_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)

sim_tests = tests/unit/test_sim_array tests/unit/test_sim_capture tests/unit/test_sim_checkpoint tests/unit/test_sim_code \
    tests/unit/test_sim_fault tests/unit/test_sim_locked \
    tests/unit/test_sim_graph tests/unit/test_sim_ipc tests/unit/test_sim_machine tests/unit/test_sim_memory \
    tests/unit/test_sim_nvml tests/unit/test_sim_pool tests/unit/test_sim_procaddr tests/unit/test_sim_process \
    tests/unit/test_sim_vmm tests/unit/test_sim_work
check_PROGRAMS += $(sim_tests)
TESTS += $(sim_tests)
sim_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
sim_libs = libsimstage.la libsimmachine.la $(CMOCKA_LIBS)
tests_unit_test_sim_array_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_array_LDADD = $(sim_libs) src/sim/libcuda.la
tests_unit_test_sim_code_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_code_LDADD = $(sim_libs) src/sim/libcuda.la
tests_unit_test_sim_capture_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_capture_LDADD = $(sim_libs) src/sim/libcuda.la
tests_unit_test_sim_checkpoint_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_checkpoint_LDADD = $(sim_libs) src/sim/libcuda.la
tests_unit_test_sim_locked_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_locked_LDADD = $(sim_libs) src/sim/libcuda.la src/sim/libnvidia-ml.la
tests_unit_test_sim_graph_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_graph_LDADD = $(sim_libs) src/sim/libcuda.la
tests_unit_test_sim_machine_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_machine_LDADD = $(sim_libs)
tests_unit_test_sim_memory_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_memory_LDADD = $(sim_libs) src/sim/libcuda.la
tests_unit_test_sim_nvml_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_nvml_LDADD = $(sim_libs) src/sim/libcuda.la src/sim/libnvidia-ml.la
tests_unit_test_sim_pool_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_pool_LDADD = $(sim_libs) src/sim/libcuda.la
tests_unit_test_sim_procaddr_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_procaddr_LDADD = $(sim_libs) src/sim/libcuda.la -ldl
tests_unit_test_sim_process_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_process_LDADD = $(sim_libs) src/sim/libcuda.la
tests_unit_test_sim_work_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_work_LDADD = $(sim_libs) src/sim/libcuda.la
tests_unit_test_sim_fault_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_fault_LDADD = $(sim_libs) src/sim/libcuda.la
tests_unit_test_sim_ipc_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_ipc_LDADD = $(sim_libs) src/sim/libcuda.la
tests_unit_test_sim_vmm_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_vmm_LDADD = $(sim_libs) src/sim/libcuda.la
endif
endif
