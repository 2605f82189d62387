# man/local
