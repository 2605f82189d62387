"""A CUDA program that knows nothing of cubudget: holds GIB of device memory and checks its data.

usage: numba_runner.py GIB    It says when it is ready, waits for a line on standard input, and checks once more.
"""
import sys

import numpy as np
from numba import cuda

gib = float(sys.argv[1])
expected = np.arange(1 << 20, dtype=np.float32)

weights = cuda.device_array(int(gib * 2**30), np.uint8)  # what a model's weights would take
vectors = cuda.to_device(expected)
assert np.array_equal(vectors.copy_to_host(), expected)
free, total = cuda.current_context().get_memory_info()
print(f"ready: holds {gib:g} GiB; sees {free / 2**30:.2f} GiB free of {total / 2**30:.2f} GiB", flush=True)

sys.stdin.readline()
assert np.array_equal(vectors.copy_to_host(), expected)
print("done: its data is intact", flush=True)
