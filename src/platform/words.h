/* Which known word somebody may have meant. Pure functions; safe everywhere, the constructor included. */
#ifndef PLATFORM_WORDS_H
#define PLATFORM_WORDS_H

/* How many letters must be added, dropped or changed to make one word of the other; words longer than 31 are far from all. */
unsigned words_distance(const char *from, const char *to);

/* The nearest of words (ended by NULL) that differs in at most two letters and not in all; NULL: none. */
const char *words_nearest(const char *word, const char *const *words);

#endif
