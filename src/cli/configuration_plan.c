/*
 * What a configuration asks of a ledger; see configuration.h. Each section is good by itself when we come to it; here they are
 * held against each other and against the budget.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/configuration.h"
#include "cli/output.h"
#include "ledger/snapshot.h"
#include "platform/log.h"
#include "platform/size.h"

/* A budget, as sentences call it: "the budget of 8 GiB in line 3". */
struct bound {
    uint64_t bytes; /* 0: not known */
    char text[96];
};

static void bound_name(struct bound *bound, uint64_t bytes, unsigned line, const char *name)
{
    char size[SIZE_TEXT_BYTES];
    bound->bytes = bytes;
    (void)size_format(bytes, size, sizeof size);
    if (line != 0)
        (void)snprintf(bound->text, sizeof bound->text, "the budget of %s in line %u", size, line);
    else
        (void)snprintf(bound->text, sizeof bound->text, "the budget of %s (%s)", size, name);
}

/* The smallest budget there is: limits and reserves hold on each device. */
static void bound_least(const struct config *config, uint64_t budget_bytes, const char *name, struct bound *bound)
{
    bool own = config->ledger.lines[CONFIG_BUDGET] != 0 && config->ledger.values.budget_bytes == budget_bytes;
    bound_name(bound, budget_bytes, own ? config->ledger.lines[CONFIG_BUDGET] : 0, name);
    for (unsigned i = 0; i < config->device_count; i++) {
        const struct config_section *device = &config->devices[i];
        if (device->lines[CONFIG_BUDGET] != 0 && (bound->bytes == 0 || device->values.budget_bytes < bound->bytes))
            bound_name(bound, device->values.budget_bytes, device->lines[CONFIG_BUDGET], "");
    }
}

static int slot_check(struct config *config, const struct config_section *slot, const struct bound *bound)
{
    const struct settings *values = &slot->values;
    char size[SIZE_TEXT_BYTES], limit[SIZE_TEXT_BYTES];
    bool limited = values->has_limit && values->limit_bytes != LEDGER_NO_LIMIT;
    if (limited && bound->bytes != 0 && values->limit_bytes > bound->bytes)
        return config_fault_set(config, slot->lines[CONFIG_LIMIT],
                                "limit: %s is above %s; lower the one or raise the other",
                                size_format(values->limit_bytes, size, sizeof size), bound->text);
    if (values->has_reserve && limited && values->reserve_bytes > values->limit_bytes)
        return config_fault_set(
            config, slot->lines[CONFIG_RESERVE],
            "reserve: %s is above the slot's limit of %s in line %u; lower the one or raise the other",
            size_format(values->reserve_bytes, size, sizeof size),
            size_format(values->limit_bytes, limit, sizeof limit), slot->lines[CONFIG_LIMIT]);
    if (values->has_reserve && bound->bytes != 0 && values->reserve_bytes > bound->bytes)
        return config_fault_set(config, slot->lines[CONFIG_RESERVE],
                                "reserve: %s is above %s; lower the one or raise the other",
                                size_format(values->reserve_bytes, size, sizeof size), bound->text);
    return 0;
}

static int slots_plan(struct config *config, const struct bound *bound, struct ledger_plan *plan)
{
    uint64_t reserves = 0;
    char size[SIZE_TEXT_BYTES];
    for (unsigned i = 0; i < config->slot_count; i++) {
        const struct config_section *slot = &config->slots[i];
        if (slot_check(config, slot, bound) != 0)
            return EXIT_BAD_SETTINGS;
        if (slot->values.has_reserve && __builtin_add_overflow(reserves, slot->values.reserve_bytes, &reserves))
            reserves = UINT64_MAX;
        if (bound->bytes != 0 && reserves > bound->bytes)
            return config_fault_set(config, slot->lines[CONFIG_RESERVE],
                                    "reserve: with this one the reserves are %s together, above %s; lower some",
                                    size_format(reserves, size, sizeof size), bound->text);
        (void)snprintf(plan->slots[i].name, sizeof plan->slots[i].name, "%.*s", LEDGER_NAME_BYTES - 1, slot->name);
        plan->slots[i].terms = (struct slot_terms){
            .has_limit = slot->values.has_limit,
            .has_reserve = slot->values.has_reserve,
            .has_priority = slot->values.has_priority,
            .limit_bytes = slot->values.limit_bytes,
            .reserve_bytes = slot->values.reserve_bytes,
            .priority = slot->values.priority,
        };
    }
    plan->slot_count = config->slot_count;
    return 0;
}

/* --- devices ------------------------------------------------------------------------------------------------------------------ */

static int digit_of(char letter)
{
    if (letter >= '0' && letter <= '9')
        return letter - '0';
    letter = (char)(letter | 0x20);
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

bool device_uuid_parse(const char *text, uint8_t uuid[LEDGER_UUID_BYTES])
{
    if (strncmp(text, "GPU-", 4) == 0 || strncmp(text, "MIG-", 4) == 0)
        text += 4;
    for (unsigned i = 0; i < LEDGER_UUID_BYTES; i++) {
        if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
            return false;
        int high = digit_of(text[0]), low = high < 0 ? -1 : digit_of(text[1]);
        if (low < 0)
            return false;
        uuid[i] = (uint8_t)(16 * high + low);
        text += 2;
    }
    return *text == '\0';
}

int device_find(const struct ledger *ledger, const char *text, uint8_t found_uuid[LEDGER_UUID_BYTES])
{
    static struct snapshot snapshot; /* too large for a stack that somebody may have limited */
    uint8_t uuid[LEDGER_UUID_BYTES];
    char *end;
    int found = -1;
    bool is_uuid = device_uuid_parse(text, uuid);
    unsigned long index = *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : ULONG_MAX;
    if (!is_uuid && (index == ULONG_MAX || *end != '\0'))
        return -1;
    if (snapshot_take((struct ledger *)(uintptr_t)ledger, &snapshot) != 0)
        return -1;
    for (unsigned i = 0; i < snapshot.device_count; i++) {
        const struct snapshot_device *device = &snapshot.devices[i];
        if (is_uuid ? memcmp(device->uuid, uuid, sizeof uuid) != 0 : device->index != index)
            continue;
        found = (int)device->index;
        memcpy(found_uuid, device->uuid, LEDGER_UUID_BYTES);
    }
    snapshot_free(&snapshot);
    return found;
}

static int device_plan(struct config *config, const struct ledger *existing, const struct config_section *section,
                       struct ledger_plan *plan)
{
    uint8_t *uuid = plan->devices[plan->device_count].uuid;
    if (!device_uuid_parse(section->name, uuid)) {
        int index = existing != NULL ? device_find(existing, section->name, uuid) : -1;
        if (index < 0)
            return config_fault_set(config, section->line,
                                    "[device %s]: %s; write its uuid, as nvidia-smi -L and cubudget dump show it",
                                    section->name,
                                    strspn(section->name, "0123456789") == strlen(section->name)
                                        ? "no program of the ledger has used that device so far"
                                        : "this is no uuid");
    }
    for (unsigned i = 0; i < plan->device_count; i++)
        if (memcmp(plan->devices[i].uuid, uuid, LEDGER_UUID_BYTES) == 0)
            return config_fault_set(config, section->line,
                                    "[device %s] is the device of another section; write each once", section->name);
    if (section->lines[CONFIG_BUDGET] == 0)
        return 0;
    plan->devices[plan->device_count++].budget_bytes = section->values.budget_bytes;
    return 0;
}

int config_plan(struct config *config, const struct ledger *existing, uint64_t budget_bytes, const char *budget_name,
                struct ledger_plan *plan)
{
    struct bound bound;
    memset(plan, 0, sizeof *plan);
    config->fault[0] = '\0';
    bound_least(config, budget_bytes, budget_name, &bound);
    int status = slots_plan(config, &bound, plan);
    for (unsigned i = 0; i < config->device_count && status == 0; i++)
        status = device_plan(config, existing, &config->devices[i], plan);
    return status == 0 ? 0 : fault_say(status, "%s", config->fault);
}
