# What comes before any computing: the configuration as one file, and the data.


localrules:
    configuration,
    fetch_data,


rule configuration:
    """Write the configuration in force, command-line settings included, for jobs and for hands."""
    output:
        CONFIG,
    log:
        f"{RESULTS}/logs/configuration.log",
    benchmark:
        f"{RESULTS}/benchmarks/configuration.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=100,
        runtime=5,
    params:
        text=yaml.safe_dump(dict(config), sort_keys=False),
    shell:
        "printf '%s' {params.text:q} > {output} 2> {log}"


rule fetch_data:
    """Bring a dataset to the data folder and check it, on the head node: nothing else touches the network."""
    input:
        config=ancient(CONFIG),
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
    shell:
        "adamqlr fetch --config {input.config} --dataset {wildcards.dataset} --output {output} 2> {log}"
