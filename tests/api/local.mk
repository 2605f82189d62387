# The C API: programs that link to the library, on the simulated GPU.
if HAVE_CMOCKA
if SIMULATOR
check_LTLIBRARIES += libdesk.la
libdesk_la_SOURCES = tests/api/desk.c tests/api/desk.h
libdesk_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
libdesk_la_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)

api_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
api_cflags = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
api_libs = libdesk.la libsimmachine.la libcubudget.la $(CMOCKA_LIBS)

api_tests = tests/api/test_pool tests/api/test_slots tests/api/test_watch
check_PROGRAMS += $(api_tests)
TESTS += $(api_tests)
tests_api_test_pool_CPPFLAGS = $(api_cppflags)
tests_api_test_pool_CFLAGS = $(api_cflags)
tests_api_test_pool_LDADD = $(api_libs)
tests_api_test_slots_CPPFLAGS = $(api_cppflags)
tests_api_test_slots_CFLAGS = $(api_cflags)
tests_api_test_slots_LDADD = $(api_libs)
tests_api_test_watch_CPPFLAGS = $(api_cppflags)
tests_api_test_watch_CFLAGS = $(api_cflags)
tests_api_test_watch_LDADD = $(api_libs)
endif
endif

dist_check_SCRIPTS += tests/api/manual tests/api/python tests/api/installed
TESTS += tests/api/manual
EXTRA_DIST += tests/api/python_module.py tests/api/sim_user.c examples/two_models.c examples/watch_pressure.c
if SIMULATOR
TESTS += tests/api/python tests/api/installed
endif
