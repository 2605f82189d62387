"""Each family's charge on a real card, beside what NVML says the process holds. Part of check.py, which runs it."""
MIB = 1024 * 1024

# (client program, options of the run, what must hold: the most that the drift may move between lines, in MiB; lines: what the client is told and the
# bytes that its row must have grown by since "init", in MiB; None: not judged)
POOLS = ("tests/integration/client", [
    ("async 0 1000", 32), (f"async 1 {100 * MIB}", 128), ("asyncfree 1", 128), ("sync", 32), ("asyncfree 0", 32),
    ("eventsync", 0), (f"async 0 {40 * MIB}", 64), ("free 0", 0), ("threshold 18446744073709551615", 0),
    (f"async 0 {100 * MIB}", 128), ("asyncfree 0", 128), ("sync", 128), ("trim 0", 0),
    ("newpool 0", 0), (f"frompool 0 {5 * MIB}", 32), ("delpool", 32), ("asyncfree 0", 32), ("sync", 0),
])
GRAPHS = ("tests/integration/client", [
    (f"graph 0 {300 * MIB} 1 0 0", 0), ("launch 0", 320), ("graphfree 0", 320), ("launch 0", 320), ("graphdestroy 0", 320),
    ("graphtrim", 320), ("graphfree 0", 320), ("graphtrim", 0), (f"graph 1 {40 * MIB} 3 1 0", 0), ("launch 1", 64),
    ("graphtrim", 0), (f"graph 3 {40 * MIB} 2 0 0", 0), ("launch 3", 128), ("graphfree 3", 128), ("graphtrim", None),
])
VMM = ("tests/integration/vmm_client", [
    (f"create 0 0 {20 * MIB}", 20), (f"map 0 0 {20 * MIB}", 20), ("release 0", 20), (f"unmap 0 {20 * MIB}", 0),
    (f"create 1 0 {128 * MIB}", 128), ("release 1", 0), (f"create 2 0 {2 * MIB}", 2), ("export 2 0", 2), ("import 3 0", 2),
    ("release 2", 2), ("release 3", 2), ("close 0", None),
])
ARRAYS = ("tests/integration/object_client", [
    ("array 0 4096 4096 0 32 1 0", 64), ("array 1 1025 1024 0 32 1 0", 70), ("array 2 131072 0 0 32 4 0", 86),
    ("array 3 128 128 128 32 1 0", 94), ("array 4 1024 1024 0 32 1 64", 94), ("mipmap 5 4096 4096 0 32 1 0 13", 180),
    ("destroy 0", 116), ("destroy 1", 110), ("destroy 2", 94), ("destroy 3", 86), ("destroy 4", 86), ("destroy 5", 0),
    ("limit 0 2048", None), ("limit 0 1024", None),
])
DRIFT_MOST = 4 * MIB


def row_of(check, pid):
    return [p for p in check.dump()["processes"] if p["pid"] == pid][0]


def family(check, name, start, program, lines):
    client = check.Client("--slot", name, program=program)
    pid = client.process.pid
    if client.ask(start) != "ok":
        check.report(f"{name}: starts", False)
        return
    before = row_of(check, pid)
    wrong = []
    for line, grown in lines:
        answer = client.ask(line)
        row = row_of(check, pid)
        charged = (row["used_bytes"] - before["used_bytes"]) / MIB
        drift = (row["drift_bytes"] or 0) - (before["drift_bytes"] or 0)
        print(f"   {name}: {line}: {answer}; charged {charged:g} MiB, drift {drift / MIB:+g} MiB")
        if not answer.startswith("ok") or abs(drift) > DRIFT_MOST or (grown is not None and charged != grown):
            wrong.append(f"{line}: {answer}, charged {charged:g}, expected {grown}, drift {drift / MIB:g}")
    check.report(f"{name}: charged what the card holds", not wrong, "; ".join(wrong))
    client.end()
    check.settled()


def check_families(check):
    family(check, "pools", "init", *POOLS)
    family(check, "graphs", "init", *GRAPHS)
    family(check, "vmm", "init 0", *VMM)
    family(check, "arrays", "init", *ARRAYS)


def check_small_budget(check):
    """Each family is refused with 2 at the budget, and the process goes on."""
    for name, program, start, command in (
            ("pools", "tests/integration/client", "init", f"async {{}} {64 * MIB}"),
            ("vmm", "tests/integration/vmm_client", "init 0", f"create {{}} 0 {64 * MIB}"),
            ("arrays", "tests/integration/object_client", "init", "array {} 4096 4096 0 32 1 0")):
        client = check.Client("--slot", name, "--limit", "1GiB", program=program)
        client.ask(start)
        answers = [client.ask(command.format(i)) for i in range(16)]
        granted = answers.count("ok")
        check.report(f"{name}: refused at the limit", 5 <= granted <= 8 and answers[granted:] == ["error 2"] * (16 - granted),
                     f"{granted} granted, then {answers[granted:granted + 1]}")
        client.end()
        check.settled()
