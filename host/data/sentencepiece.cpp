// SPDX-License-Identifier: Apache-2.0
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iostream>
#include <streambuf>
#include <string>
#include <unordered_map>
#include <vector>

extern "C" {
#include "log.h"
#include "sentencepiece.h"
}

struct sago_sentencepiece {
    sentencepiece::SentencePieceProcessor processor;
};

/* What the library says, without the place in its source that it says it from: "./src/x.cc(660) [condition]
 * reason". */
static const char *reason(const sentencepiece::util::Status &status) {
    const char *text = status.error_message(), *bracket = std::strstr(text, "] ");
    return bracket && std::strstr(text, ".cc(") && bracket[2] ? bracket + 2 : text;
}

/* Runs body and turns whatever the library throws into a status. */
template <typename Body> static sago_status guarded(const char *what, Body body) {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return sago_fail(SAGO_E_MEMORY, "%s: no memory", what);
    } catch (const std::exception &e) {
        return sago_fail(SAGO_E_INPUT, "%s: SentencePiece: %s", what, e.what());
    } catch (...) {
        return sago_fail(SAGO_E_INPUT, "%s: SentencePiece failed without a reason", what);
    }
}

sago_status sago_sentencepiece_open(const char *name, const void *bytes, size_t size,
                                    sago_sentencepiece **out) {
    *out = nullptr;
    sago_sentencepiece *model = nullptr;
    sago_status status = guarded(name, [&] {
        model = new sago_sentencepiece;
        const auto opened = model->processor.LoadFromSerializedProto(
            absl::string_view(static_cast<const char *>(bytes), size));
        if (opened.ok()) return SAGO_OK;
        return sago_fail(SAGO_E_INPUT, "%s: not a SentencePiece model: %s", name, reason(opened));
    });
    if (status != SAGO_OK) {
        delete model;
        return status;
    }
    *out = model;
    return SAGO_OK;
}

void sago_sentencepiece_close(sago_sentencepiece *model) {
    delete model;
}

sago_status sago_sentencepiece_encode(const sago_sentencepiece *model, const char *text, size_t length,
                                      sago_ids *out) {
    return guarded("encode", [&] {
        std::vector<int> ids;
        const auto done = model->processor.Encode(absl::string_view(text, length), &ids);
        if (!done.ok()) return sago_fail(SAGO_E_INPUT, "encode: SentencePiece: %s", reason(done));
        for (int id : ids) sago_ids_add(out, id);
        return SAGO_OK;
    });
}

sago_status sago_sentencepiece_decode(const sago_sentencepiece *model, const int32_t *ids, int64_t n,
                                      sago_str *out) {
    return guarded("decode", [&] {
        std::string text;
        const auto done = model->processor.Decode(std::vector<int>(ids, ids + n), &text);
        if (!done.ok()) return sago_fail(SAGO_E_INPUT, "decode: SentencePiece: %s", reason(done));
        sago_str_add(out, text.data(), text.size());
        return SAGO_OK;
    });
}

namespace {

/* The trainer pulls sentences; a failure of the source ends the pulling and is reported after it. */
class source_iterator : public sentencepiece::SentenceIterator {
  public:
    explicit source_iterator(const sago_text_source *source) : source_(source) { pull(); }
    bool done() const override { return !more_; }
    void Next() override { pull(); }
    const std::string &value() const override { return text_; }
    sentencepiece::util::Status status() const override { return sentencepiece::util::Status(); }
    sago_status failure() const { return failure_; }

  private:
    void pull() {
        const char *text = nullptr;
        size_t length = 0;
        failure_ = source_->next(source_->context, &text, &length, &more_);
        if (failure_ != SAGO_OK) more_ = false;
        if (more_) text_.assign(text, length);
    }
    const sago_text_source *source_;
    std::string text_;
    bool more_ = false;
    sago_status failure_ = SAGO_OK;
};

/*
 * The trainer says how far it is in the lines of its log alone, which go to std::cerr: while it runs they come here
 * and become progress. A unigram model shrinks from its seed pieces to the vocabulary, by a constant share a round; a
 * BPE model grows to it.
 */
class log_progress : public std::streambuf {
  public:
    explicit log_progress(int pieces) : pieces_(pieces), before_(std::cerr.rdbuf(this)) {}
    ~log_progress() override { std::cerr.rdbuf(before_); }

  protected:
    int_type overflow(int_type c) override {
        if (c == '\n') {
            read_line();
            line_.clear();
        } else if (c != traits_type::eof() && line_.size() < 4096) {
            line_.push_back(static_cast<char>(c));
        }
        return traits_type::not_eof(c);
    }

  private:
    void read_line() {
        long size = number_after(" size="), goal = pieces_ + pieces_ / 10;
        if (size <= 0) return;
        if (line_.find("EM sub_iter=") != std::string::npos) {
            if (first_ == 0) first_ = size;
            double whole = std::log(static_cast<double>(first_) / static_cast<double>(goal));
            double done = std::log(static_cast<double>(first_) / static_cast<double>(size));
            sago_progress("training", whole > 0 ? done / whole : 1, "%ld pieces, %d wanted", size, pieces_);
        } else if (line_.find("Added: ") != std::string::npos) {
            sago_progress("training", static_cast<double>(size) / pieces_, "%ld of %d pieces", size, pieces_);
        }
    }
    long number_after(const char *name) const {
        size_t at = line_.find(name);
        return at == std::string::npos ? 0 : std::strtol(line_.c_str() + at + std::strlen(name), nullptr, 10);
    }
    int pieces_;
    long first_ = 0;
    std::string line_;
    std::streambuf *before_;
};

} // namespace

sago_status sago_sentencepiece_train(const sago_text_source *texts, int vocab_size, const char *kind,
                                     uint64_t seed, sago_str *model) {
    return guarded("tokenizer train", [&] {
        const std::unordered_map<std::string, std::string> options = {
            {"vocab_size", std::to_string(vocab_size)},
            {"model_type", kind},
            {"normalization_rule_name", "nmt_nfkc"},
            {"pad_id", "0"},
            {"eos_id", "1"},
            {"unk_id", "2"},
            {"bos_id", "-1"},
            /* The sums of the training differ by how many threads make them: always as many, so that a
               training gives the same file on every machine. */
            {"num_threads", "4"},
            {"train_extremely_large_corpus", "false"},
            {"input_sentence_size", "2000000"},
            {"shuffle_input_sentence", "true"},
            {"max_sentence_length", "16384"},
            {"minloglevel", "0"},
        };
        sentencepiece::SetRandomGeneratorSeed(static_cast<unsigned>(seed));
        source_iterator iterator(texts);
        std::string bytes;
        log_progress progress(vocab_size);
        const auto done = sentencepiece::SentencePieceTrainer::Train(options, &iterator, &bytes);
        if (iterator.failure() != SAGO_OK) return iterator.failure();
        if (!done.ok()) return sago_fail(SAGO_E_INPUT, "tokenizer train: SentencePiece: %s", reason(done));
        sago_str_clear(model);
        sago_str_add(model, bytes.data(), bytes.size());
        return SAGO_OK;
    });
}
