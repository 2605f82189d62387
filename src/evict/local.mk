# The thread of each process with a context.
noinst_LTLIBRARIES += libevict.la
libevict_la_SOURCES = src/evict/agent.c src/evict/agent.h
