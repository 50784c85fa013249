# Figures and tables, each from the study's file alone.


rule figure:
    input:
        f"{RESULTS}/study.nc",
    output:
        f"{RESULTS}/figures/{{suite}}/{{family}}.pdf",
        report(
            f"{RESULTS}/figures/{{suite}}/{{family}}.png",
            caption="../report/figure.rst",
            category="Figures",
            subcategory="Suite {suite}",
            labels={"figure": "{family}"},
        ),
        f"{RESULTS}/figures/{{suite}}/{{family}}.csv",
    log:
        f"{RESULTS}/logs/figure/{{suite}}/{{family}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/figure/{{suite}}/{{family}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=30,
    params:
        stem=stem,
        resamples=STUDY.statistics.resamples,
        seed=STUDY.statistics.seed,
        title=lambda wildcards: FIGURES[wildcards.family].title,
    shell:
        "adamqlr figures {wildcards.family} --study {input} --suite {wildcards.suite}"
        " --resamples {params.resamples} --resampling-seed {params.seed} --output {params.stem} 2> {log}"


rule table:
    input:
        f"{RESULTS}/study.nc",
    output:
        f"{RESULTS}/tables/{{suite}}/{{name}}.csv",
        f"{RESULTS}/tables/{{suite}}/{{name}}.md",
        f"{RESULTS}/tables/{{suite}}/{{name}}.tex",
        report(
            f"{RESULTS}/tables/{{suite}}/{{name}}.html",
            caption="../report/table.rst",
            category="Tables",
            subcategory="Suite {suite}",
            labels={"table": "{name}"},
        ),
    log:
        f"{RESULTS}/logs/table/{{suite}}/{{name}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/table/{{suite}}/{{name}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=30,
    params:
        stem=stem,
        resamples=STUDY.statistics.resamples,
        seed=STUDY.statistics.seed,
        title=lambda wildcards: TABLES[wildcards.name].title,
    shell:
        "adamqlr tables {wildcards.name} --study {input} --suite {wildcards.suite}"
        " --resamples {params.resamples} --resampling-seed {params.seed} --output {params.stem} 2> {log}"
