# What comes before any computing: the data.


localrules:
    fetch_data,


rule fetch_data:
    """Bring a dataset to the data folder and check it, on the head node: nothing else touches the network."""
    output:
        f"{RESULTS}/data/{{dataset}}.txt",
    log:
        f"{RESULTS}/logs/fetch_data/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch_data/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        config=CONFIG,
    shell:
        "adamqlr fetch --config {params.config} --dataset {wildcards.dataset} --output {output} 2> {log}"
