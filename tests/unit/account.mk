# A process's own account, over a table of pointers or a driver of a few lines.
if HAVE_CMOCKA
account_tests = tests/unit/test_allocmap tests/unit/test_array_cost tests/unit/test_books tests/unit/test_handles \
    tests/unit/test_image_cost tests/unit/test_policy tests/unit/test_waiting
check_PROGRAMS += $(account_tests)
TESTS += $(account_tests)
account_test_libs = libscene.la libaccount.la libledger.la libcudadriver.la libplatform.la $(CMOCKA_LIBS) -ldl
tests_unit_test_allocmap_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_allocmap_LDADD = $(account_test_libs)
tests_unit_test_array_cost_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_array_cost_LDADD = $(account_test_libs)
tests_unit_test_image_cost_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_image_cost_LDADD = $(account_test_libs)
tests_unit_test_books_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
tests_unit_test_books_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_books_LDADD = $(account_test_libs)
tests_unit_test_handles_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
tests_unit_test_handles_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_handles_LDADD = $(account_test_libs)
tests_unit_test_policy_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
tests_unit_test_policy_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_policy_LDADD = $(account_test_libs)
tests_unit_test_waiting_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
tests_unit_test_waiting_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_waiting_LDADD = $(account_test_libs)
endif
