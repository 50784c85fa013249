# Aggregation: run files to a cube for each pair, and all cubes and trials to the study's file.


rule aggregate:
    input:
        pair_run_files,
    output:
        f"{RESULTS}/cubes/{{suite}}/{{dataset}}/{{optimizer}}.nc",
    log:
        f"{RESULTS}/logs/aggregate/{{suite}}/{{dataset}}/{{optimizer}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/aggregate/{{suite}}/{{dataset}}/{{optimizer}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=15,
    params:
        grid_points=STUDY.statistics.grid_points,
    shell:
        "adamqlr aggregate {input} --grid-points {params.grid_points} --output {output} 2> {log}"


rule study:
    input:
        in_results(paths.cube_files(STUDY)),
        in_results(paths.trials_files(STUDY)),
    output:
        f"{RESULTS}/study.nc",
    log:
        f"{RESULTS}/logs/study.log",
    benchmark:
        f"{RESULTS}/benchmarks/study.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=30,
    params:
        config=CONFIG,
        # The file keeps it.
        decides=fingerprint(STUDY.model_dump(mode="json")),
    # Not by their names, of which a large study has more than fit on a command line.
    shell:
        "adamqlr aggregate --config {params.config} --output {output} 2> {log}"
