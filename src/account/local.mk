# A process's own account. libaccount_testpoints.la is the same with the crash tests' named points built in.
account_sources = \
    src/account/account.c src/account/account.h \
    src/account/admit.c \
    src/account/allocmap.c src/account/allocmap.h \
    src/account/array_cost.c src/account/array_cost.h \
    src/account/arrays.c \
    src/account/books.c \
    src/account/contexts.c \
    src/account/drift.c \
    src/account/evicted.c src/account/evicted.h \
    src/account/follow.c \
    src/account/image_cost.c src/account/image_cost.h \
    src/account/implicit.c \
    src/account/modules.c \
    src/account/graphs.c \
    src/account/handles.c src/account/handles.h \
    src/account/overhead.c \
    src/account/policy.c src/account/policy.h \
    src/account/pools.c src/account/pools.h \
    src/account/reservoir.c src/account/reservoir.h \
    src/account/slots.c \
    src/account/state.h \
    src/account/waiting.c

noinst_LTLIBRARIES += libaccount.la
libaccount_la_SOURCES = $(account_sources)

check_LTLIBRARIES += libaccount_testpoints.la
libaccount_testpoints_la_SOURCES = $(account_sources)
libaccount_testpoints_la_CPPFLAGS = $(AM_CPPFLAGS) -DCUBUDGET_TESTPOINTS
