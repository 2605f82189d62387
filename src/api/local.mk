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

cubudgetincludedir = $(includedir)/cubudget
cubudgetinclude_HEADERS = include/cubudget/cubudget.h

pkgconfigdir = $(libdir)/pkgconfig
pkgconfig_DATA = cubudget.pc
if SIMULATOR
pkgconfig_DATA += cubudget-sim.pc
endif

# The Python module is one file and needs no building.
EXTRA_DIST += python/cubudget/__init__.py
if HAVE_PYTHON
cubudgetpythondir = $(pythondir)/cubudget
cubudgetpython_DATA = python/cubudget/__init__.py
endif
