# The platform layer; libplatform_testpoints.la is the same with the crash tests' named points built in.
platform_sources = \
    src/platform/biased_lock.c src/platform/biased_lock.h \
    src/platform/card.c src/platform/card.h \
    src/platform/env.c src/platform/env.h \
    src/platform/futex.c src/platform/futex.h \
    src/platform/gate.c src/platform/gate.h \
    src/platform/liveness.c src/platform/liveness.h \
    src/platform/log.c src/platform/log.h \
    src/platform/shm.c src/platform/shm.h \
    src/platform/size.c src/platform/size.h \
    src/platform/testpoint.h \
    src/platform/thread.c src/platform/thread.h \
    src/platform/words.c src/platform/words.h

noinst_LTLIBRARIES += libplatform.la
libplatform_la_SOURCES = $(platform_sources)

check_LTLIBRARIES += libplatform_testpoints.la
libplatform_testpoints_la_SOURCES = $(platform_sources) src/platform/testpoint.c
libplatform_testpoints_la_CPPFLAGS = $(AM_CPPFLAGS) -DCUBUDGET_TESTPOINTS
