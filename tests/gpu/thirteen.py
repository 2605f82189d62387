#!/usr/bin/env python3
"""The job itself on a real card: thirteen unmodified PyTorch runners of a BERT-base-sized encoder, a process and a slot each, whose footprints are
half again as much as the budget of 8 GiB, all serve their requests with the same answers as at first.

usage: thirteen.py BUILD_DIRECTORY   Exit 77 where there is no card or no PyTorch. ROUNDS=N (8) requests of each, SEED=N. Some three minutes.
"""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

RUNNERS = 13


def serve(seed, rounds):
    import torch

    torch.manual_seed(seed)
    layer = torch.nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 12, enable_nested_tensor=False).cuda().half().eval()
    request = torch.randn(8, 128, 768, device="cuda").half()
    chance = random.Random(seed)
    wrong, slowest = 0, 0.0
    with torch.no_grad():
        first = model(request).cpu()
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(rounds):
            time.sleep(chance.uniform(0, 3))
            started = time.monotonic()
            wrong += not torch.equal(model(request).cpu(), first)
            slowest = max(slowest, time.monotonic() - started)
    print(f"done wrong {wrong} slowest {slowest:.1f} s finite {bool(torch.isfinite(first).all())}", flush=True)


def main():
    build = os.path.abspath(sys.argv[1])
    if not os.path.exists("/dev/nvidiactl"):
        print("skipped: no NVIDIA card here (/dev/nvidiactl is not there)")
        return 77
    if subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, check=False).returncode != 0:
        print("skipped: this Python has no PyTorch")
        return 77
    seed, rounds = int(os.environ.get("SEED", "1")), int(os.environ.get("ROUNDS", "8"))
    cubudget = os.path.join(build, "cubudget")
    os.environ["CUBUDGET_DIR"] = tempfile.mkdtemp(prefix="cubudget-gpu-", dir="/dev/shm")
    started = time.monotonic()
    runners = [
        subprocess.Popen([cubudget, "run", "--budget", "8GiB", "--slot", f"bert{i}", "--wait", "5m", "--", sys.executable, os.path.abspath(__file__),
                          "serve", str(seed + i), str(rounds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(RUNNERS)
    ]
    failed = 0
    try:
        lines = [runner.stdout.readline().strip() for runner in runners]
        print(f"     {lines.count('ready')} of {RUNNERS} are ready after {time.monotonic() - started:.1f} s")
        dump = json.loads(subprocess.run([cubudget, "dump", "--json"], capture_output=True, text=True, check=True).stdout)
        held = sum(slot["used_bytes"] + slot["evicted_bytes"] for slot in dump["slots"])
        print(f"     footprints together: {held / 2**30:.2f} GiB")
        started = time.monotonic()
        for runner in runners:
            runner.stdin.write("go\n")
            runner.stdin.flush()
        ends = [runner.communicate(timeout=400)[0].strip() for runner in runners]
        took = time.monotonic() - started
        dump = json.loads(subprocess.run([cubudget, "dump", "--json"], capture_output=True, text=True, check=True).stdout)
        for line in ends:
            print("     ", line)
        peak = dump["devices"][0]["peak_bytes"]
        totals = {key: sum(slot[key] for slot in dump["slots"]) for key in ("refusals", "evictions", "restores", "waits")}
        checks = {
            f"all end well, in {took:.1f} s": all(runner.returncode == 0 for runner in runners),
            "every answer is the first one": all("wrong 0 " in line and "finite True" in line for line in ends),
            f"nobody is refused {totals}": totals["refusals"] == 0,
            "they needed more than the budget": held > 8 * 2**30 and totals["evictions"] > 0,
            # What the driver takes at a first launch without being asked (some 100 MiB of modules) is found out afterwards.
            f"the books passed the budget by no more than modules: {peak / 2**20:.0f} MiB at most": peak <= 8 * 2**30 + RUNNERS * (100 << 20),
        }
        for name, ok in checks.items():
            print(f"{'ok  ' if ok else 'FAIL'} {name}")
            failed += not ok
        print(f"{len(checks) - failed} passed, {failed} failed, 0 skipped")
    finally:
        for runner in runners:
            if runner.poll() is None:
                runner.kill()
        shutil.rmtree(os.environ["CUBUDGET_DIR"], ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), int(sys.argv[3]))
    else:
        sys.exit(main())
