# The command. It asks the loader for nothing but libc, jansson and inih, so the build tree has it as a real executable, which
# finds the library in .libs beside it.
bin_PROGRAMS += cubudget
cubudget_SOURCES = \
    src/cli/check.c src/cli/check.h \
    src/cli/check_books.c \
    src/cli/check_states.c \
    src/cli/cmd_check.c \
    src/cli/cmd_dump.c \
    src/cli/cmd_evict.c \
    src/cli/cmd_gc.c \
    src/cli/cmd_help.c \
    src/cli/cmd_init.c \
    src/cli/cmd_limit.c \
    src/cli/cmd_restore.c \
    src/cli/cmd_run.c \
    src/cli/cmd_version.c \
    src/cli/cmd_watch.c \
    src/cli/command.h \
    src/cli/configuration.c src/cli/configuration.h \
    src/cli/configuration_plan.c \
    src/cli/configuration_run.c \
    src/cli/drift.c src/cli/drift.h \
    src/cli/dump.h \
    src/cli/dump_json.c \
    src/cli/dump_table.c \
    src/cli/event_text.c src/cli/event_text.h \
    src/cli/executable.c src/cli/executable.h \
    src/cli/launch.c src/cli/launch.h \
    src/cli/main.c \
    src/cli/moving.c src/cli/moving.h \
    src/cli/options.c src/cli/options.h \
    src/cli/output.c src/cli/output.h \
    src/cli/over.c src/cli/over.h \
    src/cli/slots.c src/cli/slots.h \
    src/cli/witness.c src/cli/witness.h
cubudget_CPPFLAGS = $(AM_CPPFLAGS) $(JANSSON_CFLAGS) $(INIH_CFLAGS) \
    -DBINDIR='"$(bindir)"' -DLIBDIR='"$(libdir)"' -DPKGLIBDIR='"$(pkglibdir)"'
# The preloaded library looks for the symbol, so that the command itself is left alone.
cubudget_LDFLAGS = $(AM_LDFLAGS) -Wl,--export-dynamic-symbol=cubudget_command
cubudget_LDADD = libledger.la libcudadriver.la libplatform.la
if SIMULATOR
cubudget_LDADD += libsimmachine.la
endif
cubudget_LDADD += $(JANSSON_LIBS) $(INIH_LIBS) -ldl
