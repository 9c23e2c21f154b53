# The study for readers: an executed notebook and one self-contained HTML report.
#
# Inputs:  results/<study>/tables (rule aggregate), results/<study>/figures (rule figures),
#          notebooks/study.ipynb (source, without outputs)
# Outputs: results/<study>/notebooks/study.ipynb (executed), results/<study>/report.html
# Steps:   both read the tables only; the report puts the SVG figures into its page
#
# Where models failed, nothing of this runs as a rule: a rule has all of its inputs. `show_gaps` then makes
# the same of what is there, and the tables and the report show what is not. The next run makes it anew.

import subprocess

NOTEBOOK = f"{RESULTS}/{STUDY.name}/notebooks/study.ipynb"
REPORT = f"{RESULTS}/{STUDY.name}/report.html"


def show_gaps():
    """Make tables, figures, notebook and report of a study in which models failed."""
    if not any(Path(OUT).glob("status/*.json")):
        return
    print("Some models failed; tables and report of the others:", file=sys.stderr)
    published = ["--published", STUDY.published] if STUDY.published else []
    title = ["--title", STUDY.title] if STUDY.title else []
    source = Path(workflow.basedir) / "notebooks/study.ipynb"
    for command in (
        ["aggregate", "--study", STUDY.name, "--results", RESULTS, *published],
        ["figures", TABLES, "--out", FIGURES],
        ["notebook", source, TABLES, "--out", NOTEBOOK],
        [
            "report",
            TABLES,
            "--figures",
            FIGURES,
            "--out",
            REPORT,
            "--study",
            STUDY.name,
            *title,
        ],
    ):
        if subprocess.run(["wildmerge", *map(str, command)], check=False).returncode:
            return


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
