#!/usr/bin/env python3
"""Eviction on a real card: what is moved out comes back as it was, and thirteen runners fit where five do.

usage: evict.py BUILD_DIRECTORY      Exit 77 where there is no card. Needs a driver with cuCheckpointProcess* (570 and newer), some
9 GiB of the card free, 20 GiB of host memory for the images, and five minutes. PyTorch is skipped where it is missing.
SEED=N and ROUNDS=N (12) are those of the thirteen. The figures it prints are of the card that it ran on.
"""
import json
import os
import random
import re
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time

MIB = 1 << 20
GIB = 1 << 30
BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else ".")
CUBUDGET = os.path.join(BUILD, "cubudget")
CLIENT = os.path.join(BUILD, "tests/integration/client")
RUNNER = os.path.join(BUILD, "tests/integration/runner")
TALLY = os.path.join(BUILD, "tests/integration/tally")
LAUNCH = os.path.join(BUILD, "bench/evict")
results = {"passed": 0, "failed": 0, "skipped": 0}


def report(name, ok, detail=""):
    results["passed" if ok else "failed"] += 1
    print(f"{'ok  ' if ok else 'FAIL'} {name}{': ' + detail if detail else ''}", flush=True)


def skip(name, reason):
    results["skipped"] += 1
    print(f"skip {name}: {reason}", flush=True)


class Program:
    """A program under `cubudget run` that answers lines with lines."""

    def __init__(self, slot, command, *options):
        self.slot = slot
        self.process = subprocess.Popen([CUBUDGET, "run", "--slot", slot, *options, "--", *command], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, bufsize=1)

    def hear(self, patience_s=120):
        if not select.select([self.process.stdout], [], [], patience_s)[0]:
            raise TimeoutError(f"{self.slot} said nothing for {patience_s} s")
        return self.process.stdout.readline().strip()

    def ask(self, line, patience_s=120):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.hear(patience_s)

    def end(self):
        self.process.stdin.close()
        return self.process.wait(60)


def smi(*fields):
    return subprocess.run(["nvidia-smi", *fields, "--format=csv,noheader,nounits"], capture_output=True, text=True).stdout


def card_used_mib():
    return int(smi("--query-gpu=memory.used").split()[0])


def held_mib(pid):
    for line in smi("--query-compute-apps=pid,used_memory").splitlines():
        fields = line.split(",")
        if len(fields) == 2 and fields[0].strip() == str(pid):
            return int(fields[1])
    return 0


def dump():
    return json.loads(subprocess.run([CUBUDGET, "dump", "--json"], check=True, capture_output=True, text=True).stdout)


def process_of(pid):
    return next((p for p in dump()["processes"] if p["pid"] == pid), None)


def evict(slot):
    """Evicts a slot and waits for that; what the command said, and the seconds it took."""
    started = time.monotonic()
    done = subprocess.run([CUBUDGET, "evict", slot, "--wait=60s"], capture_output=True, text=True)
    return done.returncode, (done.stdout + done.stderr).strip(), time.monotonic() - started


def wait_resident():
    """Longer than a process is left alone after it came back."""
    time.sleep(0.8)


def check_client():
    """A C program whose every byte is looked at, five times over."""
    client = Program("client", [CLIENT])
    report("client starts", client.ask("init") == "ok")
    sizes = [700 * MIB, 300 * MIB, 3 * MIB, 4096]
    for index, size in enumerate(sizes):
        assert client.ask(f"alloc {index} {size}") == "ok"
        assert client.ask(f"write {index} {17 + index} {size}") == "ok"
    pid = client.process.pid
    for turn in range(5):
        wait_resident()
        status, said, took = evict("client")
        state = process_of(pid)
        held = held_mib(pid)
        report(f"client evicted, {turn + 1}", status == 0 and state["state"] == "evicted" and state["used_bytes"] == 0 and held == 0,
               f"{took * 1000:.0f} ms, card {held} MiB, evicted {state['evicted_bytes'] / MIB:.0f} MiB; {said}")
        started = time.monotonic()
        client.ask("read 3 20 4096")
        restored = time.monotonic() - started
        answers = [client.ask(f"read {index} {17 + index} {size}") for index, size in enumerate(sizes)]
        state = process_of(pid)
        report(f"client restored, {turn + 1}", answers == ["ok"] * len(sizes) and state["state"] == "running",
               f"{restored * 1000:.0f} ms until its first call returned; {answers}")
    books = subprocess.run([CUBUDGET, "check", "--books"], capture_output=True, text=True)
    report("the books agree afterwards", books.returncode == 0, books.stdout.strip())
    client.end()


TORCH = """
import sys, torch
torch.manual_seed(7)
layers = torch.nn.Sequential(*[torch.nn.Linear(2048, 2048) for _ in range(24)]).cuda().half()
still = torch.randn(16, 2048, device="cuda").half()
big = torch.arange(256 << 20, device="cuda", dtype=torch.int32)
side = torch.cuda.Stream()
with torch.no_grad(), torch.cuda.stream(side):
    for _ in range(3):
        layers(still)
torch.cuda.synchronize()
graph = torch.cuda.CUDAGraph()
with torch.no_grad(), torch.cuda.graph(graph):
    out = layers(still)
def answer():
    graph.replay()
    with torch.no_grad():
        eager = layers(still)
    torch.cuda.synchronize()
    return f"{float(out.float().sum())!r} {float(eager.float().sum())!r} {int(big.sum())}"
print(answer(), flush=True)
for line in sys.stdin:
    print(answer(), flush=True)
"""


def check_torch():
    if subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode:
        return skip("PyTorch", "not installed")
    torch = Program("torch", [sys.executable, "-c", TORCH])
    before = torch.hear()
    for turn in range(3):
        wait_resident()
        status, said, took = evict("torch")
        held = held_mib(torch.process.pid)
        started = time.monotonic()
        after = torch.ask("again")
        report(f"PyTorch with a captured graph, {turn + 1}", status == 0 and held == 0 and after == before,
               f"out {took * 1000:.0f} ms, card {held} MiB, back with an answer {(time.monotonic() - started) * 1000:.0f} ms; {after} {said}")
    torch.end()


def tally():
    return subprocess.run([TALLY], capture_output=True, text=True).stdout


class Peak(threading.Thread):
    """The most the card held above what it held before, asked ten times a second."""

    def __init__(self):
        super().__init__(daemon=True)
        self.idle_mib = card_used_mib()
        self.most_mib, self.over = 0, False

    def run(self):
        while not self.over:
            self.most_mib = max(self.most_mib, card_used_mib() - self.idle_mib)
            time.sleep(0.1)

    def end(self):
        self.over = True
        self.join()
        return self.most_mib


def check_thirteen():
    """527 MiB of context and 1,200 MiB each, 21.9 GiB in all, in 8 GiB."""
    seed = int(os.environ.get("SEED", random.randrange(1 << 16)))
    rounds = int(os.environ.get("ROUNDS", 12))
    print(f"     SEED={seed} ROUNDS={rounds}")
    gate = os.path.join(os.environ["CUBUDGET_DIR"], "gate")
    peak, started = Peak(), time.monotonic()
    peak.start()
    runners = [Program(f"runner{i}", [RUNNER, f"name=runner{i}", f"seed={seed + i}", f"rounds={rounds}", "bytes=1200", "idle=50",
                                      "rest=3000", "scratch=32", f"gate={gate}"]) for i in range(13)]
    heard = [runner.hear(240) for runner in runners]
    report("all thirteen hold their memory", all("holds" in line for line in heard), f"{time.monotonic() - started:.1f} s")
    subprocess.run([CUBUDGET, "dump"], check=False)
    open(gate, "w").close()
    ends = [runner.hear(400) for runner in runners]
    statuses = [runner.process.wait(60) for runner in runners]
    took = time.monotonic() - started
    for line in ends:
        print("    ", line)
    most = peak.end()
    report("all thirteen end well", statuses == [0] * 13, f"{took:.1f} s, statuses {statuses}")
    report("every window is right", all(" wrong 0 " in line for line in ends))
    report("nobody is refused", all(" refused 0 " in line for line in ends))
    # NVML's figure takes the card's own bookkeeping in: some MiB a process.
    report("the card held no more than the budget", most <= 8 * 1024 + 64, f"{most} MiB at most, sampled")
    print("\n".join("     " + line for line in tally().splitlines()))
    report("evictions and restores", re.search(r"^evict [1-9]", tally(), re.M) is not None)


def check_launches():
    """A loop of launches and stream queries, bare and with eviction enabled and not needed, in turn."""
    figures = {"bare": [], "preloaded": []}
    for _ in range(7):
        for name, command in (("bare", []), ("preloaded", [CUBUDGET, "run", "--slot", "launch", "--"])):
            figures[name].append(float(subprocess.run([*command, LAUNCH, "launch", "200000"], capture_output=True, text=True).stdout))
    bare, preloaded = (sorted(figures[name])[3] for name in ("bare", "preloaded"))
    report("launches at 0.97 of bare speed", bare / preloaded >= 0.97,
           f"bare {bare:.0f} ns ({min(figures['bare']):.0f} to {max(figures['bare']):.0f}), preloaded {preloaded:.0f} ns "
           f"({min(figures['preloaded']):.0f} to {max(figures['preloaded']):.0f}), {bare / preloaded:.3f}")


def main():
    if not os.path.exists("/dev/nvidiactl"):
        print("skipped: no NVIDIA card here (/dev/nvidiactl is not there)")
        return 77
    os.environ["CUBUDGET_DIR"] = state = tempfile.mkdtemp(prefix="cubudget-gpu-", dir="/dev/shm")
    print(time.strftime("%Y-%m-%d"), smi("--query-gpu=name,driver_version,memory.total,memory.used").strip())
    try:
        for check in (check_client, check_torch, check_launches, check_thirteen):
            try:
                check()
            except Exception as error:  # the rest of the run is still worth having
                report(check.__name__, False, repr(error))
                subprocess.run([CUBUDGET, "dump"], check=False)
    finally:
        shutil.rmtree(state, ignore_errors=True)
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**results))
    return 1 if results["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
