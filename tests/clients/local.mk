# Programs nobody here wrote, and every route a program can take to the driver.
EXTRA_DIST += tests/clients/stage.sh tests/clients/route_ctypes.py tests/clients/story_ctypes.py \
    tests/clients/numba_program.py examples/numba_runner.py

if SIMULATOR
check_PROGRAMS += tests/clients/figures tests/clients/route tests/clients/route_linked
tests_clients_figures_SOURCES = tests/clients/figures.c
tests_clients_figures_LDADD = libledger.la libplatform.la

tests_clients_route_SOURCES = tests/clients/route.c tests/clients/route_run.c tests/clients/route.h
tests_clients_route_LDADD = -ldl

# -no-install: a real executable, not libtool's script around one.
tests_clients_route_linked_SOURCES = tests/clients/route_linked.c tests/clients/route_run.c tests/clients/route.h
tests_clients_route_linked_LDADD = src/sim/libcuda.la
tests_clients_route_linked_LDFLAGS = $(AM_LDFLAGS) -no-install

check_LTLIBRARIES += tests/clients/route_plugin.la
tests_clients_route_plugin_la_SOURCES = tests/clients/route_plugin.c
tests_clients_route_plugin_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared -rpath /nonexistent
tests_clients_route_plugin_la_LIBADD = src/sim/libcuda.la

check_PROGRAMS += tests/clients/story tests/clients/story_linked
tests_clients_story_SOURCES = tests/clients/story.c tests/clients/story_run.c tests/clients/story.h
tests_clients_story_LDADD = -ldl
tests_clients_story_linked_SOURCES = tests/clients/story_linked.c tests/clients/story_run.c tests/clients/story.h
tests_clients_story_linked_LDADD = src/sim/libcuda.la src/sim/libnvidia-ml.la
tests_clients_story_linked_LDFLAGS = $(AM_LDFLAGS) -no-install

TESTS += tests/clients/routes tests/clients/stories tests/clients/drift tests/clients/numba
endif
dist_check_SCRIPTS += tests/clients/routes tests/clients/stories tests/clients/drift tests/clients/numba
