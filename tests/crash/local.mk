# tests/crash/local
