"""The Python module on the simulated GPU. Usage: python_module.py DIRECTORY; prints a line for each check that fails."""
import select
import subprocess
import sys
import threading

import cubudget

MIB = 1 << 20
GIB = 1 << 30
failed = []
passed = 0


def expect(what, wanted, got):
    global passed
    if wanted == got:
        passed += 1
    else:
        failed.append(what)
        print(f"FAILED {what}\n  wanted: {wanted!r}\n  got:    {got!r}")


def expect_raises(what, error, call):
    try:
        call()
    except error as raised:
        expect(what, True, len(str(raised)) > 5)
        return raised
    expect(what, error.__name__, "no error")
    return None


def slot_used(name):
    return sum(entry.used_bytes for entry in cubudget.snapshot().slots if entry.name == name)


cubudget.simulate("memory=16GiB", sys.argv[1])
expect_raises("there is no ledger yet", cubudget.LedgerError, cubudget.snapshot)
expect("a GPU", True, cubudget.available())
expect("how many", 1, cubudget.device_count())
expect_raises("a device that is not there", cubudget.NoDeviceError, lambda: cubudget.Pool(7))

pool = cubudget.Pool(limit_bytes=6 * GIB)
expect("own slot", "python-test", cubudget.current_slot())
with cubudget.slot("encoder"):
    expect("pushed slot", "encoder", cubudget.current_slot())
    weights = pool.allocate(300 * MIB)
with cubudget.slot("reranker"):
    other = pool.allocate(100 * MIB)
expect("popped", "python-test", cubudget.current_slot())
expect("encoder pays", 300 * MIB, slot_used("encoder"))
expect("reranker pays", 100 * MIB, slot_used("reranker"))
expect("pool counts", 400 * MIB, pool.used_bytes)
try:
    with cubudget.slot("encoder"):
        raise KeyError
except KeyError:
    pass
expect("popped after an exception", "python-test", cubudget.current_slot())
expect_raises("a pop too many", cubudget.Error, cubudget.slot_pop)
expect_raises("a bad name", ValueError, lambda: cubudget.slot_push("a/b"))
expect_raises("a name with a NUL", ValueError, lambda: cubudget.slot_push("a\0b"))
expect_raises("a size beyond 64 bits", ValueError, lambda: pool.allocate((1 << 64) + 5))
expect_raises("a negative size", ValueError, lambda: pool.allocate(-1))
expect_raises("a limit beyond 64 bits", ValueError, lambda: cubudget.Pool(0, (1 << 64) + 1))
with cubudget.slot("reranker"):
    thread = threading.Thread(target=weights.free)
    thread.start()
    thread.join()
expect("freed by another thread", (0, 100 * MIB), (slot_used("encoder"), slot_used("reranker")))
weights.free()
other.free()

shown = cubudget.snapshot()
expect("budget", 8 * GIB, shown.budget_bytes)
expect("rows", ["encoder", "python-test", "reranker"], sorted(entry.slot for entry in shown.processes))
expect("states", {cubudget.ProcessState.LIVE}, {entry.state for entry in shown.processes})
expect("activities", set(), {entry.activity for entry in shown.processes} - {cubudget.Activity.NO_CONTEXT, cubudget.Activity.RUNNING})
expect("waiting", {None}, {entry.waiting_for for entry in shown.processes})
expect("one process, one moment", 1, len({entry.activity_since for entry in shown.processes}))
expect("kinds", shown.devices[0].used_bytes, sum(entry.by_kind["context"] for entry in shown.processes))
expect("no limit", None, shown.slots[0].limit_bytes)
expect("uuid", "GPU-", shown.devices[0].uuid[:4])

too_much = expect_raises("above the pool's limit", cubudget.OutOfMemoryError, lambda: pool.allocate(7 * GIB))
expect("which is a MemoryError", True, isinstance(too_much, MemoryError))
wide = cubudget.Pool()
too_much = expect_raises("above the budget", cubudget.OutOfMemoryError, lambda: wide.allocate(9 * GIB))
expect("with CUDA's code", 2, too_much.cuda_error)
wide.close()

expect("levels", [0, 1, 2, 3], [int(cubudget.pressure_of(used, 100)) for used in (49, 50, 81, 96)])
with cubudget.Watch() as watch:
    expect("level", cubudget.Pressure.LOW, watch.level)
    expect_raises("no change", TimeoutError, lambda: watch.wait(0))
    with pool.allocate(5 * GIB):
        expect("told", (1, cubudget.Pressure.MEDIUM), (lambda c: (c.generation, c.level))(watch.wait(30)))
    expect("readable", True, bool(select.select([watch], [], [], 30)[0]))
    expect("told again", cubudget.Pressure.LOW, watch.wait(0).level)

# Another process waits, with nothing of CUDA.
waiter = subprocess.Popen(
    [sys.executable, "-c", "import cubudget\n"
     "with cubudget.Watch() as watch:\n    print('ready', flush=True)\n    print(watch.wait(30).level.name)"],
    stdout=subprocess.PIPE, text=True)
expect("the waiter", "ready\n", waiter.stdout.readline())
with pool.allocate(5 * GIB):
    expect("is told", "MEDIUM\n", waiter.stdout.readline())
expect("and ends", 0, waiter.wait())

left = pool.allocate(MIB)
pool.close()
pool.close()
closed = expect_raises("a buffer of a closed pool", cubudget.Error, left.free)
expect("has a name", "CUBUDGET_ERROR_POOL_CLOSED", closed.name)
expect("all is given back", 0, cubudget.snapshot().devices[0].used_bytes)
print(f"{passed} passed, {len(failed)} failed")
sys.exit(1 if failed else 0)
