# The model of the charge, checked with Spin where it is installed.
EXTRA_DIST += tests/model/charge.pml
dist_check_SCRIPTS += tests/model/check
if !SANITIZED
TESTS += tests/model/check
endif
