"""A Numba program that knows nothing of cubudget: moves arrays to the device and back. usage: numba_program.py [info]

What it prints does not depend on how much memory there is, except with "info", where it says what it sees.
"""
import sys

import numpy as np
from numba import cuda

rng = np.random.default_rng(7)
matrix = rng.random((1000, 777))
on_device = cuda.to_device(matrix)
empty = cuda.device_array((64, 1 << 16), np.float32)
empty.copy_to_device(np.full((64, 1 << 16), 2.5, np.float32))
copy = cuda.device_array_like(matrix)
copy.copy_to_device(on_device)
print("round trip", np.array_equal(on_device.copy_to_host(), matrix))
print("device to device", np.array_equal(copy.copy_to_host(), matrix))
print("sum", float(empty.copy_to_host().sum()))
part = on_device[10:20]
print("part", part.shape, np.array_equal(part.copy_to_host(), matrix[10:20]))
pinned = cuda.pinned_array(1000, np.int32)
pinned[:] = np.arange(1000)
stream = cuda.stream()
there = cuda.to_device(pinned, stream=stream)
back = there.copy_to_host(stream=stream)
stream.synchronize()
print("stream", int(back.sum()))
if "info" in sys.argv[1:]:
    free, total = cuda.current_context().get_memory_info()
    print("memory", total >> 20, free < total)
