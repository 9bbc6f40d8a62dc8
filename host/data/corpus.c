// SPDX-License-Identifier: Apache-2.0
#include "corpus.h"

#include "rng.h"

#include <pthread.h>
#include <stdlib.h>

enum { STRIDE = 64, KEPT_PASSES = 16 };

typedef struct pass {
    sago_corpus_order order;
    uint64_t used; /* when last, by count */
    int64_t *sums; /* [n_documents / STRIDE + 1]: ids before document i * STRIDE; NULL: free */
} pass;

struct sago_corpus {
    const sago_index *index;
    const sago_source *source;
    bool ends;
    int n_files;
    int64_t *first_document; /* [n_files + 1] of each file, over all */
    uint64_t *chosen;        /* a bit for each document of the index; NULL: the corpus holds all or none */
    int64_t *chosen_before;  /* [words of chosen] bits set in earlier words */
    int64_t n_documents, n_tokens;
    pthread_mutex_t lock; /* of what follows */
    pass passes[KEPT_PASSES];
    uint64_t n_used;
};

/* A document with what is read of it. */
typedef struct unit {
    int file;
    int64_t record, n_records, n_tokens; /* EOS counted, where one follows */
} unit;

static const sago_record *records_of(const sago_corpus *corpus, int file) {
    return sago_index_records(corpus->index, file);
}

static const sago_record *document_at(const sago_corpus *corpus, int file, int64_t i) {
    return records_of(corpus, file) + sago_index_task_at(corpus->index, file)->n_examples + i;
}

static int64_t count_tokens(const sago_corpus *corpus, int file, const sago_record *document) {
    sago_text_parts parts = sago_text_parts_of(document);
    const sago_record *records = records_of(corpus, file) + parts.first;
    int64_t sum = corpus->ends;
    for (int64_t r = 0; r < parts.n; r++) sum += sago_text_tokens_of(&records[r]);
    return sum;
}

/* Keeps the documents that choose takes, and counts. */
static void choose_documents(sago_corpus *corpus, sago_corpus_choice *choose, void *context) {
    int64_t all = corpus->first_document[corpus->n_files], words = (all + 63) / 64;
    corpus->chosen = sago_alloc_zero((size_t)words + 1, sizeof *corpus->chosen);
    for (int f = 0; f < corpus->n_files; f++) {
        for (int64_t i = corpus->first_document[f]; i < corpus->first_document[f + 1]; i++) {
            const sago_record *document = document_at(corpus, f, i - corpus->first_document[f]);
            if (choose && !choose(context, f, document)) continue;
            corpus->chosen[i / 64] |= 1ull << (i % 64);
            corpus->n_documents++;
            corpus->n_tokens += count_tokens(corpus, f, document);
        }
    }
    if (corpus->n_documents == all || corpus->n_documents == 0) {
        free(corpus->chosen);
        corpus->chosen = NULL;
        return;
    }
    corpus->chosen_before = sago_alloc_zero((size_t)words + 1, sizeof *corpus->chosen_before);
    for (int64_t w = 0; w < words; w++)
        corpus->chosen_before[w + 1] = corpus->chosen_before[w] + __builtin_popcountll(corpus->chosen[w]);
}

void sago_corpus_open(const sago_index *index, const sago_source *source, bool ends,
                      sago_corpus_choice *choose, void *context, sago_corpus **out) {
    sago_corpus *corpus = sago_alloc_zero(1, sizeof *corpus);
    corpus->index = index;
    corpus->source = source;
    corpus->ends = ends;
    corpus->n_files = sago_index_tasks(index);
    corpus->first_document = sago_alloc_zero((size_t)corpus->n_files + 1, sizeof *corpus->first_document);
    for (int f = 0; f < corpus->n_files; f++)
        corpus->first_document[f + 1] = corpus->first_document[f] + sago_index_task_at(index, f)->n_exemplars;
    choose_documents(corpus, choose, context);
    pthread_mutex_init(&corpus->lock, NULL);
    *out = corpus;
}

void sago_corpus_close(sago_corpus *corpus) {
    if (!corpus) return;
    for (int i = 0; i < KEPT_PASSES; i++) free(corpus->passes[i].sums);
    pthread_mutex_destroy(&corpus->lock);
    free(corpus->first_document);
    free(corpus->chosen);
    free(corpus->chosen_before);
    free(corpus);
}

int64_t sago_corpus_documents(const sago_corpus *corpus) {
    return corpus->n_documents;
}

int64_t sago_corpus_tokens(const sago_corpus *corpus) {
    return corpus->n_tokens;
}

/* The range that holds number i, where range f is [first[f], first[f + 1]). */
static int64_t range_of(const int64_t first[], int64_t n, int64_t i) {
    int64_t low = 0, high = n;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (first[middle] <= i)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Number of the corpus' i-th document among all of the index. */
static int64_t nth_chosen(const sago_corpus *corpus, int64_t i) {
    if (!corpus->chosen) return i;
    int64_t words = (corpus->first_document[corpus->n_files] + 63) / 64;
    int64_t word = range_of(corpus->chosen_before, words, i);
    uint64_t bits = corpus->chosen[word];
    for (i -= corpus->chosen_before[word]; i > 0; i--) bits &= bits - 1;
    return word * 64 + __builtin_ctzll(bits);
}

static unit find_unit(const sago_corpus *corpus, sago_corpus_order order, int64_t i) {
    if (order.shuffled) i = (int64_t)sago_permute((uint64_t)i, (uint64_t)corpus->n_documents, order.key);
    int64_t number = nth_chosen(corpus, i);
    int file = (int)range_of(corpus->first_document, corpus->n_files, number);
    const sago_record *document = document_at(corpus, file, number - corpus->first_document[file]);
    sago_text_parts parts = sago_text_parts_of(document);
    return (unit){file, parts.first, parts.n, count_tokens(corpus, file, document)};
}

static int64_t *sum_pass(const sago_corpus *corpus, sago_corpus_order order) {
    int64_t n = corpus->n_documents, sum = 0;
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
    int64_t low = range_of(sums, (corpus->n_documents - 1) / STRIDE + 1, place);
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
    if (corpus->ends && *taken < n) {
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
