# bash completion for sago. Generated from the command table; see CONTRIBUTING.md.
_sago() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words="" options="" verbs=""
    COMPREPLY=()
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "--help --version help train eval score generate import export data tokenizer report inspect verify plan bench doctor version" -- "$word"))
        return
    fi
    case ${COMP_WORDS[1]} in
        train) options="--set --quiet --help" ;;
        eval) options="--checkpoint --tasks --split --output --label --predictions --set --quiet --help" ;;
        score) options="--checkpoint --input --output --batch --set --quiet --help" ;;
        generate) options="--checkpoint --input --output --max-new-tokens --temperature --top-k --top-p --samples --seed --no-logprob --batch --set --quiet --help" ;;
        import) options="--format --force --set --quiet --help" ;;
        export) options="--format --shard-bytes --force --set --quiet --help" ;;
        data) options="--count --rows --output --seed --tasks --json --set --quiet --help" verbs="stats sample pack generate" ;;
        tokenizer) options="--input --output --model --checkpoint --vocab-size --kind --seed --set --quiet --help" verbs="encode decode train" ;;
        report) options="--output --set --quiet --help" ;;
        inspect) options="--json --flight --set --quiet --help" ;;
        verify) options="--set --quiet --help" ;;
        plan) options="--gpu --nodes --gpus-per-node --data-axis --price --json --simulate --svg --measure --threads --set --quiet --help" ;;
        bench) options="--device --threads --milliseconds --json --set --quiet --help" ;;
        doctor) options="--all-ranks --dir --json --set --quiet --help" ;;
        version) options="--json --set --quiet --help" ;;
    esac
    case ${COMP_WORDS[1]}:$before in
        eval:--split) words="eval train" ;;
        tokenizer:--kind) words="unigram bpe" ;;
        plan:--data-axis) words="sharded replicated" ;;
    esac
    if [[ $before == --set ]]; then
        compopt -o nospace 2>/dev/null
        COMPREPLY=($(compgen -S = -W "device threads graphs run.dir run.steps run.seed model.init model.family model.vocab_size model.d_model model.n_heads model.kv_heads model.head_dim model.d_ff model.encoder_layers model.decoder_layers model.activation model.tied_embeddings model.relative_buckets model.relative_max_distance model.rope model.rope_theta model.norm_epsilon model.logit_scale model.attention data.tokenizer data.mixture data.holdout data.leak_check data.order data.packing data.pack_window data.input_length data.target_length data.few_shot data.cot data.max_exemplars data.eval_fraction data.templates data.cache_dir data.prefetch train.global_batch train.micro_batch train.dropout train.z_loss train.label_smoothing train.recompute train.precision train.loss_chunk train.non_finite train.max_skipped train.peak_tflops train.straggler_every train.spike.threshold train.spike.rewind_steps train.spike.skip_batches optimizer.name optimizer.learning_rate optimizer.schedule optimizer.warmup_steps optimizer.schedule_steps optimizer.final_learning_rate optimizer.decay_exponent optimizer.clip_threshold optimizer.minimum_scale optimizer.momentum optimizer.weight_decay optimizer.weight_decay_by_rate optimizer.weight_decay_power optimizer.clip_norm optimizer.factored optimizer.min_factored_dim optimizer.parameter_scale optimizer.second_moments optimizer.step_offset optimizer.groups mesh.data mesh.model mesh.data_axis mesh.gathered mesh.timeout_seconds mesh.bucket_bytes mesh.rules comm.check checkpoint.every checkpoint.keep checkpoint.keep_every checkpoint.background eval.tasks eval.examples_per_task eval.batch eval.max_new_tokens eval.samples eval.temperature eval.top_k eval.top_p eval.length_normalised eval.bootstrap eval.few_shot eval.cot eval.every" -- "$word"))
        return
    fi
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
