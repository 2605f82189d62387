# Programs nobody here wrote, and every route a program can take to the driver.
EXTRA_DIST += tests/clients/stage.sh tests/clients/ways.sh tests/clients/route_ctypes.py tests/clients/story_ctypes.py \
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

check_LTLIBRARIES += libway.la
libway_la_SOURCES = tests/clients/way.c tests/clients/way.h
ways = tests/clients/way_blas tests/clients/way_jax tests/clients/way_pool tests/clients/way_segments \
    tests/clients/way_torch
check_PROGRAMS += $(ways) tests/clients/holdings
tests_clients_way_blas_LDADD = libway.la -ldl
tests_clients_way_jax_LDADD = libway.la -ldl
tests_clients_way_pool_LDADD = libway.la -ldl
tests_clients_way_segments_LDADD = libway.la -ldl
tests_clients_way_torch_LDADD = libway.la -ldl
tests_clients_holdings_LDADD = libledger.la libplatform.la libsimmachine.la

TESTS += tests/clients/routes tests/clients/ways tests/clients/ways_mapped tests/clients/stories tests/clients/drift tests/clients/numba
endif
dist_check_SCRIPTS += tests/clients/routes tests/clients/ways tests/clients/ways_mapped tests/clients/stories tests/clients/drift tests/clients/numba
