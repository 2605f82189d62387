/*
 * Reading the configuration file; see configuration.h. libinih parses the lines; we hand them to it one by one, so that each
 * is known by its number, and what it would cut or guess at (long lines, indented keys, bytes that are no text) is refused first. What a
 * value may be is judged by the reader of the variable that means the same (platform/env).
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "cli/configuration.h"
#include "cli/output.h"
#include "platform/log.h"
#include "platform/shm.h"
#include "platform/words.h"

enum { QUOTE_BYTES = 60 };

/* What each kind of section may have, and the variable whose values each key takes. */
static const struct key {
    const char *name, *variable;
} keys[CONFIG_KEYS] = {
    [CONFIG_NAME] = {"name", "CUBUDGET_LEDGER"},
    [CONFIG_BUDGET] = {"budget", "CUBUDGET_BUDGET"},
    [CONFIG_GROUP] = {"group", NULL},
    [CONFIG_DIRECTORY] = {"directory", "CUBUDGET_DIR"},
    [CONFIG_LIMIT] = {"limit", "CUBUDGET_LIMIT"},
    [CONFIG_RESERVE] = {"reserve", "CUBUDGET_RESERVE"},
    [CONFIG_PRIORITY] = {"priority", "CUBUDGET_PRIORITY"},
    [CONFIG_EVICT] = {"evict", "CUBUDGET_EVICT"},
    [CONFIG_WAIT] = {"wait", "CUBUDGET_WAIT"},
};

static const struct kind {
    const char *name;
    bool named;
    const char *list; /* of its keys, for people */
    unsigned allowed; /* bits of them */
} kinds[] = {
    {"ledger", false, "name, budget, group and directory",
     1U << CONFIG_NAME | 1U << CONFIG_BUDGET | 1U << CONFIG_GROUP | 1U << CONFIG_DIRECTORY},
    {"device", true, "budget", 1U << CONFIG_BUDGET},
    {"slot", true, "limit, reserve, priority, evict and wait",
     1U << CONFIG_LIMIT | 1U << CONFIG_RESERVE | 1U << CONFIG_PRIORITY | 1U << CONFIG_EVICT | 1U << CONFIG_WAIT},
};
enum { KIND_LEDGER, KIND_DEVICE, KIND_SLOT, KINDS };
static const char sections_list[] = "sections are [ledger], [device UUID] and [slot NAME]";

struct reading {
    struct config *config;
    char *at, *end; /* what is left of the file */
    unsigned line;
    struct config_section *section; /* NULL: before the first */
    const struct kind *kind;
    char text[CONFIG_TEXT_BYTES]; /* the line that inih has now */
};

const char *config_key_name(enum config_key key)
{
    return keys[key].name;
}

int config_fault_set(struct config *config, unsigned line, const char *format, ...)
{
    char text[512];
    va_list arguments;
    if (config->fault[0] != '\0')
        return EXIT_BAD_SETTINGS;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (line != 0)
        (void)snprintf(config->fault, sizeof config->fault, "%.600s:%u: %s", config->path, line, text);
    else
        (void)snprintf(config->fault, sizeof config->fault, "%.600s: %s", config->path, text);
    return EXIT_BAD_SETTINGS;
}

/* --- sections ------------------------------------------------------------------------------------------------------------ */

static struct config_section *section_add(struct reading *reading, int kind, const char *name)
{
    struct config *config = reading->config;
    bool slots = kind == KIND_SLOT;
    struct config_section *list = slots ? config->slots : config->devices;
    unsigned *count = slots ? &config->slot_count : &config->device_count;
    unsigned most = slots ? LEDGER_SLOTS : LEDGER_DEVICES;
    for (unsigned i = 0; i < *count; i++)
        if (strcmp(list[i].name, name) == 0) {
            (void)config_fault_set(config, reading->line, "[%s %s] is there already, in line %u; write each once",
                                   kinds[kind].name, name, list[i].line);
            return NULL;
        }
    if (*count == most) {
        (void)config_fault_set(config, reading->line, "[%s %s] is one too many: a ledger has room for %u %ss",
                               kinds[kind].name, name, most, kinds[kind].name);
        return NULL;
    }
    struct config_section *section = &list[(*count)++];
    (void)snprintf(section->name, sizeof section->name, "%s", name);
    return section;
}

static struct config_section *section_open(struct reading *reading, int kind, const char *name)
{
    struct config *config = reading->config;
    struct settings_fault fault;
    if (kinds[kind].named && *name == '\0') {
        (void)config_fault_set(config, reading->line, "[%s] has no name; write [%s %s]", kinds[kind].name,
                               kinds[kind].name, kind == KIND_SLOT ? "NAME" : "UUID");
        return NULL;
    }
    if (kind == KIND_SLOT && name_validate("[slot]", name, &fault) != 0) {
        (void)config_fault_set(config, reading->line, "%s", fault.text);
        return NULL;
    }
    if (kind != KIND_LEDGER)
        return section_add(reading, kind, name);
    if (*name != '\0') {
        (void)config_fault_set(config, reading->line,
                               "[ledger %.*s]: [ledger] has no name in its heading; write name = %.*s "
                               "below it",
                               QUOTE_BYTES, name, QUOTE_BYTES, name);
        return NULL;
    }
    if (config->ledger.line != 0) {
        (void)config_fault_set(config, reading->line, "[ledger] is there already, in line %u; write it once",
                               config->ledger.line);
        return NULL;
    }
    return &config->ledger;
}

static char *blanks_skip(char *text)
{
    return text + strspn(text, " \t");
}

static void blanks_cut(char *text)
{
    size_t length = strlen(text);
    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
        text[--length] = '\0';
}

/* "[slot a b]  # remark": sets the section, or a fault. */
static void heading_read(struct reading *reading, char *text)
{
    struct config *config = reading->config;
    char *close = strchr(text, ']');
    if (close == NULL) {
        (void)config_fault_set(config, reading->line, "'%.*s' has no ']'; write for example [slot NAME]", QUOTE_BYTES,
                               text);
        return;
    }
    const char *rest = blanks_skip(close + 1);
    if (*rest != '\0' && *rest != '#' && *rest != ';') {
        (void)config_fault_set(config, reading->line, "'%.*s' follows a heading; write it in the next line",
                               QUOTE_BYTES, rest);
        return;
    }
    *close = '\0';
    char *word = blanks_skip(text + 1);
    blanks_cut(word);
    size_t length = strcspn(word, " \t");
    char *name = blanks_skip(word + length);
    word[length] = '\0';
    const char *names[KINDS + 1] = {0};
    for (int kind = 0; kind < KINDS; kind++) {
        names[kind] = kinds[kind].name;
        if (strcmp(word, kinds[kind].name) != 0)
            continue;
        reading->section = section_open(reading, kind, name);
        reading->kind = &kinds[kind];
        if (reading->section != NULL)
            reading->section->line = reading->line;
        return;
    }
    const char *nearest = words_nearest(word, names);
    (void)config_fault_set(config, reading->line, "[%.*s] is not a section%s%s%s; %s", QUOTE_BYTES, word,
                           nearest != NULL ? "; did you mean [" : "", nearest != NULL ? nearest : "",
                           nearest != NULL ? "]?" : "", sections_list);
}

/* --- keys ------------------------------------------------------------------------------------------------------------------ */

static void group_find(struct reading *reading, const char *text)
{
    char *end;
    const struct group *group = getgrnam(text);
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (group != NULL)
        reading->config->group = group->gr_gid;
    else if (errno == 0 && *text >= '0' && *text <= '9' && *end == '\0' && number < UINT32_MAX)
        reading->config->group = (gid_t)number;
    else
        (void)config_fault_set(reading->config, reading->line,
                               "group: '%.*s' is not a group of this system; write the name or "
                               "number of one",
                               QUOTE_BYTES, text);
}

static void value_take(struct reading *reading, enum config_key key, const char *text)
{
    struct config_section *section = reading->section;
    struct settings_fault fault;
    if (section->lines[key] != 0) {
        (void)config_fault_set(reading->config, reading->line, "%s: is given already, in line %u; write it once",
                               keys[key].name, section->lines[key]);
        return;
    }
    if (*text == '\0') {
        (void)config_fault_set(reading->config, reading->line,
                               "%s: the value is missing; write %s = VALUE or leave the line out", keys[key].name,
                               keys[key].name);
        return;
    }
    section->lines[key] = reading->line;
    (void)snprintf(section->texts[key], sizeof section->texts[key], "%s", text);
    if (key == CONFIG_GROUP)
        group_find(reading, text);
    else if (key == CONFIG_LIMIT && strcmp(text, "none") == 0) {
        section->values.has_limit = true;
        section->values.limit_bytes = LEDGER_NO_LIMIT;
    } else if (setting_read(keys[key].variable, keys[key].name, section->texts[key], &section->values, &fault) != 0)
        (void)config_fault_set(reading->config, reading->line, "%s", fault.text);
}

static void key_refuse(struct reading *reading, const char *name)
{
    const char *names[CONFIG_KEYS + 1] = {0};
    unsigned count = 0;
    for (unsigned key = 0; key < CONFIG_KEYS; key++)
        if ((reading->kind->allowed >> key & 1) != 0)
            names[count++] = keys[key].name;
    const char *nearest = words_nearest(name, names);
    (void)config_fault_set(reading->config, reading->line, "%.*s: there is no such key in [%s]%s%s%s; it may have %s",
                           QUOTE_BYTES, name, reading->kind->name, nearest != NULL ? "; did you mean " : "",
                           nearest != NULL ? nearest : "", nearest != NULL ? "?" : "", reading->kind->list);
}

/* inih's handler: one "key = value". Its name for the section is cut to 50 bytes, and not used. */
static int pair_take(void *user, const char *section, const char *name, const char *value)
{
    struct reading *reading = user;
    char text[CONFIG_TEXT_BYTES];
    (void)section;
    if (reading->config->fault[0] != '\0')
        return 1;
    if (reading->section == NULL) {
        (void)config_fault_set(reading->config, reading->line, "%.*s: comes before any section; %s", QUOTE_BYTES, name,
                               sections_list);
        return 1;
    }
    (void)snprintf(text, sizeof text, "%s", value);
    for (size_t i = 0; text[i] != '\0'; i++) /* a remark; inih cuts those that begin with ';' */
        if (text[i] == '#' && (i == 0 || text[i - 1] == ' ' || text[i - 1] == '\t'))
            text[i] = '\0';
    blanks_cut(text);
    for (unsigned key = 0; key < CONFIG_KEYS; key++)
        if ((reading->kind->allowed >> key & 1) != 0 && strcmp(keys[key].name, name) == 0) {
            value_take(reading, (enum config_key)key, text);
            return 1;
        }
    key_refuse(reading, name);
    return 1;
}

/* --- lines ----------------------------------------------------------------------------------------------------------------- */

/* Cuts the next line off the file; false: there is none. Its end, CR LF too, is gone. */
static bool line_cut(struct reading *reading, char **text, size_t *length)
{
    if (reading->at >= reading->end)
        return false;
    char *newline = memchr(reading->at, '\n', (size_t)(reading->end - reading->at));
    char *stop = newline != NULL ? newline : reading->end;
    *text = reading->at;
    *length = (size_t)(stop - reading->at);
    if (*length > 0 && (*text)[*length - 1] == '\r')
        --*length;
    reading->at = newline != NULL ? newline + 1 : reading->end;
    reading->line++;
    return true;
}

static bool line_is_text(struct reading *reading, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];
        if ((byte >= 0x20 && byte != 0x7F) || byte == '\t')
            continue;
        (void)config_fault_set(reading->config, reading->line,
                               "is not text: it has a byte 0x%02x; write plain lines of UTF-8", byte);
        return false;
    }
    return true;
}

/* inih's reader: one line for each call, so that its count of lines is ours. NULL ends the file, also where it is bad. */
static char *line_give(char *line, int room, void *stream)
{
    struct reading *reading = stream;
    char *text;
    size_t length;
    if (reading->config->fault[0] != '\0' || !line_cut(reading, &text, &length) || !line_is_text(reading, text, length))
        return NULL;
    size_t indent = 0;
    while (indent < length && (text[indent] == ' ' || text[indent] == '\t'))
        indent++; /* to inih an indented line continues the one before */
    text += indent;
    length -= indent;
    (void)snprintf(line, (size_t)room, "\n");
    if (length == 0 || *text == '#' || *text == ';')
        return line;
    size_t most = ((size_t)room < sizeof reading->text ? (size_t)room : sizeof reading->text) - 2;
    if (length > most) {
        (void)config_fault_set(reading->config, reading->line,
                               "the line has %zu bytes; write at most %zu (remarks may be longer)", length, most);
        return NULL;
    }
    memcpy(reading->text, text, length);
    reading->text[length] = '\0';
    (void)snprintf(line, (size_t)room, "%s\n", reading->text);
    if (*text != '[')
        return line;
    heading_read(reading, reading->text);
    (void)snprintf(line, (size_t)room, "\n"); /* all there is to a heading is read */
    return line;
}

static int lines_read(struct config *config, char *bytes, size_t length)
{
    struct reading reading = {.config = config, .at = bytes, .end = bytes + length};
    if (length >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0)
        reading.at += 3;
    int wrong = ini_parse_stream(line_give, &reading, pair_take, &reading);
    if (wrong > 0 && config->fault[0] == '\0') {
        /* inih goes on after a line that is none; the text of that one is cut again. */
        struct reading again = {.config = config, .at = bytes, .end = bytes + length};
        char *text = bytes;
        size_t text_length = 0;
        while (again.line < (unsigned)wrong && line_cut(&again, &text, &text_length)) {
        }
        (void)config_fault_set(config, (unsigned)wrong, "'%.*s' is neither KEY = VALUE nor [SECTION]",
                               (int)(text_length < QUOTE_BYTES ? text_length : QUOTE_BYTES), text);
    } else if (wrong < 0) {
        (void)config_fault_set(config, 0, "no memory to read it; free some");
    }
    return config->fault[0] != '\0' ? EXIT_BAD_SETTINGS : 0;
}

/* --- the file ----------------------------------------------------------------------------------------------------------------- */

/* Opens what may be read in full: a file, or /dev/null for "nothing". */
static int file_open(struct config *config)
{
    struct stat status;
    int descriptor = open(config->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (descriptor < 0 || fstat(descriptor, &status) != 0) {
        (void)config_fault_set(config, 0, "cannot be read: %s; name a file that can", strerror(errno));
    } else if (S_ISDIR(status.st_mode)) {
        (void)config_fault_set(config, 0, "is a directory; name a file");
    } else if (!S_ISREG(status.st_mode) && !(S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3))) {
        (void)config_fault_set(config, 0, "is not a regular file; name one");
    } else if (status.st_size > CONFIG_FILE_MAX) {
        (void)config_fault_set(config, 0, "has %lld bytes; a configuration has at most %d", (long long)status.st_size,
                               CONFIG_FILE_MAX);
    } else {
        return descriptor;
    }
    if (descriptor >= 0)
        (void)close(descriptor);
    return -1;
}

int config_read(struct config *config)
{
    size_t used = 0;
    ssize_t got = 0;
    config->fault[0] = '\0';
    int descriptor = file_open(config);
    if (descriptor < 0)
        return EXIT_BAD_SETTINGS;
    char *bytes = malloc(CONFIG_FILE_MAX + 1);
    while (bytes != NULL && used <= CONFIG_FILE_MAX &&
           (got = read(descriptor, bytes + used, CONFIG_FILE_MAX + 1 - used)) > 0)
        used += (size_t)got;
    int status = EXIT_BAD_SETTINGS;
    if (bytes == NULL)
        (void)config_fault_set(config, 0, "no memory to read it; free some");
    else if (got < 0)
        (void)config_fault_set(config, 0, "cannot be read: %s; name a file that can", strerror(errno));
    else if (used > CONFIG_FILE_MAX)
        (void)config_fault_set(config, 0, "has more than %d bytes; a configuration has fewer", CONFIG_FILE_MAX);
    else
        status = lines_read(config, bytes, used);
    free(bytes);
    (void)close(descriptor);
    return status;
}

/* Where people keep such files; the first that is there. */
static void default_find(struct config *config)
{
    const char *base = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    int length = -1;
    if (base != NULL && *base == '/')
        length = snprintf(config->path, sizeof config->path, "%s/cubudget.ini", base);
    else if (home != NULL && *home == '/')
        length = snprintf(config->path, sizeof config->path, "%s/.config/cubudget.ini", home);
    if (length > 0 && (size_t)length < sizeof config->path && access(config->path, F_OK) == 0)
        return;
    static const char system_wide[] = "/etc/cubudget.ini";
    memcpy(config->path, system_wide, sizeof system_wide);
    if (access(config->path, F_OK) != 0)
        config->path[0] = '\0';
}

int config_load(struct config *config, const char *given)
{
    const char *variable = getenv("CUBUDGET_CONFIG");
    memset(config, 0, sizeof *config);
    if (given == NULL)
        given = variable;
    if (given != NULL && (*given == '\0' || strlen(given) >= sizeof config->path))
        return fault_say(EXIT_BAD_SETTINGS, "%s: '%.60s' is %s; name a file",
                         given == variable ? "CUBUDGET_CONFIG" : "--config", given,
                         *given == '\0' ? "empty" : "too long");
    if (given != NULL)
        (void)snprintf(config->path, sizeof config->path, "%s", given);
    else
        default_find(config);
    if (config->path[0] == '\0' || config_read(config) == 0)
        return 0;
    return fault_say(EXIT_BAD_SETTINGS, "%s", config->fault);
}

const struct config_section *config_slot(const struct config *config, const char *name)
{
    for (unsigned i = 0; i < config->slot_count; i++)
        if (strcmp(config->slots[i].name, name) == 0)
            return &config->slots[i];
    return NULL;
}

bool config_directory(const struct config *config, char directory[PATH_MAX])
{
    if (config->ledger.lines[CONFIG_DIRECTORY] != 0)
        (void)snprintf(directory, PATH_MAX, "%s", config->ledger.texts[CONFIG_DIRECTORY]);
    else if (config->ledger.lines[CONFIG_GROUP] != 0)
        shm_group_directory(config->group, directory);
    else
        return false;
    return true;
}
