# The simulated driver and NVML, found in src/sim/.libs under the names programs load, and what the command and the tests
# read a machine with.
EXTRA_DIST += src/sim/exports.awk

if SIMULATOR
noinst_LTLIBRARIES += libsimmachine.la
libsimmachine_la_SOURCES = \
    src/sim/machine.c src/sim/machine.h src/sim/machine_file.h \
    src/sim/options.c src/sim/options.h

simulatordir = $(pkglibdir)/simulator
simulator_LTLIBRARIES = src/sim/libcuda.la src/sim/libnvidia-ml.la
sim_ldflags = $(AM_LDFLAGS) -version-info 1:0:0 -Wl,-Bsymbolic

src_sim_libcuda_la_SOURCES = \
    src/sim/address.c src/sim/block.h \
    src/sim/array.c src/sim/array.h \
    src/sim/array_format.c src/sim/array_format.h \
    src/sim/call.c \
    src/sim/capture.c \
    src/sim/checkpoint.c src/sim/checkpoint.h \
    src/sim/context.c \
    src/sim/copy.c \
    src/sim/device.c \
    src/sim/error.c \
    src/sim/external.c \
    src/sim/graph.c src/sim/graph.h \
    src/sim/graph_exec.c \
    src/sim/graph_memory.c \
    src/sim/green.c \
    src/sim/host.c \
    src/sim/ipc.c \
    src/sim/library.c \
    src/sim/mail.c \
    src/sim/memory.c \
    src/sim/memset.c \
    src/sim/module.c src/sim/module.h \
    src/sim/multicast.c \
    src/sim/peer.c \
    src/sim/physical.c \
    src/sim/pointer.c \
    src/sim/pool.c \
    src/sim/procaddr.c \
    src/sim/process.c \
    src/sim/reservoir.c src/sim/reservoir.h \
    src/sim/reserve.c \
    src/sim/sim.h \
    src/sim/stream.c \
    src/sim/symbols.h \
    src/sim/vmm.c src/sim/vmm.h \
    src/sim/watch.c
nodist_src_sim_libcuda_la_SOURCES = src/sim/stubs.c src/sim/symbols.c
src_sim_libcuda_la_LDFLAGS = $(sim_ldflags)
src_sim_libcuda_la_LIBADD = libsimmachine.la

src_sim_libnvidia_ml_la_SOURCES = src/sim/nvml.c
src_sim_libnvidia_ml_la_LDFLAGS = $(sim_ldflags)
src_sim_libnvidia_ml_la_LIBADD = libsimmachine.la

CLEANFILES += src/sim/stubs.c src/sim/symbols.c
src/sim/stubs.c: src/sim/exports.awk src/cuda/symbols.tsv
	$(AM_V_GEN)$(MKDIR_P) src/sim && \
	$(AWK) -v want=stubs -f $(top_srcdir)/src/sim/exports.awk $(top_srcdir)/src/cuda/symbols.tsv >$@.tmp && mv $@.tmp $@
src/sim/symbols.c: src/sim/exports.awk src/cuda/symbols.tsv
	$(AM_V_GEN)$(MKDIR_P) src/sim && \
	$(AWK) -v want=symbols -f $(top_srcdir)/src/sim/exports.awk $(top_srcdir)/src/cuda/symbols.tsv >$@.tmp && mv $@.tmp $@
endif
