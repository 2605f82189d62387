include src/platform/local.mk
include src/cuda/local.mk
include src/ledger/local.mk
include src/account/local.mk
include src/evict/local.mk
include src/interpose/local.mk
include src/sim/local.mk
include src/cli/local.mk
