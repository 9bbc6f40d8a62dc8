// SPDX-License-Identifier: Apache-2.0
#include "corpus.h"

#include "rng.h"

#include <pthread.h>
#include <stdlib.h>

enum { STRIDE = 64, KEPT_PASSES = 16 };

typedef struct pass {
    sago_corpus_order order;
    uint64_t used; /* when last, by count */
    int64_t *sums; /* [n_units / STRIDE + 1]: ids before unit i * STRIDE; NULL: free */
} pass;

struct sago_corpus {
    const sago_index *index;
    const sago_source *source;
    bool ends;
    int n_files;
    int64_t *first_document, *first_record; /* [n_files + 1] of each file, over all */
    int64_t n_tokens;
    pthread_mutex_t lock; /* of what follows */
    pass passes[KEPT_PASSES];
    uint64_t n_used;
};

/* What a pass is made of: a document, or in file order a record. */
typedef struct unit {
    int file;
    int64_t record, n_records, n_tokens;
    bool ends; /* EOS follows it */
} unit;

static const sago_record *records_of(const sago_corpus *corpus, int file) {
    return sago_index_records(corpus->index, file);
}

static int64_t count_records(const sago_corpus *corpus, int file) {
    return corpus->first_record[file + 1] - corpus->first_record[file];
}

void sago_corpus_open(const sago_index *index, const sago_source *source, bool ends, sago_corpus **out) {
    sago_corpus *corpus = sago_alloc_zero(1, sizeof *corpus);
    corpus->index = index;
    corpus->source = source;
    corpus->ends = ends;
    corpus->n_files = sago_index_tasks(index);
    corpus->first_document = sago_alloc_zero((size_t)corpus->n_files + 1, sizeof *corpus->first_document);
    corpus->first_record = sago_alloc_zero((size_t)corpus->n_files + 1, sizeof *corpus->first_record);
    for (int f = 0; f < corpus->n_files; f++) {
        const sago_record *records = records_of(corpus, f);
        int64_t n = sago_index_task_at(index, f)->n_examples, documents = 0;
        for (int64_t r = 0; r < n; r++) {
            documents += sago_text_part_of(&records[r]) == 0;
            corpus->n_tokens += sago_text_tokens_of(&records[r]);
        }
        corpus->first_document[f + 1] = corpus->first_document[f] + documents;
        corpus->first_record[f + 1] = corpus->first_record[f] + n;
    }
    if (ends) corpus->n_tokens += corpus->first_document[corpus->n_files];
    pthread_mutex_init(&corpus->lock, NULL);
    *out = corpus;
}

void sago_corpus_close(sago_corpus *corpus) {
    if (!corpus) return;
    for (int i = 0; i < KEPT_PASSES; i++) free(corpus->passes[i].sums);
    pthread_mutex_destroy(&corpus->lock);
    free(corpus->first_document);
    free(corpus->first_record);
    free(corpus);
}

int64_t sago_corpus_documents(const sago_corpus *corpus) {
    return corpus->first_document[corpus->n_files];
}

int64_t sago_corpus_tokens(const sago_corpus *corpus) {
    return corpus->n_tokens;
}

/* The file that holds number i, where file f holds [first[f], first[f + 1]). */
static int file_of(const int64_t first[], int n_files, int64_t i) {
    int low = 0, high = n_files;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (first[middle] <= i)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int64_t count_units(const sago_corpus *corpus, sago_corpus_order order) {
    return order.shuffled ? corpus->first_document[corpus->n_files] : corpus->first_record[corpus->n_files];
}

/* The parts of a document are records one behind the other, and the order by hash begins with the documents.
 */
static unit find_unit(const sago_corpus *corpus, sago_corpus_order order, int64_t i) {
    unit u = {.n_records = 1};
    if (order.shuffled) {
        int64_t document =
            (int64_t)sago_permute((uint64_t)i, (uint64_t)count_units(corpus, order), order.key);
        u.file = file_of(corpus->first_document, corpus->n_files, document);
        u.record = sago_index_by_hash(corpus->index, u.file)[document - corpus->first_document[u.file]];
    } else {
        u.file = file_of(corpus->first_record, corpus->n_files, i);
        u.record = i - corpus->first_record[u.file];
    }
    const sago_record *records = records_of(corpus, u.file);
    int64_t n = count_records(corpus, u.file);
    u.n_tokens = sago_text_tokens_of(&records[u.record]);
    while (order.shuffled && u.record + u.n_records < n &&
           sago_text_part_of(&records[u.record + u.n_records]) > 0)
        u.n_tokens += sago_text_tokens_of(&records[u.record + u.n_records++]);
    int64_t next = u.record + u.n_records;
    u.ends = corpus->ends && (next == n || sago_text_part_of(&records[next]) == 0);
    u.n_tokens += u.ends;
    return u;
}

static int64_t *sum_pass(const sago_corpus *corpus, sago_corpus_order order) {
    int64_t n = count_units(corpus, order), sum = 0;
    int64_t *sums = sago_alloc((size_t)(n / STRIDE + 1) * sizeof *sums);
    for (int64_t i = 0; i < n; i++) {
        if (i % STRIDE == 0) sums[i / STRIDE] = sum;
        sum += find_unit(corpus, order, i).n_tokens;
    }
    if (n % STRIDE == 0) sums[n / STRIDE] = sum;
    return sums;
}

/* The sums of a pass; the one that was not used for longest gives way. */
static const int64_t *sums_of(sago_corpus *corpus, sago_corpus_order order) {
    pass *oldest = &corpus->passes[0];
    for (int i = 0; i < KEPT_PASSES; i++) {
        pass *p = &corpus->passes[i];
        if (p->sums && p->order.shuffled == order.shuffled && p->order.key == order.key) {
            p->used = ++corpus->n_used;
            return p->sums;
        }
        if (p->used < oldest->used) oldest = p;
    }
    free(oldest->sums);
    *oldest = (pass){order, ++corpus->n_used, sum_pass(corpus, order)};
    return oldest->sums;
}

/* The unit that holds a place of a pass, and how many of its ids lie before that place. */
static int64_t find_place(sago_corpus *corpus, sago_corpus_order order, int64_t place, int64_t *skip) {
    pthread_mutex_lock(&corpus->lock);
    const int64_t *sums = sums_of(corpus, order);
    int64_t low = 0, high = (count_units(corpus, order) - 1) / STRIDE + 1;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (sums[middle] <= place)
            low = middle;
        else
            high = middle;
    }
    int64_t i = low * STRIDE, left = place - sums[low];
    pthread_mutex_unlock(&corpus->lock);
    for (int64_t n; (n = find_unit(corpus, order, i).n_tokens) <= left; i++) left -= n;
    *skip = left;
    return i;
}

/* Ids of a record, all of them. */
static sago_status encode_record(const sago_corpus *corpus, int file, int64_t record, sago_ids *ids) {
    const sago_record *stored = &records_of(corpus, file)[record];
    sago_where where = {sago_index_path(corpus->index, file), stored->line};
    sago_str bytes = {0}, text = {0};
    sago_ids_clear(ids);
    sago_status status = sago_index_read(corpus->index, file, (uint32_t)record, &bytes);
    if (status == SAGO_OK)
        status = sago_text_part_read(corpus->source, where, &bytes, sago_text_part_of(stored), &text);
    if (status == SAGO_OK)
        status = sago_tokenizer_encode(corpus->source->tokenizer, sago_str_text(&text), text.length, ids);
    if (status == SAGO_OK && ids->length != sago_text_tokens_of(stored))
        status = sago_fail(SAGO_E_INPUT,
                           "%s:%lld: gives %lld ids, and gave %lld when it was indexed; empty data.cache_dir",
                           where.path, (long long)where.line, (long long)ids->length,
                           (long long)sago_text_tokens_of(stored));
    sago_str_free(&bytes);
    sago_str_free(&text);
    return status;
}

/* Appends ids [skip, skip + n) of a unit, or up to its end; returns how many by *taken. */
static sago_status read_unit(const sago_corpus *corpus, const unit *u, int64_t skip, int64_t n,
                             sago_ids *scratch, sago_ids *out, int64_t *taken) {
    const sago_record *records = records_of(corpus, u->file);
    *taken = 0;
    for (int64_t r = u->record; r < u->record + u->n_records && *taken < n; r++) {
        int64_t tokens = sago_text_tokens_of(&records[r]);
        if (skip >= tokens) {
            skip -= tokens;
            continue;
        }
        SAGO_TRY(encode_record(corpus, u->file, r, scratch));
        for (int64_t i = skip; i < tokens && *taken < n; i++, (*taken)++) sago_ids_add(out, scratch->data[i]);
        skip = 0;
    }
    if (u->ends && *taken < n) {
        sago_ids_add(out, SAGO_EOS_ID);
        (*taken)++;
    }
    return SAGO_OK;
}

sago_status sago_corpus_read(sago_corpus *corpus, sago_corpus_order order, int64_t first, int64_t n,
                             sago_ids *out) {
    sago_ids scratch = {0};
    sago_status status = SAGO_OK;
    int64_t skip = 0, i = n > 0 ? find_place(corpus, order, first, &skip) : 0;
    for (int64_t taken; n > 0 && status == SAGO_OK; n -= taken, i++, skip = 0) {
        unit u = find_unit(corpus, order, i);
        status = read_unit(corpus, &u, skip, n, &scratch, out, &taken);
    }
    sago_ids_free(&scratch);
    return status;
}
