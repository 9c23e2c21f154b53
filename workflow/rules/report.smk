# The study for readers: an executed notebook and one self-contained HTML report.
#
# Inputs:  results/<study>/tables (rule aggregate), results/<study>/figures (rule figures),
#          notebooks/study.ipynb (source, without outputs)
# Outputs: results/<study>/notebooks/study.ipynb (executed), results/<study>/report.html
# Steps:   both read the tables only; the report puts the SVG figures into its page

NOTEBOOK = f"{RESULTS}/{STUDY.name}/notebooks/study.ipynb"
REPORT = f"{RESULTS}/{STUDY.name}/report.html"


rule notebook:
    input:
        rules.aggregate.output.csv,
        source=f"{workflow.basedir}/notebooks/study.ipynb",
    output:
        NOTEBOOK,
    log:
        f"{OUT}/logs/notebook.log",
    params:
        tables=TABLES,
    message:
        "Execute the notebook"
    shell:
        "wildmerge notebook {input.source:q} {params.tables:q} --out {output:q} &> {log:q}"


rule report:
    input:
        rules.aggregate.output.csv,
        figures=rules.figures.output[0],
    output:
        REPORT,
    params:
        tables=TABLES,
        study=STUDY.name,
        title=["--title", STUDY.title] if STUDY.title else [],
    message:
        "Write the report"
    shell:
        "wildmerge report {params.tables:q} --figures {input.figures:q} --out {output:q} "
        "--study {params.study:q} {params.title:q}"
