# tests/unit/account
