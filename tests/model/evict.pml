/*
 * Eviction: the state word (src/ledger/process.c), the line (line.c), the gate (src/platform/gate.c) and the agent (src/evict) of each
 * process, with the charge as one step (charge.pml is the model of that). One step here for each access to shared memory that another
 * thread or process can come between, and for each effect on the card. Checked by tests/model/check, which names the settings.
 *
 * A process is a program's thread and an agent. The thread does ROUNDS times: enter the gate, call the driver, allocate with waiting,
 * leave, free. Any step may be late by any time; a process may be killed (DEATHS) or stopped for ever (STOPS) between any two. A turn and a
 * patience pass where what they wait for cannot come, because it is stopped; with ANY_TIME whenever they like. A residency is no time at
 * all; with RESIDENCY it lasts for one step of the program, without which nobody would ever get anything done.
 * A sleep on `room` is left out: it is 20 ms at most, so who waits looks again whatever happens. Sleeps on the word of a process and
 * at the gate have no limit, and are here as they are.
 *
 * What must hold: what is on the card never exceeds the budget; no restore meets a card without room for it, which would be fatal; no
 * thread is in the driver when its process is checkpointed, nor enters it then; only who asked withdraws an ask; where nothing moves any
 * more everybody has been served or refused (IS_SERVED); and there is no circle (a cycle without progress: rounds are finite, so every
 * cycle that a fair scheduler could run for ever is one).
 *
 * Settings: N processes; BUDGET; CARD; M0, M1, M2: the bytes each holds; OUT0, OUT1, OUT2: it is evicted at first; A0, A1, A2: the bytes each
 * allocates in a round; IDLE: a process whose thread does nothing; DEADLINES: a waiting allocation may be refused at any time; DECLINES: an
 * agent may decline once; OUTSIDE: bytes of the card that somebody without a ledger holds and may give back; SLACK: what a restore
 * charges beyond the bytes; DIES: who is killed, else anybody; STOPS: who is stopped. MARKS, SLEEPS, NUMBERS (FINE: all three): the marks
 * at the gate, the agent's sleep on the word, the number of an ask in single steps; else passing the gate is one step, an agent
 * sees each change, and a word holds the state and WANT alone.
 * BROKEN_...: what must be found; one at a time.
 */
#ifndef N
#define N 2
#endif
#ifndef BUDGET
#define BUDGET 10
#endif
#ifndef CARD
#define CARD (2 * BUDGET) /* a card that is full would hide what the budget should have refused */
#endif
#ifndef M0
#define M0 6
#endif
#ifndef M1
#define M1 6
#endif
#ifndef M2
#define M2 0
#endif
#ifndef OUT0
#define OUT0 0
#endif
#ifndef OUT1
#define OUT1 0
#endif
#ifndef OUT2
#define OUT2 0
#endif
#ifndef A0
#define A0 0
#endif
#ifndef A1
#define A1 0
#endif
#ifndef A2
#define A2 0
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef OUTSIDE
#define OUTSIDE 0
#endif
#ifndef SLACK
#define SLACK 0
#endif

#ifndef IDLE
#define IDLE NOBODY
#endif
#ifdef FINE
#define MARKS
#define SLEEPS
#define NUMBERS
#endif

#define NOBODY 7

/* The word, as the ledger's: state, WANT, the number of the ask (here modulo 2) and who asked (row + 1). */
#define RUNNING              0
#define ASKED                1
#define EVICTING             2
#define EVICTED              3
#define RESTORING            4
#define WANT                 8
#ifdef NUMBERS
#define WORD(state, number, by) ((state) + 16 * ((number) & 1) + 32 * (by))
#else
#define WORD(state, number, by) (state)
#endif
#define STATE(word)          ((word) & 7)
#define WANTS(word)          (((word) >> 3) & 1)
#define NUMBER(word)         (((word) >> 4) & 1)
#define ASKER(word)          ((word) >> 5)
#define MOVED(word, state)   (((word) & 248) + (state)) /* WANT, number and asker stay */

byte word[N];
bit asleep[N];  /* the agent, on the word */
byte committed[N], evicted[N], in_flight[N];
byte ticket[N]; /* 0: not in line; tickets are kept small: who leaves lowers those above his */
byte wanted[N]; /* by the thread in line; 0: it is not */
bit passed[N];  /* its turn has passed */

/* Within a process. */
bit shut[N];     /* the gate */
bit reopened[N]; /* since the thread read that it is shut: the closed value counts closings, so a sleep on an older one ends at once */
bit inside[N], buffered[N]; /* the thread's mark, as others see it; stored and not seen yet */
bit in_driver[N];
#ifdef RESIDENCY
bit fresh[N], at_rest[N]; /* within its residency; its thread has nothing to do with it */
#define BECOME_RESIDENT  fresh[me] = 1
#define USE_RESIDENCY    fresh[me] = 0
#define REST(value)      at_rest[me] = value
#define IS_RESIDENT(p)   (fresh[p] && !at_rest[p] && !stopped[p])
#else
#define BECOME_RESIDENT  skip
#define USE_RESIDENCY    skip
#define REST(value)      skip
#define IS_RESIDENT(p)   0
#endif

/* The card and the kernel. */
byte real[N], outside = OUTSIDE;
bit checkpointed[N], killed[N], stopped[N], gone[N]; /* gone: dead, and reaped */
byte restore_byte = NOBODY;
byte deaths;
bit done[N]; /* the thread has ended its rounds */

#if N == 2
#define HELD      (committed[0] + committed[1])
#define REAL      (real[0] + real[1])
#define ANY(what) (what(0) || what(1))
#else
#define HELD      (committed[0] + committed[1] + committed[2])
#define REAL      (real[0] + real[1] + real[2])
#define ANY(what) (what(0) || what(1) || what(2))
#endif
#define FITS(bytes) (HELD + (bytes) <= BUDGET)
#define FREE        (CARD - outside - REAL)

#define PROMISED(p)   ((p) == me -> 0 : in_flight[p])
#if N == 2
#define ALL_PROMISED  (PROMISED(0) + PROMISED(1))
#else
#define ALL_PROMISED  (PROMISED(0) + PROMISED(1) + PROMISED(2))
#endif

/* --- the line -------------------------------------------------------------------------------------------------------------- */

/* A stopped head does nothing to lengthen its turn, so it has passed or will have. */
#ifdef BROKEN_STOPPED_HEAD_KEEPS_TURN
#define HAS_PASSED(p) passed[p]
#else
#define HAS_PASSED(p) (passed[p] || stopped[p])
#endif
#define IS_OLDER(p)   ((p) != me && ticket[p] != 0 && !gone[p] && (ticket[me] == 0 || ticket[p] < ticket[me]))
#define IS_AHEAD(p)   (IS_OLDER(p) && !HAS_PASSED(p))
#define IS_BEHIND     ANY(IS_AHEAD)

inline line_enter()
{
    d_step {
        if
        :: ticket[me] == 0 ->
            ticket[me] = 1 + (ticket[0] != 0) + (ticket[1] != 0);
#if N > 2
            ticket[me] = ticket[me] + (ticket[2] != 0);
#endif
            passed[me] = 0
        :: else
        fi
    }
}

#define LOWER(p) if :: ticket[p] > ticket[who] -> ticket[p] = ticket[p] - 1 :: else fi

inline line_leave(who)
{
    atomic {
        if
        :: ticket[who] != 0 ->
            LOWER(0);
            LOWER(1);
#if N > 2
            LOWER(2);
#endif
            ticket[who] = 0;
            wanted[who] = 0;
            passed[who] = 0
        :: else
        fi
    }
}

/* --- asking, by the thread or the agent that is the head ------------------------------------------------------------------------ */

#ifdef BROKEN_OLDER_IS_VICTIM
#define IS_SPARED(p) 0
#define MAY_ASK      1
#else
#define IS_SPARED(p) IS_OLDER(p)
#define MAY_ASK      !IS_BEHIND
#endif
#define IS_VICTIM(p)                                                                                                   \
    ((p) != me && !gone[p] && STATE(word[p]) == RUNNING && committed[p] != 0 && !IS_SPARED(p) && !IS_RESIDENT(p) &&  \
     (shunned & (1 << (p))) == 0)
#define IS_ASKED_ASLEEP(p) (!gone[p] && STATE(word[p]) == ASKED && asleep[p])

/* The ask of somebody who was killed or stopped before he could wake. */
#ifdef BROKEN_ASKED_NOT_WOKEN
#define WAKES_ASKED(p) 0
#else
#define WAKES_ASKED(p) (IS_ASKED_ASLEEP(p) && !IS_BEHIND)
#endif
#define WILL_LEAVE(p) (!gone[p] && (STATE(word[p]) == ASKED || STATE(word[p]) == EVICTING) && !stopped[p])

#ifdef ANY_TIME
#define OUT_OF_PATIENCE 1
#else
#define OUT_OF_PATIENCE stopped[victim]
#endif

#ifdef SLEEPS
#define WAKE(p) asleep[p] = 0
#else
#define WAKE(p) skip
#endif

inline ask()
{
    atomic {
        if
        :: IS_VICTIM(0) -> victim = 0
        :: IS_VICTIM(1) -> victim = 1
#if N > 2
        :: IS_VICTIM(2) -> victim = 2
#endif
        :: else
        fi
    }
    atomic {
        if
        :: victim != NOBODY && STATE(word[victim]) == RUNNING ->
            word[victim] = WORD(ASKED, NUMBER(word[victim]) + 1, me + 1);
            asked = word[victim]
        :: else -> victim = NOBODY
        fi
    }
    if
    :: victim != NOBODY -> WAKE(victim)
    :: else
    fi
}

#ifdef BROKEN_WITHDRAW_WITHOUT_NUMBER
#define STILL_ASKED (STATE(word[victim]) == ASKED)
#else
#define STILL_ASKED (word[victim] == asked)
#endif

inline withdraw()
{
    if
    :: victim != NOBODY ->
        d_step {
            if
            :: STILL_ASKED ->
                assert(word[victim] == asked);
                word[victim] = WORD(RUNNING, NUMBER(word[victim]), 0)
            :: else
            fi;
            victim = NOBODY;
            asked = 0
        }
    :: else
    fi
}

/* What the head may do while `bytes` do not fit: one of the ways out of a loop's choice each. */
#define HEAD_ASKS(bytes)  victim == NOBODY && MAY_ASK && !FITS(bytes) && !ANY(WILL_LEAVE) && ANY(IS_VICTIM)
#define ASK_IS_OVER       victim != NOBODY && (gone[victim] || (word[victim] != asked && STATE(word[victim]) != EVICTING))

/* --- the gate ---------------------------------------------------------------------------------------------------------------- */

#ifdef BROKEN_NO_MEMBARRIER
#define MEMBARRIER skip
#else
#define MEMBARRIER d_step { inside[me] = inside[me] | buffered[me]; buffered[me] = 0 }
#endif
#define STORE_MARK   atomic { if :: inside[me] = 1 :: buffered[me] = 1 fi }
#ifdef BROKEN_NO_RECHECK
#define BEFORE_LOAD  skip
#define AFTER_LOAD   STORE_MARK
#else
#define BEFORE_LOAD  STORE_MARK
#define AFTER_LOAD   skip
#endif
#ifdef BROKEN_GATE_WITHOUT_COUNT
#define GATE_SLEEP   reopened[me] = !shut[me]
#else
#define GATE_SLEEP   skip
#endif
#ifdef BROKEN_WANT_BESIDE_WORD
bit want_beside[N];
#define SET_WANT     want_beside[me] = 1
#define IS_WANTED    want_beside[me]
#define UNWANT       want_beside[me] = 0
#else
#define SET_WANT     word[me] = word[me] | WANT
#define IS_WANTED    WANTS(word[me])
#define UNWANT       skip
#endif

inline gate_leave()
{
    atomic { inside[me] = 0; buffered[me] = 0 }
}

inline gate_arrive()
{
    if
    :: atomic { STATE(word[me]) >= EVICTING -> SET_WANT }
        WAKE(me)
    :: atomic { STATE(word[me]) < EVICTING }
    fi;
    GATE_SLEEP;
    reopened[me]
}

inline gate_enter()
{
    do
#ifdef MARKS
    :: BEFORE_LOAD;
        if
        :: atomic { !shut[me] } AFTER_LOAD; break
        :: d_step { shut[me] -> inside[me] = 0; buffered[me] = 0; reopened[me] = 0 }
            gate_arrive()
        fi
#else
    :: d_step { !shut[me] -> inside[me] = 1 } break
    :: d_step { shut[me] -> reopened[me] = 0 }
        gate_arrive()
#endif
    od
}

inline gate_open()
{
    d_step { shut[me] = 0; reopened[me] = 1 }
}

/* --- a program's thread ------------------------------------------------------------------------------------------------------ */

inline driver_call()
{
    atomic { assert(!checkpointed[me]); in_driver[me] = 1 }
    d_step { assert(!checkpointed[me]); in_driver[me] = 0; USE_RESIDENCY }
}

/* A grant is published as in flight before it is looked whether somebody is restoring, who looks the other way round: one of the two
 * sees the other. Beside a restore a grant has to be proven too, as that is: what is promised is read first, then what is free. */
#define IS_RESTORING(p) ((p) != me && !gone[p] && STATE(word[p]) == RESTORING)
#ifdef BROKEN_GRANT_BESIDE_RESTORE
#define IS_UNPROVEN(bytes) 0
#else
#define IS_UNPROVEN(bytes) (ANY(IS_RESTORING) && FREE < ALL_PROMISED + (bytes))
#endif

/* granted: 1 it is charged; 0 it is not */
inline charge(bytes)
{
    atomic {
        if
        :: FITS(bytes) -> committed[me] = committed[me] + bytes; in_flight[me] = in_flight[me] + bytes; granted = 1; charged = 1
        :: else -> granted = 0
        fi
    }
    if
#ifndef BROKEN_GRANT_BESIDE_RESTORE
    :: granted && ANY(IS_RESTORING) ->
        room = ALL_PROMISED;
        d_step { granted = (FREE >= room + bytes); room = 0 }
    :: else
#else
    :: true
#endif
    fi;
    if
    :: !granted && charged ->
        d_step { committed[me] = committed[me] - bytes; in_flight[me] = in_flight[me] - bytes; charged = 0 }
    :: else -> charged = 0
    fi
}

inline allocate(bytes)
{
    if
    :: !IS_BEHIND -> charge(bytes)
    :: else
    fi;
    if
    :: granted
    :: !granted ->
        line_enter();
        wanted[me] = bytes;
        gate_leave();
        d_step { REST(1); shunned = 0 }
        do
        :: atomic { !IS_BEHIND && FITS(bytes) && !IS_UNPROVEN(bytes) && !shut[me] -> REST(0) }
            gate_enter();
            charge(bytes);
            if
            :: granted -> break
            :: else -> gate_leave(); REST(1)
            fi
        :: atomic { shut[me] -> REST(0) }
            gate_enter(); /* sets WANT, and comes back when the agent has restored */
            gate_leave();
            REST(1)
        :: HEAD_ASKS(bytes) -> ask()
        :: d_step { ASK_IS_OVER -> victim = NOBODY; asked = 0 }
        :: atomic { victim != NOBODY && OUT_OF_PATIENCE -> shunned = shunned | (stopped[victim] << victim) }
            withdraw()
#ifdef SLEEPS
        :: d_step { WAKES_ASKED(0) -> asleep[0] = 0 }
        :: d_step { WAKES_ASKED(1) -> asleep[1] = 0 }
#if N > 2
        :: d_step { WAKES_ASKED(2) -> asleep[2] = 0 }
#endif
#endif
#ifdef DEADLINES
        :: REST(0); gate_enter(); break
#endif
        od;
        line_leave(me);
        withdraw()
    fi;
    if
    :: granted ->
        d_step { /* the driver, which refuses where the card is full */
            assert(!checkpointed[me]);
            if
            :: FREE >= bytes -> real[me] = real[me] + bytes; assert(REAL <= BUDGET)
            :: else -> granted = 0
            fi
        }
        if
        :: granted -> in_flight[me] = in_flight[me] - bytes
        :: else -> d_step { committed[me] = committed[me] - bytes; in_flight[me] = in_flight[me] - bytes }
        fi
    :: else
    fi
}

inline release(bytes)
{
    gate_enter();
    atomic { assert(!checkpointed[me]); real[me] = real[me] - bytes; USE_RESIDENCY }
    committed[me] = committed[me] - bytes;
    gate_leave()
}

proctype thread(byte me; byte bytes)
{
    byte victim = NOBODY, asked, shunned, round, room;
    bit granted, charged;
    {
        do
        :: round < ROUNDS && me != IDLE ->
            gate_enter();
            driver_call();
            if
            :: bytes != 0 -> allocate(bytes)
            :: else
            fi;
            gate_leave();
            if
            :: granted -> release(bytes); granted = 0
            :: else
            fi;
            round++
        :: else -> break
        od;
        atomic { REST(1); done[me] = 1; round = 0; shunned = 0 }
    } unless {
        d_step {
            killed[me] || stopped[me] ->
            victim = NOBODY; asked = 0; shunned = 0; round = 0; room = 0; granted = 0; charged = 0
        }
    }
}

/* --- an agent ------------------------------------------------------------------------------------------------------------------ */

inline evict()
{
#ifndef BROKEN_GATE_NOT_CLOSED
    shut[me] = 1;
    MEMBARRIER;
#endif
    if
#ifdef BROKEN_GATE_NOT_CLOSED
    :: true
#else
    :: !inside[me]
#endif
#ifdef ANY_TIME
    :: inside[me] -> quiet = 0 /* not in time */
#endif
    fi;
    if
    :: !quiet ->
        gate_open();
        d_step { word[me] = WORD(RUNNING, NUMBER(word[me]), 0); UNWANT; BECOME_RESIDENT; quiet = 1; seen = 0 }
    :: quiet ->
#ifdef BROKEN_CLEARED_BEFORE_CHECKPOINT
        d_step { evicted[me] = committed[me]; committed[me] = 0 }
#endif
        d_step { assert(!in_driver[me]); checkpointed[me] = 1; real[me] = 0 }
#ifdef BROKEN_WANT_OVERWRITTEN
        word[me] = MOVED(seen, EVICTED);
#else
        word[me] = MOVED(word[me], EVICTED); /* a compare-and-swap until it holds: WANT may have come */
#endif
#ifndef BROKEN_CLEARED_BEFORE_CHECKPOINT
        d_step { evicted[me] = committed[me]; committed[me] = 0 }
#endif
    fi
}

#define NEED   (evicted[me] + SLACK > BUDGET -> BUDGET : evicted[me] + SLACK)
#ifdef BROKEN_SUM_NOT_CAPPED
#define NEED_ALL (NEED + wanted[me])
#else
#define NEED_ALL (NEED + wanted[me] > BUDGET -> BUDGET : NEED + wanted[me])
#endif

#ifdef BROKEN_CHARGE_AFTER_RESTORE
#define CHARGE_BEFORE skip
#define CHARGE_AFTER  d_step { committed[me] = committed[me] + need; in_flight[me] = in_flight[me] + need }
#else
#define CHARGE_BEFORE committed[me] = committed[me] + need; in_flight[me] = in_flight[me] + need
#define CHARGE_AFTER  skip
#endif

/* Who cannot have the byte goes on without it after a while: what other restorers are about to take is in flight, and seen. */
#ifdef BROKEN_BYTE_AWAITED_FOR_EVER
#define BYTE_TIMES_OUT 0
#else
#ifdef ANY_TIME
#define BYTE_TIMES_OUT (restore_byte != NOBODY)
#else
#define BYTE_TIMES_OUT (restore_byte != NOBODY && stopped[restore_byte])
#endif
#endif

inline prove()
{
#if !defined(MARKS) && OUTSIDE == 0
    d_step { proven = (FREE >= ALL_PROMISED + evicted[me] + SLACK) }
#else
#ifdef BROKEN_PROOF_SKIPPED
    proven = 1
#else
#ifdef BROKEN_FREE_READ_FIRST
    room = FREE;
    d_step { proven = (room >= ALL_PROMISED + evicted[me] + SLACK); room = 0 }
#else
    room = ALL_PROMISED;
    d_step { proven = (FREE >= room + evicted[me] + SLACK); room = 0 }
#endif
#endif
#endif
}

inline restore()
{
    do
    :: d_step { !IS_BEHIND && FITS(NEED_ALL) -> need = NEED; CHARGE_BEFORE }
        word[me] = MOVED(word[me], RESTORING);
        if
        :: atomic { restore_byte == NOBODY -> restore_byte = me }
        :: atomic { BYTE_TIMES_OUT }
        fi;
        prove();
        if
        :: proven ->
            d_step {
                assert(FREE >= evicted[me]); /* else it is fatal */
                real[me] = evicted[me];
                checkpointed[me] = 0;
                assert(REAL <= BUDGET)
            }
            CHARGE_AFTER;
            committed[me] = committed[me] - need + evicted[me];
            d_step { in_flight[me] = in_flight[me] - need; evicted[me] = 0; need = 0; proven = 0 }
            break
        :: !proven ->
            d_step { committed[me] = committed[me] - need; in_flight[me] = in_flight[me] - need; need = 0 }
            word[me] = MOVED(word[me], EVICTED);
            restore_byte = (restore_byte == me -> NOBODY : restore_byte)
        fi
    :: HEAD_ASKS(NEED_ALL) -> ask()
    :: d_step { ASK_IS_OVER -> victim = NOBODY; asked = 0 }
    :: atomic { victim != NOBODY && OUT_OF_PATIENCE -> shunned = shunned | (stopped[victim] << victim) }
        withdraw()
#ifdef SLEEPS
    :: d_step { WAKES_ASKED(0) -> asleep[0] = 0 }
    :: d_step { WAKES_ASKED(1) -> asleep[1] = 0 }
#if N > 2
    :: d_step { WAKES_ASKED(2) -> asleep[2] = 0 }
#endif
#endif
    od;
    atomic { restore_byte = (restore_byte == me -> NOBODY : restore_byte); shunned = 0 }
    if
    :: wanted[me] == 0 -> line_leave(me)
    :: else
    fi;
    withdraw();
    d_step { BECOME_RESIDENT; word[me] = WORD(RUNNING, NUMBER(word[me]), 0); UNWANT; seen = 0 }
    gate_open()
}

proctype agent(byte me)
{
    byte seen, victim = NOBODY, asked, shunned, need, room;
    bit proven, quiet = 1, declined;
    {
end_asleep:
        do
        :: atomic { STATE(word[me]) == ASKED -> seen = word[me] }
            if
            :: atomic { word[me] == seen -> word[me] = MOVED(word[me], EVICTING); seen = word[me] }
                evict()
#ifdef DECLINES
            :: d_step {
                    word[me] == seen && !declined ->
                    word[me] = WORD(RUNNING, NUMBER(word[me]), 0);
                    BECOME_RESIDENT;
                    declined = 1
                }
#endif
            :: atomic { word[me] != seen }
            fi;
            seen = 0
        :: atomic { STATE(word[me]) == EVICTED && IS_WANTED }
            line_enter();
            restore()
#ifdef SLEEPS
        :: atomic { STATE(word[me]) != ASKED && !(STATE(word[me]) == EVICTED && IS_WANTED) -> seen = word[me] }
            atomic {
                if
                :: word[me] == seen -> asleep[me] = 1
                :: else
                fi;
                seen = 0
            }
end_sleeps:
            !asleep[me]
#endif
        od
    } unless {
        d_step {
            killed[me] || stopped[me] ->
            seen = 0; victim = NOBODY; asked = 0; shunned = 0; need = 0; room = 0; proven = 0; quiet = 1; declined = 0
        }
    }
}

/* --- what happens to them -------------------------------------------------------------------------------------------------------- */

/* The card has the memory of the dead back at some time after the death; that their rows are FREE only then is charge.pml's affair. */
proctype killer()
{
    byte who;
    do
    :: deaths < DEATHS ->
        atomic {
#ifdef DIES
            who = DIES;
#else
            if
            :: !killed[0] -> who = 0
            :: !killed[1] -> who = 1
#if N > 2
            :: !killed[2] -> who = 2
#endif
            fi;
#endif
            killed[who] = 1;
            deaths++;
            restore_byte = (restore_byte == who -> NOBODY : restore_byte)
        }
        real[who] = 0;
        line_leave(who);
        d_step {
            committed[who] = 0; in_flight[who] = 0; gone[who] = 1;
            word[who] = 0; asleep[who] = 0; evicted[who] = 0; shut[who] = 0; reopened[who] = 0; inside[who] = 0;
            buffered[who] = 0; in_driver[who] = 0; checkpointed[who] = 0 /* nobody looks at these any more */
        }
    :: break
    od
}

#ifdef STOPS
proctype stopper()
{
    stopped[STOPS] = 1
}
#endif

proctype outsider()
{
    outside = 0
}

#ifdef ANY_TIME
/* A turn passes though its head could use it. */
proctype clock()
{
end_clock:
    do
    :: d_step { ticket[0] != 0 && !passed[0] -> passed[0] = 1 }
    :: d_step { ticket[1] != 0 && !passed[1] -> passed[1] = 1 }
#if N > 2
    :: d_step { ticket[2] != 0 && !passed[2] -> passed[2] = 1 }
#endif
    od
}
#endif

/* Where nothing moves any more: who lives has ended, or the stopped hold what he lacks. */
#define STUCK(p)     (stopped[p] && !killed[p] -> committed[p] : 0)
#define ALL_OF(p)    (committed[p] + evicted[p] + wanted[p])
#define IS_SERVED(p) (killed[p] || stopped[p] || done[p] || ALL_STUCK + ALL_OF(p) > BUDGET)
#if N == 2
#define ALL_STUCK    (STUCK(0) + STUCK(1))
#else
#define ALL_STUCK    (STUCK(0) + STUCK(1) + STUCK(2))
#endif

active proctype watcher()
{
    timeout;
    assert(IS_SERVED(0) && IS_SERVED(1));
#if N > 2
    assert(IS_SERVED(2));
#endif
}

#define BEGIN(p, bytes, out, takes)                                                                                    \
    if                                                                                                                 \
    :: out -> word[p] = WORD(EVICTED, 0, 0); evicted[p] = bytes; checkpointed[p] = 1; shut[p] = 1                      \
    :: else -> committed[p] = bytes; real[p] = bytes                                                                   \
    fi;                                                                                                                \
    run thread(p, takes);                                                                                              \
    run agent(p)

init
{
    atomic {
        BEGIN(0, M0, OUT0, A0);
        BEGIN(1, M1, OUT1, A1);
#if N > 2
        BEGIN(2, M2, OUT2, A2);
#endif
#if DEATHS > 0
        run killer();
#endif
#ifdef STOPS
        run stopper();
#endif
#if OUTSIDE > 0
        run outsider();
#endif
#ifdef ANY_TIME
        run clock();
#endif
    }
}
