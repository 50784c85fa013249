# Sensitivity studies: some seeds of a pair with one hyperparameter at one of its values, and their cube.


use rule train as sweep with:
    output:
        f"{RESULTS}/runs/{SENSITIVITY}/{{sweep}}/{{point}}/seeds_{{first}}-{{last}}.nc",
    log:
        f"{RESULTS}/logs/sweep/{{sweep}}/{{point}}/seeds_{{first}}-{{last}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sweep/{{sweep}}/{{point}}/seeds_{{first}}-{{last}}.tsv"


use rule aggregate as aggregate_sweep with:
    input:
        sweep_run_files,
    output:
        f"{RESULTS}/cubes/{SENSITIVITY}/{{sweep}}/{{point}}.nc",
    log:
        f"{RESULTS}/logs/aggregate_sweep/{{sweep}}/{{point}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/aggregate_sweep/{{sweep}}/{{point}}.tsv"
