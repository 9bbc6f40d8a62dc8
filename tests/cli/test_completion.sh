#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Loads the completion as bash does and asks it: test_completion.sh COMPLETION_FILE
set -u
source "$1"
complete -p sago >/dev/null || exit 1
failed=0

ask() { # WORDS... : the completions of the last of them
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    _sago
}

wants() { # EXPECTED WORDS...
    local expected=$1
    shift
    ask "$@"
    if [ "${COMPREPLY[*]}" != "$expected" ]; then
        echo "completing '$*': '${COMPREPLY[*]}' instead of '$expected'"
        failed=1
    fi
}

wants "train" sago tr
wants "tokenizer" sago to
wants "encode" sago tokenizer en
wants "stats sample" sago data s
wants "--checkpoint" sago score --ch
wants "--set" sago train --se
wants "unigram" sago tokenizer train --kind u
wants "optimizer.learning_rate=" sago train --set optimizer.lea
wants "train.spike.threshold= train.spike.rewind_steps= train.spike.skip_batches=" sago eval x --set train.spike
cd "$(mktemp -d)" && touch config.yaml
wants "config.yaml" sago train conf
rm -r "$PWD"
exit $failed
