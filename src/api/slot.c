/* Slots of the C API: what the calling thread charges to. The work is src/account's (slots.c). */
#include "config.h"

#include <errno.h>
#include "api/api.h"

enum cubudget_error cubudget_slot_push(const char *name)
{
    struct account_fault fault = {""};
    if (name == NULL)
        return api_fail(CUBUDGET_ERROR_INVALID, "name is NULL");
    switch (account_slot_push(name, &fault)) {
    case 0:
        return CUBUDGET_OK;
    case -EINVAL:
        return api_fail(CUBUDGET_ERROR_INVALID, "%s", fault.text);
    case -ENOSPC:
        return api_fail(CUBUDGET_ERROR_TOO_MANY, "%s", fault.text);
    case -ENOMEM:
        return api_fail(CUBUDGET_ERROR_NO_HOST_MEMORY, "%s", fault.text);
    default:
        return api_fail(CUBUDGET_ERROR_NO_LEDGER, "%s", fault.text);
    }
}

enum cubudget_error cubudget_slot_pop(void)
{
    return account_slot_pop() ? CUBUDGET_OK : api_fail(CUBUDGET_ERROR_NOT_PUSHED, NULL);
}

enum cubudget_error cubudget_slot_current(char name[CUBUDGET_NAME_BYTES])
{
    if (name == NULL)
        return api_fail(CUBUDGET_ERROR_INVALID, "name is NULL");
    account_slot_name(name);
    return CUBUDGET_OK;
}
