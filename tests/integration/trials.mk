# Many runners in one small budget: what eviction is for, over the simulator.
EXTRA_DIST += tests/integration/trial.sh tests/integration/numba_model.py
trials = tests/integration/thirteen tests/integration/thirteen_numba
dist_check_SCRIPTS += $(trials)

if SIMULATOR
check_PROGRAMS += tests/integration/runner tests/integration/tally
tests_integration_runner_SOURCES = tests/integration/runner.c tests/integration/runner.h \
    tests/integration/fill_kernel.h
tests_integration_runner_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
tests_integration_runner_LDADD = -ldl
tests_integration_tally_LDADD = libledger.la libplatform.la
TESTS += $(trials)

if HAVE_CMOCKA
check_PROGRAMS += tests/integration/test_chaos
TESTS += tests/integration/test_chaos
tests_integration_test_chaos_SOURCES = tests/integration/test_chaos.c tests/integration/crowd.c \
    tests/integration/crowd.h tests/integration/runner.h
tests_integration_test_chaos_CPPFLAGS = $(books_cppflags)
tests_integration_test_chaos_LDADD = $(books_libs)
endif
endif
