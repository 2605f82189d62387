# The simulator by itself.
if SIMULATOR
if HAVE_CMOCKA
check_LTLIBRARIES += libsimstage.la
libsimstage_la_SOURCES = tests/unit/sim_stage.c tests/unit/sim_stage.h
libsimstage_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
libsimstage_la_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)

sim_tests = tests/unit/test_sim_machine
check_PROGRAMS += $(sim_tests)
TESTS += $(sim_tests)
sim_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
sim_libs = libsimstage.la libsimmachine.la $(CMOCKA_LIBS)
tests_unit_test_sim_machine_CPPFLAGS = $(sim_cppflags)
tests_unit_test_sim_machine_LDADD = $(sim_libs)
endif
endif
