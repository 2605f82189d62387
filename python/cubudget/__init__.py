"""cubudget for Python programs: slots, pressure, pools and the books of the ledger, through ctypes.

It needs nothing but libcubudget.so: the one that is preloaded (``cubudget run``), else the one that ``CUBUDGET_LIBRARY`` names,
else the one beside this module's installation or on the loader's path.

    import cubudget

    with cubudget.slot("encoder"):            # what this thread allocates is charged to that slot
        model = load_encoder()
    print(cubudget.snapshot().devices[0].pressure)
    with cubudget.Watch() as watch:           # from any process, without polling
        change = watch.wait(timeout=5.0)

Sizes are bytes, times seconds. Every function may be called from any thread, unless it says otherwise. Failures are exceptions:
``Error`` and its subclasses, with the library's sentence, its error code and the CUresult behind it.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import pathlib
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Optional, Tuple, Type

__all__ = [
    "Activity", "Buffer", "CubudgetError", "DeviceEntry", "Error", "InvalidError", "LedgerError", "NoDeviceError",
    "OutOfMemoryError", "Pool", "Pressure", "PressureChange", "ProcessEntry", "ProcessState", "SlotEntry", "Snapshot",
    "TimeoutExpired", "Waiting", "WaitingKind", "Watch", "available", "current_slot", "device_count", "pressure_of",
    "pressure_wait", "simulate", "slot", "slot_pop", "slot_push", "snapshot",
]

NAME_BYTES = 64
UUID_TEXT_BYTES = 48
COMMAND_BYTES = 65
REASON_BYTES = 49
KINDS = ("linear", "managed", "context", "pool", "vmm", "array", "graph", "module")
NO_LIMIT = 2**64 - 1


# --- the library ----------------------------------------------------------------------------------------------------------


def _candidates() -> Iterator[str]:
    for entry in os.environ.get("LD_PRELOAD", "").replace(":", " ").split():
        if os.path.basename(entry).startswith("libcubudget"):
            yield entry
    if os.environ.get("CUBUDGET_LIBRARY"):
        yield os.environ["CUBUDGET_LIBRARY"]
    for parent in pathlib.Path(__file__).resolve().parents:
        beside = parent / "libcubudget.so"
        if beside.is_file():
            yield str(beside)
    yield "libcubudget.so"


def _load() -> ctypes.CDLL:
    reason: Optional[OSError] = None
    for path in _candidates():
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            reason = error
    raise ImportError(f"libcubudget.so cannot be loaded; set CUBUDGET_LIBRARY to its path: {reason}")


_library = _load()


class Pressure(enum.IntEnum):
    """How full a device's budget is: low < 50 % <= medium <= 80 % < high <= 95 % < critical."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2
    CRITICAL = 3


class ProcessState(enum.IntEnum):
    """LIVE; ORPHANED: dead, and a child keeps its memory on the card; DYING: dead, and its memory is on its way back."""

    LIVE = 1
    ORPHANED = 2
    DYING = 3


class Activity(enum.IntEnum):
    """Where a living process's memory is: EVICTED is in host memory; LOST could not be restored, and is about to end."""

    NO_CONTEXT = 0
    RUNNING = 1
    ASKED = 2
    EVICTING = 3
    EVICTED = 4
    RESTORING = 5
    LOST = 6


class WaitingKind(enum.IntEnum):
    """What a process stands in line for: an allocation, or its own way back to the card."""

    ALLOCATION = 1
    RESTORE = 2


class _Device(ctypes.Structure):
    _fields_ = [("ordinal", ctypes.c_int)]


class _Pool(ctypes.Structure):
    _fields_ = [("handle", ctypes.c_uint64)]


class _Buffer(ctypes.Structure):
    _fields_ = [("pointer", ctypes.c_uint64), ("size", ctypes.c_size_t), ("pool", _Pool), ("handle", ctypes.c_uint64)]


class _PoolInfo(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t), ("device", _Device), ("pressure", ctypes.c_int), ("limit_bytes", ctypes.c_uint64),
        ("used_bytes", ctypes.c_uint64), ("peak_bytes", ctypes.c_uint64), ("available_bytes", ctypes.c_uint64),
        ("buffers", ctypes.c_uint64),
    ]


class _Change(ctypes.Structure):
    _fields_ = [
        ("generation", ctypes.c_uint64), ("level", ctypes.c_int), ("pending", ctypes.c_uint64), ("untold", ctypes.c_uint64),
    ]


class _LedgerEntry(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t), ("version", ctypes.c_uint32), ("budget_bytes", ctypes.c_uint64),
        ("devices", ctypes.c_uint), ("slots", ctypes.c_uint), ("processes", ctypes.c_uint),
        ("name", ctypes.c_char * NAME_BYTES),
    ]


class _DeviceEntry(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t), ("uuid", ctypes.c_char * UUID_TEXT_BYTES), ("name", ctypes.c_char * NAME_BYTES),
        ("simulated", ctypes.c_bool), ("steady", ctypes.c_bool), ("pressure", ctypes.c_int),
        ("total_bytes", ctypes.c_uint64), ("budget_bytes", ctypes.c_uint64), ("used_bytes", ctypes.c_uint64),
        ("available_bytes", ctypes.c_uint64), ("peak_bytes", ctypes.c_uint64),
    ]


class _SlotEntry(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t), ("name", ctypes.c_char * NAME_BYTES), ("priority", ctypes.c_uint32),
        ("processes", ctypes.c_uint), ("limit_bytes", ctypes.c_uint64), ("reserve_bytes", ctypes.c_uint64),
        ("used_bytes", ctypes.c_uint64), ("evicted_bytes", ctypes.c_uint64), ("peak_bytes", ctypes.c_uint64),
        ("allocations", ctypes.c_uint64), ("frees", ctypes.c_uint64), ("refusals", ctypes.c_uint64),
        ("evictions", ctypes.c_uint64), ("restores", ctypes.c_uint64), ("waits", ctypes.c_uint64),
    ]


class _ProcessEntry(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t), ("pid", ctypes.c_uint32), ("device", ctypes.c_int), ("slot", ctypes.c_uint),
        ("state", ctypes.c_int), ("used_bytes", ctypes.c_uint64), ("evicted_bytes", ctypes.c_uint64),
        ("by_kind", ctypes.c_uint64 * len(KINDS)), ("command", ctypes.c_char * COMMAND_BYTES),
        ("activity", ctypes.c_int), ("activity_since_ns", ctypes.c_uint64), ("evictable", ctypes.c_bool),
        ("unevictable_reason", ctypes.c_char * REASON_BYTES), ("host_bytes", ctypes.c_uint64),
        ("waiting", ctypes.c_int), ("waiting_device", ctypes.c_int), ("waiting_bytes", ctypes.c_uint64),
        ("waiting_since_ns", ctypes.c_uint64), ("waiting_for_pid", ctypes.c_uint32), ("waiting_for_slot", ctypes.c_int),
    ]


def _declare(name: str, *arguments: object, result: object = ctypes.c_int) -> Callable[..., int]:
    function = getattr(_library, "cubudget_" + name)
    function.argtypes = list(arguments)
    function.restype = result
    return function


_text_buffer = ctypes.c_char * NAME_BYTES
_error_name = _declare("error_name", ctypes.c_int, result=ctypes.c_char_p)
_error_sentence = _declare("error_sentence", ctypes.c_int, result=ctypes.c_char_p)
_last_cuda_error = _declare("last_cuda_error")
_last_detail = _declare("last_detail", result=ctypes.c_char_p)
_available = _declare("available")
_device_count = _declare("device_count", ctypes.POINTER(ctypes.c_uint))
_device_open = _declare("device_open", ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Device))
_pool_create = _declare("pool_create", _Device, ctypes.c_uint64, ctypes.POINTER(_Pool))
_pool_close = _declare("pool_close", _Pool)
_pool_info = _declare("pool_info", _Pool, ctypes.POINTER(_PoolInfo))
_pool_alloc = _declare("pool_alloc", _Pool, ctypes.c_size_t, ctypes.POINTER(_Buffer))
_buffer_free = _declare("buffer_free", ctypes.POINTER(_Buffer))
_slot_push = _declare("slot_push", ctypes.c_char_p)
_slot_pop = _declare("slot_pop")
_slot_current = _declare("slot_current", _text_buffer)
_pressure_of = _declare("pressure_of", ctypes.c_uint64, ctypes.c_uint64)
_watch_open = _declare("watch_open", ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p))
_watch_close = _declare("watch_close", ctypes.c_void_p, result=None)
_watch_level = _declare("watch_level", ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))
_watch_descriptor = _declare("watch_descriptor", ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))
_pressure_wait = _declare("pressure_wait", ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Change))
_snapshot_take = _declare("snapshot_take", ctypes.POINTER(ctypes.c_void_p))
_snapshot_free = _declare("snapshot_free", ctypes.c_void_p, result=None)
_snapshot_ledger = _declare("snapshot_ledger", ctypes.c_void_p, result=ctypes.POINTER(_LedgerEntry))
_snapshot_device = _declare("snapshot_device", ctypes.c_void_p, ctypes.c_uint, result=ctypes.POINTER(_DeviceEntry))
_snapshot_slot = _declare("snapshot_slot", ctypes.c_void_p, ctypes.c_uint, result=ctypes.POINTER(_SlotEntry))
_snapshot_process = _declare("snapshot_process", ctypes.c_void_p, ctypes.c_uint, result=ctypes.POINTER(_ProcessEntry))
_simulate = _declare("simulate", ctypes.c_char_p, ctypes.c_char_p)


# --- errors -------------------------------------------------------------------------------------------------------------------


class Error(Exception):
    """A call that failed. ``code`` is the library's number, ``name`` its name, ``cuda_error`` the CUresult behind it or 0."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.name = _error_name(code).decode()
        self.cuda_error = _last_cuda_error()
        sentence = _error_sentence(code).decode()
        detail = (_last_detail() or b"").decode(errors="replace")
        super().__init__(f"{sentence}: {detail}" if detail else sentence)


CubudgetError = Error


class InvalidError(Error, ValueError):
    """An argument is missing or out of range."""


class NoDeviceError(Error):
    """There is no such GPU, or no driver for it."""


class OutOfMemoryError(Error, MemoryError):
    """The pool's limit, the slot's limit, the budget or the card has no room."""


class LedgerError(Error):
    """There is no ledger that can be used, or the settings do not fit it."""


class TimeoutExpired(Error, TimeoutError):
    """Nothing happened in the time given."""


_TIMEOUT = 12
_classes: Dict[int, Type[Error]] = {
    1: InvalidError, 2: NoDeviceError, 3: NoDeviceError, 5: OutOfMemoryError, 6: OutOfMemoryError, 7: LedgerError,
    8: LedgerError, _TIMEOUT: TimeoutExpired,
}


def _check(code: int) -> None:
    if code != 0:
        raise _classes.get(code, Error)(code)


# --- devices --------------------------------------------------------------------------------------------------------------------


def available() -> bool:
    """Whether a GPU could be used. Starts no CUDA: under 100 ms, and a later fork still works."""
    return _available() == 0


def device_count() -> int:
    """How many devices CUDA shows this process. Starts CUDA."""
    count = ctypes.c_uint()
    _check(_device_count(ctypes.byref(count)))
    return count.value


def simulate(options: Optional[str] = None, directory: Optional[str] = None) -> None:
    """Uses a simulated GPU from now on, for a program's own tests: first of all, before CUDA is used (see cubudget_simulate)."""
    _check(_simulate(options.encode() if options is not None else None, os.fsencode(directory) if directory else None))


# --- slots ------------------------------------------------------------------------------------------------------------------------


def slot_push(name: str) -> None:
    """What this thread allocates is charged to that slot until ``slot_pop``; better: ``with slot(name)``."""
    if "\0" in name:
        raise ValueError(f"a slot's name has no NUL: {name!r}")
    _check(_slot_push(name.encode()))


def slot_pop() -> None:
    """Back to what was before this thread's last push."""
    _check(_slot_pop())


@contextlib.contextmanager
def slot(name: str) -> Iterator[None]:
    """Charges what the calling thread allocates inside the ``with`` to the slot of that name, in a row of its own.

    It is the thread's, not the task's: do not ``await`` inside, or what other coroutines of the thread allocate meanwhile goes
    there too."""
    slot_push(name)
    try:
        yield
    finally:
        slot_pop()


def current_slot() -> str:
    """The name of the slot that the calling thread charges to."""
    name = _text_buffer()
    _check(_slot_current(name))
    return name.value.decode(errors="replace")


# --- pools ------------------------------------------------------------------------------------------------------------------------


class Buffer:
    """Device memory of a pool: ``pointer`` (a CUdeviceptr) and ``size``. Freed once, by ``free`` or the end of a ``with``."""

    def __init__(self, raw: _Buffer) -> None:
        self._raw = raw
        self.pointer = int(raw.pointer)
        self.size = int(raw.size)

    def free(self) -> None:
        """Gives it back, from any thread. The second time does nothing; after its pool was closed it is an error."""
        _check(_buffer_free(ctypes.byref(self._raw)))

    def __enter__(self) -> "Buffer":
        return self

    def __exit__(self, *unused: object) -> None:
        self.free()


def _size(what: str, size: int) -> int:
    """ctypes would take a number that does not fit modulo 2**64."""
    if not 0 <= size < 1 << 64:
        raise ValueError(f"{what}: {size} is not from 0 to 2**64 - 1")
    return size


class Pool:
    """A pool of device memory with a limit of its own. Closing it frees what is left in it."""

    def __init__(self, device: int = 0, limit_bytes: int = NO_LIMIT) -> None:
        opened = _Device()
        self._raw = _Pool()
        self._closed = False
        _check(_device_open(device, None, ctypes.byref(opened)))
        _check(_pool_create(opened, _size("limit_bytes", limit_bytes), ctypes.byref(self._raw)))

    def allocate(self, size: int) -> Buffer:
        """Allocates ``size`` bytes, charged to the calling thread's slot."""
        raw = _Buffer()
        _check(_pool_alloc(self._raw, _size("size", size), ctypes.byref(raw)))
        return Buffer(raw)

    def _info(self) -> _PoolInfo:
        info = _PoolInfo(size=ctypes.sizeof(_PoolInfo))
        _check(_pool_info(self._raw, ctypes.byref(info)))
        return info

    @property
    def used_bytes(self) -> int:
        """The sum of the sizes of the buffers in it."""
        return int(self._info().used_bytes)

    @property
    def peak_bytes(self) -> int:
        """The most that was."""
        return int(self._info().peak_bytes)

    @property
    def available_bytes(self) -> int:
        """What could be allocated from it now by the calling thread's slot."""
        return int(self._info().available_bytes)

    def close(self) -> None:
        """Frees everything in it; what is used of it afterwards is an error. The second time does nothing."""
        if not self._closed:
            self._closed = True
            _check(_pool_close(self._raw))

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


# --- pressure ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PressureChange:
    """A change of a device's level: which it was, what it became, how many wait after it, and how many before it are not known."""

    generation: int
    level: Pressure
    pending: int
    untold: int


def pressure_of(used_bytes: int, budget_bytes: int) -> Pressure:
    """The level of so many bytes of a budget."""
    return Pressure(_pressure_of(used_bytes, budget_bytes))


class Watch:
    """Hears of the changes of one device's level, of all processes; needs no GPU. By ``uuid``, else the ledger's first device.

    One thread at a time may use it. Iterating waits for ever.
    """

    def __init__(self, uuid: Optional[str] = None) -> None:
        self._watch: Optional[ctypes.c_void_p] = None
        opened = ctypes.c_void_p()
        _check(_watch_open(uuid.encode() if uuid is not None else None, ctypes.byref(opened)))
        self._watch = opened

    @property
    def level(self) -> Pressure:
        """The level as it is now."""
        level = ctypes.c_int()
        _check(_watch_level(self._watch, ctypes.byref(level)))
        return Pressure(level.value)

    def wait(self, timeout: Optional[float] = None) -> PressureChange:
        """The next change since the watch was opened; TimeoutExpired after ``timeout`` seconds (None: waits for ever)."""
        change = _Change()
        # In pieces, so that signals (Ctrl-C) are seen between them.
        left = None if timeout is None else max(0, int(timeout * 1000))
        while True:
            piece = 200 if left is None else min(left, 200)
            code = _pressure_wait(self._watch, piece, ctypes.byref(change))
            if code != _TIMEOUT or (left is not None and left <= piece):
                break
            left = None if left is None else left - piece
        _check(code)
        return PressureChange(int(change.generation), Pressure(change.level), int(change.pending), int(change.untold))

    def fileno(self) -> int:
        """A descriptor that is readable while there may be a change; then call ``wait(0)`` until it raises TimeoutExpired."""
        descriptor = ctypes.c_int()
        _check(_watch_descriptor(self._watch, ctypes.byref(descriptor)))
        return descriptor.value

    def __iter__(self) -> Iterator[PressureChange]:
        while True:
            yield self.wait()

    def close(self) -> None:
        """Ends it. The second time does nothing."""
        watch, self._watch = self._watch, None
        if watch is not None:
            _watch_close(watch)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def pressure_wait(timeout: Optional[float] = None, uuid: Optional[str] = None) -> Pressure:
    """Waits for one change from now on and returns what the level became. Who wants every change keeps a ``Watch``."""
    with Watch(uuid) as watch:
        return watch.wait(timeout).level


# --- the books ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DeviceEntry:
    """One device of the ledger."""

    uuid: str
    name: str
    simulated: bool
    steady: bool
    pressure: Pressure
    total_bytes: int
    budget_bytes: int
    used_bytes: int
    available_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class SlotEntry:
    """One slot; ``limit_bytes`` None: no limit."""

    name: str
    priority: int
    processes: int
    limit_bytes: Optional[int]
    reserve_bytes: int
    used_bytes: int
    evicted_bytes: int
    peak_bytes: int
    allocations: int
    frees: int
    refusals: int
    evictions: int
    restores: int
    waits: int


@dataclass(frozen=True)
class Waiting:
    """What a process stands in line for, since when (seconds since 1970), and who was asked to make room, where somebody was."""

    kind: WaitingKind
    bytes: int
    device: Optional[int]
    since: float
    for_pid: Optional[int]
    for_slot: Optional[str]


@dataclass(frozen=True)
class ProcessEntry:
    """What one process holds of one device in one slot; ``device`` None: nothing yet.

    From ``activity`` on it is about the whole process. ``activity_since`` is in seconds since 1970; ``unevictable_reason`` None:
    it is evictable, or that is not known yet; ``host_bytes`` of host memory for what has left the card.
    """

    pid: int
    device: Optional[int]
    slot: str
    state: ProcessState
    used_bytes: int
    evicted_bytes: int
    by_kind: Dict[str, int]
    command: str
    activity: Activity
    activity_since: float
    evictable: bool
    unevictable_reason: Optional[str]
    host_bytes: int
    waiting_for: Optional[Waiting]


@dataclass(frozen=True)
class Snapshot:
    """The whole ledger as it was at one moment."""

    ledger: str
    version: int
    budget_bytes: int
    devices: Tuple[DeviceEntry, ...]
    slots: Tuple[SlotEntry, ...]
    processes: Tuple[ProcessEntry, ...]


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _slot_entry(entry: _SlotEntry) -> SlotEntry:
    limit = None if entry.limit_bytes == NO_LIMIT else int(entry.limit_bytes)
    return SlotEntry(
        _text(entry.name), entry.priority, entry.processes, limit, entry.reserve_bytes, entry.used_bytes,
        entry.evicted_bytes, entry.peak_bytes, entry.allocations, entry.frees, entry.refusals, entry.evictions,
        entry.restores, entry.waits)


def _device_entry(entry: _DeviceEntry) -> DeviceEntry:
    return DeviceEntry(
        _text(entry.uuid), _text(entry.name), bool(entry.simulated), bool(entry.steady), Pressure(entry.pressure),
        entry.total_bytes, entry.budget_bytes, entry.used_bytes, entry.available_bytes, entry.peak_bytes)


def _slot_name(slots: List[SlotEntry], index: int) -> Optional[str]:
    return slots[index].name if 0 <= index < len(slots) else None


def _waiting(entry: _ProcessEntry, slots: List[SlotEntry]) -> Optional[Waiting]:
    if entry.waiting == 0:
        return None
    return Waiting(
        WaitingKind(entry.waiting), entry.waiting_bytes, entry.waiting_device if entry.waiting_device >= 0 else None,
        entry.waiting_since_ns / 1e9, entry.waiting_for_pid or None, _slot_name(slots, entry.waiting_for_slot))


def _process_entry(entry: _ProcessEntry, slots: List[SlotEntry]) -> ProcessEntry:
    return ProcessEntry(
        entry.pid, entry.device if entry.device >= 0 else None, _slot_name(slots, entry.slot) or "?",
        ProcessState(entry.state), entry.used_bytes, entry.evicted_bytes, dict(zip(KINDS, entry.by_kind)),
        _text(entry.command), Activity(entry.activity), entry.activity_since_ns / 1e9, bool(entry.evictable),
        _text(entry.unevictable_reason) or None, entry.host_bytes, _waiting(entry, slots))


def snapshot() -> Snapshot:
    """Reads the whole ledger. Works in any process that may read it; LedgerError where there is none."""
    taken = ctypes.c_void_p()
    _check(_snapshot_take(ctypes.byref(taken)))
    try:
        ledger = _snapshot_ledger(taken).contents
        devices = [_device_entry(_snapshot_device(taken, i).contents) for i in range(ledger.devices)]
        slots = [_slot_entry(_snapshot_slot(taken, i).contents) for i in range(ledger.slots)]
        processes = [_process_entry(_snapshot_process(taken, i).contents, slots) for i in range(ledger.processes)]
        return Snapshot(
            _text(ledger.name), ledger.version, ledger.budget_bytes, tuple(devices), tuple(slots), tuple(processes))
    finally:
        _snapshot_free(taken)
