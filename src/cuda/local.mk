# The real driver and NVML, as the preload calls them; our own declarations of both. driver.h expands the table of hooks.
noinst_LTLIBRARIES += libcudadriver.la
libcudadriver_la_SOURCES = \
    src/cuda/cuda_abi.h \
    src/cuda/driver.c src/cuda/driver.h \
    src/cuda/nvml.c src/cuda/nvml.h \
    src/cuda/nvml_abi.h \
    src/cuda/nvml_library.c src/cuda/nvml_library.h \
    src/cuda/object.c src/cuda/object.h \
    src/interpose/hooks.def src/interpose/nvml_hooks.def

EXTRA_DIST += src/cuda/symbols.tsv
