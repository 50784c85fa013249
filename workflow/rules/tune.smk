# Tuning: each shard trains its share of a pair's configurations; the best one is chosen from all of them, where there is
# one shard in the same job. Where rungs count steps, what these cost is measured before.


rule step_costs:
    input:
        unpack(step_costs_input),
    output:
        f"{RESULTS}/step_costs/{{dataset}}/{{optimizer}}.csv",
    log:
        f"{RESULTS}/logs/step_costs/{{dataset}}/{{optimizer}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/step_costs/{{dataset}}/{{optimizer}}.tsv"
    conda:
        ENVIRONMENT
    threads: cpu_threads
    resources:
        gpu=GPUS,
        cpus_per_task=cpu_threads,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        config=CONFIG,
        decides=step_costs_fingerprint,
    shell:
        "adamqlr step-costs --config {params.config} --dataset {wildcards.dataset}"
        " --optimizer {wildcards.optimizer} --output {output} 2> {log}"


rule tune_shard:
    input:
        unpack(search_input),
    output:
        f"{RESULTS}/tuning/{{suite}}/{{dataset}}/{{optimizer}}/shards/{{shard}}.nc",
    log:
        f"{RESULTS}/logs/tune_shard/{{suite}}/{{dataset}}/{{optimizer}}/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tune_shard/{{suite}}/{{dataset}}/{{optimizer}}/{{shard}}.tsv"
    conda:
        ENVIRONMENT
    threads: cpu_threads
    resources:
        gpu=GPUS,
        cpus_per_task=cpus,
        mem_mb=memory,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        config=CONFIG,
        costs=step_costs_option,
        what=lambda wildcards, output: f"--shard {wildcards.shard}/{SHARDS} --output {output}",
        decides=search_fingerprint,
    shell:
        "adamqlr tune --config {params.config} --suite {wildcards.suite} --dataset {wildcards.dataset}"
        " --optimizer {wildcards.optimizer} {params.costs} {params.what} 2> {log}"


if SHARDS == 1:

    # To choose takes less time than to start a job that does.
    use rule tune_shard as tune with:
        output:
            trials=f"{RESULTS}/tuning/{{suite}}/{{dataset}}/{{optimizer}}/trials.nc",
            best=f"{RESULTS}/tuning/{{suite}}/{{dataset}}/{{optimizer}}/best.yaml",
        log:
            f"{RESULTS}/logs/tune/{{suite}}/{{dataset}}/{{optimizer}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/tune/{{suite}}/{{dataset}}/{{optimizer}}.tsv"
        params:
            config=CONFIG,
            costs=step_costs_option,
            what=lambda wildcards, output: f"--output {output.trials} --best {output.best}",
            decides=search_fingerprint,

else:

    rule tune:
        input:
            shard_files,
        output:
            trials=f"{RESULTS}/tuning/{{suite}}/{{dataset}}/{{optimizer}}/trials.nc",
            best=f"{RESULTS}/tuning/{{suite}}/{{dataset}}/{{optimizer}}/best.yaml",
        log:
            f"{RESULTS}/logs/tune/{{suite}}/{{dataset}}/{{optimizer}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/tune/{{suite}}/{{dataset}}/{{optimizer}}.tsv"
        conda:
            ENVIRONMENT
        resources:
            mem_mb=lambda wildcards, attempt: 2000 * attempt,
            runtime=10,
        shell:
            "adamqlr select {input} --output {output.trials} --best {output.best} 2> {log}"
