"""Reaches the driver through ctypes: usage route_ctypes.py FILE BYTES [LOOK]. FILE "" means the global scope.

Does and says what tests/clients/route_run.c does.
"""
import ctypes
import os
import subprocess
import sys

name, size = sys.argv[1], int(sys.argv[2])
look = sys.argv[3] if len(sys.argv) > 3 else None
if name:
    driver = ctypes.CDLL(name)
else:
    keep = ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
    driver = ctypes.CDLL(None)


def call(where, function, *arguments):
    result = function(*arguments)
    if result:
        print(f"error {result} at {where}")
        sys.exit(0)


def see():
    if look:
        sys.stdout.flush()
        environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        subprocess.run(look, shell=True, check=True, env=environment)


context = ctypes.c_void_p()
pointer = ctypes.c_uint64()
free, total = ctypes.c_size_t(), ctypes.c_size_t()
call("init", driver.cuInit, 0)
call("context", driver.cuDevicePrimaryCtxRetain, ctypes.byref(context), 0)
call("context", driver.cuCtxSetCurrent, context)
call("alloc", driver.cuMemAlloc_v2, ctypes.byref(pointer), ctypes.c_size_t(size))
call("info", driver.cuMemGetInfo_v2, ctypes.byref(free), ctypes.byref(total))
print(f"ok sees {total.value >> 20} MiB")
see()
call("free", driver.cuMemFree_v2, pointer)
see()
