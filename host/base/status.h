// SPDX-License-Identifier: Apache-2.0
/**
 * Status: how every fallible function of sago reports.
 *
 * A function that can fail returns sago_status and leaves its message in a record of the calling thread.
 * Callers pass a failure up with SAGO_TRY, or add where they were with sago_wrap(). The message is one line
 * and says what, where, and what to do; only host/cli prints it. A thread that hands its failure to another
 * one copies the record (sago_error_take on one side, sago_error_give on the other).
 */
#ifndef SAGO_STATUS_H
#define SAGO_STATUS_H

#include <stdarg.h>
#include <stddef.h>

typedef enum sago_status {
    SAGO_OK = 0,
    SAGO_E_USAGE,       /* a command line that can't be understood */
    SAGO_E_CONFIG,      /* a configuration key, type or value */
    SAGO_E_INPUT,       /* the contents of a user's file */
    SAGO_E_IO,          /* the file system: missing, denied, full */
    SAGO_E_MEMORY,      /* no memory */
    SAGO_E_SHAPE,       /* sizes that do not fit one another */
    SAGO_E_DEVICE,      /* a device that is absent or failed */
    SAGO_E_COMM,        /* another rank, or the way to it */
    SAGO_E_CORRUPT,     /* a checkpoint whose hashes do not hold */
    SAGO_E_BUSY,        /* in use by another process */
    SAGO_E_NONFINITE,   /* a loss or gradient that is not finite */
    SAGO_E_INTERRUPTED, /* SIGTERM or SIGINT: state was saved */
    SAGO_E_INTERNAL,    /* a defect of sago itself */
    SAGO_STATUS_COUNT
} sago_status;

enum { SAGO_ERROR_BYTES = 2048 };

/** One failure with its message; plain data, copied between threads and ranks. */
typedef struct sago_error {
    sago_status status;
    char message[SAGO_ERROR_BYTES];
} sago_error;

#define SAGO_PRINTF(format_index, first_argument)                                                            \
    __attribute__((format(printf, format_index, first_argument)))
#define SAGO_MUST_CHECK __attribute__((warn_unused_result))

/** Records the message for this thread and returns status. Control characters of the text are made visible.
 */
sago_status sago_fail(sago_status status, const char *format, ...) SAGO_PRINTF(2, 3);

/** sago_fail with errno's text at the end: "FORMAT: No such file or directory". */
sago_status sago_fail_errno(sago_status status, const char *format, ...) SAGO_PRINTF(2, 3);

/** Puts "FORMAT: " before the present message; returns status unchanged. A no-op on SAGO_OK. */
sago_status sago_wrap(sago_status status, const char *format, ...) SAGO_PRINTF(2, 3);

/** The calling thread's message; "" when nothing failed. Valid until the next failure of this thread. */
const char *sago_message(void);

/** Copies the calling thread's record. */
void sago_error_take(sago_status status, sago_error *out);

/** Makes a copied record the calling thread's own; returns its status. */
sago_status sago_error_give(const sago_error *error);

/** "config", "input", ...: the short name of a status. */
const char *sago_status_name(sago_status status);

/** The process's exit code for a status: 0 ok, 2 usage and config, 75 interrupted after saving, else 1. */
int sago_status_exit_code(sago_status status);

/** Returns the status of expression from this function when it failed. */
#define SAGO_TRY(expression)                                                                                 \
    do {                                                                                                     \
        sago_status sago_try_status = (expression);                                                          \
        if (sago_try_status != SAGO_OK) return sago_try_status;                                              \
    } while (0)

/** Stores the status in the local variable `status` and jumps to label when it failed. */
#define SAGO_TRY_TO(label, expression)                                                                       \
    do {                                                                                                     \
        status = (expression);                                                                               \
        if (status != SAGO_OK) goto label;                                                                   \
    } while (0)

#endif
