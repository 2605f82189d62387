"""Asks NVML and the driver as pynvml does, through ctypes: usage story_ctypes.py BYTES. Prints what story_run.c prints of one device."""
import ctypes
import sys


class Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class Memory2(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint), ("total", ctypes.c_ulonglong), ("reserved", ctypes.c_ulonglong),
                ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


nvml = ctypes.CDLL("libnvidia-ml.so.1")
device = ctypes.c_void_p()


def function(name):
    return getattr(nvml, name)


def must(result):
    if result:
        sys.exit(f"error {result}")


def tell():
    first, second = Memory(), Memory2(version=ctypes.sizeof(Memory2) | 2 << 24)
    must(function("nvmlDeviceGetMemoryInfo")(device, ctypes.byref(first)))
    must(function("nvmlDeviceGetMemoryInfo_v2")(device, ctypes.byref(second)))
    print(f"device 0: total {first.total >> 20} free {first.free >> 20} used {first.used >> 20}; "
          f"total {second.total >> 20} reserved {second.reserved >> 20} free {second.free >> 20} used {second.used >> 20}")


must(function("nvmlInit_v2")())
must(function("nvmlDeviceGetHandleByIndex_v2")(0, ctypes.byref(device)))
print("before cuInit")
tell()
driver = ctypes.CDLL("libcuda.so.1")
context, pointer = ctypes.c_void_p(), ctypes.c_uint64()
free, total, alone = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_size_t()
must(driver.cuInit(0))
must(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
must(driver.cuCtxSetCurrent(context))
must(driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(int(sys.argv[1]))))
must(driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
must(driver.cuDeviceTotalMem_v2(ctypes.byref(alone), 0))
print(f"after\ncuda: total {total.value >> 20} free {free.value >> 20}; total {alone.value >> 20}")
tell()
