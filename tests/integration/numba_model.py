"""A model's runner in Numba, for the trial of that name: takes its memory once, then writes and reads parts of it, with pauses,
each time against copies that it keeps. Knows nothing of cubudget. usage: numba_model.py SEED ROUNDS MEBIBYTES GATE

It says "holds" when it has its memory, and begins when there is a file GATE.

Numba compiles kernels for a card, which the simulator has not got; so this one copies: pageable and pinned, in the default stream and
in another, from the host and within the card. Ends with 0, with 1 where bytes were wrong, with 3 where memory was refused.
"""
import os
import random
import sys
import time

import numpy as np
from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError

WINDOWS, WORDS = 12, 4096


def run(choose, rounds, mebibytes, gate):
    """All rounds; returns how many windows were read back wrong, and how many were read."""
    words = mebibytes * 262144
    noise = np.random.default_rng(choose.getrandbits(32))
    pieces = [cuda.device_array(words * share // 16, np.uint32) for share in (9, 5, 2)]
    windows = []
    for index in range(WINDOWS):
        piece = pieces[index % 3]
        at = 0 if index < 3 else choose.randrange(index * piece.size // WINDOWS, (index + 1) * piece.size // WINDOWS - WORDS)
        windows.append(piece[at : at + WORDS])
    held = [noise.integers(0, 1 << 32, WORDS, np.uint32) for _ in windows]
    for window, copy in zip(windows, held):
        window.copy_to_device(copy)
    stream, pinned = cuda.stream(), cuda.pinned_array(WORDS, np.uint32)
    wrong = read = 0
    print("holds", mebibytes, flush=True)
    while not os.path.exists(gate):
        time.sleep(0.01)
    for _ in range(rounds):
        time.sleep(choose.uniform(0.1, 0.6) if choose.random() < 0.2 else choose.uniform(0, 0.02))
        for _ in range(4):
            index, way = choose.randrange(WINDOWS), choose.randrange(3)
            if way == 0:
                held[index] = noise.integers(0, 1 << 32, WORDS, np.uint32)
                windows[index].copy_to_device(held[index])
            elif way == 1:
                pinned[:] = held[index] = noise.integers(0, 1 << 32, WORDS, np.uint32)
                windows[index].copy_to_device(pinned, stream=stream)
                stream.synchronize()
            else:
                other = choose.randrange(WINDOWS)
                windows[index].copy_to_device(windows[other])
                held[index] = held[other].copy()
            index = choose.randrange(WINDOWS)
            wrong += not np.array_equal(windows[index].copy_to_host(), held[index])
            read += 1
    for window, copy in zip(windows, held):
        wrong += not np.array_equal(window.copy_to_host(), copy)
        read += 1
    return wrong, read


def main():
    seed, rounds, mebibytes = (int(word) for word in sys.argv[1:4])
    try:
        wrong, read = run(random.Random(seed), rounds, mebibytes, sys.argv[4])
    except CudaAPIError as error:
        print(f"numba {seed}: {error}", flush=True)
        return 3 if "CUDA_ERROR_OUT_OF_MEMORY" in str(error) else 1
    print(f"numba {seed}: done: rounds {rounds} compared {read} wrong {wrong}", flush=True)
    return 1 if wrong else 0


sys.exit(main())
