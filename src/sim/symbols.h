/* The table of every name the driver exports, made by exports.awk; read by procaddr.c. Constant. */
#ifndef SIM_SYMBOLS_H
#define SIM_SYMBOLS_H

struct symbol {
    const char *name, *base;
    int version;    /* in which this interface appeared; 0: not published */
    int per_thread; /* a _ptds or _ptsz name */
    int (*address)(void);
};
extern const struct symbol symbols[];
extern const unsigned symbol_count;

#endif
