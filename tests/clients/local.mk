# tests/clients/local
