// SPDX-License-Identifier: Apache-2.0
#include "environment.h"

#include "trainer.h"

#include <time.h>
#include <unistd.h>

json_t *sago_environment_describe(const sago_trainer *t) {
    char host[256] = "", mpi[256] = "", started[32] = "";
    gethostname(host, sizeof host - 1);
    sago_mesh_describe(t->mesh, mpi);
    time_t now = time(NULL);
    struct tm utc;
    strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    size_t elements = (size_t)t->registry.n_elements * sizeof(float);
    return json_pack("{s:s, s:i, s:s, s:i, s:s, s:s, s:s, s:I, s:{s:I, s:I, s:I, s:I}}", "host", host,
                     "ranks", t->mesh->size, "device", t->device->description, "threads",
                     t->device->n_threads, "mpi", mpi, "sago", SAGO_VERSION, "started", started, "parameters",
                     (json_int_t)t->registry.n_global_elements, "memory_bytes", "parameters",
                     (json_int_t)sago_weights_bytes(&t->weights), "gradients", (json_int_t)elements,
                     "optimizer", (json_int_t)sago_optimizer_bytes(t->optimizer), "activations",
                     (json_int_t)sago_model_bytes(t->model));
}
