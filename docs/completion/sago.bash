# bash completion for sago. Generated from the command table; see CONTRIBUTING.md.
_sago() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words="" options="" verbs=""
    COMPREPLY=()
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "--help --version help train eval score generate import export data tokenizer report inspect verify bench doctor version" -- "$word"))
        return
    fi
    case ${COMP_WORDS[1]} in
        train) options="--set --quiet --help" ;;
        eval) options="--checkpoint --tasks --split --output --label --predictions --set --quiet --help" ;;
        score) options="--checkpoint --input --output --batch --set --quiet --help" ;;
        generate) options="--checkpoint --input --output --max-new-tokens --temperature --top-k --top-p --samples --seed --batch --set --quiet --help" ;;
        import) options="--format --set --quiet --help" ;;
        export) options="--format --set --quiet --help" ;;
        data) options="--count --rows --output --seed --tasks --json --set --quiet --help" verbs="stats sample pack generate" ;;
        tokenizer) options="--input --output --model --checkpoint --vocab-size --kind --seed --set --quiet --help" verbs="encode decode train" ;;
        report) options="--output --set --quiet --help" ;;
        inspect) options="--json --set --quiet --help" ;;
        verify) options="--set --quiet --help" ;;
        bench) options="--device --threads --milliseconds --json --set --quiet --help" ;;
        doctor) options="--json --set --quiet --help" ;;
        version) options="--json --set --quiet --help" ;;
    esac
    case ${COMP_WORDS[1]}:$before in
        eval:--split) words="eval train" ;;
        tokenizer:--kind) words="unigram bpe" ;;
    esac
    if [[ -n $words ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$word"))
    elif [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$word"))
    elif [[ $COMP_CWORD -eq 2 && -n $verbs ]]; then
        COMPREPLY=($(compgen -W "$verbs" -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}
complete -o filenames -F _sago sago
