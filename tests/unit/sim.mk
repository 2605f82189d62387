# tests/unit/sim
