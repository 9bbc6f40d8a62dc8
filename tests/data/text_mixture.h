// SPDX-License-Identifier: Apache-2.0
/* A mixture of plain text in bytes, for tests of the source. Included after cmocka.h. */
#ifndef SAGO_TEST_TEXT_MIXTURE_H
#define SAGO_TEST_TEXT_MIXTURE_H

#include "mixture.h"

static inline sago_tokenizer *bytes_tokenizer(void) {
    sago_tokenizer *tokenizer;
    assert_int_equal(sago_tokenizer_open("bytes", &tokenizer), SAGO_OK);
    return tokenizer;
}

static inline sago_mixture *open_mixture(const sago_config *config, const sago_tokenizer *tokenizer,
                                  bool decoder_only) {
    sago_mixture *mixture;
    if (sago_mixture_open(config, tokenizer, 400, decoder_only, &mixture) != SAGO_OK)
        fail_msg("%s", sago_message());
    return mixture;
}

#endif
