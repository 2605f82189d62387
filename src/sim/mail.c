/*
 * Requests from process to process, through the machine's file: one at a time to each process, which a thread of that process
 * serves. Whoever asks may die at any moment, and so may who is asked: an open request is done whether or not anybody still
 * waits for it, unless it was withdrawn before it was begun. Under the machine's mutex, but for the two words slept on.
 */
#include "sim/checkpoint.h"

#include <unistd.h>

enum { LOOK_EVERY_MS = 10 }; /* whether the other still lives, which wakes nobody */

struct machine_process *process_of_pid(int pid, uint64_t *number)
{
    struct machine *machine = &sim_process.machine;
    struct machine_process *found = NULL;
    machine_lock(machine->shared);
    for (unsigned i = 0; i < machine->shared->places && i < MACHINE_PROCESSES; i++) {
        struct machine_process *process = &machine->shared->process[i];
        bool named = pid == getpid() ? process == machine->self : process->pid == pid;
        if (named && machine_process_serves(machine, process, process->number)) {
            found = process;
            *number = process->number;
        }
    }
    machine_unlock(machine->shared);
    return found;
}

static CUresult result_read(const struct machine_mail *mail, uint32_t number)
{
    uint32_t at = number % MACHINE_RESULTS;
    return mail->result[at].number == number ? mail->result[at].code : CUDA_ERROR_UNKNOWN;
}

static bool deadline_passed(const struct machine_request *request)
{
    return request->deadline_ms && machine_clock_ms() >= request->deadline_ms;
}

/* Leaves the request once no other is open; its number. False, with why in *result: not until the deadline, or he has died. */
static bool mail_post(struct machine_process *process, uint64_t number, const struct machine_request *request,
                      uint32_t *posted, CUresult *result)
{
    struct machine *machine = &sim_process.machine;
    struct machine_mail *mail = &process->mail;
    for (;;) {
        machine_lock(machine->shared);
        uint32_t answered = atomic_load(&mail->answered);
        bool serves = machine_process_serves(machine, process, number);
        bool free = serves && answered == atomic_load(&mail->asked);
        if (free) {
            mail->request = *request;
            mail->started = 0;
            *posted = atomic_fetch_add(&mail->asked, 1) + 1;
        }
        machine_unlock(machine->shared);
        if (free) {
            machine_word_wake(&mail->asked);
            return true;
        }
        *result = serves ? CUDA_ERROR_NOT_READY : CUDA_ERROR_NOT_INITIALIZED;
        if (!serves || deadline_passed(request))
            return false;
        machine_word_wait(&mail->answered, answered, LOOK_EVERY_MS);
    }
}

CUresult mail_ask(struct machine_process *process, uint64_t number, const struct machine_request *request)
{
    struct machine *machine = &sim_process.machine;
    struct machine_mail *mail = &process->mail;
    CUresult result = CUDA_ERROR_UNKNOWN;
    uint32_t posted;
    if (!mail_post(process, number, request, &posted, &result))
        return result;
    for (bool open = true; open;) {
        machine_lock(machine->shared);
        uint32_t answered = atomic_load(&mail->answered);
        bool serves = machine_process_serves(machine, process, number);
        open = serves && (int32_t)(answered - posted) < 0;
        if (!serves)
            result = CUDA_ERROR_NOT_INITIALIZED;
        else if (!open)
            result = result_read(mail, posted);
        else if (!mail->started && deadline_passed(request)) {
            mail->request.withdrawn = 1;
            result = CUDA_ERROR_NOT_READY;
            open = false;
        }
        machine_unlock(machine->shared);
        if (open)
            machine_word_wait(&mail->answered, answered, LOOK_EVERY_MS);
    }
    return result;
}

void mail_take(struct machine_request *request)
{
    struct machine *machine = &sim_process.machine;
    struct machine_mail *mail = &machine->self->mail;
    uint32_t answered = atomic_load(&mail->answered);
    while (atomic_load(&mail->asked) == answered)
        machine_word_wait(&mail->asked, answered, 0);
    machine_lock(machine->shared);
    *request = mail->request;
    mail->started = 1;
    machine_unlock(machine->shared);
}

void mail_answer(CUresult result)
{
    struct machine *machine = &sim_process.machine;
    struct machine_mail *mail = &machine->self->mail;
    machine_lock(machine->shared);
    uint32_t number = atomic_load(&mail->answered) + 1;
    mail->result[number % MACHINE_RESULTS].number = number;
    mail->result[number % MACHINE_RESULTS].code = result;
    mail->started = 0;
    atomic_store(&mail->answered, number);
    machine_unlock(machine->shared);
    machine_word_wake(&mail->answered);
}
