# tests/integration/sim
