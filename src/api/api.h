/*
 * What the files of the C API (include/cubudget/cubudget.h) share. Private to src/api.
 *
 * The API lies beside src/interpose: it passes the same gate and charges through the same account, so that a buffer is charged
 * once whoever makes it. What the calling thread is told of its last failure is the thread's own; the table of pools has a lock of
 * its own (pool.c), never held across a call of the driver.
 */
#ifndef API_API_H
#define API_API_H

#include <cubudget/cubudget.h>
#include "account/account.h"
#include "cuda/driver.h"
#include "ledger/ledger.h"

/* Notes why a call fails, for cubudget_last_detail (NULL: no more than the error says) and cubudget_last_cuda_error, and
 * returns the error. */
enum cubudget_error api_fail(enum cubudget_error error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same where the driver's `call` said `result`: out of memory is OUT_OF_MEMORY, no device NO_DEVICE, all else CUDA. */
enum cubudget_error api_fail_cuda(CUresult result, const char *call);

/* The driver, initialised, with this process attached to its ledger. */
enum cubudget_error api_start(const struct driver **driver);

/* Whether a driver could be had, without starting it: settings, a card, the library. */
enum cubudget_error api_driver_find(const struct driver **driver);

/* A device's uuid as people write it, and back. False: the text is none. */
void uuid_write(const uint8_t uuid[LEDGER_UUID_BYTES], char text[CUBUDGET_UUID_TEXT_BYTES]);
bool uuid_read(const char *text, uint8_t uuid[LEDGER_UUID_BYTES]);

/* Opens the ledger of this process's settings, for looking: nothing is made. */
enum cubudget_error api_ledger_open(struct ledger *ledger);

#endif
