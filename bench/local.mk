# The benchmark over a driver that does nothing. `make bench` runs it; `make check` keeps it compiled.
EXTRA_DIST += bench/RESULTS.md

if SIMULATOR
check_LTLIBRARIES += bench/libcuda.la
bench_libcuda_la_SOURCES = bench/noop_driver.c
# Optimised whatever the rest is built with: it is to cost nothing.
bench_libcuda_la_CFLAGS = $(AM_CFLAGS) -O2 -ftls-model=initial-exec
bench_libcuda_la_LDFLAGS = $(AM_LDFLAGS) -shared -rpath /nonexistent -version-info 1:0:0

check_PROGRAMS += bench/bench bench/evict bench/measure
bench_bench_SOURCES = bench/bench.c
bench_measure_SOURCES = bench/measure.c
bench_measure_LDADD = -ldl
bench_evict_SOURCES = bench/evict.c tests/integration/fill_kernel.h
bench_evict_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
bench_evict_LDADD = -ldl

.PHONY: bench
bench: all-am bench/libcuda.la bench/bench bench/evict bench/measure
	$(abs_builddir)/bench/bench $(abs_builddir) $(abs_builddir)/bench/results.json
	$(abs_builddir)/bench/evict $(abs_builddir)
CLEANFILES += bench/results.json
endif
