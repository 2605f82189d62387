"""The C interface on a real card, for check.py: how long an allocation and a free take, two slots in one process, pressure, misuse. By
itself: api.py BUILD_DIRECTORY, in a process that uses the real driver; prints one line of JSON."""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
HERE = os.path.dirname(os.path.abspath(__file__))


def library(build):
    return os.path.join(build, ".libs/libcubudget.so")


def environment(build, directory):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("CUBUDGET_") and key != "LD_PRELOAD"}
    return {**clean, "CUBUDGET_LIBRARY": library(build), "CUBUDGET_DIR": directory, "CUBUDGET_BUDGET": "8GiB",
            "PYTHONPATH": os.path.join(HERE, "../../python"), "PYTHONDONTWRITEBYTECODE": "1"}


def timed(call):
    begin = time.perf_counter()
    result = call()
    return result, time.perf_counter() - begin


def latency(pool, size, rounds=200):
    """Medians in seconds of allocating and freeing, one buffer at a time."""
    allocations, frees = [], []
    for _ in range(rounds):
        buffer, took = timed(lambda: pool.allocate(size))
        allocations.append(took)
        frees.append(timed(buffer.free)[1])
    return statistics.median(allocations), statistics.median(frees)


def measure():
    begin = time.perf_counter()
    import cubudget
    figures = {"import_s": time.perf_counter() - begin}
    available, figures["available_s"] = timed(cubudget.available)
    pool = cubudget.Pool()
    figures["available"] = available
    figures["latency_s"] = {str(size // MIB): latency(pool, size) for size in (2 * MIB, 20 * MIB, 64 * MIB)}
    with cubudget.slot("encoder"):
        first = pool.allocate(300 * MIB)
    with cubudget.slot("reranker"):
        second = pool.allocate(500 * MIB)
    figures["slots"] = {entry.name: entry.used_bytes for entry in cubudget.snapshot().slots}
    first.free()
    second.free()
    figures["slots_after"] = {entry.name: entry.used_bytes for entry in cubudget.snapshot().slots}
    with cubudget.Watch() as watch, pool.allocate(5 << 30):
        figures["told"] = watch.wait(10).level.name
    left = pool.allocate(MIB)
    pool.close()
    try:
        left.free()
        figures["after_close"] = "no error"
    except cubudget.Error as error:
        figures["after_close"] = error.name
    figures["used_at_end"] = cubudget.snapshot().devices[0].used_bytes
    print(json.dumps(figures))


def check_api(check):
    """Called by check.py with itself."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        done = subprocess.run([sys.executable, os.path.abspath(__file__), "measure"], capture_output=True, text=True, timeout=120,
                              env=environment(check.BUILD, directory))
    if done.returncode != 0:
        check.report("api: runs", False, done.stderr.strip()[-300:])
        return
    seen = json.loads(done.stdout)
    check.report("api: a device is there, in under 100 ms", seen["available"] and seen["available_s"] < 0.1,
                 f"{seen['available_s'] * 1e3:.2f} ms")
    for size, (allocation, free) in seen["latency_s"].items():
        check.report(f"api: {size} MiB: allocated in under 1 ms, freed in under 0.5 ms", allocation < 1e-3 and free < 0.5e-3,
                     f"{allocation * 1e6:.0f} us and {free * 1e6:.0f} us")
    rows = {name: seen["slots"].get(name) for name in ("encoder", "reranker")}
    check.report("api: two slots of one process", rows == {"encoder": 300 * MIB, "reranker": 500 * MIB}, str(rows))
    rows = {name: seen["slots_after"].get(name) for name in ("encoder", "reranker")}
    check.report("api: which are credited", set(rows.values()) == {0}, str(rows))
    check.report("api: pressure is told", seen["told"] == "MEDIUM", seen["told"])
    check.report("api: a buffer of a closed pool", seen["after_close"] == "CUBUDGET_ERROR_POOL_CLOSED", seen["after_close"])
    check.report("api: all is credited", seen["used_at_end"] == 0, str(seen["used_at_end"]))


class _Reporter:
    """What check_api needs of check.py, for this file by itself."""

    def __init__(self, build):
        self.BUILD = build
        self.failed = 0

    def report(self, name, ok, detail=""):
        self.failed += not ok
        print(f"{'ok  ' if ok else 'FAIL'} {name}: {detail}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "measure":
        measure()
    else:
        if not os.path.exists("/dev/nvidiactl"):
            print("skipped: no NVIDIA card here (/dev/nvidiactl is not there)")
            sys.exit(77)
        reporter = _Reporter(os.path.abspath(sys.argv[1]))
        check_api(reporter)
        sys.exit(1 if reporter.failed else 0)
