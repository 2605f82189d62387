# Unit tests of src/platform and src/ledger, and the scene they share with tests/crash.
if HAVE_CMOCKA
check_LTLIBRARIES += libscene.la
libscene_la_SOURCES = tests/unit/scene.c tests/unit/scene.h tests/unit/fake_driver.c tests/unit/fake_driver.h
libscene_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
libscene_la_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)

scene_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
scene_cflags = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
scene_libs = libscene.la libledger.la libplatform.la $(CMOCKA_LIBS)
scene_testpoint_libs = libscene.la libledger_testpoints.la libplatform_testpoints.la $(CMOCKA_LIBS)

ledger_tests = \
    tests/unit/test_charge \
    tests/unit/test_device \
    tests/unit/test_env \
    tests/unit/test_events \
    tests/unit/test_biased_lock \
    tests/unit/test_gate \
    tests/unit/test_futex \
    tests/unit/test_ledger_open \
    tests/unit/test_line \
    tests/unit/test_liveness \
    tests/unit/test_log \
    tests/unit/test_pressure \
    tests/unit/test_process \
    tests/unit/test_reap \
    tests/unit/test_row \
    tests/unit/test_shm \
    tests/unit/test_size \
    tests/unit/test_slot \
    tests/unit/test_snapshot \
    tests/unit/test_terms \
    tests/unit/test_watch
check_PROGRAMS += $(ledger_tests)
TESTS += $(ledger_tests)

tests_unit_test_charge_CPPFLAGS = $(scene_cppflags)
tests_unit_test_charge_CFLAGS = $(scene_cflags)
tests_unit_test_charge_LDADD = $(scene_libs)
tests_unit_test_device_CPPFLAGS = $(scene_cppflags)
tests_unit_test_device_CFLAGS = $(scene_cflags)
tests_unit_test_device_LDADD = $(scene_libs)
tests_unit_test_env_CPPFLAGS = $(scene_cppflags)
tests_unit_test_env_CFLAGS = $(scene_cflags)
tests_unit_test_env_LDADD = $(scene_libs)
tests_unit_test_gate_CPPFLAGS = $(scene_cppflags)
tests_unit_test_gate_CFLAGS = $(scene_cflags)
tests_unit_test_gate_LDADD = $(scene_libs)
tests_unit_test_events_CPPFLAGS = $(scene_cppflags)
tests_unit_test_events_CFLAGS = $(scene_cflags)
tests_unit_test_events_LDADD = $(scene_testpoint_libs)
tests_unit_test_line_CPPFLAGS = $(scene_cppflags)
tests_unit_test_line_CFLAGS = $(scene_cflags)
tests_unit_test_line_LDADD = $(scene_libs)
tests_unit_test_process_CPPFLAGS = $(scene_cppflags)
tests_unit_test_process_CFLAGS = $(scene_cflags)
tests_unit_test_process_LDADD = $(scene_libs)
tests_unit_test_biased_lock_CPPFLAGS = $(scene_cppflags)
tests_unit_test_biased_lock_CFLAGS = $(scene_cflags)
tests_unit_test_biased_lock_LDADD = $(scene_libs)
tests_unit_test_futex_CPPFLAGS = $(scene_cppflags)
tests_unit_test_futex_CFLAGS = $(scene_cflags)
tests_unit_test_futex_LDADD = $(scene_libs)
tests_unit_test_ledger_open_CPPFLAGS = $(scene_cppflags)
tests_unit_test_ledger_open_CFLAGS = $(scene_cflags)
tests_unit_test_ledger_open_LDADD = $(scene_libs)
tests_unit_test_liveness_CPPFLAGS = $(scene_cppflags)
tests_unit_test_liveness_CFLAGS = $(scene_cflags)
tests_unit_test_liveness_LDADD = $(scene_libs)
tests_unit_test_log_CPPFLAGS = $(scene_cppflags)
tests_unit_test_log_CFLAGS = $(scene_cflags)
tests_unit_test_log_LDADD = $(scene_libs)
tests_unit_test_pressure_CPPFLAGS = $(scene_cppflags)
tests_unit_test_pressure_CFLAGS = $(scene_cflags)
tests_unit_test_pressure_LDADD = $(scene_libs)
tests_unit_test_reap_CPPFLAGS = $(scene_cppflags)
tests_unit_test_reap_CFLAGS = $(scene_cflags)
tests_unit_test_reap_LDADD = $(scene_libs)
tests_unit_test_row_CPPFLAGS = $(scene_cppflags)
tests_unit_test_row_CFLAGS = $(scene_cflags)
tests_unit_test_row_LDADD = $(scene_libs)
tests_unit_test_shm_CPPFLAGS = $(scene_cppflags)
tests_unit_test_shm_CFLAGS = $(scene_cflags)
tests_unit_test_shm_LDADD = $(scene_libs)
tests_unit_test_size_CPPFLAGS = $(scene_cppflags)
tests_unit_test_size_CFLAGS = $(scene_cflags)
tests_unit_test_size_LDADD = $(scene_libs)
tests_unit_test_slot_CPPFLAGS = $(scene_cppflags)
tests_unit_test_slot_CFLAGS = $(scene_cflags)
tests_unit_test_slot_LDADD = $(scene_libs)
tests_unit_test_snapshot_CPPFLAGS = $(scene_cppflags)
tests_unit_test_snapshot_CFLAGS = $(scene_cflags)
tests_unit_test_snapshot_LDADD = $(scene_libs)
tests_unit_test_terms_CPPFLAGS = $(scene_cppflags)
tests_unit_test_terms_CFLAGS = $(scene_cflags)
tests_unit_test_terms_LDADD = $(scene_libs)
tests_unit_test_watch_CPPFLAGS = $(scene_cppflags)
tests_unit_test_watch_CFLAGS = $(scene_cflags)
tests_unit_test_watch_LDADD = $(scene_testpoint_libs)
endif

dist_check_SCRIPTS += tests/unit/layout
TESTS += tests/unit/layout
