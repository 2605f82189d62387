/* Which known word somebody may have meant; see words.h. */
#include "config.h"

#include <stddef.h>
#include <string.h>
#include "platform/words.h"

enum { LONGEST = 31, FARTHEST = 2 }; /* further than two letters is another word */

unsigned words_distance(const char *from, const char *to)
{
    unsigned row[LONGEST + 1];
    size_t width = strlen(to);
    if (width > LONGEST || strlen(from) > LONGEST)
        return LONGEST;
    for (size_t i = 0; i <= width; i++)
        row[i] = (unsigned)i;
    for (size_t i = 1; from[i - 1] != '\0'; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= width; j++) {
            unsigned changed = diagonal + (from[i - 1] != to[j - 1]);
            unsigned other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = changed < other ? changed : other;
        }
    }
    return row[width];
}

const char *words_nearest(const char *word, const char *const *words)
{
    const char *nearest = NULL;
    unsigned least = FARTHEST + 1;
    for (; *words != NULL; words++) {
        unsigned distance = words_distance(word, *words);
        if (distance < least && distance < strlen(*words)) {
            least = distance;
            nearest = *words;
        }
    }
    return nearest;
}
