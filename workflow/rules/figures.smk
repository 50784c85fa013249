# Figures and tables, each from the cubes that it shows; claims, from the study's file; the report, from all of them.


rule figure:
    input:
        lambda wildcards: exhibit_input(figures_of, wildcards),
    output:
        f"{RESULTS}/figures/{{suite}}/{{name}}.pdf",
        report(
            f"{RESULTS}/figures/{{suite}}/{{name}}.png",
            caption="../report/exhibit.rst",
            category="2. Figures",
            subcategory="{suite}",
            labels=lambda wildcards: labels_of("figure", figures_of, wildcards),
        ),
        f"{RESULTS}/figures/{{suite}}/{{name}}.csv",
    log:
        f"{RESULTS}/logs/figure/{{suite}}/{{name}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/figure/{{suite}}/{{name}}.tsv"
    wildcard_constraints:
        suite="|".join(map(re.escape, (*STUDY.suites, SENSITIVITY))),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=30,
    params:
        stem=stem,
        study=lambda wildcards: RESULTS,
        config=CONFIG,
        exhibit=lambda wildcards: caption_of(figures_of, wildcards),
        decides=lambda wildcards: drawing_fingerprint(figures_of, wildcards),
    shell:
        "adamqlr figures {wildcards.name} --study {params.study} --suite {wildcards.suite}"
        " --config {params.config} --output {params.stem} 2> {log}"


rule table:
    input:
        lambda wildcards: exhibit_input(tables_of, wildcards),
    output:
        f"{RESULTS}/tables/{{suite}}/{{name}}.csv",
        f"{RESULTS}/tables/{{suite}}/{{name}}.md",
        f"{RESULTS}/tables/{{suite}}/{{name}}.tex",
        report(
            f"{RESULTS}/tables/{{suite}}/{{name}}.html",
            caption="../report/exhibit.rst",
            category=lambda wildcards: (
                "1. What was run" if wildcards.name == "provenance" else "3. Tables"
            ),
            subcategory="{suite}",
            labels=lambda wildcards: labels_of("table", tables_of, wildcards),
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
        study=lambda wildcards: RESULTS,
        config=CONFIG,
        exhibit=lambda wildcards: caption_of(tables_of, wildcards),
        decides=lambda wildcards: drawing_fingerprint(tables_of, wildcards),
    shell:
        "adamqlr tables {wildcards.name} --study {params.study} --suite {wildcards.suite}"
        " --config {params.config} --output {params.stem} 2> {log}"


rule claims:
    input:
        f"{RESULTS}/study.nc",
    output:
        f"{RESULTS}/claims.csv",
        f"{RESULTS}/claims.md",
        f"{RESULTS}/claims.pdf",
        f"{RESULTS}/claims_summary.csv",
        f"{RESULTS}/claims_summary.md",
        report(
            f"{RESULTS}/claims.png",
            caption="../report/claims_figure.rst",
            category="2. Figures",
            # The report sorts by name, and so has it before the paper's suites.
            subcategory="All suites",
            labels={"figure": "The paper's claims"},
        ),
        report(
            f"{RESULTS}/claims.html",
            caption="../report/claims.rst",
            category="4. Claims",
            labels={"table": "2. Each dataset and suite"},
        ),
        report(
            f"{RESULTS}/claims_summary.html",
            caption="../report/claims_summary.rst",
            category="4. Claims",
            labels={"table": "1. A verdict for each claim"},
        ),
    log:
        f"{RESULTS}/logs/claims.log",
    benchmark:
        f"{RESULTS}/benchmarks/claims.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=30,
    params:
        stem=stem,
        config=CONFIG,
        settings=STUDY.claims.model_dump(),
        names=fingerprint([names_of(suite) for suite in STUDY.suites]),
    shell:
        "adamqlr claims --study {input} --config {params.config} --output {params.stem} 2> {log}"


rule index:
    """The report: one page of all that the study shows, which works offline."""
    input:
        outputs_of("aggregate", "aggregate_sweep"),
        outputs_of("figure", "table", "claims"),
    output:
        f"{RESULTS}/index.html",
    log:
        f"{RESULTS}/logs/index.log",
    benchmark:
        f"{RESULTS}/benchmarks/index.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=30,
    params:
        study=lambda wildcards: RESULTS,
        config=CONFIG,
        decides=report_fingerprint(),
    shell:
        "adamqlr report --study {params.study} --config {params.config} --output {output} 2> {log}"
