# tests/integration/cli
