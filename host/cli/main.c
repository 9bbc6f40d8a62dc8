// SPDX-License-Identifier: Apache-2.0
/* The program: finds the command, starts MPI where a launcher asks for it, prints the one error line, and
 * turns the status into the exit code. */
#include "build.h"
#include "cli.h"
#include "commit.h"
#include "log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static sago_status unknown_command(const char *word) {
    const char *names[64];
    int n = 0;
    for (; sago_commands[n] && n < 64; n++) names[n] = sago_commands[n]->name;
    const char *near = sago_nearest(word, names, n);
    if (near) return sago_fail(SAGO_E_USAGE, "unknown command '%s'; did you mean '%s'?", word, near);
    return sago_fail(SAGO_E_USAGE, "unknown command '%s'; 'sago --help' lists them all", word);
}

/* Help is text of rank 0; a full disk or a closed pipe behind it is seen when the program ends. */
static sago_status print(const sago_str *text) {
    if (sago_mesh_world_rank() == 0) fputs(sago_str_text(text), stdout);
    return SAGO_OK;
}

static sago_status print_help(const char *name) {
    sago_str text = {0};
    const sago_command *command = name ? sago_command_find(name) : NULL;
    if (name && !command) return unknown_command(name);
    if (command)
        sago_help_command(command, &text);
    else
        sago_help_all(&text);
    sago_status status = print(&text);
    sago_str_free(&text);
    return status;
}

static sago_status run_command(const sago_command *command, int n_words, char *words[]) {
    sago_arguments arguments = {0};
    sago_status status = sago_arguments_parse(command, n_words, words, &arguments);
    if (status != SAGO_OK) goto done;
    sago_log_quiet(arguments.quiet);
    if (arguments.help)
        status = print_help(command->name);
    else if (!command->uses_mesh && sago_mesh_world_size() > 1)
        status = sago_fail(SAGO_E_USAGE, "%s runs as one process, and %d were started: leave mpirun away",
                           command->name, sago_mesh_world_size());
    else
        status = command->run(&arguments);
done:
    sago_arguments_free(&arguments);
    return status;
}

static sago_status dispatch(int argc, char *argv[]) {
    if (argc < 2) return sago_fail(SAGO_E_USAGE, "a command is missing; 'sago --help' lists them all");
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) return print_help(NULL);
    if (strcmp(word, "help") == 0) return print_help(argc > 2 ? argv[2] : NULL);
    if (strcmp(word, "--version") == 0) word = "version";
    const sago_command *command = sago_command_find(word);
    return command ? run_command(command, argc - 2, argv + 2) : unknown_command(word);
}

/* What was printed must have arrived; only a reader that went away (sago inspect ... | head) is nobody's
 * error. */
static sago_status flush_output(sago_status status) {
    errno = 0;
    bool failed = fflush(stdout) != 0 || ferror(stdout);
    if (!failed || status != SAGO_OK || errno == EPIPE) return status;
    return sago_fail_errno(SAGO_E_IO, "standard output: cannot write");
}

/* All ranks are given the same command line, so one line about it is enough; an error that all ranks share is
 * told by rank 0; what went wrong on one rank alone is told by that rank. */
static void print_error(sago_status status) {
    bool shared = status == SAGO_E_USAGE || sago_mesh_failure_is_shared();
    if (shared && sago_mesh_world_rank() != 0) return;
    if (shared) sago_log_identity(0, 1); /* of all ranks: the line needs no rank in front */
    sago_error_line(sago_message());
}

int main(int argc, char *argv[]) {
    signal(SIGPIPE, SIG_IGN);
    sago_build_set_commit(SAGO_COMMIT);
    sago_status status = sago_mesh_start();
    if (status == SAGO_OK) status = flush_output(dispatch(argc, argv));
    sago_progress_end();
    if (status != SAGO_OK) print_error(status);
    int exit_code = sago_status_exit_code(status);
    sago_mesh_finish(exit_code);
    return exit_code;
}
