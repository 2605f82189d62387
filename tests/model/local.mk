# The models of the charge and of the telling of pressure, checked with Spin where it is installed.
EXTRA_DIST += tests/model/charge.pml tests/model/pressure.pml
dist_check_SCRIPTS += tests/model/check
if !SANITIZED
TESTS += tests/model/check
endif
