/*
 * A driver of a few lines, with as much as an account asks it: devices of 24 GiB whose uuids begin with 7, 8 and so on, and
 * which context is current. Used by the tests of src/account that have no simulator; a test sets the two from its one thread.
 */
#ifndef TESTS_FAKE_DRIVER_H
#define TESTS_FAKE_DRIVER_H

#include "cuda/driver.h"

extern int fake_devices;       /* how many; 1 unless set before the account is attached */
extern CUcontext fake_current; /* of device 0, for every thread; NULL: none */
extern const struct driver fake_driver;

#endif
