/* What every_driver.c and gate_program.c agree on. */
#ifndef TESTS_EVERY_DRIVER_H
#define TESTS_EVERY_DRIVER_H

enum { EVERY_VALUE = 0x5eed, EVERY_MANY = 2000, EVERY_THUNKS = 1024 };

#endif
