# The agent: processes that leave the card and come back, over the simulator.
EXTRA_DIST += tests/integration/agent_stage.h
if SIMULATOR
if HAVE_CMOCKA
check_PROGRAMS += tests/integration/agent_client
tests_integration_agent_client_SOURCES = tests/integration/agent_client.c
tests_integration_agent_client_LDADD = -ldl

agent_tests = tests/integration/test_agent tests/integration/test_agent_cost tests/integration/test_agent_ends \
    tests/integration/test_agent_refusals
check_PROGRAMS += $(agent_tests)
TESTS += $(agent_tests)
tests_integration_test_agent_CPPFLAGS = $(books_cppflags)
tests_integration_test_agent_LDADD = $(books_libs)
tests_integration_test_agent_cost_CPPFLAGS = $(books_cppflags)
tests_integration_test_agent_cost_LDADD = $(books_libs)
tests_integration_test_agent_ends_CPPFLAGS = $(books_cppflags)
tests_integration_test_agent_ends_LDADD = $(books_libs)
tests_integration_test_agent_refusals_CPPFLAGS = $(books_cppflags) -DPKGLIBDIR='"$(pkglibdir)"'
tests_integration_test_agent_refusals_LDADD = $(books_libs)
endif
endif
