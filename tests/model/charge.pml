/*
 * The charge, as src/ledger/charge.c does it, with the claim (row.c) and the reap (reap.c) around it: one step here for
 * each access there that another process can come between. Checked by tests/model/check, which names the settings.
 *
 * A process can be stopped between any two steps: Spin tries every interleaving, and a process that never moves again
 * is one of them. A process can be killed at any step (DEATHS): the kernel then drops its life lock in the same moment.
 * `in_flight` is left out (nothing is decided on it here), and a pass limit of the code is "give up at any pass" (GIVE_UP).
 *
 * Settings: N processes, ROWS rows, S slots, BUDGET; LIMIT0, RESERVE0, RESERVE1; W0, W1, W2: the
 * bytes each asks for;
 * CLAIMS: rows are claimed at run time (else process p owns row p); CLAIMS_ALONE: and nothing is charged;
 * DEATHS: how many are killed; REAPERS: how many reap;
 * GIVES_BACK: process 0 asks once more, with or without a credit before; MOVES: process 0 moves its bytes from row 0 to row 1;
 * RAISED: somebody raises the reserve of slot 1 to that while the others ask (terms.c); with N 2, process 1 is in slot 1;
 * LOWERED: somebody lowers the budget to that;
 * STOPS: the last process may stop for ever, and everybody else keeps moving (for the search for livelocks).
 * BROKEN_...: what must be found; one at a time.
 *
 * What must hold, at each grant and each promise (SAFE): all that is held is within the budget, a slot within its limit, and the
 * sum over slots of max(used, promised reserve) within the budget; a reserve is promised when its raiser's look admitted it. A grant
 * whose bid was published after the budget fell leaves all that is held within the lower one (LATE_IS_SAFE).
 */
#ifndef N
#define N 3
#endif
#ifndef ROWS
#define ROWS N
#endif
#ifndef S
#define S 1
#endif
#ifndef W0
#define W0 6
#endif
#ifndef W1
#define W1 6
#endif
#ifndef W2
#define W2 1
#endif
#ifndef BUDGET
#define BUDGET 10
#endif
#ifndef LIMIT0
#define LIMIT0 100
#endif
#ifndef RESERVE0
#define RESERVE0 0
#endif
#ifndef RESERVE1
#define RESERVE1 0
#endif
#ifndef RAISED
#define RAISED RESERVE1
#endif
#ifndef LOWERED
#define LOWERED BUDGET
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef REAPERS
#define REAPERS 0
#endif

#define NO_TICKET 255
#define NOBODY    255
#define NOT_SETTLED 0
#define FREE      0
#define LIVE      1
#define ORPHANED  2
#define DYING     3

/* A tag is one word: state, slot and generation change together. */
#define TAG(state, slot, generation) ((state) + 4 * (slot) + 16 * (generation))
#define STATE(tag)                   ((tag) & 3)
#define SLOT(tag)                    (((tag) >> 2) & 3)
#define GENERATION(tag)              ((tag) >> 4)
#define LESS(a, b)                   ((a) > (b) -> (a) - (b) : 0)

byte committed[ROWS], bid[ROWS], ticket[ROWS], settled[ROWS], tag[ROWS];
byte life[ROWS] = NOBODY; /* who holds the life lock */
bit child[ROWS];          /* a forked child holds the memory lock of the row's dead owner */
byte next_ticket, rows_high;
bit killed[N];
bit stopped;
byte answered, granted; /* requests that got an answer, and those among them that were granted */
byte wants[N], slots[N];

/* The terms that change: as published, and the reserve as promised. */
byte budget = BUDGET, reserve1 = RESERVE1, promised1 = RESERVE1;
bit has_reserves = (RESERVE0 + RESERVE1 > 0);

#define RESERVE(slot)  ((slot) == 0 -> RESERVE0 : reserve1)
#define PROMISED(slot) ((slot) == 0 -> RESERVE0 : promised1)
#define LIMIT(slot)   ((slot) == 0 -> LIMIT0 : 100)

/* The monitor. It sees everything at once, which nobody in the ledger can: bytes of all rows but FREE ones, and by slot. */
#define HELD(row)           (STATE(tag[row]) == FREE -> 0 : committed[row])
#define USED(row, slot)     (STATE(tag[row]) == LIVE && SLOT(tag[row]) == (slot) -> committed[row] : 0)
#if ROWS == 2
#define HELD_ALL            (HELD(0) + HELD(1))
#define USED_ALL(slot)      (USED(0, slot) + USED(1, slot))
#else
#define HELD_ALL            (HELD(0) + HELD(1) + HELD(2))
#define USED_ALL(slot)      (USED(0, slot) + USED(1, slot) + USED(2, slot))
#endif
#define KEPT(slot)          (USED_ALL(slot) > PROMISED(slot) -> USED_ALL(slot) : PROMISED(slot))
#define SAFE \
    (HELD_ALL <= BUDGET && USED_ALL(0) <= LIMIT0 && (S == 1 || KEPT(0) + KEPT(1) <= BUDGET))

#if LOWERED != BUDGET
#define LATE_IS_SAFE (!late || HELD_ALL <= LOWERED)
#define LATE_NOTE    late = (budget != BUDGET)
#else
#define LATE_IS_SAFE true
#define LATE_NOTE    skip
#endif

/* The budget is read with a look's judgement, after the bid was published. */
#ifdef BROKEN_BUDGET_READ_FIRST
#define NOW_BUDGET read_budget
#else
#define NOW_BUDGET budget
#endif

/* Whether there are reserves at all is read before the rows. */
#if RAISED != RESERVE1
#define SUMS_BY_SLOT h
#else
#define SUMS_BY_SLOT true
#endif

/* --- one look -------------------------------------------------------------------------------------------------------- */

/*
 * An access to what is shared and the computing on it until the next access are one atomic step: nobody else sees or
 * changes a process's own variables, so steps among them would add states and nothing that could be found. A process's
 * own committed bytes are changed by nobody else and may be read with any of its steps.
 */
#ifdef BROKEN_COMMITTED_READ_FIRST
#define READ_FIRST  c = committed[i]
#define READ_SECOND d_step { b = bid[i]; o = (b != 0 && ticket[i] < tick -> b : 0); s = NOT_SETTLED }
#define READ_OTHERS skip
#else
#define READ_FIRST  b = bid[i]
#define READ_OTHERS                                                                                                    \
    if                                                                                                                \
    :: d_step { b != 0 -> o = (ticket[i] < tick -> b : 0); s = settled[i] }                                           \
    :: b == 0                                                                                                         \
    fi
#define READ_SECOND c = committed[i]
#endif

/* What a dead row holds is final, and read again: what was read before may be older than its last grant. */
#ifdef BROKEN_DEAD_COUNT_FOR_NOTHING
#define READ_DEAD skip
#else
#ifdef BROKEN_DEAD_READ_ONCE
#define READ_DEAD dead = dead + c
#else
#define READ_DEAD dead = dead + committed[i]
#endif
#endif

#ifdef CLAIMS
#define HIGH high
#else
#define HIGH ROWS
#endif

#define TALLY(slot)                                                                                                    \
    c_all[slot] = c_all[slot] + c;                                                                                    \
    b_all[slot] = b_all[slot] + b;                                                                                    \
    o_all[slot] = o_all[slot] + o
#define NEXT_ROW                                                                                                       \
    b = 0; c = 0; o = 0; s = 0; i = (i + 1 == row -> i + 2 : i + 1)

#define FITS           0
#define OVER           1
#define BEHIND_OLDER   2
#define BEHIND_YOUNGER 3

/* j: the judgement; seen, own: what two looks that agree must have seen alike. */
inline judge()
{
    d_step {
#ifdef CLAIMS
        c_all[slot] = c_all[slot] + (row < high -> committed[row] : 0);
#else
        c_all[slot] = c_all[slot] + committed[row];
#endif
        need_c = dead + c_all[0] + n;
        need_o = o_all[0];
        need_b = b_all[0];
#if S == 2
        need_c = need_c + c_all[1];
        need_o = need_o + o_all[1];
        need_b = need_b + b_all[1];
#endif
        seen = need_c;
        need_o = need_c + need_o;
        need_b = need_c + need_b;
#if S == 2 && !defined(BROKEN_RESERVE_IGNORED)
        if
        :: SUMS_BY_SLOT ->
            need_c = need_c + LESS(RESERVE(1 - slot), c_all[1 - slot]);
            need_o = need_o + LESS(RESERVE(1 - slot), c_all[1 - slot] + o_all[1 - slot]);
            need_b = need_b + LESS(RESERVE(1 - slot), c_all[1 - slot] + b_all[1 - slot])
        :: else
        fi;
#endif
#ifdef BROKEN_YOUNGER_IGNORED
        need_b = need_o;
        b_all[slot] = o_all[slot];
#endif
#ifdef BROKEN_LIMIT_WITHOUT_BIDS
        b_all[slot] = 0;
        o_all[slot] = 0;
#endif
        if
        :: need_b <= NOW_BUDGET && c_all[slot] + b_all[slot] + n <= LIMIT(slot) -> j = FITS
        :: else ->
            if
            :: need_c > NOW_BUDGET || c_all[slot] + n > LIMIT(slot) -> j = OVER
            :: else ->
                if
                :: need_o > NOW_BUDGET || c_all[slot] + o_all[slot] + n > LIMIT(slot) -> j = BEHIND_OLDER
                :: else -> j = BEHIND_YOUNGER
                fi
            fi
        fi;
#ifdef BROKEN_ONE_LOOK
        agree = (j == OVER);
#else
        agree = (j == OVER && before == seen && before_own == c_all[slot]);
#endif
        before = (j == OVER -> seen : 0);
        before_own = (j == OVER -> c_all[slot] : 0);
        need_c = 0; need_o = 0; need_b = 0; seen = 0; dead = 0;
        c_all[0] = 0; b_all[0] = 0; o_all[0] = 0;
#if S == 2
        c_all[1] = 0; b_all[1] = 0; o_all[1] = 0;
#endif
        i = (row == 0 -> 1 : 0); high = 0
    }
}

/* One look and the judgement on it. Between looks all sums are 0 and i is the first row of another (judge sees to both). */
inline look()
{
#if RAISED != RESERVE1
    h = has_reserves;
#endif
#ifdef CLAIMS
    d_step { high = rows_high; i = (row == 0 -> 1 : 0) }
#endif
    do
    :: atomic { i >= HIGH -> judge() } break
    :: atomic { i < HIGH -> READ_FIRST }
        READ_OTHERS;
#ifndef CLAIMS
        atomic {
            READ_SECOND;
            d_step { /* tags never change here */
                if
                :: s != NOT_SETTLED && c == s -> b = 0; o = 0 /* granted, and in the committed bytes already */
                :: else
                fi;
                TALLY(SLOT(tag[i]));
                NEXT_ROW
            }
        }
#else
        atomic {
            READ_SECOND;
            if
            :: s != NOT_SETTLED && c == s -> d_step { b = 0; o = 0 } /* granted, and in the committed bytes already */
            :: else
            fi
        }
        if
        :: b == 0 && c == 0
        :: else ->
            atomic {
                t = tag[i];
                if
                :: STATE(t) == LIVE -> d_step { TALLY(SLOT(t)) }
                :: else
                fi
            }
            if
            :: STATE(t) == ORPHANED || STATE(t) == DYING -> READ_DEAD
            :: else
            fi
        fi;
        d_step { NEXT_ROW; t = 0 }
#endif
    od
}

#ifdef BROKEN_SETTLED_NOT_TAKEN_BACK
#define UNSETTLE skip
#else
#define UNSETTLE settled[row] = NOT_SETTLED
#endif

/* --- one request: looks until it is answered ----------------------------------------------------------------------------- */

#define GRANT d_step { committed[row] = committed[row] + n; assert(SAFE && LATE_IS_SAFE) }
#ifdef BROKEN_BID_CLEARED_FIRST
#define COMMIT                                                                                                         \
    atomic { j == FITS -> bid[row] = 0 }                                                                              \
    atomic { GRANT; got = 1 }
#else
#define COMMIT                                                                                                         \
    atomic { j == FITS -> settled[row] = committed[row] + n }                                                         \
    GRANT;                                                                                                            \
    atomic { bid[row] = 0; got = 1 }
#endif

inline request()
{
    d_step { tick = NO_TICKET; before = 0; before_own = 0; agree = 0; got = 0; standing = 0 }
#ifdef BROKEN_BUDGET_READ_FIRST
    read_budget = budget;
#endif
    do
    :: tick != NO_TICKET && !standing && !peeked -> /* who knows of rivals peeks first */
        d_step { before = 0; before_own = 0 }
        do
        :: look();
            if
            :: j == BEHIND_OLDER -> break
            :: j == FITS || j == BEHIND_YOUNGER -> break
            :: j == OVER && agree -> break
            :: j == OVER && !agree
#ifdef GIVE_UP
            :: j == OVER && !agree -> j = BEHIND_OLDER; break
#endif
            fi
        od;
        if
        :: j == OVER -> break
        :: j == BEHIND_OLDER /* again from the start */
        :: else -> peeked = 1
        fi
    :: tick == NO_TICKET || standing || peeked ->
        d_step { peeked = 0; before = 0; before_own = 0 }
#ifdef BROKEN_LOOK_BEFORE_BID
        look();
        if
        :: COMMIT; break
        :: j != FITS
        fi;
#endif
        if
        :: standing
        :: d_step { !standing -> ticket[row] = tick; UNSETTLE; bid[row] = n; LATE_NOTE }
        fi;
        do
        :: look();
            if
            :: COMMIT; break
            :: atomic { j == OVER && agree -> bid[row] = 0 } break
            :: j == OVER && !agree
#ifdef GIVE_UP
            :: j == OVER && !agree -> d_step { bid[row] = 0; standing = 0; j = BEHIND_OLDER }; break
#endif
            :: d_step { j >= BEHIND_OLDER && tick == NO_TICKET -> tick = next_ticket; next_ticket++ }
                ticket[row] = tick
#ifdef BROKEN_ALL_WITHDRAW
            :: d_step { j >= BEHIND_OLDER && tick != NO_TICKET -> bid[row] = 0; standing = 0 } break
#else
            :: d_step { j == BEHIND_OLDER && tick != NO_TICKET -> bid[row] = 0; standing = 0 } break
            :: j == BEHIND_YOUNGER && tick != NO_TICKET -> standing = 1; break
#endif
            fi
        od;
        if
        :: j == FITS || j == OVER -> break
        :: else
        fi
    od;
progress_answered:
    skip;
    d_step {
        tick = NO_TICKET; before = 0; before_own = 0; agree = 0; j = 0; standing = 0; peeked = 0;
        answered++; granted = granted + got
    }
}

inline credit(bytes)
{
    committed[row] = committed[row] - bytes
}

/* --- a process --------------------------------------------------------------------------------------------------------- */

#ifdef BROKEN_HIGH_RAISED_LATE
#define RAISE_EARLY skip
#define RAISE_LATE  rows_high = (rows_high > row -> rows_high : row + 1)
#else
#define RAISE_EARLY rows_high = (rows_high > row -> rows_high : row + 1)
#define RAISE_LATE  skip
#endif

/* The kernel's lock decides who may turn FREE into LIVE; the tag is looked at again under it. */
inline claim()
{
end_claim:
    do
    :: atomic {
            if
            :: STATE(tag[0]) == FREE && life[0] == NOBODY && !child[0] -> row = 0
            :: STATE(tag[1]) == FREE && life[1] == NOBODY && !child[1] -> row = 1
            fi
        }
        if
        :: atomic { life[row] == NOBODY && !child[row] -> life[row] = me }
            if
            :: STATE(tag[row]) == FREE ->
                bid[row] = 0;
                ticket[row] = NO_TICKET;
                committed[row] = 0;
                RAISE_EARLY;
                tag[row] = TAG(LIVE, slot, GENERATION(tag[row]) + 1);
                break
            :: else -> life[row] = NOBODY
            fi
        :: else
        fi
    od
}

inline release()
{
    tag[row] = TAG(FREE, SLOT(tag[row]), GENERATION(tag[row]));
    atomic { if :: !killed[me] -> life[row] = NOBODY :: else fi }
}

/* A live process's row stays LIVE and its own, whatever reapers do. */
#define OWN_ROW_IS_LIVE assert(killed[me] || (STATE(tag[row]) == LIVE && life[row] == me))

proctype process(byte me)
{
    byte row = me, slot, n, i = (me == 0 -> 1 : 0), high, tick = NO_TICKET, b, c, o, s, t, dead, seen, before, before_own, need_c, need_o, need_b, j;
    byte c_all[S], b_all[S], o_all[S];
    bit agree, got, standing, peeked;
#ifdef BROKEN_BUDGET_READ_FIRST
    byte read_budget;
#endif
#if LOWERED != BUDGET
    bit late;
#endif
#if RAISED != RESERVE1
    bit h;
#endif
    {
        d_step { slot = slots[me]; n = wants[me] }
#ifdef CLAIMS
        claim();
        OWN_ROW_IS_LIVE;
#endif
#ifndef CLAIMS_ALONE
        request();
#endif
#ifdef BROKEN_HIGH_RAISED_LATE
        RAISE_LATE;
#endif
        if
        :: !got
#ifndef LAST_BYTES
        :: got -> credit(n); got = 0 /* the driver refused, or all was freed: the same to the ledger */
#endif
#ifdef GIVES_BACK
        :: got && me == 0 ->
            if
            :: credit(2)
            :: skip
            fi;
            n = 3;
            request()
#endif
        :: got
        fi;
#ifdef CLAIMS
        OWN_ROW_IS_LIVE;
        release();
#endif
    } unless { killed[me] || (stopped && me == N - 1) }
}

/* One process with two rows moves its bytes to and fro once; nobody else's request may be refused for it. */
proctype mover()
{
    committed[0] = committed[0] - 4;
    committed[1] = committed[1] + 4
}

/* --- terms that change ---------------------------------------------------------------------------------------------------- */

#ifdef BROKEN_RAISE_WITHOUT_BIDS
#define BIDS_COUNT 0
#else
#define BIDS_COUNT 1
#endif

#if RAISED != RESERVE1
/* A look at all rows by somebody who has none. */
inline look_from_outside()
{
    do
    :: i >= ROWS -> break
    :: atomic { i < ROWS -> READ_FIRST }
        READ_OTHERS;
        atomic {
            READ_SECOND;
            d_step {
                if
                :: s != NOT_SETTLED && c == s -> b = 0
                :: else
                fi;
                c_all[SLOT(tag[i])] = c_all[SLOT(tag[i])] + c;
                b_all[SLOT(tag[i])] = b_all[SLOT(tag[i])] + BIDS_COUNT * b;
                b = 0; c = 0; o = 0; s = 0; i++
            }
        }
    od
}

/* Publishes, looks, and keeps the promise or takes it back. */
proctype raiser()
{
    byte i, tick = NO_TICKET, b, c, o, s, others, own;
    byte c_all[S], b_all[S];
#ifdef BROKEN_RAISE_LOOKS_FIRST
    look_from_outside();
    has_reserves = 1;
    reserve1 = RAISED;
#else
#ifndef BROKEN_RAISE_FLAG_LATE
    has_reserves = 1;
#endif
    reserve1 = RAISED;
    look_from_outside();
#ifdef BROKEN_RAISE_FLAG_LATE
    has_reserves = 1;
#endif
#endif
    skip; /* Spin does not jump from a loop into a d_step */
    d_step {
        others = c_all[0] + b_all[0];
        others = (others > RESERVE0 -> others : RESERVE0);
        own = c_all[1] + b_all[1];
        own = (own > RAISED -> own : RAISED);
        if
        :: RAISED <= c_all[1] || others + own <= BUDGET -> promised1 = RAISED; assert(SAFE)
        :: else -> reserve1 = RESERVE1
        fi
    }
}
#endif

proctype lowerer()
{
    budget = LOWERED
}

/* --- death, and what follows it ----------------------------------------------------------------------------------------- */

proctype killer()
{
    byte deaths = 0, who;
    do
    :: deaths < DEATHS ->
        atomic {
            if
            :: !killed[0] -> who = 0
            :: !killed[1] -> who = 1
            fi;
            killed[who] = 1;
            if
            :: life[0] == who -> life[0] = NOBODY; if :: child[0] = 1 :: skip fi
            :: life[1] == who -> life[1] = NOBODY; if :: child[1] = 1 :: skip fi
            :: else
            fi;
            deaths++
        }
    :: break
    od;
    do
    :: atomic { child[0] -> child[0] = 0 }
    :: atomic { child[1] -> child[1] = 0 }
    :: atomic { !child[0] && !child[1] -> break }
    od
}

#define DEAD(row)                                                                                                      \
    ((STATE(tag[row]) == LIVE && life[row] == NOBODY) || (STATE(tag[row]) == ORPHANED && !child[row]) ||               \
     STATE(tag[row]) == DYING)

#ifdef BROKEN_REAP_WITHOUT_COMPARING
#define SWAP(to) tag[r] = TAG(to, SLOT(t), GENERATION(t))
#else
#define SWAP(to) atomic { if :: tag[r] == t -> tag[r] = TAG(to, SLOT(t), GENERATION(t)) :: else fi }
#endif

/* Looks, asks the kernel, swaps: each may be late by any time. That a DYING row's bytes are gone after its 200 ms is
 * taken for granted: FREE is where the monitor stops to count them. */
proctype reaper()
{
    byte r, t;
    bit held;
end_idle:
    do
    :: atomic {
            if
            :: DEAD(0) -> r = 0
            :: DEAD(1) -> r = 1
            fi;
            t = tag[r]
        }
        if
        :: STATE(t) == LIVE ->
            held = (life[r] != NOBODY);
            if
            :: held
            :: !held ->
                held = child[r] || life[r] != NOBODY; /* whoever lives holds both */
                if
                :: held -> SWAP(ORPHANED)
                :: !held -> SWAP(DYING)
                fi
            fi
        :: STATE(t) == ORPHANED ->
            held = child[r] || life[r] != NOBODY;
            if
            :: held
            :: !held -> SWAP(DYING)
            fi
        :: STATE(t) == DYING -> SWAP(FREE)
        :: STATE(t) == FREE
        fi;
        d_step { r = 0; t = 0; held = 0 }
    od
}

proctype stopper()
{
    if
    :: stopped = 1
    :: skip
    fi
}

/* Where nothing moves any more: no bid, and no bytes but those that a process that was granted them still holds. */
active proctype watcher()
{
    timeout;
#ifdef CLAIMS
    assert(HELD_ALL == 0);
    assert(STATE(tag[0]) == FREE && STATE(tag[1]) == FREE);
#else
    assert(stopped || (bid[0] == 0 && bid[1] == 0));
#endif
#ifdef LAST_BYTES
    assert(answered == N && granted == LAST_BYTES);
#endif
#ifdef MOVES
    assert(answered == 1 && granted == 1);
#endif
}

init
{
    atomic {
#ifdef CLAIMS
        skip;
#else
        rows_high = ROWS;
        tag[0] = TAG(LIVE, 0, 0);
        tag[1] = TAG(LIVE, 0, 0);
        life[0] = 0;
        life[1] = 1;
#if ROWS > 2
        tag[2] = TAG(LIVE, S - 1, 0);
        life[2] = 2;
#endif
#endif
#if N > 2
        slots[2] = S - 1;
#else
        slots[1] = S - 1;
        tag[1] = (STATE(tag[1]) == LIVE -> TAG(LIVE, S - 1, 0) : tag[1]);
#endif
        wants[0] = W0;
        wants[1] = W1;
#if N > 2
        wants[2] = W2;
#endif
#ifdef MOVES
        committed[0] = 4;
        run mover();
        run process(2);
#else
        run process(0);
        run process(1);
#if N > 2
        run process(2);
#endif
#endif
#if RAISED != RESERVE1
        run raiser();
#endif
#if LOWERED != BUDGET
        run lowerer();
#endif
#if DEATHS > 0
        run killer();
#endif
#if REAPERS > 0
        run reaper();
#endif
#if REAPERS > 1
        run reaper();
#endif
#ifdef STOPS
        run stopper();
#endif
    }
}
