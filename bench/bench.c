/*
 * The benchmark: starts bench/measure.c over and over, once bare and once preloaded in turn so that both meet the same machine,
 * and shows medians and spread. usage: bench BUILD_DIRECTORY [RESULTS.json]
 *
 * The driver under both is bench/noop_driver.c. Nothing here is a test: it fails only where something cannot be measured.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RUNS_MOST = 64, PROCESSES_MOST = 8 };

static char build[PATH_MAX], directory[] = "/dev/shm/cubudget-bench-XXXXXX";

struct figure {
    double runs[RUNS_MOST];
    unsigned count;
};

/* What is measured, how often, and what is to hold: most_extra over the bare figure, or most_ratio of it; 0: no target. */
struct subject {
    const char *name, *what;
    unsigned long number, rounds;
    unsigned runs, processes;
    double most_extra, most_ratio;
};

static const struct subject subjects[] = {
    {"alloc + free, 1 live", "pair", 1, 1000000, 11, 1, 60, 0},
    {"alloc + free, 1,000 live", "pair", 1000, 1000000, 11, 1, 0, 0},
    {"alloc + free, 1,000,000 live", "pair", 1000000, 1000000, 11, 1, 120, 0},
    {"allocAsync + freeAsync", "async", 1, 1000000, 11, 1, 100, 0},
    {"free + alloc of a random one of 1,000", "replace", 1000, 1000000, 7, 1, 0, 0},
    {"free + alloc of a random one of 1,000,000", "replace", 1000000, 1000000, 7, 1, 0, 0},
    {"alloc + free, 2 threads", "threads", 2, 500000, 7, 1, 0, 0},
    {"alloc + free, 8 threads", "threads", 8, 200000, 7, 1, 0, 0},
    {"alloc + free, 2 processes", "gate", 1, 500000, 5, 2, 0, 0},
    {"alloc + free, 4 processes", "gate", 1, 500000, 5, 4, 0, 0},
    {"alloc + free, 8 processes", "gate", 1, 500000, 5, 8, 0, 0},
    {"create + map + unmap + release, 1 live", "vmm", 1, 1000000, 11, 1, 150, 0},
    {"cuStreamQuery", "query", 1, 20000000, 11, 1, 2, 0},
    {"cuCtxGetCurrent", "current", 1, 20000000, 11, 1, 2, 0},
    {"cuLaunchKernel", "launch", 1, 20000000, 11, 1, 2, 0},
    {"dlsym of a driver name", "dlsym", 8, 100000, 11, 1, 0, 1.3},
    {"dlsym of a name nobody has", "missing", 1, 100000, 11, 1, 0, 1.3},
    {"dlsym(RTLD_DEFAULT) of strlen", "default", 1, 100000, 11, 1, 0, 1.3},
    {"cuGetProcAddress_v2", "procaddress", 8, 200000, 11, 1, 0, 1.3},
    {"true, processor time", NULL, 0, 0, 50, 1, 300000, 0},
};
enum { SUBJECTS = sizeof(subjects) / sizeof(subjects[0]) };

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void directory_empty(void)
{
    static const char *const files[] = {"default.ledger", "simulator-default.machine"};
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", directory, files[i]);
        unlink(path);
    }
}

static void directory_remove(void)
{
    directory_empty();
    rmdir(directory);
}

static _Noreturn void program_become(const char *program, const struct subject *subject, int preloaded)
{
    char path[PATH_MAX + 32], number[32], rounds[32];
    snprintf(path, sizeof(path), "%s/bench/.libs", build);
    setenv("LD_LIBRARY_PATH", path, 1);
    setenv("CUBUDGET_DIR", directory, 1);
    setenv("CUBUDGET_SIMULATE", "", 1);
    setenv("CUBUDGET_BUDGET", "64GiB", 1);
    setenv("CUBUDGET_SLOT", "bench", 1);
    snprintf(path, sizeof(path), "%s/.libs/libcubudget.so", build);
    if (preloaded)
        setenv("LD_PRELOAD", path, 1);
    else
        unsetenv("LD_PRELOAD");
    snprintf(number, sizeof(number), "%lu", subject->number);
    snprintf(rounds, sizeof(rounds), "%lu", subject->rounds);
    execl(program, program, subject->what, number, rounds, (char *)NULL);
    _exit(127);
}

struct worker {
    pid_t pid;
    int to;
    FILE *from;
};

static void worker_start(struct worker *worker, const struct subject *subject, int preloaded)
{
    int to[2], from[2];
    char program[PATH_MAX + 32];
    snprintf(program, sizeof(program), "%s/bench/measure", build);
    if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
        fail("pipe");
    fflush(NULL);
    worker->pid = fork();
    if (worker->pid < 0)
        fail("fork");
    if (worker->pid == 0) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        program_become(program, subject, preloaded);
    }
    close(to[0]);
    close(from[1]);
    worker->to = to[1];
    worker->from = fdopen(from[0], "r");
}

static double worker_hear(struct worker *worker)
{
    char line[64];
    int status = 0;
    double result = 0;
    if (!fgets(line, sizeof(line), worker->from) || sscanf(line, "%lf", &result) != 1 || result <= 0) {
        fprintf(stderr, "bench: measure did not answer with a figure\n");
        exit(1);
    }
    fclose(worker->from);
    waitpid(worker->pid, &status, 0);
    if (status != 0) {
        fprintf(stderr, "bench: measure ended with status %#x\n", (unsigned)status);
        exit(1);
    }
    return result;
}

/* One run of a subject: the mean over the processes that measured at once. */
static double subject_run(const struct subject *subject, int preloaded)
{
    struct worker workers[PROCESSES_MOST];
    char line[64];
    double sum = 0;
    int gated = strcmp(subject->what, "gate") == 0;
    directory_empty();
    for (unsigned i = 0; i < subject->processes; i++)
        worker_start(&workers[i], subject, preloaded);
    for (unsigned i = 0; gated && i < subject->processes; i++)
        if (!fgets(line, sizeof(line), workers[i].from) || strcmp(line, "ready\n") != 0)
            fail("a process did not get ready");
    for (unsigned i = 0; i < subject->processes; i++)
        close(workers[i].to);
    for (unsigned i = 0; i < subject->processes; i++)
        sum += worker_hear(&workers[i]);
    return sum / subject->processes;
}

/* The processor time of a child that becomes `true`, in ns: what it takes to start on a machine at rest. */
static double true_run(int preloaded)
{
    static const struct subject none = {.name = NULL};
    struct rusage used;
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        program_become("/bin/true", &none, preloaded);
    if (wait4(child, &status, 0, &used) != child || status != 0)
        fail("true did not succeed");
    return ((double)used.ru_utime.tv_sec + (double)used.ru_stime.tv_sec) * 1e9 +
           ((double)used.ru_utime.tv_usec + (double)used.ru_stime.tv_usec) * 1e3;
}

static int figures_compare(const void *a, const void *b)
{
    double first = *(const double *)a, second = *(const double *)b;
    return (first > second) - (first < second);
}

static double figure_median(struct figure *figure)
{
    qsort(figure->runs, figure->count, sizeof(figure->runs[0]), figures_compare);
    return figure->runs[figure->count / 2];
}

static void figure_show(FILE *json, const char *key, struct figure *figure)
{
    fprintf(json, "\"%s\": {\"median_ns\": %.1f, \"least_ns\": %.1f, \"most_ns\": %.1f}, ", key, figure_median(figure),
            figure->runs[0], figure->runs[figure->count - 1]);
}

static void subject_show(FILE *json, const struct subject *subject, struct figure figures[2], int last)
{
    double bare = figure_median(&figures[0]), preloaded = figure_median(&figures[1]);
    double extra = preloaded - bare, ratio = preloaded / bare;
    int holds = (subject->most_extra <= 0 || extra <= subject->most_extra) &&
                (subject->most_ratio <= 0 || ratio <= subject->most_ratio);
    char target[48] = "";
    if (subject->most_extra > 0)
        snprintf(target, sizeof(target), "+%.0f ns: %s", subject->most_extra, holds ? "holds" : "MISSED");
    else if (subject->most_ratio > 0)
        snprintf(target, sizeof(target), "%.1fx: %s", subject->most_ratio, holds ? "holds" : "MISSED");
    printf("%-42s %9.1f (%.1f to %.1f)  %9.1f (%.1f to %.1f)  %+9.1f  %5.2fx  %s\n", subject->name, bare,
           figures[0].runs[0], figures[0].runs[figures[0].count - 1], preloaded, figures[1].runs[0],
           figures[1].runs[figures[1].count - 1], extra, ratio, target);
    fflush(stdout);
    fprintf(json, "  {\"name\": \"%s\", \"runs\": %u, ", subject->name, subject->runs);
    figure_show(json, "bare", &figures[0]);
    figure_show(json, "preloaded", &figures[1]);
    fprintf(json, "\"extra_ns\": %.1f, \"ratio\": %.3f, \"target\": \"%s\"}%s\n", extra, ratio, target,
            last ? "" : ",");
}

static void processor_name(char *name, size_t name_bytes)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");
    snprintf(name, name_bytes, "unknown");
    while (file && fgets(line, sizeof(line), file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon) {
            colon[1 + strcspn(colon + 1, "\n\"\\")] = 0;
            snprintf(name, name_bytes, "%s", colon + 2);
            break;
        }
    }
    if (file)
        fclose(file);
}

int main(int count, char **words)
{
    char processor[128], date[32];
    time_t now = time(NULL);
    if (count < 2 || !realpath(words[1], build) || !mkdtemp(directory))
        fail("usage: bench BUILD_DIRECTORY [RESULTS.json]");
    atexit(directory_remove);
    FILE *json = fopen(count > 2 ? words[2] : "/dev/null", "we");
    if (!json)
        fail(words[2]);
    processor_name(processor, sizeof(processor));
    strftime(date, sizeof(date), "%Y-%m-%d", gmtime(&now));
    printf("%s, %ld processors online, %s; ns, median (least to most) of runs in turn\n", processor,
           sysconf(_SC_NPROCESSORS_ONLN), date);
    printf("%-42s %-28s  %-28s  %-9s  %-6s  %s\n", "", "bare", "preloaded", "extra", "ratio", "target");
    fprintf(json, "{\"date\": \"%s\", \"processor\": \"%s\", \"processors\": %ld, \"subjects\": [\n", date, processor,
            sysconf(_SC_NPROCESSORS_ONLN));
    for (size_t i = 0; i < SUBJECTS; i++) {
        struct figure figures[2] = {{.count = subjects[i].runs}, {.count = subjects[i].runs}};
        for (unsigned run = 0; run < 2 * subjects[i].runs; run++)
            figures[run % 2].runs[run / 2] =
                subjects[i].what ? subject_run(&subjects[i], (int)run % 2) : true_run((int)run % 2);
        subject_show(json, &subjects[i], figures, i + 1 == SUBJECTS);
    }
    fprintf(json, "]}\n");
    return fclose(json) == 0 ? 0 : 1;
}
