# The models of the charge, of the telling of pressure and of eviction, checked with Spin where it is installed.
EXTRA_DIST += tests/model/charge.pml tests/model/evict.pml tests/model/pressure.pml
dist_check_SCRIPTS += tests/model/check
if !SANITIZED
TESTS += tests/model/check
endif
