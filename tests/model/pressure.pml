/*
 * Telling of pressure, as src/ledger/watch.c does it: changers that publish a level after their change, where somebody watches, and a
 * watcher that begins at any moment, sleeps on the word and reads it. One step here for each access there that another process
 * can come between. Checked by tests/model/check, which names the settings.
 *
 * What must hold: when every change was made and the watcher sleeps, the published level is the true one and he has seen it. Every
 * level he has not seen was counted: the count is what he sleeps on.
 *
 * Memory is in order here. That a store may be seen late is what the fences are for (the changer's before its look, the watcher's
 * membarrier after raising `watchers`).
 *
 * Settings: C changers, ROUNDS changes of each; DEATHS: a changer may die after its change, before any later step; the watcher then
 * looks once more, as he does each second. PRUNES: somebody makes `watchers` 0 where no lock is held, while the watcher begins.
 * BROKEN_...: what must be found; one at a time.
 */
#ifndef C
#define C 2
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef DEATHS
#define DEATHS 0
#endif

byte held[C];       /* by each changer: 0 or 1 */
byte level;         /* published: how many hold, so that every change is one of level */
byte generation;    /* counts the changes of `level`; with it one word */
byte watchers;      /* beginnings */
bool lock_held;     /* the kernel's: the watcher lives */
bool asleep, ready; /* ready: he watches */
byte finished, deaths;

inline sum_read(sum, i)
{
    sum = 0;
    i = 0;
    do
    :: i < C -> sum = sum + held[i]; i++
    :: else -> break
    od
}

/* `dies`: whether this process may end between two steps. */
inline step_or_die(dies)
{
    if
    :: dies && deaths < DEATHS -> deaths++; goto dead
    :: true
    fi
}

inline publish(dies)
{
    do
    :: atomic { word_level = level; word_generation = generation };
       sum_read(now, i);
       if
       :: now == word_level -> break
       :: else
       fi;
       sum_read(again, i);
       if
       :: again == now
       :: else -> goto_next = true
       fi;
       if
       :: goto_next -> goto_next = false
       :: else ->
          step_or_die(dies);
#ifdef BROKEN_WAKE_BEFORE_SWAP
          asleep = false;
#endif
          swapped = false;
          atomic {
              if
              :: level == word_level && generation == word_generation -> level = now; generation++; swapped = true
              :: else
              fi
          };
          step_or_die(dies);
#ifndef BROKEN_WAKE_BEFORE_SWAP
          if
          :: swapped -> asleep = false
          :: else
          fi;
#endif
#ifdef BROKEN_NOT_READ_AGAIN
          if
          :: swapped -> break
          :: else
          fi
#endif
       fi
    od
}

proctype changer(byte self)
{
    byte word_level, word_generation, now, again, i, round;
    bool goto_next, swapped;
    do
    :: round < ROUNDS ->
       round++;
#ifdef BROKEN_LOOKS_FIRST
       byte seen = watchers;
       held[self] = 1 - held[self];
#else
       held[self] = 1 - held[self];
       step_or_die(true);
       byte seen = watchers;
#endif
       if
       :: seen != 0 -> publish(true)
       :: else
       fi
    :: else -> break
    od;
dead:
    finished++
}

proctype watcher()
{
    byte word_level, word_generation, now, again, i, seen;
    bool goto_next, swapped;
#ifdef BROKEN_SUMS_BEFORE_RAISING
    publish(false);
    lock_held = true;
    watchers++;
#else
#ifdef BROKEN_RAISES_BEFORE_LOCKING
    watchers++;
    lock_held = true;
#else
    lock_held = true;
    watchers++;
#endif
    publish(false);
#endif
    ready = true;
    do
    :: seen = generation;
       /* the futex: sleeps only while the word is what he has seen */
       atomic {
           if
           :: generation == seen -> asleep = true
           :: else
           fi
       };
       if
       :: !asleep
       :: finished == C && asleep -> break
       fi
    od;
    if
    :: deaths > 0 -> publish(false)
    :: else -> assert(seen == generation)
    fi;
    sum_read(now, i);
    assert(level == now);
dead:
    skip
}

/* Between two watchers: finds the count that an ended one left, and no lock. */
proctype pruner()
{
    byte seen;
    seen = watchers;
    if
    :: seen != 0 && !lock_held ->
#ifdef BROKEN_PRUNES_WITHOUT_COMPARING
        watchers = 0
#else
        atomic {
            if
            :: watchers == seen -> watchers = 0
            :: else
            fi
        }
#endif
    :: else
    fi
}

init
{
    byte i;
    atomic {
        held[0] = 1; /* changer 0 gives back, the others take: together they may come back to where they began */
        level = 1;
#ifdef PRUNES
        watchers = 1; /* of one who was killed */
        run pruner();
#endif
        do
        :: i < C -> run changer(i); i++
        :: else -> break
        od;
        run watcher()
    }
}
