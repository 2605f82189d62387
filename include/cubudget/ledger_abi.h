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
    LEDGER_ABI_VERSION = 1,
    LEDGER_BYTE_ORDER = 0x01020304,

    LEDGER_ROWS = 1024,     /* a process's account in one slot */
    LEDGER_SLOTS = 64,      /* named accounts */
    LEDGER_DEVICES = 16,    /* GPUs, by uuid */
    LEDGER_KINDS = 16,      /* what a charge is for: enum ledger_kind */
    LEDGER_NAME_BYTES = 64, /* a name with its terminating zero */
    LEDGER_COMMAND_BYTES = 64,
    LEDGER_REASON_BYTES = 48,
    LEDGER_UUID_BYTES = 16,

    /* Byte offsets that the kernel's open-file-description locks guard; they are lock ranges, not data. */
    LEDGER_LIFE_BYTE = 0,                /* + row: held while the process lives */
    LEDGER_MEMORY_BYTE = LEDGER_ROWS,    /* + row: held while the driver's descriptors can be */
    LEDGER_LOCK_BYTES = 2 * LEDGER_ROWS, /* gc takes all of them before it unlinks */
    LEDGER_WATCH_BYTE = 2 * LEDGER_ROWS, /* + device: shared by who wants to hear of its pressure */
    LEDGER_TERMS_BYTE = 3 * LEDGER_ROWS, /* held by who changes limits, reserves or budgets, while he does */

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

/* What the process of a row is doing (the protocol of eviction adds to these). */
enum ledger_process_state {
    LEDGER_PROCESS_RUNNING = 0,
};

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
    uint64_t reserved[1];
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
    LEDGER_ATOMIC(uint32_t) process_state;  /* enum ledger_process_state */
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
    uint64_t reserved_tail[2];
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
    LEDGER_ATOMIC(uint32_t) watchers; /* 0: nobody watches; else how often somebody began to since the last 0 */
    uint32_t reserved_word;
    LEDGER_ATOMIC(uint64_t) budget_before; /* the highest budget that was lowered; 0: none was */
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
    LEDGER_ATOMIC(uint32_t) slots_high;   /* slots 0 to slots_high - 1 have been claimed at some time */
    LEDGER_ATOMIC(uint32_t) has_reserves; /* 0: no slot ever had a reserve, so a look needs no sums by slot */
    uint64_t reserved[7];
};

#define LEDGER_OFFSET_HEADER  0
#define LEDGER_OFFSET_DEVICES 4096
#define LEDGER_OFFSET_SLOTS   8192
#define LEDGER_OFFSET_TAGS    40960                                                     /* uint64_t[LEDGER_ROWS] */
#define LEDGER_OFFSET_ROWS    (LEDGER_OFFSET_TAGS + 8 * LEDGER_ROWS)                    /* struct ledger_row[] */
#define LEDGER_OFFSET_CELLS   (LEDGER_OFFSET_ROWS + 256 * LEDGER_ROWS)                  /* [device][row] */
#define LEDGER_OFFSET_KINDS   (LEDGER_OFFSET_CELLS + 64 * LEDGER_DEVICES * LEDGER_ROWS) /* [device][row] */
#define LEDGER_FILE_BYTES     (LEDGER_OFFSET_KINDS + 128 * LEDGER_DEVICES * LEDGER_ROWS)

#ifndef __cplusplus
_Static_assert(sizeof(struct ledger_header) <= 4096, "the header is one page");
_Static_assert(sizeof(struct ledger_device) == 192, "devices fit their page");
_Static_assert(sizeof(struct ledger_device) * LEDGER_DEVICES <= 4096, "devices fit their page");
_Static_assert(sizeof(struct ledger_slot) == 320, "layout");
_Static_assert(LEDGER_OFFSET_SLOTS + 320 * LEDGER_SLOTS <= LEDGER_OFFSET_TAGS, "slots end before the tags");
_Static_assert(sizeof(struct ledger_row) == 256, "layout");
_Static_assert(sizeof(struct ledger_cell) == 64, "a cell is a cache line");
_Static_assert(sizeof(struct ledger_kinds) == 128, "layout");
_Static_assert(LEDGER_OFFSET_CELLS % 64 == 0 && LEDGER_OFFSET_KINDS % 64 == 0, "cells are aligned");
_Static_assert(LEDGER_FILE_BYTES % 4096 == 0, "whole pages");
#endif

#endif
