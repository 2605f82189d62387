# The C API, a part of libcubudget.so: include/cubudget/cubudget.h.
api_sources = \
    src/api/api.h \
    src/api/device.c \
    src/api/error.c \
    src/api/metrics.c \
    src/api/pool.c \
    src/api/pressure.c \
    src/api/simulate.c \
    src/api/slot.c

nobase_include_HEADERS += include/cubudget/cubudget.h
