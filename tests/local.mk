# Each test is a cmocka program or a script that ends 0 (passed), 77 (skipped, with the reason printed) or
# otherwise (failed). One file of this folder lists the tests of one part of the house.
# A request that does not fit is refused at once (CUBUDGET_WAIT=0), which is what most tests are about; those of waiting say otherwise.
AM_TESTS_ENVIRONMENT = export abs_top_srcdir='$(abs_top_srcdir)' abs_top_builddir='$(abs_top_builddir)' \
    SPIN='$(SPIN)' CC='$(CC)' CUDA_HEADER_DIR='$(CUDA_HEADER_DIR)' SANITIZER_CFLAGS='$(SANITIZER_CFLAGS)' \
    CUBUDGET_WAIT=0;

include tests/unit/ledger.mk
include tests/unit/account.mk
include tests/unit/sim.mk
include tests/model/local.mk
include tests/integration/sim.mk
include tests/integration/interpose.mk
include tests/integration/cli.mk
include tests/integration/books.mk
include tests/integration/trials.mk
include tests/integration/agent.mk
include tests/api/local.mk
include tests/crash/local.mk
include tests/clients/local.mk
include tests/gpu/local.mk
