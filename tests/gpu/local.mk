# tests/gpu/local
