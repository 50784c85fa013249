# The study: tune, train, aggregate, draw. README.md says what to type.
from snakemake.utils import min_version

min_version("9.13")

if not workflow.configfiles:

    configfile: f"{workflow.basedir}/workflow/config/quickstart.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/tune.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/sensitivity.smk"
include: "workflow/rules/figures.smk"


rule all:
    default_target: True
    input:
        outputs_of("aggregate", "aggregate_sweep", "study"),
        outputs_of("figure", "table", "claims", "index"),
