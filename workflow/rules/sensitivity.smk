# Sensitivity studies: some seeds of a pair with one hyperparameter at one of its values, and their cube.


rule sweep:
    input:
        unpack(training_input),
    output:
        f"{RESULTS}/runs/{SENSITIVITY}/{{sweep}}/{{point}}/seeds_{{first}}-{{last}}.nc",
    log:
        f"{RESULTS}/logs/sweep/{{sweep}}/{{point}}/seeds_{{first}}-{{last}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sweep/{{sweep}}/{{point}}/seeds_{{first}}-{{last}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        gpu=1,
        cpus_per_task=processes,
        mem_mb=memory,
        runtime=training_minutes,
    params:
        config=CONFIG,
        best=best_option,
        decides=training_fingerprint,
    shell:
        "adamqlr sweep {wildcards.sweep} --config {params.config} --value {wildcards.point}"
        " --seeds {wildcards.first}-{wildcards.last} {params.best} --output {output} 2> {log}"


rule aggregate_sweep:
    input:
        sweep_run_files,
    output:
        f"{RESULTS}/cubes/{SENSITIVITY}/{{sweep}}/{{point}}.nc",
    log:
        f"{RESULTS}/logs/aggregate_sweep/{{sweep}}/{{point}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/aggregate_sweep/{{sweep}}/{{point}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=15,
    params:
        grid_points=STUDY.statistics.grid_points,
    shell:
        "adamqlr aggregate {input} --grid-points {params.grid_points} --output {output} 2> {log}"
