# The command: script tests over a copy of it with stand-ins for the library and the simulator, and C tests over ledgers that
# they fill themselves.
EXTRA_DIST += tests/integration/cli_stage.sh tests/integration/live.sh examples/thirteen-embedders.ini
cli_scripts = tests/integration/cli_bad_input tests/integration/cli_man tests/integration/cli_run \
    tests/integration/config_bad tests/integration/config_good
dist_check_SCRIPTS += $(cli_scripts)
TESTS += $(cli_scripts)

# These run tests/integration/client on the simulator.
dist_check_SCRIPTS += tests/integration/evict_command tests/integration/group_ledger tests/integration/limit_live
if SIMULATOR
if HAVE_CMOCKA
TESTS += tests/integration/evict_command tests/integration/group_ledger tests/integration/limit_live
endif
endif

if HAVE_CMOCKA
check_LTLIBRARIES += libclistage.la
libclistage_la_SOURCES = tests/integration/cli_stage.c tests/integration/cli_stage.h \
    tests/integration/player.c tests/integration/player.h
cli_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
cli_cflags = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
cli_libs = libclistage.la libledger.la libplatform.la $(JANSSON_LIBS) $(CMOCKA_LIBS)
libclistage_la_CPPFLAGS = $(cli_cppflags)
libclistage_la_CFLAGS = $(cli_cflags)

cli_tests = tests/integration/test_cli tests/integration/test_cli_states tests/integration/test_moving \
    tests/integration/test_watch_command
check_PROGRAMS += $(cli_tests)
TESTS += $(cli_tests)
tests_integration_test_cli_states_CPPFLAGS = $(cli_cppflags)
tests_integration_test_cli_states_CFLAGS = $(cli_cflags)
tests_integration_test_cli_states_LDADD = $(cli_libs)
tests_integration_test_moving_CPPFLAGS = $(cli_cppflags)
tests_integration_test_moving_CFLAGS = $(cli_cflags)
tests_integration_test_moving_LDADD = $(cli_libs)
tests_integration_test_watch_command_CPPFLAGS = $(cli_cppflags)
tests_integration_test_watch_command_CFLAGS = $(cli_cflags)
tests_integration_test_watch_command_LDADD = $(cli_libs)
tests_integration_test_cli_CPPFLAGS = $(cli_cppflags)
tests_integration_test_cli_CFLAGS = $(cli_cflags)
tests_integration_test_cli_LDADD = $(cli_libs)

if SIMULATOR
check_PROGRAMS += tests/integration/test_cli_simulator
TESTS += tests/integration/test_cli_simulator
tests_integration_test_cli_simulator_CPPFLAGS = $(cli_cppflags)
tests_integration_test_cli_simulator_CFLAGS = $(cli_cflags)
tests_integration_test_cli_simulator_LDADD = libsimmachine.la $(cli_libs)
endif
endif
