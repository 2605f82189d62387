#!/usr/bin/env python3
"""Checks a built cubudget on a real card, in one run of a few minutes, and prints every figure.

usage: check.py BUILD_DIRECTORY        Exit 77 where there is no card. Needs no network and no build tools; frameworks that
the machine lacks are skipped by name. The simulator is not used: programs run on the machine's own driver.
"""
import json
import os
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import api
import families

MIB = 1 << 20
GIB = 1 << 30
BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else ".")
CUBUDGET = os.path.join(BUILD, "cubudget")
CLIENT = os.path.join(BUILD, "tests/integration/client")
STORY = os.path.join(BUILD, "tests/clients/story")
results = {"passed": 0, "failed": 0, "skipped": 0}


def report(name, ok, detail=""):
    results["passed" if ok else "failed"] += 1
    print(f"{'ok  ' if ok else 'FAIL'} {name}{': ' + detail if detail else ''}", flush=True)


def skip(name, reason):
    results["skipped"] += 1
    print(f"skip {name}: {reason}", flush=True)


def preloaded(command, *options, **extra):
    return subprocess.Popen([CUBUDGET, "run", *options, "--", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=extra.pop("stderr", subprocess.PIPE), text=True, **extra)


class Client:
    """The test client of tests/integration, on the real driver."""

    def __init__(self, *options, bare=False, program=None):
        command = [CLIENT if program is None else os.path.join(BUILD, program)]
        self.process = (subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) if bare
                        else preloaded(command, *options, stderr=None))

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, line, patience_s=60):
        self.tell(line)
        if not select.select([self.process.stdout], [], [], patience_s)[0]:
            raise TimeoutError(f"no answer to '{line}' in {patience_s} s")
        return self.process.stdout.readline().strip()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def dump():
    return json.loads(subprocess.run([CUBUDGET, "dump", "--json"], check=True, capture_output=True, text=True).stdout)


def smi_process_bytes(pid):
    lines = subprocess.run(["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"],
                           capture_output=True, text=True).stdout.splitlines()
    for line in lines:
        fields = line.split(",")
        if len(fields) == 2 and fields[0].strip() == str(pid):
            return int(fields[1]) * MIB
    return None


def used_of(pid):
    return sum(p["used_bytes"] for p in dump()["processes"] if p["pid"] == pid)


def settled():
    """Waits until the ledger holds nothing of a test before."""
    for _ in range(100):
        if all(d["available_bytes"] == d["budget_bytes"] for d in dump()["devices"]):
            return True
        time.sleep(0.1)
    return False


def check_books():
    """Charges against what the card says, kind by kind."""
    bare, judged = Client(bare=True), Client("--slot", "books")
    assert bare.ask("init") == "ok" and judged.ask("init") == "ok"
    pid = judged.process.pid
    context, by_driver = used_of(pid), smi_process_bytes(pid)
    report("context charge is what NVML says", by_driver is not None and abs(context - by_driver) <= 2 * MIB,
           f"ledger {context / MIB:.0f} MiB, NVML {by_driver / MIB if by_driver else 0:.0f} MiB")
    free, total = (int(x) for x in judged.ask("info").split()[1:])
    report("program sees the budget", total == 8 * GIB and free == 8 * GIB - context, f"free {free}, total {total}")
    for size in (1, 4096, 1 * MIB, 2 * MIB, 2 * MIB + 1, 20 * MIB, 1024 * MIB):
        before = used_of(pid)
        free_before = int(bare.ask("info").split()[1])
        answer = judged.ask(f"alloc 0 {size}")
        charge = used_of(pid) - before
        drop = free_before - int(bare.ask("info").split()[1])
        report(f"cuMemAlloc {size}", answer == "ok" and charge == drop, f"charged {charge / MIB:g} MiB, card lost {drop / MIB:g} MiB")
        judged.ask("free 0")
    for index in range(60):
        judged.ask(f"alloc {index} 1000")
    report("60 small ones share a block", used_of(pid) - context == 2 * MIB, f"{(used_of(pid) - context) / MIB:g} MiB")
    report("refused over the budget", judged.ask(f"alloc 61 {8 * GIB}") == "error 2")
    judged.ask(f"alloc 62 {512 * MIB}")
    free_before = int(bare.ask("info").split()[1])
    judged.ask("reset")
    given_back = int(bare.ask("info").split()[1]) - free_before
    left = used_of(pid)
    report("primary reset gives back", left <= 2 * MIB, f"ledger {left / MIB:g} MiB left, card got {given_back / MIB:g} MiB back")
    judged.end()
    bare.end()


def check_story():
    """What cuMemGetInfo, cuDeviceTotalMem and both forms of NVML tell a program: one story, by a handle and in the global scope."""
    for route in ("handle", "default"):
        out, _ = preloaded([STORY, route, str(GIB)], "--slot", "story").communicate()
        cuda = re.search(r"^cuda: total (\d+) free (\d+); total (\d+)$", out, re.M)
        nvml = re.search(r"^after$.*?^device 0: total (\d+) free (\d+) used (\d+); total (\d+) reserved (\d+) free (\d+) used (\d+)$",
                         out, re.M | re.S)
        if not cuda or not nvml:
            report(f"one story, {route}", False, out)
            continue
        total, free, alone = (int(x) for x in cuda.groups())
        told = [int(x) for x in nvml.groups()]
        report(f"one story, {route}", alone == total == 8 * 1024 and told == [total, free, total - free, total, 0, free, total - free],
               f"cuda {total} {free} {alone}, NVML {told} MiB")
        print("     " + "; ".join(line for line in out.splitlines() if line.startswith(("before", "errors", "NULL", "processes"))))
        settled()


def check_drift():
    """What NVML says the process holds is what the ledger says, within a block a kind."""
    judged = Client("--slot", "drift")
    judged.ask("init")
    judged.ask(f"alloc 0 {GIB}")
    process = [p for p in dump()["processes"] if p["pid"] == judged.process.pid][0]
    report("dump shows the driver's figure", process["driver_bytes"] is not None and abs(process["drift_bytes"]) <= 4 * MIB,
           f"used {process['used_bytes']}, driver {process['driver_bytes']}, drift {process['drift_bytes']}")
    books = subprocess.run([CUBUDGET, "check", "--books"], capture_output=True, text=True)
    report("check --books agrees", books.returncode == 0 and "skip" not in books.stdout, books.stdout.strip())
    judged.end()
    settled()


def check_death():
    """SIGKILL gives everything back; an orphaned child keeps it."""
    victim = Client("--slot", "victim")
    victim.ask("init")
    victim.ask(f"alloc 0 {2 * GIB}")
    victim.process.send_signal(signal.SIGKILL)
    victim.process.wait()
    started = time.monotonic()
    report("a killed process's bytes come back", settled(), f"{(time.monotonic() - started) * 1000:.0f} ms")
    parent = Client("--slot", "parent")
    parent.ask("init")
    parent.ask(f"alloc 0 {2 * GIB}")
    child = int(parent.ask("hold").split()[1])
    pid = parent.process.pid
    parent.process.send_signal(signal.SIGKILL)
    parent.process.wait()
    time.sleep(0.5)
    states = [p["state"] for p in dump()["processes"] if p["pid"] == pid]
    report("a child keeps a dead parent's memory", "ORPHANED" in [s.upper() for s in states], f"states {states}")
    os.kill(child, signal.SIGKILL)
    report("until it is gone", settled())


    # What the card does with the memory of a process that ends in order while a child of it lives: a figure, not a check.
    parent = Client("--slot", "orderly")
    parent.ask("init")
    before = int(subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
                                capture_output=True, text=True).stdout.split()[0])
    parent.ask(f"alloc 0 {2 * GIB}")
    child = int(parent.ask("hold").split()[1])
    parent.tell("quit")  # its child keeps the pipe open, so no answer and no end of file come
    parent.process.wait(60)
    time.sleep(0.5)
    after = int(subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
                               capture_output=True, text=True).stdout.split()[0])
    states = [(p["state"], p["used_bytes"] >> 20) for p in dump()["processes"] if p["slot"] == "orderly"]
    print(f"     a parent that exits in order while its child lives: card {before} MiB with a context, {after} MiB after; ledger {states}")
    os.kill(child, signal.SIGKILL)
    settled()


IDENTITY = """
import ctypes
driver = ctypes.CDLL("libcuda.so.1")
address = lambda f: ctypes.cast(f, ctypes.c_void_p).value
wrong = []
for name, version, symbol in [
    ("cuMemAlloc", 2000, "cuMemAlloc"), ("cuMemAlloc", 3020, "cuMemAlloc_v2"), ("cuMemAlloc", 12000, "cuMemAlloc_v2"),
    ("cuMemFree", 3020, "cuMemFree_v2"), ("cuMemAllocPitch", 3020, "cuMemAllocPitch_v2"),
    ("cuMemAllocManaged", 6000, "cuMemAllocManaged"), ("cuMemFreeAsync", 11020, "cuMemFreeAsync"),
    ("cuMemGetInfo", 2000, "cuMemGetInfo"), ("cuMemGetInfo", 3020, "cuMemGetInfo_v2"),
    ("cuDeviceTotalMem", 3020, "cuDeviceTotalMem_v2"), ("cuDevicePrimaryCtxRetain", 7000, "cuDevicePrimaryCtxRetain"),
    ("cuDevicePrimaryCtxReset", 7000, "cuDevicePrimaryCtxReset"), ("cuDevicePrimaryCtxReset", 11000, "cuDevicePrimaryCtxReset_v2"),
    ("cuDevicePrimaryCtxRelease", 7000, "cuDevicePrimaryCtxRelease"), ("cuCtxCreate", 3020, "cuCtxCreate_v2"),
    ("cuCtxCreate", 11040, "cuCtxCreate_v3"), ("cuCtxCreate", 12050, "cuCtxCreate_v4"), ("cuCtxDestroy", 4000, "cuCtxDestroy_v2"),
    ("cuGetProcAddress", 11030, "cuGetProcAddress"), ("cuGetProcAddress", 12000, "cuGetProcAddress_v2")]:
    pointer = ctypes.c_void_p()
    result = driver.cuGetProcAddress_v2(name.encode(), ctypes.byref(pointer), version, ctypes.c_uint64(0), None)
    if result or pointer.value != address(getattr(driver, symbol)):
        wrong.append(f"{name}@{version}")
print("same" if not wrong else "differ: " + " ".join(wrong))
"""


def check_identity():
    """cuGetProcAddress and dlsym give one pointer for one function, bare and preloaded: substitution rests on it."""
    bare = subprocess.run([sys.executable, "-c", IDENTITY], capture_output=True, text=True).stdout.strip()
    report("pointers are the same by either route, bare", bare == "same", bare)
    out, _ = preloaded([sys.executable, "-c", IDENTITY], "--slot", "identity").communicate()
    report("and preloaded", out.strip() == "same", out.strip())


def check_fail_fast():
    """What the first cuInit refuses on a real card, and what passes."""
    def init(**variables):
        environment = dict(os.environ, LD_PRELOAD=os.path.join(BUILD, ".libs/libcubudget.so"), **variables)
        done = subprocess.run([CLIENT], env=environment, input="init\n", capture_output=True, text=True)
        return done.returncode, done.stdout.strip(), done.stderr.strip()
    status, _, line = init(CUBUDGET_MIN_COMPUTE="99.0", CUBUDGET_LEDGER="fast")
    report("compute capability too low: 69", status == 69 and "99.0" in line, line)
    status, _, line = init(CUBUDGET_BUDGET="100TiB", CUBUDGET_LEDGER="fast-large")
    report("explicit budget above the card: 78", status == 78, line)
    status, said, line = init(CUDA_VISIBLE_DEVICES="", CUBUDGET_LEDGER="fast")
    report("devices hidden by the user: no device passes through", status == 0 and said == "error 100" and not line, said + line)


def timed(command, environment, rounds=7):
    times = []
    for _ in range(rounds):
        started = time.monotonic()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)
        times.append((time.monotonic() - started) * 1000)
    return statistics.median(times), min(times), max(times)


def check_costs():
    """Pair cost of cuMemAlloc and cuMemFree on the real driver, and the start of a process, alternating."""
    bare, judged = Client(bare=True), Client("--slot", "costs")
    for client in (bare, judged):
        client.ask("init")
    figures = {"bare": [], "preloaded": []}
    for _ in range(9):
        for name, client in (("bare", bare), ("preloaded", judged)):
            started = time.monotonic()
            answer = client.ask(f"random 4000 7 {16 * MIB}")
            figures[name].append((time.monotonic() - started) / 4000 * 1e6)
            assert answer.startswith("ok"), answer
    for name, values in figures.items():
        print(f"     alloc or free, random up to 16 MiB, {name}: median {statistics.median(values):.2f} us "
              f"({min(values):.2f} to {max(values):.2f})")
    bare.end()
    judged.end()
    environment = dict(os.environ, LD_PRELOAD=os.path.join(BUILD, ".libs/libcubudget.so"))
    print("     start of true, bare: median %.2f ms (%.2f to %.2f)" % timed(["true"], dict(os.environ), 51))
    print("     start of true, preloaded: median %.2f ms (%.2f to %.2f)" % timed(["true"], environment, 51))


FRAMEWORKS = {
    "torch": ("""
import torch
free, total = torch.cuda.mem_get_info()
assert total == {budget}, total
x = torch.ones(256, 1024, 1024, device="cuda")
assert float(x.sum()) == 256 * 1024 * 1024
print("fits")
try:
    y = torch.empty({budget}, dtype=torch.uint8, device="cuda")
    print("granted")
except torch.OutOfMemoryError as error:
    print("refused")
assert float((x @ x[0]).sum()) > 0
print("goes on")
""", "fits refused goes on"),
    "cupy": ("""
import cupy
x = cupy.ones((256, 1024, 1024), dtype=cupy.float32)
assert float(x.sum()) == 256 * 1024 * 1024
print("fits")
try:
    y = cupy.empty({budget}, dtype=cupy.uint8)
    print("granted")
except cupy.cuda.memory.OutOfMemoryError:
    print("refused")
assert float(x[0].sum()) > 0
print("goes on")
""", "fits refused goes on"),
    "jax": ("""
import jax, jax.numpy as jnp
x = jnp.ones((64, 1024, 1024))
assert float(x.sum()) == 64 * 1024 * 1024
print("fits")
""", "fits"),
    "triton": ("""
import torch, triton, triton.language as tl
@triton.jit
def add(x, y, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(y + i, tl.load(x + i, i < n) + 1, i < n)
x = torch.zeros(1 << 20, device="cuda"); y = torch.empty_like(x)
add[(1024,)](x, y, 1 << 20, 1024)
assert float(y.sum()) == 1 << 20
print("fits")
""", "fits"),
}


def check_frameworks():
    for name, (program, expected) in FRAMEWORKS.items():
        if subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True).returncode:
            skip(name, "not installed")
            continue
        with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as file:
            file.write(program.replace("{budget}", str(8 * GIB)))
        environment = dict(os.environ, XLA_PYTHON_CLIENT_PREALLOCATE="false")
        process = preloaded([sys.executable, file.name], "--slot", name, env=environment)
        try:
            out, err = process.communicate(timeout=150)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
        os.unlink(file.name)
        said = " ".join(out.split())
        report(name, process.returncode == 0 and said == expected,
               said + ("" if process.returncode == 0 else f" (exit {process.returncode}) {err[-400:]}"))
        settled()


def check_two_torches():
    """Two PyTorch processes under one budget: the sum is held, and the dump names both."""
    program = ("import torch,sys; x = torch.ones(512, 1024, 1024, device='cuda'); print('ready', flush=True);"
               "sys.stdin.readline(); print(float(x.sum()))")
    if subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode:
        return skip("two PyTorch processes", "not installed")
    both = [preloaded([sys.executable, "-c", program], "--slot", slot, stderr=None) for slot in ("one", "two")]
    ready = [p.stdout.readline().strip() for p in both]
    time.sleep(4)  # within so long each has charged what the driver loaded by itself
    state = dump()
    lines = [(p["slot"], p["used_bytes"], smi_process_bytes(p["pid"]) or 0) for p in state["processes"]]
    for slot, used, by_driver in lines:
        print(f"     slot {slot}: ledger {used / MIB:.0f} MiB, NVML {by_driver / MIB:.0f} MiB, drift {(by_driver - used) / MIB:.0f} MiB")
    subprocess.run([CUBUDGET, "dump"], check=True)
    books = subprocess.run([CUBUDGET, "check", "--books"], capture_output=True, text=True)
    report("PyTorch's books agree with the card", books.returncode == 0 and "skip" not in books.stdout, books.stdout.strip())
    answers = [p.communicate("\n")[0].strip() for p in both]
    report("two PyTorch processes", ready == ["ready"] * 2 and len(lines) == 2 and answers == [str(512.0 * 1024 * 1024)] * 2,
           f"answers {answers}")


def families_charge():
    families.check_families(sys.modules[__name__])


def interface():
    api.check_api(sys.modules[__name__])


def families_stop():
    families.check_small_budget(sys.modules[__name__])


def main():
    if not os.path.exists("/dev/nvidiactl"):
        print("skipped: no NVIDIA card here (/dev/nvidiactl is not there)")
        return 77
    os.environ["CUBUDGET_DIR"] = state = tempfile.mkdtemp(prefix="cubudget-gpu-", dir="/dev/shm")
    print(time.strftime("%Y-%m-%d"), subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.used",
                                                      "--format=csv,noheader"], capture_output=True, text=True).stdout.strip())
    try:
        for check in (check_identity, check_fail_fast, check_frameworks, check_two_torches, check_books, check_story, check_drift, interface, families_charge, families_stop,
                      check_death, check_costs):
            try:
                check()
            except Exception as error:  # the rest of the run is still worth having
                report(check.__name__, False, repr(error))
    finally:
        shutil.rmtree(state, ignore_errors=True)
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**results))
    return 1 if results["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
