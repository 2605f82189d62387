# One page a command; tests/integration/cli_man runs their examples and has man read them with all warnings.
dist_man_MANS += man/cubudget.1 man/cubudget-run.1 man/cubudget-init.1 man/cubudget-limit.1 man/cubudget-dump.1 \
    man/cubudget-check.1 man/cubudget-evict.1 man/cubudget-restore.1 man/cubudget-watch.1 man/cubudget-gc.1 man/cubudget-version.1 man/cubudget.ini.5

# The C interface; tests/api/manual compares these with the header.
dist_man_MANS += man/cubudget.3 man/cubudget_available.3 man/cubudget_error_name.3 man/cubudget_pool_create.3 \
    man/cubudget_simulate.3 man/cubudget_slot_push.3 man/cubudget_snapshot_take.3 man/cubudget_watch_open.3
