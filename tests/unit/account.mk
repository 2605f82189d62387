# A process's own account, without a driver.
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_allocmap
TESTS += tests/unit/test_allocmap
tests_unit_test_allocmap_SOURCES = tests/unit/test_allocmap.c
tests_unit_test_allocmap_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_allocmap_LDADD = libaccount.la libledger.la libcudadriver.la libplatform.la $(CMOCKA_LIBS) -ldl
endif
