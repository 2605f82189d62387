/*
 * The bytes of a ledger: what every process of one budget shares.
 *
 * A ledger is one file of LEDGER_FILE_BYTES, mapped by everyone. It holds offsets and numbers, never pointers,
 * no lock and no total: what is used is the sum over live rows, computed when asked. Any process with access
 * may have written any byte, so whoever reads it checks the range of what it reads (src/ledger does, through
 * its accessors; nobody else touches these bytes but the snapshot they are copied into).
 *
 * Synchronisation, field by field, in docs/LEDGER.md. In short: a cell is written by the process that holds
 * the life byte of its row (under that process's own lock) and read by all; claim words and settings are set by
 * compare-and-swap; a row's tag is changed by compare-and-swap alone.
 */
#ifndef CUBUDGET_LEDGER_ABI_H
#define CUBUDGET_LEDGER_ABI_H

#include <stdint.h>
#include <stddef.h>

#ifdef __cplusplus
#define LEDGER_ATOMIC(type) type
#else
#define LEDGER_ATOMIC(type) _Atomic(type)
#endif

#define LEDGER_MAGIC "cubudget" /* 8 bytes, no terminator in the file */

enum {
    LEDGER_ABI_VERSION = 2,
    LEDGER_BYTE_ORDER = 0x01020304,

    LEDGER_ROWS = 1024,     /* a process's account in one slot */
    LEDGER_SLOTS = 64,      /* named accounts */
    LEDGER_DEVICES = 16,    /* GPUs, by uuid */
    LEDGER_KINDS = 16,      /* what a charge is for: enum ledger_kind */
    LEDGER_NAME_BYTES = 64, /* a name with its terminating zero */
    LEDGER_COMMAND_BYTES = 64,
    LEDGER_REASON_BYTES = 48,
    LEDGER_UUID_BYTES = 16,
    LEDGER_EVENTS = 65536, /* a power of two */

    /* Byte offsets that the kernel's open-file-description locks guard; they are lock ranges, not data. */
    LEDGER_LIFE_BYTE = 0,                /* + row: held while the process lives */
    LEDGER_MEMORY_BYTE = LEDGER_ROWS,    /* + row: held while the driver's descriptors can be */
    LEDGER_LOCK_BYTES = 2 * LEDGER_ROWS, /* gc takes all of them before it unlinks */
    LEDGER_WATCH_BYTE = 2 * LEDGER_ROWS, /* + device: shared by who wants to hear of its pressure */
    LEDGER_TERMS_BYTE = 3 * LEDGER_ROWS, /* held by who changes limits, reserves or budgets, while he does */
    LEDGER_RESTORE_BYTE =
        3 * LEDGER_ROWS + 64, /* + device: held by who proves that a card has room, until it is taken */

    LEDGER_LEVELS = 16, /* levels in one word of history */
    LEDGER_HISTORY = 4, /* full words of it before the current one */
};

/* What a charge is for. Numbers are part of the layout: new kinds go to the end. */
enum ledger_kind {
    LEDGER_KIND_LINEAR = 0,  /* cuMemAlloc, cuMemAllocPitch */
    LEDGER_KIND_MANAGED = 1, /* cuMemAllocManaged */
    LEDGER_KIND_CONTEXT = 2, /* contexts and what the driver adds to them */
    LEDGER_KIND_POOL = 3,
    LEDGER_KIND_VMM = 4,
    LEDGER_KIND_ARRAY = 5,
    LEDGER_KIND_GRAPH = 6,
    LEDGER_KIND_MODULE = 7,
    LEDGER_KIND_COUNT = 8,
};

/* A row's tag: state, slot, generation and, for a dead row, since when, in one word so that one
 * compare-and-swap changes them together and a late reaper can never hit the row's next owner. */
enum ledger_row_state {
    LEDGER_ROW_FREE = 0,     /* counts for nothing, whatever its cells hold */
    LEDGER_ROW_LIVE = 1,     /* its owner holds the life byte, or has died and nobody looked yet */
    LEDGER_ROW_ORPHANED = 2, /* the owner is dead, a forked child keeps the driver's descriptors open */
    LEDGER_ROW_DYING = 3,    /* both bytes free; the card may still hold the memory for some 30 ms */
};
#define LEDGER_TAG_STATE_SHIFT      0  /* 4 bits: enum ledger_row_state */
#define LEDGER_TAG_SLOT_SHIFT       8  /* 8 bits: index of the slot */
#define LEDGER_TAG_GENERATION_SHIFT 16 /* 16 bits: counts the claims of this row */
#define LEDGER_TAG_SINCE_SHIFT      32 /* 32 bits: CLOCK_MONOTONIC in ms, modulo 2^32, of the last change */

/* What a process is doing. Its state lies in one word, in the first of its rows, so that one compare-and-swap changes it
 * together with who asked and how often somebody asked: a late withdrawal can never cancel another's ask. The word is a futex;
 * the process's agent sleeps on it. docs/LEDGER.md has who may make which change. */
enum ledger_process_state {
    LEDGER_PROCESS_NO_AGENT = 0,  /* it has no context yet: there is nothing to evict */
    LEDGER_PROCESS_RUNNING = 1,   /* its memory is on the card */
    LEDGER_PROCESS_ASKED = 2,     /* somebody needs its room */
    LEDGER_PROCESS_EVICTING = 3,  /* its agent is moving it to host memory */
    LEDGER_PROCESS_EVICTED = 4,   /* it is there */
    LEDGER_PROCESS_RESTORING = 5, /* its room is charged and it is moving back */
    LEDGER_PROCESS_LOST = 6,      /* it could not be restored: the driver will never do it again */
    LEDGER_PROCESS_STATES = 7,
};
#define LEDGER_PROCESS_STATE_MASK   0xFU  /* enum ledger_process_state */
#define LEDGER_PROCESS_WANT         0x10U /* a thread of it, or an operator, wants it back on the card */
#define LEDGER_PROCESS_ASKER_SHIFT  5     /* 11 bits: row of who asked + 1, or LEDGER_ASKER_OPERATOR; 0 nobody */
#define LEDGER_PROCESS_NUMBER_SHIFT 16    /* 16 bits: counts the asks */
#define LEDGER_ASKER_OPERATOR       (LEDGER_ROWS + 1)

/* What a row's process waits in line for. */
enum ledger_waiting {
    LEDGER_WAITING_NOT = 0,
    LEDGER_WAITING_ALLOCATION = 1,
    LEDGER_WAITING_RESTORE = 2,
};
#define LEDGER_NO_DEADLINE UINT64_MAX

/* Bits of a row's flags. */
enum {
    LEDGER_ROW_SETTLED = 1, /* its process has taken or set the terms of its slot, and counts on them */
};

/* Bits of a slot's terms_set. A limit that is not 0, a reserve that is not 0 and a priority that is not 50 were set as well. */
enum {
    LEDGER_TERM_LIMIT = 1,
    LEDGER_TERM_RESERVE = 2,
    LEDGER_TERM_PRIORITY = 4,
};

#define LEDGER_NO_TICKET UINT64_MAX /* a bid whose bidder has met no rival yet; counts as the youngest */
#define LEDGER_NO_LIMIT  UINT64_MAX

/* One device's account of one row. A cache line of its own: neighbours in the array are other processes.
 * Invariant: in_flight_bytes <= committed_bytes. */
struct ledger_cell {
    LEDGER_ATOMIC(uint64_t) committed_bytes; /* granted and not given back */
    LEDGER_ATOMIC(uint64_t) in_flight_bytes; /* the part of it whose driver call has not returned */
    LEDGER_ATOMIC(uint64_t) bid_bytes;       /* asked for and not yet granted; 0: no bid */
    LEDGER_ATOMIC(uint64_t) bid_ticket;      /* lower is older; written before bid_bytes */
    LEDGER_ATOMIC(uint64_t) evicted_bytes;   /* moved to host memory */
    LEDGER_ATOMIC(uint64_t) changes;         /* counts changes of what is held, for a reader's double look */
    LEDGER_ATOMIC(uint64_t) settled_bytes;   /* what committed_bytes will be with the bid; 0: not known yet */
    LEDGER_ATOMIC(uint64_t)
    wanted_bytes; /* what the row's process waits in line for; counts where wait_ticket is set */
};

/* The same charge by kind; for display only, nothing is decided on it. */
struct ledger_kinds {
    LEDGER_ATOMIC(uint64_t) bytes[LEDGER_KINDS];
};

/* Counts of events. In a row: this process's own; in a slot: those of rows that were claimed again since. */
struct ledger_counts {
    LEDGER_ATOMIC(uint64_t) allocations;
    LEDGER_ATOMIC(uint64_t) frees;
    LEDGER_ATOMIC(uint64_t) refusals;
    LEDGER_ATOMIC(uint64_t) evictions;
    LEDGER_ATOMIC(uint64_t) restores;
    LEDGER_ATOMIC(uint64_t) waits;
    uint64_t reserved[2];
};

/* Who a row belongs to: written by its owner before the tag says LIVE. */
struct ledger_row {
    LEDGER_ATOMIC(uint32_t) pid;            /* in the owner's PID namespace: for people, never for decisions */
    LEDGER_ATOMIC(uint32_t) process_state;  /* enum ledger_process_state and more, above; of a first row */
    LEDGER_ATOMIC(uint64_t) pid_namespace;  /* inode of /proc/self/ns/pid, 0 unknown */
    LEDGER_ATOMIC(uint64_t) start_ticks;    /* /proc/self/stat field 22, 0 unknown */
    LEDGER_ATOMIC(uint64_t) started_ns;     /* CLOCK_REALTIME when the row was claimed */
    LEDGER_ATOMIC(uint64_t) state_since_ns; /* CLOCK_REALTIME when process_state was last set */
    LEDGER_ATOMIC(uint64_t) used_ns;        /* CLOCK_REALTIME of the last charge or credit, to the second */
    LEDGER_ATOMIC(uint64_t) flags;          /* LEDGER_ROW_SETTLED; the rest is reserved */
    LEDGER_ATOMIC(uint64_t) counted;        /* allocations + frees at used_ns */
    struct ledger_counts counts;
    char command[LEDGER_COMMAND_BYTES]; /* not always terminated */
    char reason[LEDGER_REASON_BYTES];   /* why it cannot be evicted; not always terminated */
    LEDGER_ATOMIC(uint32_t) leader;     /* the first row of its process: the state that counts for it is there */
    LEDGER_ATOMIC(uint32_t) waiting;    /* enum ledger_waiting; of a first row, as all that follows */
    LEDGER_ATOMIC(uint32_t) waits_for;  /* row + 1 of the process whose room it waits for; 0: nobody's in particular */
    LEDGER_ATOMIC(uint32_t) evictable;  /* 1: its agent would evict it, as far as it knows; 0: reason says why not */
    /* In line. Times in ms of CLOCK_MONOTONIC. */
    LEDGER_ATOMIC(uint64_t) wait_ticket; /* ticket + 1; 0: not in line; written last */
    LEDGER_ATOMIC(uint64_t) wait_since_ms;
    LEDGER_ATOMIC(uint64_t) wait_deadline_ms; /* LEDGER_NO_DEADLINE: none */
    LEDGER_ATOMIC(uint64_t) wait_turn_ms;     /* until when it is its turn; 0: has not begun */
    /* For who looks for a victim. */
    LEDGER_ATOMIC(uint64_t) resident_ms;   /* since when its memory is on the card */
    LEDGER_ATOMIC(uint64_t) referenced_ms; /* when the gate was last found used */
    LEDGER_ATOMIC(uint64_t) declined_ms;   /* when it last could not be evicted though it was asked; 0: never */
    LEDGER_ATOMIC(uint64_t) host_bytes;    /* of host memory that its image takes, or may be about to */
    uint64_t reserved_tail[8];
};

/* A named account. It is added by writing the hash of its name into a free claim word by compare-and-swap;
 * whoever knows the name then writes it (the same bytes, whoever does), so a death midway leaves nothing stuck. */
struct ledger_slot {
    LEDGER_ATOMIC(uint64_t) claim;       /* 0: free; else the 64-bit FNV-1a hash of the name (0 becomes 1) */
    LEDGER_ATOMIC(uint64_t) limit_bytes; /* 0: never set; LEDGER_NO_LIMIT: none */
    LEDGER_ATOMIC(uint64_t) reserve_bytes;
    LEDGER_ATOMIC(uint32_t) priority;  /* 0 to 100; 101: never evicted; the maker of the file writes 50 into all */
    LEDGER_ATOMIC(uint32_t) terms_set; /* LEDGER_TERM_*: those that somebody has set, written after their values */
    LEDGER_ATOMIC(uint64_t) peak_bytes[LEDGER_DEVICES];
    struct ledger_counts counts;
    char name[LEDGER_NAME_BYTES];
    LEDGER_ATOMIC(uint64_t) limit_before; /* the highest limit that was lowered below what the slot held; 0: none was */
    uint64_t reserved[3];
};

/* A GPU, claimed like a slot by the hash of its uuid. */
struct ledger_device {
    LEDGER_ATOMIC(uint64_t) claim; /* 0: free; else the 64-bit FNV-1a hash of the uuid (0 becomes 1) */
    LEDGER_ATOMIC(uint64_t) total_bytes;
    LEDGER_ATOMIC(uint64_t)
    budget_bytes; /* 0: not decided yet; with total_bytes 0: wished for, not held against the card */
    LEDGER_ATOMIC(uint64_t) baseline_bytes; /* what the idle card uses by itself */
    LEDGER_ATOMIC(uint64_t) peak_bytes;     /* the most ever committed (with the bids that its grants saw) */
    LEDGER_ATOMIC(uint64_t) context_bytes;  /* least cost of a context seen here; 0: none seen */
    LEDGER_ATOMIC(uint32_t) simulated;
    LEDGER_ATOMIC(uint32_t) compute_capability; /* 10 * major + minor */
    uint8_t uuid[LEDGER_UUID_BYTES];
    char name[LEDGER_NAME_BYTES];
    /* Kept while somebody watches: a count of the changes of level in the upper half (a futex), and the levels of the last
     * 16 in the lower, two bits each, the newest lowest. */
    LEDGER_ATOMIC(uint64_t) pressure;
    LEDGER_ATOMIC(uint64_t) pressure_before[LEDGER_HISTORY]; /* what it was at the end of each 16 changes */
    LEDGER_ATOMIC(uint32_t) watchers;      /* 0: nobody watches; else how often somebody began to since the last 0 */
    LEDGER_ATOMIC(uint32_t) waiting;       /* not 0: somebody waits in line for room, or did */
    LEDGER_ATOMIC(uint64_t) budget_before; /* the highest budget that was lowered; 0: none was */
    LEDGER_ATOMIC(uint32_t) room; /* a futex: counts the times that room may have come free while somebody waited */
    uint32_t reserved_word;
    uint64_t reserved[7];
};

/* --- events ------------------------------------------------------------------------------------------------------- */

/* What happened. Numbers are part of the layout: new ones go to the end. */
enum ledger_event_kind {
    LEDGER_EVENT_NONE = 0,
    LEDGER_EVENT_ASK = 1,      /* row asked other to leave the card; bytes: what row needs */
    LEDGER_EVENT_DECLINE = 2,  /* row did not leave though asked; text: why */
    LEDGER_EVENT_EVICT = 3,    /* row left; bytes: its footprint; duration: from the ask */
    LEDGER_EVENT_RESTORE = 4,  /* row is back; duration: from when a thread wanted it */
    LEDGER_EVENT_WAIT = 5,     /* row was granted bytes after a wait of duration */
    LEDGER_EVENT_REFUSE = 6,   /* row was refused bytes; duration: how long it waited; text: why */
    LEDGER_EVENT_PRESSURE = 7, /* of a device; bytes: used; other: enum pressure_level */
    LEDGER_EVENT_REAP = 8,     /* a dead row's bytes are free */
    LEDGER_EVENT_LOST = 9,     /* row could not be restored */
    LEDGER_EVENT_CHARGE = 10,  /* optional */
    LEDGER_EVENT_CREDIT = 11,  /* optional */
    LEDGER_EVENT_KINDS = 12,
};

/* One of the last LEDGER_EVENTS, event n (from 1 on) at n modulo that. Whoever adds one takes a number and writes all of it, the
 * number last; one that was not written whole, or over which another was, fails its check and is skipped. */
struct ledger_event_entry {
    LEDGER_ATOMIC(uint64_t) number; /* 0: being written */
    uint64_t time_ns;               /* CLOCK_REALTIME */
    uint64_t duration_ns;
    uint64_t bytes;
    uint32_t pid;
    uint16_t kind; /* enum ledger_event_kind */
    uint16_t row, other;
    uint8_t slot, device; /* 255: none */
    uint32_t text;        /* a sentence's number, 0 none */
    uint64_t check;
    uint64_t reserved;
};

struct ledger_header {
    char magic[8];
    uint32_t abi_version;
    uint32_t byte_order;
    uint64_t file_bytes;
    uint32_t word_bytes; /* sizeof(void *) of the maker */
    uint32_t rows, slots, devices, kinds;
    uint32_t reserved_word;
    uint64_t created_ns; /* CLOCK_REALTIME */
    char name[LEDGER_NAME_BYTES];
    LEDGER_ATOMIC(uint64_t) budget_bytes;    /* per device, as the first user set it */
    LEDGER_ATOMIC(uint32_t) budget_explicit; /* 1: asked for; 0: the default, which shrinks to a small card */
    LEDGER_ATOMIC(uint32_t) rows_high;       /* rows 0 to rows_high - 1 have been claimed at some time */
    LEDGER_ATOMIC(uint64_t) next_ticket;
    LEDGER_ATOMIC(uint32_t) slots_high;      /* slots 0 to slots_high - 1 have been claimed at some time */
    LEDGER_ATOMIC(uint32_t) has_reserves;    /* 0: no slot ever had a reserve, so a look needs no sums by slot */
    LEDGER_ATOMIC(uint64_t) events;          /* how many there were */
    LEDGER_ATOMIC(uint32_t) events_signal;   /* a futex, for who follows them */
    LEDGER_ATOMIC(uint32_t) events_followed; /* not 0: somebody follows, or did */
    uint64_t reserved[5];
};

#define LEDGER_OFFSET_HEADER  0
#define LEDGER_OFFSET_DEVICES 4096
#define LEDGER_OFFSET_SLOTS   8192
#define LEDGER_OFFSET_TAGS    40960                                                     /* uint64_t[LEDGER_ROWS] */
#define LEDGER_OFFSET_ROWS    (LEDGER_OFFSET_TAGS + 8 * LEDGER_ROWS)                    /* struct ledger_row[] */
#define LEDGER_OFFSET_CELLS   (LEDGER_OFFSET_ROWS + 384 * LEDGER_ROWS)                  /* [device][row] */
#define LEDGER_OFFSET_KINDS   (LEDGER_OFFSET_CELLS + 64 * LEDGER_DEVICES * LEDGER_ROWS) /* [device][row] */
#define LEDGER_OFFSET_EVENTS  (LEDGER_OFFSET_KINDS + 128 * LEDGER_DEVICES * LEDGER_ROWS)
#define LEDGER_FILE_BYTES     (LEDGER_OFFSET_EVENTS + 64 * LEDGER_EVENTS)

#ifndef __cplusplus
_Static_assert(sizeof(struct ledger_header) <= 4096, "the header is one page");
_Static_assert(sizeof(struct ledger_device) == 256, "devices fit their page");
_Static_assert(sizeof(struct ledger_device) * LEDGER_DEVICES <= 4096, "devices fit their page");
_Static_assert(sizeof(struct ledger_slot) == 320, "layout");
_Static_assert(LEDGER_OFFSET_SLOTS + 320 * LEDGER_SLOTS <= LEDGER_OFFSET_TAGS, "slots end before the tags");
_Static_assert(sizeof(struct ledger_row) == 384, "layout");
_Static_assert(sizeof(struct ledger_cell) == 64, "a cell is a cache line");
_Static_assert(sizeof(struct ledger_kinds) == 128, "layout");
_Static_assert(sizeof(struct ledger_event_entry) == 64, "an event is a cache line");
_Static_assert(LEDGER_OFFSET_CELLS % 64 == 0 && LEDGER_OFFSET_KINDS % 64 == 0, "cells are aligned");
_Static_assert(LEDGER_FILE_BYTES % 4096 == 0, "whole pages");
#endif

#endif
