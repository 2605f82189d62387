# On a real card only: exit 77 (skipped) elsewhere.
EXTRA_DIST += tests/gpu/api.py tests/gpu/check.py tests/gpu/evict.py tests/gpu/families.py tests/gpu/thirteen.py
dist_check_SCRIPTS += tests/gpu/card tests/gpu/eviction tests/gpu/runners
TESTS += tests/gpu/card tests/gpu/eviction tests/gpu/runners
