# The real driver and NVML, as the preload calls them; our own declarations of both. driver.h expands the table of hooks.
noinst_LTLIBRARIES += libcudadriver.la
libcudadriver_la_SOURCES = \
    src/cuda/cuda_abi.h \
    src/cuda/driver.c src/cuda/driver.h \
    src/cuda/nvml.c src/cuda/nvml.h \
    src/cuda/nvml_abi.h \
    src/interpose/hooks.def

EXTRA_DIST += src/cuda/symbols.tsv
