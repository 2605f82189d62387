# tests/integration/interpose
