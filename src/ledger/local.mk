# The ledger. Users name libplatform.la after it (it is not inside, so that a shared library that names both has each
# object once). libledger_testpoints.la is the same with the crash tests' named points built in.
ledger_sources = \
    include/cubudget/ledger_abi.h \
    src/ledger/charge.c \
    src/ledger/events.c src/ledger/events.h \
    src/ledger/layout.h \
    src/ledger/ledger.c src/ledger/ledger.h \
    src/ledger/line.c src/ledger/line.h \
    src/ledger/move.c \
    src/ledger/owner.h \
    src/ledger/pressure.c \
    src/ledger/process.c src/ledger/process.h \
    src/ledger/reap.c \
    src/ledger/residents.c src/ledger/residents.h \
    src/ledger/row.c \
    src/ledger/plan.c src/ledger/plan.h \
    src/ledger/slot.c \
    src/ledger/snapshot.c src/ledger/snapshot.h \
    src/ledger/terms.c src/ledger/terms.h \
    src/ledger/watch.c

noinst_LTLIBRARIES += libledger.la
libledger_la_SOURCES = $(ledger_sources)

check_LTLIBRARIES += libledger_testpoints.la
libledger_testpoints_la_SOURCES = $(ledger_sources)
libledger_testpoints_la_CPPFLAGS = $(AM_CPPFLAGS) -DCUBUDGET_TESTPOINTS

EXTRA_DIST += docs/LEDGER.md
