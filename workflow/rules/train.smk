# Final training: some seeds of a pair's best configuration in one job.


rule train:
    input:
        unpack(training_input),
    output:
        f"{RESULTS}/runs/{{suite}}/{{dataset}}/{{optimizer}}/seeds_{{first}}-{{last}}.nc",
    log:
        f"{RESULTS}/logs/train/{{suite}}/{{dataset}}/{{optimizer}}/seeds_{{first}}-{{last}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{suite}}/{{dataset}}/{{optimizer}}/seeds_{{first}}-{{last}}.tsv"
    conda:
        ENVIRONMENT
    threads: cpu_threads
    resources:
        gpu=GPUS,
        cpus_per_task=cpus,
        mem_mb=memory,
        runtime=training_minutes,
    params:
        config=CONFIG,
        what=what_is_trained,
        best=best_option,
        decides=training_fingerprint,
    shell:
        "adamqlr {params.what} --config {params.config} --seeds {wildcards.first}-{wildcards.last}"
        " {params.best} --output {output} 2> {log}"
