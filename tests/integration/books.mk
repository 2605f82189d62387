# tests/integration/books
