// SPDX-License-Identifier: Apache-2.0
#include "index_build.h"

#include "log.h"
#include "rng.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const char magic[8] = "SAGOIDX";
enum { VERSION = 3 };

typedef struct header {
    char magic[8];
    uint32_t byte_order, version;
    uint64_t length, hash, n_tasks, n_records, strings_bytes;
} header;

void sago_index_files_add(sago_index_files *files, const sago_index_file *file) {
    if (files->count == files->capacity) {
        files->capacity = files->capacity ? 2 * files->capacity : 16;
        files->items = sago_realloc(files->items, files->capacity * sizeof *files->items);
    }
    files->items[files->count++] = *file;
}

void sago_index_files_free(sago_index_files *files) {
    for (size_t i = 0; i < files->count; i++) {
        free(files->items[i].path);
        free(files->items[i].file);
        free(files->items[i].name);
    }
    free(files->items);
    *files = (sago_index_files){0};
}

char *sago_index_key(const sago_source *source, const char *path) {
    return sago_format("%s\nformat %d\nmapping %016llx%s%s\ntokenizer %016llx", path, (int)source->format,
                       source->mapping ? (unsigned long long)source->mapping->hash : 0ull,
                       source->inputs_optional ? "\ninputs optional" : "",
                       source->whole_files ? "\nwhole files" : "",
                       source->tokenizer ? (unsigned long long)sago_tokenizer_hash(source->tokenizer) : 0ull);
}

static bool string_holds(const sago_index_blob *blob, uint64_t strings_bytes, uint64_t offset) {
    return offset < strings_bytes && memchr(blob->strings + offset, '\0', strings_bytes - offset);
}

bool sago_index_blob_check(const void *bytes, size_t length, const char *key, sago_index_blob *out) {
    header head;
    *out = (sago_index_blob){0};
    if (length < sizeof head) return false;
    memcpy(&head, bytes, sizeof head);
    if (memcmp(head.magic, magic, sizeof magic) != 0 || head.byte_order != 0x01020304u ||
        head.version != VERSION)
        return false;
    uint64_t rest = length - sizeof head;
    if (head.length != length || head.n_tasks > rest / sizeof(sago_index_task) ||
        head.n_records > rest / 28 ||
        head.n_tasks * sizeof(sago_index_task) + head.n_records * 28 + head.strings_bytes != rest)
        return false;
    const char *at = (const char *)bytes + sizeof head;
    if (sago_hash_bytes(at, rest) != head.hash) return false;
    sago_index_blob blob = {.bytes = bytes, .length = length, .n_tasks = head.n_tasks};
    blob.tasks = (const sago_index_task *)(const void *)at;
    blob.records = (const sago_record *)(const void *)(blob.tasks + head.n_tasks);
    blob.by_hash = (const uint32_t *)(const void *)(blob.records + head.n_records);
    blob.strings = (const char *)(blob.by_hash + head.n_records);
    if (!string_holds(&blob, head.strings_bytes, 0) || strcmp(blob.strings, key) != 0) return false;
    for (uint64_t i = 0; i < head.n_tasks; i++) {
        const sago_index_task *task = &blob.tasks[i];
        const uint64_t texts[] = {task->file, task->name, task->note, task->categories, task->labels};
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
            if (!string_holds(&blob, head.strings_bytes, texts[k])) return false;
        if (task->first_record > head.n_records ||
            (uint64_t)task->n_examples + task->n_exemplars > head.n_records - task->first_record)
            return false;
    }
    *out = blob;
    return true;
}

bool sago_index_same_file(const sago_index_blob *blob, const sago_index_task *task,
                          const sago_index_file *file) {
    return strcmp(blob->strings + task->file, file->file) == 0 && task->size_bytes == file->size_bytes &&
           task->mtime_ns == file->mtime_ns;
}

/* The scanning threads: each takes the next file until none is left or one has failed. */
typedef struct scan_job {
    const sago_source *source;
    const sago_index_file *const *files;
    sago_scan *scans;
    size_t count, next, finished;
    size_t failed_at; /* the first file in order that failed; count when none */
    sago_error error;
    pthread_mutex_t lock;
} scan_job;

static void *scan_files(void *data) {
    scan_job *job = data;
    for (;;) {
        pthread_mutex_lock(&job->lock);
        size_t i = job->next++;
        bool stop = i >= job->count || i > job->failed_at;
        pthread_mutex_unlock(&job->lock);
        if (stop) return NULL;
        sago_status status = sago_source_scan(job->source, job->files[i]->path, &job->scans[i]);
        pthread_mutex_lock(&job->lock);
        job->finished++;
        if (status != SAGO_OK && i < job->failed_at) {
            job->failed_at = i;
            sago_error_take(status, &job->error);
        }
        if (job->count > 50)
            sago_progress("index", (double)job->finished / (double)job->count, "%zu of %zu files",
                          job->finished, job->count);
        pthread_mutex_unlock(&job->lock);
    }
}

static sago_status scan_all(scan_job *job, int threads) {
    pthread_t others[64];
    int started = 0;
    pthread_mutex_init(&job->lock, NULL);
    for (; started < threads - 1 && started < 64 && (size_t)started + 1 < job->count; started++)
        if (pthread_create(&others[started], NULL, scan_files, job) != 0) break;
    scan_files(job);
    for (int i = 0; i < started; i++) pthread_join(others[i], NULL);
    pthread_mutex_destroy(&job->lock);
    if (job->count > 50) sago_progress_end();
    return job->failed_at < job->count ? sago_error_give(&job->error) : SAGO_OK;
}

typedef struct hashed {
    uint64_t hash;
    uint32_t number;
} hashed;

static int by_hash_then_number(const void *a, const void *b) {
    const hashed *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

/* The growing parts of the index. */
typedef struct parts {
    sago_str tasks, records, by_hash, strings;
} parts;

static uint64_t add_string(parts *to, const char *text) {
    uint64_t offset = to->strings.length;
    sago_str_add(&to->strings, text, strlen(text) + 1);
    return offset;
}

static void add_task(parts *to, const sago_index_file *file, const sago_scan *scan, bool instruction) {
    sago_index_task task = {.first_record = to->records.length / sizeof(sago_record),
                            .n_examples = (uint32_t)(scan->n_records - scan->n_exemplars),
                            .n_exemplars = (uint32_t)scan->n_exemplars,
                            .size_bytes = file->size_bytes,
                            .mtime_ns = file->mtime_ns,
                            .n_empty = scan->n_empty,
                            .max_id = scan->max_id,
                            .max_id_line = scan->max_id_line};
    if (instruction) {
        sago_str folded = {0};
        sago_normalise(sago_str_text(&scan->note), scan->note.length, &folded);
        task.instruction_hash = sago_hash_bytes(sago_str_text(&folded), folded.length) | 1;
        sago_str_free(&folded);
    }
    task.file = add_string(to, file->file);
    task.name = add_string(to, file->name);
    task.note = add_string(to, sago_str_text(&scan->note));
    task.categories = add_string(to, sago_str_text(&scan->categories));
    task.labels = add_string(to, sago_str_text(&scan->labels));
    sago_str_add(&to->tasks, (const char *)&task, sizeof task);
    sago_str_add(&to->records, (const char *)scan->records, scan->n_records * sizeof *scan->records);
    hashed *order = sago_alloc(scan->n_records * sizeof *order);
    for (uint32_t i = 0; i < scan->n_records; i++) order[i] = (hashed){scan->records[i].hash, i};
    qsort(order, task.n_examples, sizeof *order, by_hash_then_number);
    for (uint32_t i = 0; i < scan->n_records; i++)
        sago_str_add(&to->by_hash, (const char *)&order[i].number, sizeof order[i].number);
    free(order);
}

static void copy_task(parts *to, const sago_index_blob *old, const sago_index_task *from) {
    sago_index_task task = *from;
    size_t count = (size_t)from->n_examples + from->n_exemplars;
    task.first_record = to->records.length / sizeof(sago_record);
    task.file = add_string(to, old->strings + from->file);
    task.name = add_string(to, old->strings + from->name);
    task.note = add_string(to, old->strings + from->note);
    task.categories = add_string(to, old->strings + from->categories);
    task.labels = add_string(to, old->strings + from->labels);
    sago_str_add(&to->tasks, (const char *)&task, sizeof task);
    sago_str_add(&to->records, (const char *)(old->records + from->first_record),
                 count * sizeof *old->records);
    sago_str_add(&to->by_hash, (const char *)(old->by_hash + from->first_record),
                 count * sizeof *old->by_hash);
}

static const sago_index_task *find_task(const sago_index_blob *old, const sago_index_file *file) {
    for (uint64_t low = 0, high = old->n_tasks; low < high;) {
        uint64_t middle = (low + high) / 2;
        int order = strcmp(old->strings + old->tasks[middle].file, file->file);
        if (order == 0)
            return sago_index_same_file(old, &old->tasks[middle], file) ? &old->tasks[middle] : NULL;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static void put_together(const parts *from, sago_str *out) {
    header head = {.byte_order = 0x01020304u,
                   .version = VERSION,
                   .n_tasks = from->tasks.length / sizeof(sago_index_task),
                   .n_records = from->records.length / sizeof(sago_record),
                   .strings_bytes = from->strings.length};
    memcpy(head.magic, magic, sizeof magic);
    head.length =
        sizeof head + from->tasks.length + from->records.length + from->by_hash.length + from->strings.length;
    sago_str_reserve(out, head.length);
    sago_str_add(out, (const char *)&head, sizeof head);
    sago_str_add(out, sago_str_text(&from->tasks), from->tasks.length);
    sago_str_add(out, sago_str_text(&from->records), from->records.length);
    sago_str_add(out, sago_str_text(&from->by_hash), from->by_hash.length);
    sago_str_add(out, sago_str_text(&from->strings), from->strings.length);
    head.hash = sago_hash_bytes(out->data + sizeof head, out->length - sizeof head);
    memcpy(out->data, &head, sizeof head);
}

sago_status sago_index_build(const sago_source *source, const char *key, const sago_index_files *files,
                             const sago_index_blob *old, int threads, sago_str *out, int *scanned) {
    scan_job job = {.source = source};
    const sago_index_file **fresh = sago_alloc(files->count * sizeof *fresh);
    for (size_t i = 0; i < files->count; i++)
        if (!find_task(old, &files->items[i])) fresh[job.count++] = &files->items[i];
    job.files = fresh;
    job.failed_at = job.count;
    job.scans = sago_alloc_zero(job.count, sizeof *job.scans);
    sago_status status = scan_all(&job, threads);
    if (status == SAGO_OK) {
        parts made = {0};
        (void)add_string(&made, key);
        size_t f = 0;
        /* Files that this config does not select but the cache knows stay known, in order of their names. */
        uint64_t o = 0;
        for (size_t i = 0; i < files->count; i++) {
            const sago_index_file *file = &files->items[i];
            for (; o < old->n_tasks && strcmp(old->strings + old->tasks[o].file, file->file) <= 0; o++)
                if (strcmp(old->strings + old->tasks[o].file, file->file) < 0)
                    copy_task(&made, old, &old->tasks[o]);
            const sago_index_task *known = find_task(old, file);
            if (known)
                copy_task(&made, old, known);
            else
                add_task(&made, file, &job.scans[f++], source->format == SAGO_FORMAT_NIV2);
        }
        for (; o < old->n_tasks; o++) copy_task(&made, old, &old->tasks[o]);
        put_together(&made, out);
        *scanned = (int)job.count;
        sago_str_free(&made.tasks), sago_str_free(&made.records);
        sago_str_free(&made.by_hash), sago_str_free(&made.strings);
    }
    for (size_t i = 0; i < job.count; i++) sago_scan_free(&job.scans[i]);
    free(job.scans);
    free(fresh);
    return status;
}
