# One page a command; tests/integration/cli_man runs their examples and has man read them with all warnings.
dist_man_MANS += man/cubudget.1 man/cubudget-run.1 man/cubudget-init.1 man/cubudget-limit.1 man/cubudget-dump.1 man/cubudget-check.1 man/cubudget-gc.1 \
    man/cubudget-version.1 man/cubudget.ini.5
