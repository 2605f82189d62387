# End to end: preloaded clients over the simulator, judged by the ledger and by the witness.
check_LTLIBRARIES += libstage.la
libstage_la_SOURCES = tests/integration/stage.c tests/integration/stage.h
libstage_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
libstage_la_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
libstage_la_LIBADD = libledger.la libplatform.la

dist_check_SCRIPTS += tests/unit/layers
TESTS += tests/unit/layers

if SIMULATOR
if HAVE_CMOCKA
check_PROGRAMS += tests/integration/client
tests_integration_client_SOURCES = tests/integration/client.c tests/integration/client.h tests/integration/client_pools.c
tests_integration_client_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
tests_integration_client_LDADD = -ldl
check_PROGRAMS += tests/integration/object_client
tests_integration_object_client_SOURCES = tests/integration/object_client.c
tests_integration_object_client_LDADD = -ldl

check_PROGRAMS += tests/integration/vmm_client
tests_integration_vmm_client_SOURCES = tests/integration/vmm_client.c
tests_integration_vmm_client_LDADD = -ldl

check_PROGRAMS += tests/integration/family_client
tests_integration_family_client_SOURCES = tests/integration/family_client.c tests/integration/family_objects.c \
    tests/integration/family.h
tests_integration_family_client_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
tests_integration_family_client_LDADD = -ldl

check_PROGRAMS += tests/integration/fault_client
tests_integration_fault_client_SOURCES = tests/integration/fault_client.c
tests_integration_fault_client_LDADD = -ldl

books_tests = tests/integration/test_arrays tests/integration/test_budget tests/integration/test_death \
    tests/integration/test_families tests/integration/test_faults \
    tests/integration/test_fork tests/integration/test_imports tests/integration/test_modules \
    tests/integration/test_moved_ledger tests/integration/test_pools \
    tests/integration/test_reserves tests/integration/test_vmm
check_PROGRAMS += $(books_tests)
TESTS += $(books_tests)
books_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
books_libs = libstage.la libsimmachine.la $(CMOCKA_LIBS)
tests_integration_test_arrays_SOURCES = tests/integration/test_arrays.c tests/integration/objects.h \
    tests/integration/books_agree.h
tests_integration_test_arrays_CPPFLAGS = $(books_cppflags)
tests_integration_test_arrays_LDADD = $(books_libs)
tests_integration_test_budget_SOURCES = tests/integration/test_budget.c tests/integration/books_agree.h
tests_integration_test_budget_CPPFLAGS = $(books_cppflags)
tests_integration_test_budget_LDADD = $(books_libs)
tests_integration_test_death_CPPFLAGS = $(books_cppflags)
tests_integration_test_death_LDADD = $(books_libs)
tests_integration_test_fork_CPPFLAGS = $(books_cppflags)
tests_integration_test_fork_LDADD = $(books_libs)
tests_integration_test_families_SOURCES = tests/integration/test_families.c tests/integration/books_agree.h
tests_integration_test_families_CPPFLAGS = $(books_cppflags)
tests_integration_test_families_LDADD = $(books_libs)
tests_integration_test_faults_SOURCES = tests/integration/test_faults.c tests/integration/books_agree.h
tests_integration_test_faults_CPPFLAGS = $(books_cppflags)
tests_integration_test_faults_LDADD = $(books_libs)
tests_integration_test_imports_SOURCES = tests/integration/test_imports.c tests/integration/vmm_failures.h \
    tests/integration/books_agree.h
tests_integration_test_imports_CPPFLAGS = $(books_cppflags)
tests_integration_test_imports_LDADD = $(books_libs)
tests_integration_test_reserves_CPPFLAGS = $(books_cppflags)
tests_integration_test_reserves_LDADD = $(books_libs)
tests_integration_test_vmm_SOURCES = tests/integration/test_vmm.c tests/integration/vmm_failures.h \
    tests/integration/books_agree.h
tests_integration_test_vmm_CPPFLAGS = $(books_cppflags)
tests_integration_test_vmm_LDADD = $(books_libs)
tests_integration_test_modules_SOURCES = tests/integration/test_modules.c tests/integration/objects.h \
    tests/integration/books_agree.h
tests_integration_test_modules_CPPFLAGS = $(books_cppflags)
tests_integration_test_modules_LDADD = $(books_libs)
tests_integration_test_moved_ledger_CPPFLAGS = $(books_cppflags)
tests_integration_test_moved_ledger_LDADD = $(books_libs)
tests_integration_test_pools_CPPFLAGS = $(books_cppflags)
tests_integration_test_pools_LDADD = $(books_libs)
endif
endif
