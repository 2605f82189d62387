# The command: script tests over a copy of it with stand-ins for the library and the simulator, and C tests over ledgers that
# they fill themselves.
EXTRA_DIST += tests/integration/cli_stage.sh
cli_scripts = tests/integration/cli_bad_input tests/integration/cli_man tests/integration/cli_run
dist_check_SCRIPTS += $(cli_scripts)
TESTS += $(cli_scripts)

if HAVE_CMOCKA
check_PROGRAMS += tests/integration/test_cli
TESTS += tests/integration/test_cli
tests_integration_test_cli_SOURCES = tests/integration/test_cli.c
tests_integration_test_cli_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_integration_test_cli_LDADD = libledger.la libplatform.la $(JANSSON_LIBS) $(CMOCKA_LIBS)
endif
