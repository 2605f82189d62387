# tests/model/local
