# The thread of each process with a context, and the helper that it asks for a card's room.
evict_sources = \
    src/evict/agent.c src/evict/agent.h \
    src/evict/checkpoint.c \
    src/evict/helper.c src/evict/helper.h \
    src/evict/mechanism.h \
    src/evict/passage.c src/evict/passage.h \
    src/evict/room.c src/evict/room.h
evict_cppflags = $(AM_CPPFLAGS) -DLIBDIR='"$(libdir)"' -DPKGLIBDIR='"$(pkglibdir)"'

noinst_LTLIBRARIES += libevict.la
libevict_la_SOURCES = $(evict_sources)
libevict_la_CPPFLAGS = $(evict_cppflags)

helperdir = $(pkglibdir)
helper_PROGRAMS = card-room
card_room_SOURCES = src/evict/card_room.c
card_room_LDFLAGS = $(AM_LDFLAGS) -Wl,--export-dynamic-symbol=cubudget_command
card_room_LDADD = libcudadriver.la libplatform.la -ldl
