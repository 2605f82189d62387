# Processes that are stopped, killed, or want the same bytes at once; over the copies that have test points.
if HAVE_CMOCKA
crash_tests = tests/crash/test_evict_points tests/crash/test_group_points tests/crash/test_points \
    tests/crash/test_rivals tests/crash/test_terms_points
check_PROGRAMS += $(crash_tests)
TESTS += $(crash_tests)
tests_crash_test_group_points_CPPFLAGS = $(scene_cppflags)
tests_crash_test_group_points_CFLAGS = $(scene_cflags)
tests_crash_test_group_points_LDADD = $(scene_testpoint_libs)
tests_crash_test_points_CPPFLAGS = $(scene_cppflags)
tests_crash_test_points_CFLAGS = $(scene_cflags)
tests_crash_test_points_LDADD = $(scene_testpoint_libs)
tests_crash_test_rivals_CPPFLAGS = $(scene_cppflags)
tests_crash_test_rivals_CFLAGS = $(scene_cflags)
tests_crash_test_rivals_LDADD = $(scene_libs)
tests_crash_test_terms_points_CPPFLAGS = $(scene_cppflags)
tests_crash_test_terms_points_CFLAGS = $(scene_cflags)
tests_crash_test_terms_points_LDADD = $(scene_testpoint_libs)
tests_crash_test_evict_points_CPPFLAGS = $(scene_cppflags)
tests_crash_test_evict_points_CFLAGS = $(scene_cflags)
tests_crash_test_evict_points_LDADD = $(scene_testpoint_libs)
endif
