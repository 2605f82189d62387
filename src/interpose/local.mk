# libcubudget.so, the library that is preloaded. It takes its own functions for the tables of them (-Bsymbolic-functions): the loader would else
# look up each of some 680 names in every process. It needs libc alone and exports the intercepted names, dlsym and
# cubudget_*: an anonymous version script, because a named version node unhooks dlsym. libcubudget-testpoints.so is the
# tests' own copy with the crash tests' named points built in.
interpose_sources = \
    src/interpose/array.c \
    src/interpose/context.c \
    src/interpose/dlsym.S \
    src/interpose/graph.c \
    src/interpose/hooks.def src/interpose/hooks.h \
    src/interpose/import.c \
    src/interpose/init.c \
    src/interpose/limit.c \
    src/interpose/linear.c \
    src/interpose/module.c \
    src/interpose/nvml.c src/interpose/nvml_hooks.def \
    src/interpose/pool.c \
    src/interpose/preload.c \
    src/interpose/query.c \
    src/interpose/resolve.c src/interpose/resolve.h \
    src/interpose/sync.c \
    src/interpose/thunk.h \
    src/interpose/vmm.c \
    src/interpose/wrappers.S

preload_ldflags = $(AM_LDFLAGS) -avoid-version -shared -Wl,--version-script=src/interpose/exports.map \
    -Wl,-Bsymbolic-functions -Wl,-z,now -Wl,-z,relro -Wl,-z,noexecstack -Wl,-z,nodelete

# Most of the library and of its variables, and none of it needed to start: linked last, so that the rest lies together.
noinst_LTLIBRARIES += libpasses.la
libpasses_la_SOURCES = src/interpose/thunk.c src/interpose/thunk_entry.S
nodist_libpasses_la_SOURCES = src/interpose/passes.c

lib_LTLIBRARIES += libcubudget.la
libcubudget_la_SOURCES = $(interpose_sources) $(api_sources)
libcubudget_la_LDFLAGS = $(preload_ldflags)
libcubudget_la_LIBADD = libevict.la libaccount.la libledger.la libcudadriver.la libplatform.la libpasses.la
EXTRA_libcubudget_la_DEPENDENCIES = src/interpose/exports.map

check_LTLIBRARIES += libcubudget-testpoints.la
libcubudget_testpoints_la_SOURCES = $(interpose_sources) $(api_sources) src/interpose/testpoint_gate.c
libcubudget_testpoints_la_CPPFLAGS = $(AM_CPPFLAGS) -DCUBUDGET_TESTPOINTS
libcubudget_testpoints_la_LDFLAGS = $(preload_ldflags) -rpath $(abs_builddir)
libcubudget_testpoints_la_LIBADD = libevict.la libaccount_testpoints.la libledger_testpoints.la libcudadriver.la \
    libplatform_testpoints.la libpasses.la
EXTRA_libcubudget_testpoints_la_DEPENDENCIES = src/interpose/exports.map

src/interpose/exports.map: src/interpose/hooks.def src/interpose/nvml_hooks.def
	$(AM_V_GEN)$(MKDIR_P) src/interpose && { echo '{'; echo '  global:'; echo '    dlsym;'; echo '    cubudget_*;'; \
	  $(SED) -n -e 's/^\(WRAP\|PASS\|SAFE\|BARE\)(\([A-Za-z0-9_]*\),.*/    \2;/p' -e 's/^NVML_WRAP(\([A-Za-z0-9_]*\),.*/    \1;/p' \
	    $(top_srcdir)/src/interpose/hooks.def $(top_srcdir)/src/interpose/nvml_hooks.def; \
	  echo '  local: *;'; echo '};'; } >$@.new && mv $@.new $@
CLEANFILES += src/interpose/exports.map

EXTRA_DIST += src/interpose/passes.awk
CLEANFILES += src/interpose/passes.c
src/interpose/passes.c: src/interpose/passes.awk src/interpose/hooks.def
	$(AM_V_GEN)$(MKDIR_P) src/interpose && \
	$(AWK) -f $(top_srcdir)/src/interpose/passes.awk $(top_srcdir)/src/interpose/hooks.def >$@.new && mv $@.new $@
