/*
 * Named points after side effects, where the crash tests end or stop a process. They exist only in objects built
 * with -DCUBUDGET_TESTPOINTS (the tests' own copies); elsewhere they are nothing.
 * CUBUDGET_TESTPOINT=NAME:kill or NAME:stop, with @N after it (NAME:kill@3), acts at the N-th passing (default 1st) of the point of that name.
 */
#ifndef PLATFORM_TESTPOINT_H
#define PLATFORM_TESTPOINT_H

#ifdef CUBUDGET_TESTPOINTS
void testpoint_pass(const char *name);
#define TESTPOINT(name) testpoint_pass(name)
#else
#define TESTPOINT(name) ((void)0)
#endif

#endif
